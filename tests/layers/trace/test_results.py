"""What a traced function may give (SPEC S209)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.errors import CaptureError
from polyop.graph import make_fx


def generator(x: Tensor) -> Iterator[Tensor]:
    yield x * 2


async def later(x: Tensor) -> Tensor:
    return x * 2


def coroutine(x: Tensor) -> Any:
    made = later(x)
    made.close()  # nobody awaits it
    return made


def closure(x: Tensor) -> Callable[[], Tensor]:
    return lambda: x * 2


def iterator(x: Tensor) -> Iterator[Tensor]:
    return iter([x * 2])


def inside(x: Tensor) -> dict[str, Any]:
    return {"made": x * 2, "later": map(abs, [x])}


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("fn", [generator, coroutine, closure, iterator, inside])
def test_what_computes_later_is_refused(fn: Any, mode: Any, pre_dispatch: bool) -> None:
    """S209: a program would give the same exhausted iterator, or the trace's tensors, each time."""
    with pytest.raises(CaptureError, match="no tensor, number or container") as caught:
        make_fx(fn, mode, pre_dispatch=pre_dispatch)(polyop.ones(2))
    assert caught.value.source
    assert caught.value.fix


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_constants_are_given(mode: Any) -> None:
    """S209: numbers, text, dtypes, sizes and None stay what they are."""

    def fn(x: Tensor) -> Any:
        return {"made": x * 2, "rest": (1, 2.5, None, "s", x.dtype, [x.shape[0]])}

    found, expected = make_fx(fn, mode)(polyop.ones(2))(polyop.ones(2)), fn(polyop.ones(2))
    assert found["made"].tolist() == expected["made"].tolist()
    assert found["rest"] == expected["rest"]
