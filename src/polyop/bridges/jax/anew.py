"""What JAX has compiled is compiled anew after a rule of one of its operators has changed."""

from __future__ import annotations

from typing import Any

import jax

from polyop.bridges.anew import Compiled
from polyop.dispatch.operator import OpOverload

#: What runs while JAX traces and compiles.
_COMPILING = (
    "jax/_src/pjit.py",
    "jax/_src/interpreters/partial_eval.py",
    "jax/_src/interpreters/pxla.py",
    "jax/_src/lax/control_flow/common.py",
    "jax/_src/lax/control_flow/conditionals.py",
    "jax/_src/lax/control_flow/loops.py",
)
#: What runs where JAX waits for a kernel.
_IN_PROGRAMS = ("polyop/bridges/jax/ffi.py", "polyop/bridges/jax/results.py")
_clear_caches: Any = jax.clear_caches  # without types


def _empty(op: OpOverload) -> None:
    _clear_caches()


COMPILED = Compiled("JAX", _empty, _COMPILING, _IN_PROGRAMS)
