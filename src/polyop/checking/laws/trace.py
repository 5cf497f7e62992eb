"""The laws of traces: a recorded program gives what the call gives, gradients included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop.checking.compare import compare_leaves, same_bits
from polyop.checking.inputs import resized
from polyop.checking.law import STAINS, Case, DoesNotApply, law, outcome, stain
from polyop.checking.laws.backward import gradient_source
from polyop.checking.laws.fake import fake_source, take
from polyop.checking.laws.gradient import targets_of
from polyop.checking.sample import Sample, array_of, copy_array
from polyop.checking.slope import weights
from polyop.errors import DynamicOutputShapeError, GuardOnDataDependentError
from polyop.layers.autograd.api import grad
from polyop.layers.functionalize import functionalize
from polyop.layers.trace import make_fx
from polyop.ops.elementwise import cos
from polyop.tensor.tensor import Tensor, is_differentiable, of_array

Tensors = Sequence[Tensor]


@law("test_aot_dispatch_dynamic", "A traced program with symbolic sizes gives what the call gives.")
def dynamic_law(case: Case) -> str | None:
    """Trace with symbols for sizes, and run at the sample's and at other sizes."""
    _needs_values(case)
    try:
        program = _trace(case, "symbolic")
    except GuardOnDataDependentError as error:
        if not case.sizes_vary:
            raise
        return f"no program is traced here: {error.problem}; {error.fix}"
    _compare(case, program, case.sample, "")
    fixed = None
    for name, sample in resized(case.sample):
        # A trace may rely on sizes 0 and 1.
        if not _shrunk(case.sample, sample) and take(case, sample) is not None:
            relied = _broken_guard(program, inputs_of(case, sample))
            if relied is not None:
                fixed = fixed or f"a program that is traced here does not run at {name}: {relied}"
            elif _agrees(case, program, sample, f" at {name}"):
                return None
    return fixed


@law("test_aot_dispatch_static", "A traced program gives what the call gives.")
def static_law(case: Case) -> None:
    """Trace with the sample's own sizes, and run."""
    _needs_values(case)
    try:
        program = _trace(case, "fake")
    except DynamicOutputShapeError as error:
        raise DoesNotApply("sizes of results depend on data") from error
    _compare(case, program, case.sample, "")


def _needs_values(case: Case) -> None:
    case.needs_repeats()
    if not case.sample.tensors():
        raise DoesNotApply("the sample has no tensor")


def _shrunk(sample: Sample, made: Sample) -> bool:
    """Tell whether a size became 0 or 1."""
    pairs = zip(sample.tensors(), made.tensors(), strict=True)
    sizes = [two for a, b in pairs for two in zip(a.shape, b.shape, strict=True)]
    return any(new < 2 and new != old for old, new in sizes)


def _agrees(case: Case, program: Any, sample: Sample, at: str) -> bool:
    """Compare at made inputs; false where they say nothing.

    Raises:
        OpCheckError: the program gives something else.
    """
    try:
        _compare(case, program, sample, at)
    except Exception:  # a program, or a rule in it, may raise anything
        if _repeats(case, sample):
            raise
        return False
    return True


def _repeats(case: Case, sample: Sample) -> bool:
    """Tell whether the operator and its gradient take made inputs, and do the same twice.

    A kernel may rely on what it does not look at: of indices that are no permutation, its inverse
    has elements that nobody filled.
    """
    try:
        first = joint(case)(*inputs_of(case, sample))
        stain([array_of(t).nbytes for t in (*first, *sample.tensors())], STAINS[0])
        again = joint(case)(*inputs_of(case, sample))
    except Exception:  # a rule that raises at other sizes is not silent
        return False
    return all(map(same_bits, first, again))


def _broken_guard(program: Any, inputs: Tensors) -> str | None:
    """Say which sizes a program was traced for, if it was not for those of other inputs."""
    env = program.shape_env
    sizes = {
        f"arg{i}.shape[{axis}]": n
        for i, t in enumerate(inputs)
        for axis, n in enumerate(array_of(t).shape)
    }
    if not set(env.sources) <= set(sizes):
        return "it was traced for strides of their own"
    guard = env.check_guards(env.bind(sizes))
    return None if guard is None else f"its trace relied on {guard}"


# -- the program --------------------------------------------------------------


def joint(case: Case) -> Callable[..., tuple[Tensor, ...]]:
    """Give results and gradients as one function of arguments, then weights of the results.

    Where the size of a result depends on data, its weights are made of it: an input of the
    program has a size of its own.
    """
    count = len(case.sample.tensors())
    own = case.sizes_vary

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        given, scale = tensors[:count], tensors[count:]
        leaves = outcome(case, case.sample.rebuilt(given))
        found = [t for _, t in leaves if isinstance(t, Tensor)]
        floating = [t for t in found if is_differentiable(t.dtype)]
        if own:
            scale = tuple([cos(t.detach()) for t in floating])
        pairs = [(t, w) for t, w in zip(floating, scale, strict=False) if t.requires_grad]
        inputs = [t for t in given if t.requires_grad]
        if not pairs or not inputs:
            return tuple(found)
        outputs, ones = zip(*pairs, strict=True)
        gradients = grad(outputs, inputs, ones, allow_unused=True)
        return (*found, *[g for g in gradients if g is not None])

    return run


def inputs_of(case: Case, sample: Sample) -> list[Tensor]:
    """Give fresh arguments, those that have gradients marked, then weights.

    No two share memory: a traced program has an input for each argument.
    """
    marked = set(targets_of(case.sample)) if _has_gradient(case) else set()
    tensors = _apart(sample)
    outcomes = outcome(case, sample.rebuilt(_apart(sample)))
    results = [t for _, t in outcomes if isinstance(t, Tensor)]
    floating = [t for t in results if is_differentiable(t.dtype)]
    scale = [] if case.sizes_vary else weights(floating)
    for i in marked:
        tensors[i].requires_grad_()
    return [*tensors, *scale]


def _apart(sample: Sample) -> list[Tensor]:
    return [of_array(copy_array(array_of(t), {})) for t in sample.tensors()]


def _has_gradient(case: Case) -> bool:
    rule = case.op.rule("backward")
    if case.op._schema.is_mutable or (rule is not None and rule.backward is None):
        return False
    return gradient_source(case) is not None


def _trace(case: Case, mode: str) -> Any:
    program = joint(case)
    if not _has_gradient(case):
        # What has a gradient writes nothing, so there is nothing to take out.
        program = functionalize(program)
    return make_fx(program, mode)(*inputs_of(case, case.sample))


def _compare(case: Case, program: Any, sample: Sample, at: str) -> None:
    eager, traced = inputs_of(case, sample), inputs_of(case, sample)
    wanted = joint(case)(*eager)
    given = program(*traced)
    got = given if isinstance(given, (tuple, list)) else (given,)
    compare_leaves(
        [*_named(case, got), *_afterwards(traced)],
        [*_named(case, wanted), *_afterwards(eager)],
        case.tolerance,
        f"{{}} of the traced {case.name} differs from the call{at}",
        op=case.op._schema,
        declared="what the call gives",
        source=fake_source(case),
        fix="let kernel, fake rule and backward depend on their arguments alone; "
        "what is read elsewhere was fixed when the program was traced",
    )


def _afterwards(inputs: Tensors) -> list[tuple[str, Any]]:
    return [(f"argument {i} after the call", t) for i, t in enumerate(inputs)]


def _named(case: Case, tensors: Tensors) -> list[tuple[str, Any]]:
    alone = case.sample.rebuilt(_apart(case.sample))
    count = len([t for _, t in outcome(case, alone) if isinstance(t, Tensor)])
    names = [f"result {i}" if i < count else f"gradient {i - count}" for i in range(len(tensors))]
    return list(zip(names, tensors, strict=True))
