"""Random tensors. Every generator has a lock, so threads may share one.

Without `generator`, numbers come from the process's default one, which
`manual_seed` starts anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from polyop.devices import CPU, META, Device, DType, as_dtype
from polyop.dispatch.bits import FAKE_MODE, OTHER, WRAPPED
from polyop.dispatch.context import word
from polyop.errors import ArgumentError
from polyop.forks import lock_maker
from polyop.ops.creation import FLOAT32, INT64, on_cpu, zeros_like
from polyop.ops.define import define, operator_of
from polyop.ops.inplace import INPLACE_TWINS, refuse_write
from polyop.ops.splitting import sizes_of
from polyop.schema.tags import Tag
from polyop.schema.values import register_generator
from polyop.tensor.meta import META_SPACE, Meta
from polyop.tensor.tensor import Tensor, of_meta

Fn = Callable[..., Any]
Array = Any
SEEDED = (Tag.nondeterministic_seeded,)
_new_lock = lock_maker()


class Generator:
    """A stream of random numbers.

    Args:
        seed: where it starts; without it, somewhere unpredictable.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._lock = _new_lock()
        self._seed = 0
        # `np.random` takes long to import: without a seed, the stream waits for its first use.
        self._stream: np.random.Generator | None = None
        self._begin: Callable[[], Any] = _anywhere
        if seed is not None:
            self.manual_seed(seed)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = self.get_state()
            return {**vars(self), "_stream": state, "_lock": None, "_begin": None}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(kept, _lock=_new_lock(), _begin=_anywhere)
        self._start(self._seed)
        self.set_state(kept["_stream"])

    def manual_seed(self, seed: Any) -> Generator:
        """Start anew from a seed."""
        with self._lock:
            self._start(seed)
        return self

    def _start(self, seed: Any) -> np.random.Generator:
        self._seed = int(seed)
        self._stream = np.random.Generator(np.random.PCG64(self._seed))
        return self._stream

    def _open(self) -> np.random.Generator:
        """Give the stream; the lock is held."""
        return self._stream or self._start(self._begin())

    def initial_seed(self) -> int:
        """Give the seed that it started from."""
        with self._lock:
            self._open()
            return self._seed

    def get_state(self) -> dict[str, Any]:
        """Give where it stands, for `set_state`."""
        with self._lock:
            return dict(self._open().bit_generator.state)

    def set_state(self, state: dict[str, Any]) -> Generator:
        """Stand where another stood."""
        with self._lock:
            self._open().bit_generator.state = state
        return self

    def draw(self, method: str, *args: Any, **kwargs: Any) -> Array:
        """Call a method of NumPy's generator."""
        if _DRAWN.get() is not None:
            _note(self)
        with self._lock:
            return np.asarray(getattr(self._open(), method)(*args, **kwargs))


def _anywhere() -> Any:
    return np.random.SeedSequence().entropy


#: By identity, the generators that drew since `drawing` began, and where each stood before.
Drawn = dict[int, tuple[Any, Any]]
_DRAWN: ContextVar[Drawn | None] = ContextVar("drawn", default=None)


def drawing(fn: Callable[..., Any], *args: Any) -> tuple[Any, Drawn]:
    """Call a function, and give the generators that drew, each with its state of before."""
    outer = _DRAWN.get()
    found: Drawn = {}
    token = _DRAWN.set(found)
    try:
        out = fn(*args)
    finally:
        _DRAWN.reset(token)
        if outer is not None:
            outer.update({key: found[key] for key in found.keys() - outer.keys()})
    return out, found


def _note(generator: Any) -> None:
    drawn = _DRAWN.get()
    if drawn is not None and id(generator) not in drawn:
        drawn[id(generator)] = (generator, state_of(generator))


def state_of(generator: Any) -> Any:
    """Give where a generator, ours or NumPy's, stands."""
    ours = isinstance(generator, Generator)
    return generator.get_state() if ours else dict(generator.bit_generator.state)


def stand(generator: Any, state: Any) -> None:
    """Let a generator, ours or NumPy's, stand somewhere."""
    if isinstance(generator, Generator):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


register_generator(Generator)
DEFAULT = Generator()
#: Stands for the default generator while a kernel runs whose numbers follow another library's.
_STANDS_IN: ContextVar[Generator | None] = ContextVar("stands_in", default=None)


def manual_seed(seed: int) -> Generator:
    """Start the default generator anew from a seed."""
    return default_generator().manual_seed(seed)


def default_generator() -> Generator:
    """Give the process's default generator; in a kernel that follows another library's, that."""
    return _STANDS_IN.get() or DEFAULT


def following(begin: Callable[[], int], fn: Fn, *args: Any, **kwargs: Any) -> Any:
    """Call a function with a default generator of its own.

    Args:
        begin: gives the seed, if the function draws.
        fn: the function.
        args: its arguments.
        kwargs: those by name.
    """
    generator = Generator()
    generator._begin = begin
    token = _STANDS_IN.set(generator)
    try:
        return fn(*args, **kwargs)
    finally:
        _STANDS_IN.reset(token)


def draw(generator: Any, method: str, *args: Any, **kwargs: Any) -> Array:
    """Draw from a generator: ours, NumPy's, or the default one."""
    # `np.random` is not asked for here: who imports it holds the lock, for which forks wait.
    if generator is None or isinstance(generator, Generator):
        return (generator or _STANDS_IN.get() or DEFAULT).draw(method, *args, **kwargs)
    if _DRAWN.get() is not None:
        _note(generator)
    return np.asarray(getattr(generator, method)(*args, **kwargs))


def _floats(generator: Any, method: str, size: Sequence[int], dtype: DType | None) -> Array:
    dtype = dtype or FLOAT32
    if dtype.kind == "c":
        parts = [
            _floats(generator, method, size, np.dtype(f"f{dtype.itemsize // 2}")) for _ in "ri"
        ]
        scale = 0.5**0.5 if method == "standard_normal" else 1.0
        return ((parts[0] + 1j * parts[1]) * scale).astype(dtype)
    if dtype.kind not in "fV":
        raise ArgumentError(
            "random numbers are floats", op="core::rand", argument="dtype", seen=dtype
        )
    native = dtype if dtype.name in {"float32", "float64"} else FLOAT32
    return draw(generator, method, tuple(size), native).astype(dtype, copy=False)


# -- new tensors --------------------------------------------------------------


def _define_sized(name: str, signature: str, kernel: Fn, default: DType) -> Fn:
    """Define an operator that makes a random tensor of a size, and the way to call it."""

    def on_arrays(*args: Any) -> Array:
        *statics, size, generator, dtype, device = args
        on_cpu(device)
        return kernel(generator, *statics, size, dtype or default)

    def fake(*args: Any) -> Meta:
        *_, size, _, dtype, device = args
        return META_SPACE.meta(tuple(size), dtype or default, None, device or CPU)

    entry = define(
        f"{name}({signature}SymInt[] size, *, Generator? generator=None, "
        "ScalarType? dtype=None, Device? device=None) -> Tensor",
        on_arrays,
        fake=fake,
        grad={},
        tags=SEEDED,
    )

    def make(
        *args: Any,
        generator: Any = None,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
    ) -> Any:
        device = None if device is None else Device(device)
        dtype = None if dtype is None else as_dtype(dtype)
        if device is META and not word() & FAKE_MODE:
            made = of_meta(fake(*args, generator, dtype, device))
        else:
            made = entry(*args, generator=generator, dtype=dtype, device=device)
        return made.requires_grad_() if requires_grad else made

    return make


def _integers(generator: Any, low: int, high: int, size: Sequence[int], dtype: DType) -> Array:
    if low >= high:
        raise ArgumentError(
            "no integer lies in an empty range", op="core::randint", declared="low < high",
            seen=f"{low} to {high}",
        )  # fmt: skip
    return draw(generator, "integers", low, high, tuple(size)).astype(dtype, copy=False)


_rand = _define_sized("rand", "", lambda g, size, d: _floats(g, "random", size, d), FLOAT32)
_randn = _define_sized(
    "randn", "", lambda g, size, d: _floats(g, "standard_normal", size, d), FLOAT32
)
_randint = _define_sized("randint", "int low, int high, ", _integers, INT64)
_randperm = _define_sized(
    "randperm",
    "",
    lambda g, size, d: draw(g, "permutation", size[0]).astype(d, copy=False),
    INT64,
)


def rand(*size: Any, **options: Any) -> Any:
    """Make random numbers from 0 to 1; sizes one by one, or as one sequence."""
    return _rand(sizes_of(size), **options)


def randn(*size: Any, **options: Any) -> Any:
    """Make random numbers of the normal distribution."""
    return _randn(sizes_of(size), **options)


def randint(low: int, high: Any, size: Any = None, **options: Any) -> Any:
    """Make random integers from `low` to `high`, which is left out."""
    if size is None:
        low, high, size = 0, low, high
    return _randint(low, high, list(size), **options)


def randperm(n: int, **options: Any) -> Any:
    """Make a random order of 0 to `n - 1`."""
    return _randperm([n], **options)


def rand_like(x: Any, **options: Any) -> Any:
    """Make random numbers from 0 to 1 in the shape and library of a tensor."""
    return _like(x, rand, _uniform, 1.0, options)


def randn_like(x: Any, **options: Any) -> Any:
    """Make random numbers of the normal distribution in the shape and library of a tensor."""
    return _like(x, randn, _normal, 0.5**0.5, options)


def _like(x: Any, make: Fn, fill: Fn, scale: float, options: dict[str, Any]) -> Any:
    """Make random numbers beside a tensor; `fill` draws for one that another library holds."""
    options = {"dtype": x.dtype, "device": x.device} | options
    if not _is_held(x) or Device(options["device"] or CPU) != x.device:
        return make(list(x.shape), **options)
    dtype = as_dtype(options["dtype"] or FLOAT32)
    if dtype.kind not in "fVc":
        return make(list(x.shape), **options)  # refuses it
    generator, part = options.get("generator"), dtype
    if dtype.kind == "c":
        part = np.dtype(f"f{dtype.itemsize // 2}")
    outline = zeros_like(x, dtype=part)
    made = fill(outline, generator=generator)
    if dtype.kind == "c":
        made = (made + fill(outline, generator=generator) * 1j) * scale
    return made.requires_grad_() if options.get("requires_grad") else made


def _is_held(x: Any) -> bool:
    """Tell whether another library's array is at the bottom of a tensor."""
    while isinstance(x, Tensor) and x.keys & WRAPPED:
        x = x.payload.value
    return isinstance(x, Tensor) and bool(x.keys & OTHER)


def normal(mean: float, std: float, size: Any, **options: Any) -> Any:
    """Make random numbers of a normal distribution."""
    return randn(list(size), **options) * std + mean


# -- from tensors -------------------------------------------------------------


def _bernoulli(x: Array, generator: Any) -> Array:
    if x.size and not ((x >= 0) & (x <= 1)).all():
        raise ArgumentError(
            "a probability lies from 0 to 1", op="core::bernoulli", argument="x (position 0)",
            seen=f"{x.min()} to {x.max()}",
        )  # fmt: skip
    return (draw(generator, "random", x.shape) < x).astype(x.dtype)


bernoulli = define(
    "bernoulli(Tensor x, *, Generator? generator=None) -> Tensor",
    _bernoulli,
    fake=lambda x, _: x.space.meta(x.shape, x.dtype, None, x.device),
    grad={},
    tags=SEEDED,
)


def _define_writing(name: str, signature: str, kernel: Fn) -> tuple[Fn, Fn]:
    """Define an operator that gives a filled tensor, and one that fills it; both end history."""
    signature = f"{signature}, *, Generator? generator=None"

    def filled(x: Array, *args: Any) -> Array:
        made = np.empty(x.shape, x.dtype)
        fill(made, *args)
        return made

    def fill(x: Array, *args: Any) -> None:
        *statics, generator = args
        try:
            np.copyto(x, kernel(generator, x.shape, *statics), casting="same_kind")
        except (TypeError, ValueError) as error:
            refuse_write(f"{name}_", x, tuple(statics), error)

    functional = define(
        f"{name}(Tensor x{signature}) -> Tensor",
        filled,
        fake=lambda x, *_: x.space.meta(x.shape, x.dtype, None, x.device),
        grad={},
        tags=SEEDED,
    )
    writing = define(
        f"{name}_(Tensor(a!) x{signature}) -> Tensor(a!)",
        fill,
        fake=lambda x, *_: x,
        tags=(*SEEDED, Tag.inplace),
    )
    INPLACE_TWINS[operator_of(writing).name()] = operator_of(functional)
    return functional, writing


_uniform, uniform_ = _define_writing(
    "uniform",
    ", float low=0.0, float high=1.0",
    lambda g, shape, low, high: draw(g, "uniform", low, high, shape),
)
_normal, normal_ = _define_writing(
    "normal",
    ", float mean=0.0, float std=1.0",
    lambda g, shape, mean, std: draw(g, "normal", mean, std, shape),
)
