"""`while_loop`: a function on a carry, as long as a predicate of it holds (S182)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.context import run_under
from polyop.hop.batches import at_axis, differing, in_batch, lasting, on_batch
from polyop.hop.control import ControlOperator, Groups
from polyop.hop.forms import (
    Form,
    Group,
    breach,
    closed,
    describe,
    inside,
    is_batched,
    path_of,
)
from polyop.hop.predicates import predicate, truth
from polyop.hop.pushforwards import all_moving
from polyop.hop.speculation import choose, speculating
from polyop.hop.steps import (
    acting,
    check_carry,
    check_constant,
    check_function,
    check_structure,
    fake_carry,
    fake_result,
    is_of_leaves,
    is_of_trees,
    own_memory,
)
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.vmap.batch import VmapLevel, peel
from polyop.lazy import load
from polyop.ops.comparison import logical_and
from polyop.ops.factories import ones
from polyop.ops.reductions import any as any_of
from polyop.ops.select import where
from polyop.ops.views import reshape
from polyop.tensor.tensor import Tensor

COND, BODY = "cond_fn", "body_fn"


class WhileLoop(ControlOperator):
    """Calls a function on what it gave last, as long as a predicate holds.

    Args:
        cond_fn: called with the carry and the additional inputs; gives a bool, or a Tensor
            with one element.
        body_fn: called with the same; gives the next carry, a tuple.
        carried_inputs: the first carry, a tuple of Tensors, numbers, or trees of them.
        additional_inputs: further operands, the same for each step.

    Returns:
        The last carry, a tuple. Under `vmap` it runs until the predicate holds for no sample;
        samples that are done keep their carry.

    Raises:
        SubgraphError: the carry changes structure, shape or dtype; the predicate has several
            elements; a number in the carry changes in a trace.
        AutogradError: in backward through one in a trace, if a function has an effect or draws
            random numbers.

    Example:
        >>> import polyop
        >>> polyop.while_loop(lambda i: i < 10, lambda i: (i * 2,), (polyop.tensor(1),))
        (tensor(16),)
    """

    names = (COND, BODY)

    def __call__(
        self,
        cond_fn: Callable[..., Any],
        body_fn: Callable[..., Any],
        carried_inputs: Sequence[Any],
        additional_inputs: Sequence[Any] = (),
    ) -> Any:
        """Repeat the function."""
        return self.enter(cond_fn, body_fn, carried_inputs, additional_inputs)

    def parse(
        self, cond_fn: Any, body_fn: Any, carried_inputs: Any, additional_inputs: Any = ()
    ) -> Form:
        """Give the form of a call, checked."""
        check_function(self, cond_fn, COND)
        check_function(self, body_fn, BODY)
        named = {"carried_inputs": carried_inputs, "additional_inputs": additional_inputs}
        for name, group in named.items():
            if not isinstance(group, (tuple, list)):
                breach(
                    f"the {name.replace('_', ' ')} of {self} are given as a tuple", self,
                    argument=name, seen=describe(group), fix="give (x,) for one of them",
                )  # fmt: skip
        return Form((cond_fn, body_fn), (tuple(carried_inputs), tuple(additional_inputs)), {})

    def spell(self, form: Form) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of a call."""
        return (*form.functions, *form.groups), {}

    def arguments(self, form: Form) -> list[tuple[Any, ...]]:
        """Give what each function gets."""
        given = tuple(x for group in form.groups for x in group)
        return [given, given]

    def whole(self, form: Form) -> Any:
        """Give the last carry the structure of the first."""
        if form.is_flat:
            return self.again(form)
        spec = tree.structure(form.groups[0])
        return tree.unflatten(spec, self.again(self.flattened(form)))

    def ready(self, fn: Any, name: str, form: Form) -> Any:
        """Let the function itself keep the structure of the carry: layers see its leaves."""
        if name != BODY or is_of_leaves(form.functions[1]):
            return fn
        spec = tree.structure(form.groups[0])

        def checked(found: Any) -> Group:
            new = tuple(found) if isinstance(found, (tuple, list)) else found
            given: Group = tree.unflatten(spec, check_structure(self, fn, spec, new))
            return given

        return acting(fn, checked)

    def eager(self, form: Form) -> Any:
        """Repeat the function; for a batch until all samples are done."""
        (_, body), (carry, args) = form.functions, form.groups
        while True:
            pred = self.tested(form, carry)
            if is_batched(pred):
                return ending(self._masked(form, carry, pred), form)
            if not truth(pred):
                return ending(carry, form)
            carry = self.step(body, carry, args)

    def tested(self, form: Form, carry: Group) -> Any:
        """Give the predicate of a carry, checked."""
        pred = form.functions[0](*carry, *form.groups[1])
        pred = pred[0] if isinstance(pred, tuple) else pred
        predicate(self, pred, "the result of cond_fn", form.functions[0])
        return pred

    def step(self, body: Any, carry: Group, args: Group) -> Group:
        """Give the next carry."""
        found = body(*carry, *args)
        new = tuple(found) if isinstance(found, (tuple, list)) else found
        leaves = own_memory(check_carry(self, body, carry, new))
        given: Group = tree.unflatten(tree.structure(carry), leaves)
        return given

    def _masked(self, form: Form, carry: Group, alive: Any) -> Group:
        """Repeat the function until no sample goes on; those that are done keep their carry."""
        (_, body), (_, args) = form.functions, form.groups
        with speculating(self, form.functions, form.leaves):
            while truth(any_of(samples_of(alive))):
                new, spec = tree.flatten(self.step(body, carry, args))
                pairs = zip(new, tree.leaves(carry), strict=True)
                leaves = [
                    choose(self, alive, a, b, f"carry{path_of(spec, i)} of two steps")
                    for i, (a, b) in enumerate(pairs)
                ]
                carry = tree.unflatten(spec, leaves)
                pred = self.tested(form, carry)
                if isinstance(pred, Tensor):
                    alive = logical_and(reshape(alive, ()), reshape(pred, ()))
                elif not pred:
                    break
        return carry

    # -- fakes ----------------------------------------------------------------

    def samples(self, form: Form, mode: FakeTensorMode) -> list[Group]:
        """Give one step, to both functions."""
        return [tuple(fake_result(mode, x) for group in form.groups for x in group)] * 2

    def outcome(self, form: Form, results: Sequence[Group], mode: FakeTensorMode) -> Group:
        """Give the carry."""
        (test, body), (carry, _) = form.functions, form.groups
        preds, new = results
        if len(preds) != 1:
            breach(
                f"cond_fn of {self} gives one predicate", self, test, seen=f"{len(preds)} values"
            )
        predicate(self, preds[0], "the result of cond_fn", test)
        if is_of_trees(body):
            # It is that of the first carry: `ready` sees to it.
            spec = body.result  # type: ignore[attr-defined]
            check_carry(self, body, tree.unflatten(spec, carry), tree.unflatten(spec, new))
        else:
            check_carry(self, body, carry, tuple(new))
        check_constant(self, body, carry, new)
        return tuple(fake_carry(mode, a, b) for a, b in zip(carry, tree.leaves(new), strict=True))

    # -- gradients and batches --------------------------------------------------------------

    predicates = frozenset({0})

    def pull(self, form: Form, grads: Sequence[Any]) -> list[Any]:
        """Go back through the steps, which `while_loop_carries` keeps."""
        carries = load("polyop.hop.carries:while_loop_carries")
        found: list[Any] = carries.of_loop(form, grads)
        return found

    def moving(self, flags: Groups, groups: Groups) -> Groups:
        """Let the whole carry move, as soon as something does."""
        return (all_moving(groups[0]), *flags[1:])

    def batch(self, form: Form, level: VmapLevel) -> Any:
        """Repeat the function of a whole batch, with a flag for each sample that goes on."""
        differ = lasting(self, form, level)
        if not all(differ[: len(form.groups[0])]) and not any(
            differing(self, form, 0, differ, level)
        ):
            return self._together(form, differ, level)
        (test, body), (carry, args) = form.functions, form.groups
        size, n = level.batch_size, len(carry)
        first = tuple(
            at_axis(v, a, 0, size) if isinstance(v, Tensor) else v
            for v, a in (peel(x, level) for x in carry)
        )
        others = [peel(x, level) for x in args]
        axes = [*[0 if isinstance(x, Tensor) else None for x in carry], *[a for _, a in others]]
        tests, bodies = on_batch(test, axes, level), on_batch(body, axes, level)  # type: ignore[arg-type]

        def goes_on(alive: Tensor, *_: Any) -> Group:
            return (any_of(alive),)

        def flags(*given: Any) -> Tensor:
            found: Tensor = reshape(tests(*given)[0], (size,))
            return found

        def next_carry(alive: Tensor, *given: Any) -> Group:
            new = check_carry(self, body, given[:n], bodies(*given))
            kept = [
                where(reshape(alive, (size, *[1] * (len(b.shape) - 1))), a, b)
                if isinstance(b, Tensor) else b
                for a, b in zip(new, given[:n], strict=True)
            ]  # fmt: skip
            return (logical_and(alive, flags(*kept, *given[n:])), *kept)

        values = tuple(v for v, _ in others)
        fns = (test.remade(goes_on), closed(body.remade(next_carry)))  # type: ignore[attr-defined]
        alive = logical_and(ones(size, dtype="bool"), _below(level, flags, *first, *values))
        out = self.below(Form(fns, ((alive, *first), values), {}), level)
        return self.of_batch(out[1:], [True] * n, level, masked=True)

    def _together(self, form: Form, differ: Sequence[bool], level: VmapLevel) -> Group:
        """Repeat the function of a whole batch whose samples all take the same steps."""
        (test, body), (carry, args) = form.functions, form.groups
        flags = differ[: len(carry)]
        first = tuple(
            at_axis(*peel(x, level), 0, level.batch_size) if differs else x
            for x, differs in zip(carry, flags, strict=True)
        )
        others = [peel(x, level) for x in args]
        axes = [*[0 if differs else None for differs in flags], *[a for _, a in others]]
        fns = (
            on_batch(test, axes, level, whole=()),  # type: ignore[arg-type]
            on_batch(body, axes, level, whole=flags),  # type: ignore[arg-type]
        )
        out = self.below(Form(fns, (first, tuple(v for v, _ in others)), {}), level)
        return self.of_batch(out, flags, level, masked=False)

    def of_batch(
        self, out: Group, differ: Sequence[bool], level: VmapLevel, *, masked: bool
    ) -> Group:
        """Give the results of a whole batch to its samples; `masked` if these end by themselves."""
        pairs = zip(out, differ, strict=True)
        return tuple(in_batch(x, 0 if differs else None, level) for x, differs in pairs)


def ending(carry: Any, form: Form) -> Any:
    """Give the last carry, which shares no memory with what the call was given."""
    leaves, spec = tree.flatten(carry)
    return tree.unflatten(spec, own_memory(leaves, form.leaves))


def samples_of(flag: Any) -> Any:
    """Give the values of all samples of a flag."""
    while is_batched(flag):
        flag = inside(flag)
    return flag


def _below(level: VmapLevel, fn: Callable[..., Any], *args: Any) -> Any:
    return run_under(level.below(), fn, *args)


while_loop = WhileLoop("while_loop")
