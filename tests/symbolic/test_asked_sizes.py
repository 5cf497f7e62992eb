"""What operators ask of sizes that depend on data, and what they need not ask."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.errors import GuardOnDataDependentError
from polyop.export import export
from polyop.graph import make_fx
from polyop.library import custom_op, get_ctx
from polyop.symbolic import ShapeEnv, check, sym_max, sym_min

Fn = Callable[[Tensor], Tensor]
DATA = polyop.tensor([1.0, -1.0, 2.0, 3.0])

ASKING: dict[str, tuple[Fn, Callable[[Any], Any]]] = {
    "reshape": (lambda y: y.reshape(3, 1), lambda u: u == 3),
    "unflatten": (lambda y: y.unflatten(0, (3, 1)), lambda u: u == 3),
    "broadcast_to": (lambda y: polyop.broadcast_to(y, (3,)), lambda u: u == 3),
    "squeeze": (lambda y: polyop.squeeze(y[1:], axis=0), lambda u: u == 2),
    "concat": (
        lambda y: polyop.concat([y.reshape(-1, 1), polyop.ones((3, 1))], axis=1),
        lambda u: u == 3,
    ),
    "split": (lambda y: polyop.concat(list(y.split([1, 2]))), lambda u: u == 3),
    "select": (lambda y: y[2], lambda u: u >= 3),
}


@pytest.mark.parametrize("name", ASKING)
def test_what_must_hold_is_what_is_advised(name: str) -> None:
    """S152: the check that the error tells to write is the one under which the call goes on."""
    call, holds = ASKING[name]
    if name != "squeeze":  # whose size is computed
        with pytest.raises(GuardOnDataDependentError) as caught:
            make_fx(lambda x: call(x[x > 0]), "symbolic")(DATA)
        assert f"write polyop.symbolic.check({holds(Name())})" in str(caught.value)
        assert caught.value.source.startswith(__file__)

    def checked(x: Tensor) -> Tensor:
        y = x[x > 0] if name != "squeeze" else x[x > 1]
        check(holds(y.shape[0]))
        return call(y)

    assert make_fx(checked, "symbolic")(DATA)(DATA).tolist() == checked(DATA).tolist()


class Name:
    """A size that says what it is compared with."""

    def __eq__(self, other: object) -> Any:
        return f"u0 == {other}"

    def __ge__(self, other: object) -> Any:
        return f"u0 >= {other}"


@pytest.mark.parametrize(
    "call",
    [
        lambda y: polyop.roll(y, 1),
        lambda y: polyop.roll(y, -5),
        lambda y: polyop.diff(y),
        lambda y: polyop.diff(y, n=2),
        lambda y: y.reshape(3, -1),
    ],
)
@pytest.mark.parametrize("data", [DATA, DATA * 0])
def test_what_holds_for_all_sizes_is_not_asked(call: Fn, data: Tensor) -> None:
    """S152: what a run asserts, or what is always so, is no question."""
    module = make_fx(lambda x: call(x[x > 0]), "symbolic")(DATA)
    assert module(data).tolist() == call(data[data > 0]).tolist()


@custom_op("askedsizes::decoded", mutates_args=())
def decoded(d: Tensor) -> Tensor:
    return polyop.from_numpy(d.numpy().reshape(3, 2, -1).copy())


@decoded.register_fake
def _(d: Tensor) -> Tensor:
    sizes = [get_ctx().new_dynamic_size() for _ in range(2)]
    return d.new_empty((3, *sizes))


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.permute(1, 2, 0).reshape(-1, 3),
        lambda t: t.permute(1, 2, 0).reshape(-1),
        lambda t: t.permute(1, 2, 0).flatten(0, 1),
        lambda t: t.permute(1, 2, 0).view(-1, 3),
        lambda t: t.transpose(1, 2).reshape(3, -1),
        lambda t: t.movedim(0, -1).reshape(-1, 3),
        lambda t: t.reshape(-1, 2),
    ],
)
def test_a_reshaped_tensor_of_unknown_sizes(call: Fn) -> None:
    """S152: where nobody can tell that a view is to be had, the elements are copied."""
    data = polyop.arange(24.0)

    def f(d: Tensor) -> Tensor:
        return call(decoded(d))

    wanted = f(data).tolist()
    assert polyop.compile(f, fullgraph=True)(data).tolist() == wanted
    assert export(f, (data,)).module()(data).tolist() == wanted


def test_elements_that_do_not_fit_are_refused_at_run_time() -> None:
    """S152: a total that is not divisible is an error of the run."""
    module = make_fx(lambda x: x[x > 0].reshape(2, -1), "symbolic")(DATA[1:])
    assert module(DATA[1:]).tolist() == [[2.0], [3.0]]
    with pytest.raises(polyop.errors.UsageError, match="reshaped"):
        make_fx(lambda x: x[x > 0].reshape(2, -1), "symbolic")(DATA)(DATA)


# -- iteration ------------------------------------------------------------------


def rows(x: Tensor) -> Tensor:
    return polyop.stack([row * len(x) for row in x])


def test_a_size_that_is_iterated_over_is_fixed() -> None:
    """S150: iteration relies on the size, as `int` does."""
    x, longer = polyop.ones((3, 2)), polyop.ones((4, 2))
    module = make_fx(rows, "symbolic")(x)
    assert module(x).tolist() == rows(x).tolist()
    with pytest.raises(polyop.errors.UsageError, match="s0 == 3"):
        module(longer)
    compiled = polyop.compile(rows, fullgraph=True)
    for given in (x, longer, x):
        assert compiled(given).tolist() == rows(given).tolist()


def test_a_size_of_unknown_length_is_not_iterated_over() -> None:
    """S152: such an error says what to check."""
    for f in (lambda x: sum(x[x > 0]), lambda x: x * len(x[x > 0])):
        with pytest.raises(GuardOnDataDependentError, match=r"check\(u0 == <size>\)"):
            make_fx(f, "symbolic")(DATA)


# -- bounds of expressions ------------------------------------------------------


def texts(count: int) -> Iterator[str]:
    draw = random.Random(0)

    def text(depth: int) -> str:
        if depth == 0 or draw.random() < 0.3:
            return draw.choice(["a", "b", str(draw.randint(-2, 3))])
        left, right = text(depth - 1), text(depth - 1)
        form = draw.choice(["({}+{})", "({}-{})", "max({},{})", "min({},{})", "({}%max({},1))"])
        return form.format(left, right)

    return (text(4) for _ in range(count))


def test_an_expression_has_the_value_of_what_it_was_made_of() -> None:
    """S150: extremes that bounds decide are what they are for all sizes."""
    for text in texts(400):
        env = ShapeEnv()
        sizes = {"a": env.create_unbacked(), "b": env.create_unbacked(min=1)}
        made = eval(text, {**sizes, "max": sym_max, "min": sym_min})
        for a in range(4):
            for b in range(1, 4):
                assert env.evaluate(made, {"u0": a, "u1": b}) == eval(text, {"a": a, "b": b}), text
