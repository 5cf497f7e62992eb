"""A factory: no tensor says where to compute, so an argument `device` does."""

import numpy as np

import polyop
from polyop import Tensor


@polyop.custom_op("examples::hann", mutates_args=(), device_types="cpu")
def hann(length: int, device: polyop.device) -> Tensor:
    """Give the Hann window of `length` points (float32)."""
    return polyop.from_numpy(np.hanning(length).astype(np.float32))


@hann.register_fake
def hann_fake(length, device):
    return polyop.empty(length, device=device)


@hann.samples
def hann_samples():
    yield [8, "cpu"]
    yield [1, "cpu"]
