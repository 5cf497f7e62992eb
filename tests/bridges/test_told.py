"""An author's error arrives as it was raised, and says by a note whose kernel raised it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import array_api_strict
import dask.array as da
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor
from polyop.bridges.told import told
from polyop.errors import ReturnError

FILE = re.escape(__file__)


class MineError(ValueError):
    """An exception of an author's own, which callers catch."""


@polyop.custom_op("toldtest::root", mutates_args=())
def root(x: Tensor, k: float = 1.0) -> Tensor:
    """Raises for numbers below zero."""
    if x.numpy().min() < 0:
        raise MineError("below zero")
    return polyop.from_numpy(np.sqrt(x.numpy() * k))


root.register_fake(lambda x, k=1.0: polyop.empty_like(x))
root.register_autograd(lambda ctx, g: (g, None))


@polyop.custom_op("toldtest::roots", mutates_args=())
def roots(xs: Sequence[Tensor]) -> Tensor:
    """The same, of a list, for which no short text is written."""
    if min(x.numpy().min() for x in xs) < 0:
        raise MineError("below zero")
    return polyop.from_numpy(np.sqrt(xs[0].numpy()))


roots.register_fake(lambda xs: polyop.empty_like(xs[0]))


@polyop.custom_op("toldtest::rooted", mutates_args={"x"})
def rooted(x: Tensor) -> None:
    """Writes."""
    if x.numpy().min() < 0:
        raise MineError("below zero")
    np.sqrt(x.numpy(), out=x.numpy())


@polyop.custom_op("toldtest::own", mutates_args=())
def own(x: Tensor) -> Tensor:
    """Has kernels for other libraries' arrays."""
    return x.clone()


own.register_fake(lambda x: polyop.empty_like(x))


@own.register_kernel("cpu", library="torch")
@own.register_kernel("cpu", library="jax")
def own_elsewhere(x: Any) -> Any:
    raise MineError("below zero")


@polyop.custom_op("toldtest::outer", mutates_args=())
def outer(x: Tensor) -> Tensor:
    """Calls another operator."""
    return root(x)


outer.register_fake(lambda x: polyop.empty_like(x))


@outer.register_kernel("cpu", library="torch")
def outer_torch(x: Any) -> Any:
    return root(x)


X = np.array([1.0, -1.0], dtype=np.float32)


def of_torch(op: Any) -> Any:
    return op(torch.tensor(X))


def in_a_graph(op: Any) -> Any:
    return op(torch.tensor(X, requires_grad=True))


def of_jax(op: Any) -> Any:
    return op(jnp.asarray(X))


def over(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda op: op(polyop.from_array(convert(X)))


def computed(op: Any) -> Any:
    return op(da.from_array(X, chunks=-1)).compute()


@pytest.mark.parametrize(
    ("way", "name"),
    [
        (of_torch, "PyTorch"),
        (in_a_graph, "PyTorch"),
        (over(torch.tensor), "PyTorch"),
        (lambda op: torch.func.vmap(op)(torch.tensor(np.stack([X, X]))), "PyTorch"),
        (lambda op: torch.func.grad(lambda x: op(x).sum())(torch.tensor(X)), "PyTorch"),
        (lambda op: torch.ops.toldtest.root(torch.tensor(X)), "PyTorch"),
        (of_jax, "JAX"),
        (over(jnp.asarray), "JAX"),
        (lambda op: jax.grad(lambda x: op(x).sum())(jnp.asarray(X)), "JAX"),
        (over(array_api_strict.asarray), "array_api_strict"),
        (computed, "Dask"),
        (over(lambda x: da.from_array(x, chunks=-1)), "Dask"),
    ],
)  # fmt: skip
def test_the_author_s_error_has_one_note(way: Any, name: str) -> None:
    """S1, S3: type and text are the author's; one note names operator, place, and library."""
    with pytest.raises(MineError) as caught:
        found = way(root)
        np.asarray(polyop.to_array(found))  # a recipe is computed now
    assert type(caught.value) is MineError and str(caught.value) == "below zero"
    (note,) = [n for n in caught.value.__notes__ if "JAX has removed" not in n]
    assert re.fullmatch(
        rf"in the kernel of toldtest::root\(Tensor x, float k=1\.0\) -> Tensor, written at "
        rf"{FILE}:\d+, for arrays of {name}",
        note,
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: roots([torch.tensor(X), torch.tensor(X)]),
        lambda: root(torch.tensor(X + 1j * X).conj().real),
        lambda: rooted(torch.tensor(X)),
        lambda: roots([jnp.asarray(X)]),
        lambda: own(torch.tensor(X)),
        lambda: own(jnp.asarray(X)),
        lambda: jax.jit(own)(jnp.asarray(X)),
    ],
)
def test_every_way_to_a_kernel_tells(call: Any) -> None:
    """Lists, odd layouts, writes, and kernels for a library's own arrays: one note each."""
    with pytest.raises(MineError, match="^below zero") as caught:
        call()
    assert str(caught.value) == "below zero"
    notes = [n for n in caught.value.__notes__ if n.startswith("in the kernel of toldtest::")]
    assert len(notes) == 1 and f"written at {__file__}:" in notes[0]


def test_kernels_that_call_operators_tell_each_once() -> None:
    """Of operators in operators each adds its own note, the innermost first."""
    with pytest.raises(MineError) as caught:
        outer(torch.tensor(X))
    names = [note.partition("(")[0] for note in caught.value.__notes__]
    assert names == ["in the kernel of toldtest::root", "in the kernel of toldtest::outer"]
    with pytest.raises(MineError) as caught:
        outer(jnp.asarray(X))  # where the inner call is one of NumPy's arrays
    assert [note.partition("(")[0] for note in caught.value.__notes__] == names[1:]


def test_kernels_that_are_compared_tell_too() -> None:
    """Once PyTorch has traced an operator its kernel is another text, which tells as well."""

    @torch.compile(backend="eager", fullgraph=True)
    def program(x: Any) -> Any:
        return root(x) + 1

    program(torch.ones(2))
    for fn in (program, root):
        with pytest.raises(MineError, match="^below zero") as caught:
            fn(torch.tensor(X))
        assert (
            sum("in the kernel of toldtest::root(" in note for note in caught.value.__notes__) == 1
        )


def test_programs_of_jax_tell_in_their_text() -> None:
    """What XLA says of a kernel's error ends with the note."""
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"(?s)MineError.*in the kernel of told"):
        jax.jit(root)(jnp.asarray(X)).block_until_ready()


def test_errors_that_name_the_operator_have_no_note() -> None:
    """An error of ours says operator, place and cure itself."""
    with polyop.scoped_library("toldtest", "FRAGMENT") as lib:
        lib.define("odd(Tensor x) -> Tensor")
        lib.impl("odd", lambda x: 3, "CPU")
        for x in (torch.ones(2), jnp.ones(2)):
            with pytest.raises(ReturnError) as caught:
                polyop.ops.toldtest.odd(x)
            assert not [n for n in getattr(caught.value, "__notes__", []) if "in the kernel" in n]


def test_an_error_that_is_raised_again_has_one_note() -> None:
    """One exception object that a kernel raises at each call gathers no notes."""
    error = MineError("always the same")

    def kernel(x: Any) -> Any:
        raise error

    with polyop.scoped_library("toldtest", "FRAGMENT") as lib:
        lib.define("same(Tensor x) -> Tensor")
        lib.impl("same", kernel, "CPU")
        for _ in range(3):
            with pytest.raises(MineError):
                polyop.ops.toldtest.same(torch.ones(2))
    assert len(error.__notes__) == 1


def test_what_is_no_error_is_left_alone() -> None:
    """An interrupt has no note; an exception whose notes are no list arrives as it is."""

    def kernel(x: Any) -> Any:
        raise KeyboardInterrupt

    with polyop.scoped_library("toldtest", "FRAGMENT") as lib:
        lib.define("stop(Tensor x) -> Tensor")
        lib.impl("stop", kernel, "CPU")
        with pytest.raises(KeyboardInterrupt) as caught:
            polyop.ops.toldtest.stop(torch.ones(2))
    assert not hasattr(caught.value, "__notes__")
    odd: Any = MineError("odd")
    odd.__notes__ = "a text"
    told(odd, root._opoverload, "torch")
    assert odd.__notes__ == "a text"


# -- rules ----------------------------------------------------------------------------------------


def raises(*_: Any, **__: Any) -> Any:
    raise MineError("below zero")


def doubled(x: Tensor) -> Tensor:
    """A kernel."""
    return polyop.from_numpy(x.numpy() * 2)


def ruled(name: str) -> Any:
    """Define an operator whose rules are to be registered."""
    op = polyop.custom_op(f"toldtest::{name}", doubled, mutates_args=())
    op.register_fake(polyop.empty_like)
    return op


back, kept, pushed, batched = map(ruled, ("back", "kept", "pushed", "batched"))
back.register_autograd(raises)
kept.register_autograd(lambda ctx, g: g, setup_context=raises)
pushed.register_jvp(raises)
batched.register_vmap(raises)
T = torch.ones(2)
J = jnp.ones(2)


def kept_in_torch() -> Any:
    return kept(torch.ones(2, requires_grad=True))


RULES: dict[str, tuple[Callable[[], Any], str]] = {
    "torch backward": (lambda: back(torch.ones(2, requires_grad=True)).sum().backward(),
                       "backward of toldtest::back"),
    "torch create_graph": (
        lambda: back(torch.ones(2, requires_grad=True)).sum().backward(create_graph=True),
        "backward of toldtest::back"),
    "torch handle": (
        lambda: torch.ops.toldtest.back(torch.ones(2, requires_grad=True)).sum().backward(),
        "backward of toldtest::back"),
    "torch grad": (lambda: torch.func.grad(lambda x: back(x).sum())(T),
                   "backward of toldtest::back"),
    "torch setup": (kept_in_torch, "setup_context of toldtest::kept"),
    "torch setup in grad": (lambda: torch.func.grad(lambda x: kept(x).sum())(T),
                            "setup_context of toldtest::kept"),
    "torch jvp": (lambda: torch.func.jvp(pushed, (T,), (T,)), "jvp of toldtest::pushed"),
    "torch vmap": (lambda: torch.func.vmap(batched)(torch.ones(3, 2)),
                   "vmap rule of toldtest::batched"),
    "jax grad": (lambda: jax.grad(lambda x: back(x).sum())(J), "backward of toldtest::back"),
    "jax setup": (lambda: jax.grad(lambda x: kept(x).sum())(J), "setup_context of toldtest::kept"),
    "jax jvp": (lambda: jax.jvp(pushed, (J,), (J,)), "jvp of toldtest::pushed"),
    "jax vmap": (lambda: jax.vmap(batched)(jnp.ones((3, 2))), "vmap rule of toldtest::batched"),
    "ours over torch": (
        lambda: polyop.func.grad(lambda x: back(x).sum())(polyop.from_array(T)),
        "backward of toldtest::back"),
    "ours over jax": (
        lambda: polyop.func.grad(lambda x: back(x).sum())(polyop.from_array(J)),
        "backward of toldtest::back"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("way", RULES)
def test_an_author_s_rule_tells_under_each_framework(way: str) -> None:
    """S1, S3: of backward, setup_context, jvp and batching rules too: one note each."""
    call, what = RULES[way]
    for _ in range(3):  # what was decided by the first call serves the next
        with pytest.raises(MineError, match="^below zero") as caught:
            call()
        notes = [n for n in caught.value.__notes__ if "JAX has removed" not in n]
        found = [n for n in notes if n.startswith("in the ")]
        line = raises.__code__.co_firstlineno
        assert found == [f"in the {what}(Tensor x) -> Tensor, written at {__file__}:{line}"]
