"""Trials on PyTorch: its own transforms, compiler and exporter, on its own tensors."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd.gradcheck import GradcheckError

from polyop.bridges.torch.arrays import torch_values
from polyop.bridges.torch.bridge import bridge_of
from polyop.checking.capabilities.cells import Differs
from polyop.checking.capabilities.derivatives import (
    agree,
    chosen,
    first,
    second,
    tangents_of,
)
from polyop.checking.capabilities.subject import (
    Leaves,
    Subject,
    batch,
    compare,
    data,
    looped,
    noise,
    tensor_leaves,
)
from polyop.checking.capabilities.trier import TrierBase
from polyop.checking.law import DoesNotApply
from polyop.errors import first_line
from polyop.payloads.exchange import from_numpy
from polyop.payloads.libraries import LIBRARIES

_TORCH = LIBRARIES["torch"][1]
_func: Any = torch.func
_grad: Any = torch.autograd.grad
#: So many elements a sample may have for PyTorch's own finite differences.
MOST = 64


class OnTorch(TrierBase):
    """Tries capabilities on PyTorch's tensors."""

    library = "torch"

    def array(self, given: Any) -> Any:
        """Give a tensor of PyTorch."""
        return from_numpy(_TORCH, given)

    def arrays(self, subject: Subject) -> list[Any]:
        """Give PyTorch's tensors; an operator without tensors is called by its name there."""
        return [self.array(a) for a in subject.copies()]

    def eager(self, subject: Subject) -> None:
        """Compare results, which must be PyTorch's tensors."""
        leaves = subject.leaves(_function(subject)(*self.arrays(subject)))
        _check_kind(subject, leaves)
        compare(subject, leaves, subject.results)

    # -- derivatives ------------------------------------------------------------------------

    def grad(self, subject: Subject) -> None:
        """Compare backward with ours on NumPy, and with PyTorch's own finite differences."""
        wanted = first(subject)
        tensors, results, cots = self._start(subject, wanted.outs)
        found = _grad(results, tensors, cots, allow_unused=True)
        agree(subject, _filled(found, tensors), wanted.found, "gradient")
        self._differences(subject, wanted.outs, torch.autograd.gradcheck)

    def second_order(self, subject: Subject) -> None:
        """Compare the gradient of the gradient."""
        wanted = second(subject)
        tensors, results, cots = self._start(subject, wanted.outs)
        for c in cots:
            c.requires_grad_()
        grads = _grad(results, tensors, cots, create_graph=True, allow_unused=True)
        weights = map(self.array, noise([data(t) for t in tensors], 2))
        pairs = [
            (g, w) for g, w in zip(grads, weights, strict=True) if g is not None and g.requires_grad
        ]
        among = [*tensors, *cots]
        rows, given = [g for g, _ in pairs], [w for _, w in pairs]
        found = _grad(rows, among, given, allow_unused=True)
        agree(subject, _filled(found, among), wanted.found, "second gradient")
        self._differences(subject, wanted.outs, torch.autograd.gradgradcheck)

    def forward_mode(self, subject: Subject) -> None:
        """Compare `torch.func.jvp` with the tangents that backward gives."""
        wanted = tangents_of(subject)
        arrays = self.arrays(subject)
        f = chosen(subject, arrays, wanted.outs)
        primals = tuple(arrays[i] for i in subject.wanted)
        moved = tuple(map(self.array, noise([data(p) for p in primals], 3)))
        _, found = _func.jvp(f, primals, moved)
        agree(subject, found, wanted.found, "tangent")

    def _start(
        self, subject: Subject, outs: Sequence[int], f: Callable[..., Any] | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        arrays = self.arrays(subject)
        tensors = [arrays[i].requires_grad_() for i in subject.wanted]
        leaves = [t for _, t in subject.leaves((f or subject.function())(*arrays))]
        results = [leaves[i] for i in outs]
        for i, t in zip(outs, results, strict=True):
            if not t.requires_grad:
                raise Differs(f"result {i} does not require grad, though it does on NumPy")
        cots = [self.array(c) for c in noise([np.asarray(data(t)) for t in results], 1)]
        return tensors, results, cots

    def _differences(self, subject: Subject, outs: Sequence[int], check: Any) -> None:
        """Let PyTorch compare with finite differences, where numbers are exact enough."""
        arrays = self.arrays(subject)
        moved = [arrays[i] for i in subject.wanted]
        exact = all(t.dtype in {torch.float64, torch.complex128} for t in moved)
        if not exact or not subject.repeats or sum(t.numel() for t in moved) > MOST:
            return
        # Off the sample a little, because samples like to sit where functions have kinks.
        rows = [t + 1e-3 * self.array(n) for t, n in zip(moved, noise(map_data(moved), 4),
                                                         strict=True)]  # fmt: skip
        given = tuple(t.requires_grad_() for t in rows)
        try:
            check(chosen(subject, arrays, outs), given, fast_mode=True)
        except GradcheckError as error:
            said = first_line(error)
            raise Differs(f"PyTorch's {check.__name__} says: {said}") from error

    # -- batches, programs ------------------------------------------------------------------

    def vmap(self, subject: Subject) -> None:
        """Compare `torch.vmap` with the loop."""
        subject.needs_tensors()
        wanted = looped(subject)
        columns = zip(*batch(subject), strict=True)
        given = [self.array(np.stack(column)) for column in columns]
        found = torch.vmap(tensor_leaves(subject, subject.function()))(*given)
        names = [name for name, _ in wanted]
        compare(subject, list(zip(names, found, strict=True)), wanted)

    def compile(self, subject: Subject) -> None:
        """Compare `torch.compile(fullgraph=True)` with the call, its gradient too."""
        torch.compiler.reset()
        f: Any = torch.compile(
            _function(subject), fullgraph=True, backend="aot_eager", dynamic=False
        )
        self.run_any(subject, f)
        self._opcheck(subject)
        try:
            wanted = first(subject)
        except DoesNotApply:
            return
        tensors, results, cots = self._start(subject, wanted.outs, f)
        found = _grad(results, tensors, cots, allow_unused=True)
        agree(subject, _filled(found, tensors), wanted.found, "compiled gradient")

    def _opcheck(self, subject: Subject) -> None:
        """Let PyTorch look whether its operator is registered as it should be."""
        if not subject.repeats:
            return
        bridge = bridge_of(subject.op)
        sample = subject.sample.rebuilt(self.arrays(subject))
        try:
            torch.library.opcheck(bridge.target, tuple(torch_values(bridge.plan, sample.values)))
        except Exception as error:
            said = first_line(error) or type(error).__name__
            raise Differs(f"PyTorch's opcheck says: {said}") from error

    def dynamic_shapes(self, subject: Subject) -> None:
        """Run one graph of symbolic sizes at two sizes."""
        subject.needs_tensors()
        torch.compiler.reset()
        graphs: list[Any] = []

        def count(graph: Any, _: Any) -> Any:
            graphs.append(graph)
            return graph.forward

        f: Any = torch.compile(subject.function(), fullgraph=True, backend=count, dynamic=True)
        for one in (subject, subject.resized()):
            self.run_any(one, f)
        if len(graphs) > 1:
            raise NotImplementedError(f"{len(graphs)} graphs for two sizes")

    def export(self, subject: Subject) -> None:
        """Save an exported program, load it, and run it."""
        program = torch.export.export(_Program(_function(subject)), tuple(self.arrays(subject)))
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        self.run_any(subject, torch.export.load(file).module())

    def run_any(self, subject: Subject, f: Any) -> None:
        """Call a function with PyTorch's tensors, if any, and compare."""
        compare(subject, subject.leaves(f(*self.arrays(subject))), subject.results)

    # -- what few operators do ------------------------------------------------------------------

    def mutation(self, subject: Subject) -> None:
        """Look that what is written is, and counts as written, and nothing else is."""
        arrays = self.arrays(subject)
        before = [(t.clone(), t._version) for t in arrays]
        compare(subject, subject.leaves(subject.function()(*arrays)), subject.results)
        for i, (t, (copy, version)) in enumerate(zip(arrays, before, strict=True)):
            if i in subject.written and t._version == version:
                raise Differs(f"tensor {i} is written, and its version is not counted up")
            if i not in subject.written and not torch.equal(t, copy):
                raise Differs(f"tensor {i} is written, which the schema does not declare")

    def data_dependent_sizes(self, subject: Subject) -> None:
        """Let one compiled graph serve results of several sizes."""
        torch.compiler.reset()
        self.eager(subject)
        f: Any = torch.compile(subject.function(), fullgraph=True, backend="aot_eager")
        self.run_any(subject, f)


class _Program(torch.nn.Module):
    """A module that is one call."""

    def __init__(self, f: Callable[..., Any]) -> None:
        super().__init__()
        self.f = f

    def forward(self, *arrays: Any) -> Any:
        """Call it."""
        return self.f(*arrays)


def _function(subject: Subject) -> Callable[..., Any]:
    """Give the call; without tensors, that of PyTorch's operator, whose name says where it is."""
    if subject.arrays:
        return subject.function()
    bridge = bridge_of(subject.op)
    values = torch_values(bridge.plan, subject.sample.values)

    def call() -> Any:
        return bridge.target(*values), []

    return call


def map_data(tensors: Sequence[Any]) -> list[Any]:
    """Give the data of tensors as NumPy's."""
    return [data(t) for t in tensors]


def _check_kind(subject: Subject, leaves: Leaves) -> None:
    for (name, got), (_, wanted) in zip(leaves, subject.results, strict=False):
        if hasattr(wanted, "payload") and not isinstance(got, torch.Tensor):
            raise Differs(f"{name} is {type(got).__name__}, and no tensor of PyTorch")


def _filled(grads: Sequence[Any], tensors: Sequence[Any]) -> list[Any]:
    pairs = zip(grads, tensors, strict=True)
    return [torch.zeros_like(t) if g is None else g for g, t in pairs]
