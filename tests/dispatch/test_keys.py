"""The keys, their order, aliases and devices."""

from __future__ import annotations

import pytest
import torch

from polyop.devices import Device, _renamed
from polyop.dispatch.keys import (
    ALIAS_KEYS,
    AUTOCAST_KEYS,
    AUTOGRAD_KEYS,
    BACKENDS,
    KEYS_OF,
    RUNTIME_KEYS,
    DispatchKey,
    Functionality,
    alias_members,
    autocast_key_for,
    autograd_key_for,
    backend_of,
    backends_of_autograd,
    functionality_of,
    is_alias_key,
    is_included_in_alias,
    key_for_device,
    parse_key,
    rename_backend,
)
from polyop.errors import UsageError, UsageTypeError

TORCH = torch._C.DispatchKey.__members__
K = DispatchKey


def torch_knows(key: DispatchKey) -> bool:
    return key.name in TORCH


def torch_reads(key: DispatchKey) -> bool:
    """Tell whether PyTorch can parse the name; it shows some keys that it cannot read."""
    try:
        torch._C._dispatch_key_parse(key.name)
    except RuntimeError:
        return False
    return True


def torch_rank(key: DispatchKey) -> tuple[int, int]:
    """PyTorch's priority: of the functionality, then of the backend."""
    backend = backend_of(key)
    if backend is None:
        return int(TORCH[key.name]), 0
    return int(TORCH[str(functionality_of(key))]), int(TORCH[backend.name])


def test_there_are_eighty_keys() -> None:
    """S69: 26 single keys, six functionalities for nine backends, six aliases and Undefined."""
    single = [k for k in RUNTIME_KEYS if backend_of(k) is None]
    assert len(single) == 26
    assert len(BACKENDS) == 9
    assert len(Functionality) == len(KEYS_OF) == 6
    assert len(RUNTIME_KEYS) == 80
    assert len(ALIAS_KEYS) == 6
    assert set(K) == {K.Undefined, *RUNTIME_KEYS, *ALIAS_KEYS}
    assert K.Undefined == 0


def test_backends_are_ordered() -> None:
    """S70: backends ascend from CPU to Meta."""
    names = "CPU CUDA XLA MPS XPU PrivateUse1 PrivateUse2 PrivateUse3 Meta".split()
    assert [b.name for b in BACKENDS] == names


@pytest.mark.parametrize("functionality", Functionality)
def test_per_backend_names_are_prefix_and_backend(functionality: Functionality) -> None:
    """S70: the keys of a functionality are named after it and the backend."""
    prefixes = {"Dense": "", "AutogradFunctionality": "Autograd"}
    prefix = prefixes.get(functionality, functionality)
    assert [k.name for k in KEYS_OF[functionality]] == [prefix + b.name for b in BACKENDS]
    assert all(functionality_of(k) is functionality for k in KEYS_OF[functionality])
    assert [backend_of(k) for k in KEYS_OF[functionality]] == list(BACKENDS)


def test_priority_is_the_written_order() -> None:
    """S71, S72: the functionalities go in this order, the highest first."""
    order = """PythonDispatcher PreDispatch TESTING_ONLY_GenericMode TESTING_ONLY_GenericWrapper
    FuncTorchDynamicLayerFrontMode PythonTLSSnapshot FuncTorchGradWrapper FuncTorchVmapMode
    FuncTorchBatched AutocastPrivateUse1 AutocastCUDA AutocastMPS AutocastXLA AutocastXPU
    AutocastCPU AutogradNestedTensor AutogradFunctionality AutogradOther ADInplaceOrView ZeroTensor
    Negative Conjugate Functionalize FuncTorchDynamicLayerBackMode Python BackendSelect
    NestedTensor SparseCsr Sparse Quantized FPGA Dense""".split()
    seen = dict.fromkeys(str(functionality_of(k)) for k in reversed(RUNTIME_KEYS))
    assert list(seen) == order


def test_priority_agrees_with_pytorch() -> None:
    """S71, S72: keys that PyTorch shows stand in its order."""
    known = [k for k in RUNTIME_KEYS if torch_knows(k)]
    assert len(known) > 70
    assert known == sorted(known, key=torch_rank)


def test_single_keys_are_their_own_functionality() -> None:
    """S97: a key without a backend is its own functionality and has none."""
    for key in (K.Python, K.FPGA, K.AutogradOther, K.Autograd, K.Undefined):
        assert functionality_of(key) is key
        assert backend_of(key) is None


@pytest.mark.parametrize("alias", ALIAS_KEYS)
def test_aliases_agree_with_pytorch(alias: DispatchKey) -> None:
    """S81, S82: an alias holds a key if and only if PyTorch says so."""
    readable = [k for k in K if torch_reads(k)]
    assert len(readable) > 70
    for key in readable:
        expected = torch._C._dispatch_is_included_in_alias(key.name, alias.name)
        ours = is_included_in_alias(key, alias)
        # An alias contains no alias, itself included.
        assert ours is (expected and key not in ALIAS_KEYS), key


def test_aliases_have_their_sizes() -> None:
    """S81, S82: the aliases hold 11, 57, 1, 10, 37 and 25 keys, all of them run-time keys."""
    sizes = {
        K.Autograd: 11,
        K.CompositeImplicitAutograd: 57,
        K.FuncTorchBatchedDecomposition: 1,
        K.CompositeImplicitAutogradNestedTensor: 10,
        K.CompositeExplicitAutograd: 37,
        K.CompositeExplicitAutogradNonFunctional: 25,
    }
    assert {a: len(alias_members(a)) for a in ALIAS_KEYS} == sizes
    assert all(alias_members(a) <= set(RUNTIME_KEYS) for a in ALIAS_KEYS)


def test_non_functional_leaves_out_xla_and_sparse() -> None:
    """S81: `...NonFunctional` is without the XLA keys and without Sparse."""
    missing = alias_members(K.CompositeExplicitAutograd) - alias_members(
        K.CompositeExplicitAutogradNonFunctional
    )
    xla = {K.XLA, K.QuantizedXLA, K.SparseXLA, K.SparseCsrXLA}
    assert missing == xla | set(KEYS_OF[Functionality.Sparse])


@pytest.mark.parametrize("key", K)
def test_alias_keys_are_six(key: DispatchKey) -> None:
    """S97: `is_alias_key` tells the six aliases from the rest."""
    assert is_alias_key(key) is (key in ALIAS_KEYS)
    assert is_alias_key(key.name) is is_alias_key(key)


def test_a_run_time_key_stands_for_itself() -> None:
    """S97: a run-time key is included in itself, `Undefined` in nothing."""
    assert is_included_in_alias("CPU", "CPU")
    assert not is_included_in_alias("CPU", "CUDA")
    assert not any(is_included_in_alias(K.Undefined, k) for k in K)


@pytest.mark.parametrize("key", K)
def test_backends_of_autograd_agree_with_pytorch(key: DispatchKey) -> None:
    """S84: an autograd key differentiates the backends that PyTorch says."""
    if not torch_knows(key):
        assert not backends_of_autograd(key)
        return
    theirs = torch._C._dispatch_get_backend_keyset_from_autograd(TORCH[key.name])
    ours = {k for k in backends_of_autograd(key) if torch_knows(k)}
    known = {k for k in RUNTIME_KEYS if torch_knows(k)}
    assert ours == {k for k in known if theirs.has(TORCH[k.name])}


def test_other_backends_share_autograd_other() -> None:
    """S84: AutogradOther stands over FPGA, Quantized, Sparse and SparseCsr."""
    keys = backends_of_autograd(K.AutogradOther)
    assert len(keys) == 28
    assert {str(functionality_of(k)) for k in keys} == {"FPGA", "Quantized", "Sparse", "SparseCsr"}


def test_autograd_key_is_the_inverse() -> None:
    """S84: the autograd key of a backend is the one that differentiates it."""
    for key in AUTOGRAD_KEYS:
        assert all(autograd_key_for(b) is key for b in backends_of_autograd(key))
    with pytest.raises(UsageError, match="Python is no backend key"):
        autograd_key_for("Python")


def test_autocast_keys_belong_to_six_backends() -> None:
    """S71: six backends have an autocast key."""
    assert len(AUTOCAST_KEYS) == 6
    assert {autocast_key_for(b) for b in BACKENDS} == {*AUTOCAST_KEYS, None}
    assert autocast_key_for("CUDA") is K.AutocastCUDA
    assert autocast_key_for("Meta") is None


@pytest.mark.parametrize("key", K)
def test_parse_key_reads_every_name(key: DispatchKey) -> None:
    """S97: `parse_key` gives the key of a name, and a key back."""
    assert parse_key(key.name) is key
    assert parse_key(key) is key
    assert str(key) == key.name


@pytest.mark.parametrize(
    ("text", "near"),
    [("cpu", "'CPU'"), ("AutogradCPUU", "'AutogradCPU'"), ("autocastcuda", "'AutocastCUDA'")],
)
def test_unknown_names_get_a_hint(text: str, near: str) -> None:
    """S97: an unknown name is a UsageError with the nearest one."""
    with pytest.raises(UsageError, match=f"'{text}' is no dispatch key; did you mean {near}"):
        parse_key(text)


@pytest.mark.parametrize("value", [None, 3, 1.0, ["CPU"]])
def test_what_names_no_key_is_refused(value: object) -> None:
    """S97: something else than a key or name is a UsageTypeError."""
    with pytest.raises(UsageTypeError, match="by itself or by name"):
        parse_key(value)


@pytest.mark.parametrize("device", ["cpu", "cuda", "xla", "mps", "xpu", "privateuseone", "meta"])
def test_devices_agree_with_pytorch(device: str) -> None:
    """S74: the device decides the dense key, as in PyTorch."""
    expected = torch._C._dispatch_key_for_device(device)
    assert key_for_device(device).name == expected
    assert key_for_device(Device(device, 1)).name == expected


def test_unknown_devices_are_refused() -> None:
    """S74: an unknown device type has no key."""
    with pytest.raises(UsageError, match="'gpu' is no device"):
        key_for_device("gpu")


def test_a_renamed_backend_is_a_device() -> None:
    """S75: after `rename_backend` the name is a device type, and is printed."""
    name = "npu"
    try:
        rename_backend("PrivateUse1", name)
        rename_backend("PrivateUse1", name)
        assert key_for_device("npu:1") is K.PrivateUse1
        assert key_for_device("privateuseone") is K.PrivateUse1
        assert str(Device("privateuseone:1")) == "npu:1"
        with pytest.raises(UsageError, match="called 'npu' already"):
            rename_backend("PrivateUse1", "tpu")
    finally:
        _renamed.pop(name, None)


@pytest.mark.parametrize(
    ("backend", "name", "message"),
    [
        ("CUDA", "npu", "CUDA has its device type already"),
        ("PrivateUse2", "npu", "PrivateUse2 has its device type already"),
        ("PrivateUse1", "cuda", "'cuda' cannot name a new device type"),
        ("PrivateUse1", "a:b", "'a:b' cannot name a new device type"),
        ("PrivateUse1", 3, "a device type is a string"),
    ],
)
def test_bad_renames_change_nothing(backend: str, name: str, message: str) -> None:
    """S75: only PrivateUse1 is renamed, and only to a new name."""
    with pytest.raises(UsageError, match=message):
        rename_backend(backend, name)
    assert str(Device("privateuseone")) == "privateuseone"
