"""What errors and warnings about foreign arrays advise works, and points to the user's line."""

from __future__ import annotations

import warnings
from typing import Any

import dask.array as da
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop
from polyop.errors import (
    ArgumentError,
    DynamicOutputShapeError,
    PerformanceWarning,
    RegistrationError,
    UsageError,
)

MADE = {
    "torch": lambda: torch.full((3,), 2.0),
    "bfloat16": lambda: torch.full((3,), 2.0, dtype=torch.bfloat16),
    "jax": lambda: jnp.full((3,), 2.0),
    "dask": lambda: da.full((3,), 2.0, chunks=2),
    "polyop": lambda: polyop.from_array(torch.full((3,), 2.0)),
}


@pytest.mark.parametrize("second", MADE)
def test_two_libraries(second: str) -> None:
    """S63: what is advised for the second array works for the arrays of every library."""
    a = jnp.ones(3) if second != "jax" else torch.ones(3)
    b = MADE[second]()
    with pytest.raises(ArgumentError, match="two libraries") as caught:
        polyop.add(a, b)
    assert caught.value.fix.endswith("polyop.from_array(b).numpy()")
    done = polyop.add(a, polyop.from_array(b).numpy())
    assert type(done) is type(a) and np.array_equal(np.asarray(done), [3.0, 3.0, 3.0])


@pytest.fixture
def lib() -> Any:
    with polyop.scoped_library("bridge_advice", "FRAGMENT") as made:
        yield made


def dynamic(lib: Any, schema: str, rule: Any) -> Any:
    lib.define(schema)
    name = schema.partition("(")[0]
    polyop.library.register_fake(f"bridge_advice::{name}", rule, lib=lib)
    return getattr(polyop.ops.bridge_advice, name)


def test_padded_forms_are_advised_where_there_is_one(lib: Any) -> None:
    """S143: a size that depends on data: the padded form is named if the operator has one."""

    def size() -> Any:
        return polyop.library.get_ctx().new_dynamic_size(max=3)

    count = dynamic(lib, "count(Tensor x) -> SymInt", lambda x: size())
    with pytest.raises(DynamicOutputShapeError, match=r"outside of jax\.jit") as caught:
        jax.jit(count)(jnp.ones(3))
    assert "padded" not in str(caught.value)
    with pytest.raises(RegistrationError, match="cannot be padded"):
        polyop.library.padded(count)
    some = dynamic(lib, "some(Tensor x) -> Tensor", lambda x: x.new_empty([size()]))
    with pytest.raises(DynamicOutputShapeError, match=r"padded\('bridge_advice::some'\)"):
        jax.jit(some)(jnp.ones(3))
    assert polyop.library.padded(some) is not None


def warned(run: Any) -> list[Any]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run()
    return [w for w in seen if issubclass(w.category, PerformanceWarning)]


@pytest.mark.parametrize(
    ("schema", "index"),
    [
        ("one(Tensor x) -> Tensor", "(k)->()"),
        ("two(Tensor x, Tensor? y=None, int n=1) -> Tensor", None),
        ("pair(Tensor x, Tensor y) -> (Tensor, Tensor)", "(k),(k)->(),()"),
        ("list(Tensor[] x) -> Tensor", None),
    ],
)
def test_the_index_signature_fits_the_operator(lib: Any, schema: str, index: str | None) -> None:
    """S66: an example of an index signature has a group per Tensor, or is not given at all."""
    lib.define(schema)
    op = getattr(polyop.ops.bridge_advice, schema.partition("(")[0])
    n = schema.partition(" ->")[2].count("Tensor")
    made = [lambda *a: polyop.ones(()), lambda *a: (polyop.ones(()), polyop.ones(()))]
    lib.impl(op.default, made[n - 1], "CPU")
    x = da.ones(4, chunks=2)
    args = ([x],) if "[]" in schema else (x,) * (1 + schema.count("Tensor y"))
    [warning] = warned(lambda: op(*args))
    text = str(warning.message)
    assert (f"register_index({index!r})" in text) if index else "register_index" not in text
    if index is not None:
        polyop.library.register_index(op, index, lib=lib)
        return
    with pytest.raises(UsageError, match="register the rules themselves"):
        polyop.library.register_index(op, "(k)->()", lib=lib)


WAYS = {
    "vmap": lambda f: jax.vmap(f)(jnp.ones((2, 3))),
    "jit": lambda f: jax.jit(jax.vmap(f))(jnp.ones((2, 3))),
    "chunks": lambda f: f(da.ones(4, chunks=2)),
    "own": lambda f: polyop.vmap(f)(polyop.ones((2, 3))),
}


@pytest.mark.parametrize("way", WAYS)
def test_warnings_point_to_the_user(lib: Any, way: str) -> None:
    """S4: no frame of a framework stands for the user's line."""
    op = dynamic(lib, f"double_{way}(Tensor x) -> Tensor", polyop.empty_like)
    lib.impl(op.default, lambda x: x * 2, "CPU")
    [warning] = warned(lambda: WAYS[way](op))
    assert warning.filename == __file__
