"""The dispatch keys: who may act on a call, in one written order.

A run-time key has an entry in the table of every operator; the higher key acts first. Some run-time
keys belong to one *functionality* (dense kernels, autograd, ...) and exist once per backend. An
alias key stands for a set of run-time keys, and is only a place to register.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

from polyop.devices import DEVICE_TYPES, Device, rename_device
from polyop.errors import UsageError, UsageTypeError, nearest


class DispatchKey(IntEnum):
    """A key; the value is its priority (SPEC S69 to S72).

    Written out, not generated, so that type checkers and searches see every name. Keys of one
    functionality are neighbours, ordered by backend.
    """

    Undefined = 0
    CPU = 1
    CUDA = 2
    XLA = 3
    MPS = 4
    XPU = 5
    PrivateUse1 = 6
    PrivateUse2 = 7
    PrivateUse3 = 8
    Meta = 9
    FPGA = 10
    QuantizedCPU = 11
    QuantizedCUDA = 12
    QuantizedXLA = 13
    QuantizedMPS = 14
    QuantizedXPU = 15
    QuantizedPrivateUse1 = 16
    QuantizedPrivateUse2 = 17
    QuantizedPrivateUse3 = 18
    QuantizedMeta = 19
    SparseCPU = 20
    SparseCUDA = 21
    SparseXLA = 22
    SparseMPS = 23
    SparseXPU = 24
    SparsePrivateUse1 = 25
    SparsePrivateUse2 = 26
    SparsePrivateUse3 = 27
    SparseMeta = 28
    SparseCsrCPU = 29
    SparseCsrCUDA = 30
    SparseCsrXLA = 31
    SparseCsrMPS = 32
    SparseCsrXPU = 33
    SparseCsrPrivateUse1 = 34
    SparseCsrPrivateUse2 = 35
    SparseCsrPrivateUse3 = 36
    SparseCsrMeta = 37
    NestedTensorCPU = 38
    NestedTensorCUDA = 39
    NestedTensorXLA = 40
    NestedTensorMPS = 41
    NestedTensorXPU = 42
    NestedTensorPrivateUse1 = 43
    NestedTensorPrivateUse2 = 44
    NestedTensorPrivateUse3 = 45
    NestedTensorMeta = 46
    BackendSelect = 47
    Python = 48
    FuncTorchDynamicLayerBackMode = 49
    Functionalize = 50
    Conjugate = 51
    Negative = 52
    ZeroTensor = 53
    ADInplaceOrView = 54
    AutogradOther = 55
    AutogradCPU = 56
    AutogradCUDA = 57
    AutogradXLA = 58
    AutogradMPS = 59
    AutogradXPU = 60
    AutogradPrivateUse1 = 61
    AutogradPrivateUse2 = 62
    AutogradPrivateUse3 = 63
    AutogradMeta = 64
    AutogradNestedTensor = 65
    AutocastCPU = 66
    AutocastXPU = 67
    AutocastXLA = 68
    AutocastMPS = 69
    AutocastCUDA = 70
    AutocastPrivateUse1 = 71
    FuncTorchBatched = 72
    FuncTorchVmapMode = 73
    FuncTorchGradWrapper = 74
    PythonTLSSnapshot = 75
    FuncTorchDynamicLayerFrontMode = 76
    TESTING_ONLY_GenericWrapper = 77
    TESTING_ONLY_GenericMode = 78
    PreDispatch = 79
    PythonDispatcher = 80

    # Alias keys: places to register, with no entry of their own (S81, S82).
    Autograd = 81
    CompositeImplicitAutograd = 82
    FuncTorchBatchedDecomposition = 83
    CompositeImplicitAutogradNestedTensor = 84
    CompositeExplicitAutograd = 85
    CompositeExplicitAutogradNonFunctional = 86

    def __str__(self) -> str:
        return self.name


class Functionality(StrEnum):
    """What the keys of all backends have in common; the value is the name."""

    Dense = "Dense"
    Quantized = "Quantized"
    Sparse = "Sparse"
    SparseCsr = "SparseCsr"
    NestedTensor = "NestedTensor"
    AutogradFunctionality = "AutogradFunctionality"


ALIAS_KEYS = tuple(DispatchKey(value) for value in range(DispatchKey.Autograd, len(DispatchKey)))

#: The keys with an entry in every table, lowest first; `Undefined` is not one of them.
RUNTIME_KEYS = tuple(DispatchKey(value) for value in range(1, DispatchKey.Autograd))

#: The dense keys, which also name the backends, lowest first (S70).
BACKENDS = tuple(DispatchKey(v) for v in range(DispatchKey.CPU, DispatchKey.Meta + 1))

#: The keys of each functionality, in the order of the backends.
KEYS_OF: dict[Functionality, tuple[DispatchKey, ...]] = {
    functionality: tuple(DispatchKey(first + i) for i in range(len(BACKENDS)))
    for functionality, first in {
        Functionality.Dense: DispatchKey.CPU,
        Functionality.Quantized: DispatchKey.QuantizedCPU,
        Functionality.Sparse: DispatchKey.SparseCPU,
        Functionality.SparseCsr: DispatchKey.SparseCsrCPU,
        Functionality.NestedTensor: DispatchKey.NestedTensorCPU,
        Functionality.AutogradFunctionality: DispatchKey.AutogradCPU,
    }.items()
}

_FUNCTIONALITY = {k: functionality for functionality, keys in KEYS_OF.items() for k in keys}
_BACKEND = {k: BACKENDS[i] for keys in KEYS_OF.values() for i, k in enumerate(keys)}

_NESTED = frozenset(KEYS_OF[Functionality.NestedTensor])
_AUTOGRAD = frozenset(
    (
        *KEYS_OF[Functionality.AutogradFunctionality],
        DispatchKey.AutogradOther,
        DispatchKey.AutogradNestedTensor,
    )
)
_OTHER_BACKENDS = frozenset(
    (
        DispatchKey.FPGA,
        *KEYS_OF[Functionality.Quantized],
        *KEYS_OF[Functionality.Sparse],
        *KEYS_OF[Functionality.SparseCsr],
    )
)
_EXPLICIT = _OTHER_BACKENDS | frozenset(BACKENDS)

_ALIASES: dict[DispatchKey, frozenset[DispatchKey]] = {
    DispatchKey.Autograd: _AUTOGRAD,
    DispatchKey.CompositeExplicitAutograd: _EXPLICIT,
    DispatchKey.CompositeExplicitAutogradNonFunctional: frozenset(
        k
        for k in _EXPLICIT
        if _BACKEND.get(k) is not DispatchKey.XLA
        and _FUNCTIONALITY.get(k) is not Functionality.Sparse
    ),
    DispatchKey.CompositeImplicitAutograd: _EXPLICIT | _AUTOGRAD | _NESTED,
    DispatchKey.CompositeImplicitAutogradNestedTensor: frozenset(
        (*_NESTED, DispatchKey.AutogradNestedTensor)
    ),
    DispatchKey.FuncTorchBatchedDecomposition: frozenset((DispatchKey.FuncTorchBatched,)),
}

_BACKENDS_OF_AUTOGRAD: dict[DispatchKey, frozenset[DispatchKey]] = {
    DispatchKey.AutogradOther: _OTHER_BACKENDS,
    DispatchKey.AutogradNestedTensor: _NESTED,
    **{k: frozenset((_BACKEND[k],)) for k in KEYS_OF[Functionality.AutogradFunctionality]},
}
_AUTOGRAD_OF = {b: k for k, backends in _BACKENDS_OF_AUTOGRAD.items() for b in backends}

_AUTOCAST_OF = {
    DispatchKey.CPU: DispatchKey.AutocastCPU,
    DispatchKey.XPU: DispatchKey.AutocastXPU,
    DispatchKey.XLA: DispatchKey.AutocastXLA,
    DispatchKey.MPS: DispatchKey.AutocastMPS,
    DispatchKey.CUDA: DispatchKey.AutocastCUDA,
    DispatchKey.PrivateUse1: DispatchKey.AutocastPrivateUse1,
}

AUTOGRAD_KEYS = tuple(sorted(_AUTOGRAD))
AUTOCAST_KEYS = tuple(sorted(_AUTOCAST_OF.values()))

#: The keys on which polyop itself acts, for operators without a kernel there (S101).
BUILT_IN_KEYS = (
    DispatchKey.PreDispatch,
    DispatchKey.FuncTorchDynamicLayerFrontMode,
    DispatchKey.FuncTorchDynamicLayerBackMode,
    DispatchKey.Python,
    DispatchKey.FuncTorchBatched,
    DispatchKey.Functionalize,
    DispatchKey.Meta,
    *AUTOGRAD_KEYS,
)
#: The keys that operators without a kernel there are passed over at (S101).
PASSED_OVER_KEYS = (
    DispatchKey.PythonDispatcher,
    DispatchKey.PythonTLSSnapshot,
    DispatchKey.FuncTorchGradWrapper,
    DispatchKey.FuncTorchVmapMode,
    DispatchKey.ADInplaceOrView,
    DispatchKey.ZeroTensor,
    DispatchKey.Negative,
    DispatchKey.Conjugate,
    DispatchKey.BackendSelect,
    *AUTOCAST_KEYS,
)

_DEVICE_KEYS = {
    "cpu": DispatchKey.CPU,
    "cuda": DispatchKey.CUDA,
    "xla": DispatchKey.XLA,
    "mps": DispatchKey.MPS,
    "xpu": DispatchKey.XPU,
    "privateuseone": DispatchKey.PrivateUse1,
    "meta": DispatchKey.Meta,
}


def parse_key(key: Any) -> DispatchKey:
    """Give the key of that name; a key is given back.

    Example:
        >>> parse_key("AutogradCPU") is DispatchKey.AutogradCPU
        True

    Raises:
        UsageError: for an unknown name.
        UsageTypeError: for what is neither a key nor a name.
    """
    if isinstance(key, DispatchKey):
        return key
    if not isinstance(key, str):
        raise UsageTypeError(
            "a dispatch key is given by itself or by name", seen=repr(key), fix='write "CPU"'
        )
    if key not in DispatchKey.__members__:
        raise UsageError(
            f"{key!r} is no dispatch key{_near_key(key)}",
            fix="take a name of DispatchKey, such as CPU or CompositeExplicitAutograd",
        )
    return DispatchKey[key]


def _near_key(name: str) -> str:
    # Wrong case is the common mistake ("cpu"), and short names in the wrong
    # case are near to nothing.
    folded = {k.casefold(): k for k in DispatchKey.__members__}
    same = folded.get(name.casefold())
    return f"; did you mean {same!r}?" if same else nearest(name, DispatchKey.__members__)


def functionality_of(key: DispatchKey | str) -> Functionality | DispatchKey:
    """Give the functionality of a per-backend key; any other key is its own.

    Example:
        >>> functionality_of("SparseCUDA")
        <Functionality.Sparse: 'Sparse'>
    """
    key = parse_key(key)
    return _FUNCTIONALITY.get(key, key)


def backend_of(key: DispatchKey | str) -> DispatchKey | None:
    """Give the dense key of a per-backend key's backend; None for any other key."""
    return _BACKEND.get(parse_key(key))


def is_alias_key(key: DispatchKey | str) -> bool:
    """Tell whether a key only stands for others."""
    return parse_key(key) in _ALIASES


def alias_members(alias: DispatchKey | str) -> frozenset[DispatchKey]:
    """Give the run-time keys that a key stands for: its own, or an alias key's many."""
    alias = parse_key(alias)
    if alias in _ALIASES:
        return _ALIASES[alias]
    return frozenset((alias,) if alias else ())


def is_included_in_alias(key: DispatchKey | str, alias: DispatchKey | str) -> bool:
    """Tell whether `alias` stands for `key`, among others."""
    return parse_key(key) in alias_members(alias)


def backends_of_autograd(key: DispatchKey | str) -> frozenset[DispatchKey]:
    """Give the backend keys that an autograd key differentiates; none for another key (S84)."""
    return _BACKENDS_OF_AUTOGRAD.get(parse_key(key), frozenset())


def autograd_key_for(backend: DispatchKey | str) -> DispatchKey:
    """Give the autograd key above a backend's key.

    Raises:
        UsageError: for a key that is no backend's.
    """
    key = parse_key(backend)
    if key not in _AUTOGRAD_OF:
        raise UsageError(
            f"{key} is no backend key, so no autograd key is above it",
            fix="give the key of a backend, such as CPU or SparseCUDA",
        )
    return _AUTOGRAD_OF[key]


def autocast_key_for(backend: DispatchKey | str) -> DispatchKey | None:
    """Give the autocast key of a dense key, or None where the backend has none."""
    return _AUTOCAST_OF.get(parse_key(backend))


def key_for_device(device: Device | str) -> DispatchKey:
    """Give the dense key of a device or device type (S74).

    Example:
        >>> key_for_device("cuda:1") is DispatchKey.CUDA
        True

    Raises:
        UsageError: for an unknown device type.
        UsageTypeError: for an object that names no device.
    """
    return _DEVICE_KEYS[Device(device).type]


def rename_backend(backend: DispatchKey | str, name: str) -> None:
    """Make `name` a device type, served by the backend PrivateUse1 (S75).

    The name is given once; the same one may be given again.

    Args:
        backend: `"PrivateUse1"`.
        name: the device type, such as `"npu"`.

    Raises:
        UsageError: for another backend, a name that is none or taken, or a second name.
        UsageTypeError: for a name that is not a string.
    """
    if parse_key(backend) is not DispatchKey.PrivateUse1:
        raise UsageError(f"{backend} has its device type already", fix="rename PrivateUse1")
    _check_device_name(name)
    rename_device("privateuseone", name)


def _check_device_name(name: str) -> None:
    if not isinstance(name, str):
        raise UsageTypeError("a device type is a string", seen=repr(name))
    if not name.isidentifier() or name in DEVICE_TYPES:
        raise UsageError(
            f"{name!r} cannot name a new device type",
            declared=", ".join(DEVICE_TYPES),
            fix="take an identifier that is no device type yet",
        )
    now = str(Device("privateuseone"))
    if now not in ("privateuseone", name):
        raise UsageError(
            f"PrivateUse1 is called {now!r} already", seen=repr(name), fix=f"keep {now!r}"
        )
