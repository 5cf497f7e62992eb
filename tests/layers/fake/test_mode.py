"""The fake mode: what it makes, what it refuses, and what it remembers."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.dispatch.context import word
from polyop.dispatch.registry import find_operator
from polyop.errors import (
    ArgumentError,
    DataDependentOutputError,
    FakeError,
    UsageError,
    UsageTypeError,
)
from polyop.layers.fake import FakeTensorMode
from polyop.ops.elementwise import add, multiply, sin
from polyop.ops.inplace import INPLACE_TWINS
from polyop.ops.views import permute_dims, reshape
from polyop.symbolic import ShapeEnv, SymInt
from polyop.tensor.meta import Meta
from polyop.tensor.storage import version_of
from polyop.tensor.tensor import Tensor, of_array


def real(*shape: int, dtype: str = "float32") -> Tensor:
    return of_array(np.ones(shape, dtype))


# -- making fakes --------------------------------------------------------------


def test_a_fake_has_the_facts_and_no_data() -> None:
    """S147: a fake has the real shape, dtype and device; its data cannot be read."""
    x = FakeTensorMode().from_tensor(real(2, 3))
    assert (x.shape, x.dtype, str(x.device), x.is_fake) == (
        (2, 3),
        np.dtype("float32"),
        "cpu",
        True,
    )
    for look in (Tensor.numpy, Tensor.tolist, Tensor.__bool__, Tensor.item):
        with pytest.raises(DataDependentOutputError, match="no data|has none"):
            look(x)


def test_one_fake_per_tensor() -> None:
    """S147: a tensor has one fake in a mode, while both live."""
    mode, t = FakeTensorMode(), real(2)
    assert mode.from_tensor(t) is mode.from_tensor(t)
    assert mode.from_tensor(mode.from_tensor(t)) is mode.from_tensor(t)
    assert FakeTensorMode().from_tensor(t) is not mode.from_tensor(t)


def test_the_mode_keeps_no_tensor_alive() -> None:
    """S147: the mode forgets the fake of a tensor that is gone."""
    mode, t = FakeTensorMode(), real(2)
    fake = weakref.ref(mode.from_tensor(t))
    del t
    gc.collect()
    assert fake() is None


def test_views_of_one_base_stay_together() -> None:
    """S147: fakes of views share the version of their base's fake."""
    mode, base = FakeTensorMode(), real(2, 3)
    view = mode.from_tensor(permute_dims(base, [1, 0]))
    whole = mode.from_tensor(base)
    assert view._base is whole
    before = version_of(view)
    find_operator("core::zero_").entry(whole)
    assert version_of(view) == version_of(whole) == before + 1


def test_strides_are_kept() -> None:
    """S147: a fake of a transposed tensor is transposed."""
    x = FakeTensorMode().from_tensor(of_array(np.ones((2, 3)).T))
    assert (x.shape, x.stride(), x.is_contiguous()) == ((3, 2), (1, 3), False)


def test_no_tensor_no_fake() -> None:
    """S1: a fake is made of a Tensor only."""
    with pytest.raises(UsageTypeError, match="ndarray"):
        FakeTensorMode().from_tensor(np.ones(2))  # type: ignore[arg-type]
    with pytest.raises(UsageTypeError, match="shape_env"):
        FakeTensorMode(shape_env=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="need a ShapeEnv"):
        FakeTensorMode(static_shapes=False)


# -- symbolic sizes ------------------------------------------------------------


def symbolic() -> FakeTensorMode:
    return FakeTensorMode(shape_env=ShapeEnv())


def test_sizes_become_symbols() -> None:
    """S150: sizes become symbols, equal ones the same; 0 and 1 stay constants."""
    x = symbolic().from_tensor(real(4, 4, 1, 0, 5), source="x")
    a, b, one, zero, c = x.shape
    assert type(a) is SymInt and a is b and a is not c
    assert (one, zero, c.hint) == (1, 0, 5)  # type: ignore[union-attr]


def test_a_dynamic_axis_has_its_own_symbol() -> None:
    """S150: an axis marked dynamic gets a symbol of its own, for 1 too."""
    x = symbolic().from_tensor(real(1, 4, 4), dynamic=(0, -1))
    one, a, b = x.shape
    assert type(one) is SymInt and a is not b


def test_static_shapes_stay_ints() -> None:
    """S147: `static_shapes` keeps sizes plain, in spite of a `ShapeEnv`."""
    mode = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True)
    assert mode.from_tensor(real(4)).shape == (4,)


def test_symbolic_strides_follow_from_sizes() -> None:
    """S150: the strides of a transposed dense tensor are products of its sizes."""
    env = ShapeEnv()
    mode = FakeTensorMode(shape_env=env)
    x = mode.from_tensor(of_array(np.ones((3, 4, 5)).transpose(2, 0, 1)), source="x")
    k, n, m = x.shape
    assert x.stride() == (1, m * k, k)
    assert not any("stride" in source for source in env.sources)


def test_arithmetic_on_symbols() -> None:
    """S151: shapes of results are expressions of the symbols."""
    x = symbolic().from_tensor(real(3, 4))
    a, b = x.shape
    assert reshape(x, [-1]).shape[0] is a * b
    assert reshape(add(x, x), [a * b]).shape[0] is a * b


# -- what is refused -----------------------------------------------------------


def test_a_real_tensor_is_refused_by_name() -> None:
    """S148: a real tensor in a fake call is an error that names the argument."""
    x = FakeTensorMode().from_tensor(real(3))
    with pytest.raises(FakeError, match=r"argument: b \(position 1\)"):
        add(x, real(3))
    with FakeTensorMode(), pytest.raises(FakeError, match=r"argument: a \(position 0\)"):
        add(real(3), real(3))


def test_a_mode_may_allow_real_tensors() -> None:
    """S148: with `allow_non_fake_inputs` a real tensor counts as its fake."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    x = mode.from_tensor(real(2, 3))
    for _ in range(2):
        assert add(x, real(3)).is_fake
        assert add(real(3), x).shape == (2, 3)
    with mode:
        assert sin(real(3)).is_fake


def test_two_modes_do_not_mix() -> None:
    """S148: fakes of two modes in one call, or a fake inside another mode, are an error."""
    a, b = FakeTensorMode(), FakeTensorMode()
    x, y = a.from_tensor(real(3)), b.from_tensor(real(3))
    add(x, x)
    with pytest.raises(FakeError, match="another"):
        add(x, y)
    with b, pytest.raises(FakeError, match="another"):
        add(x, x)
    with pytest.raises(FakeError, match="another"):
        b.from_tensor(x)


def test_shapes_that_do_not_fit() -> None:
    """S1: fakes are refused as their tensors would be; nothing is remembered or counted."""
    mode = FakeTensorMode()
    x, y = mode.from_tensor(real(2, 3)), mode.from_tensor(real(4))
    for _ in range(2):
        with pytest.raises(ArgumentError, match="broadcast") as caught:
            add(x, y)
        assert caught.value.__context__ is None
    assert INPLACE_TWINS
    with pytest.raises(ArgumentError):
        find_operator("core::add_").entry(y, x)
    assert version_of(y) == 0


# -- the mode itself -----------------------------------------------------------


def test_the_mode_ends_with_its_block() -> None:
    """S98: inside the block the mode is active, outside it is not, errors included."""
    mode = FakeTensorMode()
    with pytest.raises(ZeroDivisionError), mode:
        assert word().fake is mode
        raise ZeroDivisionError
    assert word().fake is None
    with mode, mode:
        assert word().fake is mode
    assert not sin(real(2)).is_fake


def test_threads_have_their_own_mode() -> None:
    """S98: a mode entered in one thread is not seen in another."""
    seen: list[Any] = []
    with FakeTensorMode():
        thread = threading.Thread(target=lambda: seen.append(sin(real(2)).is_fake))
        thread.start()
        thread.join()
    assert seen == [False]


def test_fakes_in_many_threads() -> None:
    """S4: threads that share a mode get the same metas."""
    mode = FakeTensorMode()
    xs = [mode.from_tensor(real(n, 3)) for n in range(2, 30)]
    found: list[list[Any]] = []

    def work() -> None:
        found.append([multiply(sin(x), x).payload for x in xs])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(a is b for metas in found for a, b in zip(metas, found[0], strict=True))


# -- the memo ------------------------------------------------------------------


def test_number_classes_differ_in_the_memo() -> None:
    """S149: `1`, `1.0` and `True` are three keys."""
    x = FakeTensorMode().from_tensor(real(3, dtype="int64"))
    for _ in range(2):
        assert add(x, 1).dtype == np.dtype("int64")
        assert add(x, 1.0).dtype == np.dtype("float64")
        assert add(x, True).dtype == np.dtype("int64")
    flags = FakeTensorMode().from_tensor(of_array(np.ones(3, bool)))
    for _ in range(2):
        assert add(flags, True).dtype == np.dtype("bool")
        assert add(flags, 1).dtype == np.dtype("int64")


def test_equal_facts_are_one_object() -> None:
    """S149: results with equal facts have the same meta, so identity is equality."""
    mode = FakeTensorMode()
    x = mode.from_tensor(real(2, 3))
    assert add(x, x).payload is sin(x).payload is x.payload
    assert isinstance(x.payload, Meta)


def test_results_are_new_tensors() -> None:
    """S149: a remembered result is wrapped anew: writes to one leave the other alone."""
    x = FakeTensorMode().from_tensor(real(2, 3))
    a, b = add(x, x), add(x, x)
    assert a is not b
    find_operator("core::zero_").entry(a)
    assert (version_of(a), version_of(b)) == (1, 0)


def test_a_write_returns_its_argument() -> None:
    """S146: an operator that writes in place gives that very fake, with one more write."""
    x = FakeTensorMode().from_tensor(real(2, 3))
    assert find_operator("core::add_").entry(x, x) is x
    assert version_of(x) == 1


def test_views_of_fakes_are_views() -> None:
    """S135: a view of a fake shares its version and knows its base."""
    x = FakeTensorMode().from_tensor(real(2, 3))
    flat = reshape(x, [6])
    assert flat._base is x
    find_operator("core::zero_").entry(flat)
    assert version_of(x) == 1
    copied = reshape(permute_dims(x, [1, 0]), [6])
    assert copied._base is None
