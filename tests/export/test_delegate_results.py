"""What a backend gives is checked against the program (SPEC S191, S216)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor, errors
from polyop.export import Dim, LoweredModule, call_delegate, export, register_backend, to_backend

N = Dim("n", min=1)


def f(x: Tensor) -> tuple[Any, ...]:
    return polyop.cat([x, x]), x.sum(), x.shape[0]


PROGRAM = export(f, (polyop.ones(3),), dynamic_shapes=({0: N},))


class Told:
    """A backend that gives what it is told to."""

    backend_id = "results_told"
    payload: Any = b"told"
    run: Callable[..., Any] = staticmethod(f)

    def takes(self, node: Any) -> bool:
        return True

    def lower(self, program: Any, compile_specs: Any) -> bytes:
        return self.payload

    def executor(self, lowered: LoweredModule) -> Any:
        return lambda *args: self.run(*args)


TOLD = Told()
register_backend(TOLD)
LOWERED = LoweredModule(PROGRAM, "results_told", b"told")


@pytest.mark.parametrize("size", [1, 3, 4])
def test_right_results_pass_in_every_size(size: int) -> None:
    """S191: symbolic sizes are those of the arguments."""
    TOLD.run = f
    found = call_delegate(LOWERED, polyop.ones(size))
    assert [x.tolist() if isinstance(x, Tensor) else x for x in found] == [
        [1.0] * (2 * size), size, size,
    ]  # fmt: skip


WRONG: dict[str, Callable[[Tensor], Any]] = {
    "a bare tensor": lambda x: polyop.cat([x, x]),
    "too few": lambda x: f(x)[:2],
    "too many": lambda x: (*f(x), x),
    "None": lambda x: None,
    "a None inside": lambda x: (None, *f(x)[1:]),
    "a shape": lambda x: (x, *f(x)[1:]),
    "axes": lambda x: (f(x)[0][None], *f(x)[1:]),
    "a dtype": lambda x: (f(x)[0].to(polyop.float64), *f(x)[1:]),
    "an array": lambda x: (np.ones(6, "f4"), *f(x)[1:]),
    "a size": lambda x: (*f(x)[:2], 7),
    "a tensor for a size": lambda x: (*f(x)[:2], x),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_results_are_named(wrong: str) -> None:
    """S191: what the backend gives is all results of the program, or a DelegateError."""
    TOLD.run = WRONG[wrong]
    with pytest.raises(errors.DelegateError, match="the executor of results_told gave") as caught:
        call_delegate(LOWERED, polyop.ones(4))
    assert caught.value.declared and caught.value.seen


def test_results_of_parts_are_checked_too() -> None:
    """S216: a part gives a tuple; a bare tensor is no tuple of its rows."""
    part = to_backend(export(lambda x: x * 2, (polyop.ones(1, 3),)), TOLD).module()
    TOLD.run = lambda x: (x * 2,)
    assert part(polyop.ones(1, 3)).tolist() == [[2, 2, 2]]
    TOLD.run = lambda x: x * 2
    with pytest.raises(errors.DelegateError, match="another structure"):
        part(polyop.ones(1, 3))


@pytest.mark.parametrize("payload", [None, 5, "text", [1]])
def test_a_payload_is_bytes(payload: Any) -> None:
    """S216: `to_backend` raises DelegateError where a backend lowers to no bytes."""
    TOLD.payload = payload
    try:
        with pytest.raises(errors.DelegateError, match="no bytes"):
            to_backend(PROGRAM, TOLD)
    finally:
        TOLD.payload = b"told"
