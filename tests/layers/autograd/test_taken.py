"""Data that an author takes out of tensors in `setup_context`, and gradients of gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import polyop as P
from polyop import Library, Tensor
from polyop.errors import MissingGradientError
from polyop.layers.autograd.taken import watching

Look = Callable[[Any], Any]
LOOKS: dict[str, Look] = {
    "numpy": lambda t: t.numpy(),
    "detach": lambda t: t.detach().numpy(),
    "asarray": np.asarray,
    "dlpack": np.from_dlpack,
    "to_array": lambda t: P.to_array(t.detach()),
    "tolist": lambda t: np.array(t.tolist()),
    "items": lambda t: np.array([v.item() for v in t]),
    "computed": lambda t: (t + 0).numpy(),
}
VALUES = [0.3, 0.5]


@pytest.fixture
def lib() -> Iterator[Library]:
    library = Library("taken", "DEF")
    yield library
    library._destroy()


def kernel(x: Tensor, y: Tensor) -> Tensor:
    return P.from_numpy(np.sin(x.numpy()) * y.numpy())


def wave(lib: Library, take: Callable[[Any], Any], *, of: int = 0) -> Any:
    """Define sin(x) * y, whose gradient for x reads what `take` gives of an argument."""
    lib.define("wave(Tensor x, Tensor y) -> Tensor")
    lib.impl("wave", kernel, "CPU")
    P.library.register_autograd("taken::wave", back, setup_context=keeper(take, of), lib=lib)
    return P.ops.taken.wave


def keeper(take: Callable[[Any], Any], of: int) -> Callable[..., None]:
    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.data = take(inputs[of])
        ctx.of = of

    return keep


def back(ctx: Any, g: Tensor) -> Any:
    x, y = ctx.saved_tensors
    data = P.from_numpy(np.asarray(ctx.data, np.float64))
    x, y = (data, y) if ctx.of == 0 else (x, data)
    return g * P.cos(x) * y, g * P.sin(x)


def start(*, grad: bool = True) -> Tensor:
    return P.tensor(VALUES, dtype=P.float64, requires_grad=grad)


def first(op: Any, x: Tensor, y: Tensor) -> Tensor:
    (found,) = P.autograd.grad(op(x, y).sum(), x, create_graph=True)
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("look", LOOKS)
def test_a_gradient_of_taken_data_is_refused_and_the_first_is_right(
    lib: Library, look: str
) -> None:
    """S133: what the first lacks nothing of, the second would."""
    op, x, y = wave(lib, LOOKS[look]), start(), P.tensor([2.0, 3.0], dtype=P.float64)
    found = first(op, x, y)
    np.testing.assert_allclose(found.detach().numpy(), np.cos(VALUES) * [2, 3])
    with pytest.raises(MissingGradientError, match=r"backward of taken::wave .*took out") as caught:
        found.sum().backward()
    assert "save_for_backward" in str(caught.value)


def test_a_gradient_that_is_not_recorded_is_not_touched(lib: Library) -> None:
    """S124: data in the context are the author's affair."""
    op, x = wave(lib, LOOKS["numpy"]), start()
    op(x, P.ones_like(x)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.cos(VALUES))


def test_nested_transforms_refuse_too(lib: Library) -> None:
    """S134: `grad` of `grad` says the same."""
    op, x = wave(lib, LOOKS["tolist"]), start(grad=False)
    y = P.ones_like(x)

    def slope(x: Tensor) -> Tensor:
        return P.func.grad(lambda x: op(x, y).sum())(x).sum()  # type: ignore[no-any-return]

    np.testing.assert_allclose(slope(x).item(), np.cos(VALUES).sum())
    with pytest.raises(MissingGradientError, match="took out"):
        P.func.grad(slope)(x)


def test_other_ways_through_the_gradient_are_right(lib: Library) -> None:
    """S133: what came in, and what the gradient is multiplied with, do not depend on the data."""
    op, x, y = wave(lib, LOOKS["numpy"]), start(), P.tensor([2.0, 3.0], dtype=P.float64)
    g = P.tensor([1.0, 1.0], dtype=P.float64, requires_grad=True)
    w = P.tensor([5.0, 7.0], dtype=P.float64, requires_grad=True)
    (found,) = P.autograd.grad(op(x, y), x, g, create_graph=True)
    to_g, to_w = P.autograd.grad((found * w).sum(), (g, w))
    np.testing.assert_allclose(to_g.numpy(), np.cos(VALUES) * [10, 21])
    np.testing.assert_allclose(to_w.numpy(), np.cos(VALUES) * [2, 3])


def test_the_other_ways_cannot_be_differentiated_either(lib: Library) -> None:
    """S133: the data are in the gradient for what came in, and in the transposed gradient."""
    op, x, y = wave(lib, LOOKS["numpy"]), start(), P.tensor([2.0, 3.0], dtype=P.float64)
    g = P.ones_like(x).requires_grad_()
    (found,) = P.autograd.grad(op(x, y), x, g, create_graph=True)
    (to_g,) = P.autograd.grad(found.sum(), g, create_graph=True)
    with pytest.raises(MissingGradientError, match="took out"):
        P.autograd.grad(to_g.sum(), x)

    def slope(x: Tensor) -> Tensor:
        return P.func.jvp(lambda z: op(z, y), (x,), (P.ones_like(x),))[1].sum()  # type: ignore[no-any-return]

    np.testing.assert_allclose(slope(x.detach()).item(), (np.cos(VALUES) * [2, 3]).sum())
    with pytest.raises(MissingGradientError, match="took out"):
        P.func.grad(slope)(x.detach())


HARMLESS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "an input without gradient": (1, lambda t: t.numpy()),
    "detached": (1, lambda t: t.detach().numpy()),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_data_of_what_needs_no_gradient_are_harmless(lib: Library, case: str) -> None:
    """S124: such an input is a constant."""
    of, take = HARMLESS[case]
    op, x = wave(lib, take, of=of), start()
    y = P.tensor([2.0, 3.0], dtype=P.float64)
    found = P.autograd.grad(first(op, x, y).sum(), x)[0]
    np.testing.assert_allclose(found.numpy(), -np.sin(VALUES) * [2, 3])


def test_shapes_flags_and_integers_are_harmless(lib: Library) -> None:
    """S124: they do not change where values do by little."""

    def facts(t: Any) -> Any:
        assert (t > 0).all().item() and int(P.argmax(t).item()) == 1 and bool(t.sum() > 0)
        return [float(t.shape[0]), float(str(t.dtype) == "float64")]

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.facts = facts(inputs[0])
        ctx.save_for_backward(*inputs)

    def slopes(ctx: Any, g: Tensor) -> Any:
        x, y = ctx.saved_tensors
        return g * P.cos(x) * y * ctx.facts[1] * ctx.facts[0] / 2, None

    lib.define("facts(Tensor x, Tensor y) -> Tensor")
    lib.impl("facts", kernel, "CPU")
    P.library.register_autograd("taken::facts", slopes, setup_context=keep, lib=lib)
    x = start()
    found = P.autograd.grad(first(P.ops.taken.facts, x, P.ones_like(x)).sum(), x)[0]
    np.testing.assert_allclose(found.numpy(), -np.sin(VALUES))


def test_a_function_refuses_too() -> None:
    """S137: so does a `Function` with a `setup_context`."""

    class Wave(P.autograd.Function):
        @staticmethod
        def forward(x: Any) -> Any:
            return P.sin(x)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.slope = np.cos(inputs[0].detach().numpy())

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * P.from_numpy(ctx.slope)

    x = start()
    (found,) = P.autograd.grad(Wave.apply(x).sum(), x, create_graph=True)
    np.testing.assert_allclose(found.detach().numpy(), np.cos(VALUES))
    with pytest.raises(MissingGradientError, match="backward of Wave"):
        P.autograd.grad(found.sum(), x)


def test_a_jvp_that_reads_taken_data_has_no_gradient(lib: Library) -> None:
    """S132: the jvp reads what the same `setup_context` kept."""
    lib.define("pushed(Tensor x) -> Tensor")
    lib.impl("pushed", lambda x: P.from_numpy(np.sin(x.numpy())), "CPU")
    P.library.register_autograd(
        "taken::pushed",
        lambda ctx, g: g * P.from_numpy(np.cos(ctx.data)),
        setup_context=lambda ctx, inputs, output: setattr(ctx, "data", inputs[0].detach().numpy()),
        lib=lib,
    )
    P.library.register_jvp(
        "taken::pushed", lambda ctx, t: t * P.from_numpy(np.cos(ctx.data)), lib=lib
    )
    x = start(grad=False)

    def slope(x: Tensor) -> Tensor:
        return P.func.jvp(P.ops.taken.pushed, (x,), (P.ones_like(x),))[1].sum()  # type: ignore[no-any-return]

    np.testing.assert_allclose(slope(x).item(), np.cos(VALUES).sum())
    with pytest.raises(MissingGradientError, match="jvp of taken::pushed"):
        P.func.grad(slope)(x)


def test_what_cannot_take_data_is_called_as_it_is() -> None:
    """S124: the common `setup_context` costs nothing more."""

    def plain(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.power = inputs
        ctx.size, ctx.rank = x.shape, len(x.shape)
        ctx.save_for_backward(x, output)

    def taking(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.data = inputs[0].numpy()

    def given(ctx: Any, inputs: Any, output: Any, take: Any = np.asarray) -> None:
        ctx.data = take(inputs[0])

    assert watching(plain, plain) is plain
    assert watching(taking, taking) is not taking and watching(given, given) is not given


def size(t: Any) -> Any:
    """Take the data, under the name of an attribute that does not."""
    return 2 * t.numpy()


def by_a_name(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.slope = size(inputs[0])


def by_a_text(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.slope = np.array([2 * float(f"{inputs[0][0]:.17g}")])


def by_another_text(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.slope = np.array([2 * float("%.17g" % inputs[0][0])])  # noqa: UP031 - as authors may


@pytest.mark.parametrize("setup", [by_a_name, by_a_text, by_another_text])
def test_data_by_other_words(lib: Library, setup: Any) -> None:
    """S137: a name alone may be anything, and what becomes text is taken out."""
    lib.define("square(Tensor x) -> Tensor")
    lib.impl("square", lambda x: P.from_numpy(x.numpy() ** 2), "CPU")
    P.library.register_autograd(
        "taken::square", lambda ctx, g: g * P.from_numpy(ctx.slope), setup_context=setup, lib=lib
    )
    x = P.tensor([0.5], dtype="float64", requires_grad=True)
    (g,) = P.autograd.grad((P.ops.taken.square(x) * x).sum(), [x], create_graph=True)
    assert np.allclose(g.tolist(), 3 * 0.25)
    with pytest.raises(MissingGradientError, match="save_for_backward"):
        P.autograd.grad(g.sum(), [x])
