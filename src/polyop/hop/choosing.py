"""`cond`: one of two functions, by a predicate that may be data (S180)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop import tree
from polyop.errors import DynamicOutputShapeError
from polyop.hop.batches import in_batch, on_batch
from polyop.hop.control import ControlOperator, Groups
from polyop.hop.forms import (
    Flat,
    Form,
    Group,
    breach,
    describe,
    is_batched,
    path_of,
    same_structure,
)
from polyop.hop.predicates import predicate, truth
from polyop.hop.pullbacks import places_of, pullback
from polyop.hop.sharing import joined, like, places, seal_operands, together
from polyop.hop.speculation import choose, speculating
from polyop.hop.steps import fake_result, same_layout
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.vmap.batch import VmapLevel, peel
from polyop.symbolic import is_symbolic, statically_known_true
from polyop.tensor.tensor import Tensor, of_meta

TRUE, FALSE = "true_fn", "false_fn"


class Cond(ControlOperator):
    """Calls one of two functions, by a predicate.

    Args:
        pred: a bool, or a Tensor with one element.
        true_fn: called with the operands if it holds.
        false_fn: called with them otherwise; gives the same structure, dtypes and devices.
        operands: a tuple of Tensors, numbers, or trees of them.

    Returns:
        What the function gave. A predicate that is batched by `vmap` runs both functions, and
        takes each sample's from one: as with `where`, a gradient that is infinite for a sample
        that did not choose its function is nan. For fakes, sizes that differ become unbacked.

    Raises:
        SubgraphError: the predicate has several elements; the functions differ in what they
            give (for fakes, traces and batches); one writes or returns its input in a trace,
            or has an effect and runs for all samples.

    Example:
        >>> import polyop
        >>> x = polyop.ones(2)
        >>> polyop.cond(x.sum() > 1, lambda x: x * 2, lambda x: x - 1, (x,))
        tensor([2., 2.])
    """

    names = (TRUE, FALSE)
    gives = True

    def __call__(
        self,
        pred: Any,
        true_fn: Callable[..., Any],
        false_fn: Callable[..., Any],
        operands: Sequence[Any] = (),
    ) -> Any:
        """Call one of the functions."""
        return self.enter(pred, true_fn, false_fn, operands)

    def parse(self, pred: Any, true_fn: Any, false_fn: Any, operands: Sequence[Any] = ()) -> Form:
        """Give the form of a call, checked."""
        for name, fn in ((TRUE, true_fn), (FALSE, false_fn)):
            if not callable(fn):
                breach(f"{name} of {self} is no function", self, argument=name, seen=repr(fn))
        if not isinstance(operands, (tuple, list)):
            breach(
                f"the operands of {self} are given as a tuple", self, argument="operands",
                seen=describe(operands), fix="give (x,) for one operand",
            )  # fmt: skip
        predicate(self, pred)
        return Form((true_fn, false_fn), ((pred,), tuple(operands)), {})

    def spell(self, form: Form) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of a call."""
        return (form.groups[0][0], *form.functions, form.groups[1]), {}

    def arguments(self, form: Form) -> list[tuple[Any, ...]]:
        """Give what each function gets."""
        return [form.groups[1], form.groups[1]]

    def structure(self, form: Form) -> Any:
        """Give the structure of what a function gave."""
        yes, no = (fn.result for fn in form.functions)  # type: ignore[attr-defined]
        return yes if yes is not None else no

    def eager(self, form: Form) -> Any:
        """Call the function that the predicate chooses; both, for the samples of a batch."""
        ((pred,), operands), (yes, no) = form.groups, form.functions
        if not is_batched(pred):
            return (yes if truth(pred) else no)(*operands)
        with speculating(self, form.functions, operands) as outside:
            (a, spec), (b, other) = (tree.flatten(fn(*operands)) for fn in (yes, no))
            same_structure(self, (TRUE, spec), (FALSE, other), no)
            told = [places(a, outside), places(b, outside)]
            found = together(told)
            chosen = [
                choose(self, pred, x, y, f"the results {path_of(spec, i)} of the functions")
                if found[i].kind in {"own", "sealed"} else None
                for i, (x, y) in enumerate(zip(a, b, strict=True))
            ]  # fmt: skip
            leaves = joined(self, found, outside, chosen)
            seal_operands(self, found, told, outside)
        return tree.unflatten(spec, leaves)

    def whole(self, form: Form) -> Any:
        """Leave a predicate that is known to its function; keep others whole."""
        pred = form.groups[0][0]
        if isinstance(pred, bool) or is_batched(pred):
            return self.eager(form)
        return super().whole(form)

    # -- fakes ----------------------------------------------------------------

    def samples(self, form: Form, mode: FakeTensorMode) -> list[Group]:
        """Give the operands, twice."""
        given = tuple(mode.constant(x) if isinstance(x, Tensor) else x for x in form.groups[1])
        return [given, given]

    def outcome(self, form: Form, results: Sequence[Group], mode: FakeTensorMode) -> Group:
        """Give what fits the results of both functions."""
        yes, no = form.functions
        if isinstance(yes, Flat) and isinstance(no, Flat):
            same_structure(self, (TRUE, yes.told), (FALSE, no.told), no)
        pairs = zip(*results, strict=True)
        fakes = [self._joined(form, i, a, b, mode) for i, (a, b) in enumerate(pairs)]
        return tuple(like(results, fakes))

    def _joined(self, form: Form, i: int, a: Any, b: Any, mode: FakeTensorMode) -> Any:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            facts = [(x.dtype, x.device, len(x.shape)) for x in (a, b)]
            if facts[0] == facts[1]:
                sizes = [self._size(m, n, mode) for m, n in zip(a.shape, b.shape, strict=True)]
                if all(m is n for m, n in zip(sizes, a.shape, strict=True)) and same_layout(a, b):
                    return fake_result(mode, a)
                return of_meta(mode.meta(sizes, a.dtype, device=a.device))
        elif not is_symbolic(a) and type(a) is type(b) and a == b:
            return a
        spec = getattr(form.functions[0], "result", None)
        place = path_of(spec, i) if spec is not None else f"[{i}]"
        numbers = not isinstance(a, Tensor) and not isinstance(b, Tensor)
        return breach(
            f"result {place or 'of the functions'} of {self} differs between {TRUE} and {FALSE}",
            self, form.functions[1], argument=f"result {place}".strip(),
            declared=f"{TRUE}: {describe(a)} on {getattr(a, 'device', 'no device')}",
            seen=f"{FALSE}: {describe(b)} on {getattr(b, 'device', 'no device')}",
            fix="return a Tensor instead of the number" if numbers
            else "give both the same dtype, device and number of axes",
        )  # fmt: skip

    def _size(self, a: Any, b: Any, mode: FakeTensorMode) -> Any:
        if a is b or statically_known_true(a == b):
            return a
        if mode.shape_env is None:
            raise DynamicOutputShapeError(
                f"the results of {self} have different sizes, and the fake mode has no ShapeEnv",
                op=self,
                declared=f"{TRUE}: {a}",
                seen=f"{FALSE}: {b}",
                fix='use FakeTensorMode(shape_env=ShapeEnv()), or tracing_mode="symbolic"',
            )
        return mode.shape_env.create_unbacked(origin=f"made by {self}")

    # -- gradients and batches ------------------------------------------------

    def pull(self, form: Form, grads: Sequence[Any]) -> list[Any]:
        """Choose between the gradients of the functions."""
        pred, operands = form.groups
        needed = form.functions[0].needed  # type: ignore[attr-defined]
        needed = needed and needed[1:]
        chosen = places_of(operands, needed)
        wanted = [i for i, g in enumerate(grads) if g is not None]
        count = len(operands)
        backs = tuple(pullback(fn, count, chosen, wanted, needed) for fn in form.functions)  # type: ignore[arg-type]
        given = (*operands, *[grads[i] for i in wanted])
        found = iter(self.again(Form(backs, (pred, given), {})))
        places = set(chosen)
        return [None, *[next(found) if i in places else None for i in range(count)]]

    def moving(self, flags: Groups, groups: Groups) -> Groups:
        """Let the predicate be."""
        return ((False,), *flags[1:])

    def batch(self, form: Form, level: VmapLevel) -> Any:
        """Choose between the functions of the whole batch."""
        (pred,), operands = form.groups
        if is_batched(pred):
            return self.eager(form)
        pairs = [peel(x, level) for x in operands]
        fns = tuple(on_batch(fn, [a for _, a in pairs], level) for fn in form.functions)  # type: ignore[arg-type]
        out = self.below(Form(fns, ((pred,), tuple(v for v, _ in pairs)), {}), level)
        return tuple(in_batch(x, 0, level) for x in out)


cond = Cond("cond")
