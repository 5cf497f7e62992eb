"""The primitive of an operator: what JAX does with it, in each of its ways to look at a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, partial_eval

from polyop import tree
from polyop.bridges.jax.anew import COMPILED
from polyop.bridges.jax.batching import batch
from polyop.bridges.jax.frames import Frame
from polyop.bridges.jax.gradient import make_slopes, tangents
from polyop.bridges.jax.meshes import aligned, cut_of, raised, spread, typed, varying
from polyop.bridges.jax.own import lower, run
from polyop.bridges.jax.results import canonical, outline
from polyop.dispatch.body import result_forms
from polyop.dispatch.operator import OpOverload
from polyop.schema.tags import Tag


class Bridge:
    """One operator in JAX.

    Attributes:
        op: the operator.
        primitive: what is bound for a call.
        slopes: what is bound for its derivative.
        holds_tensors: whether each result is one tensor.
        views: whether a result is a view of an argument.
        spec: how the results lie, if that is known before a call.
    """

    def __init__(self, op: OpOverload) -> None:
        returns = op._schema.returns
        self.op = op
        self.holds_tensors = bool(returns) and all(str(r.type) == "Tensor" for r in returns)
        self.views = any(
            kind in {"view", "views", "either"} for kind, _ in result_forms(op._schema)
        )
        one = 0 if len(returns) == 1 else (0,) * len(returns)
        self.spec = tree.structure(one) if self.holds_tensors else None
        self.slopes = make_slopes(op.name())
        self.primitive = self._make()

    @property
    def is_odd(self) -> bool:
        """Whether some calls cannot be JAX's."""
        return not self.holds_tensors or self.op.rule("effect") is not None

    def _make(self) -> Any:
        p: Any = Primitive(self.op.name())
        p.multiple_results = True
        p.def_impl(run)
        p.def_abstract_eval(_abstract)
        # Not cached: some platforms number each callback.
        mlir.register_lowering(p, lower, cacheable=False)
        ad.primitive_jvps[p] = self._jvp
        ad.primitive_transposes[p] = self._transpose
        batching.primitive_batchers[p] = self._batch
        if Tag.nondeterministic_seeded in self.op.tags:
            partial_eval.partial_eval_jaxpr_custom_rules[p] = _kept
        return p

    def bind(self, operands: Sequence[Any], frame: Frame) -> tuple[list[Any], Any]:
        """Give the results of a call in a row, and how they lie."""
        operands = aligned(operands)
        spec: Any = self.spec if self.spec is not None else outline(frame, _arrays(operands))[1]
        spread_ = spread(frame, operands, lambda pieces: self.bind(pieces, frame)[0])
        if spread_ is not None:
            return spread_, spec
        cut = cut_of(frame, operands)
        more = {} if cut is None else {"cut": cut}
        outs: list[Any] = self.primitive.bind(*operands, frame=frame, **more)
        return outs, spec

    def _jvp(
        self, primals: Sequence[Any], given: Sequence[Any], *, frame: Frame, cut: Any = None
    ) -> Any:
        primals, given = _arrays(primals), _arrays(given)
        flat, spec = self.bind(primals, frame)
        return flat, tangents(self.slopes, primals, given, frame, (flat, spec))

    def _batch(
        self, operands: Sequence[Any], axes: Sequence[Any], *, frame: Frame, cut: Any = None
    ) -> Any:
        return batch(lambda *xs, frame: self.bind(xs, frame)[0], operands, axes, frame)

    def _transpose(
        self, cotangents: Sequence[Any], *operands: Any, frame: Frame, cut: Any = None
    ) -> list[Any]:
        """Go back through a call in somebody's backward, which is linear in what came to it.

        The derivative of what is linear is the same everywhere, also at zero.
        """
        unknown = [i for i, x in enumerate(operands) if isinstance(x, ad.UndefinedPrimal)]

        def forward(*moved: Any) -> list[Any]:
            whole = list(operands)
            for i, x in zip(unknown, moved, strict=True):
                whole[i] = x
            return self.bind(whole, frame)[0]

        zeros = [_zeros(operands[i].aval) for i in unknown]
        _, back = jax.vjp(forward, *zeros)
        found: list[Any] = [None] * len(operands)
        for i, g in zip(unknown, back(list(map(_instantiated, cotangents))), strict=True):
            found[i] = g
        return found


def _kept(
    saveable: Any, unknown: Sequence[bool], known: Sequence[bool], eqn: Any
) -> tuple[Any, Any, list[bool], list[bool], list[Any]]:
    """Let `jax.checkpoint` keep random numbers: a second call for the gradient draws others."""
    count = len(eqn.outvars)
    if any(unknown):
        pairs = zip(eqn.invars, known, strict=True)
        needed = [x for x, is_here in pairs if not is_here]
        return None, eqn, [True] * count, [True] * count, needed
    return eqn, None, [False] * count, [False] * count, []


def _arrays(operands: Sequence[Any]) -> list[Any]:
    return list(map(_array, operands))


def _array(x: Any) -> Any:
    # Among JAX's literals are numbers of Python, of which some have a dtype.
    return x if isinstance(x, ad.Zero) or hasattr(x, "shape") else jnp.asarray(x)


def _instantiated(ct: Any) -> Any:
    return _zeros(ct.aval) if isinstance(ct, ad.Zero) else ct


def _zeros(aval: Any) -> Any:
    if aval.dtype == jax.dtypes.float0:
        return np.zeros(aval.shape, aval.dtype)
    return raised(jnp.zeros(aval.shape, aval.dtype), varying(aval))


def _abstract(*operands: Any, frame: Frame, cut: Any = None) -> list[Any]:
    COMPILED.holds(frame.op)
    metas, _ = outline(frame, operands)
    return [typed(frame, (m.shape, canonical(m.dtype)), operands) for m in metas]
