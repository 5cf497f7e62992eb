"""Operators that are wrong in one way each, and the ways in which users call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop

UNARY = "(Tensor x) -> Tensor"
wrap = polyop.from_numpy


def made(name: str, kernel: Any, schema: str = UNARY, fake: Any = None, **rules: Any) -> Any:
    """Define an operator; without a fake rule it says that its result is like its argument."""
    mutates = ("out",) if "a!" in schema else ()
    op = polyop.custom_op(
        f"hostile::{name}", kernel, mutates_args=mutates, schema=schema, replace=True
    )
    if fake is not False and not mutates:
        op.register_fake(fake or (lambda x, *_: polyop.empty_like(x)))
    if "backward" in rules:
        op.register_autograd(rules["backward"], setup_context=rules.get("setup"))
    if "vmap" in rules:
        op.register_vmap(rules["vmap"](op))
    if "jvp" in rules:
        op.register_jvp(rules["jvp"])
    return op


def twice(x: Any) -> Any:
    return wrap(np.asarray(x.numpy() * 2))


def keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])


def breaks(*_: Any) -> Any:
    raise ZeroDivisionError("the author's own")


def sine(x: Any) -> Any:
    return wrap(np.asarray(np.sin(x.numpy())))


sin = made("sin", sine, setup=keep, backward=lambda ctx, g: g * polyop.cos(ctx.saved_tensors[0]))
product = made(
    "product",
    lambda x, y, k: wrap(np.asarray(x.numpy() * y.numpy() * x.dtype.type(k))),
    "(Tensor x, Tensor y, float k=1.0) -> Tensor",
    setup=keep,
    backward=lambda ctx, g: (g * ctx.saved_tensors[1], g * ctx.saved_tensors[0], None),
)
total = made(
    "total",
    lambda xs: wrap(np.asarray(sum(x.numpy() for x in xs))),
    "(Tensor[] xs) -> Tensor",
    lambda xs: polyop.empty_like(xs[0]),
)


def add_kernel(x: Any, out: Any) -> None:
    out.numpy()[...] += x.numpy()


add = made("add", add_kernel, "(Tensor x, Tensor(a!) out) -> ()")

#: Kernels that return what was not declared.
WRONG_RESULTS = {
    "nothing": made("nothing", lambda x: None),
    "two results": made("two_results", lambda x: (twice(x), twice(x))),
    "NumPy's array": made("numpys", lambda x: x.numpy() * 2),
    "a number": made("number", lambda x: 3.0),
    "the argument": made("the_argument", lambda x: x),
    "a part of it": made("part", lambda x: wrap(x.numpy()[1:]), fake=lambda x: x[1:].clone()),
    "its memory": made("memory", lambda x: wrap(x.numpy().reshape(-1)[::-1])),
}
#: Gradients that do not fit.
WRONG_GRADIENTS = {
    "shape": made("grad_shape", twice, backward=lambda ctx, g: g[:1]),
    "count": made("grad_count", twice, backward=lambda ctx, g: (g, g)),
    "number": made("grad_number", twice, backward=lambda ctx, g: 3.0),
    "NumPy's": made("grad_numpy", twice, backward=lambda ctx, g: np.ones(3)),
}
#: Batching rules that are wrong.
WRONG_BATCHES = {
    "no axis": made("no_axis", twice, vmap=lambda op: lambda info, dims, x: op(x)),
    "axis 5": made("axis_5", twice, vmap=lambda op: lambda info, dims, x: (op(x), 5)),
    "other axis": made(
        "other_axis", twice, vmap=lambda op: lambda info, dims, x: (polyop.sum(op(x), axis=0), 0)
    ),
}
#: Fake rules that are wrong, and what the error says.
WRONG_FAKES = {
    "nothing": (made("fake_nothing", twice, fake=lambda x: None), "returned a wrong type"),
    "looks at data": (
        made("fake_data", twice, fake=lambda x: x.new_empty(int(x.sum().item()))),
        "looks at the data",
    ),
    "missing": (made("fake_missing", twice, fake=False), "has no fake rule"),
}
no_gradient = made("no_gradient", twice)
raises = made("raises", breaks, setup=keep, backward=lambda ctx, g: g)
backward_raises = made("backward_raises", twice, backward=breaks)

# -- ways to call -------------------------------------------------------------------------------

Way = Callable[[Any], Callable[..., Any]]


def compiled(f: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(lambda *args: f(*args), backend="aot_eager", fullgraph=True)


def by_backward(f: Any) -> Any:
    def run(x: Any) -> Any:
        y = x.clone().requires_grad_()
        f(y).sum().backward()
        return y.grad

    return run


TORCH: dict[str, Way] = {"eager": lambda f: f, "compiled": compiled}
TORCH_GRADIENTS: dict[str, Way] = {
    "backward": by_backward,
    "func.grad": lambda f: torch.func.grad(lambda x: f(x).sum()),
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (x,))[1],
    "compiled backward": lambda f: by_backward(compiled(f)),
}
JAX: dict[str, Way] = {"eager": lambda f: f, "jit": lambda f: jax.jit(lambda *args: f(*args))}
JAX_GRADIENTS: dict[str, Way] = {
    "grad": lambda f: jax.grad(lambda x: f(x).sum()),
    "jit grad": lambda f: jax.jit(jax.grad(lambda x: f(x).sum())),
    "jvp": lambda f: lambda x: jax.jvp(f, (x,), (x,))[1],
}
#: Each way of each framework, with the function that makes its arrays.
WAYS = [
    *[(f"torch {name}", way, torch.tensor) for name, way in TORCH.items()],
    *[(f"jax {name}", way, jnp.asarray) for name, way in JAX.items()],
]
GRADIENTS = [
    *[(f"torch {name}", way, torch.tensor) for name, way in TORCH_GRADIENTS.items()],
    *[(f"jax {name}", way, jnp.asarray) for name, way in JAX_GRADIENTS.items()],
]


def ways(table: Any) -> Any:
    """Run a test in each of some ways."""
    return pytest.mark.parametrize(
        ("way", "convert"), [w[1:] for w in table], ids=[w[0] for w in table]
    )


def text_of(error: BaseException) -> str:
    """Give all that a user reads: the error, and those that it came from."""
    texts = []
    found: BaseException | None = error
    while found is not None:
        texts.append(str(found))
        found = found.__cause__ or found.__context__
    return "\n".join(texts)
