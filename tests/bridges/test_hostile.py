"""Mistakes, in each framework: the error names operator and rule, and no answer is silently wrong.

Eager code and JAX's traces raise our own errors. PyTorch's compiler, and what JAX compiled, wrap
them in theirs, as their users expect; the text is ours.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch._dynamo
from tests.bridges import hostile
from tests.bridges.hostile import GRADIENTS, WAYS, compiled, product, sin, text_of, total, ways
from tests.bridges.marks import EVERYWHERE

import polyop
from polyop.errors import (
    ArgumentError,
    AutogradError,
    MissingGradientError,
    VmapError,
)

pytestmark = EVERYWHERE
Z = np.array([0.5, 1.0, 1.5], np.float32)


# -- arguments ----------------------------------------------------------------------------------

CALLS = {
    "too many": (lambda x: product(x, x, 1.0, 2), "too many arguments"),
    "too few": (lambda x: product(x), "misses argument 'y'"),
    "unknown": (lambda x: product(x, x, q=1), "has no argument 'q'"),
    "twice": (lambda x: product(x, x, x=x), "got argument 'x' twice"),
    "a word": (lambda x: product(x, x, "much"), "cannot take str as argument 'k'"),
    "a complex": (lambda x: product(x, x, 1j), "cannot take complex as argument 'k'"),
    "None": (lambda x: product(x, None), "cannot take NoneType as argument 'y'"),
    "a float": (lambda x: product(x, 2.0), "cannot take float as argument 'y'"),
    "a list": (lambda x: product(x, [1.0, 2.0, 3.0]), "cannot take list as argument 'y'"),
    "a dict": (lambda x: product(x, {"a": x}), "cannot take dict as argument 'y'"),
    "one for many": (lambda x: total(x), "as argument 'xs'"),
    "None in a list": (lambda x: total([x, None]), "cannot take list as argument 'xs'"),
}


@pytest.mark.parametrize("name", CALLS)
@ways([w for w in WAYS if w[0] != "torch compiled"])
def test_arguments_that_do_not_fit_are_named(name: str, way: Any, convert: Any) -> None:
    """S63: the error is ours, and a TypeError, in eager code and in what JAX traces."""
    call, words = CALLS[name]
    with pytest.raises(ArgumentError, match=r"hostile::(product|total)") as error:
        way(call)(convert(Z))
    assert words in str(error.value) and isinstance(error.value, TypeError)


@pytest.mark.parametrize(
    "name", ["a word", "a complex", "a float", "a list", "a dict", "one for many"]
)
def test_arguments_that_do_not_fit_in_a_compiled_region(name: str) -> None:
    """S63: PyTorch's compiler says which operator, which argument and which type."""
    with pytest.raises(torch._dynamo.exc.TorchDynamoException) as error:
        compiled(CALLS[name][0])(torch.tensor(Z))
    assert "hostile" in text_of(error.value)
    assert any(f"'{a}'" in text_of(error.value) for a in ("k", "y", "xs"))


@pytest.mark.parametrize("name", ["too many", "too few", "unknown", "twice"])
def test_a_wrong_number_of_arguments_stops_the_compiler(name: str) -> None:
    """S63: in one graph it is an error of PyTorch's compiler, and never a call."""
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        compiled(CALLS[name][0])(torch.tensor(Z))


@ways([w for w in WAYS if w[0] != "torch compiled"])  # its compiler refuses all that is JAX's
def test_two_frameworks_in_one_call_are_refused(way: Any, convert: Any) -> None:
    """S66: the error names both, whichever comes first."""
    other = jnp.asarray(Z) if convert is torch.tensor else torch.tensor(Z)
    with pytest.raises(Exception, match=r"hostile::product got arrays of two libraries"):
        way(lambda x: product(other, x))(convert(Z))


@ways(WAYS)
def test_numpy_joins_however_it_lies(way: Any, convert: Any) -> None:
    """S66: arrays that run backwards, repeat or are read-only are taken by their elements."""
    read_only = Z.copy()
    read_only.flags.writeable = False
    others = [Z[::-1], np.broadcast_to(Z[:1], 3), read_only, np.stack([Z, Z], 1)[:, 0]]
    for other in others[1:] if way is compiled else others:  # Dynamo takes none that run backwards
        found = way(lambda x, other=other: product(x, other))(convert(Z))
        assert not isinstance(found, np.ndarray)
        np.testing.assert_allclose(np.asarray(found), Z * other)


def test_dtypes_without_a_counterpart_are_named() -> None:
    """S66: what NumPy has no dtype for is refused, and not taken for something else."""
    with pytest.raises(ArgumentError, match=r"quint8"):
        sin(torch.quantize_per_tensor(torch.tensor(Z), 0.1, 0, torch.quint8))
    with pytest.raises(ArgumentError, match="no dtype that stands for"):
        sin(torch.ones(2, dtype=torch.complex32))
    with pytest.raises(ArgumentError, match="no dtype that stands for key"):
        sin(jax.random.key(0))


# -- kernels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", hostile.WRONG_RESULTS)
@ways(WAYS)
def test_wrong_results_are_refused(name: str, way: Any, convert: Any) -> None:
    """S129, S66: a result that is none, or is an argument's memory, is refused in each way."""
    op = hostile.WRONG_RESULTS[name]
    with pytest.raises(Exception, match=op._qualname) as error:
        np.asarray(way(op)(convert(Z)))
    assert "returned a wrong type" in str(error.value) or "shares storage" in str(error.value)


@ways(WAYS)
def test_what_a_kernel_raises_arrives(way: Any, convert: Any) -> None:
    """S2: the author's own error, or the error that JAX's programs have, with its text."""
    with pytest.raises((ZeroDivisionError, jax.errors.JaxRuntimeError), match="the author's own"):
        np.asarray(way(hostile.raises)(convert(Z)))


@ways([w for w in WAYS if w[0].startswith("jax")])
def test_a_kernel_that_writes_what_it_only_reads_is_stopped(way: Any, convert: Any) -> None:
    """S66: JAX's arrays are never written, whatever the kernel does."""
    op = hostile.made("scribbles", lambda x: (x.numpy().fill(7), hostile.twice(x))[1])
    x = convert(Z)
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="read-only"):
        np.asarray(way(op)(x))
    np.testing.assert_array_equal(x, Z)


@pytest.mark.parametrize("name", hostile.WRONG_FAKES)
@ways([w for w in WAYS if "eager" not in w[0]])
def test_wrong_fake_rules_are_named(name: str, way: Any, convert: Any) -> None:
    """S141: compiling says which operator's fake rule is wrong, and how."""
    op, words = hostile.WRONG_FAKES[name]
    with pytest.raises(Exception) as error:  # noqa: PT011 - each compiler has its own
        way(op)(convert(Z))
    assert op._qualname in text_of(error.value).replace(".", "::")
    assert words in text_of(error.value)


DISAGREE = hostile.made("disagrees", lambda x: polyop.from_numpy(x.numpy()[:1].copy()))


@ways([w for w in WAYS if w[0].startswith("jax")])
def test_a_kernel_that_disagrees_with_its_fake_rule(way: Any, convert: Any) -> None:
    """S66: another shape than was declared is refused, with both in the message."""
    with pytest.raises(Exception, match="hostile::disagrees is not what its fake rule says"):
        np.asarray(way(DISAGREE)(convert(Z)))


def test_a_kernel_that_disagrees_with_its_fake_rule_in_a_compiled_region() -> None:
    """S66: what was compiled for one shape never goes on with another."""
    with pytest.raises(Exception, match="hostile::disagrees"):
        compiled(lambda x: DISAGREE(x) + torch.ones(3))(torch.tensor(Z))


# -- gradients and batches ----------------------------------------------------------------------


@pytest.mark.parametrize("name", hostile.WRONG_GRADIENTS)
@ways(GRADIENTS)
def test_gradients_that_do_not_fit_are_refused(name: str, way: Any, convert: Any) -> None:
    """S128: the error says for which argument backward gave what, in both modes."""
    op = hostile.WRONG_GRADIENTS[name]
    kinds = (AutogradError, torch._dynamo.exc.TorchDynamoException)
    with pytest.raises(kinds) as error:
        way(op)(convert(Z))
    assert op._qualname in text_of(error.value)
    assert "backward returned" in text_of(error.value)


@ways(GRADIENTS)
def test_a_missing_gradient_is_named(way: Any, convert: Any) -> None:
    """S129: no gradient is never zero: the error says what to register."""
    kinds = (MissingGradientError, torch._dynamo.exc.TorchDynamoException)
    with pytest.raises(kinds) as error:
        way(hostile.no_gradient)(convert(Z))
    assert "hostile::no_gradient has no backward rule" in text_of(error.value)
    assert "register_autograd" in text_of(error.value)


@ways(GRADIENTS)
def test_what_backward_raises_arrives(way: Any, convert: Any) -> None:
    """S2: an error in the author's backward is not hidden."""
    with pytest.raises(Exception) as error:  # noqa: PT011
        way(hostile.backward_raises)(convert(Z))
    assert "the author's own" in text_of(error.value)


@pytest.mark.parametrize("name", hostile.WRONG_BATCHES)
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_wrong_batches_are_refused(name: str, library: str) -> None:
    """S155: a rule whose result does not count the samples is refused by name."""
    op = hostile.WRONG_BATCHES[name]
    x = np.stack([Z, Z])
    with pytest.raises(VmapError, match=op._qualname):
        torch.vmap(op)(torch.tensor(x)) if library == "torch" else jax.vmap(op)(jnp.asarray(x))


def test_integers_have_no_gradient() -> None:
    """S124: asking for one is the framework's own error, before the operator runs."""
    with pytest.raises(RuntimeError, match="floating point"):
        torch.func.grad(lambda x: sin(x.double()).sum())(torch.ones(2, dtype=torch.int32))
    with pytest.raises(TypeError, match="real- or complex-valued"):
        jax.grad(lambda x: sin(x).sum())(jnp.ones(2, jnp.int32))
