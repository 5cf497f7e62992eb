"""Wrappers in program files: the name of the class, its context as data, what is inside (S214).

A file names classes; none is imported for it. A class is found if there is
one: every subclass of `Tensor` is known from its definition on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from polyop import tree
from polyop.errors import ProgramFileError
from polyop.export.classes import class_path, import_first
from polyop.export.wrappers import IN_ORDER, Form, Given, Wrapped, givens_of
from polyop.tensor.tensor import Tensor

_METHODS = ("__dispatch__", "__tensor_flatten__", "__tensor_unflatten__")


def wrapper_form(value: Wrapped | Given, inner: Callable[[Any], Any]) -> dict[str, Any]:
    """Give a wrapper, or the argument that a result is, as data.

    Args:
        value: the wrapper as a container.
        inner: encodes what is in it.

    Raises:
        ProgramFileError: its context is not data.
    """
    if isinstance(value, Given):
        return {"argument": value.number}
    form = value.form
    if any(isinstance(x, Tensor) for x in tree.leaves(form.context)):
        raise ProgramFileError(
            f"the context of a {form.cls.__qualname__} holds a tensor, which a file cannot compare",
            seen=repr(form),
            fix="name its tensors in __tensor_flatten__",
        )
    return {
        "wrapper": class_path(form.cls),
        "context": inner(form.context),
        "shape": _plain(form.shape),
        "strides": _plain(form.strides),
        "inside": {name: inner(x) for name, x in zip(form.names, value.parts, strict=True)},
    }


def _plain(sizes: Any) -> Any:
    return list(sizes) if isinstance(sizes, tuple) else sizes


def wrapper_of(data: dict[str, Any], value: Callable[[Any], Any]) -> Wrapped | Given:
    """Make a wrapper as a container of its form in a file.

    Args:
        data: the form.
        value: decodes what is in it.

    Raises:
        ProgramFileError: there is no such class, or the form is damaged.
    """
    if "argument" in data:
        number = data["argument"]
        if not _is_size(number):
            raise _damaged(number)
        return Given(number)
    cls = wrapper_class(data["wrapper"])
    inside = data.get("inside")
    if not isinstance(inside, dict) or not inside:
        raise _damaged(inside)
    count = len(inside)
    shape, strides = _sizes(data.get("shape"), count), _sizes(data.get("strides"), count)
    if isinstance(shape, str):
        raise _damaged(shape)
    form = Form(cls, value(data.get("context")), shape, strides, tuple(inside))
    return Wrapped(form, tuple(value(x) for x in inside.values()))


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _sizes(value: Any, count: int) -> Any:
    """Check sizes, or the number of the part that they are of."""
    if isinstance(value, list) and all(map(_is_size, value)):
        return tuple(value)
    known = value == IN_ORDER or (_is_size(value) and value < count)
    if not known:
        raise _damaged(value)
    return value


def _damaged(seen: Any) -> ProgramFileError:
    return ProgramFileError("the file has a wrapper without sizes or parts", seen=f"{seen!r:.80}")


def check_given(in_spec: Any, out_spec: Any) -> None:
    """Check that the results which are arguments name wrappers that there are.

    Raises:
        ProgramFileError: one does not.
    """
    wrappers, _ = givens_of(in_spec)
    for given in givens_of(out_spec)[1]:
        if given.number >= wrappers:
            raise _damaged(given)


def wrapper_class(path: Any) -> Any:
    """Give a traceable class of tensors that is defined already.

    Raises:
        ProgramFileError: there is none of that name.
    """
    found = [cls for cls in _subclasses(Tensor) if class_path(cls) == path]
    if found and all(hasattr(found[-1], name) for name in _METHODS):
        return found[-1]
    module, _, name = str(path).partition(":")
    raise ProgramFileError(
        f"the program takes or gives wrappers of the class {name}, which is not there",
        declared=path,
        seen="a class that cannot be taken apart" if found else "",
        fix=import_first(module),
    )


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    sub: type[Any]
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)
