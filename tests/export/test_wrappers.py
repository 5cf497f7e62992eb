"""Programs of traceable wrappers: they take them, and work on the tensors inside."""

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import polyop
from polyop import Tensor, errors, tree
from polyop.export import Dim, export, load, save
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
        Couple(couple(), couple()), Couple(polyop.ones(3), polyop.ones(3, dtype="float64")),
    ],
)  # fmt: skip
def test_another_wrapper_is_refused(other: Any) -> None:
    """S213: class, context and shape of a wrapper belong to what a program is for."""
    module = export(lambda x: x + 1, (couple(),)).module()
    with pytest.raises(errors.CaptureError, match="another structure|another size|x.b"):
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


class Rows(Tensor):
    """A matrix as its rows times factors; or, of a flat tensor, one with another shape."""

    def __new__(cls, inner: Tensor, factor: Tensor, shape: Any = None) -> Any:
        shape = inner.shape if shape is None else shape
        t = make_wrapper_subclass(cls, shape, dtype=inner.dtype, device=inner.device)
        t.inner, t.factor = inner, factor
        return t

    def __tensor_flatten__(self) -> Any:
        return ["inner", "factor"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, context: Any, shape: Any, strides: Any) -> Any:
        return cls(inner["inner"], inner["factor"], shape)

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        whole = lambda x: x.inner.reshape(x.shape) * x.factor if isinstance(x, cls) else x  # noqa: E731
        args, named = tree.map_leaves(whole, (args, kwargs or {}))
        return op(*args, **named)


def rows(n: int, axes: int = 2) -> Any:
    factor = polyop.arange(1.0, n + 1.0)
    return Rows(polyop.ones((n, 4)), factor.reshape((n, 1)) if axes == 2 else polyop.ones(()))


N = Dim("n", min=1)


@pytest.mark.parametrize("dims", [{0: N}, [N], (N,), {"a": {0: N}, "b": [N]}, {-1: N}])
@pytest.mark.parametrize("f", [lambda x: x.sin() * 2, lambda x: [x + x.shape[0], x.sum(), x]])
def test_sizes_of_wrappers_may_change(f: Any, dims: Any) -> None:
    """S165, S213: the sizes of what is inside follow those of the wrapper, which is made again."""
    program = export(f, (couple(),), dynamic_shapes={"x": dims})
    assert program.ranges == {"n": (1, None)}
    for n in (1, 3, 7):
        x = Couple(polyop.ones(n), polyop.ones(n) * 2)
        found = program.module()(x)
        assert plain(found) == plain(f(x))
        assert tree.leaves(found)[0].shape == (n,)
    with pytest.raises(errors.CaptureError, match="b"):
        program.module()(Couple(polyop.ones(3), polyop.ones(4)))


def test_sizes_of_wrappers_follow_axis_by_axis() -> None:
    """S213: an axis of another size stays; wrappers in wrappers follow; the rest is named."""
    program = export(lambda x: x * 2, (rows(3),), dynamic_shapes={"x": {0: N}})
    for n in (1, 2, 5):
        assert plain(program.module()(rows(n))) == plain(rows(n) * 2)
    deep = export(lambda x: x * 2, (Couple(couple(), couple(2.0)),), dynamic_shapes={"x": {0: N}})
    x = Couple(*[Couple(polyop.ones(5), polyop.ones(5) * k) for k in (2, 3)])
    assert plain(deep.module()(x)) == plain(x * 2)
    scalar = rows(3, axes=0)
    with pytest.raises(errors.UsageError, match=r"x\.factor change"):
        export(lambda x: x * 2, (scalar,), dynamic_shapes={"x": {0: N}})
    named = export(lambda x: x * 2, (scalar,), dynamic_shapes={"x": {"inner": {0: N}}})
    assert plain(named.module()(rows(6, axes=0))) == plain(rows(6, axes=0) * 2)
    for wrong in ({1: N}, [N, N], "n"):
        with pytest.raises(errors.UsageError, match="does not match x"):
            export(lambda x: x + 1, (couple(),), dynamic_shapes={"x": wrong})


def test_wrappers_of_open_sizes_are_results() -> None:
    """S213: a wrapper that is made of inputs with open sizes has the size of the run."""
    f = lambda x: Couple(x, x + 1)  # noqa: E731
    module = export(f, (polyop.ones(3),), dynamic_shapes={"x": {0: N}}).module()
    for n in (1, 3, 6):
        assert plain(module(polyop.ones(n))) == plain(f(polyop.ones(n)))
        assert module(polyop.ones(n)).shape == (n,)


def test_sizes_that_are_not_those_of_a_part_are_fixed() -> None:
    """S213: where the shape of a wrapper is not one of a tensor inside, its sizes stay."""
    flat = lambda n: Rows(polyop.ones(2 * n), polyop.ones(()), (n, 2))  # noqa: E731
    module = export(lambda x: x + 1, (flat(3),)).module()
    assert plain(module(flat(3))) == plain(flat(3) + 1)
    with pytest.raises(errors.CaptureError, match="another structure"):
        module(Rows(polyop.ones(6), polyop.ones(()), (2, 3)))
    with pytest.raises(errors.UsageError, match="are fixed"):
        export(lambda x: x + 1, (flat(3),), dynamic_shapes={"x": {0: N}})
    with pytest.raises(errors.CaptureError, match="return the tensors inside"):
        export(
            lambda x: Rows(x, x.sum(), (x.shape[0], 1)), (polyop.ones(3),),
            dynamic_shapes={"x": {0: N}},
        )  # fmt: skip


def test_a_training_step_of_wrappers() -> None:
    """S165, S213: a function that gives gradients of wrappers is a program like any other."""

    def step(x: Any, w: Any) -> Any:
        w = w.detach().requires_grad_()
        loss = (x.sin() * w).sum()
        (g,) = polyop.autograd.grad([loss], [w], [polyop.ones_like(loss)])
        return loss.detach(), g, w.detach() - g * 0.1

    program = export(step, (couple(), couple(2.0)), dynamic_shapes={"x": [N], "w": [N]})
    for n in (3, 5):
        given = [Couple(polyop.ones(n) * k, polyop.ones(n) * (k + 1)) for k in (0.3, 0.7)]
        assert plain(program.module()(*given)) == plain(step(*given))


def test_writes_are_counted_at_the_wrapper() -> None:
    """S213: autograd sees that a program wrote a wrapper which it saved."""
    module = export(lambda x: x.add_(1), (couple(),)).module()
    x, w = couple(), couple(2.0).requires_grad_()
    y = w * x
    module(x)
    with pytest.raises(errors.AutogradError, match="written"):
        y.backward(couple())


@pytest.mark.parametrize("note", [None, "n", 2.5, {"a": [1, (2, float("inf"))]}])
def test_files_hold_wrappers(note: Any, tmp_path: Path) -> None:
    """S213, S214: a program of wrappers is read again, with class, context and open sizes."""
    f = lambda x, y: [x * y.sin(), {"same": y}, Couple(x.a, y, note)]  # noqa: E731
    deep = Couple(couple(note=note), couple(2.0, note), "deep")
    program = export(f, (couple(note=note), deep), dynamic_shapes={"x": [N], "y": [N]})
    save(program, tmp_path / "program")
    module = load(tmp_path / "program").module()
    for n in (3, 5):
        x = Couple(polyop.ones(n), polyop.ones(n) * 2, note)
        y = Couple(x * 2, x * 3, "deep")
        found = module(x, y)
        assert plain(found) == plain(f(x, y)) and found[1]["same"] is y
    with pytest.raises(errors.CaptureError, match="structure"):
        module(couple(note="other"), deep)


def program_file(path: Path, changed: Callable[[str], str]) -> Path:
    """Save a program of wrappers, and change the text of its file."""
    save(export(lambda x: [x, x + 1], (couple(),)), path / "made")
    with zipfile.ZipFile(path / "made") as old, zipfile.ZipFile(path / "changed", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            text = data if not name.endswith(".json") else changed(data.decode()).encode()
            new.writestr(name, text)
    return path / "changed"


def test_classes_are_found_and_never_imported(tmp_path: Path) -> None:
    """S214: a class that is not there is named, with the module to import; none is imported."""
    sys.modules.pop("this", None)
    here = f"{Couple.__module__}:Couple"
    for name, text in (("this:Couple", "import this first"), (f"{__name__}:Opaque", "Opaque")):
        path = program_file(tmp_path, lambda s, n=name: s.replace(here, n))
        with pytest.raises(errors.ProgramFileError, match=text):
            load(path)
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"argument":0', '"argument":7'), ('"argument":0', '"argument":"x"'),
        ('"shape":0', '"shape":5'), ('"shape":0', '"shape":"in order"'),
        ('"strides":"in order"', '"strides":null'),
    ],
)  # fmt: skip
def test_damaged_forms_are_refused(old: str, new: str, tmp_path: Path) -> None:
    """S214: what a file says of a wrapper is checked before the program can be called."""

    def changed(text: str) -> str:
        text = text.replace(": ", ":")
        assert old in text
        return text.replace(old, new)

    with pytest.raises(errors.ProgramFileError):
        load(program_file(tmp_path, changed))


def test_contexts_that_are_no_data_are_refused(tmp_path: Path) -> None:
    """S214, S215: a context that no file can hold is refused before a file is written."""
    for note in (object(), [polyop.ones(1)]):
        with pytest.raises(errors.ProgramFileError):
            save(export(lambda x: x + 1, (couple(note=note),)), tmp_path / "program")
    assert not (tmp_path / "program").exists()


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
