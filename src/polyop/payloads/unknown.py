"""Sizes that depend on data which nobody has computed."""

from __future__ import annotations

import math
from typing import Any, NoReturn

from polyop.errors import GuardOnDataDependentError
from polyop.schema.base_values import register_unknown


class UnknownSize:
    """A size that Dask has not computed: it goes along in shapes, and answers no question.

    It is taken for more than one, as Dask takes it, and is equal to itself alone.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "nan"

    def __float__(self) -> float:
        return math.nan

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return False if other.__class__ is int and 0 <= other <= 1 else self._ask()

    def _ask(self, *_: Any) -> NoReturn:
        """Refuse to answer.

        Raises:
            GuardOnDataDependentError: always.
        """
        raise GuardOnDataDependentError(
            "the answer depends on a size that Dask has not computed",
            seen="nan",
            fix="call x.compute_chunk_sizes() on the array first",
        )

    def _made(self, *_: Any) -> UnknownSize:
        """Give another size that nobody knows."""
        return UnknownSize()

    __index__ = __int__ = __bool__ = __round__ = _ask
    __lt__ = __le__ = __gt__ = __ge__ = _ask
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _ask
    __pow__ = __rpow__ = _ask
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = _made


register_unknown(UnknownSize)
