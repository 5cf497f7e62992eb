"""Written memory that stands inside a dict or a record too: the call works on copies of bases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.export import export, load, save
from polyop.func import functionalize
from polyop.graph import make_fx, reinplace

pytestmark = pytest.mark.filterwarnings("ignore:.*has no vmap rule")


@dataclass
class Pair:
    """A record of tensors and a number."""

    a: polyop.Tensor
    n: float
    b: polyop.Tensor


@polyop.custom_op("shared_trees::of_dict", mutates_args={"x"})
def of_dict(x: polyop.Tensor, m: dict[str, polyop.Tensor]) -> polyop.Tensor:
    """Write one, and then read what is in a dict."""
    x.numpy()[...] += 1
    return polyop.from_numpy(x.numpy() * 0 + m["a"].numpy().sum() + m["b"].numpy().sum() * 2)


@polyop.custom_op("shared_trees::of_record", mutates_args={"x"})
def of_record(x: polyop.Tensor, m: Pair) -> polyop.Tensor:
    """Write one, and then read what is in a record."""
    x.numpy()[...] += m.n
    return polyop.from_numpy(x.numpy() * 0 + m.a.numpy().sum() + m.b.numpy().sum() * 2)


for made in (of_dict, of_record):
    made.register_fake(lambda x, m: polyop.empty_like(x))


def parts(x: Any) -> Any:
    y = x * 1
    return of_dict(y[:2], {"a": y[1:], "b": x}) + y[:2]


def an_input(x: Any) -> Any:
    return of_dict(x, {"a": x, "b": x.T}) + x


def beside(x: Any) -> Any:
    y = x * 1
    return of_record(y[0], Pair(y, 2.0, x)) + y


def turned(x: Any) -> Any:
    y = x * 1
    return of_record(y, Pair(y[0], 2.5, y.T)) + y


FUNCTIONS = [parts, an_input, beside, turned]


def tensor() -> Any:
    """Give a tensor of its own."""
    return polyop.from_numpy(np.arange(1.0, 10.0).reshape(3, 3))


def twice() -> Any:
    """Give two samples."""
    return polyop.stack([tensor(), tensor()])


WAYS: dict[str, Callable[[Any], Any]] = {
    "functionalize": lambda f: functionalize(f)(tensor()),
    "traced": lambda f: make_fx(functionalize(f), "fake")(tensor())(tensor()),
    "exported": lambda f: export(f, (tensor(),)).module()(tensor()),
    "compiled": lambda f: polyop.compile(f, fullgraph=True)(tensor()),
    "of vmap": lambda f: functionalize(polyop.vmap(f))(twice())[1],
    "in vmap": lambda f: polyop.vmap(functionalize(f))(twice())[1],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("f", FUNCTIONS)
def test_a_write_is_seen_inside_a_container(f: Any, way: str) -> None:
    """S168, S171: what the operator reads there is written already, as it is eagerly."""
    np.testing.assert_array_equal(WAYS[way](f).numpy(), f(tensor()).numpy())


@pytest.mark.parametrize("f", FUNCTIONS)
def test_programs_are_saved_and_write_again(f: Any, tmp_path: Path) -> None:
    """S171, S214: a file says which leaves are views; a pass may spare the copies, not the call."""
    program = export(f, (tensor(),))
    save(program, tmp_path / "p")
    given, eager = tensor(), tensor()
    want = f(eager).numpy()
    np.testing.assert_array_equal(load(tmp_path / "p").module()(given).numpy(), want)
    np.testing.assert_array_equal(given.numpy(), eager.numpy())
    module = make_fx(functionalize(f), "fake")(tensor())
    reinplace(module)
    assert "auto_functionalized_v2" in str(module.graph)
    np.testing.assert_array_equal(module(tensor()).numpy(), want)
