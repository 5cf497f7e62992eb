"""What the errors about tags advise can be written down as it is."""

from __future__ import annotations

import re
from typing import Any

import pytest

import polyop
from polyop.errors import InferenceError


@pytest.mark.parametrize(
    ("text", "tag", "kept"),
    [
        ("a(Tensor y) -> Tensor", "inplace", "(Tensor(a!) y) -> Tensor(a!)"),
        ("b(Tensor(a!) y) -> Tensor", "inplace", "(Tensor(a!) y) -> Tensor(a!)"),
        ("c(*, int n) -> Tensor", "inplace", "(Tensor(a!) x, *, int n) -> Tensor(a!)"),
        (
            "d(Tensor y, *, Tensor(a!) out) -> Tensor",
            "out",
            "(Tensor y, *, Tensor(a!) out) -> Tensor(a!)",
        ),
        (
            "e(Tensor y, *, Tensor out) -> Tensor",
            "out",
            "(Tensor y, *, Tensor(a!) out) -> Tensor(a!)",
        ),
        ("f(Tensor y) -> Tensor", "out", "(Tensor y, *, Tensor(a!) out) -> Tensor(a!)"),
        (
            "g(Tensor(b!) y, *, Tensor(c!) out) -> ()",
            "out",
            "(*, Tensor(a!) y, Tensor(a1!) out) -> (Tensor(a!), Tensor(a1!))",
        ),
    ],
)
def test_the_schema_that_a_tag_wants(text: str, tag: Any, kept: str) -> None:
    """S1, S25: of a hand-written schema, the advice is the one to write, and it is accepted."""
    with polyop.scoped_library("tag_advice", "FRAGMENT") as lib:
        with pytest.raises(InferenceError, match=rf"Tag\.{tag}") as caught:
            lib.define(text, tags=tag)
        assert "mutates_args" not in caught.value.fix
        found = re.search("write '(.*)', or drop the tag", caught.value.fix)
        assert found is not None
        lib.define(found[1], tags=tag)
        op = getattr(polyop.ops.tag_advice, text[0]).default
        assert str(op._schema) == f"tag_advice::{text[0]}{kept}"
        lib.define(text.replace("(", "_plain(", 1))


def test_a_function_hears_of_its_annotations() -> None:
    """S1, S25: of an inferred schema, the advice is a keyword of `custom_op`."""

    def fill(x: polyop.Tensor, *, out: polyop.Tensor) -> polyop.Tensor:
        out.copy_(x)
        return out

    with pytest.raises(InferenceError, match=r"after '\*', .*mutates_args"):
        polyop.custom_op("tag_advice::fill.out", fill, mutates_args=(), tags="out")
    op = polyop.custom_op("tag_advice::fill.out", fill, mutates_args=("out",), tags="out")
    out = polyop.zeros(2)
    assert op(polyop.ones(2), out=out) is out
