"""The short code of a key set: the integer that tensors and the context carry.

A `DispatchKeySet` has forty bits, and most of them are the same on every
tensor. The hot path works on a code that says only what differs: a plain
NumPy tensor on the CPU is 1, and Python keeps one object for each integer up
to 256. `resolve.py` spells a code out as a key set when it decides; nothing
else does.

A tensor's code holds what it is made of (the low byte) and its backend if
that is not the CPU. The context's code (`context.Word`) holds what is active,
and what was changed in the include and exclude sets. A call ORs them all.
"""

from __future__ import annotations

# -- on tensors ---------------------------------------------------------------

#: The payload is a NumPy array.
NUMPY = 1
#: The tensor requires grad.
GRAD = 1 << 1
#: The payload is a `Meta`, made under a fake mode.
FAKE = 1 << 2
#: The payload is one batch of a vmap level.
BATCHED = 1 << 3
#: The payload is a tensor that a gradient level watches.
LIFTED = 1 << 4
#: The payload is a functional value.
FUNCTIONAL = 1 << 5
#: The payload is an array of another library.
OTHER = 1 << 6
#: The tensor is of a subclass with `__dispatch__`.
SUBCLASS = 1 << 7

#: The backend bits of tensors that are not on the CPU: `DispatchKeySet`'s nine, shifted.
BACKEND_SHIFT = 8
BACKENDS = 0x1FF << BACKEND_SHIFT

#: The tensor was made under inference mode.
INFERENCE_TENSOR = 1 << 17

TENSOR_BITS = (1 << 18) - 1
#: The payload is a record of a transform's level.
WRAPPED = BATCHED | LIFTED | FUNCTIONAL

# -- in the context -----------------------------------------------------------

NO_GRAD = 1 << 18
INFERENCE = 1 << 19
#: A trace records the call.
TRACE = 1 << 20
#: Calls without tensors make fakes.
FAKE_MODE = 1 << 21
#: User modes are on the stack.
MODES = 1 << 22
#: Some vmap or gradient is running.
LEVELS = 1 << 23
#: Mutations are taken out.
FUNCTIONALIZE = 1 << 24
#: The rule of a fake is running (`get_ctx` works).
IN_RULE = 1 << 25
#: The handler of a mode or a subclass is running: nobody above Python acts (S99).
BELOW = 1 << 26
#: A mode is on the pre-dispatch stack.
PRE_DISPATCH = 1 << 27

#: Recorded calls note where they ran (`layers/autograd/anomaly.py`).
ANOMALY = 1 << 28

#: What recorded calls save goes to hooks (`layers/autograd/packing.py`).
PACKING = 1 << 29

#: An argument of the call is the fake of an opaque object, or holds one.
FAKE_OBJECT = 1 << 30

#: Looks at data are met: a gradient runs at a probe (`layers/autograd/quick_transpose.py`), or a
#: `setup_context` runs (`layers/autograd/taken.py`).
PROBING = 1 << 31

#: Where the changes of the include set, and of the exclude set, begin.
INCLUDE_SHIFT = 32
EXCLUDE_SHIFT = INCLUDE_SHIFT + 48
SET_MASK = (1 << 48) - 1
