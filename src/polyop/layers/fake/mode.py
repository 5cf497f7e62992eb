"""`FakeTensorMode`: inside it, and on the tensors that it made, nothing is computed.

A mode owns a space of metas with the memo of what was computed in it, so all
that it remembered goes with it, and fakes of two modes never mix.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from polyop.devices import Device
from polyop.dispatch.bits import GRAD, INFERENCE_TENSOR, SUBCLASS, WRAPPED
from polyop.dispatch.context import Word, entered
from polyop.dispatch.context import word as current_word
from polyop.errors import FakeError, UsageError, UsageTypeError, an
from polyop.layers.fake.convert import symbolic_meta
from polyop.lazy import load
from polyop.symbolic import ShapeEnv
from polyop.tensor.meta import Meta, MetaSpace, meta_of
from polyop.tensor.storage import Version, share, version_of
from polyop.tensor.tensor import Tensor, of_meta

_Found = tuple["weakref.ref[Tensor]", Tensor]


class FakeTensorMode(entered):
    """Inside it, tensors are made without data, and calls compute shapes alone (S147).

    Args:
        allow_non_fake_inputs: take real tensors in fake calls as if they were fakes.
        shape_env: where sizes that depend on data, and symbols of inputs, are made.
        static_shapes: keep the sizes of inputs plain ints; by default, without `shape_env`.

    Attributes:
        tracer: of the function whose tensors its fakes are, while it is traced.

    Example:
        >>> import numpy as np
        >>> from polyop.tensor.tensor import of_array
        >>> mode = FakeTensorMode()
        >>> mode.from_tensor(of_array(np.zeros((2, 3), "float32")))
        FakeTensor(..., size=(2, 3), dtype=float32, device=cpu)
    """

    def __init__(
        self,
        *,
        allow_non_fake_inputs: bool = False,
        shape_env: ShapeEnv | None = None,
        static_shapes: bool | None = None,
    ) -> None:
        if shape_env is not None and not isinstance(shape_env, ShapeEnv):
            raise UsageTypeError("shape_env is a ShapeEnv", seen=repr(shape_env))
        if shape_env is None and static_shapes is False:
            raise UsageError("symbolic sizes need a ShapeEnv", fix="pass shape_env=ShapeEnv()")
        self.allow_non_fake_inputs = allow_non_fake_inputs
        self.shape_env = shape_env
        if shape_env is not None:
            shape_env.on_failure = self.note_failure
        self.static_shapes = shape_env is None if static_shapes is None else static_shapes
        self.space = MetaSpace(self)
        self.memo = self.space.memo
        self.rule_words: dict[Any, Word] = {}
        self._made: dict[int, _Found] = {}
        self._count = 0
        self.tracer: Any = None

    @classmethod
    def is_infra_mode(cls) -> bool:
        """Tell that it goes into a slot behind all user modes (S162)."""
        return True

    def word(self) -> Word:
        """Give the word to enter: a trace of other tensors records nothing there.

        What is found out of the fakes of this mode are facts for its program. It
        still meets looks at its own tensors.
        """
        now = current_word()
        if now.fake is self or now.recorder is None:
            return now.but(fake=self)
        return now.but(fake=self, tracer=None, pre=(), probing=now.recorder)

    @contextmanager
    def traced_by(self, tracer: Any) -> Iterator[None]:
        """Let a trace know what is done to the fakes of this mode where it does not see it."""
        before, self.tracer = self.tracer, tracer
        try:
            yield
        finally:
            self.tracer = before

    def note_failure(self, error: Exception) -> None:
        """Tell the trace, if any, of an error that its function alone would not raise."""
        now = current_word()
        tracer = self.tracer if now.rule is None and now.recorder is None else now.recorder
        if tracer is not None:
            tracer.note_failure(error)

    def from_tensor(
        self, tensor: Tensor, *, dynamic: Collection[int] = (), source: str = ""
    ) -> Tensor:
        """Give the fake of a tensor, the same one each time; views of one base stay together.

        Args:
            tensor: a real tensor, one on the device `meta`, or a fake of this mode.
            dynamic: the axes whose size gets a symbol of its own, whatever it is.
            source: how a program finds the tensor; guards name its sizes by it.

        Raises:
            FakeError: it is a fake of another mode.
        """
        space = self._space_of(tensor)
        if space is self.space:
            return tensor
        known = self._made.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        return self._keep(tensor, source, dynamic)

    def _keep(self, tensor: Tensor, source: str | None, dynamic: Collection[int] = ()) -> Tensor:
        """Make a fake, and remember it while the tensor lives."""
        fake = self._fake(tensor, dynamic, source)
        key = id(tensor)
        self._made[key] = weakref.ref(tensor, lambda _: self._made.pop(key, None)), fake
        return fake

    def constant(self, tensor: Tensor) -> Tensor:
        """Give the fake of a tensor whose sizes are part of the program, and stay plain ints."""
        if self._space_of(tensor) is self.space:
            return tensor
        known = self._made.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else self._keep(tensor, None)

    def from_outside(self, tensor: Tensor, *, source: str | None = None) -> Tensor:
        """Give a fake of the shape that a tensor of a transform shows."""
        return of_meta(self._meta(tensor, (), source))

    def from_object(self, value: Any) -> Any:
        """Give the fake of an opaque object, the same one each time (S185)."""
        return load("polyop.objects.fakes:fake_of")(self, value)

    def _space_of(self, tensor: Tensor) -> MetaSpace | None:
        if not isinstance(tensor, Tensor):
            raise UsageTypeError("a fake is made of a Tensor", seen=type(tensor).__name__)
        payload = tensor.payload
        space: MetaSpace | None = payload.space if payload.__class__ is Meta else None
        if space is not None and space is not self.space and space.mode is not None:
            raise FakeError(
                "a fake tensor of one mode is used in another",
                seen=repr(tensor),
                fix="make all fakes with one FakeTensorMode",
            )
        if tensor.keys & WRAPPED:
            raise FakeError("a value inside a transform has no fake", seen=repr(tensor))
        return space

    def _fake(self, tensor: Tensor, dynamic: Collection[int], source: str | None) -> Tensor:
        if tensor.keys & SUBCLASS:
            return self._fake_inside(tensor, source)
        fake = of_meta(self._meta(tensor, dynamic, source))
        fake.keys |= tensor.keys & INFERENCE_TENSOR
        view = getattr(tensor, "view_of", None)
        if view is not None:
            base = self._base(view[0], source)
            fake.version = share(base)
            fake.view_of = (base, *view[1:])
        elif tensor.version.__class__ is Version:
            fake.version = version_of(tensor)
        if tensor.keys & GRAD:
            fake.requires_grad_()
        return fake

    def _fake_inside(self, tensor: Tensor, source: str | None) -> Tensor:
        """Make a wrapper of the same class around fakes."""
        if not hasattr(tensor, "__tensor_flatten__"):
            raise FakeError(
                f"{an(type(tensor).__name__)} has no fake: only its class knows what is inside",
                seen=repr(tensor),
                fix="give the class __tensor_flatten__ and __tensor_unflatten__",
            )
        fake: Tensor = load("polyop.tensor.subclass:map_inner")(
            tensor, lambda t: self.constant(t) if source is None else self.from_tensor(t)
        )
        return fake.requires_grad_() if tensor.keys & GRAD else fake

    def _base(self, base: Tensor, source: str | None) -> Tensor:
        if source is None:
            return self.constant(base)
        return self.from_tensor(base, source=f"{source}._base" if source else "")

    def _meta(self, tensor: Tensor, dynamic: Collection[int], source: str | None) -> Meta:
        if self.shape_env is None or source is None or (self.static_shapes and not dynamic):
            return meta_of(tensor, self.space)
        if not source:
            source = f"t{self._count}"
            self._count += 1
        return symbolic_meta(tensor, self.space, self.shape_env, source, dynamic)

    def meta(self, shape: Any, dtype: Any, strides: Any = None, device: Any = "cpu") -> Meta:
        """Give a meta of this mode."""
        return self.space.meta(tuple(shape), dtype, strides, Device(device))


def mode_inside(tensor: Tensor) -> FakeTensorMode | None:
    """Give the mode of the fake that is inside a tensor of transforms, or None."""
    while tensor.keys & WRAPPED:
        found = tensor.payload.value
        tensor = found() if callable(found) else found
    payload = tensor.payload
    mode: FakeTensorMode | None = payload.space.mode if payload.__class__ is Meta else None
    return mode


def fake_outside(tensor: Tensor) -> Tensor:
    """Give a fake of a tensor of a transform, of the mode that is running if there is one."""
    mode = current_word().fake or mode_inside(tensor)
    return (mode or FakeTensorMode(allow_non_fake_inputs=True)).from_outside(tensor)
