"""Every operator of ours is compared, or it is said why it cannot be."""

from __future__ import annotations

import pytest
import tests.opinfo.needed  # noqa: F401 - first: without it there is nothing to import
from tests.opinfo.accounts import (
    ABSENT_FAMILIES,
    NO_OPERATORS,
    OTHER_NAMES,
    PARTS,
    UNPUBLISHED,
)
from tests.opinfo.all_pairs import PAIRS
from tests.opinfo.convert import op_db

import polyop
from polyop.tensor.tensor import Tensor

CORE = [n for n in dir(polyop.ops.core) if not n.startswith("_")]
PUBLIC = [
    n
    for n in dir(polyop)
    if not n.startswith("_")
    and callable(getattr(polyop, n))
    and not isinstance(getattr(polyop, n), type)
]
FAMILIES = [f"{f}.{n}" for f in ("linalg", "fft") for n in getattr(polyop, f).__all__]
COVERED = {c for p in PAIRS.values() for c in p.covers}
COVERED |= {p.writes for p in PAIRS.values() if p.writes}
#: Under all the names by which the same function is reached.
SAME = {id(getattr(polyop, n, None)) for n in COVERED if hasattr(polyop, n)}


def compared(name: str) -> bool:
    """Tell whether a name, or another name of the same operator, stands in a pair."""
    if name in COVERED or id(getattr(polyop, name, None)) in SAME:
        return True
    last = name.rpartition(".")[2]
    return any(n in COVERED for n in (last, f"linalg.{last}", f"fft.{last}"))


@pytest.mark.parametrize("name", sorted({*CORE, *PUBLIC, *FAMILIES}))
def test_every_operator_is_compared_or_accounted_for(name: str) -> None:
    """S206: each built-in operator and public function stands beside PyTorch's, or in a table."""
    accounts = {*PARTS, *UNPUBLISHED, *NO_OPERATORS}
    assert compared(name) or name in accounts, f"{name} is in no pair and in no account"


def test_the_accounts_are_of_names_that_exist() -> None:
    """S206: no table speaks of an operator that is not here, and none of one that is compared."""
    names = {*CORE, *PUBLIC, *FAMILIES}
    assert {*PARTS, *UNPUBLISHED, *NO_OPERATORS} <= names
    assert not [n for n in (*PARTS, *UNPUBLISHED, *NO_OPERATORS) if n in COVERED]
    methods = dir(Tensor)
    assert not [n for n in COVERED if n not in names and n not in methods]


def test_no_published_operator_of_our_names_is_left_out() -> None:
    """S206: a published operator whose name is here too is compared, or an account says why."""
    published = {
        f"{i.name}/{i.variant_test_name}" if i.variant_test_name else i.name
        for variants in op_db().values()
        for i in variants
    }
    ours = {*CORE, *PUBLIC, *FAMILIES, *dir(Tensor)}
    mapped = {n.partition("/")[0] for n in PAIRS}
    left = published - set(PAIRS) - set(OTHER_NAMES)
    same = [n for n in left if n.partition("/")[0] in ours | mapped]
    assert not same
    assert set(PAIRS) <= published
    assert not [n for n in PAIRS if n.startswith(ABSENT_FAMILIES[:2])]
