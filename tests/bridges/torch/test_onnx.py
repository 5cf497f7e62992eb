"""Models that PyTorch exports run authors' operators in ONNX Runtime, equal to PyTorch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from onnxscript._framework_apis import torch_2_11
from tests.bridges.marks import COMPILES
from tests.bridges.torch.operators import crop, mix, nonzero, sin, sine, solve_tridiagonal
from tests.forked import run_forked

import polyop
from polyop import Tensor
from polyop.bridge import (
    add_onnx_operators,
    onnx_session,
    onnx_translations,
    without_writes,
)
from polyop.errors import (
    ArgumentError,
    DelegateError,
    ProgramFileError,
    UsageTypeError,
)
from polyop.export.onnx import c_api, calls

pytestmark = [
    *COMPILES,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here"),
]
onnx_export: Any = torch.onnx.export
Dim: Any = torch.export.Dim


@pytest.fixture(scope="module", autouse=True)
def _read_once() -> Iterator[None]:
    """Read the hundreds of functions that the exporter knows once, and not for each model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_2_11, "get_torchlib_ops", cache(torch_2_11.get_torchlib_ops))
        yield


class Model(torch.nn.Module):
    def __init__(self, f: Any) -> None:
        super().__init__()
        self.f = f

    def forward(self, *args: Any) -> Any:
        return self.f(*args)


def exported(f: Any, args: Any, shapes: Any = None, *ops: Any) -> Any:
    """Give the exporter's program of a function, its writes replaced."""
    dynamic = None if shapes is None else (shapes,)
    program = torch.export.export(Model(f).eval(), args, dynamic_shapes=dynamic)
    program = without_writes(program)
    return onnx_export(
        program, dynamo=True, custom_translation_table=onnx_translations(*ops), verbose=False
    )


def model_of(f: Any, args: Any, shapes: Any = None, *ops: Any) -> bytes:
    found: bytes = exported(f, args, shapes, *ops).model_proto.SerializeToString()
    return found


def run(session: Any, *args: Any) -> list[Any]:
    names = [given.name for given in session.get_inputs()]
    arrays = [a.numpy() if isinstance(a, torch.Tensor) else a for a in args]
    found: list[Any] = session.run(None, dict(zip(names, arrays, strict=True)))
    return found


def agree(f: Any, args: Any, shapes: Any = None, others: Any = ()) -> bytes:
    """Hold ONNX Runtime's results against PyTorch's, on these and on other arguments."""
    model = model_of(f, args, shapes)
    session = onnx_session(model)
    for given in (args, *others):
        wanted = f(*[a.clone() for a in given])
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for got, want in zip(run(session, *given), wanted, strict=True):
            assert got.dtype == want.detach().numpy().dtype
            np.testing.assert_allclose(got, want.detach().numpy(), rtol=1e-6)
    return model


# -- the same results -----------------------------------------------------------------------------


def test_static_and_dynamic_sizes() -> None:
    """S216: sizes, and what is computed of them, are inputs of the node where they change."""
    x = torch.rand(3, 8, 9)
    agree(lambda x: crop(x, [1, 2, 5, 6]) + 1, (x,))
    sizes = {1: Dim("n", min=7, max=30), 2: Dim("m", min=4, max=30)}
    agree(
        lambda x: crop(x, [1, 2, x.shape[2], x.shape[1] - 1]) + 1,
        (x,),
        (sizes,),
        [(torch.rand(3, 12, 7),)],
    )


def test_sizes_that_depend_on_data() -> None:
    """S144, S216: a result's size is known to nobody before the operator has run."""
    given = torch.tensor([0.0, 1.0, 0.0, 2.0])
    others = [(torch.zeros(4),), (torch.ones(4),)]
    agree(lambda x: (nonzero(x) * 2, nonzero(nonzero(x))), (given,), None, others)


def test_several_dtypes_in_one_model() -> None:
    """S216: one description of an operator serves nodes of several dtypes."""

    def f(x: Any) -> Any:
        return crop(x, [0, 0, 2, 2]), crop(x.float(), [0, 0, 2, 3]), nonzero(x > 0.5), nonzero(x)

    agree(f, (torch.rand(1, 4, 4, dtype=torch.float64),))


def test_a_system_of_equations() -> None:
    """S216: operators stand between PyTorch's own."""
    bands = torch.rand(3, 5, dtype=torch.float64) + 3
    agree(
        lambda b, r: torch.relu(solve_tridiagonal(b, r) @ torch.ones(5, dtype=torch.float64)),
        (bands, torch.rand(5, dtype=torch.float64)),
    )


def test_writes_become_functions() -> None:
    """S174: functional twins stand for calls that write, views and overlaps too."""

    def f(x: Any) -> Any:
        y = torch.empty_like(x)
        sine(x[0], y[0])
        sine(x[0], y[1])
        sine(y[:2].clone(), y[1:])
        sine(y, y)
        return y, y.sum()

    x = torch.rand(3, 8, dtype=torch.float64)
    program = torch.export.export(Model(f).eval(), (x,))
    before = str(program.graph)
    made = without_writes(program)
    assert "examples.sine.default" not in str(made.graph)
    assert "examples.sine.functional" in str(made.graph)
    assert str(program.graph) == before
    torch.testing.assert_close(made.module()(x), f(x))
    agree(f, (x,))


class Pair(NamedTuple):
    """What PyTorch has no word for."""

    a: Tensor
    b: int


@polyop.custom_op("onnx_tests::odd", mutates_args={"pair"})
def odd(pair: Pair) -> None:
    """Write what no program of PyTorch has."""
    pair.a.numpy()[...] = pair.b


def test_operators_that_pytorch_does_not_take_are_in_no_program() -> None:
    """S174: a program is rewritten, whatever else was defined."""
    x = polyop.zeros(2)
    odd(Pair(x, 3))
    assert x.tolist() == [3, 3]
    program = torch.export.export(Model(torch.sin).eval(), (torch.ones(2),))
    assert without_writes(program).module()(torch.zeros(2)).tolist() == [0, 0]


@polyop.custom_op("onnx_tests::rotate", mutates_args={"a", "c"})
def rotate(a: Tensor, b: Tensor, c: Tensor, by: float) -> tuple[Tensor, Tensor]:
    """Write `a` and `c`, and give two results besides."""
    a.numpy()[...] += by * b.numpy()
    c.numpy()[...] *= 2
    return polyop.from_numpy(b.numpy() - by), polyop.from_numpy(np.asarray(b.numpy().sum()))


@rotate.register_fake
def rotate_fake(a: Any, b: Any, c: Any, by: float) -> Any:
    return polyop.empty_like(b), b.new_empty([])


def test_writes_beside_results() -> None:
    """S174: results, and each value that is written, come out in order."""

    def f(x: Any, y: Any) -> Any:
        a, c = x.clone(), torch.ones(2)
        first, total = rotate(a, y, c, 0.1)
        return a, c, first, total

    agree(f, (torch.rand(3), torch.rand(3)))


def test_no_program_is_refused() -> None:
    """S3: what is no exported program is named."""
    given: Any = torch.nn.ReLU()
    with pytest.raises(UsageTypeError, match="program of PyTorch"):
        without_writes(given)


@polyop.custom_op("onnx_tests::many", mutates_args=())
def many(
    xs: Sequence[Tensor],
    w: Tensor | None,
    shifts: Sequence[float],
    k: complex = 1 + 2j,
    *,
    kind: polyop.dtype | None = None,
    word: str = "a'b\"",
    flag: bool = True,
    n: int = 3,
) -> tuple[Tensor, Tensor]:
    """Use every kind of argument there is."""
    assert (word, k) in {("a'b\"", 1 + 2j), ("ü", 2j)} and len(shifts) == 2
    total = sum(x.numpy() for x in xs) * (1 if w is None else w.numpy()) + shifts[0] * shifts[1]
    kind = kind or xs[0].dtype
    return (
        polyop.from_numpy(np.asarray(total).astype(kind) * n),
        polyop.from_numpy(np.asarray(flag)),
    )


@many.register_fake
def many_fake(
    xs: Any, w: Any, shifts: Any, k: Any = 0, *, kind: Any = None, word: Any = "", flag: Any = 1,
    n: int = 3,
) -> Any:  # fmt: skip
    return xs[0].new_empty(xs[0].shape, dtype=kind or xs[0].dtype), xs[0].new_empty([], dtype=bool)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int16, torch.uint8])
def test_every_kind_of_argument(dtype: Any) -> None:
    """S216: lists, absent tensors, floats of 64 bits, dtypes and words arrive as they were."""
    x = torch.arange(6).reshape(2, 3).to(dtype)
    y = torch.arange(6).reshape(2, 3).to(dtype) * 2
    many_: Any = many

    def f(x: Any, y: Any) -> Any:
        one = many_([x, y], None, [0.1, 1e300 if dtype is torch.float64 else 10.0])
        two = many_([x], y, [3.0, 0.5], 2j, kind=polyop.float32, word="ü", flag=False, n=x.shape[0])
        return *one, *two

    agree(f, (x, y))
    if dtype is torch.float32:
        agree(f, (x, y), ({0: Dim("n", min=2, max=9)}, {0: Dim("n", min=2, max=9)}))


def test_no_elements_and_no_axes() -> None:
    """S216: tensors without elements, which may have no memory, and without axes."""
    agree(lambda x, y: (nonzero(x[:0]), sin(y), sin(x[0, 0])), (torch.rand(4, 4), torch.rand(0, 2)))


# -- other processes ------------------------------------------------------------------------------

MODULE = """
import numpy as np
import polyop

@polyop.custom_op("onnx_away::scale", mutates_args=())
def scale(x: polyop.Tensor, by: float{more}) -> polyop.Tensor:
    return polyop.from_numpy(x.numpy() * by)

@scale.register_fake
def scale_fake(x, by{plain}):
    return polyop.empty_like(x)

@polyop.custom_op("onnx_away::fill", mutates_args=("x",))
def fill(x: polyop.Tensor, by: float) -> None:
    x.numpy()[...] = by
"""
MAKE = """
import torch
from away_ops import scale, fill
from polyop.bridge import onnx_translations, without_writes

class Model(torch.nn.Module):
    def forward(self, x):
        y = scale(x, 0.1)
        fill(y[0], 0.7)
        return y

program = without_writes(torch.export.export(Model(), (torch.ones(2, 3, dtype=torch.float64),)))
torch.onnx.export(
    program, dynamo=True, custom_translation_table=onnx_translations(), verbose=False
).save("model.onnx")
"""
LOAD = """
import sys
import numpy as np
{imported}
from polyop.bridge import onnx_session
session = onnx_session("model.onnx")
print(session.run(None, {{session.get_inputs()[0].name: np.ones((2, 3))}})[0].tolist())
assert "torch" not in sys.modules
"""


def process(folder: Path, program: str) -> Any:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )


def test_another_process_needs_the_module_and_no_pytorch(tmp_path: Path) -> None:
    """S216: a model names operators and their modules; a missing or changed one is said."""
    module = tmp_path / "away_ops.py"
    module.write_text(MODULE.format(more="", plain=""))
    made = run_forked(MAKE, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    loaded = process(tmp_path, LOAD.format(imported="import away_ops"))
    assert loaded.stdout.strip() == "[[0.7, 0.7, 0.7], [0.1, 0.1, 0.1]]", loaded.stderr
    missing = process(tmp_path, LOAD.format(imported=""))
    assert "needs the operator onnx_away::" in missing.stderr
    assert "import away_ops first" in missing.stderr
    module.write_text(MODULE.format(more=", n: int = 0", plain=", n=0"))
    changed = process(tmp_path, LOAD.format(imported="import away_ops"))
    assert "onnx_away::scale has another schema" in changed.stderr


def test_missing_operators_are_named_here_too() -> None:
    """S216: an operator that is gone since is named before ONNX Runtime sees the model."""
    lib = polyop.library.Library("onnx_gone", "DEF")
    lib.define("same(Tensor x) -> Tensor")
    lib.impl("same", lambda x: x * 1, "CompositeExplicitAutograd")
    polyop.library.register_fake("onnx_gone::same", lambda x: polyop.empty_like(x), lib=lib)
    same = polyop.ops.onnx_gone.same
    model = model_of(lambda x: same(x), (torch.ones(2),), None, same)
    assert run(onnx_session(model), torch.ones(2))[0].tolist() == [1, 1]
    lib._destroy()
    with pytest.raises(ProgramFileError, match="needs the operator onnx_gone::same"):
        onnx_session(model)


# -- sessions -------------------------------------------------------------------------------------


def test_options_of_a_users_own(tmp_path: Path) -> None:
    """S216: a session that a user starts finds the operators that its options have."""
    program = exported(lambda x: nonzero(x), (torch.ones(2),))
    program.save(str(tmp_path / "model.onnx"))
    for ops in ((nonzero,), ()):
        options = onnxruntime.SessionOptions()
        add_onnx_operators(options, *ops)
        session = onnxruntime.InferenceSession(
            tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        assert run(session, np.array([0, 3], np.float32))[0].tolist() == [[1]]


def test_threads_share_a_session() -> None:
    """S98, S216: several threads call one session, and sessions start and end meanwhile."""
    model = model_of(lambda x: crop(x, [0, 0, 2, 2]) * 2, (torch.rand(1, 4, 4),))
    session = onnx_session(model)
    arrays = [np.full((1, 4, 4), i, np.float32) for i in range(8)]

    def work(array: Any) -> bool:
        mine = onnx_session(model)
        runs = [run(one, array)[0] for one in (session, mine) for _ in range(20)]
        return all((r == array[:, :2, :2] * 2).all() and r.shape == (1, 2, 2) for r in runs)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, arrays))


@polyop.custom_op("onnx_tests::naughty", mutates_args=())
def naughty(x: Tensor, how: str) -> Tensor:
    """Do what a kernel must not."""
    given = x.numpy()
    if how == "raise":
        raise ValueError("the author's words")
    if how == "keep":
        KEPT.append(given[1:])
    if how == "write":
        given[0] = 7
    return polyop.from_numpy(given.astype(np.float64) if how == "dtype" else given * 2)


KEPT: list[Any] = []


@naughty.register_fake
def naughty_fake(x: Any, how: str) -> Any:
    return polyop.empty_like(x)


@cache
def behaving() -> bytes:
    return model_of(lambda x: naughty(x, "well"), (torch.ones(3),))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raise", "(?s)onnx_tests::naughty.*the author's words"),
        ("keep", "onnx_tests::naughty keeps an input"),
        ("write", "(?s)onnx_tests::naughty.*read-only"),
        ("dtype", "(?s)ReturnError.*naughty|another dtype"),
    ],
)
def test_what_a_kernel_must_not_do(how: str, said: str) -> None:
    """S168, S216: an error of a kernel is ONNX Runtime's, with the author's words; no memory of
    it is kept or written.
    """
    session = onnx_session(model_of(lambda x: naughty(x, how), (torch.ones(3),)))
    array = np.ones(3, np.float32)
    with pytest.raises(Exception, match=said):
        run(session, array)
    KEPT.clear()
    assert array.tolist() == [1, 1, 1]
    assert run(onnx_session(behaving()), array)[0].tolist() == [2, 2, 2]


# -- what is no node ------------------------------------------------------------------------------


@polyop.custom_op("onnx_tests::tell", mutates_args=())
def tell(x: Tensor) -> None:
    """Give nothing."""


@polyop.custom_op("onnx_tests::count", mutates_args=())
def count(x: Tensor) -> Tensor:
    """Act on the world."""
    return x * 1


polyop.library.register_effect(count, polyop.library.EffectType.ORDERED)


@pytest.mark.parametrize(("op", "said"), [(mix, "Tensors"), (tell, "no result"), (count, "effect")])
def test_what_is_no_node(op: Any, said: str) -> None:
    """S189, S216: lists, nothing, and effects have no place in a model, and are left out of all."""
    with pytest.raises(ArgumentError, match="is no node of an ONNX model") as error:
        onnx_translations(op)
    assert said in str(error.value)
    names = [str(target) for target in onnx_translations()]
    assert "examples.nonzero.default" in names and "examples.sine.functional" in names
    assert f"onnx_tests.{op._qualname.partition('::')[2]}.default" not in names


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """S1: without a C compiler, what is missing is said."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DelegateError, match="one line of C"):
        c_api.shim.__wrapped__()


def test_arguments_as_text() -> None:
    """S216: what is written into a node is read again as it was."""
    values = [
        None, True, 3, 0.1, 1e300, float("inf"), 1 - 2j, "a\"'ü", [1, [2.5, None]],
        calls.Input(4), [calls.Input(0), 7], polyop.device("cpu"), polyop.float32, polyop.bfloat16,
    ]  # fmt: skip
    assert calls.from_text(calls.to_text(values)) == values
