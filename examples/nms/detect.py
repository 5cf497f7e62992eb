"""A detection head that ends in our operator: a module of PyTorch, and a function of JAX.

The image has bright squares. The head scores places, corrects the box of each, and lets the best of
those that overlap stay. How many stay depends on the image, so PyTorch's compiler gets a size that
it does not know (in one graph all the same), and JAX runs the operator outside of `jax.jit`.

python examples/nms/detect.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from nms import nms

SIDE, STEP, MOST, THRESHOLD = 8, 2, 60, 0.2


def drawn_image(seed: int = 0, squares: int = 5, size: int = 48) -> np.ndarray:
    """Draw squares, each brighter than the last, and some noise: float32, (1, size, size)."""
    rng = np.random.default_rng(seed)
    image = np.zeros((1, size, size), np.float32)
    for i, (left, top) in enumerate(rng.integers(0, size - SIDE, (squares, 2))):
        image[:, top : top + SIDE, left : left + SIDE] = 0.5 + 0.5 * (i + 1) / squares
    return image + rng.normal(0.0, 0.02, image.shape).astype(np.float32)


def drawn_weights() -> tuple[np.ndarray, np.ndarray]:
    """Give the kernels of two convolutions: of the scores, a mean; of the corrections, noise."""
    score = np.full((1, 1, SIDE, SIDE), 1 / SIDE**2, np.float32)
    noise = np.random.default_rng(1).normal(0.0, 0.005, (4, 1, SIDE, SIDE))
    return score, noise.astype(np.float32)


# -- PyTorch --------------------------------------------------------------------------------------


class Head(torch.nn.Module):
    """Finds boxes in an image: boxes (count, 4) and their scores, best first."""

    def __init__(self, score: np.ndarray, correction: np.ndarray) -> None:
        super().__init__()
        self.score = torch.nn.Conv2d(1, 1, SIDE, STEP, bias=False)
        self.correction = torch.nn.Conv2d(1, 4, SIDE, STEP, bias=False)
        with torch.no_grad():
            self.score.weight.copy_(torch.from_numpy(score))
            self.correction.weight.copy_(torch.from_numpy(correction))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Find boxes in an image of shape (1, height, width)."""
        scores = self.score(image)
        rows, columns = scores.shape[1:]
        top = torch.arange(rows).repeat_interleave(columns) * STEP
        left = torch.arange(columns).repeat(rows) * STEP
        places = torch.stack([left, top, left + SIDE, top + SIDE], dim=1)
        boxes = places + self.correction(image).reshape(4, -1).T
        best, order = scores.reshape(-1).topk(MOST)
        boxes = boxes[order]
        kept = nms(boxes, best, THRESHOLD)
        return boxes[kept], best[kept]


# -- JAX ------------------------------------------------------------------------------------------


def head(weights: tuple[jax.Array, jax.Array], image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Find boxes in an image, as `Head` does; the operator runs outside of `jax.jit`."""
    boxes, best = candidates(weights, image)
    kept = nms(boxes, best, THRESHOLD)
    return boxes[kept], best[kept]


@jax.jit
def candidates(
    weights: tuple[jax.Array, jax.Array], image: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Give the boxes with the best scores, and these."""
    scores, corrections = (
        jax.lax.conv_general_dilated(image[None], w, (STEP, STEP), "VALID")[0] for w in weights
    )
    rows, columns = scores.shape[1:]
    top, left = jnp.mgrid[:rows, :columns].reshape(2, -1) * STEP
    places = jnp.stack([left, top, left + SIDE, top + SIDE], axis=1)
    best, order = jax.lax.top_k(scores.reshape(-1), MOST)
    return (places + corrections.reshape(4, -1).T)[order], best


def main() -> int:
    weights = drawn_weights()
    module = Head(*weights)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    agreed = True
    for seed in range(3):
        image = drawn_image(seed)
        found = {
            "PyTorch": module(torch.from_numpy(image)),
            "PyTorch, compiled": compiled(torch.from_numpy(image)),
            "JAX": head(tuple(map(jnp.asarray, weights)), jnp.asarray(image)),
        }
        arrays = {
            name: [np.asarray(a.detach() if isinstance(a, torch.Tensor) else a) for a in out]
            for name, out in found.items()
        }
        boxes, scores = arrays["PyTorch"]
        same = all(
            a.shape == b.shape and np.allclose(a, b, atol=1e-4)
            for out in arrays.values()
            for a, b in zip(out, arrays["PyTorch"], strict=True)
        )
        agreed &= same
        print(f"  image {seed}: {len(boxes)} boxes stay of {MOST}, in all the same: {same}")
        for box, score in list(zip(boxes, scores, strict=True))[:3]:
            print(f"    {score:.2f} at {np.round(box).astype(int).tolist()}")
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
