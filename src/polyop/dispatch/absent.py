"""What a pickle gives for an operator that is not in this process.

A scheduler only passes operators on, and what raises while it reads a message, or a worker does,
ends the connection, and the client waits for ever. So a pickle whose operator is not there is read
all the same; who calls what it gives gets the error.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NoReturn

from polyop.errors import OperatorNotFoundError, PolyopError

Find = Callable[..., Any]


def found_or_absent(find: Find, look: Find, args: tuple[Any, ...], module: str = "") -> Any:
    """Give the operator that a pickle names, or an `AbsentOperator`.

    Args:
        find: what the pickle calls, with `args`, and `module` if there is one.
        look: finds the operator, or raises.
        args: which operator.
        module: that defines it, if it is known.
    """
    try:
        return look(*args)
    except PolyopError as error:
        return AbsentOperator(find, args, module, error)


class AbsentOperator:
    """An operator that is not here; a call looks again, in its module too, and then raises."""

    def __init__(self, find: Find, args: tuple[Any, ...], module: str, error: PolyopError) -> None:
        self._find = find
        self._args = args
        self._module = module
        self._error = error

    def __repr__(self) -> str:
        return f"<AbsentOperator({self._args[0]})>"

    def __reduce__(self) -> tuple[Any, ...]:
        return self._find, ((*self._args, self._module) if self._module else self._args)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the operator if it is here by now.

        Raises:
            OperatorNotFoundError: it is not, nor does its module bring it.
        """
        return self._looked_up()(*args, **kwargs)

    def _looked_up(self) -> Any:
        trouble = ""
        if self._module not in {"", "__main__"}:
            try:
                importlib.import_module(self._module)
            except Exception as error:  # a module may raise anything
                trouble = f"{type(error).__name__}: {error}"
        found = self._find(*self._args)
        return self._raise(trouble) if isinstance(found, AbsentOperator) else found

    def _raise(self, trouble: str = "") -> NoReturn:
        error = self._error
        raise OperatorNotFoundError(
            error.problem,
            op=self._args[0],
            declared=f"defined by the module {self._module}" if self._module else "",
            seen=trouble,
            source=error.source,
            fix="import the module that defines it in this process, a worker for example, first",
        ) from error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copies and pickles ask of every object
            raise AttributeError(name)
        self._raise()
