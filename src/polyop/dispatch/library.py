"""`Library`: an owner of definitions, kernels and rules, which go when it goes (S31 to S42).

Everything that is registered has an owner, and an owner's registrations are
undone together, exactly. A library is one owner; an operator is the owner of
the rules that are registered without a library.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from polyop.dispatch.keys import DispatchKey, parse_key
from polyop.dispatch.late_operators import bring
from polyop.dispatch.lock import LOCK
from polyop.dispatch.parts import PARTS
from polyop.dispatch.registry import (
    as_operator,
    check_qualname,
    claim,
    disown,
    full_name,
    places_of,
    put,
)
from polyop.dispatch.registry import (
    define as define_schema,
)
from polyop.dispatch.table import (
    Kernel,
    Places,
    fallthrough_kernel,
    put_fallback,
    remove_fallback,
)
from polyop.errors import (
    DuplicateRegistrationError,
    LibraryGoneError,
    RegistrationError,
    UsageError,
    UsageTypeError,
    nearest,
)
from polyop.schema.parse import parse_definition
from polyop.schema.tags import Tag, as_tags, check_tags
from polyop.source import caller, source_of

KINDS = ("DEF", "FRAGMENT", "IMPL")
#: The last ones are names of `polyop.ops` itself, so that no operator would be found there.
RESERVED = ("prim", "higher_order", "import_module", "load_library", "loaded_libraries")
ALIAS_ANALYSES = ("", "FROM_SCHEMA", "CONSERVATIVE")

_def_libraries: dict[str, weakref.ref[Library]] = {}


class Owner:
    """What a library's registrations belong to; it outlives the library object."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fallbacks: list[tuple[DispatchKey, Kernel]] = []
        self.names: set[str] = set()  # what it has something under
        self.alive = True

    def __str__(self) -> str:
        return self.name

    def undo(self) -> None:
        """Take back all that was registered."""
        self.alive = False
        for key, kernel in self.fallbacks:
            remove_fallback(key, kernel)
        disown(self)


class Library:
    """An owner of operators, kernels and rules of one namespace.

    Args:
        ns: the namespace.
        kind: `"DEF"` (one per namespace), `"FRAGMENT"` (many), or `"IMPL"`
            (kernels only).
        dispatch_key: the key of kernels that name none.

    Raises:
        UsageError: an unknown kind or key, or a reserved namespace.
        DuplicateRegistrationError: another `DEF` library of this namespace lives.

    Example:
        >>> from polyop.library import Library
        >>> lib = Library("doc_library", "DEF")
        >>> lib.define("twice(Tensor x) -> Tensor")
        'twice'
        >>> lib.impl("twice", lambda x: x * 2, "CompositeImplicitAutograd")
    """

    def __init__(self, ns: str, kind: str, dispatch_key: DispatchKey | str = "") -> None:
        if kind not in KINDS:
            raise UsageError(f"{kind!r} is no kind of library{nearest(kind, KINDS)}")
        if not isinstance(ns, str) or not ns.isidentifier():
            raise UsageError(f"{ns!r} is no namespace", fix="use your project's name as namespace")
        check_namespace(ns, kind)
        self.ns, self.kind = ns, kind
        self.dispatch_key = parse_key(dispatch_key) if dispatch_key else None
        self.source = caller()
        self._owner = Owner(f"library {ns}")
        self._alive = True
        if kind == "DEF":
            _claim(self)
        self._finalizer = weakref.finalize(self, LOCK.between, self._owner.undo)
        self._finalizer.atexit = False

    def __repr__(self) -> str:
        return f"Library({self.ns!r}, {self.kind!r})"

    def define(self, schema: str, alias_analysis: str = "", *, tags: Any = ()) -> str:
        """Define an operator; gives its name (S33).

        Raises:
            RegistrationError: this is an `IMPL` library, or the text names another namespace.
            UsageError: an unknown alias analysis.
            SchemaSyntaxError: the text is no schema.
            DuplicateRegistrationError: the name has another schema.
        """
        self._check_alive()
        if not isinstance(schema, str):
            raise UsageTypeError("a schema is text", op=self, seen=repr(schema))
        space, found, _ = schema.partition("(")[0].rpartition("::")
        self._check_defines(space.strip() if found else self.ns, schema)
        if alias_analysis not in ALIAS_ANALYSES:
            raise UsageError(
                f"{alias_analysis!r} is no alias analysis{nearest(alias_analysis, ALIAS_ANALYSES)}"
            )
        parsed = parse_definition(schema if found else f"{self.ns}::{schema.strip()}")
        checked = ordered_tags(tags)
        check_tags(parsed, frozenset(checked))
        bring(parsed.name)
        PARTS.defined(define_schema(parsed, checked, caller(), self._owner))
        return parsed.qualified_name.partition("::")[2]

    def impl(
        self,
        op_name: Any,
        fn: Callable[..., Any],
        dispatch_key: DispatchKey | str = "",
        *,
        with_keyset: bool = False,
        allow_override: bool = True,
    ) -> None:
        """Register a kernel at a key (S35, S36).

        Raises:
            UsageTypeError: `fn` is not callable, or `op_name` is no operator.
            UsageError: an unknown key, a key that contradicts the library's, or
                a name in another namespace.
            DuplicateRegistrationError: the place is taken, with `allow_override=False`.
        """
        self._check_alive()
        check_function(fn, op_name)
        name = self._full_name(op_name)
        bring(name)
        key = self._key(dispatch_key)
        kernel = kernel_of(fn, self._owner)._replace(with_keyset=with_keyset)
        put(name, key, kernel, allow_override=allow_override)

    def fallback(
        self,
        fn: Callable[..., Any],
        dispatch_key: DispatchKey | str = "",
        *,
        with_keyset: bool = False,
    ) -> None:
        """Register `fn(op, *args, **kwargs)` for every operator at a key (S40).

        Raises:
            UsageError: no key, or an alias key.
            RegistrationError: the namespace is not `"_"`.
        """
        self._check_alive()
        check_function(fn, "fallback")
        key = dispatch_key or self.dispatch_key
        if not key:
            raise UsageError(
                "a fallback needs a dispatch key", fix='write lib.fallback(fn, "Negative")'
            )
        if self.ns != "_":
            raise RegistrationError(
                f"a fallback serves all operators, so {self.ns!r} cannot have one",
                fix='make the library Library("_", "IMPL")',
            )
        through = fn is fallthrough_kernel
        kernel = Kernel(
            None if through else fn,
            caller(),
            self._owner,
            with_keyset=with_keyset,
            fallthrough=through,
            takes_op=not through,
        )
        with LOCK:
            claim(self._owner, "_")
            put_fallback(key, kernel)
            self._owner.fallbacks.append((parse_key(key), kernel))

    def destroy(self) -> None:
        """Undo all that this library registered (S41)."""
        self._alive = False
        registering = LOCK.is_mine
        with LOCK:  # whoever destroys it second waits until all is undone
            if registering:
                self._finalizer()
            elif self._finalizer.alive:
                self._owner.undo()
                self._finalizer.detach()  # behind it: what is interrupted is undone later
            if _def_libraries.get(self.ns, lambda: None)() is self:
                del _def_libraries[self.ns]

    _destroy = destroy

    def _check_alive(self) -> None:
        if not self._alive:
            raise LibraryGoneError(f"{self!r} was destroyed", source=self.source)

    def _check_defines(self, namespace: str, schema: object) -> None:
        """Refuse a definition that is not this library's to make."""
        self._check_alive()
        if self.kind == "IMPL":
            raise RegistrationError(
                f"an IMPL library of {self.ns!r} defines nothing",
                source=self.source,
                fix='make it Library(ns, "FRAGMENT")',
            )
        if namespace != self.ns:
            raise RegistrationError(
                f"a library of {self.ns!r} cannot define in {namespace!r}",
                seen=schema,
                source=self.source,
                fix=f"make a library of {namespace!r}, or leave the namespace out",
            )

    def _full_name(self, op_name: Any) -> str:
        if isinstance(op_name, str):
            given = op_name if "::" in op_name else f"{self.ns}::{op_name}"
            check_qualname(given)
            name = full_name(given)
        else:
            name = as_operator(op_name)._schema.qualified_name
        if name.partition("::")[0] != self.ns:
            raise UsageError(
                f"a library of {self.ns!r} registers nothing for {name!r}",
                fix=f"make a library of {name.partition('::')[0]!r}",
            )
        return name

    def _key(self, given: DispatchKey | str) -> DispatchKey:
        key = parse_key(given) if given else self.dispatch_key
        if key is not None and self.dispatch_key not in {None, key}:
            raise UsageError(
                f"the key {key} contradicts the library's, {self.dispatch_key}", source=self.source
            )
        return DispatchKey.CompositeImplicitAutograd if key is None else key


def check_namespace(ns: str, kind: str) -> None:
    """Refuse a namespace that is not there for a library of this kind (S31).

    Raises:
        UsageError: so it is.
    """
    of_one_kind = (ns == "core" and kind == "DEF") or (ns == "_" and kind != "IMPL")
    if of_one_kind or ns in RESERVED or ns.startswith("__"):
        raise UsageError(
            f"the namespace {ns!r} is reserved", fix="use your project's name as namespace"
        )


def _claim(library: Library) -> None:
    """Make a library the one `DEF` of its namespace; one of the same place gives way (S32)."""
    with LOCK:
        there = _def_libraries.get(library.ns, lambda: None)()
        if there is not None and there._alive:
            if there.source != library.source:
                raise DuplicateRegistrationError(
                    f"the namespace {library.ns!r} has a DEF library already",
                    source=f"{there.source}; again at {library.source}",
                    fix='make this one Library(ns, "FRAGMENT")',
                )
            there.destroy()
        _def_libraries[library.ns] = weakref.ref(library)


class scoped_library:
    """Give a library that is destroyed at the end of the block."""

    def __init__(self, ns: str, kind: str, dispatch_key: DispatchKey | str = "") -> None:
        self._made = (ns, kind, dispatch_key)

    def __enter__(self) -> Library:
        self._library = Library(*self._made)
        return self._library

    def __exit__(self, *error: object) -> None:
        self._library.destroy()


def ordered_tags(tags: Any) -> tuple[Tag, ...]:
    """Give a tuple of tags, from one, several, or none, in the order of their names."""
    if tags is None or tags == ():
        return ()
    return tuple(sorted(as_tags(() if tags is None else tags), key=lambda tag: tag.value))


def owner_of(lib: Library | None, name: str | Places) -> object:
    """Give the owner of a rule: the library, or the operator itself."""
    if lib is None:
        return places_of(name) if isinstance(name, str) else name
    check_library(lib)._check_alive()
    return lib._owner


def check_library(lib: Any) -> Library:
    """Give a library back; refuse what is none."""
    if not isinstance(lib, Library):
        raise UsageTypeError(
            "lib is a library", seen=f"{lib!r:.80}", fix='give one: Library("ns", "FRAGMENT")'
        )
    return lib


def kernel_of(fn: Callable[..., Any], owner: object) -> Kernel:
    """Make a kernel of a function, or a fallthrough of the mark for it."""
    if fn is fallthrough_kernel:
        return Kernel(None, caller(), owner, fallthrough=True)
    return Kernel(fn, source_of(fn), owner)


def check_function(fn: Any, op: Any) -> None:
    """Refuse a kernel that cannot be called."""
    if not callable(fn):
        raise UsageTypeError(
            "a kernel is a function", op=op, seen=f"{fn!r:.80}", fix="give a function"
        )
