"""An error of an author's rule says by a note whose rule it is, and where that is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor, func
from polyop.errors import AutogradError, PolyopError
from polyop.layers.rule_notes import note_rule

FILE = re.escape(__file__)


class MineError(ValueError):
    """An exception of an author's own, which callers catch."""


def fails(*_: Any, **__: Any) -> Any:
    raise MineError("the author's words")


def fails_in_setup(ctx: Any, inputs: Any, output: Any) -> None:
    fails()


def fails_by_name(ctx: Any, inputs: Any, keyword_only_inputs: Any, output: Any) -> None:
    fails()


def twice(x: Tensor) -> Tensor:
    return polyop.from_numpy(x.numpy() * 2)


@polyop.custom_op("notestest::back", mutates_args=())
def back(x: Tensor) -> Tensor:
    """Fails in backward."""
    return twice(x)


@polyop.custom_op("notestest::several", mutates_args=())
def several(xs: list[Tensor], k: float = 1.0) -> list[Tensor]:
    """The same with lists, for which no short text is written."""
    return [twice(x) for x in xs]


@polyop.custom_op("notestest::kept", mutates_args=())
def kept(x: Tensor, k: float = 1.0) -> Tensor:
    """Fails in setup_context."""
    return twice(x)


@polyop.custom_op("notestest::kept_by_name", mutates_args=())
def kept_by_name(x: Tensor, *, k: float = 1.0) -> Tensor:
    """Fails in a setup_context of another form."""
    return twice(x)


@polyop.custom_op("notestest::pushed", mutates_args=())
def pushed(x: Tensor) -> Tensor:
    """Fails in jvp, and in its batching rule."""
    return twice(x)


@polyop.custom_op("notestest::batched", mutates_args=())
def batched(x: Tensor, *, k: float = 1.0) -> Tensor:
    """Fails in a batching rule that takes a keyword."""
    return twice(x)


@polyop.custom_op("notestest::written", mutates_args={"x"})
def written(x: Tensor) -> None:
    """Writes, and fails in its batching rule."""
    x.numpy()[...] *= 2


@polyop.custom_op("notestest::made", mutates_args=())
def made(x: Tensor) -> Tensor:
    """Has no gradient but that of what it is made of."""
    return twice(x)


made.register_decomposition(fails)
for op in (back, kept, pushed):
    op.register_fake(lambda x, k=1.0: polyop.empty_like(x))
for op in (kept_by_name, batched):
    op.register_fake(lambda x, *, k=1.0: polyop.empty_like(x))
several.register_fake(lambda xs, k=1.0: [polyop.empty_like(x) for x in xs])
back.register_autograd(fails)
several.register_autograd(fails)
kept.register_autograd(lambda ctx, g: (g, None), setup_context=fails_in_setup)
kept_by_name.register_autograd(lambda ctx, g: g, setup_context=fails_by_name)
pushed.register_jvp(fails)
pushed.register_vmap(fails)
batched.register_vmap(fails)
written.register_vmap(fails)

X = polyop.ones(3)
XS = polyop.ones(2, 3)


def leaf() -> Tensor:
    return polyop.ones(3, requires_grad=True)


def caught(call: Callable[[], Any]) -> list[str]:
    """Give the notes of the author's error that a call raises."""
    with pytest.raises(MineError) as info:
        call()
    assert type(info.value) is MineError and str(info.value) == "the author's words"
    notes: list[str] = getattr(info.value, "__notes__", [])
    return notes


def summed(op: Any) -> Callable[[Any], Any]:
    return lambda x: op(x).sum()


#: By operator, the function that raises, where it is not `fails` itself.
RAISES = {"kept": fails_in_setup, "kept_by_name": fails_by_name}
#: How it is called, the function that fails, and the operator.
WAYS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "backward": (lambda: back(leaf()).sum().backward(), "backward", "back(Tensor x)"),
    "autograd.grad": (lambda: (lambda x: polyop.autograd.grad(back(x).sum(), [x]))(leaf()),
                      "backward", "back(Tensor x)"),
    "create_graph": (lambda: back(leaf()).sum().backward(create_graph=True), "backward",
                     "back(Tensor x)"),
    "lists": (lambda: several([leaf(), X])[0].sum().backward(), "backward",
              "several(Tensor[] xs, float k=1.0)"),
    "func.grad": (lambda: func.grad(summed(back))(X), "backward", "back(Tensor x)"),
    "grad of grad": (lambda: func.grad(lambda x: func.grad(summed(back))(x).sum())(X), "backward",
                     "back(Tensor x)"),
    "vjp": (lambda: func.vjp(back, X)[1](X), "backward", "back(Tensor x)"),
    "jacrev": (lambda: func.jacrev(back)(X), "backward", "back(Tensor x)"),
    "hessian": (lambda: func.hessian(summed(back))(X), "backward", "back(Tensor x)"),
    "transposed": (lambda: func.jvp(back, (X,), (X,)), "backward", "back(Tensor x)"),
    "vmap of grad": (lambda: func.vmap(func.grad(summed(back)))(XS), "backward", "back(Tensor x)"),
    "plain setup": (lambda: kept(leaf()), "setup_context", "kept(Tensor x, float k=1.0)"),
    "setup in grad": (lambda: func.grad(summed(kept))(X), "setup_context",
                      "kept(Tensor x, float k=1.0)"),
    "setup in jvp": (lambda: func.jvp(kept, (X,), (X,)), "setup_context",
                     "kept(Tensor x, float k=1.0)"),
    "setup by name": (lambda: kept_by_name(leaf()), "setup_context",
                      "kept_by_name(Tensor x, *, float k=1.0)"),
    "jvp": (lambda: func.jvp(pushed, (X,), (X,)), "jvp", "pushed(Tensor x)"),
    "jacfwd": (lambda: func.jacfwd(pushed)(X), "jvp", "pushed(Tensor x)"),
    "vmap": (lambda: func.vmap(pushed)(XS), "vmap rule", "pushed(Tensor x)"),
    "vmap of vmap": (lambda: func.vmap(func.vmap(pushed))(polyop.ones(2, 2, 3)), "vmap rule",
                     "pushed(Tensor x)"),
    "vmap of jvp": (lambda: func.vmap(lambda x: func.jvp(pushed, (x,), (x,)))(XS), "vmap rule",
                    "pushed(Tensor x)"),
    "vmap with a keyword": (lambda: func.vmap(lambda x: batched(x, k=2.0))(XS), "vmap rule",
                            "batched(Tensor x, *, float k=1.0)"),
    "vmap of a write": (lambda: func.vmap(written)(polyop.ones(2, 3)), "vmap rule",
                        "written(Tensor(a0!) x)"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*has no vmap rule")
@pytest.mark.parametrize("way", WAYS)
def test_each_rule_tells_once(way: str) -> None:
    """S1, S3: type and text are the author's; one note has rule, operator and place."""
    call, rule, schema = WAYS[way]
    for _ in range(3):  # what was decided by the first call serves the next
        (note,) = caught(call)
        begin = re.escape(f"in the {rule} of notestest::{schema} -> ")
        line = RAISES.get(schema.partition("(")[0], fails).__code__.co_firstlineno
        assert re.fullmatch(rf"{begin}\S+, written at {FILE}:{line}", note), note


def test_the_place_is_that_of_the_rule_that_ran() -> None:
    """S3: of a rule that took another's place, its own; of what has no code, the registration's."""

    def again(ctx: Any, g: Any) -> Any:
        return fails()

    class Callable_:
        def __call__(self, ctx: Any, g: Any) -> Any:
            return fails()

    with polyop.scoped_library("notestest", "FRAGMENT") as lib:
        lib.define("moved(Tensor x) -> Tensor")
        lib.impl("moved", lambda x: x.clone(), "CPU")
        lines = []
        for rule in (fails, again, Callable_()):
            polyop.library.register_autograd("notestest::moved", rule, lib=lib)
            (note,) = caught(lambda: polyop.ops.notestest.moved(leaf()).sum().backward())
            assert re.search(rf"written at {FILE}:\d+$", note)
            lines.append(int(note.rpartition(":")[2]))
    here = test_the_place_is_that_of_the_rule_that_ran.__code__.co_firstlineno
    assert lines[:2] == [fails.__code__.co_firstlineno, again.__code__.co_firstlineno]
    assert here < lines[2] < here + 30


def test_operators_in_rules_tell_each_once() -> None:
    """S3: of rules in rules each adds its own note, the innermost first."""
    with polyop.scoped_library("notestest", "FRAGMENT") as lib:
        lib.define("outer(Tensor x) -> Tensor")
        lib.impl("outer", lambda x: x.clone(), "CPU")

        def backward(ctx: Any, g: Tensor) -> Any:
            return func.grad(lambda x: (back(x) * g).sum())(polyop.ones_like(g))

        polyop.library.register_autograd("notestest::outer", backward, lib=lib)
        notes = caught(lambda: polyop.ops.notestest.outer(leaf()).sum().backward())
    names = [note.partition("(")[0] for note in notes]
    assert names == ["in the backward of notestest::back", "in the backward of notestest::outer"]


def test_where_the_forward_ran_is_told_in_anomaly_mode_alone() -> None:
    """S136: the note of anomaly mode follows that of the rule."""
    with polyop.autograd.detect_anomaly():
        y = back(leaf()).sum()
        first, second = caught(y.backward)
    assert first.startswith("in the backward of notestest::back(")
    assert second.startswith("The forward of notestest::back ran here:\n")


def test_errors_of_ours_that_name_the_operator_have_no_note() -> None:
    """S3: they say operator, place and cure themselves; those of other operators get one."""
    x = leaf()
    with polyop.scoped_library("notestest", "FRAGMENT") as lib:
        lib.define("odd(Tensor x) -> Tensor")
        lib.impl("odd", lambda x: x.clone(), "CPU")
        op = polyop.ops.notestest.odd
        polyop.library.register_autograd("notestest::odd", lambda ctx, g: (g, g), lib=lib)
        with pytest.raises(AutogradError, match="wrong number of gradients") as info:
            op(x).sum().backward()
        assert not hasattr(info.value, "__notes__")
        polyop.library.register_autograd("notestest::odd", lambda ctx, g: op(1, 2, 3), lib=lib)
        with pytest.raises(PolyopError) as other:
            op(x).sum().backward()
        assert str(op.default._schema) in str(other.value)
        assert not hasattr(other.value, "__notes__")
        polyop.library.register_autograd(
            "notestest::odd", lambda ctx, g: polyop.add(g, "one"), lib=lib
        )
        with pytest.raises(PolyopError) as inner:
            op(x).sum().backward()
        (note,) = inner.value.__notes__
        assert "core::add" in str(inner.value) and "of notestest::odd(" in note


def test_rules_of_ours_have_no_note() -> None:
    """Built-in rules, and gradients that are derived from a decomposition, are no author's."""
    with pytest.raises(PolyopError) as info:
        func.vmap(lambda x: polyop.reshape(x, [7]))(XS)
    assert not hasattr(info.value, "__notes__")
    assert caught(lambda: made(leaf()).sum().backward()) == []


@contextmanager
def cloning(name: str, backward: Callable[..., Any]) -> Iterator[Any]:
    """Give an operator that copies, with a gradient, for as long as the block lasts."""
    with polyop.scoped_library("notestest", "FRAGMENT") as lib:
        lib.define(f"{name}(Tensor x) -> Tensor")
        lib.impl(name, lambda x: x.clone(), "CPU")
        polyop.library.register_autograd(f"notestest::{name}", backward, lib=lib)
        yield getattr(polyop.ops.notestest, name)


def test_an_error_that_is_raised_again_has_one_note() -> None:
    """One exception object that a rule raises at each call gathers no notes."""
    error = MineError("always the same")

    def backward(ctx: Any, g: Any) -> Any:
        raise error

    with cloning("same", backward) as same:
        for _ in range(3):
            with pytest.raises(MineError):
                same(leaf()).sum().backward()
    assert len(error.__notes__) == 1


def test_what_is_no_error_is_left_alone() -> None:
    """An interrupt has no note; an exception whose notes are no list arrives as it is."""

    def backward(ctx: Any, g: Any) -> Any:
        raise KeyboardInterrupt

    with cloning("stop", backward) as stop, pytest.raises(KeyboardInterrupt) as info:
        stop(leaf()).sum().backward()
    assert not hasattr(info.value, "__notes__")
    odd: Any = MineError("odd")
    odd.__notes__ = "a text"
    note_rule(odd, back._opoverload, "backward")
    assert odd.__notes__ == "a text"


def test_a_graph_that_outlives_its_operator_raises_the_author_s_error() -> None:
    """S86: where nobody knows the place any more, none is told."""
    with cloning("gone", fails) as gone:
        y = gone(leaf()).sum()
    assert caught(y.backward) == []


# -- Function ---------------------------------------------------------------------


class Doubled(polyop.autograd.Function):
    """Fails where `failing` says."""

    failing = ""
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Any) -> Any:
        """Double."""
        return x * 2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""
        if Doubled.failing == "setup_context":
            fails()

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        """Double."""
        return fails() if Doubled.failing == "backward" else g * 2

    @staticmethod
    def jvp(ctx: Any, t: Any) -> Any:
        """Double."""
        return fails() if Doubled.failing == "jvp" else t * 2


class Batched(polyop.autograd.Function):
    """Fails in its batching rule."""

    @staticmethod
    def forward(x: Any) -> Any:
        """Double."""
        return x * 2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any) -> Any:
        """Fail."""
        return fails()


@pytest.fixture
def failing() -> Iterator[Callable[[str], None]]:
    """Says which method fails."""

    def choose(name: str) -> None:
        Doubled.failing = name

    yield choose
    Doubled.failing = ""


FUNCTIONS: dict[str, tuple[str, Callable[[], Any]]] = {
    "backward": ("backward", lambda: Doubled.apply(leaf()).sum().backward()),
    "grad": ("backward", lambda: func.grad(summed(Doubled.apply))(X)),
    "vmap of grad": ("backward", lambda: func.vmap(func.grad(summed(Doubled.apply)))(XS)),
    "grad of vmap": ("backward", lambda: func.grad(summed(func.vmap(Doubled.apply)))(XS)),
    "setup": ("setup_context", lambda: Doubled.apply(leaf())),
    "setup in grad": ("setup_context", lambda: func.grad(summed(Doubled.apply))(X)),
    "setup in jvp": ("setup_context", lambda: func.jvp(Doubled.apply, (X,), (X,))),
    "setup in grad of vmap": ("setup_context",
                              lambda: func.grad(summed(func.vmap(Doubled.apply)))(XS)),
    "jvp": ("jvp", lambda: func.jvp(Doubled.apply, (X,), (X,))),
    "jvp of vmap": ("jvp", lambda: func.jvp(func.vmap(Doubled.apply), (XS,), (XS,))),
}  # fmt: skip


@pytest.mark.parametrize("way", FUNCTIONS)
def test_methods_of_functions_tell_once(way: str, failing: Callable[[str], None]) -> None:
    """S137: of a `Function` the note has the method, the class, and where it is written."""
    name, call = FUNCTIONS[way]
    failing(name)
    (note,) = caught(call)
    begin = rf"in the {name} of the Function Doubled, written at {FILE}:"
    line = getattr(Doubled, name).__code__.co_firstlineno
    assert re.fullmatch(rf"{begin}{line}", note)


def test_the_batching_rule_of_a_function_tells() -> None:
    """S137: so does its own `vmap`."""
    (note,) = caught(lambda: func.vmap(Batched.apply)(XS))
    assert note.startswith("in the vmap of the Function Batched, written at ")


def test_numbers_are_what_they_were() -> None:
    """A rule that raises nothing gives its results; `numpy` arrays go the same way."""
    assert np.array_equal(func.grad(summed(Doubled.apply))(X).numpy(), np.full(3, 2.0))
