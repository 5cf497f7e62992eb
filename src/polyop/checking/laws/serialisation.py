"""The law of names: an operator is found again by what is written in a file."""

from __future__ import annotations

import pickle

from polyop.checking.law import Case, law
from polyop.dispatch.registry import find_operator, split_name
from polyop.errors import OpCheckError
from polyop.schema.parse import parse_schema


@law("test_serialisation", "An operator is found again by its name, and its schema by its text.")
def serialisation_law(case: Case) -> None:
    """Write operator and schema, and read them back."""
    op = case.op
    if pickle.loads(pickle.dumps(op)) is not op:  # noqa: S301 - our own bytes
        _lost(case, "its pickle is another operator")
    if find_operator(*split_name(op.name())) is not op:
        _lost(case, "its name finds another operator")
    text = str(op._schema)
    if str(parse_schema(text)) != text:
        _lost(case, f"its schema reads back as {parse_schema(text)}")


def _lost(case: Case, seen: str) -> None:
    raise OpCheckError(
        f"{case.name} is not found again",
        op=case.op._schema,
        declared="one operator for one name",
        seen=seen,
        source=case.op.source,
        fix="define the operator once, and keep no handle of a former definition",
    )
