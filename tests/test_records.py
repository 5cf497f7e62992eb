"""Named tuples made by `polyop.records` are those of `typing`, only made faster."""

from __future__ import annotations

import pickle
import typing

import pytest

from polyop.records import NamedTuple


class Ours(NamedTuple):
    """A place."""

    file: str
    line: int = 1
    tags: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return self.where


class Theirs(typing.NamedTuple):
    """A place."""

    file: str
    line: int = 1
    tags: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return self.where


def test_they_are_tuples_with_names() -> None:
    """Fields, defaults, methods, texts and errors are as `typing` has them."""
    for made, same in ((Ours("a"), Theirs("a")), (Ours("b", tags=("x",)), Theirs("b", 1, ("x",)))):
        assert tuple(made) == tuple(same)
        assert (str(made), made.where) == (str(same), same.where)
        assert made._replace(line=7)[1] == 7
        assert made._asdict() == same._asdict()
    assert repr(Ours("a")) == repr(Theirs("a")).replace("Theirs", "Ours")
    names = ("_fields", "_field_defaults", "__doc__", "__module__", "__match_args__", "__slots__")
    for name in names:
        assert getattr(Ours, name) == getattr(Theirs, name), name
    assert Ours.__qualname__ == "Ours"
    assert typing.get_type_hints(Ours) == typing.get_type_hints(Theirs)
    with pytest.raises(TypeError, match="file"):
        Ours()  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Ours("a").line = 2  # type: ignore[misc]


def test_they_travel() -> None:
    """A pickle gives an equal one of the same class."""
    again = pickle.loads(pickle.dumps(Ours("a", 3)))
    assert type(again) is Ours
    assert again == Ours("a", 3)
