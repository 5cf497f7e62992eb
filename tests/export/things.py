"""Classes that saved programs hold; programs find them only once this module is imported."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import polyop
from polyop import Tensor


class Mode(Enum):
    SOFT = 1
    HARD = 2


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@dataclass
class Weights:
    """A record of tensors, and what is none."""

    matrix: Tensor
    bias: Tensor | None
    factor: float


@dataclass(frozen=True)
class Scale:
    """A value with a flat form."""

    factor: float

    def __fx_repr__(self) -> tuple[str, dict[str, Any]]:
        return f"Scale({self.factor})", {"Scale": Scale}

    def __obj_flatten__(self) -> tuple[tuple[str, Any], ...]:
        return (("factor", self.factor),)

    @classmethod
    def __obj_unflatten__(cls, flat: Any) -> Scale:
        return cls(**dict(flat))


@dataclass(frozen=True)
class Formless:
    """A value without one."""

    factor: float

    def __fx_repr__(self) -> tuple[str, dict[str, Any]]:
        return f"Formless({self.factor})", {"Formless": Formless}


polyop.library.register_opaque_type(Scale, typ="value")
polyop.library.register_opaque_type(Formless, typ="value")


@polyop.custom_op("test_file::press", mutates_args=())
def press(x: Tensor, mode: Mode) -> Tensor:
    return x.clip(-1, 1) if mode is Mode.HARD else x.tanh()


@press.register_fake
def _(x, mode):
    return polyop.empty_like(x)


@polyop.custom_op("test_file::dense", mutates_args=())
def dense(x: Tensor, weights: Weights) -> Tensor:
    product = x @ weights.matrix * weights.factor
    return product if weights.bias is None else product + weights.bias


@dense.register_fake
def _(x, weights):
    return x @ weights.matrix


@polyop.custom_op("test_file::scaled", mutates_args=())
def scaled(x: Tensor, scale: Scale) -> Tensor:
    return x * scale.factor


@scaled.register_fake
def _(x, scale):
    return polyop.empty_like(x)


@polyop.custom_op("test_file::formless", mutates_args=())
def formless(x: Tensor, scale: Formless) -> Tensor:
    return x * scale.factor


@formless.register_fake
def _(x, scale):
    return polyop.empty_like(x)


@polyop.custom_op("test_file::parted", mutates_args=())
def parted(x: Tensor, factor: float) -> Weights:
    return Weights(x * factor, x[0] * 2, factor)


@parted.register_fake
def _(x, factor):
    return Weights(polyop.empty_like(x), polyop.empty_like(x[0]), factor)
