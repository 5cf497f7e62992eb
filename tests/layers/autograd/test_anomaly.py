"""Anomaly mode says where the forward of a failing backward ran."""

import inspect
import threading

import numpy as np
import pytest

import polyop
from polyop import autograd, func
from polyop.errors import AutogradError


def _line() -> int:
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


def notes_of(error: BaseException) -> str:
    return "\n".join(error.__notes__)


def test_nan_in_a_gradient_names_operator_and_place() -> None:
    """A NaN that a backward makes raises, and shows the line where the forward ran."""
    x = polyop.tensor([0.0, 1.0], dtype=polyop.float64, requires_grad=True)
    with autograd.detect_anomaly(), np.errstate(all="ignore"):
        y, line = polyop.sqrt(x * 0.0), _line()
        with pytest.raises(AutogradError) as caught:
            (y * 0.0).sum().backward()
    text = str(caught.value)
    assert "the backward of core::sqrt gives NaN for its differentiable input 0" in text
    assert f"{__file__}" in notes_of(caught.value) and f"line {line}" in notes_of(caught.value)
    assert f"line {line}" in caught.value.source


def test_nan_is_let_pass_when_asked() -> None:
    """With `check_nan=False` only errors are told; gradients are those of a plain run."""
    x = polyop.tensor([0.0, 1.0], dtype=polyop.float64, requires_grad=True)
    with autograd.detect_anomaly(check_nan=False), np.errstate(all="ignore"):
        assert not autograd.is_anomaly_check_nan_enabled()
        (polyop.sqrt(x * 0.0) * 0.0).sum().backward()
    assert np.isnan(x.grad.numpy()).all()


def test_an_error_in_a_backward_keeps_its_class_and_gets_the_place() -> None:
    """An author's exception stays what it is; a note shows where the operator was called."""

    @polyop.custom_op("anomaly::fails", mutates_args=())
    def fails(x: polyop.Tensor) -> polyop.Tensor:
        return x * 2

    def backward(ctx: object, g: polyop.Tensor) -> polyop.Tensor:
        raise ZeroDivisionError("the author's own")

    fails.register_autograd(backward)
    x = polyop.ones(2, requires_grad=True)
    with autograd.detect_anomaly():
        y, line = fails(x), _line()
    z = fails(x)
    with autograd.detect_anomaly():
        with pytest.raises(ZeroDivisionError, match="the author's own") as caught:
            y.sum().backward()
        with pytest.raises(ZeroDivisionError) as unseen:
            z.sum().backward()
    assert f"line {line}" in notes_of(caught.value) and "anomaly::fails" in notes_of(caught.value)
    assert "outside of anomaly mode" in notes_of(unseen.value)


def test_func_grad_and_functions_are_watched() -> None:
    """`func.grad` and `autograd.Function` note their places too."""

    class Bad(autograd.Function):
        @staticmethod
        def forward(x: polyop.Tensor) -> polyop.Tensor:
            return x * 1.0

        @staticmethod
        def setup_context(ctx: object, inputs: object, output: object) -> None:
            pass

        @staticmethod
        def backward(ctx: object, g: polyop.Tensor) -> polyop.Tensor:
            return g * float("nan")

    lines = []

    def f(x: polyop.Tensor) -> polyop.Tensor:
        lines.append(_line() + 1)
        return Bad.apply(x).sum()

    with autograd.detect_anomaly(), pytest.raises(AutogradError) as caught:
        func.grad(f)(polyop.ones(2))
    assert "Bad" in str(caught.value) and f"line {lines[0]}" in notes_of(caught.value)
    with autograd.detect_anomaly(), pytest.raises(AutogradError) as caught:
        x = polyop.ones(2, requires_grad=True)
        f(x).backward()
    assert f"line {lines[1]}" in notes_of(caught.value)
    with autograd.detect_anomaly(), np.errstate(all="ignore"):
        with pytest.raises(AutogradError, match="core::sqrt") as caught:
            func.grad(lambda x: (polyop.sqrt(x) * 0.0).sum())(polyop.zeros(2))
    assert "test_anomaly.py" in notes_of(caught.value)


def test_gradients_are_equal_with_and_without() -> None:
    """Watching changes no gradient: writes, several results, second derivatives."""

    def f(x: polyop.Tensor) -> polyop.Tensor:
        y = x * x
        y[0] = y[1] * 3.0
        y.mul_(x)
        a, b = polyop.split(y, 2)
        return (a * b).exp().sum()

    data = np.linspace(0.1, 0.4, 4)

    def run() -> tuple[np.ndarray, np.ndarray]:
        x = polyop.tensor(data, requires_grad=True)
        (g,) = autograd.grad(f(x), [x], create_graph=True)
        (h,) = autograd.grad((g * g).sum(), [x])
        return g.numpy(force=True), h.numpy(force=True)

    plain = run()
    with autograd.detect_anomaly():
        watched = run()
    for a, b in zip(plain, watched, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_setting_and_threads() -> None:
    """`set_detect_anomaly` acts at once or for a block; other threads start without."""
    assert not autograd.is_anomaly_enabled()
    with autograd.set_detect_anomaly(True):
        assert autograd.is_anomaly_enabled()
        seen: list[bool] = []
        thread = threading.Thread(target=lambda: seen.append(autograd.is_anomaly_enabled()))
        thread.start()
        thread.join()
        assert seen == [False]
        with autograd.set_detect_anomaly(False):
            assert not autograd.is_anomaly_enabled()
    assert not autograd.is_anomaly_enabled()
    autograd.set_detect_anomaly(True, check_nan=False)
    try:
        assert autograd.is_anomaly_enabled() and not autograd.is_anomaly_check_nan_enabled()
    finally:
        autograd.set_detect_anomaly(False)
    assert not autograd.is_anomaly_enabled()
