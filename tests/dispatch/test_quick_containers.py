"""Containers of tensors that are read at once: the same calls, results and errors as by a walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.dispatch import bind, results
from polyop.errors import AliasError, ArgumentError, ReturnError
from polyop.library import custom_op


@dataclass(repr=False)
class Layer:
    weight: Tensor
    bias: Tensor | None
    scale: float
    name: str = "layer"


class Named(TypedDict):
    weight: Tensor
    times: int


class Pair(NamedTuple):
    first: Tensor
    count: int
    second: Tensor | None


#: What the kernels got, and what they answer with, if not a sum.
SEEN: list[Any] = []
ANSWER: list[Any] = []


def total(value: Any, *tensors: Tensor | None) -> Tensor:
    SEEN[:] = [value]
    if ANSWER:
        return ANSWER[-1]
    return polyop.from_numpy(sum((t.numpy() for t in tensors if t is not None), np.zeros(2)))


@custom_op("containers::named", mutates_args=())
def named(d: dict[str, Tensor]) -> Tensor:
    return total(d, *d.values())


@custom_op("containers::perhaps", mutates_args=())
def perhaps(x: Tensor, d: dict[str, Tensor | None] | None = None) -> Tensor:
    return total(d, x, *(d or {}).values())


@custom_op("containers::record", mutates_args=())
def record(r: Layer) -> Tensor:
    return total(r, r.weight, r.bias)


@custom_op("containers::typed", mutates_args=())
def typed(r: Named) -> Tensor:
    return total(r, r["weight"])


@custom_op("containers::nested", mutates_args=())
def nested(d: dict[str, list[Tensor]]) -> Tensor:
    return total(d, *d["a"])


@custom_op("containers::pair", mutates_args=())
def pair(x: Tensor) -> Pair:
    return ANSWER[-1]


@custom_op("containers::both", mutates_args=())
def both(x: Tensor) -> tuple[Pair, Tensor | None]:
    return ANSWER[-1]


@custom_op("containers::maybe", mutates_args=())
def maybe(x: Tensor) -> Tensor | None:
    return ANSWER[-1]


@custom_op("containers::of_record", mutates_args=())
def of_record(d: dict[str, Tensor]) -> Layer:
    return ANSWER[-1]


@pytest.fixture(autouse=True)
def fresh() -> None:
    ANSWER.clear()
    SEEN.clear()


@pytest.fixture
def walked(monkeypatch: Any) -> list[str]:
    """What was walked or looked at closely, instead of being read at once."""
    seen: list[str] = []
    first_convert, first_check = bind.convert, results._check_aliases

    def convert(wanted: Any, value: Any) -> Any:
        seen.append(str(wanted))
        return first_convert(wanted, value)

    def check(op: Any, *given: Any) -> None:
        seen.append(op._opname)
        first_check(op, *given)

    monkeypatch.setattr(bind, "convert", convert)
    monkeypatch.setattr(results, "_check_aliases", check)
    return seen


def ones(n: float = 1.0) -> Tensor:
    return polyop.from_numpy(np.full(2, n))


def answer(value: Any) -> None:
    ANSWER[:] = [value]


def test_common_containers_are_read_at_once(walked: list[str]) -> None:
    """S64: dicts, records and optional results of plain values are neither walked nor converted."""
    x = ones()
    for _ in range(2):
        walked.clear()
        assert named({"a": x, "b": x}).numpy().tolist() == [2.0, 2.0]
        assert perhaps(x, {"a": x, "b": None}).numpy().tolist() == [2.0, 2.0]
        assert perhaps(x, None).numpy().tolist() == [1.0, 1.0]
        assert record(Layer(x, None, 2.0)).numpy().tolist() == [1.0, 1.0]
        assert record(Layer(x, x, 2.0)).numpy().tolist() == [2.0, 2.0]
        assert typed({"weight": x, "times": 2}).numpy().tolist() == [1.0, 1.0]
        for given, op in [
            (Pair(ones(), 3, None), pair),
            (Pair(ones(), 3, ones()), pair),
            ((Pair(ones(), 3, None), None), both),
            ((Pair(ones(), 3, ones()), ones()), both),
            (None, maybe),
            (ones(), maybe),
        ]:
            answer(given)
            made = op(x)
            assert made is given
        ANSWER.clear()
    assert walked == []


def test_a_kernel_has_a_dict_of_its_own() -> None:
    """S64: a dict that the caller, or the kernel, changes later is another; a record stays itself.

    What a kernel gets is a copy of containers that Python lets anybody change.
    """
    x = ones()
    given = {"a": x, "b": x}
    named(given)
    assert SEEN[0] == given and SEEN[0] is not given
    SEEN[0].clear()
    assert set(given) == {"a", "b"}
    layer = Layer(x, None, 2.0)
    record(layer)
    assert SEEN[0] is layer
    layer.bias, layer.scale = x, 3.0
    assert record(layer).numpy().tolist() == [2.0, 2.0]


def test_values_that_need_conversion_get_it() -> None:
    """S64: an int for a float in a record is a float in the kernel, and the caller's stays."""
    layer = Layer(ones(), None, 2)
    record(layer)
    assert type(SEEN[0].scale) is float and type(layer.scale) is int
    flags: Any = {"weight": ones(), "times": np.int64(3)}
    typed(flags)
    assert type(SEEN[0]["times"]) is int and type(flags["times"]) is np.int64
    rows = {"a": [ones()]}
    nested(rows)
    assert SEEN[0] == rows and SEEN[0]["a"] is not rows["a"]


@pytest.mark.parametrize(
    ("op", "value"),
    [
        (named, {"a": 1.0}),
        (named, {1: ones()}),
        (named, {"a": None}),
        (named, {"a": {"b": ones()}}),
        (named, [ones()]),
        (record, Layer(1.0, None, 2.0)),  # type: ignore[arg-type]
        (record, Layer(ones(), None, "2")),  # type: ignore[arg-type]
        (record, {"weight": ones(), "bias": None, "scale": 2.0, "name": "x"}),
        (typed, {"weight": ones()}),
        (typed, {"weight": ones(), "other": 2}),
        (typed, {"weight": ones(), "times": 2, "more": 1}),
        (typed, {"weight": ones(), "times": True + 2**70}),
    ],
)
def test_what_does_not_fit_is_refused(op: Any, value: Any) -> None:
    """S63: a container with a wrong item, key or class raises the error of any argument."""
    with pytest.raises(ArgumentError) as error:
        op(value)
    assert not SEEN
    assert "argument 'd'" in str(error.value) or "argument 'r'" in str(error.value)


def test_keys_inside_containers_count() -> None:
    """S61: a tensor that requires grad, an array or a fake inside decides as it does outside."""
    x = ones()
    grad = polyop.ones(2, requires_grad=True)
    named.register_autograd(lambda ctx, g: ({"a": g, "b": g},))
    made = named({"a": x, "b": grad})
    assert made.requires_grad
    made.sum().backward()
    np.testing.assert_array_equal(grad.grad.numpy(), [1.0, 1.0])
    assert isinstance(named({"a": np.ones(2), "b": np.ones(2)}), np.ndarray)  # type: ignore[dict-item]
    named.register_fake(lambda d: d["a"])
    with polyop.fake.FakeTensorMode():
        assert "fake" in repr(named({"a": polyop.ones(2)})).lower()


@pytest.mark.parametrize("op", [named, record, typed])
@pytest.mark.parametrize("part", [False, True])
def test_results_apart_from_containers(op: Any, part: bool) -> None:
    """S47: a result that is a tensor of a container, or shares its memory, is refused."""
    base = np.arange(4.0)
    x = polyop.from_numpy(base[1:3] if part else base)
    value: Any = {
        named: {"a": ones(), "z": x},
        record: Layer(ones(), x, 2.0),
        typed: {"weight": x, "times": 1},
    }[op]
    answer(polyop.from_numpy(base))
    with pytest.raises(AliasError):
        op(value)
    answer(x)
    with pytest.raises(AliasError):
        op(value)


def test_fields_of_results_are_apart() -> None:
    """S47: fields share memory neither with each other, nor with arguments, nor other results."""
    x, y = ones(), ones()
    for given in (Pair(y, 1, y), Pair(x, 1, None), Pair(y, 1, x), Pair(y, 1, _view(y))):
        answer(given)
        with pytest.raises(AliasError):
            pair(x)
    for both_given in ((Pair(y, 1, None), y), (Pair(y, 1, None), _view(y)), (Pair(y, 1, None), x)):
        answer(both_given)
        with pytest.raises(AliasError):
            both(x)
    for single in (x, _view(x)):
        answer(single)
        with pytest.raises(AliasError):
            maybe(x)
    answer(Layer(x, None, 1.0))
    with pytest.raises(AliasError):
        of_record({"a": x})


def _view(x: Tensor) -> Tensor:
    return polyop.from_numpy(x.numpy()[:1])


@pytest.mark.parametrize(
    "given",
    [
        (ones(), 1, ones()),
        Pair(ones(), True, ones()),
        Pair(1.0, 1, ones()),  # type: ignore[arg-type]
        Pair(ones(), 1, 2.0),  # type: ignore[arg-type]
        Pair(np.ones(2), 1, None),  # type: ignore[arg-type]
        None,
        {"first": ones()},
    ],
)
def test_wrong_records_are_refused(given: Any) -> None:
    """S48: a record of another class, or with a wrong field, is a wrong result."""
    answer(given)
    if isinstance(given, Pair) and given.count is True:
        assert pair(ones()) == given._replace(count=1)  # as a flag in a record always was
        return
    with pytest.raises(ReturnError):
        pair(ones())


def test_a_result_without_a_field_is_refused() -> None:
    """S48: a record that lost a field, the first or another, is a wrong result."""
    for name in ("weight", "bias", "scale"):
        made = Layer(ones(), ones(), 1.0)
        delattr(made, name)
        answer(made)
        with pytest.raises(ReturnError):
            of_record({"a": ones()})


def test_results_lose_their_history() -> None:
    """S117: what a kernel gives in a record has no history, as any result."""
    answer(Pair(polyop.ones(2, requires_grad=True), 1, None))
    assert not pair(ones()).first.requires_grad
    answer(polyop.ones(2, requires_grad=True))
    made = maybe(ones())
    assert made is not None and not made.requires_grad
