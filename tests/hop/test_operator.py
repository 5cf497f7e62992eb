"""The base of higher-order operators: who acts on a call, in which order, and what is refused."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop import func
from polyop.dispatch.context import run_under, word
from polyop.dispatch.guards import exclude_keys, excluded_keys, include_keys
from polyop.dispatch.infra_modes import ModeKey
from polyop.dispatch.keys import AUTOCAST_KEYS, AUTOGRAD_KEYS
from polyop.dispatch.namespaces import ops
from polyop.dispatch.pre_dispatch import with_pre_dispatch
from polyop.dispatch.python_key import disabled_dispatch
from polyop.dispatch.table import fallthrough_kernel
from polyop.errors import (
    AutogradError,
    DuplicateRegistrationError,
    MissingKernelError,
    MissingSchemaError,
    OperatorNotFoundError,
    SubgraphError,
    UnhandledDispatchError,
    UsageTypeError,
    VmapError,
)
from polyop.extend import DispatchKey, DispatchMode, TransformType, get_cached_ops
from polyop.fake import FakeTensorMode
from polyop.hop import (
    HigherOrderOperator,
    HopSchemaGenerator,
    Interpreter,
    register_fake,
    register_higher_order,
)
from polyop.hop.operator import cacheable_operators
from polyop.layers.trace.tracer import Tracer
from polyop.tensor.subclass import make_subclass

ONE = polyop.ones(2)
K = DispatchKey


class Hop(HigherOrderOperator):
    """A higher-order operator without rules."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


@pytest.fixture
def hop() -> Iterator[Hop]:
    """A fresh operator, taken out of the namespace at the end."""
    made = Hop("hop_under_test")
    yield made
    del ops.higher_order.table["hop_under_test"]


def says(text: str) -> Any:
    """A rule that gives a text, whatever it gets."""
    return lambda *args, **kwargs: text


# -- names --------------------------------------------------------------------


def test_it_is_found_by_name(hop: Hop) -> None:
    """S68, S176: it is an attribute of ops.higher_order, listed, and copies to itself."""
    assert ops.higher_order.hop_under_test is hop
    assert "hop_under_test" in list(ops.higher_order) and "hop_under_test" in dir(ops.higher_order)
    assert copy.copy(hop) is copy.deepcopy(hop) is pickle.loads(pickle.dumps(hop)) is hop
    assert (str(hop), hop.name(), hop.namespace) == (
        "hop_under_test",
        "hop_under_test",
        "higher_order",
    )


def test_an_unknown_name(hop: Hop) -> None:
    """S68, S3: an unknown name → OperatorNotFoundError with the nearest one."""
    with pytest.raises(OperatorNotFoundError, match="did you mean 'hop_under_test'"):
        _ = ops.higher_order.hop_under_tests
    assert not hasattr(ops.higher_order, "nothing_like_it")


def test_it_is_abstract() -> None:
    """S176: without a __call__ of its own → TypeError, and the name stays free."""

    class Bare(HigherOrderOperator):
        pass

    for cls in (HigherOrderOperator, Bare):
        with pytest.raises(UsageTypeError, match="__call__"):
            cls("hop_bare")
    assert not hasattr(ops.higher_order, "hop_bare")


def test_a_name_is_used_once(hop: Hop) -> None:
    """S176: a name in use → DuplicateRegistrationError with both places; the first stays."""
    with pytest.raises(DuplicateRegistrationError, match=r"(?s)test_operator.*again at"):
        Hop("hop_under_test")
    assert ops.higher_order.hop_under_test is hop


def test_the_same_line_again() -> None:
    """S176: the same file and line, as of a module that is read again, replaces the former."""
    first, second = (Hop("hop_reread") for _ in range(2))
    assert first is not second and ops.higher_order.hop_reread is second
    first, second = (register_higher_order("hop_reread2", says("")) for _ in range(2))
    assert ops.higher_order.hop_reread2 is second
    with pytest.raises(DuplicateRegistrationError):
        register_higher_order("hop_reread2", says(""))


def test_cacheable(hop: Hop) -> None:
    """S123: cacheable is the constructor's flag, or an option; overriding it → TypeError."""
    assert not hop.cacheable() and Hop("hop_kept", cacheable=True).cacheable()
    cacheable_operators.add("hop_under_test")
    try:
        assert hop.cacheable()
    finally:
        cacheable_operators.clear()
    with pytest.raises(UsageTypeError, match="overrides cacheable"):
        type("Bad", (Hop,), {"cacheable": lambda self: True})


# -- keys ---------------------------------------------------------------------


def test_what_passes_by(hop: Hop) -> None:
    """S117: the mask lacks PyTorch's seven keys, and the other Autocast keys; nothing else."""
    passed = {k for k in K if 0 < k <= K.PythonDispatcher and not hop.non_fallthrough_keys.has(k)}
    theirs = torch._ops._HIGHER_ORDER_OP_DEFAULT_FALLTHROUGH_DISPATCH_KEYS
    assert passed == {K[k.name] for k in theirs} | set(AUTOCAST_KEYS)


def test_fallthrough_and_back(hop: Hop) -> None:
    """S117: fallthrough takes a key out of the mask, py_impl puts it back; both at once seen."""
    hop.py_impl(K.CPU)(says("cpu"))
    with pytest.raises(MissingKernelError):
        hop(ONE)
    hop.fallthrough(K.AutogradCPU)
    assert hop(ONE) == "cpu"
    hop.py_impl(K.AutogradCPU)(says("autograd"))
    assert hop(ONE) == "autograd"
    hop.py_impl(K.AutocastCPU)(says("autocast"))
    with polyop.autocast("cpu"):
        assert hop(ONE) == "autocast"
    assert hop(ONE) == "autograd"


@pytest.mark.parametrize(
    "args",
    [(ONE,), ([ONE],), ((1, {"a": (ONE,)}),), (None, says(""), [[ONE]])],
    ids=["plain", "list", "dict", "nested"],
)
def test_all_leaves_count(hop: Hop, args: Any) -> None:
    """S117: the keys of every tensor leaf count, in any container, of args and kwargs."""
    hop.py_impl(K.AutogradCPU)(says("autograd"))
    hop.py_impl(K.CompositeExplicitAutograd)(says("none"))
    assert hop(*args) == "autograd" and hop(x=args) == "autograd"
    assert hop(says(""), 3, None, ["text"], a=1) == "none"


def test_context_counts(hop: Hop) -> None:
    """S117, S92: the context's sets are added and taken out."""
    for key in (K.AutogradCPU, K.CPU, K.TESTING_ONLY_GenericMode):
        hop.py_impl(key)(says(key.name))
    assert hop(ONE) == "AutogradCPU"
    with include_keys(K.TESTING_ONLY_GenericMode):
        assert hop(ONE) == "TESTING_ONLY_GenericMode"
    with exclude_keys(K.AutogradCPU):
        assert hop(ONE) == "CPU"


def test_kernels_by_alias(hop: Hop) -> None:
    """S121, S85: an alias key's kernel serves the keys it contains, and is kept under the key."""
    kernel = hop.py_impl(K.CompositeImplicitAutograd)(says("math"))
    assert hop(ONE) == "math" and hop() == "math"
    assert hop._dispatch_cache[K.AutogradCPU] is kernel
    assert hop in get_cached_ops()
    hop.py_impl(K.AutogradCPU)(says("own"))
    assert hop(ONE) == "own" and K.Undefined not in hop._dispatch_cache


def test_fallbacks_do_not_serve(hop: Hop) -> None:
    """S121: polyop's own fallback does not act; MissingKernelError names operator and key."""
    hop.py_impl(K.CPU)(says("cpu"))
    with pytest.raises(
        MissingKernelError, match=r"(?s)hop_under_test has no kernel at AutogradCPU"
    ):
        hop(ONE)
    with pytest.raises(MissingKernelError, match="Undefined"):
        hop()


def test_dispatch_takes_the_cached_kernel_first(hop: Hop) -> None:
    """S118: the cached kernel of a key goes first; a registration empties the cache."""
    hop.py_impl(K.CPU)(says("cpu"))
    assert hop.dispatch(K.CPU, ONE) == "cpu"
    hop._dispatch_cache[K.CPU] = says("cached")
    assert hop.dispatch(K.CPU, ONE) == "cached"
    hop.py_impl(K.CUDA)(says("cuda"))
    assert hop.dispatch(K.CPU, ONE) == "cpu" and hop.dispatch(K.CUDA) == "cuda"


def test_threads_see_registrations_whole() -> None:
    """S4, S107: calls from many threads give the old rule or the new, in the end the new one."""
    hop = Hop("hop_threads")
    hop.py_impl(K.CompositeImplicitAutograd)(says("0"))
    wrong: list[Any] = []

    def call() -> None:
        wrong.extend(r for r in (hop(ONE) for _ in range(300)) if r not in {"0", "1"})

    threads = [threading.Thread(target=call) for _ in range(4)]
    for t in threads:
        t.start()
    hop.py_impl(K.AutogradCPU)(says("1"))
    for t in threads:
        t.join()
    assert not wrong and hop(ONE) == "1"


# -- autograd -----------------------------------------------------------------


def test_autograd_rule(hop: Hop) -> None:
    """S122: the rule runs with grad mode on and a leaf that requires grad; else below autograd."""
    seen: list[Any] = []
    hop.py_autograd_impl(says("recorded"))

    @hop.py_impl(K.CPU)
    def kernel(*args: Any) -> str:
        seen.append(all(excluded_keys().has(k) for k in AUTOGRAD_KEYS))
        return "kernel"

    x = polyop.ones(2).requires_grad_()
    assert hop(x) == hop([x]) == hop.dispatch(K.AutogradCPU, x) == "recorded"
    assert hop(ONE) == hop.dispatch(K.AutogradCPU, ONE) == "kernel"
    with polyop.no_grad():
        assert hop(x) == "kernel"
    assert seen == [True] * 3 and not excluded_keys().has(K.AutogradCPU)
    with pytest.raises(DuplicateRegistrationError):
        hop.py_autograd_impl(says(""))


@pytest.mark.parametrize("supported", [False, True])
def test_writes_and_gradients(supported: bool) -> None:
    """S122: a schema that reports a write → AutogradError, unless it is supported."""

    class Writes(Hop):
        def gen_schema(self, *args: Any, **kwargs: Any) -> Any:
            made = HopSchemaGenerator(self)
            made.add_arg("x", args[0], is_mutated=True)
            return made.gen_schema()

    hop = Writes(f"hop_writes_{supported}", supports_training_input_mutation=supported)
    hop.py_autograd_impl(says("recorded"))
    hop.py_impl(K.CPU)(says("kernel"))
    x = polyop.ones(2).requires_grad_()
    assert hop(ONE) == "kernel"
    if supported:
        assert hop(x) == "recorded"
    else:
        with pytest.raises(AutogradError, match=r"(?s)writes its inputs.*argument: x"):
            hop(x)


# -- transforms ---------------------------------------------------------------


def test_the_innermost_transform_acts(hop: Hop) -> None:
    """S118, S109: the innermost transform's rule gets an interpreter; lower() takes it off."""
    seen: list[Any] = []

    def rule(interpreter: Interpreter, x: Any) -> Any:
        seen.append((interpreter.key(), len(word().levels)))
        with interpreter.lower():
            assert len(word().levels) == len(seen[0:]) % 2
            return hop(ONE)

    for kind in (TransformType.Vmap, TransformType.Grad):
        hop.py_impl(kind)(rule)
    hop.py_impl(K.CompositeImplicitAutograd)(lambda x: x.sum())
    twice = polyop.vmap(func.grad(lambda x: hop(x) + x.sum()))
    assert twice(polyop.ones(3, 2)).tolist() == polyop.ones(3, 2).tolist()
    assert seen == [(TransformType.Grad, 2), (TransformType.Vmap, 1)]


def test_a_transform_without_a_rule(hop: Hop) -> None:
    """S118: no rule for the transform → MissingKernelError naming it, for plain arguments too."""
    hop.py_impl(K.CompositeImplicitAutograd)(says(""))
    for f in (hop, lambda _: hop(ONE)):
        with pytest.raises(MissingKernelError, match="no rule for vmap"):
            polyop.vmap(f)(polyop.ones(3, 2))
        with pytest.raises(MissingKernelError, match=r"no rule for func\.functionalize"):
            func.functionalize(f)(ONE)


def test_a_tensor_of_an_ended_transform(hop: Hop) -> None:
    """S118: a tensor that outlives its vmap is refused as anywhere else."""
    hop.py_impl(TransformType.Vmap)(says(""))
    kept: list[Any] = []
    polyop.vmap(lambda x: (kept.append(x), x)[1])(polyop.ones(3, 2))
    with pytest.raises(VmapError, match="ended"):
        hop(kept[0])


# -- modes --------------------------------------------------------------------


class Inner(DispatchMode):
    """Declines."""

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return NotImplemented


class Outer(Inner):
    """Takes higher-order operators in its `__dispatch__`."""

    supports_higher_order_operators = True

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert types == [] and self not in word().modes
        return ("outer", op, args, kwargs)


def test_a_mode_s_rule(hop: Hop) -> None:
    """S119: the innermost mode's rule acts, the mode popped; NotImplemented goes outward."""
    hop.fallthrough(K.Autograd)
    seen: list[Any] = []

    class Second(Inner):
        """A class of its own: its base's rule is not its."""

    @hop.py_impl(Second)
    @hop.py_impl(Inner)
    def rule(mode: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((type(mode), [type(m) for m in word().modes]))
        return NotImplemented

    with Outer(), Inner(), Second():
        hop.py_impl(Outer)(says("outer's rule"))
        assert hop(ONE) == "outer's rule"
    assert seen == [(Second, [Outer, Inner]), (Inner, [Outer])]


def test_a_mode_that_supports_them(hop: Hop) -> None:
    """S119: without a rule, a mode that supports them gets hop, [], args, kwargs."""
    hop.fallthrough(K.Autograd)
    with Outer():
        assert hop(ONE, 2, a=3) == ("outer", hop, (ONE, 2), {"a": 3})


def test_a_mode_that_does_not(hop: Hop) -> None:
    """S119: else → MissingKernelError with operator, mode, and the attribute to set."""
    hop.fallthrough(K.Autograd)
    hop.py_impl(K.CPU)(says(""))
    with (
        pytest.raises(
            MissingKernelError, match=r"(?s)hop_under_test.*Inner.*supports_higher_order_operators"
        ),
        Inner(),
    ):
        hop(ONE)


def test_nobody_handles(hop: Hop) -> None:
    """S119, S120: NotImplemented never reaches the user; all done → UnhandledDispatchError."""
    hop.fallthrough(K.Autograd)
    hop.py_impl(Inner)(says(NotImplemented))
    with (
        pytest.raises(UnhandledDispatchError, match=r"Inner: each returned NotImplemented"),
        Inner(),
    ):
        hop(ONE)


def test_infra_modes_in_order(hop: Hop) -> None:
    """S119: user modes go before the trace, the trace before the fake mode, each off meanwhile."""
    hop.fallthrough(K.Autograd)
    seen: list[Any] = []

    def go_on(mode: Any, *args: Any) -> Any:
        now = word()
        seen.append((type(mode), len(now.modes), now.tracer is None, now.fake is None))
        return hop(*args)

    for mode in (Inner, Tracer):
        hop.py_impl(mode)(go_on)
    register_fake(hop, lambda *args: (word().fake is not None, "fake"))
    with FakeTensorMode(allow_non_fake_inputs=True), Inner():
        assert run_under(word().but(tracer=Tracer()), hop, ONE) == (True, "fake")
    assert seen == [(Inner, 0, False, False), (Tracer, 0, True, False)]


def test_fakes_without_their_mode(hop: Hop) -> None:
    """S120, S177: a fake takes its own mode's rule, which runs inside that mode; it is final."""
    mode = FakeTensorMode()
    seen: list[Any] = []

    @register_fake(hop, skip_cache=True)
    def rule(x: Any) -> Any:
        seen.append(word().fake)
        return NotImplemented

    hop.fallthrough(K.Autograd)
    with pytest.raises(UnhandledDispatchError):  # no other mode or subclass is asked
        hop(mode.from_tensor(ONE))
    assert seen == [mode] and word().fake is None
    with pytest.raises(DuplicateRegistrationError):
        register_fake(hop, says(""))


def test_subclasses_in_order(hop: Hop) -> None:
    """S120: each subclass's rule, in order of the leaves; NotImplemented → the next."""

    class A(polyop.Tensor):
        @classmethod
        def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return NotImplemented

    class B(A):
        pass

    class Off(polyop.Tensor):
        __dispatch__ = disabled_dispatch

    seen: list[str] = []
    hop.fallthrough(K.Autograd)
    hop.py_impl(A)(lambda *args: seen.append("A") or NotImplemented)
    a, b, off = (make_subclass(cls, ONE) for cls in (A, B, Off))
    with pytest.raises(UnhandledDispatchError, match="A: each"):
        hop(ONE, [a], off)
    hop.py_impl(B)(lambda *args: seen.append("B") or "B")
    assert hop(a, b) == "B" and seen == ["A", "A", "B"]

    class C(A):
        pass

    other = Hop("hop_subclasses")
    other.fallthrough(K.Autograd)
    with pytest.raises(MissingKernelError, match="subclass C"):
        other(make_subclass(C, ONE))


# -- before dispatch ----------------------------------------------------------


class Before(DispatchMode):
    """A mode of the pre-dispatch stack."""

    mode_key = ModeKey.PROXY


def test_before_dispatch(hop: Hop) -> None:
    """S118, S116: the current mode's rule, the mode popped; else its own kernel, or below."""
    hop.py_impl(K.CompositeImplicitAutograd)(says("below"))
    under = with_pre_dispatch(word(), Before())
    with pytest.raises(MissingKernelError, match="Before"):
        run_under(under, hop, ONE)
    hop.py_impl(Before)(lambda mode, x: (len(word().pre), hop(x)))
    assert run_under(under, hop, ONE) == (0, "below")
    with include_keys(K.PreDispatch):
        assert hop(ONE) == "below"
        hop.py_impl(K.PreDispatch)(says("own"))
        assert hop(ONE) == "own"
    assert K.PreDispatch not in hop._dispatch_cache
    with exclude_keys(K.Python):
        assert run_under(with_pre_dispatch(word(), Before()), hop, ONE) == "own"


# -- schemas ------------------------------------------------------------------


def test_no_schema(hop: Hop) -> None:
    """S123: gen_schema that is not defined → MissingSchemaError, which is a NotImplementedError."""
    with pytest.raises(MissingSchemaError, match="hop_under_test") as caught:
        hop.gen_schema(ONE)
    assert isinstance(caught.value, NotImplementedError) and not hop.has_schema


def test_schemas_from_examples(hop: Hop) -> None:
    """S177: a schema is built of example leaves; a container, a written number → SubgraphError."""
    made = HopSchemaGenerator(hop)
    made.add_arg("fn", says(""))
    made.add_arg("x", ONE, is_mutated=True)
    made.add_arg("n", 3, default_value=3, kw_only=True)
    made.add_arg("y", True)
    made.add_output(ONE)
    made.add_output(2.5)
    text = (
        "higher_order::hop_under_test(Any fn, Tensor(a1!) x, bool y, *, int n=3) -> (Tensor, float)"
    )
    assert str(made.gen_schema()) == text
    assert polyop.extend.parse_schema(text) == made.gen_schema()
    for example in ([ONE], (), {"a": 1}):
        with pytest.raises(SubgraphError, match="not flattened"):
            made.add_arg("bad", example)
    with pytest.raises(SubgraphError, match="no Tensor"):
        made.add_arg("bad", 1, is_mutated=True)
    assert str(made.gen_schema()) == text


def test_kernels_see_the_call_as_it_is(hop: Hop) -> None:
    """S117: arguments reach the kernel as they were given, arrays of NumPy too."""
    hop.py_impl(K.CompositeImplicitAutograd)(lambda *args, **kwargs: (args, kwargs))
    array = np.ones(2)
    args, kwargs = hop(array, [ONE], key=None)
    assert args[0] is array and args[1][0] is ONE and kwargs == {"key": None}


@pytest.mark.parametrize("key", [K.Autograd, K.AutogradCPU])
def test_a_fallthrough_is_passed_over(hop: Hop, key: K) -> None:
    """S108, S117: a key with `fallthrough_kernel` is passed over, an alias key at each member."""
    hop.py_impl(K.CPU)(lambda x: x + 2)
    hop.py_impl(key)(fallthrough_kernel)
    assert hop(ONE).tolist() == [3.0, 3.0]
    assert hop(polyop.ones(2, requires_grad=True)).tolist() == [3.0, 3.0]
    with pytest.raises(MissingKernelError, match="passes AutogradCPU over"):
        hop.dispatch(K.AutogradCPU, ONE)


def test_a_kernel_goes_before_a_fallthrough_of_its_alias(hop: Hop) -> None:
    """S108, S117: a kernel at a key acts, though an alias key that holds it is passed over."""
    hop.py_impl(K.Autograd)(fallthrough_kernel)
    hop.py_impl(K.AutogradCPU)(lambda x: x * 7)
    assert hop(polyop.ones(2, requires_grad=True)).tolist() == [7.0, 7.0]


def test_nothing_below_fallthroughs_is_named(hop: Hop) -> None:
    """S117: where all keys are passed over, the error says so."""
    hop.py_impl(K.CompositeExplicitAutograd)(fallthrough_kernel)
    hop.py_impl(K.Autograd)(fallthrough_kernel)
    for args in ((), (ONE,)):
        with pytest.raises(MissingKernelError, match="passes Undefined over"):
            hop(*args)
