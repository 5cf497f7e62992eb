"""Programs with functions that are given to operators, and what Python makes of them.

Each program is written once, for polyop with its higher-order operators and for
PyTorch with an `if` or a loop in their place. Values keep one shape and stay
small, so that any chain of transforms stays finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tests.laws import transforms
from tests.laws.programs import Program
from tests.laws.transforms import EXAMPLES, on_fakes

import polyop
from polyop.dispatch.context import run_under, word
from polyop.layers.trace import make_fx

hops = polyop.ops.higher_order


class Ours:
    """The operators."""

    lib: Any = polyop
    cond = staticmethod(polyop.cond)
    while_loop = staticmethod(polyop.while_loop)
    map = staticmethod(polyop.map)
    scan = staticmethod(polyop.scan)
    associative_scan = staticmethod(polyop.associative_scan)
    checkpoint = staticmethod(hops.checkpoint)
    wrap = staticmethod(hops.wrap)
    foreach_map = staticmethod(hops.foreach_map)

    @staticmethod
    def invoke_subgraph(f: Any, *args: Any) -> Any:
        """Call a function that programs keep once."""
        return hops.invoke_subgraph(f, "once", *args)

    @staticmethod
    def product(a: Any, b: Any) -> Any:
        """Multiply in a given dtype."""
        return hops.out_dtype(polyop.ops.core.multiply.default, polyop.float64, a, b)

    @staticmethod
    def graded(f: Any, *args: Any) -> Any:
        """Call a function with gradients on."""
        return hops.wrap_with_set_grad_enabled(True, f, *args)


class Plain:
    """Python."""

    lib: Any = torch

    @staticmethod
    def cond(pred: Any, yes: Any, no: Any, operands: Sequence[Any]) -> Any:
        """Choose."""
        return yes(*operands) if bool(pred) else no(*operands)

    @staticmethod
    def while_loop(test: Any, body: Any, carry: Any, args: Any = ()) -> Any:
        """Repeat."""
        while bool(test(*carry, *args)):
            carry = body(*carry, *args)
        return carry

    @staticmethod
    def map(f: Any, xs: Any, *args: Any) -> Any:
        """Call for each row."""
        return torch.stack([f(x, *args) for x in xs.unbind(0)])

    @staticmethod
    def scan(f: Any, carry: Any, xs: Any, args: Any = (), *, reverse: bool = False) -> Any:
        """Carry through the rows."""
        rows, ys = list(xs.unbind(0)), []
        for x in reversed(rows) if reverse else rows:
            carry, y = f(carry, x, *args)
            ys.append(y)
        return carry, torch.stack(ys[::-1] if reverse else ys)

    @staticmethod
    def associative_scan(f: Any, xs: Any, dim: int = 0, reverse: bool = False) -> Any:
        """Combine one by one."""
        rows, done = list(xs.unbind(dim)), []
        for x in reversed(rows) if reverse else rows:
            done.append(f(done[-1], x) if done else x)
        return torch.stack(done[::-1] if reverse else done, dim)

    @staticmethod
    def invoke_subgraph(f: Any, *args: Any) -> Any:
        """Call."""
        return f(*args)

    checkpoint = wrap = graded = invoke_subgraph

    @staticmethod
    def product(a: Any, b: Any) -> Any:
        """Multiply."""
        return a * b

    @staticmethod
    def foreach_map(f: Any, *columns: Any) -> Any:
        """Call for each place."""
        n = next(len(c) for c in columns if isinstance(c, list))
        return [f(*[c[i] if isinstance(c, list) else c for c in columns]) for i in range(n)]


def _cond(h: Any, a: Any, b: Any) -> Any:
    return h.cond(a.sum() > 0.3, lambda a, b: (a * b).sin(), lambda a, b: a * a - b, (a, b))


def _cond_of_other(h: Any, a: Any, b: Any) -> Any:
    return h.cond(b[0, 0] > 0.1, lambda a: a.sin() * 0.7, lambda a: a.cos() * a, (a,))


def _cond_closing(h: Any, a: Any, b: Any) -> Any:
    c = a * 0.5
    return h.cond(a.sum() > 0.3, lambda x: x * c + b, lambda x: (x - b) * c.cos(), (a,))


def _cond_partial(h: Any, a: Any, b: Any) -> Any:
    """One function uses nothing, the other all."""
    return h.cond(a.sum() < 0.3, lambda a, b: b * 1.0, lambda a, b: a * a, (a, b))


def _nested_cond(h: Any, a: Any, b: Any) -> Any:
    def yes(x: Any) -> Any:
        return h.cond(x[0, 0] > 0, lambda z: z.sin() * b, lambda z: z * z, (x * 0.9,))

    return h.cond(a.sum() > 0.3, yes, lambda x: x.cos() - b, (a,))


def _while(h: Any, a: Any, b: Any) -> Any:
    def body(i: Any, x: Any) -> Any:
        return i + 1, x * 0.7 + x.sin() * b * 0.3

    zero = h.lib.zeros((), dtype=h.lib.int64)
    return h.while_loop(lambda i, x: (i < 3) & (x.sum() < 2.0), body, (zero, a))[1]


def _while_several(h: Any, a: Any, b: Any) -> Any:
    def body(x: Any, y: Any, n: Any, c: Any) -> Any:
        return y * 0.6 + c, x.sin() * y, n + x.sum() * x.sum() + 0.5

    total = a.sum() * 0.1
    out = h.while_loop(lambda x, y, n, c: n < 2.0, body, (a, b, total), (a * b,))
    return out[0] + out[1] * out[2] * 0.1


def _scan(h: Any, a: Any, b: Any) -> Any:
    c, ys = h.scan(lambda c, x: (c * 0.5 + x.sin(), c * x), b[0], a)
    return ys * 0.6 + c * b


def _scan_back(h: Any, a: Any, b: Any) -> Any:
    def step(carry: Any, x: Any) -> Any:
        c, d = carry
        return (c * 0.5 + x * d, d.sin() + 0.1), c * x + d

    (c, d), ys = h.scan(step, (b[0], a[1] * 0.5), a, reverse=True)
    return ys * 0.6 + c * d


def _scan_closing(h: Any, a: Any, b: Any) -> Any:
    w = b.cos()
    c, ys = h.scan(lambda c, x: (c + x * w[0], c.sin() * a[1]), a[0] * b[1], b)
    return ys + c * 0.5


def _scan_given(h: Any, a: Any, b: Any) -> Any:
    c, ys = h.scan(lambda c, x, w: (c * w + x, c - w), b[0], a, (a[1] * b[1],))
    return ys * 0.6 + c


def _scan_of_cond(h: Any, a: Any, b: Any) -> Any:
    def step(c: Any, x: Any) -> Any:
        new = h.cond(x.sum() > 0, lambda c, x: c + x.sin(), lambda c, x: c * x, (c, x))
        return new, new * x

    return h.scan(step, b[0], a)[1] * 0.7


def _map(h: Any, a: Any, b: Any) -> Any:
    return h.map(lambda r, w: r.sin() * w + (r * w).sum() * 0.3, a, b[1])


def _map_closing(h: Any, a: Any, b: Any) -> Any:
    return h.map(lambda r: (r * a).sum(0) * 0.5 + b[0] * r, b)


def _prefixes(h: Any, a: Any, b: Any) -> Any:
    return h.associative_scan(lambda x, y: x * y, a * 0.5 + b) * 0.7


def _prefixes_back(h: Any, a: Any, b: Any) -> Any:
    return h.associative_scan(lambda x, y: x * y + x + y, a * b, 1, True) * 0.3


def _block(x: Any, w: Any) -> Any:
    return x.sin() * w + (x * w).sum(0) * 0.3


def _checkpoint(h: Any, a: Any, b: Any) -> Any:
    return h.checkpoint(_block, a, b) * b


def _checkpoint_closing(h: Any, a: Any, b: Any) -> Any:
    c = a * b
    return h.checkpoint(lambda x: _block(x, c) - a, b)


def _invoke_twice(h: Any, a: Any, b: Any) -> Any:
    return h.invoke_subgraph(_block, h.invoke_subgraph(_block, a, b), a)


def _wrap(h: Any, a: Any, b: Any) -> Any:
    return h.wrap(_block, a, b)


def _graded(h: Any, a: Any, b: Any) -> Any:
    return h.graded(_block, a, b)


def _product(h: Any, a: Any, b: Any) -> Any:
    return h.product(a.sin(), b)


def _foreach(h: Any, a: Any, b: Any) -> Any:
    return h.lib.stack(h.foreach_map(lambda r, s, w: r * s + w, [a[0], a[1]], [b[1], b[0]], a[0]))


def _written(h: Any, a: Any, b: Any) -> Any:
    """The functions write what they made."""

    def step(c: Any, x: Any) -> Any:
        y = c * x
        y[1:].mul_(x[0])
        return h.cond(y.sum() > 0, _poked, lambda y, b: y * b, (y, b[1])), y

    c, ys = h.scan(step, b[0], a)
    return ys * 0.6 + c


def _poked(y: Any, b: Any) -> Any:
    y = y.clone()
    y.mul_(b).add_(0.1)
    return y


def _while_of_cond(h: Any, a: Any, b: Any) -> Any:
    def body(n: Any, x: Any) -> Any:
        new = h.cond(x.sum() > 0.2, lambda x: x * b - 0.1, lambda x: x.sin() * 0.8 + 0.2, (x,))
        return n - 1.0, new

    return h.while_loop(lambda n, x: n > b[0, 0] * 2, body, (a[0, 0] * 0.0 + 2.5, a))[1]


def _map_of_while(h: Any, a: Any, b: Any) -> Any:
    def row(r: Any, w: Any) -> Any:
        return h.while_loop(lambda x, w: x.sum() < 0.5, lambda x, w: (x * 0.5 + w,), (r,), (w,))[0]

    return h.map(row, a, b[0] * b[0] + 0.2)


#: By name: programs of two tensors.
PROGRAMS: dict[str, Callable[[Any, Any, Any], Any]] = {
    f.__name__[1:]: f
    for f in [
        _cond, _cond_of_other, _cond_closing, _cond_partial, _nested_cond, _while, _while_several,
        _scan, _scan_back, _scan_closing, _scan_given, _scan_of_cond, _map, _map_closing,
        _prefixes, _prefixes_back, _checkpoint, _checkpoint_closing, _invoke_twice, _wrap,
        _graded, _product, _foreach, _written, _while_of_cond, _map_of_while,
    ]
}  # fmt: skip


class Transforms(transforms.Ours):
    """The transforms, with traces of each kind by name."""

    def real(self, f: Program, n: int) -> Program:
        """Trace on data."""
        return lambda x, y: self.trace(f, 0)(x, y)

    def faked(self, f: Program, n: int) -> Program:
        """Trace on fakes."""
        return lambda x, y: self.trace(f, 1)(x, y)

    def symbolic(self, f: Program, n: int) -> Program:
        """Trace with symbolic sizes."""
        return lambda x, y: self.trace(f, 2)(x, y)

    def before(self, f: Program, n: int) -> Program:
        """Trace the calls as written, inside what runs."""
        x, y = map(self.make, EXAMPLES)
        return lambda a, b: make_fx(f, "fake", pre_dispatch=True)(x, y)(a, b)

    def fake(self, f: Program, n: int) -> Program:
        """Compute, and compare with what fakes of the examples say of the result."""

        def checked(x: Any, y: Any) -> Any:
            out = f(x, y)
            # A trace outside, before dispatch too, is not to record it.
            plain = word().but(tracer=None, pre=())
            told = run_under(plain, on_fakes, f, [self.make(e) for e in EXAMPLES])
            assert (tuple(told.shape), told.dtype) == (tuple(out.shape), out.dtype)
            return out

        return checked

    def here(self, f: Program, n: int) -> Program:
        """Trace on the very tensors, which other transforms may have made."""
        return lambda x, y: make_fx(f, "fake")(x, y)(x, y)


class Judgement(transforms.Theirs):
    """PyTorch's."""

    real = faked = symbolic = before = here = transforms.Theirs.functionalize
