"""The laws of passes that let a program write again what it made (S210)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop import tree
from polyop.dispatch.library import Library
from polyop.dispatch.registry import find_operator
from polyop.dispatch.rules import register_fake, register_kernel
from polyop.func import functionalize
from polyop.graph import GraphModule, make_fx
from polyop.graph.overwriting import reinplace as on_graph
from polyop.hop.auto_functionalize import auto_functionalized, auto_functionalized_v2
from polyop.hop.defunctionalize import decompose_auto_functionalized, reinplace, writers
from polyop.library import register_effect
from polyop.objects.effects import EffectType

NS = "defunc"
COPIES = {"core.clone", "core.slice_scatter", "core.select_scatter", "core.diagonal_scatter"}


def tensor(*shape: int) -> Any:
    values = np.arange(1.0, 1.0 + np.prod(shape), dtype="float32").reshape(shape)
    return polyop.from_numpy(values / values.size)


def mix(x: Any, y: Any, by: float) -> Any:
    """Write both, the second by what the first has become."""
    x.numpy()[...] += by
    y.numpy()[...] += x.numpy().sum()
    return polyop.from_numpy(x.numpy() * 2)


@pytest.fixture(scope="module", autouse=True)
def lib() -> Iterator[Library]:
    made = Library(NS, "FRAGMENT")
    made.define("mix(Tensor(a!) x, Tensor(b!) y, float by) -> Tensor")
    register_kernel(f"{NS}::mix", "cpu", mix, lib=made)
    register_fake(f"{NS}::mix", lambda x, y, by: x * 2, lib=made)
    made.define("bump(Tensor(a!) x) -> Tensor(a!)")
    register_kernel(f"{NS}::bump", "cpu", bump, lib=made)
    register_fake(f"{NS}::bump", lambda x: x, lib=made)
    made.define("keep(Tensor x) -> Tensor")
    register_kernel(f"{NS}::keep", "cpu", keep, lib=made)
    register_fake(f"{NS}::keep", lambda x: x * 1, lib=made)
    register_effect(f"{NS}::keep", EffectType.ORDERED, lib=made)
    made.define("read_only(Tensor x) -> Tensor")
    register_kernel(f"{NS}::read_only", "cpu", read_only, lib=made)
    register_fake(f"{NS}::read_only", lambda x: x * 1, lib=made)
    yield made
    made._destroy()


def bump(x: Any) -> Any:
    x.numpy()[...] += 1
    return x


KEPT: list[Any] = []


def keep(x: Any) -> Any:
    KEPT.append(x)
    return x * 1


def read_only(x: Any) -> Any:
    array = x.numpy().copy()
    array.flags.writeable = False
    return polyop.from_numpy(array)


def op(name: str) -> Any:
    return find_operator(f"{NS}::{name}")


def count(module: GraphModule, names: set[str] = COPIES) -> int:
    return sum(str(n.target).removesuffix(".default") in names for n in module.graph.nodes)


def values(result: Any) -> Any:
    return [x if x is None else x.numpy().tolist() for x in tree.leaves(result)]


def program(f: Callable[..., Any], *args: Any, mode: str = "fake") -> GraphModule:
    module: GraphModule = make_fx(functionalize(f), mode)(*args)
    return module


def agree(module: GraphModule, f: Callable[..., Any], *shapes: tuple[int, ...]) -> None:
    """Compare results, and the inputs afterwards."""
    module.graph.lint(module)
    ours, theirs = [tensor(*s) for s in shapes], [tensor(*s) for s in shapes]
    got, want = values(module(*ours)), values(f(*theirs))
    np.testing.assert_equal((got, values(ours)), (want, values(theirs)))


# -- decomposition ------------------------------------------------------------


def test_nodes_become_copies_and_writes() -> None:
    """S171: a functionalized call becomes copies, views and the call that writes."""
    specs = {"_x_base_index": 0, "_x_slice_dim": 0, "_x_slice_start": 1, "_x_slice_end": 3}
    specs |= {"_y_base_index": 1, "_y_size": [2], "_y_stride": [3], "_y_storage_offset": 1}
    for f in (
        lambda x, y: auto_functionalized(op("mix"), x=x, y=y, by=1.0),
        lambda x, y: auto_functionalized_v2(op("mix"), by=1.0, _all_bases=[x, y], **specs),
        lambda x, y: op("mix").functional(x, y, 1.0),
        lambda x, y: auto_functionalized(op("bump"), x=x)[1],
        lambda x, y: op("bump").functional(x),
    ):
        module = make_fx(f, "fake")(tensor(4), tensor(6))
        assert decompose_auto_functionalized(module) == 1
        assert not any("functional" in str(n.target) for n in module.graph.nodes)
        assert count(module) >= 1
        agree(module, f, (4,), (6,))


def test_outs_are_made() -> None:
    """S172: an out is made anew by the decomposed program, with its strides."""
    lib = Library(NS, "FRAGMENT")
    lib.define("fill(Tensor x, *, Tensor(a!) out) -> Tensor(a!)", tags=(polyop.Tag.out,))
    register_kernel(f"{NS}::fill", "cpu", lambda x, *, out: out.copy_(x), lib=lib)
    facts = {"_out_size": [2, 3], "_out_stride": [1, 2], "_out_dtype": np.dtype("float32")}
    facts["_out_device"] = polyop.device("cpu")
    f = lambda x: auto_functionalized_v2(op("fill"), x=x, _all_bases=[], **facts)  # noqa: E731
    module = make_fx(f, "fake")(tensor(2, 3))
    assert decompose_auto_functionalized(module) == 1
    agree(module, f, (2, 3))
    assert module(tensor(2, 3)).stride() == (1, 2)
    lib._destroy()


# -- what is saved ------------------------------------------------------------


def test_no_copy_is_left_where_none_is_needed() -> None:
    """S210: writes of what the program made, read by nobody later, need no copy."""

    def f(x: Any, y: Any) -> Any:
        a, b = x + 1, y * 2
        r = op("mix")(a, b, 1.0)
        op("bump")(a)
        a.mul_(3)
        return a, b, r

    module = program(f, tensor(3), tensor(2))
    assert reinplace(module) > 0
    assert count(module) == 0
    assert {"core.multiply_.Scalar"} <= {str(n.target) for n in module.graph.nodes}
    agree(module, f, (3,), (2,))


def test_parts_are_written_in_place() -> None:
    """S210: a part put into a copy of a dead base is written into the base."""

    def f(x: Any) -> Any:
        a = x + 1
        a[1:].mul_(5)
        a[0].sub_(1)
        return a * 2

    module = program(f, tensor(3, 3))
    before = count(module)
    reinplace(module)
    assert before == 2 and count(module) == 0
    agree(module, f, (3, 3))


def test_bases_are_named_that_must_be_copied() -> None:
    """S171: the pass names in `_only_clone_these_bases` the inputs, and not the dead."""

    def f(x: Any) -> Any:
        a = x * 2
        given = {"_x_base_index": 0, "_y_base_index": 1, "by": 1.0}
        return auto_functionalized_v2(op("mix"), _all_bases=[a, x], **given)

    module = make_fx(f, "fake")(tensor(3))
    assert on_graph(module.graph, writers()) == 1
    node = next(n for n in module.graph.nodes if n.target is auto_functionalized_v2)
    assert node.kwargs["_only_clone_these_bases"] == [1]
    module.recompile()
    agree(module, f, (3,))


NEEDED: list[tuple[str, Callable[[Any], Any]]] = [
    ("an input", lambda x: op("bump").functional(x)),
    ("a view of an input", lambda x: op("bump").functional(x[1:])),
    ("read later", lambda x: (lambda a: (op("bump").functional(a), a * 2))(x + 1)),
    ("returned", lambda x: (lambda a: (op("bump").functional(a), a))(x + 1)),
    ("a view read later", lambda x: (lambda a, v: (op("bump").functional(a), v * 2))(*pair(x))),
    ("the base read later", lambda x: (lambda a, v: (op("bump").functional(v), a * 2))(*pair(x))),
    ("a view returned", lambda x: (lambda a, v: (op("bump").functional(a), v))(*pair(x))),
    ("read twice", lambda x: (lambda a: op("mix").functional(a, a, 1.0))(x + 1)),
    ("read-only", lambda x: op("bump").functional(op("read_only")(x))),
    ("kept by an effect", lambda x: kept_then_written(x)),
    ("a repeated base", lambda x: on_base(polyop.broadcast_to(x + 1, [3, 3]))),
    ("repeated", lambda x: op("bump").functional(polyop.broadcast_to(x + 1, [3, 3]))),
]


def on_base(x: Any) -> Any:
    return auto_functionalized_v2(op("bump"), _all_bases=[x], _x_base_index=0)


def pair(x: Any) -> Any:
    a = x + 1
    return a, a[1:]


def kept_then_written(x: Any) -> Any:
    a = x + 1
    out = op("keep")(a)
    return op("bump").functional(a), out


@pytest.mark.parametrize(("what", "f"), NEEDED, ids=[what for what, _ in NEEDED])
def test_needed_copies_stay(what: str, f: Callable[[Any], Any]) -> None:
    """S210: a copy stays where its source is an input, or is needed by anybody else."""
    module = make_fx(f, "fake")(tensor(3))
    reinplace(module)
    assert count(module) >= 1
    agree(module, f, (3,))
    KEPT.clear()
    module(tensor(3))
    assert not KEPT or KEPT[0].numpy().tolist() == (tensor(3) + 1).numpy().tolist()


def test_constants_are_not_written() -> None:
    """S210: what a program holds is as it was after each run."""
    held = tensor(3)
    f = lambda x: op("bump").functional(held) + x  # noqa: E731
    module = make_fx(f)(tensor(3))
    reinplace(module)
    for _ in range(2):
        agree(module, f, (3,))
    assert values(held) == values(tensor(3))


Steps = st.lists(
    st.tuples(
        st.sampled_from(["view", "mix", "bump", "pure", "scale", "copy", "new"]),
        st.integers(0, 20),
        st.integers(0, 20),
    ),
    min_size=1,
    max_size=9,
)
VIEWS: list[Callable[[Any], Any]] = [
    lambda x: x[1:],
    lambda x: x[:-1],
    lambda x: x[:, 1:],
    lambda x: polyop.transpose(x, 0, 1),
    lambda x: x[0],
    lambda x: polyop.flip(x, [0]),
    lambda x: x.reshape(-1),
]


def walk(steps: list[tuple[str, int, int]], returned: int) -> Callable[[Any], Any]:
    """Give a function that makes tensors, views and writes as the steps say."""

    def run(x: Any) -> Any:
        pool = [x, x + 1]
        for what, i, j in steps:
            t, u = pool[i % len(pool)], pool[j % len(pool)]
            if what == "view" and len(t.shape) == 2:
                pool.append(VIEWS[j % len(VIEWS)](t))
            elif what == "mix" and t is not u:
                pool.append(op("mix")(t, u, 0.5))
            elif what == "bump":
                op("bump")(t)
            elif what == "scale":
                t.mul_(0.5)
            elif what == "copy":
                t.copy_(polyop.sin(t))
            elif what == "new":
                pool.append(t * 2)
            else:
                pool.append(polyop.sin(t))
        return [t for i, t in enumerate(pool) if i and (returned >> (i % 8)) & 1]

    return run


@settings(max_examples=120, deadline=None)
@given(Steps, st.integers(0, 255))
def test_random_programs(steps: list[tuple[str, int, int]], returned: int) -> None:
    """S210: results and written inputs of a random program are the same, with no more copies."""
    f = walk(steps, returned)
    plain, ours = program(f, tensor(3, 3)), program(f, tensor(3, 3))
    agree(plain, f, (3, 3))
    decompose_auto_functionalized(plain)
    agree(plain, f, (3, 3))
    reinplace(ours)
    agree(ours, f, (3, 3))
    agree(ours, f, (3, 3))  # again: nothing that the program holds has changed
    assert count(ours) <= count(plain)
    assert reinplace(ours) == 0


@pytest.mark.parametrize("mode", ["real", "symbolic"])
def test_other_traces(mode: str) -> None:
    """S210: programs that were traced on data, or with symbolic sizes, are alike."""

    def f(x: Any) -> Any:
        a = x + 1
        r = op("mix")(a, x * 2, 1.0)
        return a.mul_(2) + r

    module = program(f, tensor(3), mode=mode)
    reinplace(module)
    assert count(module) == 0
    agree(module, f, (3,))
    if mode == "symbolic":
        agree(module, f, (5,))
