"""`associative_scan`: all prefixes under an associative function, in logarithmically many calls.

Neighbours are combined, the half as many are scanned, and the places between
are filled in: each call of the function is one on many elements at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop import tree
from polyop.errors import UsageError
from polyop.hop.batches import at_axis, on_batch, stack_in_batch
from polyop.hop.control import ControlOperator, Groups
from polyop.hop.forms import Form, Group, breach, describe
from polyop.hop.pushforwards import all_moving
from polyop.hop.steps import (
    acting,
    check_carry,
    check_function,
    check_structure,
    fake_like,
    fake_result,
    fake_step,
    group_of,
    is_of_leaves,
    length_of,
    steps_of_batch,
)
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.vmap.api import vmap
from polyop.layers.vmap.batch import VmapLevel, peel
from polyop.ops.joining import concat, stack
from polyop.ops.view_inverses import contiguous_copy
from polyop.ops.views import flip, moveaxis, reshape
from polyop.tensor.tensor import Tensor

MODES = ("pointwise", "generic")


class AssociativeScan(ControlOperator):
    """Combines all elements up to each element, with an associative function.

    Args:
        combine_fn: called with two elements, and the additional inputs; gives one of their
            structure, shapes and dtypes.
        xs: a Tensor, or a tree of them, of one length along dimension `dim`.
        dim: the axis of the elements.
        reverse: combine from the last element on.
        combine_mode: `"pointwise"` or `"generic"`; both work for any function.
        additional_inputs: further operands, the same for each call.

    Raises:
        SubgraphError: the function changes structure, shape or dtype; the lengths differ.
        UsageError: an unknown `combine_mode`.

    Example:
        >>> import polyop
        >>> polyop.associative_scan(lambda a, b: a + b, polyop.arange(5))
        tensor([ 0,  1,  3,  6, 10])
    """

    names = ("combine_fn",)
    has_steps = True

    def __call__(  # noqa: PLR0917 - the order of PyTorch's
        self,
        combine_fn: Callable[..., Any],
        xs: Any,
        dim: int = 0,
        reverse: bool = False,
        combine_mode: str = "pointwise",
        additional_inputs: Sequence[Any] = (),
    ) -> Any:
        """Combine all elements up to each."""
        if combine_mode not in MODES:
            raise UsageError(
                f"there is no combine_mode {combine_mode!r}", op=self, declared=", ".join(MODES)
            )
        if dim:
            xs = tree.map_leaves(lambda x: moveaxis(x, dim, 0), xs)
        if reverse:
            xs = tree.map_leaves(lambda x: flip(x, axis=0), xs)
        out = self.enter(combine_fn, xs, additional_inputs=additional_inputs)
        if reverse:
            out = tree.map_leaves(lambda y: flip(y, axis=0), out)
        return tree.map_leaves(lambda y: moveaxis(y, 0, dim), out) if dim else out

    def parse(self, combine_fn: Any, xs: Any, *, additional_inputs: Sequence[Any] = ()) -> Form:
        """Give the form of a call, checked."""
        check_function(self, combine_fn, "combine_fn")
        length_of(self, xs)
        if not isinstance(additional_inputs, (tuple, list)):
            breach(f"the additional inputs of {self} are given as a tuple", self,
                   argument="additional_inputs", seen=describe(additional_inputs))  # fmt: skip
        return Form((combine_fn,), (group_of(combine_fn, xs), tuple(additional_inputs)), {})

    def spell(self, form: Form) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of a call."""
        xs, args = form.groups
        return (*form.functions, xs), {"additional_inputs": args} if args else {}

    def arguments(self, form: Form) -> list[tuple[Any, ...]]:
        """Give what the function gets."""
        xs, args = form.groups
        return [(*xs, *xs, *args)]

    def whole(self, form: Form) -> Any:
        """Give the results the structure of an element; of fewer than two, nothing is combined."""
        if form.is_flat:
            return self.again(form)
        return tree.unflatten(_structure(form), self.again(self.flattened(form)))

    def ready(self, fn: Any, name: str, form: Form) -> Any:
        """Let the function itself keep the structure of an element: layers see its leaves."""
        if is_of_leaves(form.functions[0]):
            return fn
        spec = _structure(form)

        def checked(out: Any) -> Any:
            check_structure(self, fn, spec, out, "an element")
            return out

        return acting(fn, checked)

    def eager(self, form: Form) -> Any:
        """Combine in logarithmically many calls."""
        (fn,), (xs, args) = form.functions, form.groups
        leaves, spec = tree.leaves(xs), _structure(form)

        def combine(a: list[Any], b: list[Any]) -> list[Any]:
            def one(*given: Any) -> Any:
                sides = [tree.unflatten(spec, x) for x in (given[:n], given[n:])]
                pair = [x for side in sides for x in side] if is_of_leaves(fn) else sides
                return tuple(check_carry(self, fn, sides[0], fn(*pair, *args), "an element"))

            return list(vmap(one)(*a, *b))

        n = len(leaves)
        length = int(length_of(self, leaves))
        if length < 2:
            return tree.unflatten(spec, [contiguous_copy(x) for x in leaves])
        return tree.unflatten(spec, _scanned(combine, leaves, length))

    # -- rules ----------------------------------------------------------------

    def recorded(self, form: Form) -> Group:
        """Leave the gradient to the operators of the function."""
        found: Group = self.eager(form)
        return found

    # -- fakes ----------------------------------------------------------------

    def samples(self, form: Form, mode: FakeTensorMode) -> list[Group]:
        """Give two elements."""
        xs, args = form.groups
        sides = [[fake_step(mode, x) for x in xs] for _ in range(2)]
        return [(*sides[0], *sides[1], *[fake_result(mode, x) for x in args])]

    def outcome(self, form: Form, results: Sequence[Group], mode: FakeTensorMode) -> Group:
        """Give as many elements as there are."""
        xs = form.groups[0]
        element = tuple(fake_step(mode, x) for x in xs)
        check_carry(self, form.functions[0], element, tuple(results[0]), "an element")
        return tuple(fake_like(mode, x) for x in xs)

    # -- batches --------------------------------------------------------------

    def moving(self, flags: Groups, groups: Groups) -> Groups:
        """Let all elements move, as soon as something does."""
        return (all_moving(groups[0]), *flags[1:])

    def batch(self, form: Form, level: VmapLevel) -> Any:
        """Combine the elements of a whole batch."""
        (fn,), (xs, args) = form.functions, form.groups
        steps, axes = steps_of_batch(xs, level)
        steps = tuple(
            x if a is not None else repeated(x, level.batch_size)
            for x, a in zip(steps, axes, strict=True)
        )
        others = [peel(x, level) for x in args]
        at = [0] * len(xs)
        call = on_batch(fn, [*at, *at, *[a for _, a in others]], level)  # type: ignore[arg-type]
        out = self.below(Form((call,), (steps, tuple(v for v, _ in others)), {}), level)
        return tuple(stack_in_batch(y, level) for y in out)


def _structure(form: Form) -> Any:
    """Give the structure of an element."""
    (fn,), (xs, _) = form.functions, form.groups
    return tree.structure(xs if is_of_leaves(fn) else xs[0])


def repeated(x: Tensor, size: Any) -> Tensor:
    """Give each element of a tensor once for each sample of a batch, behind axis 0."""
    return at_axis(x, None, 1, size)


def _scanned(combine: Any, xs: list[Any], length: int) -> list[Any]:
    """Scan elements along axis 0."""
    if length < 2:
        return xs
    even, odd = [x[0 : length - 1 : 2] for x in xs], [x[1::2] for x in xs]
    pairs = _scanned(combine, combine(even, odd), length // 2)
    # The places between: each pair's prefix, and the element behind it.
    rest = [x[2::2] for x in xs]
    count = (length - 1) // 2
    between = combine([p[:count] for p in pairs], rest) if count else rest
    return [
        _woven(concat([x[:1], b]) if count else x[:1], p, length)
        for x, b, p in zip(xs, between, pairs, strict=True)
    ]


def _woven(even: Any, odd: Any, length: int) -> Any:
    """Put elements at even and at odd places together."""
    half = length // 2
    both = stack([even[:half], odd], 1)
    woven = reshape(both, (2 * half, *both.shape[2:]))
    return concat([woven, even[half:]]) if length % 2 else woven


associative_scan = AssociativeScan("associative_scan")
