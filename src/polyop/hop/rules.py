"""What the rules of higher-order operators get and are put into: by transform, gradient, fake."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from polyop.dispatch.bind import code_of
from polyop.dispatch.bits import GRAD, LIFTED, NO_GRAD
from polyop.dispatch.context import AUTOGRAD, Word, set_word, under, word
from polyop.dispatch.implementations import TransformType
from polyop.errors import AutogradError
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.levels import Level

Fn = TypeVar("Fn", bound=Callable[..., Any])
Handler = Callable[..., Any]


class Interpreter:
    """What a rule for a transform gets of it."""

    __slots__ = ("level",)

    def __init__(self, level: Level) -> None:
        self.level: Any = level

    def key(self) -> TransformType:
        """Give the kind of the transform."""
        return transform_of(self.level)

    def lower(self) -> AbstractContextManager[Any]:
        """Take the transform off for a block."""
        return under(self.level.below())

    def batch_size(self) -> Any:
        """Give the number of samples of a vmap."""
        return self.level.batch_size

    def randomness(self) -> str:
        """Give the option of a vmap."""
        randomness: str = self.level.randomness
        return randomness


_KINDS = {kind.value: kind for kind in TransformType}


def transform_of(level: Any) -> TransformType:
    """Give the kind of transform that a level is, or is a special one of."""
    names: list[Any] = [vars(c).get("kind") for c in type(level).__mro__]
    return next(_KINDS[name] for name in names if name in _KINDS)


class AutogradKernel:
    """The kernel at `Autograd` that `py_autograd_impl` makes of a rule."""

    __slots__ = ("__name__", "__wrapped__", "hop")

    def __init__(self, hop: Any, fn: Handler) -> None:
        self.hop = hop
        self.__wrapped__ = fn
        self.__name__ = getattr(fn, "__name__", "autograd")

    def of(self, code: int) -> Handler:
        """Give what runs for a code."""
        return self.recorded if code & GRAD and not code & NO_GRAD else self.below

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the rule, or go on below autograd."""
        return self.of(code_of((args, kwargs)) | word())(*args, **kwargs)

    def below(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the operator again below autograd."""
        outer = word()
        try:
            set_word(below_autograd(outer))
            return self.hop.onward(*args, **kwargs)
        finally:
            set_word(outer)

    def recorded(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the rule; what writes its inputs cannot be differentiated."""
        hop = self.hop
        if hop.has_schema and not hop.supports_training_input_mutation:
            schema = hop.gen_schema(*args, **kwargs)
            if schema.is_mutable:
                raise AutogradError(
                    f"{hop.name()} writes its inputs, and gradients flow to them",
                    op=hop.name(),
                    argument=", ".join(a.name for a in schema.written),
                    declared=schema,
                    source=hop.source,
                    fix="return new tensors instead of writing, or call it under no_grad",
                )
        return self.__wrapped__(*args, **kwargs)


def beneath(found: Handler, code: int) -> Handler:
    """Give what runs where a rule took its transform off, and left tensors that belong to it.

    What is below autograd would lose the gradients, and tangents, of what is inside them.
    """
    if not isinstance(found, AutogradKernel):
        return found
    return found.recorded if code & (GRAD | LIFTED) else found.__wrapped__


def below_autograd(now: Word) -> Word:
    """Give a word with autograd excluded; made once per word."""
    made: Word | None = now.__dict__.get("_below_autograd")
    if made is None:
        made = now.__dict__["_below_autograd"] = now.but(exclude=now.exclude | AUTOGRAD)
    return made


def register_fake(hop: Any, fn: Fn | None = None, *, skip_cache: bool = False) -> Any:
    """Register what a higher-order operator gives for fakes (S177).

    Args:
        hop: the operator.
        fn: called with its arguments, inside the fake mode.
        skip_cache: whether results may not be remembered; now none are.

    Raises:
        DuplicateRegistrationError: it has such a rule.
    """

    def register(rule: Fn) -> Fn:
        def in_mode(mode: FakeTensorMode, /, *args: Any, **kwargs: Any) -> Any:
            with mode:
                return rule(*args, **kwargs)

        in_mode.__wrapped__ = rule  # type: ignore[attr-defined]
        hop.py_impl(FakeTensorMode)(in_mode)
        return rule

    return register if fn is None else register(fn)
