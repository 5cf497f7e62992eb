"""An operator called with PyTorch's tensors is one of PyTorch's, in every transform."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from tests.bridges.torch.operators import (
    crop,
    cube,
    double,
    mix,
    mix_oracle,
    nonzero,
    sin,
    sine,
    solve_tridiagonal,
)
from torch.utils.checkpoint import checkpoint

import polyop
from polyop import Tensor
from polyop.errors import (
    ArgumentError,
    AutogradError,
    DataDependentOutputError,
    MissingGradientError,
    MutationError,
)

#: PyTorch's forward mode compiles its own decompositions with what PyTorch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
F: Any = torch.func
Z = torch.linspace(0.1, 1.5, 4, dtype=torch.float64)
PAIRS = [(sin, torch.sin), (cube, lambda x: x**3)]


def watched(x: torch.Tensor) -> torch.Tensor:
    return x.clone().requires_grad_()


def by_backward(f: Any) -> torch.Tensor:
    y = watched(Z)
    f(y).sum().backward()
    assert y.grad is not None
    return y.grad


def twice(f: Any) -> torch.Tensor:
    y = watched(Z)
    (first,) = torch.autograd.grad(f(y).sum(), y, create_graph=True)
    return torch.autograd.grad(first.sum(), y)[0]


def by_dual(f: Any) -> torch.Tensor:
    forward: Any = torch.autograd.forward_ad
    with forward.dual_level():
        return forward.unpack_dual(f(forward.make_dual(Z, Z))).tangent.clone()


COMPOSITIONS: dict[str, Callable[[Any], Any]] = {
    "backward": by_backward,
    "double backward": twice,
    "dual": by_dual,
    "checkpoint": lambda f: by_backward(lambda x: checkpoint(f, x, use_reentrant=False)),
    "grad": lambda f: F.grad(lambda x: f(x).sum())(Z),
    "grad of grad": lambda f: F.grad(lambda x: F.grad(lambda y: f(y).sum())(x).sum())(Z),
    "jacrev": lambda f: F.jacrev(f)(Z),
    "jacfwd": lambda f: F.jacfwd(f)(Z),
    "jvp": lambda f: F.jvp(f, (Z,), (Z,))[1],
    "hessian": lambda f: F.hessian(lambda x: (f(x) ** 2).sum())(Z),
    "jacrev of jacfwd": lambda f: F.jacrev(F.jacfwd(f))(Z),
    "vmap": lambda f: F.vmap(f)(Z),
    "vmap of vmap": lambda f: F.vmap(F.vmap(f))(Z.reshape(2, 2)),
    "vmap of grad": lambda f: F.vmap(F.grad(f))(Z),
    "grad of vmap": lambda f: F.grad(lambda x: F.vmap(f)(x).sum())(Z),
    "vmap of jvp": lambda f: F.vmap(lambda x: F.jvp(f, (x,), (x,))[1])(Z),
    "jvp of vmap": lambda f: F.jvp(F.vmap(f), (Z,), (Z,))[1],
    "grad of jvp": lambda f: F.grad(lambda x: F.jvp(f, (x,), (x,))[1].sum())(Z),
    "jvp of grad": lambda f: F.jvp(F.grad(lambda x: f(x).sum()), (Z,), (Z,))[1],
    "captured by grad": lambda f: F.grad(lambda x: F.grad(lambda y: (f(x) * y).sum())(Z).sum())(Z),
    "captured by jvp": lambda f: F.jvp(
        lambda x: F.jvp(lambda y: f(x) * y, (Z,), (Z,))[1], (Z,), (Z,)
    )[1],
}


@pytest.mark.parametrize("pair", PAIRS, ids=["sin", "cube"])
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_compositions(name: str, pair: Any) -> None:
    """S117, S132, S155: in each composition of transforms an operator is what PyTorch's own is."""
    ours, oracle = pair
    torch.testing.assert_close(COMPOSITIONS[name](ours), COMPOSITIONS[name](oracle))


@pytest.mark.parametrize("ours", [sin, cube])
def test_nested_forward_mode_is_refused(ours: Any) -> None:
    """S132: forward mode inside forward mode, where PyTorch gives zeros, is refused by name."""
    with pytest.raises(AutogradError, match="nested forward mode"):
        F.jacfwd(F.jacfwd(ours))(Z)


def test_examples_have_right_gradients() -> None:
    """S117: gradients of the examples agree with differences, first and second order."""
    bands = (torch.rand(3, 4, dtype=torch.float64) + torch.tensor([[0.0], [6.0], [0.0]])).double()
    given = (watched(bands), watched(Z))
    assert torch.autograd.gradcheck(solve_tridiagonal, given, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(solve_tridiagonal, given)
    x = torch.rand(2, 5, 6)
    got = F.grad(lambda t: (crop(t, [1, 2, 4, 5]) ** 2).sum())(x)
    torch.testing.assert_close(got, F.grad(lambda t: (t[:, 2:5, 1:4] ** 2).sum())(x))
    batch = torch.rand(4, 2, 5, 6)
    torch.testing.assert_close(F.vmap(lambda t: crop(t, [1, 2, 4, 5]))(batch), batch[..., 2:5, 1:4])


def test_lists_and_absent_tensors() -> None:
    """S10: tensors in lists, absent ones and several results go as they do in PyTorch."""
    for f in (
        lambda m: F.grad(lambda w: sum(t.sum() for t in m([w * Z, w * Z], w)[1]))(Z[0]),
        lambda m: F.jvp(lambda x: m([x, x * 2], x.sum())[0], (Z,), (Z,))[1],
        lambda m: F.vmap(lambda x: m([x, x * 2], None)[1][1])(Z),
    ):
        torch.testing.assert_close(f(mix), f(mix_oracle))
    xs = [watched(Z), watched(Z)]
    total, parts = mix(xs, None, k=3.0, mode="any")
    (total.sum() + parts[1].sum()).backward()
    assert [float(x.grad[0]) for x in xs if x.grad is not None] == [3.0, 6.0]


def test_results_that_depend_on_data() -> None:
    """S144: a size that depends on data is what it is."""
    assert nonzero(torch.tensor([0.0, 3.0, 0.0, 2.0])).tolist() == [[1], [3]]


def test_a_gradient_that_does_not_fit_is_named() -> None:
    """S128: a gradient of another shape is refused in the author's words, not in PyTorch's."""
    with pytest.raises(AutogradError, match="does not fit 'w'"):
        F.grad(lambda w: mix([w, w], w)[0].sum())(Z)


@polyop.custom_op("bridge_tests::sorted_square", mutates_args=())
def sorted_square(x: polyop.Tensor) -> tuple[polyop.Tensor, polyop.Tensor]:
    """The square and the order of some numbers; its gradient looks at data."""
    return polyop.from_numpy(x.numpy() ** 2), polyop.from_numpy(np.argsort(x.numpy()))


def sorted_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.x = inputs[0]
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def sorted_backward(ctx: Any, grad: Any, none: Any) -> Any:
    assert none is None
    return polyop.from_numpy(2 * ctx.x.numpy() * grad.numpy())


sorted_square.register_autograd(sorted_backward, setup_context=sorted_setup)


def test_a_gradient_that_looks_at_data() -> None:
    """S125, S133: it serves once; a second gradient, and a transform, are refused and not zero."""
    y = watched(Z)
    square, order = sorted_square(y)
    assert not order.requires_grad
    (first,) = torch.autograd.grad(square.sum(), y, create_graph=True)
    torch.testing.assert_close(first, 2 * Z)
    with pytest.raises(MissingGradientError, match="looks at data"):
        torch.autograd.grad((first * y).sum(), y)
    with pytest.raises(DataDependentOutputError):
        F.jvp(sorted_square, (Z,), (Z,))


def test_no_gradient_by_declaration() -> None:
    """S129: results that are declared to have no gradient are constants in each mode."""

    @polyop.custom_op("bridge_tests::constant", mutates_args=())
    def constant(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(x.numpy() * 2)

    constant.register_autograd(None)
    assert not constant(watched(Z)).requires_grad
    torch.testing.assert_close(F.grad(lambda x: (constant(x) * x).sum())(Z), 2 * Z)
    torch.testing.assert_close(F.jvp(lambda x: constant(x) * x, (Z,), (Z,))[1], 2 * Z * Z)


def test_writes_are_seen() -> None:
    """S66: a written tensor is the caller's own, and a tensor that was saved before is refused."""
    y, out = watched(Z), torch.empty_like(Z)
    product = y * out
    sine(Z, out)
    torch.testing.assert_close(out, torch.sin(Z))
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        product.sum().backward()
    rows = torch.zeros(3, 4, dtype=torch.float64)
    F.vmap(lambda a, b: (sine(a, b), b)[1])(Z.expand(3, 4), rows)
    torch.testing.assert_close(rows, torch.sin(Z).expand(3, 4))
    with pytest.raises(MutationError, match="gradient of PyTorch would not see"):
        sine(watched(Z), out)


@pytest.mark.parametrize(
    "x",
    [
        torch.tensor(0.5),
        torch.empty(0, 3),
        torch.rand(3, 4).t(),
        torch.rand(2, 3).to(torch.bfloat16),
        torch.complex(Z, Z).conj(),
        torch.rand(4)[::2],
        torch.rand(3).expand(2, 3),
        torch.nn.Parameter(torch.rand(3)),
    ],
    ids=[
        "scalar",
        "empty",
        "transposed",
        "bfloat16",
        "conjugate",
        "steps",
        "repeated",
        "parameter",
    ],
)
def test_layouts(x: torch.Tensor) -> None:
    """S66: whatever the layout of a tensor, the kernel gets its elements."""
    got, want = sin(x).detach(), torch.sin(x).detach()
    assert got.dtype is want.dtype and got.is_contiguous()
    torch.testing.assert_close(got, want)


def test_numpy_joins_and_frameworks_do_not_mix() -> None:
    """S66: NumPy's arrays go with tensors; a written one would not be seen, and is refused."""
    got = solve_tridiagonal(torch.ones(3, 3, dtype=torch.float64) * 5, np.ones(3))
    assert isinstance(got, torch.Tensor)
    with pytest.raises(ArgumentError, match="writes 'output', an array of NumPy"):
        sine(Z, np.empty(4))
    jax = pytest.importorskip("jax.numpy")
    with pytest.raises(ArgumentError, match="two libraries"):
        solve_tridiagonal(torch.ones(3, 3), jax.ones(3))


def test_tensors_of_ours_over_torch_are_recorded_there() -> None:
    """S117: a tensor over PyTorch's keeps its history through an author's operator."""
    y = watched(Z)
    out = sin(polyop.from_array(y))
    assert isinstance(out, polyop.Tensor)
    (grad,) = torch.autograd.grad(polyop.to_array(out).sum(), y)
    torch.testing.assert_close(grad, torch.cos(Z))


def test_what_is_missing_is_named() -> None:
    """S129: without a gradient, backward and forward mode raise, and batches are looped over."""
    with pytest.raises(MissingGradientError, match="bridge_tests::double has no backward"):
        double(watched(Z)).sum().backward()
    with pytest.raises(MissingGradientError, match="bridge_tests::double has no backward"):
        F.jvp(double, (Z,), (Z,))
    torch.testing.assert_close(F.vmap(double)(Z), Z * 2)


def test_autocast() -> None:
    """S53: inside PyTorch's autocast the author's rule casts, and gradients are cast back."""
    x = torch.rand(3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = cube(x)
    assert out.dtype is torch.bfloat16
    out.sum().backward()
    assert x.grad is not None and x.grad.dtype is torch.float32


def test_threads() -> None:
    """S98: eight threads call at once, the first calls included, and all are right."""

    @polyop.custom_op("bridge_tests::threads", mutates_args=())
    def shift(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(np.asarray(x.numpy() + 1))

    shift.register_autograd(lambda ctx, grad: grad * 2)
    found: list[bool] = []

    def work() -> None:
        for _ in range(10):
            y = watched(Z)
            out = shift(y)
            out.sum().backward()
            assert y.grad is not None
            found.append(torch.equal(out, Z + 1) and bool((y.grad == 2).all()))

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80 and all(found)


def test_words_of_pytorch_for_dtypes_and_devices() -> None:
    """S64: its own dtypes and devices are values of such arguments, as ours are."""

    @polyop.custom_op("torchtest::cast", mutates_args=(), replace=True)
    def cast(x: Tensor, dtype: polyop.dtype, device: polyop.device | None = None) -> Tensor:
        return polyop.from_numpy(x.numpy().astype(dtype))

    x = torch.ones(2)
    for _ in range(2):  # the second call is quick
        assert cast(x, torch.float64, torch.device("cpu")).dtype == torch.float64
        assert cast(x, dtype=torch.float16).dtype == torch.float16
    assert cast(polyop.ones(2), torch.float64).dtype == polyop.float64
    assert polyop.device(torch.device("cuda", 1)) is polyop.device("cuda:1")
    with pytest.raises(ArgumentError, match="as argument 'dtype'"):
        cast(x, torch.quint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lay", [np.asfortranarray, np.sum, lambda a: a[::-1]])
def test_a_result_is_written_as_any_other(lay: Callable[..., Any], dtype: torch.dtype) -> None:
    """S66: however the kernel's array lies, the result is no view of something."""

    @polyop.custom_op("torchtest::laid", mutates_args=(), replace=True)
    def laid(x: Tensor) -> Tensor:
        return polyop.from_numpy(np.asarray(lay(x.numpy() + x.numpy())))

    laid.register_autograd(lambda ctx, g: polyop.ones(3, 2, dtype=g.dtype) * 2)
    x = torch.ones(3, 2, dtype=dtype, requires_grad=True)
    for f in (laid, torch.ops.torchtest.laid):
        y = f(x)
        assert torch.equal(y.detach().clone().mul_(2), y.mul_(2))


@pytest.mark.parametrize("transform", [F.vmap, F.grad, lambda f: F.vmap(F.grad(f))])
def test_what_pytorch_cannot_have_is_refused_in_forward_mode(transform: Any) -> None:
    """S63: by name, under any transform."""
    op = polyop.custom_op(
        "torchtest::maybe",
        lambda x: None,
        mutates_args=(),
        schema="(Tensor x) -> Tensor?",
        replace=True,
    )
    x = torch.ones(2, 2)
    with pytest.raises(ArgumentError, match="an operator of PyTorch cannot have"):
        F.jvp(transform(op), (x,), (x,))


def test_a_batch_of_no_samples_goes_by_the_fake() -> None:
    """S157: without a rule nothing is run, and the fake says the shapes."""

    @polyop.custom_op("torchtest::two", mutates_args=(), replace=True)
    def two(x: Tensor, y: Tensor, k: int = 2) -> tuple[Tensor, list[Tensor]]:
        raise NotImplementedError

    two.register_fake(lambda x, y, k=2: (x.new_empty([x.shape[0], k]), [polyop.empty_like(y)]))
    for f in (two, torch.ops.torchtest.two):
        wide, (row,) = F.vmap(f, in_dims=(1, None))(torch.ones(3, 0), torch.ones(4))
        assert (wide.shape, row.shape) == ((0, 3, 2), (0, 4))


class Plain(torch.Tensor):
    """A subclass that computes as PyTorch does."""


def test_plain_subclasses_have_data() -> None:
    """S66: a subclass without a dispatch of its own is an array, in lists too."""

    @polyop.custom_op("torchtest::total", mutates_args=(), replace=True)
    def total(xs: list[Tensor]) -> Tensor:
        return polyop.from_numpy(sum(x.numpy() for x in xs) * 1)

    x: Any = torch.tensor([1.0, 2.0, 1.0]).as_subclass(Plain)
    assert torch.equal(total([x, torch.ones(3)]), x + 1)
    assert torch.equal(polyop.to_array(polyop.unique_values(polyop.from_array(x))), x[:2])
