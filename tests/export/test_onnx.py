"""ONNX Runtime computes what polyop computes, and takes nothing else (SPEC S216)."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import polyop
from polyop import Tensor, errors
from polyop.export import Dim, call_delegate, export, partition, register_onnx, to_backend
from polyop.export.onnx.backend import OnnxBackend
from polyop.export.onnx.registry import TRANSLATIONS, Untranslatable

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 2.5, np.nan, np.inf, -np.inf, 1e-3, 7.0]


def special(*shape: int, dtype: str = "float32", seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    values = SPECIAL if dtype.startswith("float") else [0, 1, -1, 5, 7, -8, 100]
    return polyop.from_numpy(rng.choice(values, shape).astype(dtype))


def smooth(*shape: int, dtype: str = "float32", seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return polyop.from_numpy(rng.uniform(0.1, 0.9, shape).astype(dtype))


def whole(f, *args, dynamic=False):
    """Lower a function, and require that ONNX Runtime takes all of it."""
    shapes = [dict.fromkeys(range(a.ndim), Dim.DYNAMIC) for a in args] if dynamic else None
    program = export(f, args, dynamic_shapes=shapes)
    lowered = to_backend(program, "onnx")
    calls = [n for n in lowered.graph.nodes if n.op == "call_function"]
    left = [n.target for n in calls if n.target is not call_delegate and "getitem" not in n.name]
    assert not left, f"left outside: {left}"
    return lowered


def equal(a: Tensor, b: Tensor) -> bool:
    x, y = a.numpy(), b.numpy()
    return (
        x.dtype == y.dtype
        and x.shape == y.shape
        and bool(
            np.allclose(x, y, rtol=1e-5, atol=1e-6, equal_nan=True)
            if x.dtype.kind == "f"
            else np.array_equal(x, y)
        )
    )


POINTWISE = {
    **{name: getattr(polyop, name) for name in (
        *("abs", "ceil", "cos", "exp", "floor", "negative", "sign", "sin", "square", "tanh"),
        *("relu", "sigmoid", "round", "trunc", "isnan", "isinf", "isfinite", "positive", "atan"),
    )},
    "scalars": lambda x: (2 - x * 3) / 4 + 1,
    "power": lambda x: x**2,
    "compare": lambda x: (x > 0.5) | (x <= -1) | (x == 0) | ~(x != 1),
    "where": lambda x: polyop.where(x > 0, x, -1.0),
    "where_scalars": lambda x: polyop.where(x < 0, 1.0, 2.0),
    "clip": lambda x: x.clip(-1, 1),
    "clip_one": lambda x: x.clip(None, 0.5),
    "masked_fill": lambda x: x.masked_fill(x > 1, -3.0),
    "maximum": lambda x: polyop.maximum(x, x.flip(0)),
    "minimum": lambda x: polyop.minimum(x, x.flip(0)),
    "maximum_number": lambda x: polyop.maximum(x, 0.25),
    "remainder": lambda x: polyop.remainder(x, 3.0),
    "remainder_negative": lambda x: polyop.remainder(x, -3.0),
    "fmod": lambda x: polyop.fmod(x, 3.0),
    "xor": lambda x: polyop.logical_xor(x > 0, x < 1),
    "cast_up": lambda x: x.astype(polyop.float64) * 3,
    "truth": lambda x: (x > 0) + (x < 1),
    "bits": lambda x: ((x > 0).astype(polyop.int32) * 5 & 3) ^ 6,
    "clone": lambda x: x.clone().add_(1),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid value")  # NumPy's own, of the eager call
@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_operators_agree_on_all_kinds_of_numbers(name: str) -> None:
    """S216: ONNX Runtime gives what the kernel gives, for NaN, infinities and -0 too."""
    f, x = POINTWISE[name], special(6, 7)
    assert equal(whole(f, x).module()(x), f(x))


SMOOTH = ("log sqrt rsqrt reciprocal exp2 log2 log10 acos asin atanh asinh cosh sinh tan "
          "softplus").split()  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_operators_agree(name: str) -> None:
    """S216: ONNX Runtime gives what the kernel gives, where it is defined."""
    f, x = getattr(polyop, name), smooth(6, 7)
    assert equal(whole(f, x).module()(x), f(x))


REST = {
    "sum": lambda x: x.sum(),
    "sum_axis": lambda x: x.sum(axis=-1),
    "sum_keep": lambda x: x.sum(axis=(0, 2), keepdims=True),
    "mean": lambda x: x.mean(axis=1),
    "prod": lambda x: polyop.prod(x, axis=0),
    "max": lambda x: x.max(axis=(1, 2)),
    "min": lambda x: polyop.min(x),
    "any": lambda x: (x > 0.5).any(axis=1),
    "all": lambda x: (x > 0.1).all(),
    "count": lambda x: polyop.count_nonzero(x > 0.4, axis=0),
    "var": lambda x: polyop.var(x, axis=0),
    "std": lambda x: polyop.std(x, axis=(0, 1), keepdims=True),
    "softmax": lambda x: polyop.softmax(x, 1),
    "log_softmax": lambda x: polyop.log_softmax(x, -1),
    "cumsum": lambda x: polyop.cumulative_sum(x, axis=1),
    "matmul": lambda x: x @ x.transpose(1, 2),
    "matvec": lambda x: x[0] @ x[0, 1],
    "dot": lambda x: x[0, 0] @ x[1, 1],
    "vecdot": lambda x: polyop.vecdot(x, x * 2),
    "reshape": lambda x: x.reshape(-1, x.shape[2]) * 2,
    "flatten": lambda x: x.flatten() + 1,
    "permute": lambda x: polyop.permute_dims(x, (2, 0, 1)) + 1,
    "transpose": lambda x: polyop.matrix_transpose(x) + 1,
    "moveaxis": lambda x: polyop.moveaxis(x, 0, 2) + 1,
    "unsqueeze": lambda x: x[:, None, ..., None].squeeze(1) + 1,
    "expand": lambda x: polyop.broadcast_to(x[:, :1], x.shape) + 1,
    "flip": lambda x: polyop.flip(x, axis=(0, 2)) + 1,
    "slices": lambda x: x[1:, ::2, :2] * x[:-1, ::2, :2] + x[1:, 1:2, -1:],
    "select": lambda x: x[-1] + x[0, 0],
    "concat": lambda x: polyop.concat([x, x * 2], axis=1),
    "concat_flat": lambda x: polyop.concat([x, x * 2], axis=None),
    "stack": lambda x: polyop.stack([x, x * 2], axis=-1),
    "pad": lambda x: polyop.pad(x, ((0, 0), (1, 2), (0, 3)), constant_values=4.0),
    "tril": lambda x: polyop.tril(x, k=1) + polyop.triu(x, k=-1),
    "take": lambda x: polyop.take(x, polyop.tensor([1, -1, 0]), axis=1) * 2,
    "put_row": lambda x: put_row(x * 1),
    "full": lambda x: polyop.full((2, x.shape[0]), 3.0) + x.sum(),
    "like": lambda x: polyop.zeros_like(x) + polyop.ones_like(x) + polyop.full_like(x, 2.0) * x,
    "sizes": lambda x: x.sum() / (x.shape[0] * x.shape[1] - 1),
}  # fmt: skip


def put_row(x: Tensor) -> Tensor:
    x[0] = 5.0
    x[:, 1:] *= 2
    x[:, -1] = x[:, 0]
    return x


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", REST)
def test_other_operators_agree_for_all_sizes(name: str, dynamic: bool) -> None:
    """S216: ONNX Runtime gives what the kernel gives; sizes that change are symbolic there."""
    f, x = REST[name], smooth(3, 4, 5)
    module = whole(f, x, dynamic=dynamic).module()
    assert equal(module(x), f(x))
    if dynamic:
        other = smooth(6, 7, 4, seed=1)
        assert equal(module(other), f(other))


@pytest.mark.parametrize("dtype", ["float64", "int32", "int64", "bool", "float16"])
def test_dtypes_are_those_of_numpy(dtype: str) -> None:
    """S216: promotion is NumPy's in a lowered program too."""

    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x + y, x * 2, x / 2, x > y, x.sum(), x.mean(), x > 0, polyop.where(x > 0, x, y)

    x, y = special(4, 5, dtype="int8").astype(getattr(polyop, dtype)), smooth(4, 5)
    lowered = to_backend(export(f, (x, y)), "onnx")
    assert all(equal(a, b) for a, b in zip(lowered.module()(x, y), f(x, y), strict=True))


def test_reductions_over_nothing_stay_outside() -> None:
    """S216: what polyop refuses for no elements is not taken where there may be none."""
    x = smooth(3, 4)
    shapes = ({0: Dim("n", min=0)},)
    program = export(lambda x: polyop.max(x + 1, axis=0), (x,), dynamic_shapes=shapes)
    lowered = to_backend(program, "onnx")
    assert any("max" in str(n.target) for n in lowered.graph.nodes)
    with pytest.raises(errors.PolyopError):
        lowered.module()(polyop.zeros((0, 4)))


def test_the_greatest_of_numbers_and_nan_is_nan() -> None:
    """S216: a reduction meets NaN as NumPy does."""
    x = special(5, 30)
    f = lambda x: (polyop.max(x, axis=1), polyop.min(x, axis=0))  # noqa: E731
    assert all(equal(a, b) for a, b in zip(whole(f, x).module()(x), f(x), strict=True))


@polyop.custom_op("test_onnx::halve", mutates_args=())
def halve(x: Tensor, times: int = 1) -> Tensor:
    return x / 2**times


@halve.register_fake
def _(x, times=1):
    return polyop.empty_like(x)


def test_an_author_adds_a_translation() -> None:
    """S216: a custom operator is in the same model once its author says what it is in ONNX."""
    x = smooth(3, 4)
    f = lambda x: halve(x * 3, 2) + 1  # noqa: E731
    program = export(f, (x,))
    assert len(partition(program, OnnxBackend())) == 2

    def halve_onnx(model, x, times):
        if times > 5:
            raise Untranslatable("too often")
        return model.op("Div", x, model.constant(2.0**times, model.dtype(x)))

    register_onnx(halve, halve_onnx)
    try:
        assert len(partition(program, OnnxBackend())) == 1
        assert equal(whole(f, x).module()(x), f(x))
        often = export(lambda x: halve(x * 3, 6) + 1, (x,))
        assert len(partition(often, OnnxBackend())) == 2
        with pytest.raises(errors.DuplicateRegistrationError):
            register_onnx(halve, lambda model, x, times: x)
    finally:
        TRANSLATIONS.pop(halve._opoverload)


def test_options_reach_the_backend_and_unknown_ones_are_refused() -> None:
    """S216: `compile_specs` are options of the backend, kept with the part."""
    program = export(lambda x: x * 2, (smooth(3),))
    lowered = to_backend(program, "onnx", {"threads": 1})
    assert lowered.state["lowered_module_0"].compile_specs[0] == ("threads", 1)
    with pytest.raises(errors.DelegateError, match="no option 'fast'"):
        to_backend(program, "onnx", {"fast": True})


def test_a_damaged_payload_is_named() -> None:
    """S191: a payload that the backend refuses is a DelegateError."""
    lowered = to_backend(export(lambda x: x * 2, (smooth(3),)), "onnx")
    lowered.state["lowered_module_0"].payload = b"nothing of the kind"
    with pytest.raises(errors.DelegateError, match="ONNX Runtime refuses"):
        lowered.module()(smooth(3))


def test_a_missing_package_is_named() -> None:
    """S216: without ONNX Runtime, the backend says what to install; importing polyop needs none."""
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "import polyop; e = polyop.export; p = e.export(lambda x: x + 1, (polyop.ones(3),))\n"
        "try: e.to_backend(p, 'onnx')\n"
        "except polyop.errors.DelegateError as error: print(error.fix)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "pip install polyop[onnx]"
