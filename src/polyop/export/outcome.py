"""What a delegate gives, as far as its program says it: kinds, sizes, and who requires grad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from polyop import tree
from polyop.dispatch.bits import GRAD
from polyop.dispatch.context import PLAIN, run_under
from polyop.errors import DelegateError
from polyop.export.check import known_size
from polyop.export.program import Program
from polyop.symbolic import is_symbolic
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor, of_meta


class Outcome:
    """The results of one program.

    Args:
        program: the program.
        name: who runs it, in errors.
    """

    def __init__(self, program: Program, name: str) -> None:
        self.program, self.name = program, name
        output = program.graph.output_node
        assert output is not None
        numbers = program.signature.of_graph
        given = [node.val for node in program.graph.placeholders]
        self.inputs = list(zip(numbers, given, strict=True))
        results = [getattr(x, "val", x) for x in self._rest(output.args[0])]
        self.expected = self._laid_out(results, given)
        self._growing: dict[tuple[bool, ...], tuple[bool, ...]] = {}

    def _rest(self, found: Sequence[Any]) -> Any:
        """Give the results of the graph behind the new values of what it writes."""
        return list(found)[len(self.program.signature.written) :]

    def _laid_out(self, results: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        """Lay out results and inputs of the graph as the program gives them."""
        numbers = [number for number, _ in self.inputs]
        by_kind: dict[str, Any] = {
            "result": results,
            "input": dict(zip(numbers, given, strict=True)),
        }
        return [
            by_kind[spec.kind][spec.value] if spec.kind in by_kind else spec.value
            for spec in self.program.signature.outputs
        ]

    # -- kinds and sizes ------------------------------------------------------

    def check(self, args: Sequence[Any], found: Any) -> None:
        """Check what a backend gave.

        Raises:
            DelegateError: it is not what the program gives.
        """
        try:
            results = self.program.out_spec.flatten_up_to(found)
        except ValueError:
            whole = tree.unflatten(self.program.out_spec, range(len(self.expected)))
            self._refuse("results of another structure", "", tree.outline(whole), _kind(found))
        sizes = self._sizes(tree.leaves((tuple(args), {})))
        for i, (expected, result) in enumerate(zip(self.expected, results, strict=True)):
            self._one(f"result {i}", expected, result, sizes)

    def _one(self, place: str, expected: Any, found: Any, sizes: Mapping[str, int]) -> None:
        if isinstance(expected, (list, tuple)):  # what an operator with several results gives
            if not isinstance(found, (list, tuple)) or len(found) != len(expected):
                self._refuse("a wrong result", place, f"{len(expected)} values", _kind(found))
            for i, pair in enumerate(zip(expected, found, strict=True)):
                self._one(f"{place}[{i}]", *pair, sizes)
        elif isinstance(expected, Meta):
            self._tensor(place, expected, found, sizes)
        elif isinstance(found, Tensor):
            self._refuse("a wrong result", place, _kind(expected), _kind(found))
        elif is_symbolic(expected) or type(expected) is int:
            size = known_size(expected, sizes)
            if type(found) is not int or (size is not None and size != found):
                self._refuse("a wrong size", place, expected, found)

    def _sizes(self, leaves: Sequence[Any]) -> dict[str, int]:
        """Learn the sizes of the inputs by the names that the graph has for them."""
        sizes: dict[str, int] = {}
        for number, value in self.inputs:
            meta = isinstance(value, Meta)
            names = value.shape if meta else (value,)
            seen = tuple(leaves[number].shape) if meta else (leaves[number],)
            sizes |= {str(n): k for n, k in zip(names, seen, strict=True) if type(k) is int}
        return sizes

    def _tensor(self, place: str, meta: Meta, leaf: Any, sizes: Mapping[str, int]) -> None:
        shape = [known_size(n, sizes) for n in meta.shape]
        declared = f"shape {tuple(meta.shape)}, dtype {meta.dtype}"
        if not isinstance(leaf, Tensor):
            self._refuse("a result that is no tensor", place, declared, _kind(leaf))
        fits = leaf.ndim == len(shape) and leaf.dtype == meta.dtype
        pairs = zip(shape, leaf.shape, strict=False)
        if not fits or any(n is not None and n != k for n, k in pairs):
            self._refuse("a wrong result", place, declared, _kind(leaf))

    def _refuse(self, problem: str, place: str, declared: object, seen: object) -> NoReturn:
        raise DelegateError(
            f"the executor of {self.name} gave {problem}", op="call_delegate", argument=place,
            declared=declared, seen=seen, fix="give all results of lowered.original_module",
        )  # fmt: skip

    # -- gradients ------------------------------------------------------------

    def growing(self, needs: tuple[bool, ...]) -> tuple[bool, ...]:
        """Tell which results require grad, by which arguments do."""
        if needs not in self._growing:
            self._growing[needs] = self._grown(needs)
        return self._growing[needs]

    def _grown(self, needs: tuple[bool, ...]) -> tuple[bool, ...]:
        given: list[Any] = []
        for number, value in self.inputs:
            fake: Any = of_meta(value) if isinstance(value, Meta) else value
            if needs[number] and isinstance(fake, Tensor):
                fake.requires_grad_()
            given.append(fake)
        under = PLAIN.but(fake=self.program.mode)
        results = self._rest(run_under(under, self.program.graph_module, *given))
        found = tree.leaves(self._laid_out(results, given))
        return tuple([isinstance(x, Tensor) and x.keys & GRAD != 0 for x in found])


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"Tensor of shape {tuple(value.shape)}, dtype {value.dtype}"
    return f"{type(value).__name__} {value!r:.60}"
