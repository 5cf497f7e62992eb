"""`Library`, `define` and `impl`: what is registered, refused and undone."""

from __future__ import annotations

import gc
import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dispatch.registry_state import known_aside, refused, settled

import polyop.assembly  # noqa: F401
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.dumps import dispatch_dump, dispatch_dump_table
from polyop.dispatch.guards import include_keys
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.library import Library, fallthrough_kernel, scoped_library
from polyop.dispatch.library_functions import define, impl
from polyop.dispatch.namespaces import ops
from polyop.dispatch.registry import as_operator
from polyop.dispatch.rules import register_fake, register_vmap
from polyop.errors import (
    DuplicateRegistrationError,
    LibraryGoneError,
    MissingKernelError,
    OperatorGoneError,
    OperatorNotFoundError,
    RegistrationError,
    SchemaSyntaxError,
    UsageError,
    UsageTypeError,
)
from polyop.ops.elementwise import add
from polyop.tensor.tensor import Tensor, of_array

ONE = np.ones(1)
EXPLICIT = "CompositeExplicitAutograd"


def here(offset: int = 0) -> str:
    """The caller's file and line, as sources are printed."""
    frame = inspect.stack()[1]
    return f"{frame.filename}:{frame.lineno + offset}"


def adds(n: float) -> Any:
    def kernel(x: Tensor) -> Tensor:
        return of_array(x.numpy() + n)

    return kernel


def call(op: Any, x: Any = ONE) -> float:
    return float(op(of_array(x)).item())


# -- libraries ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["def", "DEFS", "", "IMPLS"])
def test_an_unknown_kind_is_refused(kind: str) -> None:
    """S31: a kind other than DEF, FRAGMENT and IMPL is a usage error that names it."""
    with refused(UsageError, repr(kind)):
        Library("lib_kind", kind)


@pytest.mark.parametrize(
    ("ns", "kind"),
    [("prim", "DEF"), ("prim", "IMPL"), ("higher_order", "FRAGMENT"), ("core", "DEF")],
)
def test_reserved_namespaces(ns: str, kind: str) -> None:
    """S31: `prim` and `higher_order` are reserved, and the built-in namespace for DEF."""
    with refused(UsageError, "reserved", ns):
        Library(ns, kind)


@pytest.mark.parametrize("ns", ["", "a b", "a::b", "1a", None, 3])
def test_a_namespace_is_an_identifier(ns: Any) -> None:
    """S31: what is no identifier is no namespace."""
    with refused(UsageError, "is no namespace"):
        Library(ns, "FRAGMENT")


def test_the_built_in_namespace_takes_fragments() -> None:
    """S31: kernels for built-in operators can be registered."""
    with scoped_library("core", "IMPL"):
        pass


def test_an_impl_library_defines_nothing() -> None:
    """S31: `define` of an IMPL library is refused, and says where the library was made."""
    lib = Library("lib_impl", "IMPL")
    made = here(-1)
    with refused(RegistrationError, "lib_impl", made, "FRAGMENT"):
        lib.define("f(Tensor x) -> Tensor")


def test_an_unknown_key_of_a_library() -> None:
    """S31: a library's key must exist."""
    with refused(UsageError, "Cpu"):
        Library("lib_key", "IMPL", "Cpu")


def test_two_definitions_of_a_namespace() -> None:
    """S32: a second live DEF library names both places."""
    lib = Library("lib_two", "DEF")
    first = here(-1)
    with refused(DuplicateRegistrationError, "lib_two", first, here(1)):
        Library("lib_two", "DEF")
    Library("lib_two", "FRAGMENT")
    lib.destroy()
    Library("lib_two", "DEF")


def test_the_same_line_replaces_a_library() -> None:
    """S32: a DEF library made again at the same line replaces the first."""
    libs = []
    for n in (1, 2):
        libs.append(Library("lib_again", "DEF"))
        libs[-1].define("f(Tensor x) -> Tensor")
        libs[-1].impl("f", adds(n), "CPU")
        assert call(ops.lib_again.f) == 1 + n
    with pytest.raises(LibraryGoneError):
        libs[0].define("g(Tensor x) -> Tensor")


def test_define_returns_the_name() -> None:
    """S33: `define` gives the name, with its overload."""
    lib = Library("lib_name", "FRAGMENT")
    assert lib.define("f(Tensor x) -> Tensor") == "f"
    assert lib.define("lib_name::f.out(Tensor x, *, Tensor(a!) out) -> Tensor(a!)") == "f.out"
    assert lib.define("f@2(Tensor x, int n) -> Tensor", "FROM_SCHEMA") == "f@2"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("other::f(Tensor x) -> Tensor",), RegistrationError, ("other", "lib_bad")),
        (("f(Tensor x) -> Tensor", "ALL"), UsageError, ("ALL",)),
        (("f(Tenso x) -> Tensor",), SchemaSyntaxError, ("Tenso",)),
        (("f",), SchemaSyntaxError, ()),
        ((3,), UsageTypeError, ("a schema is text", "3")),
    ],
)
def test_bad_definitions(arguments: Any, error: Any, words: tuple[str, ...]) -> None:
    """S33: a bad schema, namespace or alias analysis registers nothing."""
    lib = Library("lib_bad", "FRAGMENT")
    with refused(error, *words):
        lib.define(*arguments)


def test_equal_definitions_join() -> None:
    """S34: the operator of two equal definitions lives until the last owner goes."""
    first, second = Library("lib_join", "FRAGMENT"), Library("lib_join", "FRAGMENT")
    first.define("f(Tensor x) -> Tensor")
    second.define("f(Tensor x) -> Tensor")
    second.impl("f", adds(1), "CPU")
    handle = ops.lib_join.f.default
    first.destroy()
    assert call(handle) == 2
    second.destroy()
    with pytest.raises(OperatorGoneError):
        call(handle)


def test_another_schema_is_refused() -> None:
    """S34: another schema under a name names both places; nothing changes."""
    lib = Library("lib_other", "FRAGMENT")
    lib.define("f(Tensor x) -> Tensor")
    first = here(-1)
    with refused(DuplicateRegistrationError, "lib_other::f(Tensor x, int n)", first, here(1)):
        lib.define("f(Tensor x, int n) -> Tensor")


def test_replacing_a_definition() -> None:
    """S34, S41: `replace=True` starts anew; old handles name their place and their successor."""
    define("lib_new::f", "(Tensor x) -> Tensor")
    first = here(-1)
    impl("lib_new::f", "cpu", adds(1))
    old = ops.lib_new.f.default
    define("lib_new::f", "(Tensor x, int n) -> Tensor", replace=True)
    with pytest.raises(OperatorGoneError) as caught:
        old(of_array(ONE))
    text = str(caught.value)
    assert first in text and "lib_new::f(Tensor x, int n) -> Tensor" in text
    with pytest.raises(MissingKernelError):
        ops.lib_new.f(of_array(ONE), 1)


# -- kernels ------------------------------------------------------------------


def test_the_key_of_a_kernel() -> None:
    """S35: the key is the argument, else the library's, else CompositeImplicitAutograd."""
    lib = Library("lib_keys", "FRAGMENT")
    cpu = Library("lib_keys", "IMPL", "CPU")
    for name in "abc":
        lib.define(f"{name}(Tensor x) -> Tensor")
    lib.impl("a", adds(1), "CUDA")
    cpu.impl("b", adds(1))
    lib.impl("lib_keys::c", adds(1))
    keys = [list(ops.lib_keys.__getattr__(n).default.kernels()) for n in "abc"]
    implicit = DispatchKey.CompositeImplicitAutograd
    assert keys == [[DispatchKey.CUDA], [DispatchKey.CPU], [implicit]]


def test_impl_takes_an_overload() -> None:
    """S35: `impl` takes an operator object as well as a name."""
    lib = Library("lib_object", "FRAGMENT")
    lib.define("f(Tensor x) -> Tensor")
    lib.impl(ops.lib_object.f.default, adds(1), "CPU")
    lib.impl(ops.lib_object.f, adds(2), "CPU")
    assert call(ops.lib_object.f) == 3


def test_a_kernel_with_the_keyset() -> None:
    """S35, S103: `with_keyset` passes the key set of the call first."""
    lib = Library("lib_with", "FRAGMENT")
    lib.define("f(Tensor x, *, int n=2) -> Tensor")
    seen: list[Any] = []

    def kernel(keys: DispatchKeySet, x: Tensor, *, n: int) -> Tensor:
        seen.append((keys.has(DispatchKey.CPU), n))
        return of_array(x.numpy() * n)

    lib.impl("f", kernel, "CPU", with_keyset=True)
    assert call(ops.lib_with.f) == 2
    assert seen == [(True, 2)]


def test_fallthrough_kernel_passes_over() -> None:
    """S35, S93: a fallthrough at a key hands the call to the next one."""
    lib = Library("lib_through", "FRAGMENT")
    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", adds(1), "CPU")
    lib.impl("f", lambda x: pytest.fail("passed over"), "AutogradCPU")
    lib.impl("f", fallthrough_kernel, "AutogradCPU")
    assert call(ops.lib_through.f) == 2


def test_fallthrough_kernel_without_a_library() -> None:
    """S42, S93: the function `impl` knows the mark as well."""
    polyop.library.define("lib_through2::f", "(Tensor x) -> Tensor")
    polyop.library.impl("lib_through2::f", "cpu", adds(1))
    polyop.library.impl("lib_through2::f", ("Autograd", "AutocastCPU"), fallthrough_kernel)
    with polyop.autocast("cpu"):
        assert call(ops.lib_through2.f) == 2


def test_fallthrough_kernel_is_never_called() -> None:
    """S35: calling the mark itself raises."""
    with pytest.raises(MissingKernelError, match="a mark"):
        fallthrough_kernel()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("f", 3, "CPU"), UsageTypeError, ("a kernel is a function", "f", "3")),
        (("f", None), UsageTypeError, ("a kernel is a function",)),
        ((3, abs), UsageTypeError, ("3", "is no operator")),
        (("f", abs, "Cpu"), UsageError, ("Cpu",)),
        (("f", abs, "CUDA"), UsageError, ("CUDA", "CPU", "contradicts")),
        (("other::f", abs), UsageError, ("other::f", "lib_impl_bad")),
        (("f@x", abs), UsageError, ("f@x",)),
        (("f", abs, "Undefined"), UsageError, ("Undefined",)),
        (("g", abs, "Undefined"), UsageError, ("Undefined",)),
    ],
)
def test_bad_kernels(arguments: Any, error: Any, words: tuple[str, ...]) -> None:
    """S36, S90: a bad kernel, operator, key or namespace is refused and registers nothing."""
    owner = Library("lib_impl_bad", "FRAGMENT")
    owner.define("f(Tensor x) -> Tensor")
    lib = Library("lib_impl_bad", "IMPL", "" if arguments[-1] == "Undefined" else "CPU")
    with refused(error, *words):
        lib.impl(*arguments)


def test_a_stack_per_place() -> None:
    """S37: the newest owner acts; registering again replaces one's own; removal undoes exactly."""
    owner = Library("lib_stack", "FRAGMENT")
    owner.define("f(Tensor x) -> Tensor")
    f = ops.lib_stack.f.default
    libs = [Library("lib_stack", "IMPL", "CPU") for _ in range(3)]
    for n, lib in enumerate(libs):
        lib.impl("f", adds(n))
    libs[0].impl("f", adds(10))  # its own entry, put on top
    assert call(f) == 11
    libs[1].destroy()
    assert call(f) == 11
    libs[0].destroy()
    assert call(f) == 3
    libs[2].destroy()
    with pytest.raises(MissingKernelError):
        call(f)


@pytest.fixture(scope="module", autouse=True)
def _quick_collections():
    with known_aside():
        yield


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12))
def test_any_order_of_overrides(steps: list[tuple[int, bool]]) -> None:
    """S37, S106: after any registrations and removals the newest living one acts."""
    owner = Library("lib_order", "FRAGMENT")
    owner.define("f(Tensor x) -> Tensor")
    f = ops.lib_order.f.default
    before = settled()
    stack: list[tuple[int, Library]] = []
    for number, remove in steps:
        mine = next((lib for n, lib in stack if n == number), None)
        if mine is not None:
            stack.remove((number, mine))
        if remove and mine is not None:
            mine.destroy()
        else:
            lib = mine or Library("lib_order", "IMPL", "CPU")
            lib.impl("f", adds(number))
            stack.append((number, lib))
        if stack:
            assert call(f) == 1 + stack[-1][0]
    for _, lib in stack:
        lib.destroy()
    assert settled() == before
    owner.destroy()


def test_override_not_allowed() -> None:
    """S37: with `allow_override=False` an occupied place is refused, and names who is there."""
    owner = Library("lib_taken", "FRAGMENT")
    owner.define("f(Tensor x) -> Tensor")
    kernel = adds(1)
    owner.impl("f", kernel, "CPU")
    line = f"{__file__}:{kernel.__code__.co_firstlineno}"
    with refused(DuplicateRegistrationError, "lib_taken::f", "CPU", line):
        Library("lib_taken", "IMPL").impl("f", adds(2), "CPU", allow_override=False)
    assert call(ops.lib_taken.f) == 2


def test_no_fake_for_a_composite() -> None:
    """S38: an operator that decomposes takes neither a Meta kernel nor a fake rule."""
    lib = Library("lib_composite", "FRAGMENT")
    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", adds(1))
    with refused(RegistrationError, "decomposes", "lib_composite::f", __file__):
        lib.impl("f", adds(1), "Meta")
    with refused(RegistrationError, "decomposes", "lib_composite::f", __file__):
        register_fake("lib_composite::f", adds(1))


def test_kernels_may_come_first() -> None:
    """S39: a kernel waits for its definition; until then the look-up names it."""
    lib = Library("lib_first", "IMPL", "CPU")
    kernel = adds(1)
    lib.impl("f", kernel)
    line = f"{__file__}:{kernel.__code__.co_firstlineno}"
    for look in (lambda: ops.lib_first.f, lambda: as_operator("lib_first::f")):
        with refused(OperatorNotFoundError, "lib_first::f", "waits", line):
            look()
    owner = Library("lib_first", "DEF")
    owner.define("f(Tensor x) -> Tensor")
    assert call(ops.lib_first.f) == 2


def test_waiting_kernels_survive_other_removals() -> None:
    """S39: a kernel that waits is not lost when an unrelated library goes."""
    impl("lib_wait::f", "cpu", adds(1))
    with scoped_library("lib_unrelated", "DEF") as lib:
        lib.define("g(Tensor x) -> Tensor")
    define("lib_wait::f", "(Tensor x) -> Tensor")
    assert call(ops.lib_wait.f) == 2


# -- fallbacks ----------------------------------------------------------------


def test_a_fallback_serves_every_operator() -> None:
    """S40, S102: a fallback gets the operator first, serves later operators, and goes."""
    seen: list[str] = []

    def note(op: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(op.name())
        return op.redispatch(DispatchKeySet(["CPU"]), *args, **kwargs)

    before = settled()
    lib = Library("_", "IMPL")
    lib.fallback(note, "Negative")
    later = Library("lib_later", "FRAGMENT")
    later.define("f(Tensor x, *, int n=3) -> Tensor")
    later.impl("f", lambda x, n: of_array(x.numpy() + n), "CPU")
    with include_keys(["Negative"]):
        assert call(ops.lib_later.f) == 4
        assert float(add(of_array(ONE), of_array(ONE)).item()) == 2
    assert seen == ["lib_later::f", "core::add"]
    lib.destroy()
    with include_keys(["Negative"]):
        assert call(ops.lib_later.f) == 4
    assert len(seen) == 2
    later.destroy()
    assert settled() == before


def test_fallbacks_are_a_stack() -> None:
    """S102: the newest fallback acts; removing it brings back the one before."""

    def answer(n: int) -> Any:
        return lambda op, x, y: of_array(np.full(1, n))

    first, second = Library("_", "IMPL", "Conjugate"), Library("_", "IMPL", "Conjugate")
    first.fallback(answer(11))
    second.fallback(answer(12))
    x = of_array(ONE)
    with include_keys(["Conjugate"]):
        assert add(x, x).item() == 12
        second.destroy()
        assert add(x, x).item() == 11
        first.destroy()
        assert add(x, x).item() == 2


@pytest.mark.parametrize(
    ("ns", "fn", "key", "error", "words"),
    [
        ("_", abs, "", UsageError, ("needs a dispatch key",)),
        ("lib_fb", abs, "Negative", RegistrationError, ("lib_fb", '"_"')),
        ("_", abs, "Autograd", UsageError, ("Autograd",)),
        ("_", abs, "Nope", UsageError, ("Nope",)),
        ("_", 3, "Negative", UsageTypeError, ("function", "3")),
    ],
)
def test_bad_fallbacks(ns: str, fn: Any, key: str, error: Any, words: tuple[str, ...]) -> None:
    """S40: a fallback needs a run-time key, a function, and the namespace `_`."""
    lib = Library(ns, "IMPL")
    with refused(error, *words):
        lib.fallback(fn, key)


# -- lives --------------------------------------------------------------------


def test_destroy_undoes_everything() -> None:
    """S41: definitions, kernels and rules of a library go with it; the rest stays."""
    keep = Library("lib_life", "FRAGMENT")
    keep.define("kept(Tensor x) -> Tensor")
    keep.impl("kept", adds(1), "CPU")
    before = settled()
    lib = Library("lib_life", "FRAGMENT")
    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", adds(1), "CPU")
    lib.impl("kept", adds(5), "CPU")
    register_fake("lib_life::kept", adds(1), lib=lib)
    register_vmap("lib_life::f", adds(1), lib=lib)
    assert call(ops.lib_life.kept) == 6
    lib.destroy()
    lib.destroy()
    assert settled() == before
    assert call(ops.lib_life.kept) == 2


def test_collecting_a_library_undoes_it() -> None:
    """S41: a library that nobody holds takes its registrations along."""
    before = settled()
    lib = Library("lib_gc", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", adds(1), "CPU")
    handle, packet = ops.lib_gc.f.default, ops.lib_gc.f
    assert call(handle) == 2
    del lib
    gc.collect()
    assert settled() == before
    for gone in (lambda: call(handle), lambda: call(packet), lambda: handle("x"), lambda: handle()):
        with pytest.raises(OperatorGoneError, match="lib_gc::f was removed"):
            gone()
    with pytest.raises(OperatorNotFoundError):
        ops.lib_gc.f  # noqa: B018
    Library("lib_gc", "DEF")


@pytest.mark.parametrize("order", ["definer first", "user first"])
def test_destroy_order(order: str) -> None:
    """S41: a definition and a kernel of two libraries may go in either order."""
    before = settled()
    a, b = Library("lib_ab", "DEF"), Library("lib_ab", "IMPL", "CPU")
    a.define("f(Tensor x) -> Tensor")
    b.impl("f", adds(1))
    assert call(ops.lib_ab.f) == 2
    for lib in [a, b] if order == "definer first" else [b, a]:
        lib.destroy()
    assert settled() == before


@pytest.mark.parametrize(
    "use",
    [
        lambda lib: lib.define("f(Tensor x) -> Tensor"),
        lambda lib: lib.impl("f", abs, "CPU"),
        lambda lib: lib.fallback(abs, "Negative"),
        lambda lib: define("lib_used::f", "(Tensor x) -> Tensor", lib=lib),
        lambda lib: impl("lib_used::f", "cpu", abs, lib=lib),
        lambda lib: register_fake("core::add", abs, lib=lib),
    ],
)
def test_a_destroyed_library_is_of_no_use(use: Any) -> None:
    """S41: any use of a destroyed library raises, and says where it was made."""
    with scoped_library("lib_used", "FRAGMENT") as lib:
        made = here(-1)
    with refused(LibraryGoneError, "lib_used", "destroyed", made):
        use(lib)


def test_rules_without_a_library_do_not_pile_up() -> None:
    """S41: repeating a registration without a library replaces the former one."""
    define("lib_repeat::f", "(Tensor x) -> Tensor")
    for n in range(5):
        impl("lib_repeat::f", "cpu", adds(n))
        register_fake("lib_repeat::f", adds(n))
    assert len(list(as_operator("lib_repeat::f").places.items())) == 2
    assert call(ops.lib_repeat.f) == 5


# -- functions ----------------------------------------------------------------


def test_define_with_a_library() -> None:
    """S42: `define(lib, schema)` is the method; `lib=` makes the library the owner."""
    with scoped_library("lib_fn", "FRAGMENT") as lib:
        assert define(lib, "f(Tensor x) -> Tensor") == "f"
        assert define("lib_fn::g.over", "(Tensor x) -> Tensor", lib=lib) is None
        assert ops.lib_fn.g.over.name() == "lib_fn::g.over"
    assert list(ops.lib_fn) == []


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("f", "(Tensor x) -> Tensor"),
        ("a::b::c", "(Tensor x) -> Tensor"),
        ("a::b.c.d", "(Tensor x) -> Tensor"),
        ("a::", "(Tensor x) -> Tensor"),
        ("a::b", "b(Tensor x) -> Tensor"),
        ("a::b", 3),
        (3, "(Tensor x) -> Tensor"),
    ],
)
def test_bad_names(name: Any, schema: Any) -> None:
    """S42: a name not like `ns::name`, or a schema that does not begin with `(`, is refused."""
    with refused(UsageError, "fix"):
        define(name, schema)


def test_impl_for_device_types() -> None:
    """S42: types are device types, `default` or keys, one or several; without func it decorates."""
    define("lib_types::f", "(Tensor x) -> Tensor")
    impl("lib_types::f", "default", adds(1))
    assert call(ops.lib_types.f) == 2

    @impl("lib_types::f", ["cpu", "cuda"])
    def kernel(x: Tensor) -> Tensor:
        return of_array(x.numpy() + 5)

    assert call(kernel) == 6  # it stays a function
    assert call(ops.lib_types.f) == 6
    impl("lib_types::f", "AutogradCPU", adds(7))
    assert call(ops.lib_types.f) == 8
    keys = {k.name for k in ops.lib_types.f.default.kernels()}
    assert keys == {EXPLICIT, "CPU", "CUDA", "AutogradCPU"}


def test_impl_with_a_library_first() -> None:
    """S42: `impl(lib, name, key)` decorates."""
    lib = Library("lib_impl_first", "FRAGMENT")
    lib.define("f(Tensor x) -> Tensor")

    @impl(lib, "f", "CPU")
    def kernel(x: Tensor) -> Tensor:
        return of_array(x.numpy() + 1)

    assert call(ops.lib_impl_first.f) == 2


@pytest.mark.parametrize("types", ["gpu", ["cpu", "gpu"], "Cpu", [3], 3])
def test_unknown_device_types(types: Any) -> None:
    """S42: an unknown type is a usage error; none of the kernels is registered."""
    define("lib_unknown::f", "(Tensor x) -> Tensor")
    with refused(UsageError):
        impl("lib_unknown::f", types, adds(1))


# -- dumps --------------------------------------------------------------------


def test_dumps_show_lines() -> None:
    """S105: a dump has file and line of each registration, the table all keys."""
    define("lib_dump::f", "(Tensor x) -> Tensor")
    first, second = adds(1), lambda x: x
    impl("lib_dump::f", "cpu", first)
    lib = Library("lib_dump", "IMPL", "CPU")
    lib.impl("f", second)
    text = dispatch_dump("lib_dump::f")
    assert f"CPU: {__file__}:{second.__code__.co_firstlineno}\n" in text + "\n"
    assert f"{__file__}:{first.__code__.co_firstlineno} [overridden]" in text
    table = dispatch_dump_table(ops.lib_dump.f).splitlines()
    assert len(table) == 82
    assert any(line.startswith("CPU: kernel") and __file__ in line for line in table)
    assert any(line.startswith("CUDA: missing") for line in table)


def test_a_custom_op_is_owned_by_itself() -> None:
    """S41: a library that registers for a custom operator takes away only its own."""
    op = custom_op("lib_own::f", adds(1), mutates_args=())
    with scoped_library("lib_own", "IMPL") as lib:
        lib.impl(op, adds(2), "CPU")
        assert call(op) == 3
    assert call(op) == 2
