"""What the dispatcher needs of the files above, handed down by name.

Generated functions make tensors and look into arrays, but the dispatcher
stands below both; an operator object starts what `entry.py` and `resolve.py`
do, and they import it. Those files put their part here once, at import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class Parts:
    """The things themselves; each is set by the file named beside it."""

    make_entry: Callable[[Any], Callable[..., Any]]  # dispatch/entry.py
    rewrite_entry: Callable[[Any, Any], None]  # dispatch/entry.py
    kernel_handler: Callable[..., Any]  # dispatch/entry.py
    redispatch: Callable[..., Any]  # dispatch/resolve.py
    decompose: Callable[..., Any]  # dispatch/resolve.py
    bind: Callable[..., list[Any]]  # dispatch/bind.py
    code_of: Callable[[Sequence[Any]], int]  # dispatch/bind.py
    call_packet: Callable[..., Any]  # dispatch/bind.py
    find_operator: Callable[[str, str | None, int], Any]  # dispatch/registry.py
    waiting: Callable[[str], str]  # dispatch/registry.py
    packets: dict[str, Any]  # dispatch/registry.py

    autocast_kernel: Callable[..., Any]  # layers/autocast.py
    functional_twin: Callable[[Any], Any]  # layers/functionalize
    #: Raises if gradients would not see a write to a view: layers/autograd/inplace.py
    refuse_unseen: Callable[[Any, Any], None]
    Tensor: type[Any]  # tensor/tensor.py
    ndarray: type[Any]  # tensor/tensor.py
    asarray: Callable[[Any], Any]  # tensor/tensor.py
    Meta: type[Any]  # tensor/tensor.py: what a kernel gives for a tensor on the device meta
    of_meta: Callable[[Any], Any]  # tensor/tensor.py
    share: Callable[[Any], Any]  # tensor/storage.py: the version that an alias shares
    shares_memory: Callable[[Any, Any], bool]  # tensor/storage.py, of two tensors
    is_array: Callable[[Any], bool]  # tensor/libraries.py: an array that is no Tensor
    call_foreign: Callable[[Any, Sequence[Any]], Any]  # tensor/foreign.py: answer in kind
    #: Of arguments of these classes, the call written out: tensor/foreign.py
    quick_call: Callable[[Any, Sequence[type]], Any]
    no_backend: Callable[[Any, int], Any]  # tensor/foreign.py: a payload that is not NumPy's
    #: Lets an author's NumPy kernel serve other libraries' arrays: layers/payloads.py
    author_handler: Callable[..., Any]
    #: Tells compilers of an operator that decomposes: bridges/calls.py
    noted: Callable[..., Any]
    #: Tell frameworks of an operator, and that it is gone: bridges/frameworks.py
    defined: Callable[[Any], None]
    removed: Callable[[Any], None]


PARTS = Parts()
