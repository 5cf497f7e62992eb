"""What the forms of a call cost, beside PyTorch's `torch.library.custom_op` with the same kernel.

Run `python bench/calls.py`; it writes `calls.md` beside itself. Each row is one form of arguments,
results or contexts on three elements; both libraries are called in turn, in one process.
"""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

import polyop

ROUNDS, NUMBER = 40, 20
Call = Callable[[], Any]


class Side(NamedTuple):
    """What a row is written with: one of the two libraries."""

    name: str
    module: Any
    tensor: type
    wrap: Callable[..., Any]
    custom_op: Callable[..., Any]

    def ones(self, *shape: int) -> Any:
        """Make doubles."""
        return self.wrap(np.ones(shape))

    def variable(self, *shape: int) -> Any:
        """Make doubles that require grad."""
        return self.ones(*shape).requires_grad_()


OURS = Side("polyop", polyop, polyop.Tensor, polyop.from_numpy, polyop.custom_op)
THEIRS = Side("torch", torch, torch.Tensor, torch.from_numpy, torch.library.custom_op)


class Form(NamedTuple):
    """An operator, and how it is called.

    Attributes:
        name: of the row.
        parameters: of the kernel, annotated.
        result: its annotation.
        body: an expression of the parameters.
        call: makes the call, of an operator and a side.
        writes: the names of arguments that it writes.
        backward: its gradient.
    """

    name: str
    parameters: str
    result: str
    body: str
    call: Callable[[Any, Side], Call]
    writes: tuple[str, ...] = ()
    backward: Callable[..., Any] | None = None


SINE = "wrap(np.sin(x.numpy()))"
PAIR = "(wrap(np.sin(x.numpy())), wrap(np.cos(x.numpy())))"
FIRST = "wrap(np.sin(xs[0].numpy()))"


def one(op: Any, side: Side) -> Call:
    """Call with one tensor."""
    x = side.ones(3)
    return lambda: op(x)


def recorded(op: Any, side: Side) -> Call:
    """Call with one that requires grad."""
    x = side.variable(3)
    return lambda: op(x)


def viewed(op: Any, side: Side) -> Call:
    """Call with a row of a matrix."""
    x = side.ones(2, 3)[0]
    return lambda: op(x)


def in_inference_mode(op: Any, side: Side) -> Call:
    """Call in inference mode, which is entered each time."""
    x, mode = side.ones(3), side.module.inference_mode

    def run() -> None:
        with mode():
            op(x)

    return run


def backward_of(select: Callable[[Any, Any], Any]) -> Callable[[Any, Side], Call]:
    """Call, add up, and go back."""

    def made(op: Any, side: Side) -> Call:
        x = side.variable(3)

        def run() -> None:
            x.grad = None
            select(op, x).sum().backward()

        return run

    return made


def of(*more: Any, **named: Any) -> Callable[[Any, Side], Call]:
    """Call with one tensor, and other arguments."""

    def made(op: Any, side: Side) -> Call:
        x = side.ones(3)
        return lambda: op(x, *more, **named)

    return made


def by_name(op: Any, side: Side) -> Call:
    """Call with all arguments by name."""
    x = side.ones(3)
    return lambda: op(x=x, by=2.0)


def listed(op: Any, side: Side) -> Call:
    """Call with a list of two."""
    xs = [side.ones(3), side.ones(3)]
    return lambda: op(xs)


def listed_recorded(op: Any, side: Side) -> Call:
    """Call with a list of two that require grad."""
    xs = [side.variable(3), side.variable(3)]
    return lambda: op(xs)


NUMBERS = "x: Tensor, a: int, b: float, c: bool, d: str"
TWO = "tuple[Tensor, Tensor]"
FORMS = [
    Form("one tensor", "x: Tensor", "Tensor", SINE, one),
    Form("a view", "x: Tensor", "Tensor", SINE, viewed),
    Form("by name", "x: Tensor, by: float", "Tensor", SINE, by_name),
    Form("an int for a float", "x: Tensor, by: float", "Tensor", SINE, of(2)),
    Form("four numbers and texts", NUMBERS, "Tensor", SINE, of(1, 2.0, True, "s")),
    Form("a list of ints", "x: Tensor, sizes: list[int]", "Tensor", SINE, of([1, 2])),
    Form("an absent tensor", "x: Tensor, y: Tensor | None", "Tensor", SINE, of(None)),
    Form("a list of tensors", "xs: list[Tensor]", "Tensor", FIRST, listed),
    Form("a view as result", "x: Tensor", "Tensor", "wrap(np.sin(x.numpy())[::1])", one),
    Form("two results", "x: Tensor", TWO, PAIR, one),
    Form("a list as result", "x: Tensor", "list[Tensor]", f"[{SINE}]", one),
    Form("a tensor and an int", "x: Tensor", "tuple[Tensor, int]", f"({SINE}, 3)", one),
    Form("a number as result", "x: Tensor", "float", "1.0", one),
    Form("an argument is written", "x: Tensor", "None", "x.numpy().fill(1)", one, ("x",)),
    Form("inference mode", "x: Tensor", "Tensor", SINE, in_inference_mode),
    Form("recorded", "x: Tensor", "Tensor", SINE, recorded, (), lambda ctx, g: g * 2),
    Form("recorded, two results", "x: Tensor", TWO, PAIR, recorded, (), lambda ctx, g, h: g + h),
    Form(
        "recorded, a list", "xs: list[Tensor]", "Tensor", FIRST, listed_recorded, (),
        lambda ctx, g: [g, g],
    ),
    Form(
        "and backward", "x: Tensor", "Tensor", SINE, backward_of(lambda op, x: op(x)), (),
        lambda ctx, g: g * 2,
    ),
    Form(
        "and backward, two results", "x: Tensor", TWO, PAIR,
        backward_of(lambda op, x: op(x)[0]), (), lambda ctx, g, h: g + h,
    ),
    Form(
        "and backward, a list", "xs: list[Tensor]", "Tensor", FIRST,
        backward_of(lambda op, x: op([x, x])), (), lambda ctx, g: [g, g],
    ),
]  # fmt: skip


def made(form: Form, number: int, side: Side) -> Call:
    """Define a form's operator in a library, and give its call."""
    scope: dict[str, Any] = {"Tensor": side.tensor, "wrap": side.wrap, "np": np}
    exec(f"def kernel({form.parameters}) -> {form.result}:\n    return {form.body}", scope)
    kernel = scope["kernel"]
    op = side.custom_op(f"bench_calls::form{number}", kernel, mutates_args=form.writes)
    if form.backward is not None:
        op.register_autograd(form.backward, setup_context=lambda ctx, inputs, output: None)
    return form.call(op, side)


def best(call: Call) -> float:
    """Give the fastest of some calls, in microseconds."""
    fastest = float("inf")
    for _ in range(NUMBER):
        start = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest * 1e6


def row(form: Form, number: int) -> str:
    """Measure a form in both libraries, and write its line."""
    calls = [made(form, number, side) for side in (OURS, THEIRS)]
    for call in calls:
        best(call)
    rounds = [tuple(map(best, calls)) for _ in range(ROUNDS)]
    ours, theirs = (min(times) for times in zip(*rounds, strict=True))
    ratio = median(b / a for a, b in rounds)
    return f"| {form.name} | {ours:.1f} | {theirs:.1f} | 1/{ratio:.1f} |"


HEAD = f"""# Forms of a call

Written by `python bench/calls.py`: Python {platform.python_version()}, NumPy {np.__version__},
torch {torch.__version__}, {platform.machine()}. Microseconds of a call of a custom operator whose
kernel is NumPy's sine of three elements, the fastest of many rounds, and the same operator of
`torch.library.custom_op`; the ratio is the median of the rounds' own, in which both are called in
turn. Inference mode is entered and left in each call.

| form | polyop | torch | ratio |
| --- | --- | --- | --- |
"""


def main() -> None:
    """Measure all, and keep the table."""
    warnings.simplefilter("ignore")
    rows = [row(form, number) for number, form in enumerate(FORMS)]
    print("\n".join(rows))
    (Path(__file__).parent / "calls.md").write_text(HEAD + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
