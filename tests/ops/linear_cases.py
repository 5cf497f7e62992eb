"""Calls of operators that are linear in their tensors, and what laws ask of them."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

import polyop.assembly  # noqa: F401
from polyop.ops import indexing, inplace, joining, view_inverses, views
from polyop.ops.define import ON_ARRAYS, operator_of
from polyop.tensor.meta import META_SPACE, meta_of
from polyop.tensor.tensor import of_array


@dataclass
class Case:
    entry: object
    args: tuple
    name: str = ""

    @property
    def op(self):
        return operator_of(self.entry)

    def __repr__(self):
        shown = [wrapped(a, lambda x: x.shape) for a in self.args]
        return f"{self.op.name()}{shown}"


def array(*shape, seed=0):
    return np.random.default_rng(seed + math.prod(shape)).standard_normal(shape)


X = array(2, 3, 4)
XT = X.transpose(2, 0, 1)
XS = array(4, 6)[::2, ::-1]
EMPTY = array(0, 3)
I = np.array([1, 0, 1])
J = np.array([[0], [2]])

VIEWS = [
    *(Case(views.reshape, (X, s)) for s in ([6, 4], [-1], [2, 3, 2, 2], [24, 1], [1, 2, 3, 4])),
    *(Case(views.reshape, (XT, s)) for s in ([8, 3], [4, 6], [-1], [2, 2, 2, 3])),
    Case(views.reshape, (XS, [12])), Case(views.reshape, (EMPTY, [3, 0])),
    Case(views.reshape, (array(1)[0:1], [])),
    Case(views.view, (X, [6, 4])), Case(views.view, (XT, [2, 2, 2, 3])),
    *(Case(views.permute_dims, (X, a)) for a in ([0, 1, 2], [2, 0, 1], [-1, 0, -2])),
    Case(views.permute_dims, (XT, [1, 2, 0])),
    *(Case(views.transpose, (X, a, b)) for a, b in ((0, 1), (-1, 0), (1, 1))),
    Case(views.matrix_transpose, (X,)), Case(views.matrix_transpose, (XT,)),
    *(Case(views.moveaxis, (X, a, b)) for a, b in ((0, 2), (-1, 0), (1, -1))),
    *(Case(views.squeeze, (array(1, 3, 1), a)) for a in (None, [0], [2], [-1, 0], [])),
    *(Case(views.expand_dims, (X, a)) for a in (0, 1, 3, -1)),
    Case(views.expand_dims, (XT, 1)),
    *(Case(views.broadcast_to, (array(3, 1), s)) for s in ([3, 1], [3, 5], [2, 3, 4], [-1, 2])),
    *(Case(views.select, (X, a, i)) for a, i in ((0, 1), (1, -1), (-1, 2), (2, 0))),
    Case(views.select, (XT, 0, 3)),
    *(Case(views.slice_axis, (X, *a)) for a in (
        (0, None, None, 1), (1, 1, None, 1), (2, 0, 4, 2), (-1, -3, -1, 1), (2, None, None, -1),
        (2, 3, 0, -2), (1, 5, 9, 1), (1, 2, 1, 1), (0, 1, None, 1),
    )),
    *(Case(views.diagonal, (X, *a)) for a in (
        (0, 0, 1), (1, 1, 2), (-1, 2, 0), (0, -1, -2), (9, 0, 1),
    )),
    *(Case(views.flip, (X, a)) for a in (None, [0], [-1, 0], [])),
    Case(views.alias, (X,)), Case(views.alias, (XT,)),
]  # fmt: skip

OTHERS = [
    Case(view_inverses.contiguous_copy, (XT,)),
    Case(view_inverses.select_grad, (array(2, 4), [2, 3, 4], 1, 2)),
    Case(view_inverses.slice_grad, (array(2, 3, 2), [2, 3, 4], -1, None, None, 2)),
    Case(view_inverses.slice_grad, (array(2, 3, 4), [2, 3, 4], 2, None, None, -1)),
    Case(view_inverses.diagonal_grad, (array(4, 2), [2, 3, 4], 0, 0, 1)),
    Case(view_inverses.select_scatter, (X, array(2, 4), 1, -1)),
    Case(view_inverses.slice_scatter, (XT, array(4, 1, 3), 1, 1, None, 1)),
    Case(view_inverses.diagonal_scatter, (X, array(4, 2), 0, 0, 1)),
    Case(joining.concat, ([X, array(2, 1, 4)], 1)), Case(joining.concat, ([X, X], -1)),
    Case(joining.concat, ([XT, XT], 0)), Case(joining.concat, ([X, XT], None)),
    Case(joining.stack, ([X, X], 0)), Case(joining.stack, ([XT, XT], -1)),
    Case(joining.stack, ([XT, XT], 1)), Case(joining.stack, ([np.array(0.5), np.array(2.0)], 0)),
    Case(joining.pad_constant, (X, [0, 1, 2], [1, 0, 3], 0)),
    Case(joining.tril, (X, 0)), Case(joining.triu, (XT, 1)), Case(joining.tril, (X, -1)),
    Case(indexing.index, (X, [I % 2])), Case(indexing.index, (X, [None, I])),
    Case(indexing.index, (XT, [None, I, J % 3])), Case(indexing.index, (X, [I, None, I])),
    Case(indexing.index, (X, [None, None, J])), Case(indexing.index, (X, [I[0:0]])),
    Case(indexing.index, (X, [np.array(1)])),
    Case(indexing.index_grad, (array(3, 3, 4), [2, 3, 4], [I])),
    Case(indexing.index_grad, (array(2, 2, 3), [2, 3, 4], [None, J, I])),
    Case(indexing.index_put, (X, [np.array([1])], array(3, 4), False)),
    Case(indexing.index_put, (X, [None, np.array([2, 0])], array(2, 2, 4), False)),
    Case(indexing.index_put, (X, [I], array(3, 3, 4), True)),
    Case(indexing.index_put, (X, [I, None, I], array(3, 3), True)),
    Case(inplace.copy, (X, array(3, 1))),
]  # fmt: skip


def is_float(value):
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def wrapped(value, wrap):
    if isinstance(value, np.ndarray):
        return wrap(value)
    if isinstance(value, list) and any(isinstance(v, np.ndarray) for v in value):
        return [wrapped(v, wrap) for v in value]
    return value


def kernel_of(case):
    return next(iter(case.op.kernels().values())).fn


def fake_of(case):
    metas = [wrapped(a, lambda x: meta_of(of_array(x), META_SPACE)) for a in case.args]
    return case.op.rule("meta")(*metas)


def gradients(case, g):
    """Evaluate the texts of the gradients on arrays, by argument."""
    names = [a.name for a in case.op._schema.arguments]
    values = dict(zip(names, case.args, strict=True))
    scope = {**ON_ARRAYS, **values, "g": g}
    return {n: eval(text, scope) for n, text in case.op.rule("formula").text.items()}


def dot(a, b):
    if isinstance(a, list):
        return sum(dot(x, y) for x, y in zip(a, b, strict=True))
    return float(np.sum(a * b))


def info(size):
    return SimpleNamespace(batch_size=size, randomness="error", kwarg_dims=None)
