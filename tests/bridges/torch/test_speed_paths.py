"""The quick ways into PyTorch and back give what the general ones give, and know their limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from tests.bridges.torch.operators import cube, sin
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import polyop
from polyop import Tensor
from polyop.bridges.torch import hidden, recorded, watch, written
from polyop.bridges.torch.bridge import Bridge
from polyop.errors import AliasError, MissingKernelError
from polyop.payloads.held import Held

#: PyTorch warns of what it uses itself when `torch.func` is first called.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SEEN: list[Any] = []
X = torch.linspace(0.1, 1.5, 4, dtype=torch.float64)


def leaf() -> Any:
    return X.clone().requires_grad_()


@polyop.custom_op("speed_paths::weigh", mutates_args=())
def weigh(x: Tensor, w: Tensor | None = None, k: float = 2.0, box: list[int] = [1]) -> Tensor:  # noqa: B006
    """`x` times `k` times `w`."""
    SEEN.append((x, w, k, box))
    return polyop.from_numpy(x.numpy() * k * (1.0 if w is None else w.numpy()))


weigh.register_fake(lambda x, w=None, k=2.0, box=(1,): polyop.empty_like(x))


def _weigh_setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, w, k, _ = inputs
    ctx.save_for_backward(x, w)
    ctx.k = k


def _weigh_backward(ctx: Any, grad: Any) -> Any:
    x, w = ctx.saved_tensors
    SEEN.append(grad.payload.__class__)
    one = 1.0 if w is None else w
    return grad * ctx.k * one, None if w is None else grad * ctx.k * x, None, None


weigh.register_autograd(_weigh_backward, setup_context=_weigh_setup)


@pytest.fixture
def no_general(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let nothing but the quick way pass."""
    for op in (sin, cube, weigh):
        op(X)
        op(torch.nn.Parameter(X))

    def general(*_: Any) -> Any:
        raise AssertionError("the general way")

    monkeypatch.setattr(Bridge, "invoke", general)
    yield


@pytest.mark.usefixtures("no_general")
def test_common_calls_take_the_quick_way() -> None:
    """S117: plain and recorded calls need no look, parameters and absent tensors included."""
    torch.testing.assert_close(sin(X), X.sin())
    for y in (leaf(), torch.nn.Parameter(X.clone())):
        (found,) = torch.autograd.grad(sin(y).sum(), y)
        torch.testing.assert_close(found, X.cos())
    assert weigh(X).requires_grad is False
    with torch.no_grad():
        assert not sin(leaf()).requires_grad
    with torch.inference_mode():
        assert sin(X).is_inference()


@pytest.mark.usefixtures("no_general")
@pytest.mark.parametrize("watched", ["transform", "dual"])
def test_whoever_watches_sends_a_call_the_general_way(watched: str) -> None:
    """S117: transforms and duals are seen before anything runs."""
    with pytest.raises(AssertionError, match="the general way"):
        if watched == "transform":
            torch.func.grad(lambda x: sin(x).sum())(X)
        with torch.autograd.forward_ad.dual_level():
            sin(torch.autograd.forward_ad.make_dual(X, X))


def test_static_values_are_converted_and_defaults_are_anew() -> None:
    """S63: the quick way takes the values that the general one takes, and refuses the others."""
    for _ in range(2):
        SEEN.clear()
        weigh(X)
        weigh(X, None, 3, [np.int64(4)])
        defaults, given = SEEN
        assert defaults[2:] == (2.0, [1])
        assert given[2:] == (3.0, [4]) and given[3][0].__class__ is int
        defaults[3].append(5)  # nobody else sees it
        with pytest.raises(polyop.errors.ArgumentError, match="box"):
            weigh(X, None, 3.0, ["a"])


def test_large_arrays_cross_without_a_copy() -> None:
    """S52: a kernel sees PyTorch's memory, and PyTorch its result's, 4 MB of each."""
    seen: list[int] = []

    @polyop.custom_op("speed_paths::large", mutates_args=())
    def large(x: Tensor) -> Tensor:
        out = x.numpy() * 2
        seen.extend((x.numpy().ctypes.data, out.ctypes.data))
        return polyop.from_numpy(out)

    large.register_fake(lambda x: polyop.empty_like(x))
    large.register_autograd(lambda ctx, grad: grad * 2)
    x = torch.rand(1 << 20)
    for given in (x, x.clone().requires_grad_()):
        for _ in range(2):
            seen.clear()
            assert seen == [] and [given.data_ptr(), large(given).data_ptr()] == seen


def test_memory_of_an_argument_is_refused_under_any_name() -> None:
    """S47: a kernel that returns an array which it has kept is found out when it is an argument."""
    kept = np.ones(4)

    @polyop.custom_op("speed_paths::kept", mutates_args=())
    def again(x: Tensor) -> Tensor:
        return polyop.from_numpy(kept)

    again.register_fake(lambda x: polyop.empty_like(x))
    first = again(X)
    with pytest.raises(AliasError, match="shares storage with argument 'x'"):
        again(first)


@polyop.custom_op("speed_paths::fill", mutates_args={"x"})
def fill(x: Tensor, value: float) -> None:
    """Write a value; below zero only the first, and fail."""
    x.numpy()[0] = value
    if value < 0:
        raise ValueError("below zero")
    x.numpy()[:] = value


def test_a_write_counts_as_one() -> None:
    """S147: what was saved and then written makes backward fail, if the kernel failed too."""
    for value in (1.0, 2.0, -1.0):
        y = leaf()
        middle = y * 1
        result = middle.sin()
        version = middle._version
        with torch.no_grad():
            if value < 0:
                with pytest.raises(ValueError, match="below zero"):
                    fill(middle, value)
            else:
                fill(middle, value)
                assert bool((middle == value).all())
        assert middle._version == version + 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            result.sum().backward()


# -- gradients ------------------------------------------------------------------------------------


class Watching(TorchDispatchMode):
    """Sees the calls, and changes nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@contextmanager
def nothing() -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("size", "scope", "more", "payload"),
    [
        (4, nothing, {}, np.ndarray),
        (recorded.MANY + 1, nothing, {}, Held),
        (4, Watching, {}, Held),
        (4, nothing, {"create_graph": True}, Held),
    ],
    ids=["small", "large", "mode", "create_graph"],
)
def test_small_gradients_run_in_numpy_where_nobody_looks(
    size: int, scope: Callable[[], Any], more: Any, payload: type
) -> None:
    """S124: and are the same wherever they run."""
    x = torch.rand(size, dtype=torch.float64, requires_grad=True)
    w = torch.rand(size, dtype=torch.float64, requires_grad=True)
    weigh(x, w)
    out = weigh(x, w, 3.0)
    SEEN.clear()
    with scope():
        found = torch.autograd.grad(out.sum(), (x, w), **more)
    assert SEEN == [payload]
    torch.testing.assert_close(found, (w * 3, x * 3))


def test_a_rule_that_numpy_has_no_kernel_for_runs_in_pytorch() -> None:
    """S124: what is missing for NumPy's arrays may be there for PyTorch's."""

    @polyop.custom_op("speed_paths::partly", mutates_args=())
    def partly(x: Tensor) -> Tensor:
        return polyop.from_numpy(x.numpy() * 2)

    def backward(ctx: Any, grad: Any) -> Any:
        if grad.payload.__class__ is np.ndarray:
            raise MissingKernelError("none for NumPy")
        return grad * 2

    partly.register_fake(lambda x: polyop.empty_like(x))
    partly.register_autograd(backward)
    for _ in range(2):
        y = leaf()
        torch.testing.assert_close(torch.autograd.grad(partly(y).sum(), y)[0], X * 0 + 2)


def test_gradients_are_nobody_elses_memory() -> None:
    """S133: what backward returns may be accumulated into without a trace elsewhere."""
    constant = polyop.ones(4, dtype=polyop.float64)

    @polyop.custom_op("speed_paths::given_back", mutates_args=())
    def given_back(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return polyop.from_numpy(x.numpy() + y.numpy() + z.numpy())

    given_back.register_fake(lambda x, y, z: polyop.empty_like(x))
    given_back.register_autograd(
        lambda ctx, grad: (grad, ctx.saved_tensors[0], constant),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
    )
    leaves = [leaf() for _ in range(3)]
    sent = torch.full((4,), 5.0, dtype=torch.float64)
    for _ in range(2):
        for _ in range(2):
            given_back(*leaves).backward(sent)
        for t in leaves:
            t.grad.add_(100)
        assert bool((sent == 5).all()) and bool((leaves[0] == X).all())
        assert polyop.sum(constant).item() == 4
        for t in leaves:
            t.grad = None


def test_what_was_saved_is_pytorchs() -> None:
    """S125: hooks of saved tensors pack and unpack, and a write to one makes backward fail."""
    packed: list[Any] = []

    def pack(t: Any) -> Any:
        packed.append(t)
        return t.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t * 2):
        y = leaf()
        out = sin(y)
    assert len(packed) == 1
    (found,) = torch.autograd.grad(out.sum(), y)
    torch.testing.assert_close(found, (X * 2).cos())
    middle = y * 1
    out = sin(middle)
    with torch.no_grad():
        middle.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_a_trace_of_a_gradient_holds_no_data() -> None:
    """S150: a graph that is made of a backward is right for other arguments."""

    def gradient(x: Any) -> Any:
        y = x.clone().requires_grad_()
        return torch.autograd.grad(sin(y).sum(), y)[0]

    sin(leaf())
    for pre in (False, True):
        traced: Any = make_fx(gradient, pre_dispatch=pre)(X)
        torch.testing.assert_close(traced(X + 1), (X + 1).cos())


def test_values_that_escaped_from_a_transform_keep_their_history() -> None:
    """S112: such a value is unwrapped, and gradients reach what it was made of."""
    outer = leaf()
    escaped: list[Any] = []

    def inside(z: Any) -> Any:
        escaped.append(outer * 2)
        return (z * 2).sum()

    sin(X)
    torch.func.grad(inside)(X)
    (found,) = torch.autograd.grad(sin(escaped[0]).sum(), outer)
    torch.testing.assert_close(found, 2 * (2 * X).cos())


def test_autocast_is_seen_by_the_quick_way() -> None:
    """S86: an operator with a rule casts inside of autocast, and only there."""
    x = torch.rand(4)
    for _ in range(2):
        assert cube(x).dtype is torch.float32
        with torch.autocast("cpu"):
            assert cube(x).dtype is torch.bfloat16


def test_rules_that_come_later_count() -> None:
    """S59: a kernel or a gradient that is registered after calls is the one that runs."""

    @polyop.custom_op("speed_paths::later", mutates_args=())
    def later(x: Tensor) -> Tensor:
        return polyop.from_numpy(x.numpy() * 2)

    later.register_fake(lambda x: polyop.empty_like(x))
    for factor in (2, 3):
        later.register_autograd(lambda ctx, grad, factor=factor: grad * factor)
        later.register_kernel("cpu", lambda x, k=factor: polyop.from_numpy(x.numpy() * k))
        for _ in range(2):
            y = leaf()
            out = later(y)
            torch.testing.assert_close(out.detach(), X * factor)
            torch.testing.assert_close(torch.autograd.grad(out.sum(), y)[0], X * 0 + factor)


# -- names without a promise --------------------------------------------------------------------


def test_the_documented_names_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """S117: no result depends on names that PyTorch does not promise."""
    assert watch.QUICK.reason == ""
    slow = watch.documented("as a test")
    for module in (written, recorded):
        monkeypatch.setattr(module, "QUICK", slow)

    @polyop.custom_op("speed_paths::documented", mutates_args=())
    def plain(x: Tensor) -> Tensor:
        return polyop.from_numpy(np.sin(x.numpy()))

    plain.register_fake(lambda x: polyop.empty_like(x))
    plain.register_autograd(
        lambda ctx, grad: grad * polyop.cos(ctx.saved_tensors[0]),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
    )
    for _ in range(2):
        y = leaf()
        torch.testing.assert_close(torch.autograd.grad(plain(y).sum(), y)[0], X.cos())
        torch.testing.assert_close(torch.func.grad(lambda x: plain(x).sum())(X), X.cos())
        torch.testing.assert_close(torch.func.jvp(plain, (X,), (X,))[1], X.cos() * X)
        torch.testing.assert_close(
            torch.vmap(plain)(torch.stack([X, X])), torch.stack([X, X]).sin()
        )


def test_a_written_function_is_hidden_either_way() -> None:
    """S117: where code cannot be marked, the function is replaced, and gives the same."""
    scope: dict[str, Any] = {}
    exec("def f(a, b=2): return a + b", scope)  # noqa: S102 - a constant
    hidden._replace(scope["f"])
    assert scope["f"](1) == 3 and scope["f"](1, 5) == 6
    assert hidden.mark(test_a_written_function_is_hidden_either_way.__code__)


def test_what_unrecorded_calls_reach() -> None:
    """S52: the short way to the kernel ends where a library has put another one in its place."""

    @polyop.custom_op("bridge_speed::reached", mutates_args=())
    def reached(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(x.numpy() * 2)

    reached(X)
    target = torch.ops.bridge_speed.reached
    assert target(X).tolist() == (X * 2).tolist()
    torch.testing.assert_close(
        target(torch.view_as_complex(torch.ones(2, 2)).conj()).imag, torch.full((2,), -2.0)
    )
    with torch.no_grad():
        assert target(X.clone().requires_grad_()).tolist() == (X * 2).tolist()
    other: Any = torch.library.Library("bridge_speed", "IMPL")
    other.impl("reached", lambda x: x * 5, "CPU")
    assert target(X).tolist() == (X * 5).tolist()
    other._destroy()


def test_an_own_kernel_that_comes_later_is_reached() -> None:
    """S52: a kernel for PyTorch's own tensors is run by the short way too, once it is there."""

    @polyop.custom_op("bridge_speed::owned", mutates_args=())
    def owned(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(x.numpy() * 2)

    owned(X)
    target = torch.ops.bridge_speed.owned
    assert target(X).tolist() == (X * 2).tolist()
    owned.register_kernel("cpu", lambda x: x * 7, library="torch")
    assert target(X).tolist() == owned(X).tolist() == (X * 7).tolist()
