"""Writes inside vmap whose arguments share memory are those of a loop over the samples (S159)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import polyop as p
from polyop.dispatch.library import Library
from polyop.dispatch.registry import find_operator
from polyop.dispatch.rules import register_fake, register_kernel, register_vmap
from polyop.errors import MutationError
from polyop.func import functionalize
from polyop.graph import make_fx

pytestmark = pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")

Pick = Callable[[p.Tensor, p.Tensor], tuple[p.Tensor, ...]]
Run = Callable[..., Any]

PICKS: dict[str, Pick] = {
    "written twice": lambda x, z: (x, z, z),
    "read and written": lambda x, z: (z, z, x),
    "read and written last": lambda x, z: (x, z, x),
    "a view": lambda x, z: (x, z, z[:]),
    "other samples": lambda x, z: (x, z, z.flip(0)),
    "all three": lambda x, z: (z, z, z),
    "slices": lambda x, z: (x[:, 1:], z[:, 1:], z[:, :-1]),
    "apart": lambda x, z: (x, z, x + z),
}

WAYS: dict[str, Callable[[Run], Run]] = {
    "eager": lambda f: f,
    "functionalize": functionalize,
    "compile": p.compile,
    "make_fx": lambda f: lambda x, z: make_fx(f)(x.clone(), z.clone())(x, z),
}


def doubled_and_added(x: p.Tensor, a: p.Tensor, b: p.Tensor) -> None:
    a.numpy()[...] *= 2
    b.numpy()[...] += x.numpy()


@pytest.fixture(params=["no rule", "rule"])
def g(request: pytest.FixtureRequest) -> Iterator[Any]:
    lib = Library("sharedtest", "FRAGMENT")
    lib.define("g(Tensor x, Tensor(a!) a, Tensor(b!) b) -> ()")
    register_kernel("sharedtest::g", "cpu", doubled_and_added, lib=lib)
    register_fake("sharedtest::g", lambda x, a, b: None, lib=lib)
    op = find_operator("sharedtest::g")
    if request.param == "rule":
        register_vmap("sharedtest::g", lambda info, dims, *args: (op(*args), None), lib=lib)
    yield op
    lib._destroy()


def inputs() -> tuple[p.Tensor, p.Tensor]:
    return p.tensor([[0.0, 1, 2], [3, 4, 5]]), p.tensor([[1.0, 2, 3], [4, 5, 6]])


def loop(f: Run, *args: p.Tensor) -> None:
    for sample in zip(*args, strict=True):
        f(*sample)


def check(run: Run, wanted: Run) -> None:
    """Compare what two functions leave of equal inputs."""
    given, expected = inputs(), inputs()
    run(*given)
    wanted(*expected)
    for a, b in zip(given, expected, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PICKS)
def test_shared_arguments_are_written_as_by_a_loop(g: Any, name: str, way: str) -> None:
    """S159: whatever two arguments share, vmap writes what the loop writes."""
    pick = PICKS[name]

    def mapped(x: p.Tensor, z: p.Tensor) -> Any:
        p.vmap(lambda x, a, b: (g(x, a, b), a)[1])(*pick(x, z))
        return x.sum()

    check(WAYS[way](mapped), lambda x, z: loop(g, *pick(x, z)))


@pytest.mark.parametrize("name", [n for n in PICKS if n not in {"other samples", "slices"}])
def test_views_taken_inside(g: Any, name: str) -> None:
    """S159: nor does it matter where the arguments come to share memory."""
    pick = PICKS[name]
    inside = p.vmap(lambda x, z: (g(*pick(x, z)), z)[1])
    check(inside, lambda x, z: loop(g, *pick(x, z)))


@pytest.mark.parametrize("name", PICKS)
def test_nested(g: Any, name: str) -> None:
    """S156: nested vmaps write what nested loops write."""
    pick = PICKS[name]
    rows = p.vmap(lambda x, a, b: (g(x, a, b), a)[1])
    check(
        lambda x, z: p.vmap(rows)(*pick(x, z)),
        lambda x, z: loop(lambda *rows: loop(g, *rows), *pick(x, z)),
    )


@pytest.mark.parametrize("name", ["a view", "other samples"])
def test_functionalize_inside_refuses_what_it_cannot_know(g: Any, name: str) -> None:
    """S168: arguments that share memory in an unknown way are refused when one is written."""
    pick = PICKS[name]
    f = p.vmap(functionalize(lambda x, a, b: (g(x, a, b), a)[1]))
    with pytest.raises(MutationError, match="memory another argument has too"):
        f(*pick(*inputs()))


def test_built_in_writes_across_samples() -> None:
    """S159: a sample that an earlier one wrote is read as written, batched or not."""
    check(
        lambda x, z: p.vmap(lambda a, b: a.add_(b))(z, z.flip(0)),
        lambda x, z: [a.add_(b) for a, b in zip(z, z.flip(0), strict=True)],
    )
    check(
        lambda x, z: p.vmap(lambda a, b: a.add_(b), in_dims=(0, None))(z, z[0]),
        lambda x, z: [a.add_(z[0]) for a in z],
    )


def test_samples_that_overlap() -> None:
    """S159: where the samples of one argument overlap, each sees the writes before it."""

    def windows() -> tuple[np.ndarray[Any, Any], p.Tensor]:
        base = np.arange(5.0)
        seen = np.lib.stride_tricks.sliding_window_view(base, 3, writeable=True)
        return base, p.from_numpy(seen)

    (base, rows), (expected, others) = windows(), windows()
    p.vmap(lambda a: (twice(a), a)[1])(rows)
    for row in others:
        twice(row)
    np.testing.assert_array_equal(base, expected)


@p.custom_op("sharedtest::twice", mutates_args=("a",))
def twice(a: p.Tensor) -> None:
    a.numpy()[...] *= 2
