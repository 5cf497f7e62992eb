"""The Array API standard: every name, and what array-api-strict answers to the same calls."""

from __future__ import annotations

import inspect
import operator
import subprocess
import sys
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.array_api import (
    BINARY,
    DTYPES,
    SHAPES,
    UNARY,
    agree,
    calls,
    definite,
    noise,
    pairs,
    same,
)

import polyop
from polyop.errors import ArgumentError, AutogradError, UsageError, UsageTypeError


@pytest.fixture(autouse=True, scope="module")
def newest() -> Any:
    """The oracle answers in its newest version, which has all that ours has."""
    strict.set_array_api_strict_flags(api_version="2025.12")
    yield
    strict.reset_array_api_strict_flags()


FOREIGN = {"Device", "ArrayAPIStrictFlags", "ModuleType"}


def public(space: Any) -> set[str]:
    names = getattr(space, "__all__", None) or dir(space)
    return {n for n in names if not n.startswith("_") and "strict_flags" not in n} - FOREIGN


# -- names ------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["", "linalg", "fft"])
def test_every_name_is_there(space: str) -> None:
    """Functions, constants, dtypes, and both extensions have the standard's names."""
    theirs, ours = (getattr(s, space) if space else s for s in (strict, polyop))
    assert {n for n in public(theirs) if not hasattr(ours, n)} == set()


@pytest.mark.parametrize("space", ["", "linalg", "fft"])
def test_every_function_takes_the_standards_words(space: str) -> None:
    """Each keyword of the standard's functions is one of ours."""
    theirs, ours = (getattr(s, space) if space else s for s in (strict, polyop))
    for name in public(theirs):
        wanted = getattr(theirs, name)
        if not inspect.isfunction(wanted):
            continue
        words = {
            p.name
            for p in inspect.signature(wanted).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        }
        assert words <= set(inspect.signature(getattr(ours, name)).parameters), name


def test_arrays_have_every_attribute() -> None:
    """Tensors have the attributes, methods and operators of the standard's array object."""
    standard = {n for n in dir(strict.asarray([1.0])) if n.startswith("__") or n[0] != "_"}
    standard -= {"__buffer__", "_array"}
    assert {n for n in standard if not hasattr(polyop.Tensor, n)} == set()


def test_the_namespace_says_who_it_is() -> None:
    """An array gives its namespace, in versions that are answered, and says what that has."""
    x = polyop.ones(2)
    assert x.__array_namespace__() is x.__array_namespace__(api_version="2024.12") is polyop
    assert polyop.__array_api_version__ == "2024.12"
    with pytest.raises(UsageError, match="no such version"):
        x.__array_namespace__(api_version="1999.12")
    info = polyop.__array_namespace_info__()
    assert info.default_device() == polyop.ones(1).device
    assert info.default_device() in info.devices()
    defaults = info.default_dtypes()
    assert defaults["real floating"] == polyop.ones(1).dtype
    assert defaults["integral"] == polyop.arange(1).dtype
    assert defaults["indexing"] == polyop.argmax(x).dtype
    assert defaults["complex floating"] == polyop.asarray(1j).dtype
    assert set(info.dtypes()) == set(DTYPES)
    theirs = strict.__array_namespace_info__()
    for kind in ("bool", "signed integer", "numeric", ("real floating", "complex floating")):
        assert set(info.dtypes(kind=kind)) == set(theirs.dtypes(kind=kind))
    assert info.capabilities()["data-dependent shapes"] is True
    with pytest.raises(UsageError):
        info.dtypes(device="xla")


# -- the same answers --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_of_one_array(dtype: str) -> None:
    """Each function of one array gives the oracle's shape, dtype and elements."""
    done = [agree(n, noise(dtype, s)) for n in UNARY for s in SHAPES]
    assert sum(done) > 40


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_with_more_arguments(dtype: str) -> None:
    """So do those with axes, sizes, orders and other words."""
    found = calls(dtype)
    done = {name for name, args, kwargs in found if agree(name, *args, **kwargs)}
    assert len(done) > 30


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_of_two_arrays(dtype: str) -> None:
    """So do those of two arrays, of any two dtypes, and of an array and a number."""
    done = 0
    for other in DTYPES:
        done += sum(agree(n, noise(dtype), noise(other, (4,), 1)) for n in BINARY)
        done += sum(agree(n, *args, **kwargs) for n, args, kwargs in pairs(dtype, other))
    for number in (True, 2, 1.5, 2j):
        done += sum(agree(n, noise(dtype), number) for n in BINARY)
        done += sum(agree(n, number, noise(dtype)) for n in BINARY)
    assert done > 60


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_shapes_and_dtypes(data: Any) -> None:
    """Whatever shapes broadcast and dtypes promote, both give the same."""
    name = data.draw(st.sampled_from([*BINARY, "where", "maximum", "broadcast_arrays"]))
    shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
    shapes = [
        tuple([1 if data.draw(st.booleans()) else n for n in shape[data.draw(st.integers(0, 1)) :]])
        for _ in range(2)
    ]
    one, two = (noise(data.draw(st.sampled_from(DTYPES)), s, i) for i, s in enumerate(shapes))
    given_ = [noise("bool", shapes[0], 2)] if name == "where" else []
    agree(name, *given_, one, two)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=3))
def test_shapes_broadcast(shapes: list[list[int]]) -> None:
    """`broadcast_shapes` gives NumPy's shape, or refuses where NumPy does."""
    try:
        wanted = np.broadcast_shapes(*map(tuple, shapes))
    except ValueError:
        with pytest.raises(ArgumentError, match="broadcast"):
            polyop.broadcast_shapes(*map(tuple, shapes))
        return
    assert polyop.broadcast_shapes(*map(tuple, shapes)) == wanted


@pytest.mark.parametrize("dtype", DTYPES)
def test_limits_of_dtypes(dtype: str) -> None:
    """`finfo` and `iinfo` have the oracle's fields; of other dtypes they tell nothing."""
    kind = np.dtype(dtype).kind
    for name, fits, words in (
        ("finfo", kind in "fc", "bits eps max min smallest_normal dtype"),
        ("iinfo", kind in "iu", "bits max min dtype"),
    ):
        if not fits:
            with pytest.raises(UsageTypeError, match="tells of"):
                getattr(polyop, name)(np.dtype(dtype))
            continue
        wanted = getattr(strict, name)(getattr(strict, dtype))
        found = getattr(polyop, name)(polyop.zeros(1, dtype=np.dtype(dtype)))
        for word in words.split():
            same(name, getattr(wanted, word), getattr(found, word))


@pytest.mark.parametrize("dtype", DTYPES)
def test_casts_are_numpys(dtype: str) -> None:
    """`can_cast` is NumPy's, as promotion is; the standard leaves casts between kinds open."""
    for other in DTYPES:
        wanted = np.can_cast(dtype, other)
        x = polyop.zeros(2, dtype=np.dtype(dtype))
        assert polyop.can_cast(np.dtype(dtype), np.dtype(other)) is wanted
        assert polyop.can_cast(x, np.dtype(other)) is wanted


def test_small_floats_are_known() -> None:
    """Questions about dtypes are answered for `ml_dtypes` too."""
    assert polyop.finfo(polyop.bfloat16).bits == 16
    assert polyop.finfo(polyop.float8_e5m2).max == 57344.0
    assert polyop.isdtype(polyop.bfloat16, "real floating")
    assert not polyop.isdtype(polyop.bfloat16, "integral")
    with pytest.raises(UsageError, match="no such kind"):
        polyop.isdtype(polyop.float32, "floating")


def test_numbers_promote_with_dtypes() -> None:
    """A Python number takes the dtype that it is beside; alone it has none."""
    assert polyop.result_type(polyop.int8, 3) == polyop.int8
    assert polyop.result_type(polyop.ones(1), 1.5, 2) == polyop.float32
    assert polyop.result_type(polyop.float32, 1j) == polyop.complex64
    for nothing in ((), (1, 2.0)):
        with pytest.raises(UsageError, match="at least one"):
            polyop.result_type(*nothing)
    with pytest.raises(UsageTypeError, match="no such|no common"):
        polyop.result_type(polyop.int8, 2**40, np.dtype("M8[s]"))


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "bfloat16", "float32", "complex64"])
def test_numbers_promote_as_operators_have_them(dtype: str) -> None:
    """S64: a scalar of NumPy is the Python number of its value, in `result_type` as in a sum."""
    x = polyop.ones(2).astype(getattr(polyop, dtype))
    for number in (True, 3, 0.5, 1j, np.int64(3), np.float64(0.5), np.complex128(1j)):
        assert polyop.result_type(x, number) == (x + number).dtype


def test_inverted_membership_is_numpys() -> None:
    """`isin(..., invert=True)` is NumPy's; the oracle leaves the word out."""
    x, v = noise("int8"), noise("int8", (2,), 5)
    found = polyop.isin(polyop.from_numpy(x), polyop.from_numpy(v), invert=True)
    assert np.array_equal(found.numpy(), np.isin(x, v, invert=True))


def test_frequencies() -> None:
    """The frequencies of transforms are the oracle's, for even and odd numbers."""
    for n in (1, 4, 5):
        for dtype in ("float32", "float64"):
            for name in ("fft.fftfreq", "fft.rfftfreq"):
                assert agree(name, n, d=0.5, dtype=np.dtype(dtype))
    with pytest.raises(ArgumentError):
        polyop.fft.fftfreq(0)


# -- the array object ------------------------------------------------------------------------

SYMBOLS = (
    "add sub mul truediv floordiv mod pow and_ or_ xor lshift rshift eq ne lt le gt ge".split()
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_operators(symbol: str, dtype: str) -> None:
    """Operators, reflected ones and those in place give the oracle's answers beside numbers."""
    fn = getattr(operator, symbol)
    for number in (True, 2, 1.5, 1j):
        for swap in (False, True):
            x = noise(dtype)
            one, two = strict.asarray(x), polyop.from_numpy(x.copy())
            with np.errstate(all="ignore"):
                try:
                    wanted = fn(number, one) if swap else fn(one, number)
                except (TypeError, OverflowError, ValueError):
                    continue
                found = fn(number, two) if swap else fn(two, number)
                same(symbol, wanted._array, found.numpy())
                in_place = getattr(operator, "i" + symbol.strip("_"), None)
                if in_place and not swap and wanted.dtype == one.dtype:
                    written = in_place(two, number)
                    assert written is two
                    same(symbol, wanted._array, two.numpy())


def test_conversions_to_numbers() -> None:
    """Tensors without axes become Python's numbers; only integers are an index."""
    x = polyop.asarray(3)
    assert (bool(x), int(x), float(x), complex(x), operator.index(x)) == (True, 3, 3.0, 3 + 0j, 3)
    assert [10, 20, 30, 40][x] == 40
    with pytest.raises(TypeError):
        operator.index(polyop.asarray(3.0))
    with pytest.raises((TypeError, ValueError)):
        float(polyop.ones(2))
    with pytest.raises(TypeError):
        float(polyop.asarray(1j))


def test_matrices_multiply_in_place_and_reflected() -> None:
    """`@`, its reflection, and `@=` are the matrix product."""
    a, b = noise("float64", (3, 3)), noise("float64", (3, 3), 1)
    x, y = polyop.from_numpy(a.copy()), polyop.from_numpy(b.copy())
    np.testing.assert_allclose((x @ y).numpy(), a @ b)
    np.testing.assert_allclose(x.__rmatmul__(y).numpy(), b @ a)
    x @= y
    np.testing.assert_allclose(x.numpy(), a @ b)


# -- memory -----------------------------------------------------------------------------------


def test_memory_is_shared_by_dlpack() -> None:
    """DLPack shares memory both ways, or copies when told."""
    a = np.arange(4.0)
    x = polyop.from_dlpack(a)
    x += 1
    assert a[0] == 1
    back = np.from_dlpack(x)
    assert np.shares_memory(back, a)
    assert not np.shares_memory(polyop.from_dlpack(a, copy=True).numpy(), a)
    assert np.shares_memory(polyop.from_dlpack(a, copy=False, device="cpu").numpy(), a)
    assert not np.shares_memory(np.from_dlpack(x, copy=True), a)
    assert x.__dlpack_device__() == (1, 0)
    x.__dlpack__(max_version=(1, 0), dl_device=(1, 0), copy=False)
    again = polyop.from_dlpack(x)
    again += 1
    assert a[0] == 2


def test_memory_is_refused_where_it_cannot_be_shared() -> None:
    """DLPack refuses streams, other devices, and tensors that require grad, by name."""
    x = polyop.ones(2)
    with pytest.raises(UsageError, match="no streams"):
        x.__dlpack__(stream=1)
    with pytest.raises(BufferError):
        x.__dlpack__(dl_device=(2, 0))
    with pytest.raises(AutogradError):
        x.requires_grad_().__dlpack__()


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: polyop.linalg.svd(polyop.ones(3)), "takes matrices"),
        (lambda: polyop.linalg.eigh(polyop.ones((2, 3))), "square"),
        (lambda: polyop.linalg.qr(polyop.ones((2, 2)), mode="raw"), "reduced or complete"),
        (lambda: polyop.linalg.svdvals(polyop.ones((2, 2), dtype=polyop.float16)), "precision"),
        (lambda: polyop.linalg.svd(polyop.full((2, 2), np.nan)), "NaN"),
        (lambda: polyop.linalg.matrix_norm(polyop.ones((2, 2)), ord=3), "no such norm"),
        (lambda: polyop.linalg.cross(polyop.ones((2, 2)), polyop.ones((2, 2))), "three"),
        (lambda: polyop.fft.rfft(polyop.asarray([1j])), "real numbers"),
        (lambda: polyop.fft.fft(polyop.ones(3), norm="half"), "scaled"),
        (lambda: polyop.fft.fft(polyop.ones(3), n=0), "at least one"),
        (lambda: polyop.fft.fft(polyop.ones(3), axis=2), "out of range"),
        (lambda: polyop.fft.fftn(polyop.ones((2, 2)), s=(2,), axes=(0, 1)), "one size for each"),
        (lambda: polyop.diff(polyop.ones(3), n=-1), "n times"),
        (lambda: polyop.repeat(polyop.ones(3), polyop.asarray([1, -1, 0])), "one for each place"),
    ],
)
def test_mistakes_are_refused(call: Any, text: str) -> None:
    """What cannot be computed raises an error that says what can."""
    with pytest.raises(ArgumentError, match=text):
        call()


# -- late operators ---------------------------------------------------------------------------


def test_late_operators_are_found_by_name() -> None:
    """S58: operators whose files are read late are attributes from the start, and are listed."""
    code = (
        "import sys, polyop; "
        "late = ('polyop.ops.fourier', 'polyop.ops.factorizations', 'numpy.fft', "
        "'polyop.ops.dtypes'); "
        "assert not [m for m in late if m in sys.modules]; "
        "assert {'svd', 'fft_c2c', 'among'} <= set(polyop.ops.core); "
        "assert polyop.ops.core.svd.default.name() == 'core::svd'; "
        "assert 'polyop.ops.factorizations' in sys.modules; "
        "assert 'polyop.ops.fourier' not in sys.modules; "
        "assert {'fft', 'linalg', 'finfo'} <= set(dir(polyop)); "
        "polyop.fft.rfft(polyop.ones(3))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_factors_have_names() -> None:
    """Results of several tensors are named tuples, with the standard's names."""
    x = polyop.from_numpy(definite("float64", (3, 3)))
    u, s, vh = (found := polyop.linalg.svd(x))
    assert found.U is u and found.S is s and found.Vh is vh
    np.testing.assert_allclose(((u * s) @ vh).numpy(), x.numpy())
    w, v = polyop.linalg.eigh(x).eigenvalues, polyop.linalg.eigh(x).eigenvectors
    np.testing.assert_allclose(((v * w) @ v.mT).numpy(), x.numpy())
    found_qr = polyop.linalg.qr(x)
    np.testing.assert_allclose((found_qr.Q @ found_qr.R).numpy(), x.numpy())
    assert polyop.linalg.slogdet(x).sign.item() == 1
