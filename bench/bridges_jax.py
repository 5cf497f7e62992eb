"""What a call with JAX's arrays costs, beside JAX's own function and a hand-written callback.

    python bench/bridges_jax.py

Ratios are read, not microseconds: the budget under jit and grad is a third of `pure_callback`'s.
"""

from __future__ import annotations

import timeit

import jax
import jax.numpy as jnp
import numpy as np

import polyop


@polyop.custom_op("bench::sin", mutates_args=())
def sin(x: polyop.Tensor) -> polyop.Tensor:
    return polyop.from_numpy(np.sin(x.numpy()))


@polyop.custom_op("bench::cos", mutates_args=())
def cos(x: polyop.Tensor) -> polyop.Tensor:
    return polyop.from_numpy(np.cos(x.numpy()))


for op in (sin, cos):
    op.register_fake(lambda x: polyop.empty_like(x))
sin.register_autograd(
    lambda ctx, grad: grad * cos(ctx.saved_tensors[0]),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


def back_to_numpy(fn):
    def host(x):
        return fn(np.asarray(x))

    # One function for all calls: JAX compiles anew for each that it has not seen.
    def call(x):
        return jax.pure_callback(host, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    return call


numpy_sin, numpy_cos = back_to_numpy(np.sin), back_to_numpy(np.cos)
by_hand = jax.custom_vjp(numpy_sin)
by_hand.defvjp(lambda x: (numpy_sin(x), x), lambda x, g: (g * numpy_cos(x),))


def costs(functions, x, number):
    """Give the least time of each; they take turns, so that a busy machine is busy for all."""
    for f in functions:
        jax.block_until_ready(f(x))
    best = [float("inf")] * len(functions)
    for _ in range(15):
        for i, f in enumerate(functions):
            took = timeit.timeit(lambda f=f: jax.block_until_ready(f(x)), number=number)
            best[i] = min(best[i], took / number * 1e6)
    return best


def main() -> None:
    ways = {
        "eager": (lambda f: f, 100),
        "jit": (jax.jit, 300),
        "grad": (lambda f: jax.grad(lambda x: f(x).sum()), 5),
        "jit(grad)": (lambda f: jax.jit(jax.grad(lambda x: f(x).sum())), 200),
    }
    for size in (16, 1_000_000):
        x = jnp.linspace(0.0, 1.0, size)
        print(f"{size} elements: microseconds, and the ratio to the callback")
        for name, (wrap, number) in ways.items():
            number = number if size == 16 else 3
            own, hand, ours = costs([wrap(f) for f in (jnp.sin, by_hand, sin)], x, number)
            print(
                f"  {name:<10} jnp.sin {own:9.1f}   custom_vjp + pure_callback {hand:9.1f}   "
                f"polyop {ours:9.1f}   ratio {ours / hand:5.2f}"
            )


if __name__ == "__main__":
    main()
