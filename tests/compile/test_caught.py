"""Errors that only a capture raises, and the function catches (SPEC S209, S211, S212, S213)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import pytest

import polyop
from polyop import Tensor, errors
from polyop.graph import make_fx


@pytest.fixture(autouse=True)
def operators() -> Iterator[None]:
    """Operators without a fake rule, with one that fails, with a size that depends on data."""
    with polyop.scoped_library("caught", "FRAGMENT") as lib:
        for name, kernel, fake in (
            ("bare", lambda x: polyop.from_numpy(x.numpy() * 7), None),
            ("failing", lambda x: polyop.from_numpy(x.numpy() * 7), _failing),
            ("positive", lambda x: polyop.from_numpy(x.numpy()[x.numpy() > 0]), _positive),
        ):
            lib.define(f"{name}(Tensor x) -> Tensor")
            lib.impl(name, kernel, "CPU")
            if fake is not None:
                polyop.library.register_fake(f"caught::{name}", fake)
        yield


def _failing(x: Tensor) -> Tensor:
    raise ValueError("no shape")


def _positive(x: Tensor) -> Tensor:
    return x.new_empty((polyop.library.get_ctx().new_dynamic_size(),))


def gathered(x: Tensor) -> Tensor:
    async def look() -> Any:
        return x.sum().item()

    async def both() -> Any:
        return await asyncio.gather(look(), return_exceptions=True)

    (found,) = asyncio.run(both())
    return x * (found if isinstance(found, float) else -1.0)


def bare_except(x: Tensor) -> Tensor:
    try:
        return x * x.sum().item()
    except:  # noqa: E722 - that is what is tested
        return -x


def suppressed(x: Tensor) -> Tensor:
    scale = -1.0
    with suppress(BaseException):
        scale = x.sum().item()
    return x * scale


def returned(x: Tensor) -> Tensor:
    def scale() -> float:
        found = -1.0
        try:
            found = x.sum().item()
        finally:
            return found  # noqa: B012 - that is what is tested

    return x * scale()


def in_a_future(x: Tensor) -> Tensor:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(copy_context().run, lambda: x.sum().item())
        scale = -1.0 if future.exception() is not None else future.result()
    return x * scale


def exited(x: Tensor) -> Tensor:
    try:
        return x * x.sum().item()
    except BaseException:
        raise SystemExit(3) from None


def missing_fake(x: Tensor) -> Tensor:
    try:
        return polyop.ops.caught.bare(x)  # type: ignore[no-any-return]
    except Exception:
        return -x


def failing_fake(x: Tensor) -> Tensor:
    try:
        return polyop.ops.caught.failing(x)  # type: ignore[no-any-return]
    except Exception:
        return -x


def guard_on_data(x: Tensor) -> Tensor:
    found = polyop.ops.caught.positive(x)
    try:
        return x * 2 if found.shape[0] > 1 else x * 3
    except Exception:
        return -x


def look(x: Tensor) -> Tensor:
    try:
        return x * x.sum().item()
    except Exception:
        return -x


LOOKS = (gathered, bare_except, suppressed, returned, in_a_future, exited, look)
FAILURES = (missing_fake, failing_fake, guard_on_data)
functions = pytest.mark.parametrize("fn", LOOKS + FAILURES)
Fn = Callable[[Tensor], Tensor]


@functions
def test_a_compiled_function_is_the_eager_one(fn: Fn) -> None:
    """S211: what the function does about an error of the capture is no part of its program."""
    compiled = polyop.compile(fn)
    for x in (polyop.ones(3), polyop.full((3,), 2.0)):
        assert compiled(x).tolist() == fn(x).tolist()


@pytest.mark.parametrize("fn", (*LOOKS, guard_on_data))
def test_so_is_its_gradient(fn: Fn) -> None:
    """S211: gradients too are those of the eager function."""
    grads = []
    for call in (fn, polyop.compile(fn)):
        x = polyop.ones(3).requires_grad_()
        call(x).sum().backward()
        grads.append(x.grad.tolist())
    assert grads[0] == grads[1]


@functions
def test_one_graph_there_is_none(fn: Fn) -> None:
    """S212: with `fullgraph=True` the error comes out, also where the function caught it."""
    with pytest.raises(errors.CaptureError) as caught:
        polyop.compile(fn, fullgraph=True)(polyop.ones(3))
    assert caught.value.source


@pytest.mark.parametrize("fn", [f for f in LOOKS + FAILURES if f is not exited])
def test_export_raises_it(fn: Fn) -> None:
    """S213: a program never has what a function does instead of a look at data."""
    with pytest.raises(errors.PolyopError):
        polyop.export.export(fn, (polyop.ones(3),))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("fn", [f for f in LOOKS if f is not exited])
def test_make_fx_raises_a_look(fn: Fn, mode: Any) -> None:
    """S209: so does a trace."""
    with pytest.raises(errors.DataDependentOutputError):
        make_fx(fn, mode)(polyop.ones(3))


@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("fn", FAILURES)
def test_make_fx_raises_what_fakes_lack(fn: Fn, pre_dispatch: bool) -> None:
    """S209: where it runs on fakes. On data nothing fails."""
    x = polyop.ones(3)
    with pytest.raises((errors.FakeError, errors.MissingFakeError, errors.CaptureError)):
        make_fx(fn, "symbolic", pre_dispatch=pre_dispatch)(x)
    assert make_fx(fn, "real", pre_dispatch=pre_dispatch)(x)(x).tolist() == fn(x).tolist()


def test_an_error_of_the_function_stays() -> None:
    """S211: an error that an eager call raises too is caught as there, in one graph."""

    def fn(x: Tensor) -> Tensor:
        try:
            return x + polyop.ones(7)
        except ValueError:
            return x * 5

    x = polyop.ones(3)
    assert polyop.compile(fn, fullgraph=True)(x).tolist() == fn(x).tolist()
    assert polyop.export.export(fn, (x,)).module()(x).tolist() == fn(x).tolist()


def test_a_branch_that_catches() -> None:
    """S176, S212: a branch of `cond` that catches a look has no graph either."""

    def fn(x: Tensor) -> Tensor:
        return polyop.cond(x.sum() > 0, look, lambda y: y * 1, (x,))  # type: ignore[no-any-return]

    x = polyop.ones(3)
    assert polyop.compile(fn)(x).tolist() == fn(x).tolist() == [3.0] * 3
    with pytest.raises(errors.CaptureError):
        polyop.compile(fn, fullgraph=True)(x)


@pytest.mark.parametrize("branch", [lambda y: y.add_(1) * 2, lambda y: y])
def test_what_no_subgraph_may_do(branch: Any) -> None:
    """S181, S211: an eager call does it, so a function that catches the refusal has no program."""

    def fn(x: Tensor) -> Tensor:
        y = x * 1
        try:
            return polyop.cond(x.sum() > 0, branch, lambda y: y * 1, (y,))  # type: ignore[no-any-return]
        except errors.SubgraphError:
            return -x

    x = polyop.ones(3)
    assert polyop.compile(fn)(x).tolist() == fn(x).tolist() != [-1.0] * 3
    with pytest.raises(errors.CaptureError, match="a subgraph"):
        polyop.compile(fn, fullgraph=True)(x)
    for trace in (lambda: polyop.export.export(fn, (x,)), lambda: make_fx(fn)(x)):
        with pytest.raises(errors.SubgraphError):
            trace()


def test_a_look_at_a_batch_stays() -> None:
    """S209: no call looks at one sample of a batch, traced or not."""

    def fn(x: Tensor) -> Tensor:
        try:
            return polyop.func.vmap(lambda row: row * row.item())(x)  # type: ignore[no-any-return]
        except (errors.VmapError, errors.DataDependentOutputError):
            return x * 5

    x = polyop.ones(3)
    assert make_fx(fn)(x)(x).tolist() == fn(x).tolist() == [5.0] * 3


def test_an_attribute_that_only_the_fake_lacks() -> None:
    """S185, S211: `getattr` with a default asks the object itself."""

    class Scale:
        def __init__(self) -> None:
            self.by = 3.0

    polyop.library.register_opaque_type(Scale, typ="reference")

    def fn(scale: Scale, x: Tensor) -> Tensor:
        return x * getattr(scale, "by", -1.0) * getattr(scale, "none", 1.0)

    scale, x = Scale(), polyop.ones(3)
    assert polyop.compile(fn)(scale, x).tolist() == fn(scale, x).tolist()
    with pytest.raises(errors.ObjectError):
        make_fx(fn, "fake")(scale, x)
