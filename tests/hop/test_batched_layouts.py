"""What loops give lies in a program as it does in an eager call (S182, S211)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop as p
from polyop.export import export
from polyop.func import grad, jacfwd, jacrev, vmap
from polyop.graph import make_fx

Fn = Callable[..., Any]

CALLS: dict[str, Fn] = {
    "scan": lambda x: p.scan(lambda c, s: (c + s, c * s), x[0], x)[1],
    "map": lambda x: p.map(lambda s: s * s, x),
    "associative_scan": lambda x: p.associative_scan(lambda a, b: a * b, x),
    "associative_scan of one": lambda x: p.associative_scan(lambda a, b: a * b, x[:1]),
}
MAPS: dict[str, Callable[[Fn], Fn]] = {
    "first": vmap,
    "last": lambda f: vmap(f, -1, -1),
    "twice": lambda f: vmap(vmap(f), 1, 1),
    "jacfwd": lambda f: lambda x: jacfwd(f)(x[0]),
    "jacrev": lambda f: lambda x: jacrev(f)(x[0]),
}
FORMS: dict[str, Callable[[Fn, Any], Any]] = {
    "compile": lambda f, x: p.compile(f)(x),
    "real": lambda f, x: make_fx(f, "real")(x)(x),
    "fake": lambda f, x: make_fx(f, "fake")(x)(x),
    "symbolic": lambda f, x: make_fx(f, "symbolic")(x)(x),
    "export": lambda f, x: export(f, (x,)).module()(x),
}

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@every_form
@pytest.mark.parametrize("mapped", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_stack_lies_as_in_an_eager_call(call: Fn, mapped: Fn, form: Fn) -> None:
    """S211: what is written through a reshape of batched steps is seen where eager shows it."""
    x = p.from_numpy(np.linspace(0.5, 1.5, 24).reshape(2, 2, 2, 3))
    lies_alike(mapped(call), form, x)


def lies_alike(f: Fn, form: Fn, x: Any) -> None:
    """Check the layout of a result, and what a write through a reshape of it does."""

    def written(x: Any) -> Any:
        out = f(x)
        out.reshape(-1).fill_(0.0)
        return out

    assert form(f, x).stride() == f(x).stride()
    assert form(written, x).tolist() == written(x).tolist()


@every_form
def test_a_carry_lies_as_in_an_eager_call(form: Fn) -> None:
    """S211: a carry that begins with its axes exchanged, and keeps them so, lies so."""
    x = p.from_numpy(np.ones((2, 3)))
    lies_alike(lambda x: p.scan(lambda c, s: (c * 2, s * 1), x.mT, x)[0], form, x)


SAME: dict[str, Fn] = {
    "scan": lambda a: p.scan(lambda c, s: (c + 1, s * c), p.zeros(3), a)[0],
    "stack": lambda a: p.scan(lambda c, s: (c + 1, c * 2), p.zeros(3), a)[1],
    "map": lambda a: p.map(lambda s: p.ones(3), a),
    "while": lambda a: p.while_loop(
        lambda c, s: c.sum() < 9, lambda c, s: (c + 1, s * c[0]), (p.zeros(3), a)
    )[0],
    "checkpoint": lambda a: p.hop.checkpoint(lambda a: (a * 2, p.ones(3)), a)[1],
}


@every_form
@pytest.mark.parametrize("call", SAME.values(), ids=SAME)
def test_what_no_sample_changes_is_one_for_all(call: Fn, form: Fn) -> None:
    """S211: a result, or a carry, that is the same for each sample has no axis for them."""
    x = p.ones(2, 4, 3)
    f = vmap(call, out_dims=None)
    assert form(f, x).tolist() == f(x).tolist()
    lies_alike(vmap(call, out_dims=1 if f(x).ndim else 0), form, x)


@every_form
@pytest.mark.parametrize("steps", [3, 4])
def test_samples_that_take_the_same_steps(steps: int, form: Fn) -> None:
    """S182: a loop whose predicate no sample changes is one loop of the batch, and so is its
    gradient."""

    def total(a: Any) -> Any:
        carry = (p.zeros(()), a, p.ones(3))
        out = p.while_loop(
            lambda k, a, b: k < steps, lambda k, a, b: (k + 1, (a * b).mT * 1.5, b + 1), carry
        )
        return (out[1] * out[2]).sum()

    x = p.from_numpy(np.linspace(0.5, 1.5, 18).reshape(2, 3, 3))
    looped = [grad(total)(row).tolist() for row in p.unstack(x)]
    assert np.allclose(form(vmap(grad(total)), x).tolist(), looped)


@every_form
@pytest.mark.parametrize("length", [0, 1, 2])
def test_the_gradient_of_a_short_associative_scan(length: int, form: Fn) -> None:
    """S182: the gradient of few elements is a program too, whatever holds them."""

    def total(x: Any) -> Any:
        out = p.associative_scan(lambda a, b: {"x": a["x"] * b["x"]}, {"x": x})
        return out["x"].sum()

    x = p.ones(length, 2) * 3
    assert form(grad(total), x).tolist() == grad(total)(x).tolist()
