"""A function may ask a fake mode of its own: what it finds is a fact, and no part of a program."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import polyop
from polyop import Tensor
from polyop.export import export
from polyop.fake import FakeTensorMode
from polyop.graph import make_fx
from polyop.hop import checkpoint

Fn = Callable[[Tensor], Tensor]
K = polyop.ones(3)
OUTSIDE = FakeTensorMode().from_tensor(K)


def size() -> int:
    """Give 3, found on fakes."""
    with FakeTensorMode() as mode:
        return int(polyop.sin(mode.from_tensor(K)).shape[0])


def in_cond(x: Tensor) -> Tensor:
    """Ask in a branch."""
    return polyop.cond(x.sum() > 0, lambda v: v * size(), lambda v: v * 2, (x,))


def in_scan(x: Tensor) -> Tensor:
    """Ask in a step."""
    return polyop.scan(lambda c, r: (c * size(), r * 1.0), polyop.ones(()), x)[0]


def in_map(x: Tensor) -> Tensor:
    """Ask for each row."""
    return polyop.map(lambda row: row * size(), x)


def in_while(x: Tensor) -> Tensor:
    """Ask in each turn."""
    start = (polyop.tensor(0), x)
    return polyop.while_loop(lambda i, _: i < 2, lambda i, v: (i + 1, v * size()), start)[1]


def in_checkpoint(x: Tensor) -> Tensor:
    """Ask in what runs again for a gradient."""
    return checkpoint(lambda v: v * size(), x)


PROGRAMS: dict[str, Callable[[Fn, Tensor], Tensor]] = {
    "compile": lambda f, x: polyop.compile(fullgraph=True)(f)(x),
    "export": lambda f, x: export(f, (x,)).module()(x),
    "make_fx": lambda f, x: make_fx(f)(x)(x),
    "make_fx, fake": lambda f, x: make_fx(f, tracing_mode="fake")(x)(x),
    "make_fx, before dispatch": lambda f, x: make_fx(f, pre_dispatch=True)(x)(x),
}


@pytest.mark.parametrize("f", [in_cond, in_scan, in_map, in_while, in_checkpoint])
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_a_body_finds_on_fakes_of_its_own_is_no_operand(f: Fn, program: str) -> None:
    """S147, S179: the program has data, those of the plain call."""
    x = polyop.ones(2)
    assert PROGRAMS[program](f, x).tolist() == f(x).tolist()


def test_a_mode_of_its_own_records_nothing() -> None:
    """S147: calls on the fakes of another mode are no nodes; tensors made there are fakes."""

    def f(x: Tensor) -> Tensor:
        with FakeTensorMode():
            n = (polyop.tensor([1.0, 2.0]) + polyop.zeros(2)).shape[0]
        return x * n

    graph = make_fx(f)(polyop.ones(2)).graph
    assert [str(node.target) for node in graph.nodes if node.op == "call_function"] == [
        "core.multiply.Scalar"
    ]


def test_a_mode_of_its_own_hides_no_look_from_a_trace() -> None:
    """S142, S147: data of an input is refused there too."""

    def looks(x: Tensor) -> float:
        with FakeTensorMode():
            return x.item()

    with pytest.raises(polyop.errors.DataDependentOutputError):
        make_fx(lambda x: x * looks(x))(polyop.ones(()))


@pytest.mark.parametrize("f", [in_cond, in_scan, in_map, in_while, in_checkpoint])
def test_a_fake_from_elsewhere_is_refused(f: Fn, monkeypatch: pytest.MonkeyPatch) -> None:
    """S147: outside of its mode a fake would be an operand, which has no data."""
    monkeypatch.setattr(f"{__name__}.size", lambda: polyop.sin(OUTSIDE).shape[0])
    with pytest.raises(polyop.errors.FakeError, match="used in another"):
        export(f, (polyop.ones(2),))
