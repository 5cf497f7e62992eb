"""What several tests of autograd watch."""

from __future__ import annotations

from typing import Any

import pytest

from polyop.layers.autograd import plain_author


@pytest.fixture
def long_way(monkeypatch: Any) -> list[Any]:
    """The calls that were recorded at length, and the gradients that were looked at closely."""
    seen: list[Any] = []
    record, matched = plain_author.AuthorRecorder.record, plain_author.AuthorRecorder.matched

    def recorded(self: Any, *given: Any, **named: Any) -> None:
        seen.append(self.op.name())
        record(self, *given, **named)

    def looked(self: Any, *given: Any) -> Any:
        seen.append(self.op.name())
        return matched(self, *given)

    monkeypatch.setattr(plain_author.AuthorRecorder, "record", recorded)
    monkeypatch.setattr(plain_author.AuthorRecorder, "matched", looked)
    return seen
