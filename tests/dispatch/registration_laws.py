"""What polyop and PyTorch come to in one random program of registrations, law by law.

Where the specification differs from PyTorch on purpose, the difference is named here, and nothing
else may differ. `print_report` is for a process of its own: to register a fallback asks every
operator that there is, and among those of all tests a program takes many times as long.
"""

from __future__ import annotations

import json
import random
import traceback
from collections.abc import Callable
from typing import Any

from tests.dispatch.registration_programs import PLACES_OF_BOTH, draw, torch_key
from tests.dispatch.registration_runs import ALL, Line, Polyop, PyTorch, Run

from polyop.dispatch.keys import DispatchKey, alias_members
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.registry import DEFINITIONS
from polyop.errors import PolyopError

#: S101: where one has a fallback of its own and the other has none.
OTHER_FALLBACKS = {
    "Meta", "AutocastXLA", "AutocastPrivateUse1",
    "AutogradPrivateUse2", "AutogradPrivateUse3", "AutogradNestedTensor",
}  # fmt: skip
#: The keys of backends whose autograd differs so; and of what follows PythonDispatcher PyTorch
#: says that it is PythonDispatcher.
OUT_OF_REACH = ("Meta", "PrivateUse2", "PrivateUse3", "PythonDispatcher")
#: S101: where PyTorch acts by itself, so that calls there say nothing of registrations.
ACTING = {
    "Python", "FuncTorchDynamicLayerBackMode", "FuncTorchDynamicLayerFrontMode", "Functionalize",
    "Conjugate", "Negative", "ZeroTensor", "FuncTorchBatched", "FuncTorchGradWrapper",
    "PythonTLSSnapshot", "PreDispatch", "PythonDispatcher", *OTHER_FALLBACKS,
}  # fmt: skip


class Stale(Exception):
    """Calls of a program cannot be compared."""


class Pair:
    """A program that ran in both systems."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.steps = draw(self.rng)
        self.ours = Run(Polyop(), f"differs_{seed}").run(self.steps)
        self.theirs = Run(PyTorch(), f"differs_{seed}").run(self.steps)

    def end(self) -> None:
        self.ours.end()
        self.theirs.end()

    def registered(self) -> set[str]:
        """The keys at which the operator has a kernel."""
        return {k.name for k in DEFINITIONS[self.ours.name].op.kernels()}

    def callable_keys(self) -> list[str]:
        """The keys at which calls can be compared."""
        if PyTorch().stale(self.theirs.name):
            raise Stale("S106: PyTorch calls by an older table than it shows, by its own check")
        table = self.theirs.table()
        registered = self.registered()
        return [
            k
            for k in PLACES_OF_BOTH
            if k in table
            and (table[k][2] or k not in ACTING)
            and not any(word in k for word in OUT_OF_REACH)
            and not nested_better(k, registered)
        ]


def some(rng: random.Random, keys: list[str], at_least: int = 0) -> list[str]:
    return rng.sample(keys, min(len(keys), rng.randint(at_least, 6)))


def nested_better(key: str, registered: set[str]) -> bool:
    """S86 [better]: PyTorch's dispatcher lets the nested alias act over a kernel beneath."""
    nested = "CompositeImplicitAutogradNestedTensor"
    if nested not in registered or DispatchKey[key] not in alias_members(nested):
        return False
    beneath = any(name.startswith("NestedTensor") for name in registered)
    return "CompositeExplicitAutograd" in registered or (key == "AutogradNestedTensor" and beneath)


def comparable(table: dict[str, Line], registered: set[str]) -> dict[str, Line]:
    """A table without the differences that the specification means."""
    none = ("missing", False, 0)
    return {
        key: none if key in OTHER_FALLBACKS and not line[2] else line
        for key, line in table.items()
        if not nested_better(key, registered)
    }


def different(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """What of two tables differs, by key."""
    return {k: (v, theirs.get(k)) for k, v in ours.items() if v != theirs.get(k)}


def tables(pair: Pair) -> None:
    """S85 to S88, S102, S105, S106: tables agree entry by entry, with reason and registration."""
    registered = pair.registered()
    ours = comparable(pair.ours.table(), registered)
    theirs = comparable(pair.theirs.table(), registered)
    assert ours == theirs, different(ours, theirs)


def refusals(pair: Pair) -> None:
    """S31, S33, S35, S36, S38, S40, S41: the same steps are refused, with an error of that type."""
    ours, theirs = pair.ours.errors, pair.theirs.errors
    assert set(ours) == set(theirs), (ours, theirs)
    for i, error in ours.items():
        assert isinstance(error, PolyopError)
        # S40: a fallback without a key is a UsageError; PyTorch asserts.
        if pair.steps[i].more != ("fallback without key",):
            assert isinstance(error, type(theirs[i])), (pair.steps[i], error, theirs[i])


def keys_resolved(pair: Pair) -> None:
    """S88: `resolve_key` gives the same key, or the same kind of error."""
    registered, table = pair.registered(), pair.theirs.table()
    keys = [
        k.name
        for k in ALL
        if (k.name not in OTHER_FALLBACKS or table[k.name][2])
        and not nested_better(k.name, registered)
        and torch_key(k.name) is not None
    ]
    ours = {k: pair.ours.resolved(k) for k in keys}
    theirs = {k: pair.theirs.resolved(k) for k in keys}
    assert ours == theirs, different(ours, theirs)


def calls_under_guards(pair: Pair) -> None:
    """S92, S93, S96, S102, S103: under any key sets, the same kernels act in the same order."""
    keys = pair.callable_keys()
    for how in ("include", "exclude", "force", "force", "force"):
        include = some(pair.rng, keys)
        exclude = some(pair.rng, keys)
        ours = pair.ours.call(include, exclude, how)
        theirs = pair.theirs.call(include, exclude, how)
        assert ours == theirs, (how, include, exclude, ours, theirs)


def calls_on_given_keys(pair: Pair) -> None:
    """S103: `redispatch` goes by the given keys alone, through the same kernels."""
    keys = pair.callable_keys()
    system = Polyop()
    for _ in range(5):
        chosen = DispatchKeySet(some(pair.rng, keys, 1))
        # S103: PyTorch takes the mask off in calls, and asserts in `redispatch`.
        masked = chosen & system.mask(pair.ours.name)
        names = [k.name for k in masked if torch_key(k.name) is not None]
        if DispatchKeySet(names) == masked:
            ours, theirs = pair.ours.redispatch(names), pair.theirs.redispatch(names)
            assert ours == theirs, (names, ours, theirs)


LAWS = (tables, refusals, keys_resolved, calls_under_guards, calls_on_given_keys)


def print_report(first: int, last: int) -> None:
    """Print what each law says of the programs of some seeds: "" where it holds, and its name."""
    report: dict[str, dict[int, str]] = {law.__name__: {} for law in LAWS}
    for seed in range(first, last):
        pair = Pair(seed)
        for law in LAWS:
            report[law.__name__][seed] = _said(law, pair)
        pair.end()
    print(json.dumps(report))


def _said(law: Callable[[Pair], None], pair: Pair) -> str:
    try:
        law(pair)
    except Stale:
        return "stale"
    except Exception:  # noqa: BLE001 - whatever it is, it is told
        return "\n".join([*map(str, enumerate(pair.steps)), traceback.format_exc()])
    return ""
