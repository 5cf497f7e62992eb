"""The call of a loop from Python: tensors in, tensors out, in one frame.

The arrays must be what the loop was made for: NumPy would convert others in
silence. Anything else (another dtype than a custom operator's fake rule said, an
array of another library, a tensor of a transform) goes to the group's operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from polyop.compile.fused.source import FLAGS
from polyop.compile.fused.threads import LARGE, run_split
from polyop.compile.fused.ufunc import Ufunc
from polyop.devices import DType
from polyop.dispatch.bits import GRAD, NUMPY
from polyop.tensor.tensor import Tensor, of_array

TEXT = """\
def fused({tensors}):
    {reads}
    if not ({keys}) & OTHERS and {fits}:
        if p0.size < LARGE:
            found = ufunc({arrays})
            raised = flags()
        else:
            found, raised = run_split(ufunc, flags, outputs, ({arrays},))
        if raised and reported(raised):
            return plain({tensors})
        {give}
    return plain({tensors})
"""
ONE = """if found.__class__ is not ndarray:
            found = asarray(found)
        t = Tensor()
        t.payload = found
        t.keys = NUMPY
        t.version = 0
        return t"""
SEVERAL = "return [of_array(asarray(x)) for x in found]"


def make_call(
    ufunc: Ufunc,
    flags: Callable[[], int],
    dtypes: tuple[Sequence[DType], Sequence[DType]],
    plain: Callable[..., Any],
) -> Callable[..., Any]:
    """Write the function that runs a loop on tensors.

    Args:
        ufunc: the loop.
        flags: gives the flags that loops raised in this thread, and forgets them.
        dtypes: of the inputs, and of the results.
        plain: runs the same by operators.
    """
    inputs, outputs = dtypes
    places = range(len(inputs))
    text = TEXT.format(
        tensors=", ".join(f"x{i}" for i in places),
        reads="; ".join(f"p{i} = x{i}.payload" for i in places),
        keys=" | ".join(f"x{i}.keys" for i in places),
        fits=" and ".join(f"p{i}.dtype is d{i}" for i in places),
        arrays=", ".join(f"p{i}" for i in places),
        give=ONE if ufunc.call.nout == 1 else SEVERAL,  # type: ignore[attr-defined]
    )
    scope: dict[str, Any] = {
        "ufunc": ufunc.call, "kept": ufunc.kept, "flags": flags, "plain": plain,
        "reported": reported, "ndarray": np.ndarray, "asarray": np.asarray, "Tensor": Tensor,
        "NUMPY": NUMPY, "OTHERS": ~(NUMPY | GRAD), "of_array": of_array,
        "LARGE": LARGE, "run_split": run_split, "outputs": outputs,
        **{f"d{i}": d for i, d in enumerate(inputs)},
    }  # fmt: skip
    exec(text, scope)  # noqa: S102 - every word in it is ours
    return scope["fused"]  # type: ignore[no-any-return]


def reported(raised: int) -> bool:
    """Tell whether NumPy would speak of any of these flags."""
    wanted: Mapping[str, Any] = {**np.geterr()}
    return any(raised >> i & 1 and wanted[name] != "ignore" for i, name in enumerate(FLAGS))
