"""The libraries whose arrays need more than the standard: PyTorch, JAX, CuPy."""

from __future__ import annotations

import sys
from functools import cached_property
from typing import Any

import numpy as np

from polyop.devices import CPU, SMALL_FLOATS, Device, DType
from polyop.errors import ArgumentError
from polyop.lazy import load
from polyop.payloads.library import Array, Library
from polyop.payloads.torch_functions import torch_functions
from polyop.tensor.meta import Shape, element_strides, memory_order, same_layout


def _small_floats() -> list[tuple[str, DType]]:
    module = load("polyop.small_floats")
    return [(name, getattr(module, name)) for name in SMALL_FLOATS]


#: By what JAX calls a platform: the type of the device.
PLATFORMS = {"gpu": "cuda", "cuda": "cuda", "rocm": "cuda", "tpu": "xla"}


class Torch(Library):
    """PyTorch: strided memory, shared by views and written in place."""

    writes = True

    def __init__(self) -> None:
        super().__init__(lambda: load("array_api_compat.torch"), "torch")

    @cached_property
    def _torch(self) -> Any:
        return sys.modules["torch"]

    @cached_property
    def own(self) -> dict[str, Any]:
        """What PyTorch's functions do not do as NumPy's."""
        return torch_functions(self._torch)

    def _names(self) -> list[tuple[str, DType]]:
        return [*super()._names(), *_small_floats()]

    @cached_property
    def _natives(self) -> dict[DType, Any]:
        found = {d: getattr(self._torch, name, None) for name, d in self._names()}
        return {d: native for d, native in found.items() if native is not None}

    def astype(self, x: Array, dtype: DType) -> Array:
        """Convert an array."""
        if x.is_complex() and dtype.kind not in "cb":
            x = x.real
        return x.to(self.native(dtype))

    def check(self, array: Array) -> None:
        """Refuse an array that is not dense.

        Raises:
            ArgumentError: it is sparse, or nested.
        """
        if array.layout is not self._torch.strided or array.is_nested:
            nested = array.is_nested
            raise ArgumentError(
                "a tensor over an array of torch is dense",
                declared="layout torch.strided",
                seen=f"{'nested, ' if nested else ''}layout {array.layout}",
                fix="call .to_padded_tensor(0.0) first" if nested else "call .to_dense() first",
            )

    def way_out(self, dtype: Any) -> str:
        """Say what becomes of a tensor of a dtype without a counterpart."""
        name = str(dtype)
        return f"call {'.dequantize()' if name.startswith('torch.q') else '.to(dtype)'} first"

    def is_concrete(self, array: Array) -> bool:
        """Tell whether it is a plain tensor, in no trace: no fake, none of a transform."""
        torch = self._torch
        # Of a subclass: one that computes as it likes has its data elsewhere.
        plain = type(array).__torch_dispatch__ is torch.Tensor.__torch_dispatch__
        if not plain or array.is_meta:
            return False
        traces = sys.modules.get("torch.fx.experimental.proxy_tensor")
        if traces is not None and traces.get_proxy_mode() is not None:
            return False
        return torch.func.debug_unwrap(array, recurse=False) is array and not self._batches(array)

    @cached_property
    def _batches(self) -> Any:
        """What tells the batches that `is_grads_batched` makes, which no `debug_unwrap` knows."""
        inner = getattr(self._torch._C, "_functorch", None)  # a name without promise
        return getattr(inner, "is_legacy_batchedtensor", lambda _: False)

    def device(self, array: Array) -> Device:
        """Give where an array is."""
        found = array.device
        return CPU if found.type == "cpu" else Device(found.type, found.index)

    def strides(self, array: Array) -> tuple[Any, ...]:
        """Give the strides in elements."""
        return tuple(array.stride())

    def in_order(self, array: Array) -> bool:
        """Tell whether the elements lie in order; symbols of PyTorch answer by its own guards."""
        return bool(array.is_contiguous())

    def laid_out(self, array: Array, strides: Shape | None) -> Array:
        """Give a tensor whose elements lie by strides, or in order; else a copy of it."""
        if strides is None:
            return array.contiguous()
        if same_layout(array.shape, array.stride(), strides):
            return array
        order, back = memory_order(strides)
        return array.permute(order).contiguous().permute(back)

    def shares(self, a: Array, b: Array) -> bool:
        """Tell whether two tensors share storage."""
        ask = getattr(self._torch._C, "_is_alias_of", None)
        return a is b or (ask is not None and bool(ask(a, b)))

    def view_like(self, base: Array, seen: np.ndarray[Any, Any]) -> Array | None:
        """Give the view that shows what a NumPy array in the same memory does; None without one."""
        own = self.to_numpy(base)
        if not self.shares(self.plain(base), base) or seen.dtype != own.dtype:
            return None
        if seen.size and not np.may_share_memory(seen, own):
            return None
        size = own.itemsize
        start = seen.ctypes.data - own.ctypes.data if seen.size else 0
        axes = zip(seen.shape, seen.strides, strict=True)
        steps = [abs(step) if n == 1 else step for n, step in axes]
        if start % size or any(step < 0 or step % size for step in steps):
            return None
        place = base.storage_offset() + start // size
        return base.as_strided(seen.shape, [step // size for step in steps], place)

    def runs_again(self) -> bool:
        """Tell whether `torch.utils.checkpoint` runs what calls."""
        frame: Any = sys._getframe()
        while frame is not None and frame.f_globals.get("__name__") != "torch.utils.checkpoint":
            frame = frame.f_back
        return frame is not None

    def seed(self, device: Any) -> int:
        """Draw a number from PyTorch's stream on a device."""
        return int(self._torch.randint(1 << 62, (), device=device))

    def detach(self, array: Array) -> Array:
        """Give a tensor to which the library's own gradients do not flow."""
        return array.detach()

    def plain(self, array: Array) -> Array:
        """Give a tensor whose memory holds its elements, neither conjugated nor negated yet."""
        return array.detach().resolve_conj().resolve_neg()

    def records(self, array: Array) -> bool:
        """Tell whether PyTorch records what is done with a tensor: its graph, or a tangent."""
        if array.requires_grad and self._torch.is_grad_enabled():
            return True
        return self._torch.autograd.forward_ad.unpack_dual(array).tangent is not None

    def copy(self, array: Array) -> Array:
        """Give a tensor with memory of its own."""
        return array.clone()

    def write(self, array: Array, value: Array) -> Array:
        """Write in place."""
        array.copy_(value)
        return array

    def put(self, array: Array, key: tuple[Any, ...], value: Array, *, add: bool = False) -> Array:
        """Give a tensor of which a part is replaced, or added to."""
        if add or all(isinstance(k, self._torch.Tensor) for k in key):
            return self._torch.index_put(array, key, value, accumulate=add)
        made = array.clone()
        made[key] = value
        return made

    def number(self, value: Any, dtype: DType, like: Array) -> Array:
        """Make a tensor without axes, of the same kind as another; the same for all its samples."""
        inner = self._torch.func.debug_unwrap(like)  # a batch without samples can make none
        return inner.new_full((), value, dtype=self.native(dtype))

    def full(self, shape: Any, value: Any, dtype: DType, like: Array) -> Array:
        """Make a tensor of one number, of the same kind as another."""
        return like.new_full(tuple(shape), value, dtype=self.native(dtype))

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """Give the data; a dtype that NumPy has only by name goes by its bits."""
        torch = self._torch
        x = self.plain(array)
        dtype = self.dtype(x)
        if dtype.isbuiltin == 1:
            found: np.ndarray[Any, Any] = x.numpy()
            return found
        bits = torch.int16 if dtype.itemsize == 2 else torch.uint8
        return x.view(bits).numpy().view(dtype)  # type: ignore[no-any-return]

    def from_numpy(self, array: np.ndarray[Any, Any], like: Array) -> Array:
        """Make a tensor with memory of its own, on the device of another."""
        torch = self._torch
        copy = np.array(array, order="C")  # neither read-only nor of negative strides
        if copy.dtype.isbuiltin != 1:
            bits = np.int16 if copy.dtype.itemsize == 2 else np.uint8
            made = torch.from_numpy(copy.view(bits)).view(self.native(array.dtype))
        else:
            made = torch.from_numpy(copy)
        mode = getattr(like, "fake_mode", None)
        if mode is not None:
            made = torch.ops.aten.lift_fresh(made)  # a constant of the program that is traced
            return made if hasattr(made, "fake_mode") else mode.from_tensor(made)
        return made if like is None or like.device.type == "cpu" else made.to(like.device)


class Jax(Library):
    """JAX: arrays that are never written; a write gives the tensor another array."""

    clamps = True

    def __init__(self) -> None:
        super().__init__(lambda: load("jax.numpy"), "jax")

    @cached_property
    def _jax(self) -> Any:
        return sys.modules["jax"]

    @cached_property
    def own(self) -> dict[str, Any]:
        """What `jax.numpy` lacks."""
        return {"complex": self._jax.lax.complex}

    def _names(self) -> list[tuple[str, DType]]:
        return [*super()._names(), *_small_floats()]

    @cached_property
    def _dtypes(self) -> dict[Any, DType]:
        return {d: d for d in self._natives}  # JAX's arrays say NumPy's own

    def copy(self, array: Array) -> Array:
        """Give the array itself, which is never written."""
        return array

    def way_out(self, dtype: Any) -> str:
        """Say what becomes of an array of a dtype without a counterpart."""
        keys = str(dtype).startswith("key<")
        what = "give jax.random.key_data(key), which is an array of uint32" if keys else ""
        return what or super().way_out(dtype)

    def native(self, dtype: DType) -> DType:
        """Give the dtype that JAX has: half the width where 64 bits are not enabled."""
        return self.canonical(dtype)

    def canonical(self, dtype: DType) -> DType:
        """Give the dtype that JAX has: half the width where 64 bits are not enabled."""
        found: DType = np.dtype(self._jax.dtypes.canonicalize_dtype(dtype))
        return found

    def is_concrete(self, array: Array) -> bool:
        """Tell whether it is no tracer."""
        return not isinstance(array, self._jax.core.Tracer)

    def device(self, array: Array) -> Device:
        """Give where an array is; a tracer is nowhere, and counts as being on the CPU."""
        if not self.is_concrete(array):
            return CPU
        first = min(array.devices(), key=lambda d: d.id)
        kind = PLATFORMS.get(first.platform, "cpu")
        return CPU if kind == "cpu" else Device(kind, first.id)

    def detach(self, array: Array) -> Array:
        """Give an array to which the library's own gradients do not flow."""
        return self._jax.lax.stop_gradient(array)

    def behind(self, former: Array, new: Array) -> Array:
        """Give a new value that JAX's gradients take for the former one."""
        return self._behind(former, new)

    @cached_property
    def _behind(self) -> Any:
        behind = self._jax.custom_jvp(lambda *given: given[1])
        behind.defjvp(lambda primals, tangents: (primals[1], tangents[0]))
        return behind

    def astype(self, x: Array, dtype: DType) -> Array:
        """Convert an array."""
        if x.dtype.kind == "c" and dtype.kind not in "cb":
            x = x.real
        return x.astype(self.canonical(dtype))

    def get(self, array: Array, key: tuple[Any, ...]) -> Array:
        """Choose by indices; what is out of range, which a trace cannot see, is NaN."""
        return array.at[key].get(mode="fill")

    def put(self, array: Array, key: tuple[Any, ...], value: Array, *, add: bool = False) -> Array:
        """Give an array of which a part is replaced, or added to."""
        place = array.at[key]
        return place.add(value) if add else place.set(value)

    def number(self, value: Any, dtype: DType, like: Array) -> Array:
        """Make an array without axes."""
        return self.xp.asarray(value, dtype=self.canonical(dtype))

    def full(self, shape: Any, value: Any, dtype: DType, like: Array) -> Array:
        """Make an array of one number."""
        return self.xp.full(tuple(shape), value, dtype=self.canonical(dtype))

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """Give a read-only view."""
        return np.asarray(array)

    def from_numpy(self, array: np.ndarray[Any, Any], like: Array) -> Array:
        """Make an array; `asarray` may alias aligned memory, so a copy of ours goes in."""
        return self.xp.asarray(np.array(array, dtype=self.canonical(array.dtype)))


class Cupy(Library):
    """CuPy: NumPy's arrays on a GPU."""

    writes = True

    def __init__(self) -> None:
        super().__init__(lambda: load("array_api_compat.cupy"), "cupy")

    def dtype(self, array: Array) -> DType:
        """Give the dtype, which is NumPy's own."""
        return array.dtype  # type: ignore[no-any-return]

    def native(self, dtype: DType) -> DType:
        """Give the dtype itself."""
        return dtype

    def astype(self, x: Array, dtype: DType) -> Array:
        """Convert an array."""
        return x.astype(dtype, copy=False)

    def device(self, array: Array) -> Device:
        """Give where an array is."""
        return Device("cuda", int(array.device.id))

    def strides(self, array: Array) -> tuple[int, ...]:
        """Give the strides in elements."""
        return element_strides(array)

    def in_order(self, array: Array) -> bool:
        """Tell whether the elements lie in order."""
        return bool(array.flags.c_contiguous)

    def laid_out(self, array: Array, strides: Shape | None) -> Array:
        """Give an array whose elements lie by strides, or in order; else a copy of it."""
        if strides is None:
            return array.astype(array.dtype, order="C", copy=False)
        if same_layout(array.shape, self.strides(array), strides):
            return array
        order, back = memory_order(strides)
        return array.transpose(order).astype(array.dtype, order="C").transpose(back)

    def shares(self, a: Array, b: Array) -> bool:
        """Tell whether two arrays may share memory."""
        return bool(sys.modules["cupy"].may_share_memory(a, b))

    def copy(self, array: Array) -> Array:
        """Give an array with memory of its own."""
        return array.copy()

    def write(self, array: Array, value: Array) -> Array:
        """Write in place."""
        array[...] = value
        return array

    def number(self, value: Any, dtype: DType, like: Array) -> Array:
        """Make an array without axes."""
        return sys.modules["cupy"].asarray(value, dtype)

    def full(self, shape: Any, value: Any, dtype: DType, like: Array) -> Array:
        """Make an array of one number."""
        return sys.modules["cupy"].full(tuple(shape), value, dtype)

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """Copy the data from the device."""
        found: np.ndarray[Any, Any] = array.get()
        return found

    def from_numpy(self, array: np.ndarray[Any, Any], like: Array) -> Array:
        """Copy the data to the device."""
        return sys.modules["cupy"].asarray(array)
