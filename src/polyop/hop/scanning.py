"""`scan`: values carried through the steps of tensors (S182)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.context import run_under, word
from polyop.hop.batches import at_axis, in_batch, lasting, on_batch, stack_in_batch
from polyop.hop.control import ControlOperator, Groups
from polyop.hop.forms import Flat, Form, Group, breach, closed, describe
from polyop.hop.pullbacks import filled, has_gradient, places_of, pullback
from polyop.hop.pushforwards import all_moving
from polyop.hop.steps import (
    acting,
    check_carry,
    check_constant,
    check_function,
    check_result,
    check_structure,
    empty_stack,
    fake_carry,
    fake_like,
    fake_result,
    fake_stack,
    fake_step,
    group_of,
    is_of_leaves,
    is_of_trees,
    length_of,
    own_memory,
    sample_run,
    stacked,
    step_of,
    steps_of_batch,
)
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.vmap.batch import VmapLevel, peel
from polyop.ops.likes import zeros_like
from polyop.ops.rounding import clone
from polyop.ops.views import moveaxis
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]


class Scan(ControlOperator):
    """Carries values through the steps of tensors.

    Args:
        combine_fn: called `combine_fn(carry, x, *additional_inputs)` for each step; gives
            `(carry, y)`.
        init: the first carry: a Tensor, or a tree of them.
        xs: a Tensor, or a tree of them, of one length along dimension `dim`.
        additional_inputs: further operands, the same for each step.
        dim: the axis of the steps.
        reverse: begin with the last step; results have the order of `xs`.

    Returns:
        The last carry, and the stack of what the steps gave.

    Raises:
        SubgraphError: the carry changes structure, shape or dtype; the lengths differ.

    Example:
        >>> import polyop
        >>> polyop.scan(lambda c, x: (c + x, c * x), polyop.tensor(0), polyop.arange(4))
        (tensor(6), tensor([0, 0, 2, 9]))
    """

    names = ("combine_fn",)
    has_steps = True

    def __call__(
        self,
        combine_fn: Fn,
        init: Any,
        xs: Any,
        additional_inputs: Sequence[Any] = (),
        *,
        dim: int = 0,
        reverse: bool = False,
    ) -> Any:
        """Carry values through the steps."""
        if not dim:
            return self.enter(combine_fn, init, xs, additional_inputs, reverse=reverse)
        along = tree.map_leaves(lambda x: moveaxis(x, dim, 0), xs)
        carry, ys = self.enter(combine_fn, init, along, additional_inputs, reverse=reverse)
        return carry, tree.map_leaves(lambda y: moveaxis(y, 0, dim), ys)

    def parse(
        self,
        combine_fn: Fn,
        init: Any,
        xs: Any,
        additional_inputs: Sequence[Any] = (),
        *,
        reverse: bool = False,
    ) -> Form:
        """Give the form of a call, checked."""
        check_function(self, combine_fn, "combine_fn")
        length_of(self, xs)
        if not isinstance(additional_inputs, (tuple, list)):
            breach(f"the additional inputs of {self} are given as a tuple", self,
                   argument="additional_inputs", seen=describe(additional_inputs))  # fmt: skip
        options = {"reverse": reverse} if reverse else {}
        groups = (group_of(combine_fn, init), group_of(combine_fn, xs), tuple(additional_inputs))
        return Form((combine_fn,), groups, options)

    def spell(self, form: Form) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of a call."""
        return (*form.functions, *form.groups), form.options

    def arguments(self, form: Form) -> list[tuple[Any, ...]]:
        """Give what the function gets."""
        return [tuple(x for group in form.groups for x in group)]

    def ready(self, fn: Any, name: str, form: Form) -> Any:
        """Let the function itself give `(carry, y)` of one structure: layers see its leaves."""
        if is_of_leaves(form.functions[0]):
            return fn
        spec = tree.structure(form.groups[0][0])

        def parted(out: Any) -> Group:
            new, y = self.parted(fn, 1, out)
            check_structure(self, fn, spec, new)
            return new, y

        return acting(fn, parted)

    def eager(self, form: Form) -> Any:
        """Call the function for each step."""
        (fn,), (init, xs, args) = form.functions, form.groups
        single = not is_of_leaves(fn)
        carry = init[0] if single else init
        length = int(length_of(self, xs))
        ys: list[Any] = [None] * length
        for i in reversed(range(length)) if form.options else range(length):
            given = (carry,) if single else carry
            new, ys[i] = self.parted(fn, len(init), fn(*given, *step_of(xs, i), *args))
            leaves = own_memory(check_carry(self, fn, carry, new))
            carry = tree.unflatten(tree.structure(carry), leaves)
        leaves, spec = tree.flatten(carry)
        carry = tree.unflatten(spec, own_memory(leaves, form.leaves))
        return self.joined(fn, carry, stacked(self, fn, ys) if length else self._empty(form))

    def parted(self, fn: Fn, count: int, out: Any) -> tuple[Any, Any]:
        """Take the carry and the result of a step apart."""
        if is_of_leaves(fn):
            return out[:count], out[count:]
        if not isinstance(out, (tuple, list)) or len(out) != 2:
            breach(
                f"the function of {self} gives (carry, y)", self, fn, seen=describe(out),
                fix="return the next carry, and the result of the step",
            )  # fmt: skip
        return out[0], out[1]

    def joined(self, fn: Fn, carry: Any, ys: Any) -> Any:
        """Put the last carry and the stacks together."""
        return (*carry, *ys) if is_of_leaves(fn) else (carry, ys)

    def _empty(self, form: Form) -> Any:
        (fn,), (init, xs, args) = form.functions, form.groups
        mode = FakeTensorMode(allow_non_fake_inputs=True)

        def run() -> Any:
            carry = tree.map_leaves(lambda x: fake_like(mode, x), init)
            out = sample_run(lambda *given: fn(*carry, *given), mode, xs, args)
            new, y = self.parted(fn, len(init), out)
            check_carry(self, fn, carry if is_of_leaves(fn) else carry[0], new)
            return y

        out = run_under(word().but(fake=mode), run)
        return tree.map_leaves(lambda y: empty_stack(y, form.leaves), out)

    # -- fakes ----------------------------------------------------------------

    def samples(self, form: Form, mode: FakeTensorMode) -> list[Group]:
        """Give the carry and one step."""
        init, xs, args = form.groups
        carry = [fake_result(mode, x) for x in init]
        return [(*carry, *[fake_step(mode, x) for x in xs], *[fake_result(mode, x) for x in args])]

    def outcome(self, form: Form, results: Sequence[Group], mode: FakeTensorMode) -> Group:
        """Give the carry, and a stack for each result of a step."""
        (fn,), (init, xs, _) = form.functions, form.groups
        new, ys = self._parted_flat(fn, init, results[0])
        check_constant(self, fn, init, new)
        length = xs[0].shape[0]
        for i, y in enumerate(ys):
            check_result(self, fn, f"[{i}]", y)
        carry = [fake_carry(mode, a, b) for a, b in zip(init, new, strict=True)]
        return (*carry, *[fake_stack(mode, length, y) for y in ys])

    def _parted_flat(self, fn: Fn, init: Group, out: Group) -> tuple[Group, Group]:
        if is_of_trees(fn):
            carry, _ = self.parted(fn.__wrapped__, 0, tree.unflatten(fn.result, out))  # type: ignore[attr-defined]
            first = tree.unflatten(fn.spec, range(fn.spec.num_leaves))[0]  # type: ignore[attr-defined]
            check_carry(self, fn, tree.unflatten(tree.structure(first), init), carry)
        else:
            check_carry(self, fn, init, tuple(out[: len(init)]))
        return out[: len(init)], out[len(init) :]

    # -- gradients and batches ------------------------------------------------

    def pull(self, form: Form, grads: Sequence[Any]) -> list[Any]:
        """Go through the steps again for the carries, and then back."""
        return self.back(form, grads, self._carries(form))

    def back(self, form: Form, grads: Sequence[Any], carries: Group) -> list[Any]:
        """Give the gradient of each leaf, from the stacks of what each step began with."""
        (fn,), (init, xs, args) = form.functions, form.groups
        n, k, t = len(init), len(xs), len(carries)
        live = [i for i in range(n) if has_gradient(init[i])]
        late = [i for i in range(n, len(grads)) if grads[i] is not None]
        chosen = places_of((*init, *xs, *args))
        back = pullback(fn, n + k + len(args), chosen, [*live, *late])  # type: ignore[arg-type]
        inner = [i for i in chosen if i < n]
        steps = [i for i in chosen if n <= i < n + k]
        whole = [i for i in chosen if i >= n + k]
        m, s = len(live), len(whole)

        def step(*leaves: Any) -> Group:
            g_carry, sums = leaves[:m], leaves[m : m + s]
            rest = leaves[m + s :]
            tensors, g_ys = iter(rest[:t]), rest[t + k : t + k + len(late)]
            at = [next(tensors) if isinstance(x, Tensor) else x for x in init]
            at, others = [*at, *rest[t : t + k]], rest[t + k + len(late) :]
            found = dict(zip(chosen, back(*at, *others, *g_carry, *g_ys), strict=True))
            totals = [a + found[i] for a, i in zip(sums, whole, strict=True)]
            return (*[found[i] for i in inner], *totals, *[found[i] for i in steps])

        g_init = filled([grads[i] for i in live], [init[i] for i in live])
        zero = [zeros_like(args[i - n - k]) for i in whole]
        options = {} if form.options else {"reverse": True}
        given = (*carries, *xs, *[grads[i] for i in late])
        call = closed(Flat(step, None, back.name)).inside(repeats=True)
        out = self.again(Form((call,), ((*g_init, *zero), given, args), options))
        done: list[Any] = [None] * (n + k + len(args))
        for i, g in zip([*inner, *whole, *steps], out, strict=True):
            done[i] = g
        return done

    def _carries(self, form: Form) -> Group:
        """Give the tensors of the carry that each step began with, stacked."""
        (fn,), (init, _, _) = form.functions, form.groups
        n = len(init)

        def step(*leaves: Any) -> Group:
            kept = [clone(x) for x in leaves[:n] if isinstance(x, Tensor)]
            return (*fn(*leaves)[:n], *kept)

        call = closed(Flat(step, None, "the carries")).inside(repeats=True)
        found: Group = self.again(form._replace(functions=(call,)))[n:]
        return found

    def moving(self, flags: Groups, groups: Groups) -> Groups:
        """Let the whole carry move, as soon as something does."""
        return (all_moving(groups[0]), *flags[1:])

    def batch(self, form: Form, level: VmapLevel) -> Any:
        """Call it on the function of a whole batch, with what of the carry will differ in it."""
        (fn,), (init, xs, args) = form.functions, form.groups
        n, size = len(init), level.batch_size
        flags = lasting(self, form, level)[:n]
        pairs = zip(init, flags, strict=True)
        at = [0 if differs and isinstance(x, Tensor) else None for x, differs in pairs]
        carry = tuple(
            x if axis is None else at_axis(*peel(x, level), axis, size)
            for x, axis in zip(init, at, strict=True)
        )
        steps, axes = steps_of_batch(xs, level)
        others = [peel(x, level) for x in args]
        found: list[bool] = []
        call = on_batch(fn, [*at, *axes, *[a for _, a in others]], level, found, flags)  # type: ignore[arg-type]
        groups = (carry, steps, tuple(v for v, _ in others))
        out = self.below(Form((call,), groups, form.options), level)
        stacks = zip(out[n:], found[n:], strict=True)
        return (
            *[in_batch(x, axis, level) for x, axis in zip(out, at, strict=False)],
            *[stack_in_batch(y, level, differs=differs) for y, differs in stacks],
        )


scan = Scan("scan")
