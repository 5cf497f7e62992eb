"""The law of index signatures, and the samples that a signature gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.checking.derived import derived_samples
from polyop.checking.law import Case, Verdict, judge, law_named
from polyop.checking.run import check_operator, opcheck
from polyop.checking.sample import Sample, array_of, sample_of
from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.dispatch.index_signature import register_index
from polyop.dispatch.library import Library
from polyop.dispatch.registry import DEFINITIONS
from polyop.errors import (
    ArgumentError,
    OpCheckError,
    ReturnError,
    UsageError,
    UsageTypeError,
)
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor, of_array

Array = np.ndarray[Any, Any]


def values(*shape: int) -> Tensor:
    return of_array(np.linspace(0.5, 2.0, int(np.prod(shape))).reshape(shape))


def make(name: str, kernel: Any, index: str | None, **options: Any) -> CustomOpDef:
    made: CustomOpDef = custom_op(
        f"index_law::{name}", kernel, mutates_args=(), index=index, replace=True, **options
    )
    return made


def matmul(a: Tensor, b: Tensor) -> Tensor:
    return of_array(np.matmul(a.numpy(), b.numpy()))


def total(x: Tensor) -> Tensor:
    return of_array(np.asarray(x.numpy().sum(-1)))


def verdict(op: CustomOpDef, *args: Any) -> Verdict:
    found = op._opoverload
    return judge(law_named("test_index"), Case(found, sample_of(found, args, {})))


def broken(op: CustomOpDef, cause: type[Exception], *args: Any) -> str:
    """The text of the law's error, which has that cause."""
    told = verdict(op, *args)
    assert told.error is not None, told
    assert isinstance(told.error.__cause__, cause), told.error
    return str(told.error)


# -- the law ------------------------------------------------------------------


@pytest.mark.parametrize("shapes", [((2, 3), (3, 4)), ((5, 1, 2, 3), (6, 3, 4)), ((0, 3), (3, 0))])
def test_a_right_operator_holds(shapes: Any) -> None:
    """S56: a kernel that loops over what is in front holds the law, whatever the sample is."""
    op = make("matmul", matmul, "(m,n),(n,k)->(m,k)")
    assert verdict(op, *(values(*s) for s in shapes)) == Verdict("holds")


def test_no_signature_no_law() -> None:
    """S56: the law does not apply to an operator without an index signature."""
    told = verdict(make("bare", total, None), values(3))
    assert told == Verdict("does not apply", "the operator has no index signature")


def test_a_sample_that_does_not_fit() -> None:
    """S56: in opcheck, sizes that break it are an ArgumentError that names the axis."""

    def first(x: Tensor, y: Tensor) -> Tensor:
        return of_array(x.numpy().copy())

    text = broken(make("first", first, "(n),(n)->(n)"), ArgumentError, values(3), values(4))
    assert "axis n of size 3 as in argument 'x'" in text
    assert "argument: y" in text


def test_a_result_of_another_size() -> None:
    """S56: in opcheck, a result of another shape is a ReturnError that names the axis."""

    def longer(x: Tensor) -> Tensor:
        return of_array(np.concatenate([x.numpy(), x.numpy()[..., :1]], -1))

    text = broken(make("longer", longer, "(n)->(n)"), ReturnError, values(3))
    assert "result 0 of index_law::longer does not fit (n)->(n): axis n" in text
    assert "test_index_law.py:" in text


def test_a_square_does_not_hide_swapped_axes() -> None:
    """S56: other sizes are tried, so that a square sample does not hide which axis is which."""

    def kept(x: Tensor) -> Tensor:
        return of_array(x.numpy().copy())

    text = broken(make("kept", kept, "(m,n)->(n,m)"), ReturnError, values(3, 3))
    assert "does not fit (m,n)->(n,m) at m=4, n=7" in text or "at m=7, n=4: axis n" in text


def test_sizes_of_arguments() -> None:
    """S56: a result's axis that an int argument gives has its size, at other numbers too."""

    def spread(x: Tensor, count: int) -> Tensor:
        return of_array(np.repeat(x.numpy()[..., None], min(count, 5), -1))

    op = make("spread", spread, "()->(count)")
    text = broken(op, ReturnError, values(2), 3)
    assert "at count=7: axis count" in text


def test_a_kernel_that_refuses_loops() -> None:
    """S56: a kernel for single elements only breaks the promise that loops are taken."""

    def strict(x: Tensor) -> Tensor:
        (n,) = x.shape
        return of_array(np.asarray(x.numpy()[n - 1]))

    text = broken(make("strict", strict, "(n)->()"), OpCheckError, values(3))
    assert "refuses arguments for loops (2,), though it takes each element" in text
    assert "(n)->(): axes in front of the named ones are loops" in text
    assert "ValueError: too many values to unpack" in text


def test_loops_that_are_broadcast_wrongly() -> None:
    """S56: loops of different arguments broadcast; a kernel that lines them up otherwise fails."""

    def flat(x: Tensor, y: Tensor) -> Tensor:
        p, q = x.numpy(), y.numpy()
        if p.ndim == q.ndim:
            return of_array(np.asarray((p * q).sum(-1)))
        return of_array(np.asarray(p.sum(-1) * q.sum(-1)))

    text = broken(make("flat", flat, "(n),(n)->()"), OpCheckError, values(3), values(3))
    assert "mixes loops, for loops (2, 3)" in text


def test_the_loops_of_the_sample_are_compared() -> None:
    """S56: a stack that the author gives is compared with its elements' calls."""

    def at_five(x: Tensor) -> Tensor:
        wrong = 1.0 if x.shape[:1] == (5,) else 0.0
        return of_array(np.asarray(x.numpy().sum(-1) + wrong))

    op = make("at_five", at_five, "(n)->()")
    assert not verdict(op, values(3)).broken
    assert "mixes loops, for loops (5,)" in broken(op, OpCheckError, values(5, 3))


def test_values_stay_in_the_domain() -> None:
    """S56: where the kernel refuses varied values, stacks of equal ones are tried."""

    def ordered(x: Tensor) -> Tensor:
        if not (np.diff(x.numpy(), axis=-1) > 0).all() or x.numpy().max(initial=0) > 2:
            raise ValueError("not sorted, or too large")
        return of_array(np.asarray(x.numpy().sum()))

    assert "loop 0 missing" in broken(make("ordered", ordered, "(n)->()"), ReturnError, values(3))


def test_random_values_are_not_compared() -> None:
    """S56: shapes of random results are held against it, values are not."""

    def noise(x: Tensor) -> Tensor:
        data = x.numpy()
        return of_array(np.random.default_rng().normal(size=data.shape).astype(data.dtype))

    tags = (Tag.nondeterministic_seeded,)
    told = verdict(make("noise", noise, "(n)->(n)", tags=tags), values(3))
    assert told.kind == "holds" and "values are not compared: the operator has" in told.reason
    lost = make("lost", lambda x: of_array(noise(x).numpy().sum(axis=0)), "(n)->()", tags=tags,
                schema="(Tensor x) -> Tensor")  # fmt: skip
    broken(lost, ReturnError, values(3))


def test_a_kernel_that_broadcasts_a_named_axis() -> None:
    """S56: a kernel may take size 1 for a named axis; another size it has to refuse."""

    def add(x: Tensor, y: Tensor) -> Tensor:
        return of_array(x.numpy() + y.numpy())

    assert not verdict(make("add", add, "(n),(n)->(n)"), values(3), values(3)).broken

    def cut(x: Tensor) -> Tensor:
        return of_array(x.numpy()[..., :3] * 2)

    text = broken(make("cut", cut, "(3)->(3)"), ArgumentError, values(3))
    assert "takes sizes that (3)->(3) refuses: axis 3" in text
    assert "axis 3 of size 3" in text and "size 5, and no error" in text


def test_the_promoted_dtype() -> None:
    """S56: without a rule of its own, results have the dtype that inputs promote to."""

    def signs(x: Tensor) -> Tensor:
        return of_array(np.signbit(x.numpy()))

    op = make("signs", signs, "(n)->(n)")
    text = broken(op, ReturnError, values(3))
    assert "has another dtype than its arguments promote to" in text
    assert "declared: dtype float64" in text and "dtype bool" in text
    assert "register a fake rule, which says another" in text
    op.register_fake(lambda x: x.new_empty(x.shape, dtype=np.dtype(bool)))
    assert verdict(op, values(3)) == Verdict("holds")


def test_another_precision_has_its_dtype() -> None:
    """S56: the dtype is compared in single precision too, and for ints it is a note."""

    def wide(x: Tensor) -> Tensor:
        return of_array(x.numpy().astype("float64"))

    text = broken(make("wide", wide, "(n)->(n)"), ReturnError, values(3))
    assert "for float32" in text

    def root(x: Tensor) -> Tensor:
        return of_array(np.sqrt(x.numpy()))

    told = verdict(make("root", root, "(n)->(n)"), values(3))
    assert told.kind == "holds" and "for int64 arguments" in told.reason


def test_rules_that_follow_are_not_blamed() -> None:
    """S56: what the axes give is not blamed for the kernel; an author's own rules are."""

    def everything(x: Tensor) -> Tensor:
        return of_array(np.asarray(x.numpy().sum()))

    op = make("everything", everything, "(n)->()")
    samples = derived_samples(op._opoverload)
    (found,) = check_operator(op._opoverload, samples).broken
    assert found.law == "test_index"
    op.register_vmap(lambda info, in_dims, x: (op(x), None))
    laws = {f.law for f in check_operator(op._opoverload, samples).broken}
    assert laws == {"test_index", "test_vmap"}


def test_removal_takes_the_law_and_the_samples_away() -> None:
    """S56, S37: with the library that owns the signature go its law and its samples."""
    op = make("removed", total, None)
    lib = Library("index_law", "FRAGMENT")
    register_index(op, "(n)->()", lib=lib)
    assert verdict(op, values(3)) == Verdict("holds")
    assert derived_samples(op._opoverload)
    lib.destroy()
    assert verdict(op, values(3)).kind == "does not apply"
    assert derived_samples(op._opoverload) == ()


# -- samples from the signature -----------------------------------------------


def shapes(samples: tuple[Sample, ...]) -> list[tuple[tuple[int, ...], ...]]:
    return [tuple(array_of(t).shape for t in one.tensors()) for one in samples]


def dtypes(samples: tuple[Sample, ...]) -> list[str]:
    return [" ".join(t.dtype.name for t in one.tensors()) for one in samples]


def test_samples_have_all_kinds_of_sizes_and_dtypes() -> None:
    """S56: primes, 0 and 1, loops alike and broadcast, single precision and ints."""
    made = derived_samples(make("matmul", matmul, "(m,n),(n,k)->(m,k)")._opoverload)
    assert shapes(made)[:5] == [
        ((2, 3), (3, 5)),
        ((4, 2, 3), (4, 3, 5)),
        ((2, 1, 2, 3), (3, 3, 5)),
        ((1, 1), (1, 1)),
        ((0, 0), (0, 0)),
    ]
    assert dtypes(made)[-2:] == ["float32 float32", "int64 int64"]


def test_what_the_operator_refuses_is_no_sample() -> None:
    """S56: sizes, dtypes and loops that the operator refuses are left out, but not the first."""

    def picky(x: Tensor) -> Tensor:
        if x.dtype != np.float64 or not x.numpy().size:
            raise ValueError("no")
        return of_array(np.asarray(x.numpy().max(-1)))

    made = derived_samples(make("picky", picky, "(n)->()")._opoverload)
    assert shapes(made) == [((2,),), ((4, 2),), ((2, 3, 2),), ((1,),)]
    assert set(dtypes(made)) == {"float64"}


def test_dtypes_are_found() -> None:
    """S56: where floats are refused, ints or bools are taken, one argument at a time."""

    def pick(x: Tensor, i: Tensor) -> Tensor:
        return of_array(np.take_along_axis(x.numpy(), i.numpy(), -1))

    made = derived_samples(make("pick", pick, "(n),(m)->(m)")._opoverload)
    assert dtypes(made)[0] == "float64 int64"


def test_other_arguments_have_simple_values() -> None:
    """S56: defaults, sizes of results, None, and simple numbers for what has no default."""
    lib = Library("index_law_scalars", "DEF")
    lib.define(
        "f(Tensor x, int count, float a, bool b, Scalar s, int? n, str how='no', *, int k=4) "
        "-> Tensor"
    )

    def kernel(x: Tensor, count: int, *args: Any, k: int = 4) -> Tensor:
        assert args == (0.5, False, 2.0, None, "no") and k == 4
        return of_array(np.repeat(x.numpy()[..., None], count, -1))

    lib.impl("f", kernel, "CompositeExplicitAutograd")
    register_index("index_law_scalars::f", "()->(count)", lib=lib)
    made = derived_samples(DEFINITIONS["index_law_scalars::f"].op)
    assert {one.values[1] for one in made} == {0, 1, 2}
    lib.destroy()


def test_an_argument_without_a_simple_value() -> None:
    """S56: what has no default and no simple value asks for samples, by name."""

    def modal(x: Tensor, mode: str) -> Tensor:
        return of_array(x.numpy().copy())

    op = make("modal", modal, "(n)->(n)")
    with pytest.raises(UsageError, match="mode has no default, and no simple value") as caught:
        opcheck(op)
    assert "register samples" in str(caught.value)


def test_an_operator_that_takes_none_of_them() -> None:
    """S56: where the operator refuses every sample, its first refusal is shown."""

    def never(x: Tensor) -> Tensor:
        raise ValueError("only triangles")

    with pytest.raises(UsageError, match="takes none of the samples that") as caught:
        opcheck(make("never", never, "(n)->(n)"))
    assert "ValueError: only triangles" in str(caught.value)
    assert "@never.samples" in str(caught.value)


# -- opcheck without samples --------------------------------------------------


def test_opcheck_makes_samples() -> None:
    """S56, S200: without arguments, opcheck tries the samples that the signature gives."""
    op = make("matmul", matmul, "(m,n),(n,k)->(m,k)")
    assert set(opcheck(op).values()) == {"SUCCESS"}


def test_opcheck_takes_the_authors_samples_first() -> None:
    """S56, S200: registered samples go before those of the signature."""

    def fussy(x: Tensor) -> Tensor:
        if x.shape[-1] != 6:
            raise ValueError("six")
        return of_array(x.numpy() * 2)

    op = make("fussy", fussy, "(n)->(n)")
    with pytest.raises(UsageError, match="takes none of the samples"):
        opcheck(op)
    op.samples(lambda: [(values(6),), (values(2, 6),)])
    assert set(opcheck(op).values()) == {"SUCCESS"}


def test_opcheck_stops_at_the_first_broken_sample() -> None:
    """S56, S200: a law that one of several samples breaks is broken."""
    op = make("total", lambda x: of_array(np.asarray(x.numpy().sum())), "(n)->()",
              schema="(Tensor x) -> Tensor")  # fmt: skip
    with pytest.raises(OpCheckError, match=r"test_index: .* for loops \(2,\): loop 0 missing"):
        opcheck(op, test_utils="test_index")


def test_opcheck_without_any_samples() -> None:
    """S200: without arguments, samples and signature, opcheck says what it needs."""
    with pytest.raises(UsageError, match="has no samples, and no index signature") as caught:
        opcheck(make("bare", total, None))
    assert "opcheck(op, (x,))" in str(caught.value)


@pytest.mark.parametrize("given", [values(3), np.ones(3), "text", 3, (x for x in [values(3)])])
def test_opcheck_takes_one_tuple_of_arguments(given: Any) -> None:
    """S201: a bare tensor in the place of the tuple is told what to write."""
    with pytest.raises(UsageTypeError, match="the arguments of a call as one tuple") as caught:
        opcheck(make("bare", total, None), given)
    assert "write opcheck(op, (x,)) where a call is op(x)" in str(caught.value)
    assert type(given).__name__ in str(caught.value)
