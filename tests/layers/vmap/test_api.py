"""The laws of `vmap` itself: axes, structures, results, errors (S154, S160)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.layers.vmap.oracle import arrays, looped

import polyop.assembly  # noqa: F401
from polyop.errors import UsageError, VmapError
from polyop.layers.vmap import vmap
from polyop.ops.elementwise import add, multiply, sin
from polyop.ops.views import moveaxis, reshape
from polyop.tensor.tensor import Tensor, of_array


def tensor(*shape: int, start: float = 0.0) -> Tensor:
    return of_array(np.arange(start, start + np.prod(shape)).reshape(shape))


@pytest.mark.parametrize("dims", [(0, 0), (1, 0), (0, None), (None, 1), (-1, -2), (2, 0)])
def test_in_dims_pick_the_axis_of_each_argument(dims: tuple[Any, ...]) -> None:
    """S154: each argument is mapped over its axis; None is the same for all samples."""
    x, y = tensor(3, 3, 3), tensor(3, 3, 3, start=40)
    got = vmap(lambda a, b: add(multiply(a, b), a), dims)(x, y)
    want = looped(lambda a, b: add(multiply(a, b), a), dims, x, y)
    np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("out", [0, 1, 2, -1, -2, -3])
def test_out_dims_places_the_axis(out: int) -> None:
    """S154: the results' mapped axis is where out_dims says."""
    x = tensor(4, 2, 3)
    got = vmap(sin, out_dims=out)(x)
    np.testing.assert_array_equal(got.numpy(), np.moveaxis(np.sin(x.numpy()), 0, out))


def test_trees_of_arguments_and_results() -> None:
    """S154: in_dims and out_dims are trees above those of arguments and results."""
    w, x = tensor(2, 3), tensor(3, 4)

    def f(p: Any, k: float) -> Any:
        return {"a": multiply(p["w"], k), "b": (p["x"], [add(p["x"], p["x"])])}

    got = vmap(f, ({"w": 1, "x": 0}, None), {"a": 1, "b": 0})({"w": w, "x": x}, 2.0)
    np.testing.assert_array_equal(got["a"].numpy(), w.numpy() * 2)
    np.testing.assert_array_equal(got["b"][1][0].numpy(), x.numpy() * 2)


def test_unbatched_result_is_repeated() -> None:
    """S154: a result that does not depend on the sample is repeated, in memory of its own."""
    x, c = tensor(3), tensor(2)
    got = vmap(lambda a: c, out_dims=1)(x)
    np.testing.assert_array_equal(got.numpy(), np.stack([c.numpy()] * 3, 1))
    assert not np.shares_memory(got.numpy(), c.numpy())
    assert vmap(lambda a: (c, 5), out_dims=None)(x) == (c, 5)


def test_nested_levels_by_identity() -> None:
    """S154: an inner vmap sees the outer one's tensors as constants."""
    x, y = tensor(2), tensor(3, start=5)
    got = vmap(lambda a: vmap(lambda b: multiply(add(a, b), a))(y))(x)
    want = (x.numpy()[:, None] + y.numpy()) * x.numpy()[:, None]
    np.testing.assert_array_equal(got.numpy(), want)


def test_three_levels() -> None:
    """S154: levels nest."""
    x = tensor(2, 3, 4, 5)
    got = vmap(vmap(vmap(lambda a: reshape(a, [1, -1]), 1, 1), 0), 2, 0)(x)
    want = [[x.numpy()[i, :, k, :].T for i in range(2)] for k in range(4)]
    assert got.shape == (4, 2, 1, 5, 3)
    np.testing.assert_array_equal(got.numpy()[:, :, 0], want)


def test_chunks_equal_the_whole() -> None:
    """S154: chunk_size changes nothing but the memory."""
    x, y = tensor(7, 2), tensor(2, 7)
    f = lambda a, b: (add(a, b), {"k": multiply(a, a)})  # noqa: E731
    whole = vmap(f, (0, 1), (0, 1))(x, y)
    for size in (1, 2, 3, 7, 100):
        part = vmap(f, (0, 1), (0, 1), chunk_size=size)(x, y)
        np.testing.assert_array_equal(part[0].numpy(), whole[0].numpy())
        np.testing.assert_array_equal(part[1]["k"].numpy(), whole[1]["k"].numpy())


def test_keyword_arguments_are_not_mapped() -> None:
    """S154: keyword arguments are the same for all samples."""
    x, y = tensor(2, 3), tensor(2)
    got = vmap(lambda a, *, b: (a, b), out_dims=(0, None))(x, b=y)
    assert got[1] is y


def test_factories_make_constants() -> None:
    """S154: a tensor made inside is the same for all samples."""
    x = tensor(2, 3)
    got = vmap(lambda a: add(a, of_array(np.ones(3))))(x)
    np.testing.assert_array_equal(got.numpy(), x.numpy() + 1)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (
            lambda x: vmap(add)(x, tensor(4)),
            ("x2 (position 1)", "size 4", "size 2", "x1 (position 0)"),
        ),
        (lambda x: vmap(sin, 2)(x), ("in_dims 2", "(2, 3)", "from -2 to 1")),
        (lambda x: vmap(sin)(tensor()), ("without axes",)),
        (lambda x: vmap(sin)(3.0), ("argument is none", "3.0")),
        (lambda x: vmap(add, (0,))(x, x), ("structure of in_dims", "(0,)")),
        (lambda x: vmap(lambda d: d, ({"k": 0},))({"j": x}), ("structure", "[0]")),
        (lambda x: vmap(add, None)(x, x), ("nothing to map over",)),
        (lambda x: vmap(sin)(), ("needs an argument",)),
        (lambda x: vmap(lambda a: 3.0)(x), ("this result is none", "3.0")),
        (lambda x: vmap(sin, out_dims=None)(x), ("differs from sample", "out_dims None")),
        (lambda x: vmap(sin, out_dims=5)(x), ("does not have", "out_dims 5")),
        (lambda x: vmap(lambda a: (a, a), out_dims=(0,))(x), ("structure of out_dims",)),
        (lambda x: vmap(lambda a: a.item())(x), ("item()", "2 of them")),
        (lambda x: vmap(lambda a: a if a else a)(tensor(2)), ("bool()",)),
    ],
)
def test_errors_name_the_argument(call: Any, parts: tuple[str, ...]) -> None:
    """S154: what does not fit raises VmapError that says which argument, and why."""
    with pytest.raises(VmapError) as caught:
        call(tensor(2, 3))
    for part in parts:
        assert part in str(caught.value)


def test_options_are_checked_at_once() -> None:
    """S160: an unknown randomness or chunk size is refused before any call."""
    with pytest.raises(UsageError, match="did you mean 'same'"):
        vmap(sin, randomness="sane")
    with pytest.raises(UsageError, match="chunk_size"):
        vmap(sin, chunk_size=0)
    with pytest.raises(UsageError, match="takes a function"):
        vmap(3)  # type: ignore[arg-type]


def test_escaped_batches_are_refused() -> None:
    """S160: a batched tensor used after its vmap has ended raises, whatever runs then."""
    kept: list[Tensor] = []

    def keep(a: Tensor) -> Tensor:
        kept.append(a)
        return a

    x = tensor(2, 3)
    vmap(keep)(x)
    calls = [
        lambda: sin(kept[0]),
        lambda: add(kept[0], kept[0]),
        lambda: add(kept[0], x),
        lambda: reshape(kept[0], [-1]),
        lambda: vmap(lambda b: add(b, kept[0]))(x),
        lambda: vmap(lambda b: reshape(kept[0], [-1]))(x),
    ]
    for call in calls:
        with pytest.raises(VmapError, match="after vmap has ended"):
            call()


def test_the_level_ends_with_an_error() -> None:
    """S4: an error inside leaves no level behind."""

    def fails(a: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        vmap(fails)(tensor(2))
    assert add(tensor(2), 1.0).keys == 1
    np.testing.assert_array_equal(arrays(vmap(sin)(tensor(2))), np.sin(np.arange(2.0)))


def test_the_users_tensor_keeps_its_shape() -> None:
    """S159: no call moves the axes of the caller's own tensor."""
    x, y = tensor(2, 3), tensor(3)
    vmap(lambda a, b: add(a, b), (1, 0))(x, y)
    vmap(lambda a: moveaxis(reshape(a, [1, 2]), 0, 1), 1, 1)(x)
    assert x.shape == (2, 3)
    assert x.numpy().flags.c_contiguous
