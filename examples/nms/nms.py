"""Non-maximum suppression: of boxes that overlap, the one with the best score stays.

How many stay depends on data, so the size of the result is one that the fake rule makes.
"""

import numpy as np

import polyop
from polyop import Tensor


def check_boxes(boxes: Tensor, scores: Tensor) -> None:
    """Require the shapes that kernel and fake rule take."""
    polyop.check(boxes.ndim == 2 and boxes.shape[1] == 4, "boxes have the shape (n, 4)")
    polyop.check(scores.shape == boxes.shape[:1], "one score for each box")


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Give the area that `box` shares with each of `boxes`, over the area that both cover."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    both = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - shared
    return np.divide(shared, both, out=np.zeros_like(shared), where=both > 0)


@polyop.custom_op("examples::nms", mutates_args=(), tags=polyop.Tag.dynamic_output_shape)
def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Give the boxes that stay, best score first.

    Args:
        boxes: shape (n, 4): left, top, right, bottom.
        scores: shape (n,); of equal ones the first is better, and NaN is the worst.
        threshold: a box goes if it overlaps a better one that stays by more than this.

    Returns:
        Their indices: int64, shape (count,).
    """
    check_boxes(boxes, scores)
    corners = boxes.numpy().astype(np.float64)
    left = np.argsort(-scores.numpy().astype(np.float64), kind="stable")
    kept = []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[overlap(corners[best], corners[left]) <= threshold]
    return polyop.from_numpy(np.array(kept, np.int64))


@nms.register_fake
def nms_fake(boxes, scores, threshold):
    check_boxes(boxes, scores)
    count = polyop.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(count, dtype=polyop.int64)


nms.register_autograd(None)  # indices have no gradient


def drawn_boxes(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw boxes that overlap, and their scores."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 10, (n, 2)), rng.uniform(1, 6, (n, 2))
    return np.concatenate([corner, corner + size], axis=1), rng.random(n)


@nms.samples
def nms_samples():
    for n in (6, 1, 0):
        boxes, scores = drawn_boxes(n)
        yield [polyop.tensor(boxes), polyop.tensor(scores), 0.3]
