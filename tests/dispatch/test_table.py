"""Registrations, entries, fallbacks and dumps, against PyTorch's tables."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch._ops import resolve_key as torch_resolve_key

from polyop.dispatch.dumps import dump, dump_table
from polyop.dispatch.keys import (
    ALIAS_KEYS,
    AUTOCAST_KEYS,
    AUTOGRAD_KEYS,
    BACKENDS,
    RUNTIME_KEYS,
    DispatchKey,
    alias_members,
)
from polyop.dispatch.keyset import DispatchKeySet, from_bits, full_keyset
from polyop.dispatch.table import (
    BUILT_IN,
    FALLBACKS,
    PASS_OVER,
    Entry,
    Kernel,
    Places,
    Reason,
    acting,
    ambiguity,
    compute_entry,
    compute_table,
    fallback_of,
    has_fallback,
    mask_of,
    on_fallback_change,
    put_fallback,
    remove_fallback,
    resolve_key,
)
from polyop.errors import (
    AmbiguousKernelError,
    DuplicateRegistrationError,
    MissingKernelError,
    UsageError,
)
from polyop.source import Source

K = DispatchKey
TORCH = torch._C.DispatchKey.__members__
ALL = (K.Undefined, *RUNTIME_KEYS)


def identity(x: Any) -> Any:
    return x


def kernel(line: int = 1, owner: object = "lib", **flags: bool) -> Kernel:
    return Kernel(identity, Source("f.py", line), owner, **flags)


def kernels(*names: str, **flags: bool) -> dict[DispatchKey, Kernel]:
    return {K[name]: kernel(i, **flags) for i, name in enumerate(names)}


@dataclass
class Op:
    """An operator for `resolve_key`, ours and PyTorch's."""

    keys: set[str] = field(default_factory=set)

    def name(self) -> str:
        return "demo::f"

    def has_kernel_for_dispatch_key(self, key: Any) -> bool:
        return getattr(key, "name", str(key)) in self.keys

    def has_kernel_for_any_dispatch_key(self, keys: Any) -> bool:
        # PyTorch's sets say of every alias key that it is in.
        return any(keys.has(TORCH[k]) for k in self.keys if K[k] not in ALIAS_KEYS)


@pytest.fixture
def fallbacks() -> Iterator[Callable[[str, Kernel], Kernel]]:
    """Put fallbacks that are gone after the test."""
    there: list[tuple[str, Kernel]] = []

    def put(key: str, fallback: Kernel) -> Kernel:
        put_fallback(key, fallback)
        there.append((key, fallback))
        return fallback

    yield put
    for key, fallback in there:
        remove_fallback(key, fallback)


# -- places -------------------------------------------------------------------


def test_the_newest_acts() -> None:
    """S37: of several owners at one place, the newest acts."""
    places = Places("demo::f")
    first, second = kernel(1, "a"), kernel(2, "b")
    places.put(K.CPU, first)
    places.put(K.CPU, second)
    assert places.top(K.CPU) is second
    assert places.kernels() == {K.CPU: second}
    assert list(places.items()) == [(K.CPU, first), (K.CPU, second)]


def test_an_owner_has_one_entry() -> None:
    """S37: registering again replaces the owner's own entry, and the newest acts."""
    places = Places()
    old, other, new = kernel(1, "a"), kernel(2, "b"), kernel(3, "a")
    for k in (old, other, new):
        places.put(K.CPU, k)
    assert [k for _, k in places.items()] == [other, new]
    assert not places.remove(K.CPU, old)
    assert places.remove(K.CPU, other)
    assert places.top(K.CPU) is new


def test_slots_are_places_too() -> None:
    """S37: a slot is a place beside the keys, and no kernel of a key."""
    places = Places()
    places.put("vmap", kernel())
    assert places.top("vmap") == kernel()
    assert places.top("jvp") is None
    assert places.kernels() == {}


def test_a_taken_place_may_be_kept() -> None:
    """S37: with `allow_override=False` a taken place is refused, and nothing changes."""
    places = Places("demo::f")
    places.put(K.CPU, kernel(7))
    before = list(places.items())
    for owner in ("lib", "other"):
        with pytest.raises(DuplicateRegistrationError) as caught:
            places.put(K.CPU, kernel(8, owner), allow_override=False)
        text = str(caught.value)
        assert "registered at CPU already" in text
        assert "demo::f" in text
        assert "f.py:7" in text
    assert list(places.items()) == before
    places.put(K.CUDA, kernel(8), allow_override=False)


def test_nothing_is_registered_at_undefined() -> None:
    """S90: registering at `Undefined` is a UsageError."""
    places = Places("demo::f")
    with pytest.raises(UsageError, match=r"at Undefined[\s\S]*CompositeExplicitAutograd"):
        places.put(K.Undefined, kernel())
    assert list(places.items()) == []


def test_an_owner_leaves_as_a_whole() -> None:
    """S37: removing an owner gives what the others would."""
    places = Places()
    places.put(K.CPU, kernel(1, "a"))
    places.put(K.CPU, kernel(2, "b"))
    places.put("fake", kernel(3, "b"))
    assert places.remove_owner("b") == [K.CPU, "fake"]
    assert list(places.items()) == [(K.CPU, kernel(1, "a"))]
    assert places.remove_owner("b") == []


steps = st.tuples(st.sampled_from([K.CPU, K.Autograd, "fake"]), st.sampled_from("abc"))


@given(st.lists(steps, max_size=12), st.data())
def test_removal_is_exact(done: list[tuple[Any, str]], data: st.DataObject) -> None:
    """S106: without some registrations, all is as if they had never been made."""
    made = [(place, kernel(i, owner)) for i, (place, owner) in enumerate(dict.fromkeys(done))]
    gone = data.draw(st.lists(st.sampled_from(made), unique=True) if made else st.just([]))
    places, expected = Places(), Places()
    for step in made:
        places.put(*step)
        if step not in gone:
            expected.put(*step)
    assert all(places.remove(*step) for step in gone)
    assert sorted(places.items(), key=str) == sorted(expected.items(), key=str)
    assert places.kernels() == expected.kernels()
    assert compute_table(places.kernels()) == compute_table(expected.kernels())


@given(st.lists(st.sampled_from([*RUNTIME_KEYS, *ALIAS_KEYS]), unique=True, max_size=6), st.data())
def test_order_does_not_matter(keys: list[DispatchKey], data: st.DataObject) -> None:
    """S106: the table depends on the set of registrations, not on their order."""
    # A fake of what decomposes is refused, whichever comes first (S38).
    assume(not {K.Meta, K.CompositeImplicitAutograd} <= set(keys))
    here, there = Places(), Places()
    for key in keys:
        here.put(key, kernel(int(key)))
    for key in data.draw(st.permutations(keys)):
        there.put(key, kernel(int(key)))
    assert compute_table(here.kernels()) == compute_table(there.kernels())


# -- entries, against PyTorch -------------------------------------------------

REGISTERED = [
    *"CPU CUDA XLA Meta SparseCPU SparseCUDA SparseCsrCUDA QuantizedCPU NestedTensorCPU".split(),
    *"NestedTensorCUDA AutogradCPU AutogradCUDA AutogradOther AutogradNestedTensor".split(),
    *"Python Functionalize ADInplaceOrView BackendSelect AutocastCPU FuncTorchBatched".split(),
    *(alias.name for alias in ALIAS_KEYS),
]
LINE = re.compile(r"(\w+): (ambiguous_autogradother)?(fallthrough )?.*\[([\w ]+)\]$")


def torch_table(name: str) -> dict[str, str]:
    """PyTorch's reasons by key, marked where a kernel falls through."""
    found = filter(None, map(LINE.match, torch._C._dispatch_dump_table(name).splitlines()))
    return {m[1]: "ambiguous" if m[2] else (m[3] or "") + m[4] for m in found}


def our_table(registered: dict[DispatchKey, Kernel]) -> dict[str, str]:
    return {k.name: our_word(registered, k) for k in ALL}


def our_word(registered: dict[DispatchKey, Kernel], key: DispatchKey) -> str:
    """Our reason in PyTorch's way, which says of a fallthrough also where it comes from."""
    plain = {k: Kernel(identity, v.source, v.owner) for k, v in registered.items()}
    through = compute_entry("", registered, key).reason is Reason.FALLTHROUGH
    reason = compute_entry("", plain, key).reason
    return "fallthrough " * (through and reason is not Reason.FALLTHROUGH) + reason.value


#: Where no registration serves a key.
ABSENT = {"backend fallback", "fallthrough backend fallback", "fallthrough", "missing"}


def words(table: dict[str, str]) -> dict[str, str]:
    """Leave out fallbacks, of which each library has its own (S101)."""
    return {k: v for k, v in table.items() if v not in ABSENT}


@pytest.mark.parametrize("seed", range(120))
def test_tables_agree_with_pytorch(seed: int) -> None:
    """S85 to S88: random registrations give PyTorch's table."""
    rng = random.Random(seed)
    chosen = rng.sample(REGISTERED, rng.randint(0, 7))
    if "CompositeImplicitAutograd" in chosen:
        chosen = [k for k in chosen if k != "Meta"]  # refused: S38
    name = f"polyop_table_{seed}"
    lib = torch.library.Library(name, "DEF")
    try:
        lib.define("f(Tensor x) -> Tensor")
        registered = {K[k]: kernel(fallthrough=rng.random() < 0.2) for k in chosen}
        for key, k in registered.items():
            lib.impl("f", torch.library.fallthrough_kernel if k.fallthrough else identity, key.name)
        theirs = words(torch_table(f"{name}::f"))
    finally:
        lib._destroy()
    ours = words(our_table(registered))
    shown = {k for k in TORCH if k in K.__members__ and not better(k, set(chosen))}
    assert {k: ours.get(k) for k in shown} == {k: theirs.get(k) for k in shown}


def better(key: str, chosen: set[str]) -> bool:
    """S86 [better]: PyTorch's dispatcher lets the nested alias act over a kernel beneath."""
    nested = "CompositeImplicitAutogradNestedTensor"
    if nested not in chosen or K[key] not in alias_members(nested):
        return False
    beneath = any(name.startswith("NestedTensor") for name in chosen)
    return "CompositeExplicitAutograd" in chosen or (key == "AutogradNestedTensor" and beneath)


def test_the_oracle_can_be_read() -> None:
    """PyTorch's dump is understood: reasons of all kinds are found in it."""
    lib = torch.library.Library("polyop_oracle", "DEF")
    try:
        lib.define("f(Tensor x) -> Tensor")
        for key in ("CompositeImplicitAutograd", "QuantizedCPU", "Python"):
            lib.impl("f", identity, key)
        table = torch_table("polyop_oracle::f")
    finally:
        lib._destroy()
    assert table["Python"] == "kernel"
    assert table["CPU"] == "math kernel"
    assert table["AutogradOther"] == "ambiguous"
    assert table["Functionalize"] == "backend fallback"


@given(st.frozensets(st.sampled_from(REGISTERED), max_size=6), st.sampled_from(ALL))
def test_resolve_key_agrees_with_pytorch(chosen: frozenset[str], key: DispatchKey) -> None:
    """S88: `resolve_key` gives PyTorch's key, or an error where PyTorch raises one."""
    if key.name not in TORCH:
        return
    op = Op(set(chosen))
    try:
        expected = torch_resolve_key(op, TORCH[key.name])
    except (NotImplementedError, RuntimeError) as error:
        if has_fallback(key) and isinstance(error, NotImplementedError):
            return
        ambiguous = "ambiguous" in str(error)
        with pytest.raises(AmbiguousKernelError if ambiguous else MissingKernelError):
            resolve_key(op, key)
        return
    if torch._C._dispatch_has_backend_fallback(TORCH[key.name]) and not has_fallback(key):
        return
    assert resolve_key(op, key).name == re.sub(".*[.]", "", str(expected))


# -- entries, by example ------------------------------------------------------


def reasons(table: dict[DispatchKey, Entry], *names: str) -> list[Reason]:
    return [table[K[name]].reason for name in names]


def test_a_composite_serves_what_a_kernel_leaves() -> None:
    """S89: with CPU and implicit kernels, CPU is its own and CUDA decomposes."""
    table = compute_table(kernels("CPU", "CompositeImplicitAutograd"))
    assert reasons(table, "CPU", "AutogradCPU") == [Reason.KERNEL, Reason.FALLBACK]
    assert reasons(table, "CUDA", "AutogradCUDA", "Undefined") == [Reason.MATH] * 3
    assert reasons(table, "AutogradOther") == [Reason.MATH]
    more = compute_table(kernels("CPU", "CompositeImplicitAutograd", "FPGA"))
    assert more[K.AutogradOther] == Entry(K.CompositeImplicitAutograd, Reason.AMBIGUOUS, None)


def test_explicit_comes_before_implicit() -> None:
    """S89: explicit serves dense keys and Undefined, and leaves autograd keys to `Autograd`."""
    table = compute_table(
        kernels("CompositeExplicitAutograd", "CompositeImplicitAutograd", "Autograd")
    )
    for key in (*BACKENDS, K.Undefined):
        assert table[key].key is K.CompositeExplicitAutograd
        assert table[key].reason is Reason.DEFAULT_BACKEND
    for key in AUTOGRAD_KEYS:
        assert table[key].key is K.Autograd
        assert table[key].reason is Reason.AUTOGRAD


def test_a_kernel_beneath_stops_the_nested_alias() -> None:
    """S86 [better]: the nested alias serves no autograd key that has a kernel beneath."""
    nested = K.CompositeImplicitAutogradNestedTensor
    table = compute_table(kernels(nested.name, "NestedTensorCPU"))
    assert table[K.NestedTensorCUDA].key is nested
    assert table[K.NestedTensorCUDA].reason is Reason.NESTED
    assert table[K.AutogradNestedTensor].reason is Reason.FALLBACK
    explicit = compute_table(kernels(nested.name, "CompositeExplicitAutograd"))
    assert explicit[K.NestedTensorCPU].reason is Reason.MISSING


def test_a_fallthrough_beneath_counts() -> None:
    """S86: a backend's fallthrough also keeps its autograd key from decomposing."""
    there = kernels("CompositeImplicitAutograd") | kernels("CPU", fallthrough=True)
    table = compute_table(there)
    assert reasons(table, "CPU", "AutogradCPU") == [Reason.FALLTHROUGH, Reason.FALLBACK]


def test_batched_decomposition_serves_batched() -> None:
    """S88: a kernel at the decomposition alias acts at FuncTorchBatched."""
    entry = compute_entry("f", kernels("FuncTorchBatchedDecomposition"), K.FuncTorchBatched)
    assert entry.reason is Reason.BATCHED
    assert entry.key is K.FuncTorchBatchedDecomposition


def test_undefined_has_no_kernel_of_its_own() -> None:
    """S90: only the three composite steps serve `Undefined`."""
    there = {K.Undefined: kernel(), **kernels("CPU", "Autograd")}
    assert compute_entry("f", there, K.Undefined).reason is Reason.MISSING
    names = "CompositeExplicitAutogradNonFunctional CompositeExplicitAutograd".split()
    for name in (*names, "CompositeImplicitAutograd"):
        assert compute_entry("f", kernels(name), K.Undefined).key is K[name]


def test_ambiguity_names_all_claims() -> None:
    """S87: the error names the composite and the backends' kernels, with their places."""
    there = kernels("CompositeImplicitAutograd", "FPGA", "SparseCPU", "CPU")
    text = str(ambiguity("demo::f", there))
    assert "CompositeImplicitAutograd and FPGA and SparseCPU claim AutogradOther" in text
    assert "FPGA at f.py:1" in text
    assert " CPU at" not in text
    op = Op({"CompositeImplicitAutograd", "FPGA"})
    with pytest.raises(AmbiguousKernelError, match=r"FPGA claim AutogradOther[\s\S]*demo::f"):
        resolve_key(op, "AutogradOther")
    op.keys.add("AutogradOther")
    assert resolve_key(op, "AutogradOther") is K.AutogradOther


def test_a_missing_kernel_is_said() -> None:
    """S88: where nothing serves a key, `resolve_key` names operator and key."""
    with pytest.raises(MissingKernelError, match=r"no kernel for the key CUDA[\s\S]*demo::f"):
        resolve_key(Op({"CPU"}), K.CUDA)
    assert resolve_key(Op({"CPU"}), "Meta") is K.Meta


# -- fallbacks ----------------------------------------------------------------


def test_built_in_fallbacks_are_these() -> None:
    """S101: some keys fall through, on some polyop acts, other keys have nothing."""
    through = """PythonDispatcher PythonTLSSnapshot FuncTorchGradWrapper FuncTorchVmapMode
    ADInplaceOrView ZeroTensor Negative Conjugate BackendSelect""".split()
    acts = """PreDispatch FuncTorchDynamicLayerFrontMode FuncTorchDynamicLayerBackMode Python
    FuncTorchBatched Functionalize Meta""".split()
    assert {k for k, v in FALLBACKS.items() if v is PASS_OVER} == {
        *(K[n] for n in through),
        *AUTOCAST_KEYS,
    }
    assert {k for k, v in FALLBACKS.items() if v is BUILT_IN} == {
        *(K[n] for n in acts),
        *AUTOGRAD_KEYS,
    }
    assert all(has_fallback(k) is (k in FALLBACKS) for k in K)
    assert not has_fallback("CPU")


def test_the_newest_fallback_acts(fallbacks: Callable[[str, Kernel], Kernel]) -> None:
    """S102: a fallback goes over what was there; removing it brings that back."""
    table = compute_table({})
    first = fallbacks("CPU", kernel(1, "a"))
    second = fallbacks("CPU", kernel(2, "b"))
    assert compute_entry("f", {}, K.CPU) == Entry(K.CPU, Reason.FALLBACK, second)
    assert remove_fallback("CPU", second)
    assert not remove_fallback("CPU", second)
    assert fallback_of("CPU") is first
    assert remove_fallback("CPU", first)
    assert not has_fallback("CPU")
    assert compute_table({}) == table


def test_a_fallback_goes_over_the_built_in_one(fallbacks: Callable[[str, Kernel], Kernel]) -> None:
    """S102: a user's fallback is put over a built-in fallthrough, which comes back."""
    assert compute_entry("f", {}, K.Negative) == Entry(K.Negative, Reason.FALLTHROUGH, PASS_OVER)
    mine = fallbacks("Negative", kernel())
    assert compute_entry("f", {}, K.Negative) == Entry(K.Negative, Reason.FALLBACK, mine)
    assert compute_entry("f", kernels("Negative"), K.Negative).reason is Reason.KERNEL
    remove_fallback("Negative", mine)
    assert fallback_of("Negative") is PASS_OVER


def test_changes_of_fallbacks_are_seen(fallbacks: Callable[[str, Kernel], Kernel]) -> None:
    """S107: whoever keeps decisions hears of each change of a fallback."""
    heard: list[Kernel | None] = []

    def hear() -> None:
        heard.append(fallback_of("FPGA"))

    on_fallback_change.append(hear)
    try:
        mine = fallbacks("FPGA", kernel())
        remove_fallback("FPGA", mine)
        with pytest.raises(UsageError):
            put_fallback("Autograd", kernel())
    finally:
        on_fallback_change.remove(hear)
    assert heard == [mine, None]


@pytest.mark.parametrize("key", ["Undefined", *(alias.name for alias in ALIAS_KEYS)])
def test_fallbacks_serve_run_time_keys(key: str) -> None:
    """S102: an alias key or `Undefined` takes no fallback."""
    with pytest.raises(UsageError):
        put_fallback(key, kernel())
    assert not has_fallback(key)


# -- passing over -------------------------------------------------------------


def test_the_mask_has_what_does_not_fall_through() -> None:
    """S92, S93: a fallthrough takes its key out, a kernel of one's own brings it back."""
    plain = mask_of(compute_table(kernels("CPU")))
    assert not plain.has("ADInplaceOrView")
    assert plain.has("CUDA")
    assert plain.has("AutogradCPU")
    own = mask_of(compute_table(kernels("CPU", "ADInplaceOrView")))
    assert own.keys == plain.keys | {K.ADInplaceOrView}
    through = kernels("CPU") | kernels("Autograd", fallthrough=True)
    assert mask_of(compute_table(through)).keys == plain.keys - set(AUTOGRAD_KEYS)


def test_a_call_walks_the_acting_keys() -> None:
    """S92: a tensor on the CPU meets autograd, then its backend."""
    table = compute_table(kernels("CPU"))
    ks = DispatchKeySet("CPU", "AutogradCPU", "AutocastCPU", "ADInplaceOrView", "BackendSelect")
    assert list(acting(ks, table)) == [K.AutogradCPU, K.CPU]
    assert (ks & mask_of(table)).highest() is K.AutogradCPU


@given(
    st.integers(0, full_keyset.bits).map(from_bits),
    st.dictionaries(st.sampled_from([*RUNTIME_KEYS, *ALIAS_KEYS]), st.booleans(), max_size=8),
)
def test_the_highest_backend_decides(ks: DispatchKeySet, chosen: dict[DispatchKey, bool]) -> None:
    """S93: a functionality is passed over if the key of the highest backend falls through."""
    table = compute_table({k: kernel(fallthrough=through) for k, through in chosen.items()})
    seen = list(acting(ks, table))
    assert seen == sorted(seen, reverse=True)
    assert seen == list((ks & mask_of(table)).leading())
    for key in ks.leading():
        assert (key in seen) is (table[key].reason is not Reason.FALLTHROUGH)


# -- dumps --------------------------------------------------------------------


def test_dump_lists_registrations() -> None:
    """S105: every registration is listed with file and line, the acting one first."""
    places = Places("demo::f")
    places.put("vmap", kernel(4))
    places.put(K.Autograd, kernel(3, fallthrough=True))
    places.put(K.CPU, kernel(1, "a"))
    places.put(K.CPU, kernel(2, "b"))
    expected = """demo::f
CPU: f.py:2
CPU: f.py:1 [overridden]
Autograd: f.py:3 [fallthrough]
vmap: f.py:4"""
    assert dump("demo::f", places) == expected
    assert dump("demo::f", kernels("CPU")) == "demo::f\nCPU: f.py:0"


def test_dump_table_lists_all_keys() -> None:
    """S105: all keys are listed with the entry and its reason."""
    there = kernels("CPU", "CompositeImplicitAutograd", "QuantizedCPU", "ADInplaceOrView")
    lines = dump_table("demo::f", there).splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == [k.name for k in ALL]
    assert lines[0] == "demo::f"
    for line in (
        "CPU: kernel f.py:0",
        "CUDA: math kernel of CompositeImplicitAutograd f.py:1",
        "Undefined: math kernel of CompositeImplicitAutograd f.py:1",
        "AutogradOther: ambiguous of CompositeImplicitAutograd",
        "AutogradCPU: backend fallback built in",
        "Negative: fallthrough built in",
        "TESTING_ONLY_GenericMode: missing",
    ):
        assert line in lines


def test_reasons_have_their_words() -> None:
    """S105: the words of reasons are these ten."""
    expected = """kernel, default backend kernel, math kernel, nested kernel, autograd kernel,
    batched kernel, backend fallback, fallthrough, ambiguous, missing"""
    assert [r.value for r in Reason] == [w.strip() for w in expected.split(",")]
