"""The text that runs a kernel: bare arrays in, checked and wrapped results out.

The entry holds this text for the plain call (one NumPy backend, nothing
active), so that such a call is done in one frame; handlers hold it for the
calls on which some layer acted before.

A payload kernel takes bare arrays; it is ours, and its results need only be
wrapped. An author's kernel takes tensors; its results are looked at, because
nothing that it gives back may share storage undeclared (S47, S48).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from keyword import iskeyword

from polyop.dispatch.write import Shape, bumps_text, call_text, indent, odd_text, spelled_tuple
from polyop.records import NamedTuple
from polyop.schema.model import Argument, FunctionSchema
from polyop.schema.tags import Tag
from polyop.schema.types import leaf_kind

#: What a result is: ("new" | "list" | "value", -1), ("argument", i), ("view" | "views", i), or
#: ("either", -1), of one of several arguments: which one the memory says (`carriers`).
Form = tuple[str, int]


class Number(int):
    """The number of a result among several; a view keeps it, behind the other arguments."""


def result_forms(schema: FunctionSchema) -> tuple[Form, ...]:
    """Read what each result is: new, an argument itself, or a view of one."""
    return tuple(_form(schema, i) for i in range(len(schema.returns)))


def _form(schema: FunctionSchema, number: int) -> Form:
    result = schema.returns[number]
    text = str(result.type)
    if result.alias_info is None:
        return {"Tensor": "new", "Tensor[]": "list"}.get(text, "value"), -1
    found = carriers(schema, number)
    if len(found) != 1:
        return ("either" if found else "value"), -1
    if result.is_write:
        return "argument", found[0]
    return ("views" if text.endswith("[]") else "view"), found[0]


def carriers(schema: FunctionSchema, number: int) -> tuple[int, ...]:
    """Give the arguments whose memory a result may have: those that carry its set (S10)."""
    wanted = _sets(schema.returns[number])
    if "*" in wanted:
        return tuple(i for i, a in enumerate(schema.arguments) if leaf_kind(a.type) != "static")
    return tuple(i for i, a in enumerate(schema.arguments) if _sets(a) & (wanted | {"*"}))


def carried_by(schema: FunctionSchema, number: int, form: Form) -> tuple[int, ...]:
    """Give the same of a result whose form is known."""
    kind, position = form
    if kind == "either":
        return carriers(schema, number)
    return () if position < 0 else (position,)


def _sets(argument: Argument) -> frozenset[str]:
    """Give the alias sets of a value, before the call or after it."""
    info = argument.alias_info
    return frozenset() if info is None else info.before_set | info.after_set


def new_text(value: str, keys: int) -> list[str]:
    """Lines that wrap a bare array as `_t`."""
    return [f"_t = Tensor(); _t.payload = {value}; _t.keys = {keys}; _t.version = 0"]


def payload_body(shape: Shape, forms: Sequence[Form], tags: Sequence[Tag], keys: int) -> list[str]:
    """Lines that run a payload kernel and return wrapped results."""
    lines = bumps_text(shape)
    call = call_text(shape, payloads=True)
    if all(form == "argument" for form, _ in forms):
        given = ", ".join(f"a{i}" for _, i in forms)
        return [*lines, *_in_range(shape, call), f"return {given or None}"]
    lines += _in_range(shape, f"_r = {call}")
    if len(forms) == 1:
        return [*lines, *_wrap_text(shape, forms[0], tags, keys, "_r"), "return _t"]
    names = [f"_r{i}" for i in range(len(forms))]
    lines.append(f"{', '.join(names)} = _r")
    for name, form in zip(names, forms, strict=True):
        lines += [*_wrap_text(shape, form, tags, keys, name), f"{name} = _t"]
    return [*lines, f"return {', '.join(names)}"]


def _in_range(shape: Shape, call: str) -> list[str]:
    """Lines that call a kernel; a number that its tensor's dtype does not hold is told by name."""
    if not any(text.startswith("Scalar") for text in shape.types):
        return [call]
    return [f"try: {call}", f"except OverflowError: beyond(op, ({', '.join(shape.names)},)); raise"]


def _wrap_text(shape: Shape, form: Form, tags: Sequence[Tag], keys: int, r: str) -> list[str]:
    kind, i = form
    if kind == "argument":
        return [f"_t = a{i}"]
    if kind == "value":
        return [f"_t = {r}"]
    if kind == "list":
        return [f"_t = [wrap(_x, {keys}) for _x in {r}]"]
    statics = ", ".join(a for a in shape.names if a != f"a{i}")
    if kind == "views":
        return [f"_t = wrap_views(a{i}, {r}, {keys}, op, ({statics},))"]
    new = new_text(r, keys)
    if kind == "new":
        return [f"if {r}.__class__ is ndarray:", *indent(new), f"else: _t = wrap({r}, {keys})"]
    whole = [f"if {r}.__class__ is not ndarray: {r} = asarray({r})", *new]
    alias = [
        f"_t.version = share(a{i})",
        f"_t.view_of = (a{i}, op, ({statics}{',' if statics else ''}))",
    ]
    if Tag.maybe_aliasing_or_mutating not in tags:
        return [*whole, *alias]
    p = f"a{i}.payload"
    shares = f"{r} is {p} or {r}.base is {p} or ({r}.base is not None and {r}.base is {p}.base)"
    return [*whole, f"if {shares}:", *indent(alias)]


def tensor_body(shape: Shape, forms: Sequence[Form], *, guarded: bool) -> list[str]:
    """Lines that run an author's kernel and check its results.

    Args:
        shape: of the schema.
        forms: of the results.
        guarded: whether layers acted before, which the kernel must not meet.
    """
    call = f"_r = {call_text(shape, payloads=False)}"
    lines = [*bumps_text(shape), call]
    if guarded:
        lines[-1:] = [
            "_outer = word()",
            f"try: set_word(_outer.in_kernel); {call}",
            "finally: set_word(_outer)",
        ]
    arguments = spelled_tuple(shape.names)
    check = f"return results(op, _r, {arguments})"
    if not forms:
        return [*lines, f"if _r is not None: {check}", "return None"]
    return [*lines, *Looks(shape, check).common(forms)]


#: Types of results that one look may let pass.
_NUMBERS = {"int", "SymInt", "float", "bool"}
_TENSORS = {"Tensor", "Tensor?"}
_KNOWN = _NUMBERS | _TENSORS
_FIELD = r"(?:Tensor\??|int|SymInt|float|bool) [A-Za-z_]\w*"
#: A record of such values.
_RECORD = re.compile(rf"\{{{_FIELD}(?:, {_FIELD})*\}}", re.ASCII)


def _is_record(text: str) -> bool:
    return _RECORD.fullmatch(text) is not None and not any(map(iskeyword, re.split(r"\W+", text)))


class Looks(NamedTuple):
    """Lines that let results of the common kinds pass by a few looks, and check all others.

    Attributes:
        shape: of the schema.
        check: returns the results, checked.
    """

    shape: Shape
    check: str

    def common(self, forms: Sequence[Form]) -> list[str]:
        """Lines that return results of these forms."""
        if self.shape.results == ("Tensor[]",) and forms[0] == ("list", -1):
            return [*self._of_list(), "return [*_r]"]
        types = [
            "Tensor" if form == ("new", -1) else text if form == ("value", -1) else ""
            for form, text in zip(forms, self.shape.results, strict=True)
        ]
        types = [text if text in _KNOWN or _is_record(text) else "" for text in types]
        return [*self.of_types(types), "return _r"] if all(types) else [self.check]

    def of_types(self, types: Sequence[str]) -> list[str]:
        """Lines that look at a result, or at several, each a number or a tensor of its own memory.

        The result is `_r`, or a tuple that they take apart into `_r0`, `_r1`, ... They leave the
        array of a single result in `_p`, and that of a single argument in `_q`.
        """
        names = {f"_r{i}": text for i, text in enumerate(types)}
        if len(types) == 1:
            return self._of_all({"_r": types[0]})
        return [
            f"if _r.__class__ is not tuple or len(_r) != {len(names)}: {self.check}",
            f"{', '.join(names)} = _r",
            *self._of_all(names),
        ]

    def _of_all(self, types: Mapping[str, str]) -> list[str]:
        """Lines that look at each result, and at each field of those that are records."""
        lines: list[str] = []
        single: dict[str, str] = {}
        for i, (r, text) in enumerate(types.items()):
            if text[0] != "{":
                single[r] = text
                continue
            fields = [field.split() for field in text[1:-1].split(", ")]
            opened = [f"{r}_{n}" for n in range(len(fields))]
            reads = "; ".join(f"{x} = {r}.{f[1]}" for x, f in zip(opened, fields, strict=True))
            # The first look finds an attribute that is missing: it gives None for the first.
            missing = f"{opened[0]} = None" if fields[0][0] != "Tensor?" else f"{opened[0]} = 0"
            lines += [f"if {r}.__class__ is not record{i}: {self.check}"]
            lines += [f"try: {reads}", f"except AttributeError: {missing}"]
            single |= {x: f[0] for x, f in zip(opened, fields, strict=True)}
        return lines + self._of_each(single)

    def _of_each(self, types: Mapping[str, str]) -> list[str]:
        lines: list[str] = []
        owners: list[str] = []
        for r, text in types.items():
            if text not in _TENSORS:
                lines.append(f"if {odd_text(r, text)}: {self.check}")
                continue
            o = f"_o{len(owners)}"
            if text == "Tensor?":  # None has a number in place of an owner, one of its own
                lines += [f"if {r} is None: {o} = {len(owners)}", "else:"]
                lines += indent(self._owner(r, o))
            else:
                lines += self._owner(r, o)
            lines += [f"if {o} is {other}: {self.check}" for other in owners]
            owners.append(o)
        return (
            lines + self._apart(" or ".join(f"{{0}} is {o}" for o in owners)) if owners else lines
        )

    def _owner(self, r: str, owner: str) -> list[str]:
        """Lines that find the array whose memory a result has.

        It is its base, or itself where it has none; what has another base (a buffer, an array of
        another class) is checked.
        """
        return [
            f"if {r}.__class__ is not Tensor or {r}.keys != 1: {self.check}",
            f"_p = {r}.payload; {owner} = _p.base",
            f"if {owner} is None: {owner} = _p",
            f"elif {owner}.__class__ is not ndarray or {owner}.base is not None: {self.check}",
        ]

    def _of_list(self) -> list[str]:
        return [
            f"if _r.__class__ is not list: {self.check}",
            "_ids = set()",
            "for _x in _r:",
            *indent(self._owner("_x", "_o")),
            "    _ids.add(id(_o))",
            f"if len(_ids) != len(_r): {self.check}",
            *self._apart("id({0}) in _ids"),
        ]

    def _apart(self, same: str) -> list[str]:
        """Lines that hold arguments' memory to that of results; `same` tests an array for it."""
        shape, check = self.shape, self.check
        shares = (
            f"{same.format('_q')} or (_b := _q.base) is not None "
            f"and ({same.format('_b')} or _b.__class__ is not ndarray or _b.base is not None)"
        )
        lines = []
        for a in shape.of("tensor"):
            lines += [f"_q = {a}.payload", f"if {shares}: {check}"]
        for a in shape.of("tensor?"):
            lines += [f"if {a} is not None:", f"    _q = {a}.payload", f"    if {shares}: {check}"]
        for a in shape.of("tensor[]", "tensor?[]"):
            lines += [f"for _x in {a}:", "    if _x is not None:"]
            lines += ["        _q = _x.payload", f"        if {shares}: {check}"]
        for a in shape.of("tree"):
            tensors = f"_t{a[1:]}"
            lines += [f"if {tensors} is None: {check}", f"for _x in {tensors}:"]
            lines += ["    _q = _x.payload", f"    if {shares}: {check}"]
        return lines
