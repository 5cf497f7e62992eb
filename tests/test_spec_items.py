"""The specification is tested: each of its items is cited by a test."""

from __future__ import annotations

import pytest
from tests import spec_items


@pytest.mark.parametrize("n", [1, 47, 106])
def test_an_item_is_read_whole(n: int) -> None:
    """An item has its section's title, and its text up to the next item."""
    title, text = spec_items.items()[n]
    assert title[0].isdigit()
    assert text
    assert f"**S{n + 1}**" not in text


def test_a_range_cites_all_between() -> None:
    """A range of numbers in a test cites each of them."""
    found = spec_items.CITED.findall("S5 to S13, S21 and S30-S32")
    assert found == [("5", "13"), ("21", ""), ("30", "32")]
