"""What functions and classes say of themselves, and how decimals are rounded, is guarded (S211)."""

from __future__ import annotations

import decimal
from decimal import Decimal
from typing import Any

import pytest

import polyop

X = polyop.tensor([1.0, 2.0])
THIRD = Decimal(3)


def helper(x: Any) -> Any:
    """2."""
    return x


@pytest.mark.parametrize("name", ["__name__", "__qualname__", "__doc__", "__module__"])
@pytest.mark.parametrize("kind", ["function", "class"])
def test_names_and_documents(kind: str, name: str) -> None:
    """S211: a function, or a class, that gets another name or text is another one."""
    owner: Any = (lambda x: x) if kind == "function" else type("Kind", (), {})
    asked: dict[str, Any] = {
        "__name__": lambda x: x * len(owner.__name__),
        "__qualname__": lambda x: x * len(owner.__qualname__),
        "__doc__": lambda x: x * len(owner.__doc__),
        "__module__": lambda x: x * len(owner.__module__),
    }
    fn = asked[name]
    compiled = polyop.compile(fn, fullgraph=True)
    for text in ("ab", "abcd", "ab"):
        setattr(owner, name, text)
        assert compiled(X).tolist() == compiled(X).tolist() == (X * len(text)).tolist()


def test_a_computed_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """S211: `getattr` reads it as well."""
    compiled = polyop.compile(lambda x: x * len(getattr(helper, "__doc__", "")), fullgraph=True)
    for text in ("ab", "abcd"):
        monkeypatch.setattr(helper, "__doc__", text)
        assert compiled(X).tolist() == (X * len(text)).tolist()


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x * float(1 / THIRD),
        lambda x: x * float(Decimal(1) / Decimal(3)),
        lambda x: x * float(decimal.getcontext().divide(1, 3)),
        lambda x, k=THIRD: x * float(1 / k),
    ],
)
def test_decimals(fn: Any) -> None:
    """S211: the precision, and the rounding, of the thread are read with them."""
    compiled = polyop.compile(fn, fullgraph=True)
    for precision, rounding in ((3, "ROUND_UP"), (5, "ROUND_UP"), (5, "ROUND_DOWN")):
        with decimal.localcontext() as context:
            context.prec, context.rounding = precision, rounding
            assert compiled(X).tolist() == compiled(X).tolist() == fn(X).tolist()


def test_a_function_that_sets_the_precision() -> None:
    """S211, S212: each call does; one graph there is none."""

    def fn(x: Any) -> Any:
        decimal.getcontext().prec += 1
        return x * float(1 / THIRD)

    with decimal.localcontext() as context:
        context.prec = 2
        found = [polyop.compile(fn)(X).tolist() for _ in range(3)]
        assert context.prec == 5
        context.prec = 2
        assert found == [fn(X).tolist() for _ in range(3)]
