"""`custom_op` and `CustomOpDef`: from a function to an operator, and again."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from typing import Any, Optional

import numpy as np
import pytest
from tests.dispatch.registry_state import refused, settled

import polyop.assembly  # noqa: F401
from polyop.devices import CPU, Device
from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library import scoped_library
from polyop.dispatch.namespaces import ops
from polyop.dispatch.registry import as_operator
from polyop.errors import (
    ArgumentError,
    DuplicateRegistrationError,
    InferenceError,
    MissingKernelError,
    OperatorGoneError,
    OperatorNotFoundError,
    PolyopWarning,
    UsageError,
    UsageTypeError,
)
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor, of_array

ONE = np.ones(1)


def here(offset: int = 0) -> str:
    frame = inspect.stack()[1]
    return f"{frame.filename}:{frame.lineno + offset}"


def adds(n: float) -> Any:
    def kernel(x: Tensor) -> Tensor:
        return of_array(x.numpy() + n)

    return kernel


def scaled(x: Tensor, n: int = 2) -> Tensor:
    """Multiply."""
    return of_array(x.numpy() * n)


def call(op: Any, *args: Any) -> float:
    return float(op(of_array(ONE), *args).item())


def test_as_a_decorator_and_as_a_call() -> None:
    """S43: `custom_op` decorates, or takes the function; both give a CustomOpDef."""

    @custom_op("cop::deco", mutates_args=())
    def deco(x: Tensor) -> Tensor:
        return of_array(x.numpy() + 1)

    direct = custom_op("cop::direct", adds(1), mutates_args=())
    assert isinstance(deco, CustomOpDef) and isinstance(direct, CustomOpDef)
    assert call(deco) == call(direct) == call(ops.cop.deco) == 2


def test_the_key_of_the_function() -> None:
    """S43: the function is the default kernel, or that of the named devices alone."""
    default = custom_op("cop::default", adds(1), mutates_args=())
    cpu = custom_op("cop::cpu", adds(1), mutates_args=(), device_types="cpu")
    both = custom_op("cop::both", adds(1), mutates_args=(), device_types=("cpu", Device("cuda")))
    keys = [[k.name for k in op._opoverload.kernels()] for op in (default, cpu, both)]
    assert keys == [["CompositeExplicitAutograd"], ["CPU"], ["CPU", "CUDA"]]


def test_tags() -> None:
    """S43: `Tag.pt2_compliant_tag` is added, first."""
    op = custom_op("cop::tags", adds(1), mutates_args=(), tags=[Tag.pointwise, "core"])
    assert op.tags[0] is Tag.pt2_compliant_tag and set(op.tags[1:]) == {Tag.pointwise, Tag.core}


def test_mutates_args_must_be_said() -> None:
    """S43: `mutates_args` is required."""
    with pytest.raises(TypeError, match="mutates_args"):
        custom_op("cop::unsaid", adds(1))  # type: ignore[call-arg]


def test_a_given_schema() -> None:
    """S43: `schema=` is the text after the name."""
    op = custom_op("cop::text", lambda x, n: of_array(x.numpy() * n), mutates_args=(),
                   schema="(Tensor x, int n=3) -> Tensor")  # fmt: skip
    assert str(op._schema) == "cop::text(Tensor x, int n=3) -> Tensor"
    assert call(op) == 3


def test_an_overload_joins_its_packet() -> None:
    """S43: `ns::name.overload` is an overload of `ns::name`."""
    custom_op("cop::many", adds(1), mutates_args=())
    custom_op("cop::many.scaled", scaled, mutates_args=())
    assert ops.cop.many.overloads() == ["default", "scaled"]
    assert call(ops.cop.many.scaled, 5) == 5


def no_annotation(x, y: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    return y


BAD: list[tuple[tuple[Any, ...], dict[str, Any], Any, tuple[str, ...]]] = [
    (("f", adds(1)), {}, UsageError, ("'f'", "namespace::name", "fix")),
    (("a::b::c", adds(1)), {}, UsageError, ("a::b::c",)),
    (("a::b.c.d", adds(1)), {}, UsageError, ("a::b.c.d",)),
    (("a b::c", adds(1)), {}, UsageError, ("a b::c",)),
    ((3, adds(1)), {}, UsageError, ("3",)),
    (("cop::bad", 3), {}, UsageTypeError, ("cop::bad", "3", "function")),
    (("cop::bad", no_annotation), {}, InferenceError, ("cop::bad", "'x'", "annotation")),
    (("cop::bad", adds(1)), {"mutates_args": {"y"}}, InferenceError, ("'y'", "no argument")),
    (("cop::bad", adds(1)), {"mutates_args": "x"}, InferenceError, ("not a string",)),
    (("cop::bad", adds(1)), {"device_types": "gpu"}, UsageError, ("gpu",)),
    (("cop::bad", adds(1)), {"device_types": 3}, UsageTypeError, ("3",)),
    (("cop::bad", adds(1)), {"schema": "Tensor x"}, UsageError, ("begins with '('",)),
    (("cop::bad", adds(1)), {"schema": "(Tensor(a!) x) -> ()"}, InferenceError, ("disagree",)),
    (("cop::bad", adds(1)), {"tags": "nope"}, UsageError, ("nope",)),
    (("cop::bad", adds(1)), {"tags": Tag.inplace}, InferenceError, ("Tag.inplace",)),
    (("cop::bad", adds(1)), {"version": 0}, UsageError, ("version=0",)),
    (("cop::bad", adds(1)), {"version": "2"}, UsageError, ("version='2'",)),
    (("cop::bad@3", adds(1)), {"version": 2}, UsageError, ("cop::bad@3",)),
    (("cop::bad", lambda n: n), {"schema": "(int n) -> int", "device_types": "cpu"}, UsageError,
     ("cop::bad", "no Tensor argument", "device", __file__)),
]  # fmt: skip


@pytest.mark.parametrize(("args", "kwargs", "error", "words"), BAD)
def test_bad_definitions(args: Any, kwargs: Any, error: Any, words: Any) -> None:
    """S4, S43, S51: a refused definition says why, and leaves nothing behind."""
    with refused(error, *words):
        custom_op(*args, **{"mutates_args": (), **kwargs})


# -- again --------------------------------------------------------------------


def test_the_same_schema_replaces_the_kernel() -> None:
    """S44: the same definition again replaces its kernel; rules and handles live on."""
    first = custom_op("cop::again", adds(1), mutates_args=())
    first.register_vmap(scaled)
    handle = ops.cop.again.default
    second = custom_op("cop::again", adds(2), mutates_args=())
    assert second._opoverload is handle
    assert call(first) == call(second) == call(handle) == 3
    assert inspect.unwrap(handle.rule("vmap")) is scaled
    assert len(list(handle.places.items())) == 2


def test_another_schema_from_the_same_module() -> None:
    """S44: another schema from the same module starts anew, with a warning."""
    first = custom_op("cop::anew", adds(1), mutates_args=())
    place = here(-1)
    first.register_vmap(scaled)
    with pytest.warns(PolyopWarning, match="cop::anew was defined anew") as caught:
        second = custom_op("cop::anew", scaled, mutates_args=())
    assert caught[0].filename == __file__
    assert call(second) == call(ops.cop.anew) == 2
    assert second._opoverload.rule("vmap") is None
    for gone in (first, first._opoverload):
        with pytest.raises(OperatorGoneError) as error:
            gone(of_array(ONE))
        text = str(error.value)
        assert place in text and "cop::anew(Tensor x, SymInt n=2)" in text


def test_replace_is_silent() -> None:
    """S44: `replace=True` starts anew without a warning, with the same schema too."""
    first = custom_op("cop::silent", adds(1), mutates_args=())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = custom_op("cop::silent", scaled, mutates_args=(), replace=True)
        third = custom_op("cop::silent", scaled, mutates_args=(), replace=True)
    assert call(third, 4) == 4
    for gone in (first, second):
        with pytest.raises(OperatorGoneError):
            gone(of_array(ONE))


def cell(source: str, number: int, module: str = "__main__") -> dict[str, Any]:
    """Run text as a notebook runs a cell: a file name of its own, in one module."""
    scope = {"__name__": module, "Tensor": Tensor, "of_array": of_array, "custom_op": custom_op}
    exec(compile(source, f"<ipython-input-{number}>", "exec"), scope)
    return scope


CELL = """
@custom_op("cop::cell", mutates_args=())
def f(x: Tensor{more}) -> Tensor:
    return of_array(x.numpy() + 1)
"""


def test_notebook_cells() -> None:
    """S44: cells of one notebook are one module, whatever their file names."""
    first = cell(CELL.format(more=""), 1)["f"]
    assert cell(CELL.format(more=""), 2)["f"]._opoverload is first._opoverload
    with pytest.warns(PolyopWarning, match="<ipython-input-3>:2"):
        third = cell(CELL.format(more=", n: int = 1"), 3)["f"]
    assert call(third) == 2


def test_another_module_is_refused() -> None:
    """S44: another schema from another module is refused, and names both places."""
    cell(CELL.replace("cell", "mine").format(more=""), 1, "one")
    text = CELL.replace("cell", "mine").format(more=", n: int = 1")
    words = ("cop::mine", "<ipython-input-1>:2", "<ipython-input-2>:2", "n=1", "replace=True")
    with refused(DuplicateRegistrationError, *words):
        cell(text, 2, "two")


def test_a_library_definition_is_another_modules() -> None:
    """S44: a name that a library defined is not redefined with another schema."""
    with scoped_library("cop_lib", "FRAGMENT") as lib:
        lib.define("f(Tensor x) -> Tensor")
        with refused(DuplicateRegistrationError, "cop_lib::f"):
            custom_op("cop_lib::f", scaled, mutates_args=())
        op = custom_op("cop_lib::f", adds(1), mutates_args=())  # the same schema joins
        assert call(op) == 2
    assert call(op) == 2


# -- the object ---------------------------------------------------------------


def test_it_looks_like_the_function() -> None:
    """S45: name, docstring, module, wrapped function and signature are kept."""
    op = custom_op("cop::looks", scaled, mutates_args=())
    for _ in range(2):
        assert (op.__name__, op.__doc__, op.__module__) == ("scaled", "Multiply.", __name__)
        assert op.__wrapped__ is scaled
        assert inspect.signature(op) == inspect.signature(scaled)
        call(op)  # a call changes nothing of it
    assert op._opoverload is ops.cop.looks.default
    assert op._qualname == "cop::looks" and op._schema is op._opoverload._schema


def test_copies_and_pickles() -> None:
    """S45, S59: operators copy to themselves, and pickle by name and version."""
    one = custom_op("cop::kept", adds(1), mutates_args=())
    two = custom_op("cop::kept", adds(2), mutates_args=(), version=2)
    for _ in range(2):
        for op in (one, two):
            assert copy.copy(op) is op and copy.deepcopy(op) is op
            again = pickle.loads(pickle.dumps(op))
            assert isinstance(again, CustomOpDef) and again._opoverload is op._opoverload
            overload = op._opoverload
            assert copy.deepcopy([overload])[0] is overload
            assert pickle.loads(pickle.dumps(overload)) is overload
            call(op)
    packet = ops.cop.kept
    assert copy.deepcopy(packet) is packet and pickle.loads(pickle.dumps(packet)) is packet


def test_a_pickle_of_a_removed_operator() -> None:
    """S45: a pickle whose operator is not there is read all the same; who calls it is told."""
    op = custom_op("cop::lost", adds(1), mutates_args=())
    data = pickle.dumps(op)
    custom_op("cop::lost", adds(1), mutates_args=(), version=2)
    from polyop.dispatch.registry import disown, places_of

    disown(places_of("cop::lost"))
    again = pickle.loads(pickle.dumps(pickle.loads(data)))
    with pytest.raises(OperatorNotFoundError, match=r"(?s)no version 1.*import the module"):
        call(again)
    with pytest.raises(OperatorNotFoundError, match="no version 1"):
        again.register_fake(print)
    custom_op("cop::lost", adds(1), mutates_args=())
    call(again)


def test_versions() -> None:
    """S29: versions stand side by side, with rules of their own; the name finds the newest."""
    one = custom_op("cop::v", adds(1), mutates_args=())
    assert str(one._opoverload) == "cop.v.default" == str(ops.cop.v.default)
    two = custom_op("cop::v", scaled, mutates_args=(), version=2)
    four = custom_op("cop::v@4", adds(4), mutates_args=())
    packet = ops.cop.v
    assert packet.versions() == [1, 2, 4]
    assert [packet.at(v) for v in (1, 2, 4)] == [op._opoverload for op in (one, two, four)]
    assert packet.default is as_operator("cop::v") is four._opoverload
    assert as_operator("cop::v@2") is as_operator("cop::v.default@2") is two._opoverload
    assert as_operator("cop::v@1") is one._opoverload
    assert str(two._opoverload) == "cop.v.default@2"
    assert (call(one), call(two, 9), call(packet)) == (2, 9, 5)
    two.register_vmap(scaled)
    assert one._opoverload.rule("vmap") is None
    with pytest.raises(OperatorNotFoundError, match="no version 3(.|\n)*1, 2, 4"):
        packet.at(3)


def test_versions_of_an_overload() -> None:
    """S29: an overload has versions of its own."""
    custom_op("cop::vo", adds(1), mutates_args=())
    two = custom_op("cop::vo.scaled@2", scaled, mutates_args=())
    packet = ops.cop.vo
    assert packet.versions() == [1] and packet.versions("scaled") == [2]
    assert as_operator("cop::vo.scaled@2") is two._opoverload
    with pytest.raises(OperatorNotFoundError):
        as_operator("cop::vo@2")


# -- factories ----------------------------------------------------------------


def filled(n: int, device: Optional[Device] = None) -> Tensor:  # noqa: UP045
    return of_array(np.full(1, n))


def filled_keyword(n: int, *, device: Device = CPU) -> Tensor:
    return of_array(np.full(1, n))


@pytest.mark.parametrize("fn", [filled, filled_keyword])
def test_the_device_is_read_after_binding(fn: Any) -> None:
    """S51, S104: positional, keyword, defaulted and None devices find the kernel."""
    op = custom_op("cop::filled", fn, mutates_args=(), device_types="cpu", replace=True)
    calls = [op(1), op(1, device="cpu"), op(n=1, device=CPU)]
    if fn is filled:
        calls += [op(1, "cpu"), op(1, None), op(1, device=None)]
    assert [t.item() for t in calls] == [1] * len(calls)
    words = "no kernel for cuda(.|\n)*kernels for: cpu(.|\n)*'cuda'"
    with pytest.raises(MissingKernelError, match=words):
        op(1, device="cuda")
    with pytest.raises(ArgumentError, match="device"):
        op(1, device="nowhere")
    op.register_kernel("cuda", lambda n, device=None: of_array(np.full(1, n + 10)))
    assert op(1, device="cuda:1").item() == 11 and op(1).item() == 1


def test_device_kernels_of_a_library() -> None:
    """S104: a library's device kernel selects the backend, before or after the definition."""
    before = settled()
    with scoped_library("cop_fac", "IMPL") as kernels, scoped_library("cop_fac", "DEF") as lib:
        kernels.impl("f", lambda n, device: n + 1, "CPU")
        lib.define("f(int n, Device? device=None) -> int")
        lib.impl("f", lambda n, device: n + 2, "CUDA")
        assert ops.cop_fac.f(1) == 2 and ops.cop_fac.f(1, "cuda") == 3
        kernels.destroy()
        assert ops.cop_fac.f(1, "cuda") == 3
        with pytest.raises(MissingKernelError, match="cpu"):
            ops.cop_fac.f(1)
    assert settled() == before


def test_a_default_kernel_needs_no_device() -> None:
    """S51: without device types, no argument `device` is asked for."""
    op = custom_op("cop::count", lambda n: n + 1, mutates_args=(), schema="(int n) -> int")
    assert op(1) == 2


# -- switching kernels --------------------------------------------------------


def switched() -> CustomOpDef:
    op = custom_op("cop::switch", adds(1), mutates_args=(), replace=True)
    op.register_kernel("cpu", adds(10))
    op.register_kernel("cuda", adds(20))
    return op


def test_a_disabled_kernel_gives_way_to_the_default() -> None:
    """S52: calls for the device use the default kernel, at once and for a block."""
    op = switched()
    assert call(op) == 11
    op.set_kernel_enabled("cpu", False)
    assert call(op) == 2
    op.set_kernel_enabled("cpu")
    assert call(op) == 11
    with op.set_kernel_enabled("cpu", False):
        assert call(op) == 2
    assert call(op) == 11


def test_the_block_brings_back_what_was_there() -> None:
    """S52: leaving a block, by an error too, gives back the state before it."""
    op = switched()
    op.set_kernel_enabled("cpu", False)
    with pytest.raises(ZeroDivisionError), op.set_kernel_enabled("cpu", True):
        assert call(op) == 11
        raise ZeroDivisionError
    assert call(op) == 2


def test_never_another_devices_kernel() -> None:
    """S52: without a default kernel a disabled device has none."""
    op = custom_op("cop::switch2", adds(1), mutates_args=(), device_types=["cpu", "cuda"])
    with op.set_kernel_enabled("cpu", False):
        with pytest.raises(MissingKernelError, match="no kernel for cpu(.|\n)*cuda"):
            call(op)
    assert call(op) == 2


def test_nothing_to_switch_is_a_warning() -> None:
    """S52: no such kernel, or no change, is a warning and changes nothing."""
    op = switched()
    with pytest.warns(PolyopWarning, match="no kernel for xpu"):
        op.set_kernel_enabled("xpu", False)
    with pytest.warns(PolyopWarning, match="enabled already"):
        op.set_kernel_enabled("cpu", True)
    with refused(UsageError, "gpu"):
        op.set_kernel_enabled("gpu", False)
    assert call(op) == 11


def test_a_kernel_registered_while_disabled_stays_so() -> None:
    """S52: a new kernel of a disabled device waits until the device is enabled."""
    op = switched()
    op.set_kernel_enabled("cpu", False)
    op.register_kernel("cpu", adds(30))
    assert call(op) == 2
    op.set_kernel_enabled("cpu", True)
    assert call(op) == 31


def test_the_methods_register() -> None:
    """S46: each slot has a method, which returns the function."""
    op = custom_op("cop::slots", adds(1), mutates_args=())
    assert op.register_fake(scaled) is scaled
    assert op.register_vmap()(scaled) is scaled
    assert op.register_jvp(scaled) is scaled
    assert op.register_kernel("cuda")(scaled) is scaled
    assert op.register_dispatch(Tensor)(scaled) is scaled
    assert op.samples([(1,)]) == [(1,)]
    op.register_autograd(scaled, setup_context=scaled)
    found = {"fake", "vmap", "jvp", "backward", "samples", DispatchKey.CUDA.name}
    assert found <= set(op._opoverload.slots())
