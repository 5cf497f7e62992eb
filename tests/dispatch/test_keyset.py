"""Sets of keys, against PyTorch's and against sets of names."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyop.dispatch.keys import (
    ALIAS_KEYS,
    AUTOGRAD_KEYS,
    BACKENDS,
    KEYS_OF,
    RUNTIME_KEYS,
    DispatchKey,
    Functionality,
    alias_members,
    backend_of,
    functionality_of,
    parse_key,
)
from polyop.dispatch.keyset import (
    EMPTY,
    DispatchKeySet,
    Mask,
    after_autograd_keys,
    after_view_keys,
    from_bits,
    full_keyset,
)
from polyop.errors import UsageError, UsageTypeError

K = DispatchKey
TORCH = torch._C.DispatchKey.__members__
SHARED = [k for k in RUNTIME_KEYS if k.name in TORCH]

keys = st.lists(st.sampled_from(SHARED), max_size=6)
key_sets = st.integers(0, full_keyset.bits).map(from_bits)


def in_torch(chosen: list[DispatchKey]) -> torch._C.DispatchKeySet:
    made = torch._C.DispatchKeySet(TORCH["Undefined"])
    for key in chosen:
        made = made | torch._C.DispatchKeySet(TORCH[key.name])
    return made


def agree(ours: DispatchKeySet, theirs: torch._C.DispatchKeySet) -> bool:
    return all(ours.has(k) == theirs.has(TORCH[k.name]) for k in SHARED)


@given(keys)
def test_membership_agrees_with_pytorch(chosen: list[DispatchKey]) -> None:
    """S76: a set made of keys has the keys that PyTorch's has."""
    assert agree(DispatchKeySet(chosen), in_torch(chosen))


@given(keys, keys)
def test_algebra_agrees_with_pytorch(a: list[DispatchKey], b: list[DispatchKey]) -> None:
    """S77: union, intersection and difference are PyTorch's."""
    ours, theirs = (DispatchKeySet(a), DispatchKeySet(b)), (in_torch(a), in_torch(b))
    assert agree(ours[0] | ours[1], theirs[0] | theirs[1])
    assert agree(ours[0] & ours[1], theirs[0] & theirs[1])
    assert agree(ours[0] - ours[1], theirs[0] - theirs[1])
    assert (ours[0] == ours[1]) == (theirs[0] == theirs[1])


@given(keys, st.sampled_from(SHARED))
def test_add_and_remove_agree_with_pytorch(chosen: list[DispatchKey], key: DispatchKey) -> None:
    """S77: `add` and `remove` of one key are PyTorch's."""
    ours, theirs = DispatchKeySet(chosen), in_torch(chosen)
    assert agree(ours.add(key), theirs.add(TORCH[key.name]))
    assert agree(ours.remove(key), theirs.remove(TORCH[key.name]))


@given(keys)
def test_highest_agrees_with_pytorch(chosen: list[DispatchKey]) -> None:
    """S78: the highest key is PyTorch's."""
    highest = DispatchKeySet(chosen).highest()
    names = {int(v): k for k, v in TORCH.items() if not k.startswith(("StartOf", "EndOf"))}
    theirs = int(in_torch(chosen).highestPriorityTypeId())
    # FPGA and others have a number there, but no name.
    assert highest.name == names.get(theirs, highest.name)
    assert highest is DispatchKeySet(chosen).highestPriorityTypeId()


@given(key_sets)
def test_a_set_is_functionalities_times_backends(ks: DispatchKeySet) -> None:
    """S76: a per-backend key is in when its functionality and its backend are."""
    backends = {b for i, b in enumerate(BACKENDS) if ks.bits >> i & 1}
    for key in RUNTIME_KEYS:
        functionality, backend = functionality_of(key), backend_of(key)
        has = ks.has(functionality) and (backend is None or backend in backends)
        assert ks.has(key) is has is (key in ks)


def test_one_backend_serves_all_functionalities() -> None:
    """S76: {CPU} | {AutogradCUDA} has CPU, CUDA, AutogradCPU and AutogradCUDA."""
    both = DispatchKeySet(K.CPU) | DispatchKeySet("AutogradCUDA")
    assert set(both) == {K.CPU, K.CUDA, K.AutogradCPU, K.AutogradCUDA}
    assert str(both) == "DispatchKeySet(AutogradCUDA, AutogradCPU, CUDA, CPU)"


@pytest.mark.parametrize("functionality", Functionality)
def test_functionalities_add_no_backend(functionality: Functionality) -> None:
    """S76: the name of a functionality adds it alone, and is then in the set."""
    bare = DispatchKeySet(str(functionality))
    assert bare == DispatchKeySet(functionality)
    assert list(bare) == []
    assert bare.has(functionality)
    assert set(bare | DispatchKeySet(K.CPU)) == {K.CPU, KEYS_OF[functionality][0]}


@pytest.mark.parametrize("alias", ALIAS_KEYS)
def test_an_alias_adds_its_members(alias: DispatchKey) -> None:
    """S76 [better]: an alias key adds all it contains; PyTorch adds nothing."""
    ks = DispatchKeySet(alias)
    assert ks == DispatchKeySet(alias_members(alias))
    assert set(ks) >= alias_members(alias)
    assert ks.has(alias)
    assert not DispatchKeySet(K.Python).has(alias)


@given(key_sets)
def test_undefined_is_never_in(ks: DispatchKeySet) -> None:
    """S76, S77 [better]: `Undefined` adds nothing and is in no set."""
    assert not ks.has(K.Undefined)
    assert ks.add(K.Undefined) == ks == ks.remove("Undefined")
    assert DispatchKeySet(K.Undefined) == EMPTY


@given(key_sets)
def test_iteration_goes_from_the_highest(ks: DispatchKeySet) -> None:
    """S77: iteration gives just the keys of the set, in descending priority."""
    assert list(ks) == [k for k in reversed(RUNTIME_KEYS) if ks.has(k)]
    assert len(ks) == len(list(ks))
    assert bool(ks) is (len(ks) > 0)


@given(key_sets)
def test_one_key_leads_each_functionality(ks: DispatchKeySet) -> None:
    """S78: a call looks at one key per functionality, that of the highest backend."""
    first: dict[object, DispatchKey] = {}
    for key in ks:
        first.setdefault(functionality_of(key), key)
    assert list(ks.leading()) == list(first.values())
    assert ks.highest() is next(iter(ks), K.Undefined)


def test_functionalities_without_backend_are_passed_over() -> None:
    """S78: a per-backend functionality without any backend does not lead."""
    assert DispatchKeySet("AutogradFunctionality", K.Python).highest() is K.Python
    assert DispatchKeySet("Dense").highest() is K.Undefined
    assert EMPTY.highest() is K.Undefined


def test_removal_takes_functionalities_and_leaves_backends() -> None:
    """S77: {CPU, CUDA} - {CPU} is empty, but its backends are left."""
    rest = DispatchKeySet("CPU", "CUDA") - DispatchKeySet("CPU")
    assert not rest
    assert set(rest.add("Sparse")) == {K.SparseCPU, K.SparseCUDA}
    without = full_keyset.remove(K.AutogradCPU)
    assert not any(without.has(k) for k in KEYS_OF[Functionality.AutogradFunctionality])
    assert without.has(K.AutogradOther)
    assert without.has(K.CPU)


def test_removing_an_alias_removes_all_of_it() -> None:
    """S77: without `Autograd` no autograd key is left."""
    assert not any((full_keyset - DispatchKeySet("Autograd")).has(k) for k in AUTOGRAD_KEYS)


@given(key_sets, key_sets)
def test_equal_sets_hash_alike(a: DispatchKeySet, b: DispatchKeySet) -> None:
    """S77: sets are equal when both their parts are, and then hash alike."""
    assert (a == b) is (a.bits == b.bits)
    assert hash(from_bits(a.bits)) == hash(a)
    assert a != a.bits


@given(key_sets)
def test_sets_survive_pickle_and_copy(ks: DispatchKeySet) -> None:
    """S77: pickling and copying give an equal set."""
    assert pickle.loads(pickle.dumps(ks)) == ks
    assert copy.deepcopy(ks) == ks == DispatchKeySet(ks)


def test_sets_do_not_change() -> None:
    """S77: a set is immutable."""
    with pytest.raises(AttributeError):
        EMPTY.bits = 3  # type: ignore[misc]
    ks = DispatchKeySet("CPU")
    ks.add("CUDA")
    assert list(ks) == [K.CPU]


def test_sets_are_made_of_anything_that_names_keys() -> None:
    """S76: keys, names, sets and iterables of these make a set."""
    expected = DispatchKeySet(K.CPU, K.Python, K.FPGA)
    assert DispatchKeySet(["CPU", K.Python], DispatchKeySet("FPGA")) == expected
    assert DispatchKeySet(iter([K.CPU]), ("Python", ["FPGA"])) == expected


@pytest.mark.parametrize("wrong", [3, None, 1.5])
def test_what_names_no_key_makes_no_set(wrong: object) -> None:
    """S76: anything else is refused."""
    with pytest.raises(UsageTypeError, match="keys, names or key sets"):
        DispatchKeySet(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="did you mean 'CPU'"):
        DispatchKeySet("cpu")
    with pytest.raises(TypeError):
        EMPTY | 3  # type: ignore[operator]


def test_the_constants_agree_with_pytorch() -> None:
    """S97: `after_autograd_keys` and `after_view_keys` are the keys below; PyTorch adds one."""
    full_after = torch._C._dispatch_keyset_full_after
    added = DispatchKeySet("PythonDispatcher")
    assert set(full_keyset) == set(RUNTIME_KEYS)
    assert agree(full_keyset, torch._C._dispatch_keyset_full())
    assert agree(after_autograd_keys | added, full_after(TORCH["AutogradOther"]))
    assert agree(after_view_keys | added, full_after(TORCH["ADInplaceOrView"]))
    assert set(after_autograd_keys) == {k for k in RUNTIME_KEYS if k < K.AutogradOther}
    assert set(after_view_keys) == {k for k in RUNTIME_KEYS if k < K.ADInplaceOrView}


@given(key_sets, st.frozensets(st.sampled_from(RUNTIME_KEYS)))
def test_a_mask_asks_the_highest_backend(ks: DispatchKeySet, looked_at: frozenset[K]) -> None:
    """S93: the highest backend decides whether a whole functionality is passed over."""
    mask = Mask(looked_at)
    left = ks & mask
    assert list(left.leading()) == [k for k in ks.leading() if k in looked_at]
    assert all(mask.has(k) is (k in looked_at) for k in RUNTIME_KEYS)


def test_a_masked_functionality_goes_for_all_backends() -> None:
    """S93: if CUDA falls through, {CPU, CUDA} has no dense key left."""
    mask = Mask(frozenset(RUNTIME_KEYS) - {K.CUDA})
    assert list(DispatchKeySet("CPU", "CUDA") & mask) == []
    assert list(DispatchKeySet("CPU") & mask) == [parse_key("CPU")]
