"""Random programs of registrations, which polyop and PyTorch both understand.

A program is a list of steps; `Library` is spoken to in the same way in both. Each kernel answers
with the number of its step, so that a call says which kernels acted.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import torch

from polyop.dispatch.keys import ALIAS_KEYS, RUNTIME_KEYS, DispatchKey


def torch_key(name: str) -> Any:
    """PyTorch's key of that name; some it can only parse, and some only list."""
    found = torch._C.DispatchKey.__members__.get(name)
    return torch._C._dispatch_key_parse(name) if found is None else found


def parsable(name: str) -> bool:
    try:
        torch._C._dispatch_key_parse(name)
    except RuntimeError:
        return False
    return True


#: Where PyTorch lets kernels be registered.
PLACES_OF_BOTH = [k.name for k in (*RUNTIME_KEYS, *ALIAS_KEYS) if parsable(k.name)]
#: Where PyTorch has no fallback of its own, and so takes one.
FREE = [
    k.name
    for k in RUNTIME_KEYS
    if parsable(k.name) and not torch._C._dispatch_has_backend_fallback(torch_key(k.name))
]


class Step(NamedTuple):
    """One line of a program; `lib` is the number of the library that it speaks to."""

    act: str
    lib: int = 0
    key: str = ""
    form: str = "plain"  # of a kernel: plain, through, keyset (goes on below its key)
    more: tuple[Any, ...] = ()


# -- drawing ------------------------------------------------------------------

COMPOSITE = "CompositeImplicitAutograd"
MANY = [*"CPU CUDA XLA Meta Autograd AutogradCPU AutogradOther NestedTensorCPU FPGA".split()]
MANY += [k.name for k in ALIAS_KEYS]
REFUSED = (
    "unknown key", "not callable", "no operator", "foreign name", "no define", "foreign schema",
    "bad schema", "bad alias analysis", "other key", "taken", "fallback elsewhere",
    "fallback without key", "unknown kind", "reserved", "second DEF", "gone impl", "gone define",
)  # fmt: skip


def draw(rng: random.Random) -> list[Step]:
    """Draw a program: some libraries, their registrations in any order, and some taken back."""
    libs = rng.randint(1, 4)
    steps = [Step("make", 0, more=("DEF", ""))]
    steps += [Step("make", i, more=(rng.choice(["IMPL", "FRAGMENT"]), "")) for i in range(1, libs)]
    steps += [Step("make", libs, more=("IMPL", rng.choice(PLACES_OF_BOTH)))]
    steps += [Step("everyone", libs + 1)]
    body = [Step("define")]
    body += [_kernel(rng, rng.randrange(libs)) for _ in range(rng.randint(0, 9))]
    keys = rng.sample(FREE, rng.choice([0, 0, 1, 2, 4]))  # PyTorch takes one of a key
    body += [_fallback(rng, libs + 1, key) for key in keys]
    body += [Step("refused", more=(rng.choice(REFUSED),)) for _ in range(2)]
    rng.shuffle(body)
    for lib in range(1, libs + 2):
        if rng.random() < 0.3:
            body.insert(rng.randint(0, len(body)), Step("destroy", lib))
    # PyTorch lets a Meta kernel stand beside one that decomposes and came later; S38 does not.
    last = max((i for i, s in enumerate(body) if s.key == COMPOSITE), default=0)
    body = [s for i, s in enumerate(body) if s.key != "Meta" or i > last]
    # A Meta kernel may come before the definition only in polyop: S39 [better].
    early = [step for step in body if step.act == "define" and any(s.key == "Meta" for s in body)]
    return steps + early + [step for step in body if step not in early]


def _kernel(rng: random.Random, lib: int) -> Step:
    key = rng.choice(MANY if rng.random() < 0.7 else PLACES_OF_BOTH)
    forms = [
        "plain",
        "plain",
        "plain",
        "through",
        "plain" if DispatchKey[key] in ALIAS_KEYS else "keyset",
    ]
    return Step("impl", lib, key, rng.choice(forms))


def _fallback(rng: random.Random, lib: int, key: str) -> Step:
    return Step("fallback", lib, key, rng.choice(["plain", "plain", "through"]))
