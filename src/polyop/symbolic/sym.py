"""The numbers that a program meets in place of sizes: SymInt, SymFloat, SymBool.

They answer Python's operators. A result that is known is a plain Python
number; a question that nothing known answers is a SymBool, and only a branch
on it costs a guard. There is no `__index__`: a size that silently became an
int would fix itself in the capture.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from polyop.symbolic.condition import Condition
    from polyop.symbolic.expr import Expr
    from polyop.symbolic.floats import FloatExpr

Pairs = dict[tuple[Any, ...], Any]

#: A memo is dropped when it has this many entries.
MEMO_LIMIT = 1 << 16


class Numbers(Protocol):
    """What this file needs of `ShapeEnv`, which makes these numbers."""

    def operate(self, op: str, x: Any, y: Any) -> Any:
        """Give `x op y`."""

    def operate_new(self, op: str, x: Any, y: Any) -> Any:
        """Give `x op y`, where no memo has it."""

    def compare(self, op: str, x: Any, y: Any) -> Any:
        """Give `x op y`, as a bool where it is known."""

    def connect(self, op: str, x: SymBool, y: Any) -> Any:
        """Give "and", "or" or "not" of conditions, as a bool where it is known."""

    def fix(self, expr: Expr | FloatExpr) -> Any:
        """Give the value, and guard that it is this one."""

    def decide(self, condition: Condition) -> bool | None:
        """Answer a condition without a guard, or give None."""

    def hint_of_condition(self, condition: Condition) -> bool | None:
        """Give the answer in the captured call, without a guard."""

    def is_unbacked(self, part: Any) -> bool:
        """Tell whether an expression or condition depends on data."""

    def assume(self, condition: Condition, message: str = "") -> None:
        """Take a condition on unbacked sizes for granted, and assert it at run time."""

    def guard(self, condition: Condition) -> bool:
        """Answer a condition for good, and record that it was relied on."""

    def wrap(self, expr: Any) -> Any:
        """Give the number of an expression."""


class Memo:
    """The results of operations, by operands; ints apart, since `hash(4)` may be a SymInt's."""

    __slots__ = (
        "equals",
        "int_equals",
        "int_others",
        "int_products",
        "int_sums",
        "others",
        "products",
        "sums",
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, {})

    sums: Pairs
    products: Pairs
    equals: Pairs
    int_sums: Pairs
    int_products: Pairs
    int_equals: Pairs
    others: Pairs
    int_others: Pairs

    def keep(self, op: str, x: Any, y: Any, result: Any) -> None:
        """Remember a result, if the classes of its operands have a table."""
        name = MEMOS.get((op, type(y)))
        if name:
            store(getattr(self, name), (x, y), result)
        elif type(y) is int:
            store(self.int_others, (op, x, y), result)
        elif type(y) is SymInt:
            store(self.others, (op, x, y), result)

    def clear(self) -> None:
        """Forget everything, after a symbol has been replaced."""
        for name in self.__slots__:
            getattr(self, name).clear()


def store(table: Pairs, key: tuple[Any, ...], result: Any) -> None:
    """Keep a result in a table, which starts again when it is full."""
    if len(table) >= MEMO_LIMIT:
        table.clear()
    table[key] = result


class Number:
    """The operators that symbolic integers and floats share."""

    __slots__ = ("__weakref__", "env")
    __array_ufunc__ = None  # NumPy leaves it to us, rather than make an object array
    env: Numbers
    expr: Any

    @property
    def hint(self) -> Any:
        """The value in the captured call, or None where it depends on data."""
        return self.expr.hint

    @property
    def is_backed(self) -> bool:
        """Whether there is a value to branch on."""
        return self.expr.hint is not None

    def __ne__(self, other: object) -> Any:
        return self.env.compare("ne", self, other)

    def __lt__(self, other: Any) -> Any:
        return self.env.compare("lt", self, other)

    def __le__(self, other: Any) -> Any:
        return self.env.compare("le", self, other)

    def __gt__(self, other: Any) -> Any:
        return self.env.compare("gt", self, other)

    def __ge__(self, other: Any) -> Any:
        return self.env.compare("ge", self, other)

    def __radd__(self, other: Any) -> Any:
        return self.env.operate("add", other, self)

    def __rmul__(self, other: Any) -> Any:
        return self.env.operate("mul", other, self)

    def __sub__(self, other: Any) -> Any:
        return self.env.operate("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self.env.operate("sub", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self.env.operate("truediv", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self.env.operate("truediv", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return self.env.operate("floordiv", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self.env.operate("floordiv", other, self)

    def __mod__(self, other: Any) -> Any:
        return self.env.operate("mod", self, other)

    def __rmod__(self, other: Any) -> Any:
        return self.env.operate("mod", other, self)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __pow__(self, other: Any) -> Any:
        return self.env.operate("pow", self, other)

    def __rpow__(self, other: Any) -> Any:
        return self.env.operate("pow", other, self)

    def __neg__(self) -> Any:
        return self.env.operate("mul", self, -1)

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Any:
        return self.env.operate("max", self, -self)

    def __float__(self) -> float:
        return float(self.env.fix(self.expr))

    def __bool__(self) -> bool:
        return bool(self.env.compare("ne", self, 0))

    def __str__(self) -> str:
        return str(self.expr)

    __repr__ = __str__

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # a copy of a program speaks of the same sizes


class SymInt(Number):
    """An integer that is known by name; made by a `ShapeEnv`.

    Equal expressions are one object, and the hash is that object's. It is no
    key for a dict of sizes: `s in [4, t]` asks, and so guards.
    """

    __slots__ = ("expr", "memo")
    expr: Expr
    memo: Memo

    __hash__ = object.__hash__

    def __add__(self, other: Any) -> Any:
        known = None
        # The class first: 2 == 2.0 == True, so the lookup alone would mix them.
        if type(other) is SymInt:
            known = self.memo.sums.get((self, other))
        elif type(other) is int:
            known = self.memo.int_sums.get((self, other))
        return self.env.operate_new("add", self, other) if known is None else known

    def __mul__(self, other: Any) -> Any:
        known = None
        if type(other) is SymInt:
            known = self.memo.products.get((self, other))
        elif type(other) is int:
            known = self.memo.int_products.get((self, other))
        return self.env.operate_new("mul", self, other) if known is None else known

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        known = None
        if type(other) is SymInt:
            known = self.memo.equals.get((self, other))
        elif type(other) is int:
            known = self.memo.int_equals.get((self, other))
        return self.env.compare("eq", self, other) if known is None else known

    def __int__(self) -> int:
        return int(self.env.fix(self.expr))

    def __trunc__(self) -> SymInt:
        return self

    __floor__ = __ceil__ = __trunc__

    def __round__(self, digits: int | None = None) -> Any:
        return self if digits is None or digits >= 0 else round(int(self), digits)


#: Where the results of an operation are kept, by the class of the second operand. Only these
#: two classes: True and 2.0 are equal to ints, and must not answer for them.
MEMOS = {
    ("add", SymInt): "sums",
    ("mul", SymInt): "products",
    ("eq", SymInt): "equals",
    ("add", int): "int_sums",
    ("mul", int): "int_products",
    ("eq", int): "int_equals",
}


class SymFloat(Number):
    """A float that was computed from symbolic integers; equal expressions are one object."""

    __slots__ = ("expr",)
    expr: FloatExpr

    __hash__ = object.__hash__

    def __add__(self, other: Any) -> Any:
        return self.env.operate("add", self, other)

    def __mul__(self, other: Any) -> Any:
        return self.env.operate("mul", self, other)

    def __eq__(self, other: object) -> Any:
        return self.env.compare("eq", self, other)

    def __int__(self) -> int:
        return int(float(self))

    def __floor__(self) -> Any:
        ratio = self._ratio()
        return ratio[0] // ratio[1] if ratio else math.floor(float(self))

    def __ceil__(self) -> Any:
        ratio = self._ratio()
        return -(-ratio[0] // ratio[1]) if ratio else math.ceil(float(self))

    def __trunc__(self) -> int:
        return int(float(self))

    def __round__(self, digits: int | None = None) -> Any:
        return round(float(self), digits)

    def _ratio(self) -> tuple[Any, Any] | None:
        """Give the integers it is the quotient of: rounding one up or down stays symbolic."""
        found = self.expr.ratio()
        return None if found is None else (self.env.wrap(found[0]), self.env.wrap(found[1]))


class SymBool:
    """A condition on sizes that nothing known answers; a branch on it guards."""

    __slots__ = ("__weakref__", "answer", "condition", "env")
    env: Numbers
    condition: Condition
    answer: bool | None

    __hash__ = object.__hash__

    @property
    def hint(self) -> bool | None:
        """The answer in the captured call, or None where it depends on data."""
        return self.env.hint_of_condition(self.condition)

    def __bool__(self) -> bool:
        if self.answer is None:
            self.answer = self.env.guard(self.condition)
        return self.answer

    def __and__(self, other: Any) -> Any:
        return self.env.connect("and", self, other)

    def __or__(self, other: Any) -> Any:
        return self.env.connect("or", self, other)

    def __invert__(self) -> Any:
        return self.env.connect("not", self, None)

    __rand__ = __and__
    __ror__ = __or__

    def __xor__(self, other: Any) -> bool:
        return bool(self) != bool(other)

    __rxor__ = __xor__

    def __eq__(self, other: object) -> Any:
        if isinstance(other, bool):
            return self if other else ~self
        return self is other or (isinstance(other, SymBool) and bool(self) == bool(other))

    def __int__(self) -> int:
        return int(bool(self))

    def __add__(self, other: Any) -> Any:
        return int(self) + other

    def __sub__(self, other: Any) -> Any:
        return int(self) - other

    def __rsub__(self, other: Any) -> Any:
        return other - int(self)

    def __mul__(self, other: Any) -> Any:
        return int(self) * other

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        return str(self.condition)

    __repr__ = __str__

    def __copy__(self) -> SymBool:
        return self

    def __deepcopy__(self, memo: Any) -> SymBool:
        return self
