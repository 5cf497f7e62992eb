"""What parts of a program may be given from outside (S216), and what files may hold (S214)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyop as p
from polyop.dispatch.library import Library, scoped_library
from polyop.errors import CaptureError, ProgramFileError
from polyop.export import BACKENDS, Dim, export, load, register_backend, save, to_backend
from polyop.export.parts import partition
from polyop.symbolic import SymBool

NS = "export_borders"


@pytest.fixture
def lib() -> Iterator[Library]:
    """Define an operator with two results, and one that writes."""
    with scoped_library(NS, "FRAGMENT") as made:
        made.define("both(Tensor x) -> (Tensor, Tensor)")
        made.define("add_to(Tensor(a!) x, Tensor y) -> ()")
        made.define("keep(Tensor(a!)? x, Tensor y, *, Tensor(b!)[] zs) -> Tensor")
        for key in ("CPU", "Meta"):
            made.impl("both", lambda x: (x * 2, x * 3), key)
        made.impl("add_to", add_to, "CPU")
        made.impl("add_to", lambda x, y: None, "Meta")
        made.impl("keep", keep, "CPU")
        made.impl("keep", lambda x, y, *, zs: p.empty_like(y), "Meta")
        yield made


def add_to(x: Any, y: Any) -> None:
    array = x.numpy()
    array += y.numpy()


def keep(x: Any, y: Any, *, zs: Any) -> Any:
    for z in zs if x is None else [x, *zs]:
        add_to(z, y)
    return y * 2


class Some:
    """A backend that runs the programs of the nodes that it takes."""

    backend_id = "some of " + NS

    def __init__(self, takes: Callable[[Any], bool]) -> None:
        self.takes = takes

    def lower(self, program: Any, specs: Any) -> bytes:
        return b"some"

    def executor(self, lowered: Any) -> Any:
        return lowered.original


def pairs(x: Any) -> Any:
    a, b = getattr(p.ops, NS).both(x.sin())
    return (a + b).cos()


def chosen(x: Any) -> Any:
    found = p.cond(x.shape[0] > 4, lambda u: u * 2, lambda u: u + 1, (x,))
    return found.sin()


TAKEN: dict[str, Callable[[Any], bool]] = {
    "all": lambda node: True,
    "no items": lambda node: node.target is not operator.getitem,
    "no pairs": lambda node: NS not in str(node.target),
    "items": lambda node: node.target is operator.getitem,
    "conditions": lambda node: node.target is operator.ge,
    "no conditions": lambda node: node.target is not operator.ge,
    "sines": lambda node: "sin" in str(node.target),
}


@pytest.mark.usefixtures("lib")
@pytest.mark.parametrize("taken", TAKEN)
@pytest.mark.parametrize("f", [pairs, chosen], ids=lambda f: f.__name__)
def test_whatever_a_backend_takes_runs_and_is_saved(f: Any, taken: str, tmp_path: Path) -> None:
    """S216: several results, and conditions, are read by the part that makes them, or by none."""
    backend = register_backend(Some(TAKEN[taken]))
    try:
        program = export(f, (p.ones(5),), dynamic_shapes={"x": {0: Dim.AUTO}})
        for part in partition(program, backend):
            inside = set(part.nodes)
            given = {n for node in part.nodes for n in node.all_input_nodes} - inside
            assert not any(isinstance(n.val, (tuple, list, SymBool)) for n in given)
        lowered = to_backend(program, backend)
        save(lowered, tmp_path / "p")
        x = p.full(6, 0.5)
        for made in (lowered, load(tmp_path / "p")):
            np.testing.assert_array_equal(made.module()(x).numpy(), f(x).numpy())
    finally:
        del BACKENDS[backend.backend_id]


def test_a_file_holds_an_operator_as_an_argument(lib: Library, tmp_path: Path) -> None:
    """S214: an operator that another one calls is held by its name, and looked up as a target."""

    def f(x: Any) -> Any:
        z = x * 2
        getattr(p.ops, NS).add_to(z, z)
        return z

    program = export(f, (p.ones(3),))
    save(program, tmp_path / "p")
    made = load(tmp_path / "p")
    assert str(made.graph) == str(program.graph)
    np.testing.assert_array_equal(made.module()(p.ones(3)).numpy(), [4.0, 4.0, 4.0])
    lib._destroy()
    with pytest.raises(ProgramFileError, match="add_to, which is not defined"):
        load(tmp_path / "p")


def test_operators_that_write_nothing_this_time(lib: Library, tmp_path: Path) -> None:
    """S213: what counts are the tensors of a call; None, and an empty list, are none."""
    op, x = getattr(p.ops, NS).keep, p.ones(2)
    module = export(lambda x: op(None, x * 2, zs=[]), (x,)).module()
    assert module(x).tolist() == [4.0, 4.0]
    save(export(lambda x: op(None, x * 2, zs=[]), (x,)), tmp_path / "file")
    assert load(tmp_path / "file").module()(x).tolist() == [4.0, 4.0]
    held = p.zeros(2)
    for f in (lambda x: op(held, x, zs=[]), lambda x: op(None, x, zs=[held])):
        with pytest.raises(CaptureError, match="writes a tensor that is no argument"):
            export(f, (x,))
