"""A NumPy kernel that writes its result into an argument."""

import numpy as np

import polyop
from polyop import Tensor


@polyop.custom_op("examples::sine", mutates_args={"output"}, device_types="cpu")
def sine(input: Tensor, output: Tensor) -> None:
    """Write the sine of `input` into `output`, which has the same shape."""
    np.sin(input.numpy(), out=output.numpy())


@sine.samples
def sine_samples():
    yield [polyop.randn(3), polyop.empty(3)]
    yield [polyop.randn(2, 3, dtype=polyop.float64), polyop.empty(2, 3, dtype=polyop.float64)]
    yield [polyop.randn(0, 3), polyop.empty(0, 3)]
