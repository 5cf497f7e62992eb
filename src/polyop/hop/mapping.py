"""`map`: a function for each step of tensors (S182)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.context import run_under, word
from polyop.hop.batches import on_batch, stack_in_batch
from polyop.hop.control import ControlOperator
from polyop.hop.forms import Flat, Form, Group
from polyop.hop.pullbacks import places_of, pullback
from polyop.hop.steps import (
    check_function,
    check_result,
    empty_stack,
    fake_result,
    fake_stack,
    fake_step,
    group_of,
    length_of,
    sample_run,
    stacked,
    step_of,
    steps_of_batch,
)
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.vmap.batch import VmapLevel, peel

Fn = Callable[..., Any]


class Map(ControlOperator):
    """Calls a function for each step of tensors, and stacks what it gives.

    Args:
        f: called with one step of `xs`, and `args`.
        xs: a Tensor, or a tree of them, of one length along dimension 0.
        args: further operands, the same for each step.

    Raises:
        SubgraphError: the lengths differ, or steps give different shapes or dtypes.

    Example:
        >>> import polyop
        >>> polyop.map(lambda x, y: x * y, polyop.arange(3), 2)
        tensor([0, 2, 4])
    """

    names = ("f",)
    has_steps = True

    def __call__(self, f: Fn, xs: Any, *args: Any) -> Any:
        """Call the function for each step."""
        return self.enter(f, xs, *args)

    def parse(self, f: Fn, xs: Any, *args: Any) -> Form:
        """Give the form of a call, checked."""
        check_function(self, f, "f")
        length_of(self, xs)
        return Form((f,), (group_of(f, xs), args), {})

    def spell(self, form: Form) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of a call."""
        return (form.functions[0], form.groups[0], *form.groups[1]), {}

    def arguments(self, form: Form) -> list[tuple[Any, ...]]:
        """Give what the function gets."""
        return [(*form.groups[0], *form.groups[1])]

    def eager(self, form: Form) -> Any:
        """Call the function for each step."""
        (fn,), (xs, args) = form.functions, form.groups
        length = int(length_of(self, xs))
        if not length:
            return self._of_no_steps(form)
        return stacked(self, fn, [fn(*step_of(xs, i), *args) for i in range(length)])

    def _of_no_steps(self, form: Form) -> Any:
        (fn,), (xs, args) = form.functions, form.groups
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        out = run_under(word().but(fake=mode), sample_run, fn, mode, xs, args)
        return tree.map_leaves(lambda y: empty_stack(y, form.leaves), out)

    # -- fakes ----------------------------------------------------------------

    def samples(self, form: Form, mode: FakeTensorMode) -> list[Group]:
        """Give one step."""
        xs, args = form.groups
        return [(*[fake_step(mode, x) for x in xs], *[fake_result(mode, x) for x in args])]

    def outcome(self, form: Form, results: Sequence[Group], mode: FakeTensorMode) -> Group:
        """Give a stack for each result of a step."""
        return self.stacks(form, form.groups[0], results[0], mode)

    def stacks(self, form: Form, xs: Group, ys: Group, mode: FakeTensorMode) -> Group:
        """Give the fakes of what is stacked."""
        length = xs[0].shape[0]
        for i, y in enumerate(ys):
            check_result(self, form.functions[0], f"[{i}]", y)
        return tuple(fake_stack(mode, length, y) for y in ys)

    # -- gradients and batches ------------------------------------------------

    def pull(self, form: Form, grads: Sequence[Any]) -> list[Any]:
        """Give the gradient of each step; those of further operands are summed."""
        (fn,), (xs, args) = form.functions, form.groups
        wanted = [i for i, g in enumerate(grads) if g is not None]
        given = tuple(grads[i] for i in wanted)
        n, k, count = len(xs), len(given), len(xs) + len(args)
        chosen = places_of((*xs, *args))
        back = pullback(fn, count, chosen, wanted)  # type: ignore[arg-type]

        def step(*leaves: Any) -> Group:
            out: Group = back(*leaves[:n], *leaves[n + k :], *leaves[n : n + k])
            return out

        call = Flat(step, None, back.name).inside(repeats=True)
        found = iter(self.again(Form((call,), ((*xs, *given), args), {})))
        done: list[Any] = [None] * count
        for i in chosen:
            g = next(found)
            done[i] = g if i < n else g.sum(axis=0)
        return done

    def batch(self, form: Form, level: VmapLevel) -> Any:
        """Call it on the function of a whole batch."""
        (fn,), (xs, args) = form.functions, form.groups
        steps, axes = steps_of_batch(xs, level)
        others = [peel(x, level) for x in args]
        found: list[bool] = []
        call = on_batch(fn, [*axes, *[a for _, a in others]], level, found, ())  # type: ignore[arg-type]
        out = self.below(Form((call,), (steps, tuple(v for v, _ in others)), {}), level)
        pairs = zip(out, found, strict=True)
        return tuple(stack_in_batch(y, level, differs=differs) for y, differs in pairs)


map = Map("map")
