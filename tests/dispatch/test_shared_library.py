"""Kernel libraries in C: loading, values in and out, errors."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable
from ctypes import sizeof
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dispatch.registry_state import refused, snapshot

import polyop
from polyop import Tensor, ops
from polyop.dispatch import kernel_abi
from polyop.dispatch.dumps import dispatch_dump
from polyop.errors import (
    ArgumentError,
    DuplicateRegistrationError,
    KernelError,
    MissingFakeError,
    MutationError,
    OperatorNotFoundError,
    PolyopError,
    RegistrationError,
    SchemaSyntaxError,
    UsageError,
    UsageTypeError,
)
from polyop.graph import make_fx

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
Build = Callable[[str], Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compile a C file, by the one call that the header names."""
    folder = tmp_path_factory.mktemp("kernels")

    def compiled(text: str, name: str = "") -> Path:
        name = name or f"lib{len(list(folder.iterdir()))}"
        source, library = folder / f"{name}.c", folder / f"{name}.so"
        source.write_text(text)
        include = f"-I{polyop.get_include()}"
        strict = ["-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers"]
        command = ["cc", "-O1", *strict, "-shared", "-fPIC", include, str(source), "-o"]
        subprocess.run([*command, str(library)], check=True)
        return library

    return compiled


@pytest.fixture(scope="module")
def lib(build: Build) -> Any:
    """The library of all kinds of kernels, loaded."""

    def plus(x: Tensor) -> Tensor:
        return polyop.from_numpy(x.numpy() + x.numpy())

    polyop.custom_op("clib_python::twice", plus, mutates_args=())
    path = build((HERE / "kernels.c").read_text())
    ops.load_library(path)
    assert str(path) in ops.loaded_libraries
    return ops.clib


def one(schema: str, more: str = "", kernel: str = "nothing") -> str:
    """A library with one operator whose kernel does nothing."""
    return (
        '#include "polyop.h"\n'
        "POLYOP_KERNEL(nothing) { return 0; }\n"
        "POLYOP_KERNEL(unused) { return nothing(call, args, results); }\n"
        "PolyopFunction unused_too = unused;\n"
        "static const PolyopOperator operators[] = {"
        f'{{POLYOP_HERE, .schema = "{schema}", .kernel = {kernel}, {more}}}}};\n'
        "POLYOP_LIBRARY(operators)\n"
    )


# -- loading ------------------------------------------------------------------


def test_loading_again_changes_nothing(lib: Any, build: Build, tmp_path: Path) -> None:
    """S67: a library is loaded once, under each of its paths."""
    path = build(one("clib_again::f(Tensor x) -> ()"))
    link = tmp_path / "link.so"
    link.hardlink_to(path) if path.stat().st_dev == tmp_path.stat().st_dev else link.symlink_to(
        path
    )
    ops.load_library(str(path))
    before = snapshot()
    for other in (path, link, str(path).encode()):
        ops.load_library(other)
    assert snapshot() == before
    assert str(path) in ops.loaded_libraries


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    """S67: a file that is none, or no library, is an OSError with its path; a number is refused."""
    text = tmp_path / "text.so"
    text.write_text("no library")
    before = set(ops.loaded_libraries)
    for path in (text, tmp_path / "missing.so", tmp_path):
        with pytest.raises(OSError, match=str(path)):
            ops.load_library(path)
    with refused(UsageTypeError, "path"):
        ops.load_library(3)  # type: ignore[arg-type]
    assert ops.loaded_libraries == before


def test_symbols_are_global(build: Build) -> None:
    """S67: a library without operators is loaded for its symbols, which later ones find."""
    helper = build("int polyop_test_helper(void) { return 41; }\n")
    text = '#include "polyop.h"\nint polyop_test_helper(void);\n' + (
        "POLYOP_KERNEL(f) { polyop_set_int(&results[0], polyop_test_helper() + 1); return 0; }\n"
        'static const PolyopOperator operators[] = {{POLYOP_HERE, .schema = "clib_sym::f() -> int",'
        " .kernel = f}};\nPOLYOP_LIBRARY(operators)\n"
    )
    needs = build(text)
    with pytest.raises(OSError, match="polyop_test_helper"):
        ops.load_library(needs)
    ops.load_library(helper)
    ops.load_library(needs)
    assert ops.clib_sym.f() == 42


def test_a_library_that_has_changed(build: Build) -> None:
    """S67: a file that changed after it was loaded is refused, since the system keeps the first."""
    path = build(one("clib_changed::f(Tensor x) -> ()"))
    ops.load_library(path)
    path.unlink()
    shutil.copy(build(one("clib_changed::g(Tensor x) -> ()")), path)
    with refused(RegistrationError, "changed since it was loaded", "another name"):
        ops.load_library(path)


def test_a_refused_library_can_be_built_again(build: Build) -> None:
    """S67, S4: what was refused is closed: the same path, built anew, loads."""
    path = build(one("clib_redo::f(Tensor x -> ()"))
    with refused(SchemaSyntaxError):
        ops.load_library(path)
    assert str(path) not in ops.loaded_libraries
    good = build(one("clib_redo::f(Tensor x) -> ()"))
    path.unlink()
    shutil.copy(good, path)
    ops.load_library(path)
    ops.clib_redo.f(polyop.ones(1))


def test_another_version_of_the_header(build: Build) -> None:
    """S67: a library for another binary interface is refused by name."""
    text = one("clib_abi::f(Tensor x) -> ()").replace(
        "static const PolyopOperator",
        "#undef POLYOP_ABI_VERSION\n#define POLYOP_ABI_VERSION 99\nstatic const PolyopOperator",
    )
    with refused(
        RegistrationError, "another polyop.h", "version 99", "version 1", "build it again"
    ):
        ops.load_library(build(text))


WRONG: list[tuple[type[PolyopError], str, str, list[str]]] = [
    (SchemaSyntaxError, "clib_no::f(Tensor x) -> Tensr", "", ["Tensr"]),
    (RegistrationError, "f(Tensor x) -> ()", "", ["namespace"]),
    (RegistrationError, "core::ff(Tensor x) -> ()", "", ["namespace"]),
    (RegistrationError, "", "", ["no schema"]),
    (RegistrationError, "clib_no::f(Dict(str, Tensor) x) -> ()", "", ["Dict(str, Tensor)"]),
    (RegistrationError, "clib_no::f(Generator? g) -> ()", "", ["Generator"]),
    (RegistrationError, "clib_no::f(Tensor x) -> Tensor[]", "", ["Tensor[]"]),
    (RegistrationError, "clib_no::f(Tensor(a) x) -> Tensor(a)", "", ["Tensor(a)"]),
    (
        RegistrationError,
        "clib_no::f(Tensor(a!) x, Tensor(a!) y) -> Tensor(a!)",
        "",
        ["Tensor(a!)"],
    ),
    (RegistrationError, "clib_no::f(Tensor x) -> str", "", ["str"]),
    (RegistrationError, "clib_no::f(Tensor x) -> Tensor", '.like = "y"', ["like", "x"]),
    (RegistrationError, "clib_no::f(Tensor x) -> Tensor", '.like = "x, x"', ["like", "1 of"]),
    (RegistrationError, "clib_no::f(int n) -> Tensor", '.like = "n"', ["like", "(none)"]),
    (
        RegistrationError,
        "clib_no::f(Tensor x) -> Tensor",
        '.like = "x", .shape = nothing',
        ["both"],
    ),
    (RegistrationError, "clib_no::f(Tensor x) -> ()", '.dtypes = "flaot32"', ["float32"]),
    (RegistrationError, "clib_no::f(Tensor x) -> ()", '.key = "AutogradCPU"', ["AutogradCPU"]),
    (UsageError, "clib_no::f(Tensor x) -> ()", '.key = "CPPU"', ["CPU"]),
    (RegistrationError, "clib_no::f(int n) -> int", '.key = "CPU"', ["which device"]),
    (OperatorNotFoundError, "clib_no::nothing", "", ["clib_no::nothing"]),
    (DuplicateRegistrationError, "clib::twice(Tensor x) -> Tensor", "", ["defined already"]),
    (RegistrationError, "clib_no::\\xff(Tensor x) -> ()", "", ["UTF-8"]),
]


@pytest.mark.parametrize(("error", "schema", "more", "words"), WRONG, ids=lambda v: str(v)[:40])
def test_what_a_library_may_not_bring(
    lib: Any, build: Build, error: type[PolyopError], schema: str, more: str, words: list[str]
) -> None:
    """S67, S4: an operator that is not valid refuses its whole library, and says the line in C."""
    good = '{POLYOP_HERE, .schema = "clib_no::good(Tensor x) -> ()", .kernel = nothing},\n'
    text = one(schema, more).replace("operators[] = {", f"operators[] = {{{good}")
    with refused(error, *words) as caught:
        ops.load_library(build(text))
    assert ".c:" in "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert "clib_no" not in list(ops)


def test_no_kernel_and_no_list(build: Build) -> None:
    """S67: an operator without a kernel, and a library without a list, are refused."""
    with refused(RegistrationError, "no kernel"):
        ops.load_library(build(one("clib_no::f(Tensor x) -> ()", kernel="0")))
    text = "const void *polyop_library(void) { return 0; }"
    with refused(RegistrationError, "no list"):
        ops.load_library(build(text))


def test_one_name_twice(build: Build) -> None:
    """S67: a library that defines a name twice is refused."""
    line = '{POLYOP_HERE, .schema = "clib_no::f(Tensor x) -> ()", .kernel = nothing},\n'
    text = one("clib_no::f(Tensor x) -> ()").replace("operators[] = {", f"operators[] = {{{line}")
    with refused(DuplicateRegistrationError, "clib_no::f"):
        ops.load_library(build(text))


def test_a_kernel_of_another_librarys_name(build: Build) -> None:
    """S67: where the system would run another library's function of the same name, it is said."""
    text = one("clib_name{0}::f(Tensor x) -> int", kernel="same_name").replace(
        "POLYOP_KERNEL(nothing)",
        "int same_name(PolyopCall *c, const PolyopValue *a, PolyopValue *r) "
        "{{ (void)c; (void)a; polyop_set_int(&r[0], {0}); return 0; }}\nPOLYOP_KERNEL(nothing)",
    )
    fill = lambda n: text.replace("{0}", str(n)).replace("{{ (", "{ (").replace("; }}", "; }")  # noqa: E731
    ops.load_library(build(fill(1)))
    assert ops.clib_name1.f(polyop.ones(1)) == 1
    with refused(RegistrationError, "loaded before", "static"):
        ops.load_library(build(fill(2)))


def test_threads_that_load_one_library(build: Build) -> None:
    """S67, S4: of many threads that load one library at once, one does, and all find it."""
    path = build(one("clib_thread::f(Tensor x) -> ()"))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            ops.load_library(path)
            ops.clib_thread.f(polyop.ones(2))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_header_and_the_structures_agree(build: Build) -> None:
    """The sizes of the header's structures are those that polyop reads."""
    names = {
        "DLTensor": kernel_abi.DLTensor,
        "PolyopValue": kernel_abi.Value,
        "PolyopCall": kernel_abi.Call,
        "PolyopOperator": kernel_abi.COperator,
        "PolyopLibrary": kernel_abi.CLibrary,
    }
    checks = "".join(
        f'_Static_assert(sizeof({name}) == {sizeof(kind)}, "{name}");\n'
        for name, kind in names.items()
    )
    version = f"_Static_assert(POLYOP_ABI_VERSION == {kernel_abi.ABI_VERSION}, 0);\n"
    build('#include "polyop.h"\n' + checks + version.replace(", 0)", ', "version")'))


# -- values -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [polyop.float32, polyop.float64])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_tensors_of_any_shape(lib: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    """S67: a kernel gets tensors of any shape, empty ones and scalars too, and gives new ones."""
    x = polyop.tensor(np.arange(float(np.prod(shape))).reshape(shape)).to(dtype)
    y = lib.twice(x)
    assert y.shape == x.shape and y.dtype == dtype
    assert np.array_equal(y.numpy(), 2 * x.numpy())


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "transposed": lambda a: a.T,
    "reversed": lambda a: a[::-1, ::-1],
    "every second": lambda a: a[:, ::2],
    "broadcast": lambda a: np.broadcast_to(a[0], a.shape),
    "read-only": lambda a: (a.setflags(write=False), a)[1],
    "one field": lambda a: np.array([(v, 1) for v in a.ravel()], "f8,i2")["f0"],
    "unaligned": lambda a: np.frombuffer(b"." + a.tobytes(), np.uint8)[1:].view("f8"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_of_any_layout(lib: Any, layout: str) -> None:
    """S67: whatever lies in memory how, the kernel computes with the elements in their order."""
    a = LAYOUTS[layout](np.arange(12.0).reshape(3, 4))
    before = a.copy()
    assert np.array_equal(lib.twice(polyop.from_numpy(a)).numpy(), 2 * before)
    assert np.array_equal(a, before)


def test_strides(lib: Any) -> None:
    """S67: a kernel that takes any strides gets those of the array; others get contiguous ones."""
    x = polyop.from_numpy(np.zeros((3, 4)).T[::-1])
    assert lib.strides(x).tolist() == [-1, 4]
    assert lib.packed(x).tolist() == [3, 1]


def test_every_kind_of_argument(lib: Any) -> None:
    """S67: integers, floats, bools, lists, texts, dtypes, complex numbers and None arrive."""
    assert lib.total(1, 2.5, True, [10, 20], "four") == 38.5
    assert lib.total(-1, 2, False, (), "") == 1
    assert lib.total(2**40, 0.0, False, [], "é", polyop.float16, 1 + 2j) == 2**40 + 2 + 16 + 3
    with pytest.raises(ArgumentError, match="zero inside"):
        lib.total(1, 2.5, True, [], "a\0b")
    with pytest.raises(ArgumentError, match="total"):
        lib.total("x", 2.5, True, [], "")


@given(st.integers(-(2**63), 2**63 - 1), st.lists(st.integers(-(2**40), 2**40), max_size=5))
def test_integers_arrive_whole(lib: Any, n: int, ns: list[int]) -> None:
    """S67: 64-bit integers arrive as they are."""
    assert lib.total(n, 0.0, False, [], "") == float(n)
    assert lib.total(0, 0.0, False, ns, "") == sum(ns)


def test_lists_of_tensors_and_a_written_argument(lib: Any) -> None:
    """S67: a written argument is written in place, whatever its strides; None may be in a list."""
    for out in (polyop.from_numpy(np.zeros((2, 3))), polyop.from_numpy(np.zeros((3, 2))).t()):
        whole, version = out.numpy(), out._version
        x = polyop.from_numpy(np.arange(6.0).reshape(2, 3))
        assert lib.add_into(out, [x, None, x.t().clone().t()]) is None
        assert np.array_equal(whole, 2 * x.numpy())
        assert out._version > version


def test_an_error_writes_nothing_into_a_copy(lib: Any) -> None:
    """S67: a kernel that fails leaves an argument that it had as a copy as it was."""
    out = polyop.from_numpy(np.zeros((3, 2))).t()
    x = polyop.from_numpy(np.ones((2, 3)))
    with pytest.raises(KernelError, match="tensor 1 has another shape"):
        lib.add_into(out, [x, polyop.from_numpy(np.ones(2))])
    assert not out.numpy().any()


def test_a_read_only_argument_is_not_written(lib: Any) -> None:
    """S67: a read-only array as a written argument is refused before the kernel runs."""
    a = np.zeros(3)
    a.setflags(write=False)
    with pytest.raises(MutationError, match=r"read-only(.|\n)*out \(position 0\)(.|\n)*clone"):
        lib.add_into(polyop.from_numpy(a), [polyop.from_numpy(np.ones(3))])
    assert not a.any()


def test_several_results(lib: Any) -> None:
    """S67: a kernel may make its results itself, and give numbers among them."""
    first, n, last = lib.parts(polyop.from_numpy(np.array([3.0])))
    assert first.tolist() == [0, 1, 2] and n == 3 and last.shape == (0,)
    assert lib.seven(polyop.ones(1)) == 7


def test_dtypes_that_no_kernel_takes(lib: Any) -> None:
    """S67: a dtype that C cannot be told of is an error before the kernel runs."""
    swapped = np.ones(2, ">f8")
    with pytest.raises((ArgumentError, PolyopError)):
        lib.twice(polyop.from_numpy(swapped))
    with pytest.raises(KernelError, match="32 or 64 bits"):
        lib.twice(polyop.from_numpy(np.ones(2, ml_dtypes.bfloat16)))
    with pytest.raises(KernelError, match="int32"):
        lib.twice(polyop.from_numpy(np.ones(2, np.int32)))


def test_declared_dtypes(lib: Any) -> None:
    """S67: a tensor of a dtype that the library did not declare never reaches the kernel."""
    out = polyop.from_numpy(np.zeros(2))
    words = r"does not take(.|\n)*xs \(position 1\)(.|\n)*float64(.|\n)*polyop.float64"
    with pytest.raises(ArgumentError, match=words):
        lib.add_into(out, [polyop.from_numpy(np.ones(2)), polyop.ones(2)])
    assert not out.numpy().any()


def test_a_kernel_for_an_operator_in_python(lib: Any) -> None:
    """S67: a library may bring a kernel for an operator that is there, which then acts."""
    table = dispatch_dump("clib_python::twice")
    assert ".c:" in table, table
    assert ops.clib_python.twice(polyop.ones(2)).tolist() == [2, 2]


# -- errors -------------------------------------------------------------------

BAD = {
    0: "result 0 was not made",
    1: "result 5 is no tensor",
    2: r"shape \(-2,\)",
    3: "no dtype has code 99",
    4: "-3 dimensions",
    5: "there already",
    6: "it gave 7, and no text",
    7: "cannot be made",
    8: " {500}",
}


@pytest.mark.parametrize("how", BAD)
def test_kernels_that_break_the_rules(lib: Any, how: int) -> None:
    """S67: what a kernel does wrong is an error with operator, arguments and the line in C."""
    with pytest.raises(KernelError, match=BAD[how]) as caught:
        lib.bad(polyop.ones(2, 3), how)
    assert "clib::bad" in str(caught.value) and "x: float32[2, 3]" in str(caught.value)
    assert ".c:" in caught.value.source


def test_a_number_of_another_kind(lib: Any) -> None:
    """S67: a float where the schema says int is an error."""
    with pytest.raises(KernelError, match="result 0 is no int"):
        lib.wrong_kind(polyop.ones(1))


# -- layers -------------------------------------------------------------------


def test_shapes_without_data(lib: Any) -> None:
    """S67: `.like` and the shape function are the fake rule, with symbolic sizes for the first."""
    x = polyop.from_numpy(np.ones((2, 3)))
    traced = make_fx(lambda x: lib.twice(x) + 1, tracing_mode="symbolic")(x)
    assert np.array_equal(traced(polyop.from_numpy(np.ones((4, 5)))).numpy(), np.full((4, 5), 3.0))
    assert make_fx(lib.strides, tracing_mode="fake")(x)(x).tolist() == [3, 1]
    compiled = polyop.compile(lambda n: lib.filled([n, 2], 3.0), fullgraph=True)
    assert compiled(2).tolist() == [[3, 3]] * 2
    assert compiled(4).tolist() == [[3, 3]] * 4
    with pytest.raises(MissingFakeError, match="clib::parts"):
        make_fx(lib.parts, tracing_mode="fake")(x)


def test_the_laws_hold(lib: Any) -> None:
    """S67: operators in C keep the laws that all operators keep."""
    x = polyop.from_numpy(np.arange(6.0).reshape(2, 3))
    polyop.library.opcheck(lib.twice.default, [x])
    polyop.library.opcheck(lib.packed.default, [x])
    polyop.library.opcheck(
        lib.add_into.default, [polyop.zeros(2, 3, dtype=polyop.float64), [x, None]]
    )
    polyop.library.opcheck(lib.filled.default, [[2, 3]])


def test_rules_in_python_beside_a_kernel_in_c(lib: Any) -> None:
    """S67, S46: an operator of a library takes rules as any other does."""
    polyop.library.register_autograd("clib::twice", lambda ctx, grad: grad * 2)
    x = polyop.ones(3, requires_grad=True)
    lib.twice(x).sum().backward()
    assert x.grad.tolist() == [2, 2, 2]
    polyop.library.register_vmap("clib::twice", lambda info, dims, x: (lib.twice(x), dims[0]))
    assert polyop.vmap(lib.twice)(polyop.ones(2, 3)).tolist() == [[2] * 3] * 2


def test_calls_from_many_threads(lib: Any) -> None:
    """S67: kernels run in several threads at once, each with its own arguments and errors."""
    wrong: list[Any] = []

    def work(n: int) -> None:
        x = polyop.from_numpy(np.full(1000, float(n)))
        for _ in range(50):
            if lib.twice(x).numpy()[-1] != 2 * n or lib.parts(x[:1])[1] != n:
                wrong.append(n)
            try:
                lib.bad(x, 6)
            except KernelError:
                continue
            wrong.append("no error")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_functions_with_dlpack_are_kernels() -> None:
    """S67: a function of the `tvm_ffi` protocol, which takes DLPack tensors, is a kernel."""
    tvm_ffi = pytest.importorskip("tvm_ffi", reason="apache-tvm-ffi is not installed")

    def double_into(x: Any, out: Any) -> None:
        np.from_dlpack(out)[...] = 2 * np.from_dlpack(x)

    with polyop.scoped_library("clib_ffi", "DEF") as lib:
        lib.define("double_into(Tensor x, Tensor(a!) out) -> ()")
        lib.impl("double_into", tvm_ffi.convert(double_into), "CPU")
        out = polyop.zeros(3)
        ops.clib_ffi.double_into(polyop.ones(3), out)
        assert out.tolist() == [2, 2, 2]
