"""Programs of functions that write through `reshape`, which is a view or a copy (S168, S213)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyop as p
from polyop.errors import CaptureError
from polyop.export import Dim, export, load, save
from polyop.func import functionalize

Program = Callable[[Any], Any]


def fortran() -> Any:
    return p.from_numpy(np.asfortranarray(np.arange(1.0, 13.0).reshape(3, 4)))


MADE: dict[str, Callable[[], Any]] = {
    "contiguous": lambda: fortran() * 1,
    "fortran": fortran,
    "transposed": lambda: fortran().T,
    "apart": lambda: p.from_numpy(np.arange(48.0).reshape(6, 8)[::2, ::2]),
    "rows apart": lambda: p.from_numpy(np.arange(24.0).reshape(8, 3)[::2]),
    "backwards": lambda: p.from_numpy(np.arange(12.0).reshape(3, 4)[::-1]),
    "repeated": lambda: p.from_numpy(np.arange(4.0)).broadcast_to((3, 4)),
}


def flat(x: Any) -> Any:
    v = x.reshape(-1)
    v.add_(1.0)
    return v


def of_a_value(x: Any) -> Any:
    y = x * 1
    return flat(y), y


def scaled(x: Any) -> Any:
    x.mul_(1.0)
    return flat(x)


def cleared(x: Any) -> Any:
    x.zero_()
    return flat(x)


def partly_written(x: Any) -> Any:
    x[0].copy_(x[1])
    return flat(x)


def both_ways(x: Any) -> Any:
    y = x.T
    y.add_(1.0)
    return flat(x), flat(y)


def asked(x: Any) -> Any:
    x[0:1].add_(1.0)
    return x * float(x.is_contiguous()) + float(x.stride()[0])


def chosen(x: Any) -> Any:
    y = p.cond(x.sum() > 0, lambda u: u * 2, lambda u: u + 1, (x,))
    return flat(y), y


def repeated(x: Any) -> Any:
    _, y = p.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 2), (p.tensor(0), x))
    return flat(y), y


PROGRAMS = [flat, of_a_value, scaled, cleared, partly_written, both_ways, asked, chosen, repeated]
FORMS: dict[str, Callable[[Program, Any], Program]] = {
    "functionalize": lambda f, x: functionalize(f),
    "export": lambda f, x: export(f, (x,)).module(),
}


def observe(f: Program, x: Any) -> Any:
    """Give the results and the argument afterwards, or the class of what was raised."""
    try:
        found = f(x)
    except p.errors.PolyopError as error:
        return type(error)
    results = found if isinstance(found, tuple) else (found,)
    return [t.numpy().tolist() for t in (*results, x)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("f", PROGRAMS, ids=lambda f: f.__name__)
def test_a_view_is_a_view_where_it_is_one_eagerly(f: Program, made: str, form: str) -> None:
    """S168: a write reaches the memory that it reaches eagerly, whatever the layout is."""
    if made == "repeated" and f not in {flat, of_a_value, chosen}:
        pytest.skip("what is broadcast cannot be written")
    make = MADE[made]
    assert observe(FORMS[form](f, make()), make()) == observe(f, make())


def test_gaps_of_a_sample_are_kept_for_other_sizes() -> None:
    """S213: an input that is not dense has the gaps of the sample, in all sizes."""
    sizes = {0: Dim.AUTO, 1: Dim.AUTO}
    program = export(flat, (p.zeros(4, 6)[::2, ::2],), dynamic_shapes={"x": sizes})
    x = p.zeros(8, 6)[::2, ::2]
    assert program.module()(x).sum() == 12
    assert x.sum() == 0


def pure(x: Any) -> Any:
    return x.reshape(-1) * 2


def written_before(x: Any) -> Any:
    x.mul_(2.0)
    return x.reshape(-1)


@pytest.mark.parametrize("saved", [False, True], ids=["made", "loaded"])
def test_an_input_of_another_layout_is_refused_where_it_matters(
    saved: bool, tmp_path: Path
) -> None:
    """S213: a program that writes through reshape is for the layout that it was made with."""
    rows, columns = p.from_numpy(np.ones((4, 3))), p.from_numpy(np.ones((3, 4)).T)
    given = {"contiguous": rows, "transposed": columns}
    programs = {}
    for f in (flat, of_a_value, pure, written_before):
        for name, sample in given.items():
            program = export(f, (sample * 1,))
            if saved:
                save(program, tmp_path / "p")
                program = load(tmp_path / "p")
            programs[f, name] = program.module()
    for (f, name), module in programs.items():
        other = given["transposed" if name == "contiguous" else "contiguous"]
        module(given[name])
        if f in {flat, of_a_value}:
            with pytest.raises(CaptureError, match="lies in memory in another way"):
                module(other)
        else:
            module(other)


def test_another_gap_is_no_other_layout() -> None:
    """S213: what says where reshape copies is which axes can be joined, not how wide gaps are."""
    module = export(flat, (p.zeros(4, 6)[::2, ::2],)).module()
    for x in (p.zeros(6, 12)[::3, ::4], p.zeros(2, 10)[:, ::4]):
        want = x.numpy() * 1
        assert module(x).sum() == 6
        np.testing.assert_array_equal(x.numpy(), want)


def test_a_named_size_has_a_layout_too() -> None:
    """S213: the layout is checked for each size."""
    module = export(flat, (p.zeros(3, 4),), dynamic_shapes={"x": {0: Dim("n")}}).module()
    x = p.zeros(7, 4)
    module(x)
    assert x.sum() == 28
    with pytest.raises(CaptureError, match="contiguous"):
        module(p.zeros(4, 7).T)
