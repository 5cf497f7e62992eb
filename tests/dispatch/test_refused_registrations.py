"""What registration refuses: it leaves no trace, in whatever order things come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.dispatch.registry_state import refused

import polyop
from polyop import Library, Tag, Tensor, custom_op
from polyop.dispatch.library_functions import define, impl
from polyop.errors import (
    DuplicateRegistrationError,
    OperatorNotFoundError,
    RegistrationError,
    SchemaSyntaxError,
    UsageError,
    UsageTypeError,
)
from polyop.extend import DispatchKey, HigherOrderOperator
from polyop.library import register_dispatch, register_fake, register_kernel

SCHEMA = "(Tensor x) -> Tensor"
ops = polyop.ops


def scaled(n: float) -> Callable[..., Any]:
    return lambda x: x * n


def fake(x: Tensor) -> Tensor:
    return polyop.empty_like(x)


@pytest.fixture
def library() -> Iterator[Callable[[str], Library]]:
    """Makes libraries with an operator `f`, which go at the end of the test."""
    made: list[Library] = []

    def make(ns: str) -> Library:
        made.append(Library(ns, "FRAGMENT"))
        made[-1].define(f"f{SCHEMA}")
        return made[-1]

    yield make
    for lib in made:
        lib.destroy()


# -- all of it or nothing (S4) ------------------------------------------------

SEVERAL: list[Callable[[Any, Any], Any]] = [
    lambda keys, fn: register_kernel("ref_all::f", keys, fn),
    lambda keys, fn: impl("ref_all::f", keys, fn),
    lambda keys, fn: custom_op("ref_all::f", fn, mutates_args=(), schema=SCHEMA, device_types=keys),
]


@pytest.mark.parametrize("register", SEVERAL)
def test_several_keys_are_registered_or_none(register: Any, library: Any) -> None:
    """S4, S38: a key that is refused keeps the kernel from the others too."""
    lib = library("ref_all")
    lib.impl("f", scaled(2), "CompositeImplicitAutograd")
    for keys, error in ((["cpu", "meta"], RegistrationError), (["cpu", "Undefined"], UsageError)):
        with refused(error, "ref_all::f"):
            register(keys, scaled(9))
        assert ops.ref_all.f(polyop.ones(2)).tolist() == [2, 2]


@pytest.mark.parametrize("schema", [SCHEMA, "(Tensor x, Tensor y) -> Tensor"])
@pytest.mark.parametrize("replace", [False, True])
def test_a_refused_operator_leaves_the_former_one(schema: str, replace: bool) -> None:
    """S4, S44: a definition whose kernel is refused does not remove the operator that is there."""
    former = custom_op("ref_former::f", scaled(3), mutates_args=(), schema=SCHEMA)
    with refused(UsageError, "Undefined"):
        custom_op(
            "ref_former::f", scaled(9), mutates_args=(), schema=schema, replace=replace,
            device_types=["cpu", "Undefined"],
        )  # fmt: skip
    assert former(polyop.ones(2)).tolist() == [3, 3]


def test_a_refused_first_definition_is_not_there() -> None:
    """S4, S43: an operator whose kernel is refused is not defined."""
    with refused(UsageError, "Undefined"):
        custom_op(
            "ref_first::f", scaled(1), mutates_args=(), schema=SCHEMA,
            device_types=["cpu", "Undefined"],
        )  # fmt: skip
    with refused(RegistrationError, "decomposes"):
        custom_op(
            "ref_first::f", scaled(1), mutates_args=(), schema=SCHEMA,
            device_types=["CompositeImplicitAutograd", "meta"],
        )  # fmt: skip
    assert list(ops.ref_first) == []


def of_torch(keys: Any, fn: Any) -> Any:
    return register_kernel("ref_all::f", keys, fn, library="torch")


@pytest.mark.parametrize("register", [*SEVERAL, of_torch])
def test_no_device_type_is_refused(register: Any, library: Any) -> None:
    """S42, S43, S50: a kernel for no device at all would be lost."""
    library("ref_all")
    with refused(UsageError, "no device type", "None for every device"):
        register([], scaled(1))


def test_device_types_may_come_one_by_one(library: Any) -> None:
    """S50: an iterator of device types is several of them, for a library's kernel too."""
    library("ref_all")
    of_torch((name for name in ("cpu", "cuda")), scaled(1))
    slots = ops.ref_all.f.default.slots()
    assert {"kernel:torch:cpu", "kernel:torch:cuda"} <= set(slots)


# -- a fake rule and a decomposition (S38) ------------------------------------


def test_what_decomposes_has_no_fake_in_either_order(library: Any) -> None:
    """S38, S106: it does not matter which of the two came first."""
    lib = library("ref_order")
    op = ops.ref_order.f.default
    composite = DispatchKey.CompositeImplicitAutograd
    lib.impl("f", fake, "Meta")
    with refused(RegistrationError, "ref_order::f decomposes", __file__):
        lib.impl("f", scaled(1), composite)
    with refused(RegistrationError, "ref_order::f decomposes", __file__):
        op.py_impl(composite)(scaled(1))
    lib.destroy()
    lib = library("ref_order")
    lib.impl("f", scaled(1), composite)
    for register in (
        ops.ref_order.f.default.py_impl(DispatchKey.Meta),
        register_fake("ref_order::f"),
    ):
        with refused(RegistrationError, "ref_order::f decomposes", __file__):
            register(fake)
    assert ops.ref_order.f(polyop.ones(2)).tolist() == [1, 1]


def test_a_fake_and_a_meta_kernel_are_one_place(library: Any) -> None:
    """S37, S141: with `allow_override=False` the one does not go over the other."""
    lib = library("ref_place")
    register_fake("ref_place::f", fake)
    with refused(DuplicateRegistrationError, "fake", __file__):
        lib.impl("f", fake, "Meta", allow_override=False)
    lib.define(f"g{SCHEMA}")
    lib.impl("g", fake, "Meta")
    with refused(DuplicateRegistrationError, "Meta", __file__):
        register_fake("ref_place::g", fake, allow_override=False)


# -- names and schemas --------------------------------------------------------


def test_any_number_of_arguments_is_refused(library: Any) -> None:
    """S5: `...` parses, and defines nothing."""
    lib = library("ref_more")
    text = "(Tensor x, ...) -> Tensor"
    for attempt in (
        lambda: lib.define(f"va{text}"),
        lambda: define("ref_more::va", text),
        lambda: custom_op("ref_more::va", scaled(1), mutates_args=(), schema=text),
    ):
        with refused(SchemaSyntaxError, "ref_more::va", "'...'", "^^^"):
            attempt()


@pytest.mark.parametrize("before", ["q", ".out", "@2", "2", "ns::q"])
def test_a_given_schema_has_no_name(before: str) -> None:
    """S42, S43: nothing of `schema=` becomes part of the name."""
    with refused(UsageError, "ref_name::s", "begins with '('"):
        custom_op("ref_name::s", scaled(1), mutates_args=(), schema=before + SCHEMA)


@pytest.mark.parametrize(
    "name", ["", "foo bar", "f.", "1f", "ref_wait::f::g", "f.default.x", "f.__x"]
)
def test_a_kernel_does_not_wait_for_what_is_no_name(name: str, library: Any) -> None:
    """S36, S39: a name that no definition can have is refused at once."""
    lib = library("ref_wait")
    with refused(UsageError, "is no operator name", "ref_wait"):
        lib.impl(name, scaled(1), "CPU")


def test_impl_of_a_library_takes_a_key(library: Any) -> None:
    """S42: `impl(lib, name, fn)` registers nothing, so it is refused."""
    lib = library("ref_key")
    with refused(UsageTypeError, "key", "impl(lib, name, key)(fn)"):
        impl(lib, "f", scaled(1))
    impl(lib, "f", "CPU")(scaled(2))
    assert ops.ref_key.f(polyop.ones(1)).tolist() == [2]


def test_a_library_defines_in_its_own_namespace(library: Any) -> None:
    """S33, S36: also as the `lib` of a function."""
    lib, reader = library("ref_mine"), Library("ref_mine", "IMPL")
    with refused(RegistrationError, "'ref_mine' cannot define in 'ref_yours'"):
        define("ref_yours::f", SCHEMA, lib=lib)
    with refused(RegistrationError, "defines nothing"):
        define("ref_mine::g", SCHEMA, lib=reader)
    with refused(UsageError, "registers nothing for 'ref_yours::f'"):
        impl("ref_yours::f", "cpu", scaled(1), lib=lib)


@pytest.mark.parametrize("ns", ["prim", "higher_order", "_", "__x", "load_library"])
def test_reserved_namespaces(ns: str) -> None:
    """S31: no way of defining takes one; operators of some would not be found in `polyop.ops`."""
    for attempt in (
        lambda: custom_op(f"{ns}::f", scaled(1), mutates_args=(), schema=SCHEMA),
        lambda: define(f"{ns}::f", SCHEMA),
        lambda: Library(ns, "FRAGMENT"),
    ):
        with refused(UsageError, repr(ns), "reserved"):
            attempt()


def test_an_operator_of_our_own_is_not_replaced() -> None:
    """S44: `custom_op` does not take the place of a built-in kernel."""
    schema = str(ops.core.add.default._schema).partition("(")
    with refused(DuplicateRegistrationError, "core::add", "register_kernel"):
        custom_op("core::add", scaled(1), mutates_args=(), schema="(" + schema[2])


def test_a_dispatch_rule_is_for_a_mode_or_a_tensor(library: Any) -> None:
    """S54: no call is ever asked of another class."""
    library("ref_class")
    with refused(UsageTypeError, "Tensor subclass", "int"):
        register_dispatch("ref_class::f", int, scaled(1))


@pytest.mark.parametrize("name", [3, "", "a b"])
def test_the_name_of_a_higher_order_operator(name: Any) -> None:
    """S117: it is reached as an attribute."""

    class Named(HigherOrderOperator):
        def __call__(self, x: Any) -> Any:
            return super().__call__(x)

    with refused(UsageTypeError, "named like an attribute", repr(name)):
        Named(name)


@pytest.mark.parametrize("lib", ["ns", 3])
def test_lib_is_a_library(lib: Any, library: Any) -> None:
    """S1, S2: something else is refused by name, wherever it is given."""
    library("ref_lib")
    for attempt in (
        lambda: define("ref_lib::g", SCHEMA, lib=lib),
        lambda: impl("ref_lib::f", "cpu", scaled(1), lib=lib),
        lambda: register_kernel("ref_lib::f", "cpu", scaled(1), lib=lib),
        lambda: register_fake("ref_lib::f", fake, lib=lib),
    ):
        with refused(UsageTypeError, "lib is a library", repr(lib)):
            attempt()


# -- definitions that join ----------------------------------------------------


def test_tags_are_those_of_the_definitions_that_live() -> None:
    """S34, S106: a joining definition brings its tags, and takes them along."""
    first, second = Library("ref_tags", "FRAGMENT"), Library("ref_tags", "FRAGMENT")
    first.define(f"f{SCHEMA}", tags=Tag.core)
    second.define(f"f{SCHEMA}", tags=[Tag.pointwise])
    op = ops.ref_tags.f.default
    assert op.tags == (Tag.core, Tag.pointwise)
    custom_op("ref_tags::f", scaled(1), mutates_args=(), schema=SCHEMA, tags="pointwise")
    assert op.tags == (Tag.pt2_compliant_tag, Tag.core, Tag.pointwise)
    first.destroy()
    assert op.tags == (Tag.pt2_compliant_tag, Tag.pointwise)


def test_the_kernel_that_waits_for_an_overload(library: Any) -> None:
    """S39: it is named also where other overloads are defined."""
    lib = library("ref_later")
    lib.impl("f.over", scaled(1), "CPU")
    for look_up in (lambda: ops.ref_later.f.over, lambda: register_fake("ref_later::f.over", fake)):
        with pytest.raises(
            OperatorNotFoundError, match=f"(?s)waits for its definition: {__file__}"
        ):
            look_up()
    with pytest.raises(OperatorNotFoundError) as caught:
        ops.ref_later.f.other  # noqa: B018
    assert "waits" not in str(caught.value)
