"""Transforms as functions from programs to programs, and PyTorch's judgement of each.

Each takes a function of two tensors, and gives one of the same type, so that
any chain of them is a program again. The plain counterpart of `vmap` is a
loop; those of `functionalize`, `trace` and `fake` are the function itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tests.laws.programs import Program, data

import polyop
from polyop.dispatch.context import run_under, word
from polyop.fake import FakeTensorMode
from polyop.func import functionalize, grad, jacfwd, jacrev, jvp, linearize, vjp, vmap
from polyop.layers.trace import make_fx

#: Inputs that programs are traced on, and their fakes made of.
EXAMPLES = data(101), data(102)
WEIGHTS = data(103)
#: `(in_dims, out_dims)` of the maps; each chain takes its own by its place.
DIMS = [((1, None), 0), ((None, 0), 2), ((0, 2), 1)]
TRACING = ["real", "fake", "symbolic"]


class Ours:
    """What the transforms are in polyop; `make` makes a tensor of an array."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def grad(self, f: Program, n: int) -> Program:
        """Differentiate a weighted sum."""
        w = self.make(WEIGHTS)
        return lambda x, y: grad(lambda x: (f(x, y) * w).sum())(x)

    def jvp(self, f: Program, n: int) -> Program:
        """Differentiate along a direction that depends on the other input."""
        return lambda x, y: jvp(lambda x: f(x, y), (x,), (y.cos(),))[1]

    def vmap(self, f: Program, n: int) -> Program:
        """Map over three samples, and add the results up."""
        (a, b), out = DIMS[n % len(DIMS)]

        def mapped(x: Any, y: Any) -> Any:
            xs = x if a is None else polyop.stack(samples(x), axis=a)
            ys = y if b is None else polyop.stack(samples(y), axis=b)
            result = vmap(f, (a, b), out)(xs, ys)
            return sum(r * (i + 1.0) for i, r in enumerate(result.unbind(out)))

        return mapped

    def functionalize(self, f: Program, n: int) -> Program:
        """Take the writes out."""
        return functionalize(f, remove=["mutations", "mutations_and_views"][n % 2])

    def trace(self, f: Program, n: int) -> Program:
        """Trace on the examples; the graph is the function, on any data."""
        x, y = map(self.make, EXAMPLES)
        module: Program = make_fx(f, TRACING[n % 3])(x, y)
        return module

    def trace_inside(self, f: Program, n: int) -> Program:
        """Trace on the examples while outer transforms run."""
        return lambda x, y: self.trace(f, n)(x, y)

    def fake(self, f: Program, n: int) -> Program:
        """Compute, and compare with what fakes of the examples say of the result."""

        def checked(x: Any, y: Any) -> Any:
            out = f(x, y)
            told = on_fakes(f, [self.make(e) for e in EXAMPLES])
            assert (tuple(told.shape), told.dtype) == (tuple(out.shape), out.dtype)
            if not word().levels and not word().tracer:
                assert told.stride() == out.stride()
            return out

        return checked

    # -- others that compose with these -------------------------------------------

    def backward(self, f: Program, n: int) -> Program:
        """Differentiate by the engine, on tensors that require grad."""
        w = self.make(WEIGHTS)

        def engine(x: Any, y: Any) -> Any:
            x = x if x.requires_grad else x.detach().requires_grad_()
            out = (f(x, y) * w).sum() + (x * 0.0).sum()  # of x, even where f is not
            return polyop.autograd.grad(out, x, create_graph=True)[0]

        return engine

    def vjp(self, f: Program, n: int) -> Program:
        """Pull the weights back."""
        w = self.make(WEIGHTS)
        return lambda x, y: vjp(lambda x: f(x, y), x)[1](w)[0]

    def linearize(self, f: Program, n: int) -> Program:
        """Differentiate once, and push the direction."""
        return lambda x, y: linearize(lambda x: f(x, y), x)[1](y.cos())

    def jacrev(self, f: Program, n: int) -> Program:
        """Weight the rows of the Jacobian, which is a `vmap` of `vjp`."""
        w = self.make(WEIGHTS).reshape(2, 3, 1, 1)
        return lambda x, y: (jacrev(lambda x: f(x, y))(x) * w).sum(axis=(0, 1))

    def jacfwd(self, f: Program, n: int) -> Program:
        """Weight the rows of the Jacobian, which is a `vmap` of `jvp`."""
        w = self.make(WEIGHTS).reshape(2, 3, 1, 1)
        return lambda x, y: (jacfwd(lambda x: f(x, y))(x) * w).sum(axis=(0, 1))

    def compiled(self, f: Program, n: int) -> Program:
        """Compile."""
        return polyop.compile(f)

    def pre_dispatch(self, f: Program, n: int) -> Program:
        """Trace the calls as written."""
        x, y = map(self.make, EXAMPLES)
        module: Program = make_fx(f, TRACING[n % 3], pre_dispatch=True)(x, y)
        return module


def on_fakes(f: Program, inputs: Sequence[Any]) -> Any:
    """Run a program on fakes of some inputs; a trace outside is not to record it."""

    def told() -> Any:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with mode:
            return f(*map(mode.from_tensor, inputs))

    return run_under(word().but(tracer=None, pre=()), told)


class Theirs:
    """What they are in PyTorch, by loops and by `torch.func`."""

    def grad(self, f: Program, n: int) -> Program:
        """Differentiate the same sum."""
        w = torch.tensor(WEIGHTS)
        return lambda x, y: torch.func.grad(lambda x: (f(x, y) * w).sum())(x)

    def jvp(self, f: Program, n: int) -> Program:
        """Differentiate along the same direction."""
        return lambda x, y: torch.func.jvp(lambda x: f(x, y), (x,), (y.cos(),))[1]

    def vmap(self, f: Program, n: int) -> Program:
        """Loop over the samples."""
        (a, b), _ = DIMS[n % len(DIMS)]

        def looped(x: Any, y: Any) -> Any:
            xs = [x] * 3 if a is None else samples(x)
            ys = [y] * 3 if b is None else samples(y)
            pairs = zip(xs, ys, strict=True)
            return sum(f(x, y) * (i + 1.0) for i, (x, y) in enumerate(pairs))

        return looped

    def functionalize(self, f: Program, n: int) -> Program:
        """Leave the function as it is."""
        return f

    trace = trace_inside = fake = compiled = pre_dispatch = functionalize
    backward = vjp = jacrev = jacfwd = grad
    linearize = jvp


def samples(x: Any) -> list[Any]:
    """Make three samples of one tensor."""
    return [x, x.sin(), x * 0.5 + 0.1]


#: How many derivatives a chain takes at most: the fourth are large, and slow in PyTorch.
ORDER = 3
DERIVATIVES = {"grad", "jvp", "backward", "vjp", "linearize", "jacrev", "jacfwd"}
OTHERS = ["trace_inside", "vjp", "linearize", "jacrev", "jacfwd", "compiled", "pre_dispatch"]
NAMES = ["grad", "jvp", "vmap", "functionalize", "trace", "fake"]
Chain = Sequence[str]


def composed(kind: Any, chain: Chain, f: Program) -> Program:
    """Apply transforms, the last of the chain first."""
    for n, name in reversed(list(enumerate(chain))):
        f = getattr(kind, name)(f, n)
    return f


def close(a: Any, b: Any) -> None:
    """Compare results, whose size grows with the order of derivatives."""
    scale = max(1.0, float(np.abs(b).max()))
    np.testing.assert_allclose(a / scale, b / scale, rtol=1e-7, atol=1e-9)
