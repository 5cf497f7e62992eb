"""Tags: which there are, what they promise, and what passes and compilers read from them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop.compile import compile as compiled
from polyop.dispatch.layouts import LAYOUTS, layout_of
from polyop.dispatch.library import Library, scoped_library
from polyop.dispatch.registry import DEFINITIONS
from polyop.errors import UsageError, UsageTypeError
from polyop.extend import is_impure
from polyop.extend import layout_of as public_layout_of
from polyop.graph import (
    Graph,
    eliminate_common_subexpressions,
    eliminate_dead_code,
    fold_constants,
)
from polyop.layers.functionalize.twin import mutable_of
from polyop.layers.trace import make_fx
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor, of_array


@pytest.fixture
def lib() -> Iterator[Library]:
    with scoped_library("tag_tests", "DEF") as made:
        yield made


def define(lib: Library, text: str, kernel: Any = None, **options: Any) -> Any:
    name = text.partition("(")[0]
    lib.define(text, **options)
    if kernel is not None:
        lib.impl(name, kernel, "CompositeExplicitAutograd")
        polyop.library.register_fake(f"tag_tests::{name}", lambda x: x.new_empty(x.shape), lib=lib)
    return getattr(polyop.ops.tag_tests, name).default


# -- which there are --------------------------------------------------------------


def test_the_tags_are_pytorchs() -> None:
    """S196: every tag of PyTorch is here by its name, and no other."""
    assert set(Tag.__members__) == set(torch.Tag.__members__)
    assert all(tag.name == tag.value for tag in Tag)


def test_an_operator_has_the_tags_that_it_was_given(lib: Library) -> None:
    """S196: tags are given as members or names, one or several; unknown ones are refused."""
    assert define(lib, "a(Tensor x) -> Tensor", tags=Tag.pointwise).tags == (Tag.pointwise,)
    both = define(lib, "b(Tensor x) -> Tensor", tags=["reduction", Tag.cudagraph_unsafe])
    assert set(both.tags) == {Tag.reduction, Tag.cudagraph_unsafe}
    assert not define(lib, "c(Tensor x) -> Tensor").tags
    with pytest.raises(UsageError, match="did you mean 'pointwise'"):
        lib.define("d(Tensor x) -> Tensor", tags="pointwize")
    with pytest.raises(UsageTypeError, match="not a tag"):
        lib.define("d(Tensor x) -> Tensor", tags=[3])
    assert not hasattr(polyop.ops.tag_tests, "d")


def test_built_in_operators_are_tagged_by_what_they_do() -> None:
    """S196: tags of built-in operators agree with their schemas and with those of PyTorch's."""
    for definition in DEFINITIONS.values():
        op = definition.op
        if not op.is_builtin or mutable_of(op) is not None:  # twins come with their first use
            continue
        assert Tag.core in op.tags
        assert (Tag.inplace in op.tags) == op._schema.is_mutable, op
        twin = getattr(torch.ops.aten, op._opname, None)
        theirs = {t.name for o in (twin.overloads() if twin else ()) for t in getattr(twin, o).tags}
        if "nondeterministic_seeded" in theirs and op._opname not in {"normal", "uniform"}:
            assert Tag.nondeterministic_seeded in op.tags, op
        if Tag.dynamic_output_shape in op.tags and theirs:
            assert "dynamic_output_shape" in theirs, op


# -- layouts ----------------------------------------------------------------------


@pytest.mark.parametrize("some", [c for n in range(5) for c in itertools.combinations(LAYOUTS, n)])
def test_the_strictest_layout_tag_counts(lib: Library, some: tuple[Tag, ...]) -> None:
    """S197: of several layout tags the strictest counts, whatever their order; exact without."""
    op = define(lib, "f(Tensor x) -> Tensor", tags=(*reversed(some), Tag.pointwise))
    assert layout_of(op) is (some[0] if some else Tag.needs_exact_strides)


def test_layouts_are_pytorchs() -> None:
    """S197: the order is the one of PyTorch, and built-in operators take any layout."""
    from torch._library.utils import get_layout_constraint_tag  # noqa: PLC0415

    assert public_layout_of is layout_of
    assert layout_of("core::add") is Tag.flexible_layout
    library = torch.library.Library("polyop_tag_tests", "FRAGMENT")
    try:
        for i, some in enumerate(c for n in range(5) for c in itertools.combinations(LAYOUTS, n)):
            theirs = [torch.Tag.__members__[t.name] for t in some]
            library.define(f"f{i}(Tensor x) -> Tensor", tags=tuple(theirs))
            found = get_layout_constraint_tag(getattr(torch.ops.polyop_tag_tests, f"f{i}").default)
            with scoped_library("tag_tests", "DEF") as lib:
                assert layout_of(define(lib, "f(Tensor x) -> Tensor", tags=some)).name == found.name
    finally:
        library._destroy()


BASE = np.arange(120.0).reshape(4, 5, 6)
LAID_OUT = {
    "contiguous": BASE,
    "transposed": BASE.transpose(2, 0, 1),
    "sliced": BASE[::2, 1:, ::-1],
    "expanded": np.broadcast_to(BASE[:, :1, :1], (4, 3, 2)),
    "empty": BASE[:0].transpose(1, 0, 2),
    "one": BASE[1:2, ::3, 2:3],
}
PROGRAMS: dict[str, Any] = {
    "itself": lambda x: (x,),
    "pointwise": lambda x: (x.sin() * 2, (x + x.transpose(0, 0)).exp()),
    "views": lambda x: (x.transpose(0, 2), x[1:], x[..., None].expand_dims(0)),
    "reductions": lambda x: (x.sum(axis=1), polyop.softmax(x), polyop.std(x, axis=0)),
    "joined": lambda x: (polyop.concat([x, x]), polyop.stack([x, x * 2], axis=1)),
    "dead": lambda x: ((x * 0, x.transpose(0, 1) + 1)[1],),
    "equal": lambda x: (x.transpose(0, 1) * 2, x.transpose(0, 1) * 2),
}


@pytest.mark.parametrize("layout", LAID_OUT)
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_kernels_get_eager_strides(
    lib: Library, layout: str, program: str, dynamic: bool
) -> None:
    """S197: in compiled code a custom operator's inputs have the strides of the eager call."""
    seen: list[Any] = []

    def kernel(x: Tensor) -> Tensor:
        seen.append((x.shape, x.stride()))
        return of_array(np.cos(x.numpy()))

    op = define(lib, "seer(Tensor x) -> Tensor", kernel)
    make = PROGRAMS[program]

    def f(x: Tensor) -> Any:
        return [op(y) for y in make(x)]

    if program == "views" and layout == "one":
        make = PROGRAMS["itself"]
    with np.errstate(all="ignore"):
        wanted = f(of_array(LAID_OUT[layout]))
        eager, seen[:] = list(seen), []
        got = compiled(f, fullgraph=True, dynamic=dynamic)(of_array(LAID_OUT[layout]))
    assert seen == eager
    for a, b in zip(got, wanted, strict=True):
        assert np.array_equal(a.numpy(), b.numpy(), equal_nan=True)


def test_passes_keep_strides(lib: Library) -> None:
    """S197, S210: after every pass a kernel gets the strides of the eager call."""
    seen: list[Any] = []

    def kernel(x: Tensor) -> Tensor:
        seen.append(x.stride())
        return of_array(x.numpy() * 1)

    op = define(lib, "seer(Tensor x) -> Tensor", kernel)

    def f(x: Tensor) -> Any:
        flipped = (x * 2).transpose(0, 2)
        return op(flipped), op((x * 2).transpose(0, 2) + 1), op(flipped.sum(axis=0))

    x = of_array(LAID_OUT["sliced"])
    module = make_fx(f, "symbolic")(x)
    seen.clear()
    f(x)
    eager = list(seen)
    for change in (eliminate_dead_code, eliminate_common_subexpressions):
        change(module.graph)
    fold_constants(module)
    module.recompile()
    seen.clear()
    module(x)
    assert seen == eager


# -- purity -----------------------------------------------------------------------


def test_what_is_impure(lib: Library) -> None:
    """S198: writing, drawing and effects make an operator impure; nothing else does."""
    assert not is_impure(polyop.ops.core.add.default)
    assert is_impure(polyop.ops.core.add_)
    assert is_impure(polyop.ops.core.rand.default)
    assert not is_impure(polyop.ops.core.unique_values)
    assert is_impure(define(lib, "writes(Tensor(a!) x) -> ()"))
    assert is_impure(define(lib, "draws(Tensor x) -> Tensor", tags=Tag.nondeterministic_seeded))
    assert not is_impure(define(lib, "v(Tensor(a) x) -> Tensor(a)"))
    for tag in set(Tag) - {Tag.nondeterministic_seeded, Tag.inplace, Tag.out}:
        op = define(lib, f"tagged_{tag.name}(Tensor x) -> Tensor", tags=tag)
        assert not is_impure(op), tag


def test_purity_of_built_in_operators_is_pytorchs() -> None:
    """S198: those of PyTorch's name are impure where PyTorch's nodes are."""
    graph = torch.fx.Graph()
    for definition in DEFINITIONS.values():
        op = definition.op
        twin = getattr(torch.ops.aten, op._opname, None)
        if not op.is_builtin or twin is None:
            continue
        theirs = {
            graph.call_function(getattr(twin, o)).is_impure()
            for o in twin.overloads()
            if not o.endswith("out") and (o == "default" or not getattr(twin, o)._schema.is_mutable)
        }
        if len(theirs) == 1:
            assert {is_impure(op)} == theirs, op


def test_pure_calls_are_removed_and_merged_and_others_stay(lib: Library) -> None:
    """S198: a pass removes and merges pure calls of custom operators, and no impure ones."""
    pure = define(lib, "pure(Tensor x) -> Tensor")
    draw = define(lib, "draw(Tensor x) -> Tensor", tags=Tag.nondeterministic_seeded)
    write = define(lib, "write(Tensor(a!) x) -> ()")
    graph = Graph()
    x = graph.placeholder("x")
    for op in (pure, draw, write, pure, draw, write):
        graph.call_function(op, (x,))
    kept = [graph.call_function(op, (x,)) for op in (pure, pure, draw, draw)]
    graph.output(graph.call_function(polyop.ops.core.stack.default, (kept,)))
    eliminate_common_subexpressions(graph)
    eliminate_dead_code(graph)
    left = [node.target for node in graph.nodes if node.op == "call_function"]
    assert left == [draw, write, draw, write, pure, draw, draw, polyop.ops.core.stack.default]


def test_a_tag_of_maybe_aliasing_keeps_calls_apart(lib: Library) -> None:
    """S196: two calls that may give back their argument stay two where the caller may write."""
    op = define(lib, "maybe(Tensor x) -> Tensor", tags=Tag.maybe_aliasing_or_mutating)
    write = define(lib, "write(Tensor(a!) x) -> ()")
    graph = Graph()
    x = graph.placeholder("x")
    once = graph.call_function(polyop.ops.core.sin.default, (x,))
    twice = graph.call_function(polyop.ops.core.sin.default, (x,))
    graph.call_function(write, (graph.call_function(op, (once,)),))
    graph.output([twice])
    eliminate_common_subexpressions(graph)
    assert [n.target for n in graph.nodes].count(polyop.ops.core.sin.default) == 2
