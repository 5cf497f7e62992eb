"""Results over PyTorch lie in memory as their fakes say, which is as NumPy's lie."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.payloads.samples import operators, samples_of
from torch.fx.experimental.proxy_tensor import make_fx as torch_make_fx

import polyop
from polyop import from_array, to_array, tree
from polyop.dispatch.bind import dispatch
from polyop.errors import PolyopError
from polyop.export import Dim, export
from polyop.fake import FakeTensorMode
from polyop.graph import make_fx
from polyop.payloads.frameworks import Cupy
from polyop.payloads.libraries import library_of
from polyop.symbolic import ShapeEnv
from polyop.tensor.tensor import Tensor, of_array

TORCH = library_of(torch.ones(1))


def by_columns(x: Any) -> Any:
    """Give a copy of which the last axis is the outermost."""
    return np.array(x, order="F")


def with_gaps(x: Any) -> Any:
    """Give every second element of twice as many."""
    return np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "in order": np.ascontiguousarray,
    "by columns": by_columns,
    "with gaps": with_gaps,
}


def over_torch(x: Any) -> Tensor:
    """Give a tensor over PyTorch of the strides of a NumPy array."""
    flat = torch.empty(2 * x.size, dtype=TORCH.native(x.dtype))
    steps = [s // x.itemsize for s in x.strides]
    made = flat.as_strided(x.shape, steps)
    return from_array(made.copy_(TORCH.from_numpy(x, None)))


def mapped(value: Any, fn: Callable[[Any], Any]) -> Any:
    """Put something else in the place of each array of an argument."""
    if isinstance(value, list):
        return [mapped(v, fn) for v in value]
    return fn(value) if isinstance(value, (np.ndarray, Tensor)) else value


def layout(t: Tensor) -> Any:
    """Give what strides say: nothing of an axis of size one, nor where there are no elements."""
    pairs = zip(t.shape, t.stride(), strict=True)
    steps = [s for n, s in pairs if n != 1] if 0 not in t.shape else []
    return t.is_contiguous(), steps


def fakes_of(op: Any, args: list[Any]) -> list[Tensor]:
    """Give the fake results of a call."""
    with FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True) as mode:
        return _tensors(dispatch(op, [mapped(a, mode.from_tensor) for a in args]))


def _tensors(out: Any) -> list[Tensor]:
    return [t for t in tree.leaves(out) if isinstance(t, Tensor)]


def differences(sample: Any, lay: Callable[[Any], Any]) -> list[str]:
    """Tell which results lie otherwise than their fakes."""
    try:
        args = [mapped(a, lambda x: over_torch(lay(x))) for a in sample.args]
        real = _tensors(dispatch(sample.op, args))
    except (PolyopError, ArithmeticError, ValueError, TypeError, IndexError, RuntimeError):
        return []  # a call that has no results, or a dtype that PyTorch has not
    pairs = zip(real, fakes_of(sample.op, args), strict=True)
    known = [(r, f) for r, f in pairs if all(n.__class__ is int for n in f.shape)]
    return [f"{sample}: {layout(r)}, fake {layout(f)}" for r, f in known if layout(r) != layout(f)]


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_result_lies_as_its_fake(name: str) -> None:
    """S147: strides of a fake are those of the real result, for every built-in operator."""
    found = []
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for op in operators():
            for sample in samples_of(op, few=True)[:5]:
                found += differences(sample, LAYOUTS[name])
    assert not found, "\n".join(found)


def test_a_fake_has_the_strides_of_the_array() -> None:
    """S147: a fake of a tensor over PyTorch has its strides."""
    t = over_torch(by_columns(np.ones((4, 3))))
    with FakeTensorMode() as mode:
        assert mode.from_tensor(t).stride() == t.stride() == (1, 4)


@pytest.mark.parametrize("make", [of_array, over_torch])
def test_no_elements_lie_in_order(make: Callable[[Any], Tensor]) -> None:
    """S147: what has no elements is contiguous, whatever its strides, real or fake."""
    t = make(by_columns(np.ones((2, 3, 4))))
    with FakeTensorMode() as mode:
        assert mode.from_tensor(t)[:, :0].is_contiguous()
    assert t[:, :0].is_contiguous()


# -- programs whose answers depend on the layout ------------------------------------------------


def filled(q: Any) -> Any:
    """Write into a view of a result, or into a copy."""
    q.reshape(-1).fill_(5.0)
    return q.sum()


def branch(q: Any) -> Any:
    """Ask whether a result lies in order."""
    return q.sum() * 0 + (2.0 if q.is_contiguous() else 1.0)


def written(x: Any) -> Any:
    """Write into a tensor, or into a copy that lies in order."""
    x = x * 1
    x.contiguous().add_(1.0)
    return x.sum()


PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "inv": lambda x: filled(polyop.linalg.inv(x)),
    "qr": lambda x: filled(polyop.linalg.qr(x)[0]),
    "sort": lambda x: filled(polyop.sort(x.mT)),
    "cumulative_sum": lambda x: branch(polyop.cumulative_sum(x.mT, axis=0)),
    "rfft": lambda x: branch(polyop.fft.rfftn(x, axes=(0,)).real),
    "svd": lambda x: branch(polyop.linalg.svd(x)[2]),
    "index": lambda x: branch(x.mT[polyop.argsort(x[0])]),
    "add": lambda x: filled(x.mT + 1),
    "contiguous": written,
    "contiguous of a transposed one": lambda x: written(x.mT),
}
MATRIX = np.diag([1.0, 2, 3]) + 0.1


@pytest.mark.parametrize("name", sorted(PROGRAMS))
@pytest.mark.parametrize("lay", [np.ascontiguousarray, by_columns])
def test_programs_answer_as_over_numpy(name: str, lay: Callable[[Any], Any]) -> None:
    """S147: eager, traced, compiled and exported answers over PyTorch are those over NumPy."""
    fn, x = PROGRAMS[name], over_torch(lay(MATRIX))
    wanted = fn(of_array(lay(MATRIX))).item()
    ways = [fn, polyop.compile(fn), make_fx(fn, "fake")(x), make_fx(fn, "symbolic")(x)]
    ways.append(export(fn, (x,)).module())
    assert [way(x).item() for way in ways] == pytest.approx([wanted] * 5)


def test_an_export_for_other_sizes_keeps_the_layout() -> None:
    """S147: an exported program of a transposed input answers for other sizes as the function."""
    sizes = {0: Dim("n", min=2), 1: Dim("m", min=2)}
    program = export(written, (from_array(torch.ones(4, 3).T),), dynamic_shapes=(sizes,))
    x = from_array(torch.ones(5, 7).T)
    assert program.module()(x).item() == written(x).item() == 35


@pytest.mark.parametrize("name", sorted(PROGRAMS))
@pytest.mark.parametrize("mode", ["fake", "symbolic"])
@pytest.mark.parametrize("lay", [np.ascontiguousarray, by_columns])
def test_programs_that_pytorch_traces(name: str, mode: str, lay: Callable[[Any], Any]) -> None:
    """S147: a trace of PyTorch, with symbols for sizes, answers as the function does."""

    def fn(x: Any) -> Any:
        return to_array(PROGRAMS[name](from_array(x)))

    x = to_array(over_torch(lay(MATRIX)))
    assert torch_make_fx(fn, tracing_mode=mode)(x)(x).item() == pytest.approx(fn(x).item())


def test_strides_and_sizes_that_only_a_trace_knows() -> None:
    """S66: a symbol among strides alone, or a size that depends on data, is no obstacle."""

    def part(x: Any) -> Any:
        return to_array((from_array(x[:3, :4]) + 1).reshape(-1))

    def places(x: Any) -> Any:
        return to_array(polyop.multiply(from_array(torch.nonzero(x)), 2))

    for fn, x in ((part, torch.ones(5, 6)), (places, torch.eye(3))):
        traced = torch_make_fx(fn, tracing_mode="symbolic")(x)
        assert torch.equal(traced(x + 1), fn(x + 1))


# -- contiguous, and the transforms of PyTorch ----------------------------------------------------


def test_contiguous_is_contiguous() -> None:
    """S147: `contiguous` gives elements in order over PyTorch too, and inside `vmap`."""
    t = over_torch(by_columns(np.arange(12.0).reshape(3, 4)))
    found = t.contiguous()
    assert found.stride() == (4, 1) and found.view(-1).tolist() == list(range(12))
    batched = polyop.vmap(lambda x: x.contiguous().view(-1), in_dims=2)
    x = np.arange(24.0).reshape(2, 3, 4)
    assert batched(over_torch(x)).tolist() == x.reshape(6, 4).T.tolist()
    assert from_array(torch.ones(2)).contiguous().is_contiguous()


def test_a_contiguous_copy_is_never_the_argument() -> None:
    """S66: the operator copies what lies in order already."""
    t = from_array(torch.zeros(3))
    polyop.ops.core.contiguous_copy(t).add_(1)
    assert t.tolist() == [0, 0, 0]


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_gradients_and_batches_of_pytorch_pass() -> None:
    """S66: PyTorch's own gradients, forward, backward and per sample, go through a new layout."""

    def fn(a: Any) -> Any:
        return to_array(polyop.linalg.inv(from_array(a).T))

    a = torch.tensor(MATRIX, requires_grad=True)
    assert torch.autograd.gradcheck(fn, (a,), check_forward_ad=True)
    both = torch.stack([a.detach(), a.detach() * 2], -1)
    oracle = torch.vmap(lambda x: torch.linalg.inv(x.T), in_dims=-1)
    torch.testing.assert_close(torch.vmap(fn, in_dims=-1)(both), oracle(both))


def test_the_layout_of_cupy() -> None:
    """S147: the rule for CuPy, on NumPy's arrays, whose methods are the same."""
    x = np.arange(24.0).reshape(2, 3, 4)
    for wanted in (None, (1, 8, 2), (12, 1, 3), (12, 4, 1)):
        found = Cupy().laid_out(x.T.copy().T, wanted)
        assert np.array_equal(found, x)
        steps = (12, 4, 1) if wanted is None else wanted
        assert tuple(s // 8 for s in found.strides) == steps
    assert Cupy().laid_out(x, None) is x and Cupy().in_order(x)
    assert Cupy().laid_out(np.array(1.0), None).shape == ()
