"""A compiled program is for inputs that lie in memory as its guards say (S211)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop as p

Program = Callable[[Any], Any]


def of(*shape: int) -> Any:
    return p.from_numpy(np.arange(1.0, 1 + np.prod(shape)).reshape(shape))


MADE: dict[str, Callable[[], Any]] = {
    "contiguous": lambda: of(4, 3),
    "transposed": lambda: of(3, 4).transpose(0, 1),
    "transposed, larger": lambda: of(2, 5).transpose(0, 1),
    "rows apart": lambda: of(8, 3)[::2],
    "columns apart": lambda: of(4, 6)[:, ::2],
    "wide rows": lambda: of(4, 5)[:, :3],
    "repeated": lambda: p.broadcast_to(of(1, 3), (4, 3)),
    "backwards": lambda: p.from_numpy(np.arange(12.0).reshape(4, 3)[:, ::-1]),
}


def written(x: Any) -> Any:
    return x.transpose(0, 1).contiguous().add_(1)


def stepped(x: Any) -> Any:
    return x * x.stride()[0] + x.stride(1)


def turned(x: Any) -> Any:
    return x * 2 if x.transpose(0, 1).is_contiguous() else x * 3


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("first", MADE)
@pytest.mark.parametrize("f", [written, stepped, turned], ids=lambda f: f.__name__)
def test_another_layout_is_another_program(f: Program, first: str, dynamic: bool | None) -> None:
    """S211: a stride that was a product of sizes in the capture must be that product again."""
    compiled = p.compile(f, fullgraph=True, dynamic=dynamic)
    for make in (MADE[first], MADE["transposed, larger"], *MADE.values()):
        x, y = make(), make()
        want = f(x).tolist()
        assert compiled(y).tolist() == want
        assert x.tolist() == y.tolist()


def test_one_program_serves_all_sizes_of_a_layout() -> None:
    """S211: the guard of a stride holds for all sizes that explain it."""
    compiled = p.compile(stepped, dynamic=True)
    for n in (3, 4, 7):
        x = of(n, 5).transpose(0, 1)
        assert compiled(x).tolist() == stepped(x).tolist()
    assert [len(programs) for programs in compiled.programs.values()] == [1]
