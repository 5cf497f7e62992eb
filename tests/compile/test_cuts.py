"""A look at data cuts the function in parts, or is an error with `fullgraph=True` (SPEC S212)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor, errors


@pytest.fixture
def operators() -> Iterator[Any]:
    """Operators: with a fake rule, without one, with a size that depends on data, writing."""
    with polyop.scoped_library("cuts", "FRAGMENT") as lib:
        seen: list[Any] = []

        def double(x: Tensor) -> Tensor:
            seen.append(type(x.numpy()))
            return polyop.from_numpy(x.numpy() * 2)

        def nonzero(x: Tensor) -> Tensor:
            return polyop.from_numpy(np.flatnonzero(x.numpy()))

        def fill(x: Tensor) -> None:
            x.numpy()[...] = 7

        for name, schema, fn, fake in (
            ("double", "(Tensor x) -> Tensor", double, lambda x: polyop.empty_like(x)),
            ("bare", "(Tensor x) -> Tensor", double, None),
            ("nz", "(Tensor x) -> Tensor", nonzero, fake_nonzero),
            ("fill", "(Tensor(a!) x) -> ()", fill, lambda x: None),
        ):
            lib.define(name + schema)
            lib.impl(name, fn, "CPU")
            if fake is not None:
                polyop.library.register_fake(f"cuts::{name}", fake)
        yield polyop.ops.cuts, seen


def fake_nonzero(x: Tensor) -> Tensor:
    size = polyop.library.get_ctx().new_dynamic_size()
    return polyop.empty(size, dtype=polyop.int64)


def loop(x: Tensor) -> Tensor:
    total = x * 0
    while total.sum().item() < 10:
        total = total + x
    return total


def write(x: Tensor) -> Tensor:
    y = x * 1
    row = y[0:1]
    row.add_(5)
    if y.sum() > 100:
        return y
    y.mul_(2)
    return row + 1


def held(x: Tensor) -> dict[str, Any]:
    found = {"a": x + 1, "b": [x * 2]}
    found["c"] = found["a"].item() if x.shape == (1,) else int(found["a"].sum())
    found["d"] = found["b"][0] + found["c"]
    return found


def outer_write(x: Tensor) -> Tensor:
    array = x.numpy()
    x.add_(1)
    return x * float(array[0])


FUNCTIONS = {
    "item": lambda x: x * x.sum().item(),
    "numpy": lambda x: x + x.mean().numpy() + polyop.from_numpy(x.numpy() * 2),
    "bool": lambda x: x + 1 if x.sum() > 0 else x - 1,
    "int": lambda x: x * int(x.sum()),
    "list": lambda x: [v * 2 for v in (x + 1).tolist()],
    "iterate": lambda x: [row + row.item() for row in x],
    "format": lambda x: f"{x.sum()} {x + 1!r}",
    "loop": loop,
    "write": write,
    "held": held,
    "outer_write": outer_write,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("needs", [False, True])
def test_cut_equals_eager(name: str, needs: bool) -> None:
    """S212: results and gradients of a function in parts equal eager."""
    if needs and name in ("outer_write", "numpy"):
        pytest.skip("eager refuses it")
    fn, texts = FUNCTIONS[name], []
    for f in (fn, polyop.compile(fn)):
        for n in (3, 1, 4):
            x = polyop.from_numpy(np.arange(1, n + 1).astype("float32"))
            x = x.requires_grad_() if needs else x
            out = f(x)
            leaves = [t for t in polyop.tree.leaves(out) if isinstance(t, Tensor)]
            roots = [t.sum() for t in leaves if t.requires_grad]
            if roots:
                polyop.autograd.backward(roots)
            texts.append(f"{out} {x} {x.grad}")
    assert texts[:3] == texts[3:]


@pytest.mark.parametrize("name", ["item", "bool", "int", "list", "iterate", "format", "loop"])
def test_fullgraph_names_the_line(name: str) -> None:
    """S212: with fullgraph=True the error names the line that looks, and what to do."""
    with pytest.raises(errors.CaptureError, match="looks at data") as caught:
        polyop.compile(FUNCTIONS[name], fullgraph=True)(polyop.ones(3))
    code = FUNCTIONS[name].__code__
    file, line = caught.value.source.rsplit(":", 1)
    assert file == __file__
    assert code.co_firstlineno <= int(line) <= code.co_firstlineno + 4
    assert "custom_op" in caught.value.fix


def test_except_does_not_hide_a_look() -> None:
    """S212: a look inside `try` with `except Exception` is one all the same."""

    def fn(x: Tensor) -> Tensor:
        try:
            return x * x.sum().item()
        except Exception:
            return x - 1

    assert polyop.compile(fn)(polyop.ones(2)).tolist() == [2, 2]
    with pytest.raises(errors.CaptureError):
        polyop.compile(fn, fullgraph=True)(polyop.ones(2))


def test_printing(capsys: pytest.CaptureFixture[str]) -> None:
    """S212: a printed tensor has its data, at each call."""
    f = polyop.compile(lambda x: print(x + 1))
    for _ in range(2):
        f(polyop.ones(2))
    assert capsys.readouterr().out == "tensor([2., 2.])\n" * 2


def test_exception_between_cuts() -> None:
    """S212: writes before an exception are done, and what the caller kept is real."""
    kept: list[Tensor] = []
    count = polyop.zeros(1)

    def fn(x: Tensor, sink: Any) -> Tensor:
        count.add_(1)
        float(x.sum())
        sink(x * 3)
        count.add_(10)
        raise LookupError("mine")

    f = polyop.compile(fn)
    with pytest.raises(LookupError, match="mine"):
        f(polyop.ones(2), kept.append)
    assert kept[-1].tolist() == [3, 3]
    assert count.item() == 11


def test_parameters_between_cuts() -> None:
    """S212: gradients reach parameters that are met on the way, and `no_grad` keeps them off."""
    w = polyop.ones(2).requires_grad_()

    def fn(x: Tensor) -> Tensor:
        y = x * float(x.sum())
        with polyop.no_grad():
            scale = w * 2
        assert polyop.is_grad_enabled()
        return (y * w * scale).sum()

    polyop.compile(fn)(polyop.ones(2)).backward()
    assert w.grad.tolist() == [4, 4]


def test_draws_between_cuts() -> None:
    """S212: draws keep their place among seeds and looks."""

    def fn() -> Any:
        polyop.manual_seed(1)
        a = polyop.rand(3)
        b = polyop.rand(3).tolist()
        polyop.manual_seed(1)
        return a.tolist(), b, polyop.rand(3).tolist()

    assert polyop.compile(fn)() == fn()


def test_custom_operators(operators: Any) -> None:
    """S211: a custom operator is opaque: no cut, and its kernel meets real tensors alone."""
    ops, seen = operators
    f = polyop.compile(lambda x: ops.double(x + 1) + 1, fullgraph=True)
    assert [f(polyop.ones(n)).tolist() for n in (1, 2, 3)] == [[5] * n for n in (1, 2, 3)]
    assert seen == [np.ndarray] * 3
    write = polyop.compile(lambda x: (ops.fill(x), x + 1)[1], fullgraph=True)
    x = polyop.zeros(2)
    assert (write(x).tolist(), x.tolist()) == ([8, 8], [7, 7])


def test_sizes_that_depend_on_data(operators: Any) -> None:
    """S212: a size that depends on data is captured; another size needs no new program."""
    ops, _ = operators
    f = polyop.compile(lambda x: ops.nz(x) * 2, fullgraph=True)
    for data in ([0, 1, 2], [0, 0, 0], [1, 1, 1]):
        assert f(polyop.tensor(data)).tolist() == (np.flatnonzero(data) * 2).tolist()
    assert sum(map(len, f.programs.values())) == 1


def test_branch_on_a_size_of_data(operators: Any) -> None:
    """S212: a branch on such a size is a cut, and an error with fullgraph=True."""
    ops, _ = operators

    def fn(x: Tensor) -> Tensor:
        found = ops.nz(x)
        return found + 1 if found.shape[0] > 1 else x * 5

    for data in ([0, 1, 2], [0, 0, 3]):
        x = polyop.tensor(data)
        assert polyop.compile(fn)(x).tolist() == fn(x).tolist()
    with pytest.raises(errors.CaptureError):
        polyop.compile(fn, fullgraph=True)(x)


def test_missing_fake(operators: Any) -> None:
    """S212: without a fake rule: MissingFakeError inside with fullgraph=True, a cut otherwise."""
    ops, _ = operators

    def fn(x: Tensor) -> Tensor:
        return ops.bare(x + 1) + 1

    assert polyop.compile(fn)(polyop.ones(2)).tolist() == [5, 5]
    with pytest.raises(errors.CaptureError, match="fake") as caught:
        polyop.compile(fn, fullgraph=True)(polyop.ones(2))
    assert isinstance(caught.value.__cause__, errors.MissingFakeError)
    assert "cuts" in caught.value.op


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("rows", [[1], (slice(None), [1])])
def test_a_trace_inside_records_its_own_calls(mode: Any, rows: Any) -> None:
    """S211: a function that traces another one, which writes, gives in parts what it gives."""

    def write(y: Tensor) -> Tensor:
        u = y * 1.0
        u[rows] += 1.0
        return u

    def traced(y: Tensor) -> Tensor:
        return polyop.graph.make_fx(write, mode)(y * 0.9)(y)

    x = polyop.ones(2, 3)
    assert polyop.compile(traced)(x).tolist() == write(x).tolist()
