"""Programs of traceable wrappers: they take them, and work on the tensors inside."""

from pathlib import Path
from typing import Any

import pytest

import polyop
from polyop import Tensor, errors, tree
from polyop.export import Dim, export, save
from polyop.extend import make_subclass, make_wrapper_subclass

inner = polyop.ops.export.access_subclass_inner_tensor


class Couple(Tensor):
    """Two tensors on which each call is made apart."""

    def __new__(cls, a: Tensor, b: Tensor, note: Any = None) -> Any:
        t = make_wrapper_subclass(cls, a.shape, dtype=a.dtype, device=a.device)
        t.a, t.b, t.note = a, b, note
        return t

    def __tensor_flatten__(self) -> Any:
        return ["a", "b"], self.note

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, context: Any, shape: Any, strides: Any) -> Any:
        return cls(inner["a"], inner["b"], context)

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        sides = [
            op(*[getattr(x, side) if isinstance(x, cls) else x for x in args], **(kwargs or {}))
            for side in ("a", "b")
        ]
        if op._schema.is_mutable:
            return args[0]
        note = next(x.note for x in args if isinstance(x, cls))
        return cls(*sides, note) if isinstance(sides[0], Tensor) else sides[0]


class Opaque(Tensor):
    """A class that answers calls, and cannot be taken apart."""

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return polyop.zeros(2)


def couple(first: float = 1.0, note: Any = None) -> Any:
    return Couple(polyop.ones(3) * first, polyop.ones(3) * (first + 10), note)


def plain(value: Any) -> Any:
    """Give nested lists of what a tree holds, wrappers by class and note."""
    if isinstance(value, Couple):
        return type(value), value.note, plain(value.a), plain(value.b)
    if isinstance(value, Tensor):
        return value.tolist()
    return [plain(leaf) for leaf in tree.leaves(value)]


def nested(x: Any) -> Any:
    return [x + 1, {"twice": (x * x, x)}]


def mixed(x: Any, y: Any = 2) -> Any:
    return x * y + inner(x, "b")


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.sin() * 2, nested, mixed, lambda x: inner(x, "a") - inner(x, "b"),
        lambda x: x, lambda x: (x, x.a, x.exp()), lambda x: Couple(x.b, x.a, "turned"),
    ],
)  # fmt: skip
def test_a_program_of_wrappers_is_its_function(f: Any) -> None:
    """S165, S213: a program takes wrappers, works on what is inside, and gives wrappers."""
    module = export(f, (couple(note="n"),)).module()
    for x in (couple(note="n"), couple(5.0, "n")):
        assert plain(module(x)) == plain(f(x))


def test_the_graph_is_of_the_tensors_inside() -> None:
    """S194, S213: the inputs are named by the attributes; the class is asked when exporting."""
    program = export(lambda x: inner(x, "b").sin() + x.a, (couple(),))
    assert [spec.path for spec in program.signature.inputs] == ["x.a", "x.b"]
    assert "access_subclass" not in str(program.graph)
    x = couple()
    x.__class__ = type("Silent", (Couple,), {"__dispatch__": classmethod(lambda *a, **k: 1 / 0)})
    with pytest.raises(errors.CaptureError, match="structure"):
        program.module()(x)


def test_a_wrapper_out_of_a_constant_is_made_of_arguments() -> None:
    """S213: a wrapper that only a closure brings in is refused as a result, and works inside."""
    weight = couple(3.0)
    with pytest.raises(errors.CaptureError, match="none is an argument"):
        export(lambda x: x + weight, (polyop.ones(3),))
    f = lambda x: inner(x + weight, "b") * 2  # noqa: E731
    assert export(f, (polyop.ones(3),)).module()(polyop.ones(3)).tolist() == [28.0] * 3


def test_parameters_beside_wrappers_are_refused() -> None:
    """S213: a closed-over tensor that requires grad would get another gradient."""
    weight = polyop.ones(3, requires_grad=True)
    for f in (lambda x: x * weight, lambda x: inner(x * weight, "a")):
        with pytest.raises(errors.CaptureError, match="no gradients"):
            export(f, (couple(),))
    with pytest.raises(errors.CaptureError, match="no gradients"):
        export(lambda x, y: x * y, (couple(), weight))


def test_wrappers_of_wrappers_and_closures() -> None:
    """S165, S213: wrappers go inside wrappers, and those closed over become constants inside."""
    weight = couple(3.0)
    deep = Couple(couple(), couple(7.0))
    f = lambda pair, k: [pair[0] * k, pair[1] + weight]  # noqa: E731
    program = export(f, ((deep, couple()), 2))
    assert len(program.signature.constants) == 2
    assert plain(program.module()((deep, couple(2.0)), 2)) == plain(f((deep, couple(2.0)), 2))


def test_a_given_wrapper_comes_back_itself() -> None:
    """S213: a result that is an argument is the caller's wrapper, named in any order."""
    module = export(lambda b, a: (a, b, a + 1), (couple(), couple(2.0))).module()
    first, second = couple(), couple(2.0)
    for found in (module(first, second), module(a=second, b=first)):
        assert found[0] is second and found[1] is first and found[2] is not second


def test_writes_reach_the_tensors_inside() -> None:
    """S213: what the function writes is written in the caller's wrapper."""

    def f(x: Any) -> Any:
        x.add_(1)
        inner(x, "a").mul_(2)
        return x * 10

    module = export(f, (couple(),)).module()
    x, y = couple(4.0), couple(4.0)
    assert plain(module(x)) == plain(f(y))
    assert plain(x) == plain(y)


@pytest.mark.parametrize(
    "other",
    [
        polyop.ones(3), couple(note="else"), Couple(polyop.ones(4), polyop.ones(4)),
        Couple(couple(), couple()),
    ],
)  # fmt: skip
def test_another_wrapper_is_refused(other: Any) -> None:
    """S213: class, context and shape of a wrapper belong to what a program is for."""
    module = export(lambda x: x + 1, (couple(),)).module()
    with pytest.raises(errors.CaptureError, match="another structure"):
        module(other)


def test_gradients_of_wrappers_are_refused() -> None:
    """S213: a wrapper that requires grad, or a tensor inside, is refused before anything runs."""
    inside = Couple(polyop.ones(3, requires_grad=True), polyop.ones(3))
    outside = couple().requires_grad_()
    module = export(lambda x: x + 1, (couple(),)).module()
    for x in (inside, outside):
        with pytest.raises(errors.CaptureError, match="no gradients"):
            export(lambda x: x + 1, (x,))
        with pytest.raises(errors.CaptureError, match="no gradients"):
            module(x)
        with polyop.no_grad():
            assert plain(module(x).a) == [2.0] * 3


def test_what_cannot_be_taken_apart_is_refused() -> None:
    """S213: a subclass without the two methods is no input and no result of a program."""
    opaque = make_subclass(Opaque, polyop.ones(2))
    with pytest.raises(errors.CaptureError, match="__tensor_flatten__"):
        export(lambda x: x + 1, (opaque,))
    with pytest.raises(errors.CaptureError, match="Opaque is an argument or result"):
        export(lambda x: [x, opaque], (polyop.ones(2),))


def test_the_sizes_of_wrappers_are_fixed(tmp_path: Path) -> None:
    """S213: dimensions for a wrapper, results of open sizes, and files are refused with a way."""
    with pytest.raises(errors.UsageError, match="whose sizes are fixed"):
        export(lambda x: x + 1, (couple(),), dynamic_shapes={"x": {0: Dim("n")}})
    with pytest.raises(errors.CaptureError, match="return the tensors inside"):
        export(lambda x: Couple(x, x + 1), (polyop.ones(3),), dynamic_shapes={"x": {0: Dim("n")}})
    with pytest.raises(errors.ProgramFileError, match="wrappers, which no file can hold"):
        save(export(lambda x: x + 1, (couple(),)), tmp_path / "program")


def test_a_program_of_plain_tensors_runs_on_wrappers() -> None:
    """S213: nothing is taken apart where the program was made for tensors."""
    module = export(lambda x: x.sin() + 1, (polyop.ones(3),)).module()
    assert plain(module(couple())) == plain(couple().sin() + 1)


def test_results_may_be_wrappers_of_plain_inputs() -> None:
    """S213: a wrapper that the function makes is made again by the program."""
    module = export(lambda x: [Couple(x, x * 2, "new")], (polyop.ones(3),)).module()
    assert plain(module(polyop.zeros(3))) == plain(
        [Couple(polyop.zeros(3), polyop.zeros(3), "new")]
    )
