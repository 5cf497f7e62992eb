"""The carries of a `while_loop`, one behind the other: what its gradient goes back through.

How many steps there are is data, so in a trace the stacks have an unbacked
length. The gradient is a `scan` over them, from the last step to the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from polyop.hop.batches import in_batch
from polyop.hop.forms import Flat, Form, Group, is_batched
from polyop.hop.looping import BODY, WhileLoop, ending, samples_of
from polyop.hop.predicates import truth
from polyop.hop.scanning import scan
from polyop.hop.speculation import choose
from polyop.hop.steps import empty_stack, fake_stack
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.vmap.batch import VmapLevel
from polyop.ops.comparison import logical_and
from polyop.ops.factories import ones, zeros
from polyop.ops.joining import stack
from polyop.ops.reductions import any as any_of
from polyop.ops.rounding import clone
from polyop.ops.select import where
from polyop.ops.views import reshape
from polyop.symbolic import ShapeEnv
from polyop.tensor.tensor import Tensor, of_meta


class WhileLoopCarries(WhileLoop):
    """Repeats a function as `while_loop` does, and keeps what each step began with.

    Gives the leaves of the last carry, then for each step whether it was one (of a batch,
    samples that are done make no more steps), then a stack of each tensor of the carry.
    """

    keeps_results = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._envs: WeakKeyDictionary[FakeTensorMode, ShapeEnv] = WeakKeyDictionary()

    def whole(self, form: Form) -> Any:
        """Give all results as leaves."""
        return self.again(form if form.is_flat else self.flattened(form))

    def eager(self, form: Form) -> Any:
        """Repeat the function; for a batch until all samples are done."""
        (_, body), (carry, args) = form.functions, form.groups
        rows: list[Group] = []
        pred = self.tested(form, carry)
        while truth(any_of(samples_of(pred)) if is_batched(pred) else pred):
            flag = reshape(pred, ()) if is_batched(pred) else ones((), dtype="bool")
            rows.append((flag, *tensors_in(carry)))
            new = self.step(body, carry, args)
            if is_batched(pred):
                pairs = zip(new, carry, strict=True)
                new = tuple(choose(self, pred, a, b, "the carries of two steps") for a, b in pairs)
            carry, found = new, self.tested(form, new)
            pred = logical_and(flag, reshape(found, ())) if is_batched(pred) else found
        carry = ending(carry, form)
        if rows:
            return (*carry, *[stack(list(column)) for column in zip(*rows, strict=True)])
        return (*carry, zeros(0, dtype="bool"), *[empty_stack(x, ()) for x in tensors_in(carry)])

    def outcome(self, form: Form, results: Sequence[Group], mode: FakeTensorMode) -> Group:
        """Give the carry, and stacks of an unbacked length."""
        carry = super().outcome(form, results, mode)
        length = self._length(mode)
        steps = of_meta(mode.meta((length,), ones(0, dtype="bool").dtype))
        return (*carry, steps, *[fake_stack(mode, length, x) for x in tensors_in(carry)])

    def _length(self, mode: FakeTensorMode) -> Any:
        env = mode.shape_env
        if env is None:  # of what a user sees, nothing has this length
            env = self._envs.setdefault(mode, ShapeEnv())
        return env.create_unbacked(origin=f"made by {self}")

    def pulled(self, form: Form, grads: Sequence[Any], out: Group) -> list[Any]:
        """Go back through the steps of a call that has run."""
        (_, body), (carry, args) = form.functions, form.groups
        n = len(carry)

        def step(*leaves: Any) -> Group:
            before, flag, rest = leaves[:n], leaves[n], leaves[n + 1 :]
            pairs = zip(body(*before, *rest), before, strict=True)
            new = [where(flag, a, b) if isinstance(a, Tensor) else a for a, b in pairs]
            return (*new, *[clone(x) for x in tensors_in(before)])

        made = Form((Flat(step, None, BODY),), (carry, (out[n],), args), {})
        found = scan.back(made, [*grads[:n], *grads[n + 1 :]], out[n + 1 :])
        return [*found[:n], *found[n + 1 :]]

    def of_loop(self, form: Form, grads: Sequence[Any]) -> list[Any]:
        """Give the gradient of each leaf of a `while_loop`: go through it again, and back."""
        fns = tuple(fn.inside(repeats=True) for fn in form.functions)  # type: ignore[attr-defined]
        out = self.again(form._replace(functions=fns))
        return self.pulled(form, [*grads, *[None] * (len(out) - len(grads))], out)

    def of_batch(
        self, out: Group, differ: Sequence[bool], level: VmapLevel, *, masked: bool
    ) -> Group:
        """Give the results of a whole batch to its samples; `masked` if these end by themselves."""
        n = len(differ)
        carry = super().of_batch(out[:n], differ, level, masked=masked)
        # Behind the carry: whether the batch made a step, whether a sample did, the others.
        stacks = out[n + 1 :] if masked else out[n:]
        flags = [masked, *[f for x, f in zip(carry, differ, strict=True) if isinstance(x, Tensor)]]
        pairs = zip(stacks, flags, strict=True)
        return (*carry, *[in_batch(x, 1 if differs else None, level) for x, differs in pairs])


def tensors_in(carry: Sequence[Any]) -> list[Tensor]:
    """List the tensors of a carry."""
    return [x for x in carry if isinstance(x, Tensor)]


while_loop_carries = WhileLoopCarries("while_loop_carries")
