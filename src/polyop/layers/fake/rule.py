"""The context of a running fake rule, and the sizes that it may make (S143, S144)."""

from __future__ import annotations

from typing import Any

from polyop.dispatch.context import word
from polyop.errors import CaptureError, DynamicOutputShapeError, FakeError
from polyop.symbolic import ShapeEnv, SymInt
from polyop.tensor.meta import MetaSpace


class RuleContext:
    """What a fake rule may ask for: a size that depends on data.

    Attributes:
        op: the operator.
        source: where its rule was registered.
    """

    __slots__ = ("__weakref__", "op", "rule", "source", "used", "words")

    def __init__(self, op: Any, rule: Any, source: Any) -> None:
        self.op = op
        self.rule = rule
        self.source = source
        # A rule that has asked may answer anew each time, so it is never memoised again.
        self.used = False
        self.words: dict[Any, Any] = {}  # the word of this rule on the device `meta`

    def new_dynamic_size(self, *, min: int = 0, max: int | None = None) -> SymInt:
        """Give a new size that is known only at run time.

        Args:
            min: the least value; not negative.
            max: the greatest value.

        Raises:
            UsageError: the bounds are no plain ints, or hold no size.
            DynamicOutputShapeError: the fake mode has no `ShapeEnv`.
            FakeError: the rule runs on tensors of the device `meta`.
        """
        env = self._env()
        return env.create_unbacked(
            min=min, max=max, origin=f"made by the fake rule of {self.op.name()} at {self.source}"
        )

    create_unbacked_symint = new_dynamic_size

    def _env(self) -> ShapeEnv:
        mode = word().fake
        if mode is None:
            raise FakeError(
                f"the result of {self.op.name()} has a size that depends on data, and a tensor "
                "on the device meta has none",
                op=self.op._schema,
                source=self.source,
                fix="use a FakeTensorMode with a ShapeEnv instead of the device meta",
            )
        return dynamic_env(mode, self.op, self.source)


def dynamic_env(mode: Any, op: Any, source: Any) -> ShapeEnv:
    """Give the environment in which an operator makes its dynamic sizes.

    The rule that calls it gives another size each time.

    Raises:
        DynamicOutputShapeError: the mode has none.
    """
    note_used()
    if mode.shape_env is None:
        raise DynamicOutputShapeError(
            f"the result of {op.name()} has a size that depends on data",
            op=op._schema,
            source=source,
            fix="give the mode an environment: FakeTensorMode(shape_env=ShapeEnv())",
        )
    found: ShapeEnv = mode.shape_env
    return found


def note_used() -> None:
    """Let the running rule, if there is one, never be memoised again."""
    running: RuleContext | None = word().rule
    if running is not None:
        running.used = True


def get_ctx() -> RuleContext:
    """Give the context of the fake rule that is running.

    Raises:
        FakeError: no fake rule is running.
    """
    found: RuleContext | None = word().rule
    if found is None:
        raise FakeError(
            "get_ctx() was called outside a fake rule",
            fix="call it in the function that register_fake gets",
        )
    found.used = True
    return found


def note_failure(space: MetaSpace, context: RuleContext, error: Exception) -> None:
    """Tell the trace, if any, of an error that a rule raised: the kernel may raise none."""
    if space.mode is None:
        return
    if not isinstance(error, FakeError):
        made = CaptureError(
            f"the fake rule of {context.op.name()} raised {type(error).__name__}: {error}",
            op=context.op._schema,
            source=context.source,
            fix="let the rule answer for all arguments that the kernel takes",
        )
        made.__cause__, error = error, made
    space.mode.note_failure(error)
