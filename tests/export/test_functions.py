"""Operators of exported programs: inner tensors, and autograd functions by name (S194, S195)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import polyop
from polyop import Tensor, errors
from polyop.export import call_custom_autograd_function, export, load, save
from polyop.extend import make_wrapper_subclass

HERE = Path(__file__).parents[2]


class Seven(polyop.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, power: int = 1) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * 7, None


class Applies:
    """No Function, though it has an `apply`."""

    @staticmethod
    def apply(*args: Any) -> Any:
        raise AssertionError("a file reached a class that is no Function")


NAME = f"{__name__}.Seven"
sys.modules.setdefault(__name__, sys.modules[Seven.__module__])


class Couple(Tensor):
    def __new__(cls, a: Tensor, b: Tensor) -> Any:
        t = make_wrapper_subclass(cls, a.shape, dtype=a.dtype, device=a.device)
        t.a, t.b, t.name = a, b, "couple"
        return t

    def __tensor_flatten__(self) -> Any:
        return ["a", "b"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, context: Any, shape: Any, strides: Any) -> Any:
        return cls(inner["a"], inner["b"])

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise AssertionError(f"the class was asked about {op}")


def inner() -> Any:
    return polyop.ops.export.access_subclass_inner_tensor


@pytest.mark.parametrize("mode", ["no_grad", "enable_grad", "inference_mode"])
def test_the_inner_tensor_is_itself(mode: str) -> None:
    """S194: the tensor inside is given, with its gradient, in every grad mode."""
    leaf = polyop.ones(3, requires_grad=True)
    couple = Couple(leaf * 2, polyop.zeros(3))
    with getattr(polyop, mode)():
        found = inner()(couple, "a")
    assert found is couple.a and found.requires_grad
    assert inner()(couple, "b") is couple.b
    found.sum().backward()
    assert leaf.grad.tolist() == [2.0] * 3


def test_what_has_no_inner_tensor_is_named() -> None:
    """S194: no wrapper is a UsageTypeError, no such tensor an ObjectError."""
    couple = Couple(polyop.ones(3), polyop.ones(3))
    for plain in (polyop.ones(3), polyop.ones(3, requires_grad=True)):
        with pytest.raises(errors.UsageTypeError, match="traceable wrapper"):
            inner()(plain, "a")
    for attr in ("c", "name", "shape"):
        with pytest.raises(errors.ObjectError, match="has no tensor"):
            inner()(couple, attr)
    schema = str(inner().default._schema)
    assert schema == (
        "export::access_subclass_inner_tensor(Tensor src_subclass_tensor, str attr) -> Tensor"
    )


def test_a_function_is_called_by_its_name() -> None:
    """S195: `apply` of the class is called; its backward is the gradient."""
    x = polyop.ones(3, requires_grad=True)
    out = call_custom_autograd_function(NAME, x, 2)
    assert out.tolist() == [2.0] * 3
    out.sum().backward()
    assert x.grad.tolist() == [7.0] * 3


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("Seven", errors.UsageError), (".Seven", errors.UsageError),
        (f"{__name__}.Couple", errors.UsageError), (f"{__name__}.Sevn", errors.ObjectError),
        ("no_such_module_at_all.Seven", errors.ObjectError),
    ],
)  # fmt: skip
def test_names_that_lead_nowhere_are_named(name: str, error: type[Exception]) -> None:
    """S195: no dot and no apply are UsageErrors; not found is an ObjectError."""
    with pytest.raises(error):
        call_custom_autograd_function(name, polyop.ones(3))


def test_a_program_keeps_the_backward_of_the_class(tmp_path: Path) -> None:
    """S195: an exported call is one node, and gradients are the class's, from a file too."""
    f = lambda x: call_custom_autograd_function(NAME, x.exp()) + 1  # noqa: E731
    x = polyop.zeros(3, requires_grad=True)
    program = export(f, (x,))
    assert str(program.graph).count("call_custom_autograd_function(") == 1
    save(program, tmp_path / "p")
    for module in (program.module(), load(tmp_path / "p").module()):
        (found,) = polyop.autograd.grad([module(x).sum()], [x])
        assert found.tolist() == [7.0] * 3


def test_a_loaded_program_imports_nothing(tmp_path: Path) -> None:
    """S195: the class must be imported before, and be a Function; else an ObjectError says so."""
    (tmp_path / "late_module.py").write_text(
        "import polyop\nclass F(polyop.autograd.Function):\n"
        "    @staticmethod\n    def forward(ctx, x): return x + 1\n"
        "    @staticmethod\n    def backward(ctx, g): return g\n"
    )
    code = (
        "import sys, polyop; sys.path.insert(0, {folder!r}); p = {folder!r} + '/p'\n"
        "e = polyop.export\n"
        "if {write}:\n"
        "    f = lambda x: e.call_custom_autograd_function('late_module.F', x)\n"
        "    e.save(e.export(f, (polyop.ones(2),)), p)\n"
        "else:\n"
        "    m = e.load(p).module()\n"
        "    try: m(polyop.ones(2))\n"
        "    except polyop.errors.ObjectError as error: print('refused', error.fix)\n"
        "    assert 'late_module' not in sys.modules\n"
        "    import late_module; print(m(polyop.ones(2)).tolist())\n"
    )
    for write in (True, False):
        text = code.format(folder=str(tmp_path), write=write)
        ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split("\n")[:2] == ["refused import late_module first", "[2.0, 2.0]"]


def test_a_file_reaches_no_other_class(tmp_path: Path) -> None:
    """S195: a loaded program calls Functions only, whatever its file names."""
    f = lambda x: call_custom_autograd_function(NAME, x)  # noqa: E731
    program = export(f, (polyop.ones(3),))
    node = next(n for n in program.graph.nodes if n.op == "call_function")
    node.set_args((f"{__name__}.Applies", node.args[1]))
    save(program, tmp_path / "p")
    with pytest.raises(errors.ObjectError, match="no custom autograd function"):
        load(tmp_path / "p").module()(polyop.ones(3))
