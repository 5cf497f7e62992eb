"""Programs take dicts by key where the function never looks at the order of keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import polyop as p
from polyop.errors import CaptureError
from polyop.export import export, load, save
from polyop.func import grad

KEYS = "abc"
BY_KEY: dict[str, Callable[[Any], Any]] = {
    "keys": lambda d: d["a"] - d["b"] * d.get("c"),
    "number": lambda d: d["a"] * len(d) + ("b" in d),
    "grad": lambda d: grad(lambda q: (q["a"] * q["b"] + q["c"]).sum())(d)["b"],
    "vmap": lambda d: p.vmap(lambda q: q["a"] - q["b"])(d),
    "write": lambda d: d["a"].add_(d["b"]) * d["c"],
    "leaves": lambda d: p.tree.leaves(d)[0] * 2,
}


def rest_of(d: Any) -> Any:
    """Take apart by a pattern."""
    match d:
        case {"a": x, **rest}:
            return next(iter(rest.values())) * x


IN_ORDER: dict[str, Callable[[Any], Any]] = {
    "first": lambda d: next(iter(d.values())) * 1,
    "last": lambda d: d[next(reversed(d))] * 1,
    "sum": lambda d: sum(d.values()),
    "copy": lambda d: list(dict(d).values())[0] * 1,
    "unpacked": lambda d: list({**d}.values())[0] * 1,
    "called": lambda d: (lambda **k: list(k.values())[0] * 1)(**d),
    "joined": lambda d: list(({} | d).values())[0] * 1,
    "text": lambda d: d["a"] * str(d).index("'b'"),
    "itself": lambda d: d,
    "traced": lambda d: grad(lambda q: (list(q.values())[0] * q["b"]).sum())(d)["b"],
    "class": lambda d: (list(d.values())[0] if type(d) is dict else d["a"]) * 1,
    "pattern": rest_of,
}


def given(keys: str = KEYS) -> dict[str, Any]:
    """Give a dict with its keys in an order."""
    return {key: p.full((2,), float(ord(key))) for key in keys}


@pytest.mark.parametrize("name", BY_KEY)
def test_dicts_are_taken_by_key(name: str, tmp_path: Path) -> None:
    """S213: where nobody looks at the order, any order gives what the function gives; saved too."""
    f = BY_KEY[name]
    program = export(f, (given(),))
    save(program, tmp_path / "p")
    for module in (program.module(), load(tmp_path / "p").module()):
        for keys in ("abc", "cab", "bca"):
            assert module(given(keys)).tolist() == f(given(keys)).tolist()


@pytest.mark.parametrize("name", IN_ORDER)
def test_an_order_that_was_looked_at_is_asked(name: str) -> None:
    """S213: the program is that of one order, as the function is not the same for another."""
    program = export(IN_ORDER[name], (given(),))
    program.module()(given())
    with pytest.raises(CaptureError, match="another order"):
        program.module()(given("cab"))


def test_pytorch_takes_any_order() -> None:
    """S213 [better]: PyTorch's programs give for another order what the function does not."""

    class First(torch.nn.Module):
        def forward(self, d: Any) -> Any:
            return next(iter(d.values())) * d["a"]

    d, turned = ({key: torch.full((2,), float(ord(key))) for key in keys} for keys in ("ab", "ba"))
    module = torch.export.export(First(), (d,)).module()
    assert module(turned).tolist() == First()(d).tolist() != First()(turned).tolist()


def test_other_mappings_keep_their_order() -> None:
    """S213: of an ordered dict the order is a part of what it is."""
    program = export(BY_KEY["keys"], (OrderedDict(given()),))
    with pytest.raises(CaptureError):
        program.module()(OrderedDict(given("cab")))


def test_containers_and_keywords() -> None:
    """S213: dicts in lists, in dicts and as keyword arguments are taken by key too."""

    def f(rows: Any, *, more: Any) -> Any:
        return rows[0]["a"] - rows[0]["b"] * more["in"]["c"]

    module = export(f, ([given()],), {"more": {"in": given(), "x": p.ones(2)}}).module()
    more = {"x": p.ones(2), "in": given("cba")}
    found = module([given("bca")], more=more)
    assert found.tolist() == f([given("bca")], more=more).tolist()
