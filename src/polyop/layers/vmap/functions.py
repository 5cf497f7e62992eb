"""`autograd.Function` under vmap: its own rule, or its static methods on whole batches (S137).

With `generate_vmap_rule` another `Function` is made of it, one of whole
batches: each of its methods runs the method of the same name under a vmap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from polyop import tree
from polyop.dispatch.context import run_under
from polyop.errors import MissingRuleError, VmapError
from polyop.layers.autograd.function import APPLY, Function, traits_of
from polyop.layers.levels import enter_level
from polyop.layers.rule_notes import note_rule
from polyop.layers.vmap.batch import VmapLevel, batched, peel
from polyop.ops.broadcasting import expand_to
from polyop.ops.reductions import sum as sum_of
from polyop.ops.views import expand_dims, moveaxis
from polyop.source import source_of
from polyop.tensor.tensor import Tensor

Axes = list[int | None]


def apply_at_vmap(level: VmapLevel, cls: type[Function], args: Sequence[Any]) -> Any:
    """Apply a `Function` once for the whole batch.

    Raises:
        MissingRuleError: it has no `vmap`, and `generate_vmap_rule` is not set.
        VmapError: it has both, or its `vmap` does not give `(output, out_dims)`.
    """
    rule = getattr(cls, "vmap", None)
    if rule is not None and cls.generate_vmap_rule:
        raise VmapError(
            f"{cls.__name__} has a vmap method and generate_vmap_rule = True",
            op=cls.__name__,
            source=source_of(rule),
            fix="keep one of them",
        )
    if rule is None and not cls.generate_vmap_rule:
        raise MissingRuleError(
            f"{cls.__name__} has no vmap rule",
            op=cls.__name__,
            source=traits_of(cls).source,
            fix="define the static method vmap(info, in_dims, *args), or set "
            "generate_vmap_rule = True",
        )
    leaves, spec = tree.flatten(tuple(args))
    pairs = [peel(x, level) for x in leaves]
    values = tree.unflatten(spec, [v for v, _ in pairs])
    if rule is None:
        return _generated(level, cls, args)
    in_dims = tuple(peel(x, level)[1] for x in args)
    try:
        given = run_under(level.below(), rule, level.info, in_dims, *values)
    except Exception as error:
        note_rule(error, traits_of(cls), "vmap")
        raise
    if not isinstance(given, tuple) or len(given) != 2:
        raise VmapError(
            f"{cls.__name__}.vmap gives two values",
            op=cls.__name__,
            declared="(output, out_dims)",
            seen=repr(given)[:80],
            source=source_of(rule),
            fix="return the output, and the axis of each result that counts the samples",
        )
    return _wrapped(level, *given)


def _wrapped(level: VmapLevel, out: Any, dims: Any) -> Any:
    if isinstance(out, tuple):
        each = dims if isinstance(dims, tuple) else (dims,) * len(out)
        return tuple(_wrapped(level, x, d) for x, d in zip(out, each, strict=True))
    return out if dims is None else batched(out, dims % (len(out.shape)), level)


# -- the function of batches --------------------------------------------------


class Batching(NamedTuple):
    """What a call on whole batches knows of them."""

    axes: Axes
    size: Any
    randomness: str

    def level(self) -> VmapLevel:
        """Make the vmap that a method runs under."""
        return VmapLevel(self.size, self.randomness)

    def taken(self, values: Sequence[Any], level: VmapLevel) -> tuple[Any, ...]:
        """Give values as batches."""
        pairs = zip(values, self.axes, strict=True)
        return tuple(x if axis is None else batched(x, axis, level) for x, axis in pairs)


def _generated(level: VmapLevel, cls: type[Function], args: Sequence[Any]) -> Any:
    pairs = [peel(x, level) for x in args]
    batching = Batching([axis for _, axis in pairs], level.batch_size, level.randomness)
    if cls not in _made:
        _made[cls] = of_batches(cls)
    made = _made[cls]
    out = run_under(level.below(), made.apply, batching, *[value for value, _ in pairs])
    return tree.map_leaves(lambda y: batched(y, 0, level) if isinstance(y, Tensor) else y, out)


#: The functions of batches that were made, as the traits of every class are kept.
_made: dict[type[Function], type[Function]] = {}


def of_batches(cls: type[Function]) -> type[Function]:
    """Give the `Function` of whole batches, with results along axis 0."""

    class Batches(Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(batching: Batching, *values: Any) -> Any:
            inner = batching.level()
            with enter_level(inner):
                out = cls.forward(*batching.taken(values, inner))
            return tree.map_leaves(lambda y: _whole(y, inner), out)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            batching, *values = inputs
            inner = batching.level()
            ctx.batching, ctx.sample = batching, Sample(ctx)
            results = tree.map_leaves(lambda y: batched(y, 0, inner), output)
            given = batching.taken(values, inner)
            _run(cls, "setup_context", inner, ctx.sample, given, results)
            ctx.sample.keep(ctx, inner, tree.leaves(results), tree.leaves(output))

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            inner = ctx.batching.level()
            given = [None if g is None else batched(g, 0, inner) for g in grads]
            ctx.sample.revive(ctx, inner)
            found = _run(cls, "backward", inner, ctx.sample, *given)
            found = found if isinstance(found, tuple) else (found,)
            pairs = zip(found, ctx.batching.axes, strict=False)
            return None, *[_gradient(g, axis, inner) for g, axis in pairs]

    if hasattr(cls, "jvp"):
        Batches.jvp = staticmethod(_batched_jvp(cls))  # type: ignore[attr-defined]
    Batches.__name__ = Batches.__qualname__ = cls.__name__
    return Batches


def _run(cls: type[Function], name: str, level: VmapLevel, *args: Any) -> Any:
    """Run a method of one sample under a vmap; what it raises says which method it was."""
    try:
        with enter_level(level):
            return getattr(cls, name)(*args)
    except Exception as error:
        note_rule(error, traits_of(cls), name)
        raise


def _batched_jvp(cls: type[Function]) -> Any:
    """Give the `jvp` of whole batches."""

    def jvp(ctx: Any, _: Any, *tangents: Any) -> Any:
        inner = ctx.batching.level()
        pairs = zip(tangents, ctx.batching.axes, strict=True)
        given = [t if t is None or axis is None else batched(t, axis, inner) for t, axis in pairs]
        ctx.sample.revive(ctx, inner)
        found = _run(cls, "jvp", inner, ctx.sample, *given)
        return tree.map_leaves(lambda d: _whole(d, inner), found)

    return jvp


class Sample:
    """The context that the methods of one sample see."""

    def __init__(self, ctx: Any) -> None:
        self.needs_input_grad = ctx.needs_input_grad[1:]
        self.saved_tensors: tuple[Any, ...] = ()
        self._axes: Axes = []
        self._without: tuple[int, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors for backward."""
        self.saved_tensors = tensors

    def save_for_forward(self, *tensors: Any) -> None:
        """Keep tensors for `jvp`, if none are kept for backward."""
        self.saved_tensors = self.saved_tensors or tensors

    def mark_non_differentiable(self, *results: Tensor) -> None:
        """Say that results do not require grad."""
        self._without += tuple(map(id, results))

    def mark_dirty(self, *_: Tensor) -> None:
        """Refuse: what is written belongs to all samples.

        Raises:
            VmapError: always.
        """
        raise VmapError(
            "a Function that writes its inputs has no generated vmap rule",
            fix="define the static method vmap(info, in_dims, *args)",
        )

    def set_materialize_grads(self, value: bool) -> None:
        """Say whether absent gradients come as zeros."""
        self.__dict__["_materialize"] = value

    def keep(self, ctx: Any, level: VmapLevel, results: Any, outputs: Any) -> None:
        """Hand what was said on to the context of the batch."""
        pairs = [(None, None) if x is None else peel(x, level) for x in self.saved_tensors]
        self._axes = [axis for _, axis in pairs]
        ctx.save_for_backward(*[value for value, _ in pairs])
        self.saved_tensors = ()
        without = [y for x, y in zip(results, outputs, strict=True) if id(x) in self._without]
        if without:
            ctx.mark_non_differentiable(*without)
        if "_materialize" in self.__dict__:
            ctx.set_materialize_grads(self.__dict__["_materialize"])
        own = {k: v for k, v in vars(self).items() if k not in _FIELDS}
        self.__dict__["_own"] = tree.map_leaves(lambda x: Kept(*peel(x, level)), own)

    def revive(self, ctx: Any, level: VmapLevel) -> None:
        """Give what was kept as batches of a level."""
        pairs = zip(ctx.saved_tensors, self._axes, strict=True)
        self.saved_tensors = tuple(x if a is None else batched(x, a, level) for x, a in pairs)
        self.needs_input_grad = ctx.needs_input_grad[1:]
        vars(self).update(tree.map_leaves(lambda x: x.at(level), self.__dict__["_own"]))


_FIELDS = {"needs_input_grad", "saved_tensors", "_axes", "_without", "_materialize", "_own"}


class Kept:
    """A value that a method put on the context."""

    def __init__(self, value: Any, axis: int | None) -> None:
        self.value = value
        self.axis = axis

    def at(self, level: VmapLevel) -> Any:
        """Give it as a batch of a level."""
        return self.value if self.axis is None else batched(self.value, self.axis, level)


def _whole(leaf: Any, level: VmapLevel) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    value, axis = peel(leaf, level)
    if axis is None:
        return expand_to(expand_dims(value, 0), [level.batch_size, *value.shape])
    return moveaxis(value, axis, 0) if axis else value


def _gradient(g: Any, axis: int | None, level: VmapLevel) -> Any:
    """Give the gradient of an input of the batch; one that all samples share gets the sum."""
    if g is None:
        return None
    value = _whole(g, level)
    if axis is None:
        return sum_of(value, axis=0)
    return moveaxis(value, 0, axis) if axis else value


APPLY[VmapLevel] = apply_at_vmap
