"""What callables are made of, and classes: where a walk goes on from one."""

from __future__ import annotations

import datetime
import decimal
import io
import os
import random
import sys
from enum import Enum
from functools import cached_property, lru_cache, partial, partialmethod
from types import (
    BuiltinMethodType,
    FunctionType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any
from weakref import ProxyTypes, ref

import numpy as np

from polyop.dispatch.parts import PARTS
from polyop.objects.names import is_users
from polyop.objects.strays import GUARDED
from polyop.schema.opaque import reference_classes
from polyop.tensor.tensor import Tensor

_VIEWS: Any = (type({}.keys()), type({}.values()), type({}.items()))
#: The class of functions that `lru_cache` makes.
CACHE = type(lru_cache(len))


def is_code(value: Any) -> bool:
    """Tell whether a member of a class is code of it."""
    return isinstance(value, (FunctionType, staticmethod, classmethod, property))


def parts_of(value: Any) -> tuple[Any, ...]:
    """Give what a callable or descriptor is made of."""
    if isinstance(value, MethodType):
        return value.__self__, value.__func__
    if isinstance(value, (partial, partialmethod)):
        return value.func, value.args, value.keywords, value.__dict__
    if isinstance(value, (staticmethod, classmethod)):
        return (value.__func__,)
    if isinstance(value, property):
        return value.fget, value.fset, value.fdel
    if isinstance(value, cached_property):
        return (value.func,)
    if isinstance(value, CACHE):
        return (value.__wrapped__,)
    if f"{home_of(type(value))}.".startswith("polyop."):  # a compiled function around another
        fn = getattr(value, "__dict__", {}).get("fn")
        return () if fn is None else (fn,)
    if isinstance(value, _VIEWS):
        return (value.mapping,)
    bound = getattr(value, "__self__", None) if type(value) in _BOUND else None
    return () if bound is None or isinstance(bound, ModuleType) else (bound,)


_BOUND = (BuiltinMethodType, MethodWrapperType)
#: What arrays have one of.
_ARRAY = ("__array_namespace__", "__dlpack__")
#: Modules of clocks and of draws.
_TELLING = frozenset({"time", "secrets", "uuid"})
#: What classes of dates have for a clock.
NOW = frozenset({"now", "today", "utcnow"})
#: The flag of classes that are made at run time.
_HEAP = 1 << 9


#: What changes with each use, and does not show it; a reference of a class of its own gives what
#: it likes.
SILENT = (random.Random, np.random.Generator, np.random.RandomState, io.IOBase, *ProxyTypes, ref)


def home_of(cls: type) -> str:
    """Give the module of a class."""
    found: object = cls.__module__
    return found if isinstance(found, str) else ""


def is_users_class(cls: type, root: str) -> bool:
    """Tell whether a class is the user's own."""
    home = home_of(cls)
    if home == "builtins":  # so says a class, too, of code that was run without a name
        return bool(cls.__flags__ & _HEAP)
    return home != "" and is_users(home, root)


def data_of(cls: type) -> list[str]:
    """List the names of a class that hold data."""
    if f"{home_of(cls)}.".startswith(("polyop.", "builtins.", "numpy.")):
        return []
    others = others_of(cls)
    return [
        name
        for name, value in list(vars(cls).items())
        if name[:2] != "__"
        and name not in others
        and not hasattr(type(value), "__get__")
        and not (name[0] == "_" and issubclass(cls, Enum))
    ]


def others_of(cls: type) -> frozenset[str]:
    """List the names of a class that others write: what polyop's bases have, and captures."""
    if f"{home_of(cls)}.".startswith(("polyop.", "builtins.", "numpy.")):
        return frozenset()
    ours = [vars(base) for base in cls.__mro__ if home_of(base).startswith("polyop.")]
    return frozenset(GUARDED if cls in reference_classes() else ()).union(*ours)


def is_foreign(value: Any, root: str = "") -> bool:
    """Tell whether a value is an array that is no tensor; for a class, nobody holds its data."""
    cls = type(value)
    if isinstance(value, (type, Tensor)):
        return False
    if is_users_class(cls, root) and not any(hasattr(cls, name) for name in _ARRAY):
        return False  # it may have a `__getattr__` for all names
    return PARTS.is_array(value)


def is_told_anew(value: Any) -> bool:
    """Tell whether a library's function says something else each time that it is asked."""
    if isinstance(value, type):
        return value is datetime.date or value is datetime.datetime
    if not isinstance(value, (FunctionType, BuiltinMethodType)):
        return False
    return value.__module__ in _TELLING or value is os.urandom


def is_silent(value: Any, root: str) -> bool:
    """Tell whether an object changes with each use, and does not show it."""
    cls = type(value)
    if isinstance(value, SILENT):
        return True
    if hasattr(cls, "__next__"):
        return not is_users_class(cls, root)
    frozen = home_of(cls).startswith("jax")
    return not frozen and is_foreign(value, root)


def is_decimal(value: Any) -> bool:
    """Tell whether a value is a decimal number, or makes some."""
    if isinstance(value, (type, FunctionType, BuiltinMethodType)):
        return value.__module__ == "decimal"
    return value is decimal or isinstance(value, decimal.Decimal)


def is_log(value: Any) -> bool:
    """Tell whether an object takes records of a log; what it does with them is its own affair."""
    logging = sys.modules.get("logging")
    return logging is not None and isinstance(value, logging.Filterer)
