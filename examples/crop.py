"""PIL's crop as an operator; its gradient pastes the gradient back into a black image.

PIL works on 8-bit pixels, and a gradient has real values, so the kernels crop
and paste each channel as a 32-bit float image, PIL's mode "F".
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

import polyop
from polyop import Tensor


def _to_images(pixels: Tensor) -> list[Image.Image]:
    return [Image.fromarray(channel) for channel in pixels.cpu().numpy().astype(np.float32)]


def _to_tensor(images: list[Image.Image], like: Tensor) -> Tensor:
    pixels = np.stack([np.asarray(image) for image in images])
    return polyop.from_numpy(pixels).to(like.device, like.dtype)


@polyop.custom_op("examples::crop", mutates_args=())
def crop(pic: Tensor, box: Sequence[int]) -> Tensor:
    """Cut `box` (left, top, right, bottom, in pixels) out of `pic` (channels, height, width)."""
    return _to_tensor([image.crop(tuple(box)) for image in _to_images(pic)], pic)


@crop.register_fake
def crop_fake(pic, box):
    left, top, right, bottom = box
    return pic.new_empty(pic.shape[0], bottom - top, right - left)


@polyop.custom_op("examples::paste", mutates_args=())
def paste(pic: Tensor, part: Tensor, corner: Sequence[int]) -> Tensor:
    """Paste `part` into a copy of `pic`, its left top pixel at `corner`."""
    images = _to_images(pic)
    for image, piece in zip(images, _to_images(part), strict=True):
        image.paste(piece, tuple(corner))
    return _to_tensor(images, pic)


@paste.register_fake
def paste_fake(pic, part, corner):
    return polyop.empty_like(pic)


def crop_setup(ctx, inputs, output):
    pic, box = inputs
    ctx.shape, ctx.box = pic.shape, box


def crop_backward(ctx, grad):
    black = grad.new_zeros(ctx.shape)
    return paste(black, grad, ctx.box[:2]), None


crop.register_autograd(crop_backward, setup_context=crop_setup)


def paste_setup(ctx, inputs, output):
    _, part, (left, top) = inputs
    ctx.box = [left, top, left + part.shape[2], top + part.shape[1]]


def paste_backward(ctx, grad):
    black = polyop.zeros_like(crop(grad, ctx.box))
    return paste(grad, black, ctx.box[:2]), crop(grad, ctx.box), None


paste.register_autograd(paste_backward, setup_context=paste_setup)


def _fold(x: Tensor, dim: int | None, size: int) -> Tensor:
    """Join the batch axis and the channels: a batch of images is an image of many channels."""
    x = x.unsqueeze(0).expand(size, *x.shape) if dim is None else x.moveaxis(dim, 0)
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


@crop.register_vmap
def crop_vmap(info, in_dims, pic, box):
    out = crop(_fold(pic, in_dims[0], info.batch_size), box)
    return out.reshape(info.batch_size, -1, *out.shape[1:]), 0


@paste.register_vmap
def paste_vmap(info, in_dims, pic, part, corner):
    pics, parts = (_fold(x, d, info.batch_size) for x, d in zip((pic, part), in_dims, strict=False))
    out = paste(pics, parts, corner)
    return out.reshape(info.batch_size, -1, *out.shape[1:]), 0


@crop.samples
def crop_samples():
    yield [polyop.rand(3, 12, 9, requires_grad=True), [1, 2, 6, 9]]
    yield [polyop.rand(1, 5, 5), [0, 0, 5, 5]]


@paste.samples
def paste_samples():
    yield [
        polyop.rand(3, 8, 7, requires_grad=True),
        polyop.rand(3, 4, 3, requires_grad=True),
        [2, 1],
    ]
