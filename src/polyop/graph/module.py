"""A graph with the attributes that it reads: callable, and printable as the code it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from polyop.errors import GraphError
from polyop.graph.graph import Graph
from polyop.graph.node import CALL_MODULE, GET_ATTR
from polyop.graph.payloads import with_arrays
from polyop.graph.runner import Program, compile_program
from polyop.graph.text import graph_code
from polyop.tensor.tensor import Tensor


class Attributes:
    """A part of a module that holds nested attributes."""


class GraphModule:
    """A graph that can be called.

    It runs the targets of its nodes themselves, so that a call of it can be
    traced, batched or intercepted like any other program.

    Args:
        root: a mapping from qualified names, or an object, that has what the
            graph's `get_attr` and `call_module` nodes name.
        graph: the program. After changing it, call `recompile()`.
        class_name: the name in printed code.

    Raises:
        GraphError: for an attribute that `root` does not have.

    Example:
        >>> import operator
        >>> graph = Graph()
        >>> x = graph.placeholder("x")
        >>> _ = graph.output(graph.call_function(operator.mul, (x, 2)))
        >>> GraphModule({}, graph)(21)
        42
    """

    def __init__(self, root: Any, graph: Graph, class_name: str = "GraphModule") -> None:
        values = {name: read_root(root, name) for name in attribute_names(graph)}
        self._class_name = class_name
        for name, value in values.items():
            self.set_attr(name, value)
        self.graph = graph

    @property
    def graph(self) -> Graph:
        """Give the program."""
        return self._graph

    @graph.setter
    def graph(self, graph: Graph) -> None:
        self._graph = graph
        self.recompile()

    def recompile(self) -> None:
        """Forget what was made from the graph; the next call makes it anew."""
        self._program: Program | None = None
        self._code: tuple[str, dict[str, Any]] | None = None

    def __call__(self, *inputs: Any) -> Any:
        """Run the graph."""
        program = self._program
        if program is None:
            whole = compile_program(self._graph, get_attr=self.get_attr)
            program = self._program = with_arrays(self._graph, whole)
        return program(*inputs)

    def forward(self, *inputs: Any) -> Any:
        """Run the graph."""
        return self(*inputs)

    # -- attributes -----------------------------------------------------------

    def get_attr(self, qualname: str) -> Any:
        """Give an attribute by its qualified name."""
        value: Any = self
        for part in qualname.split("."):
            value = getattr(value, part)
        return value

    def set_attr(self, qualname: str, value: Any) -> None:
        """Set an attribute by its qualified name, and make the parts that lead to it."""
        *path, leaf = qualname.split(".")
        if hasattr(GraphModule, (path or [leaf])[0]):
            raise GraphError(f"{qualname!r} cannot be an attribute: a GraphModule has that name")
        owner: Any = self
        for part in path:
            if not hasattr(owner, part):
                setattr(owner, part, Attributes())
            owner = getattr(owner, part)
        setattr(owner, leaf, value)

    def add_constant(self, value: Any, base: str = "constant") -> str:
        """Keep a value under a new name, and give the name."""
        number = 0
        while hasattr(self, f"{base}_{number}"):
            number += 1
        self.set_attr(f"{base}_{number}", value)
        return f"{base}_{number}"

    # -- text -----------------------------------------------------------------

    @property
    def code(self) -> str:
        """Give the Python function `forward(self, ...)` that the graph stands for."""
        return self._written()[0]

    @property
    def namespace(self) -> dict[str, Any]:
        """Give the globals that `code` needs."""
        return dict(self._written()[1])

    def _written(self) -> tuple[str, dict[str, Any]]:
        if self._code is None:
            self._code = graph_code(self._graph.nodes)
        return self._code

    def print_readable(self, print_output: bool = True) -> str:
        """Give the module as a class, with the graphs inside it; print it too."""
        text = self._class_text(self._class_name)
        if print_output:
            print(text)
        return text

    def _class_text(self, name: str) -> str:
        blocks = [f"class {name}:", *self.code.splitlines()]
        for child, module in self._children():
            blocks += ["", *module._class_text(child).splitlines()]
        return "\n".join([blocks[0], *(f"    {line}" if line else "" for line in blocks[1:])])

    def _children(self) -> Iterator[tuple[str, GraphModule]]:
        for name in attribute_names(self._graph):
            value = self.get_attr(name)
            if isinstance(value, GraphModule):
                yield name.replace(".", "_"), value

    def __str__(self) -> str:
        return self.print_readable(print_output=False)

    def __repr__(self) -> str:
        return f"{self._class_name}()"

    # -- copies ---------------------------------------------------------------

    def __copy__(self) -> GraphModule:
        return GraphModule(self, self._graph.copy(), self._class_name)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_program": None, "_code": None}  # made again by the first call

    def __deepcopy__(self, memo: Any) -> GraphModule:
        # The attributes are shared: arrays and modules are values of the program.
        return self.__copy__()


def attribute_names(graph: Graph) -> list[str]:
    """List the attributes that a graph reads or calls, each once, in order."""
    reads = (n.target for n in graph.nodes if n.op in (GET_ATTR, CALL_MODULE))
    return list(dict.fromkeys(reads))


def reads_of(module: Any) -> Iterator[tuple[GraphModule, str]]:
    """Name what a module reads, and the modules inside it, each with the module that has it.

    Args:
        module: a `GraphModule`, or what has one: a program, a lowered module; others read nothing.
    """
    module = getattr(module, "graph_module", module)
    if not isinstance(module, GraphModule):
        return
    for name in attribute_names(module.graph):
        yield module, name
        yield from reads_of(module.get_attr(name))


def tensors_held(module: Any) -> list[Tensor]:
    """List the tensors that a module reads, and the modules inside it, each once."""
    found = [owner.get_attr(name) for owner, name in reads_of(module)]
    return list({id(t): t for t in found if isinstance(t, Tensor)}.values())


def read_root(root: Any, qualname: str) -> Any:
    """Give what `root` has under a qualified name."""
    value = root
    try:
        if isinstance(root, Mapping):
            return root[qualname]
        for part in qualname.split("."):
            value = getattr(value, part)
    except (KeyError, AttributeError):
        raise GraphError(
            f"the graph reads {qualname!r}, which its root does not have",
            seen=type(root).__name__,
        ) from None
    return value
