"""Backends: what makes a callable of a captured graph, and how effects reach it in order (S190).

A graph whose calls have effects goes to a backend with tokens: one more input and
one more result per effect type, so that a backend that knows nothing but data flow
cannot reorder them. Forward and backward graphs have chains of their own. A backend
that keeps the order of the nodes says `takes_tokens = False`, and gets plain graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from polyop.errors import SubgraphError, UsageTypeError
from polyop.graph import GraphModule
from polyop.graph.purity import is_write
from polyop.lazy import load
from polyop.source import source_of
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor, of_meta

Run = Callable[..., Any]
Backend = Callable[[GraphModule, Sequence[Any]], Run]


def run_graph(module: GraphModule, inputs: Sequence[Any]) -> Run:
    """Run the graph node by node, by its register program."""
    return module


run_graph.takes_tokens = False  # type: ignore[attr-defined]


def run_loops(module: GraphModule, inputs: Sequence[Any]) -> Run:
    """Run the graph with its pointwise parts as loops of C; there must be a compiler."""
    made: Run = load("polyop.compile.fused.backend:fuse")(module)
    return made


def run_loops_or_graph(module: GraphModule, inputs: Sequence[Any]) -> Run:
    """Run pointwise parts as loops of C if there is a compiler, else the graph; say so once."""
    made: Run = load("polyop.compile.fused.backend:fuse")(module, strict=False)
    return made


for backend in (run_graph, run_loops, run_loops_or_graph):
    backend.takes_tokens = False  # type: ignore[attr-defined]

#: The backends by name.
BACKENDS: dict[str, Backend] = {"graph": run_graph, "c": run_loops, "auto": run_loops_or_graph}


def run_by(backend: Backend, module: GraphModule) -> Run:
    """Let a backend make the callable of a graph; what it takes and gives has no tokens."""
    if getattr(backend, "takes_tokens", True) and any(map(is_write, module.graph.nodes)):
        chained = copy(module)
        count = len(load("polyop.objects.tokens:chain_effects")(chained))
        if count:
            return _with_fresh_tokens(_made(backend, chained), count)
    return _made(backend, module)


def _made(backend: Backend, module: GraphModule) -> Run:
    """Give what a backend makes of a graph.

    Raises:
        UsageTypeError: it is no function.
    """
    run = backend(module, _examples(module))
    if not callable(run):
        raise UsageTypeError(
            f"the backend {getattr(backend, '__name__', backend)} makes no function of the graph",
            argument="backend",
            declared="a function of the graph's inputs",
            seen=f"{type(run).__name__} {run!r:.80}",
            source=source_of(backend),
            fix="return a function; the graph, which it is given first, is one",
        )
    return run


def _examples(module: GraphModule) -> list[Any]:
    """Make a fake for each input of a graph."""
    return [
        of_meta(node.val) if isinstance(node.val, Meta) else node.val
        for node in module.graph.placeholders
    ]


def _with_fresh_tokens(run: Run, count: int) -> Run:
    """Begin the chains at each run, and drop their ends."""
    zeros = load("polyop.ops.creation:zeros")

    def begin(*inputs: Any) -> Any:
        found = run(*[zeros(0) for _ in range(count)], *inputs)
        if not _has_tokens(found, count):
            _refuse_result(found, count)
        return found[count]

    return begin


def _has_tokens(found: Any, count: int) -> bool:
    if not isinstance(found, (tuple, list)) or len(found) != count + 1:
        return False
    return all(isinstance(token, Tensor) and token.shape == (0,) for token in found[:count])


def _refuse_result(found: Any, count: int) -> None:
    raise SubgraphError(
        "the backend took a graph with tokens, and does not give them in front of the result",
        declared=f"({count} tokens, result)",
        seen=f"{type(found).__name__} {found!r:.80}",
        fix="give what the graph gives, or say that the backend keeps the order of the nodes: "
        "backend.takes_tokens = False",
    )


def check_types(f: Any, fullgraph: Any, dynamic: Any, backend: Any) -> None:
    """Refuse values that no call could use.

    Raises:
        UsageTypeError: there is one.
    """
    for name, value, fits, declared in (
        ("f", f, f is None or callable(f), "a function"),
        ("fullgraph", fullgraph, isinstance(fullgraph, bool), "True or False"),
        ("dynamic", dynamic, dynamic is None or isinstance(dynamic, bool), "True, False or None"),
        ("backend", backend, callable(backend), "the name of a backend, or a function"),
    ):
        if not fits:
            raise UsageTypeError(
                f"compile takes {declared} for {name}", argument=name, declared=declared,
                seen=f"{type(value).__name__} {value!r:.80}",
            )  # fmt: skip
