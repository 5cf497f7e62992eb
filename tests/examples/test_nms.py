"""Non-maximum suppression: the boxes that stay, in NumPy and at the end of two detection heads."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch._dynamo.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop.errors import DynamicOutputShapeError, PolyopError

FOLDER = Path(__file__).parents[2] / "examples" / "nms"
sys.path.insert(0, str(FOLDER))
nms: Any = import_module("nms").nms
drawn_boxes: Any = import_module("nms").drawn_boxes
detect: Any = import_module("detect")


def kept_plainly(boxes: Any, scores: Any, threshold: float) -> list[int]:
    """Give the boxes that stay, by comparing each with all better ones that stay."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    kept: list[int] = []
    for i in order:
        if all(shared_part(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def shared_part(a: Any, b: Any) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / both if both > 0 else 0.0


@given(st.integers(0, 40), st.integers(0, 999), st.sampled_from([0.0, 0.1, 0.5, 0.9]))
@settings(max_examples=60, deadline=None)
def test_the_same_boxes_stay(n: int, seed: int, threshold: float) -> None:
    """S144: in NumPy, PyTorch and JAX, the boxes are those of the definition, in its order."""
    boxes, scores = drawn_boxes(n, seed)
    scores = np.round(scores, 1)  # so that some are equal
    wanted = kept_plainly(boxes, scores, threshold)
    for convert in (np.asarray, torch.tensor):
        found = nms(convert(boxes), convert(scores), threshold)
        assert found.tolist() == wanted
    narrow = boxes.astype(np.float32), scores.astype(np.float32)
    wanted = kept_plainly(*[a.astype(np.float64) for a in narrow], threshold)
    assert nms(*map(jnp.asarray, narrow), threshold).tolist() == wanted


def test_wrong_shapes_are_refused_by_name() -> None:
    """S2: in each library the error says what boxes and scores are to be."""
    for convert in (np.asarray, torch.tensor, jnp.asarray):
        with pytest.raises(PolyopError, match=r"boxes have the shape \(n, 4\)"):
            nms(convert(np.ones((3, 5), np.float32)), convert(np.ones(3, np.float32)), 0.5)
        with pytest.raises(PolyopError, match="one score for each box"):
            nms(convert(np.ones((3, 4), np.float32)), convert(np.ones(2, np.float32)), 0.5)


def test_jit_refuses_a_size_that_depends_on_data() -> None:
    """S144: what JAX cannot compile is refused, and the error says where the call can go."""
    boxes, scores = map(jnp.asarray, drawn_boxes(5))
    with pytest.raises(DynamicOutputShapeError, match="examples::nms"):
        jax.jit(nms, static_argnums=2)(boxes, scores, 0.5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_the_head_is_one_graph_and_has_gradients(backend: str) -> None:
    """S144, S117: compiled in one graph, a head has the boxes and gradients of the eager one."""
    torch._dynamo.reset()
    count = torch._dynamo.testing.CompileCounterWithBackend(backend)
    heads = [detect.Head(*detect.drawn_weights()) for _ in range(2)]
    compiled = torch.compile(heads[0], fullgraph=True, backend=count)
    sizes = set()
    for seed in range(3):
        image = torch.from_numpy(detect.drawn_image(seed, squares=seed + 2))
        for run, head in ((compiled, heads[0]), (heads[1], heads[1])):
            head.zero_grad()
            boxes, scores = run(image)
            (boxes.square().sum() + scores.sum()).backward()
            sizes.add(len(boxes))
        torch.testing.assert_close(heads[0].correction.weight.grad, heads[1].correction.weight.grad)
        torch.testing.assert_close(heads[0].score.weight.grad, heads[1].score.weight.grad)
    assert count.frame_count == 1 and len(sizes) > 1


def test_jax_differentiates_through_the_boxes_that_stay() -> None:
    """S124: JAX's gradient of the boxes is PyTorch's, though the operator has none itself."""
    image, weights = detect.drawn_image(1), detect.drawn_weights()
    module = detect.Head(*weights)
    module(torch.from_numpy(image))[0].square().sum().backward()
    arrays = tuple(map(jnp.asarray, weights))
    found = jax.grad(lambda w: (detect.head(w, jnp.asarray(image))[0] ** 2).sum())(arrays)
    wanted = module.correction.weight.grad
    assert wanted is not None
    np.testing.assert_allclose(found[1], wanted, rtol=1e-3, atol=1e-2)


def test_the_script_agrees_in_both_frameworks() -> None:
    """S66: eager, compiled and in JAX, the head finds the same boxes."""
    ran = subprocess.run(
        [sys.executable, str(FOLDER / "detect.py")], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("in all the same: True") == 3


def test_a_batch_is_refused_where_sizes_differ() -> None:
    """S157: samples that keep different counts have no stacked result, and the error says so."""
    boxes, scores = drawn_boxes(2)
    boxes[1] = boxes[0] + 0.1
    pair = torch.tensor(np.stack([boxes, boxes + [[0.0], [50.0]]]))
    assert [len(kept_plainly(b, scores, 0.3)) for b in pair.numpy()] == [1, 2]
    with pytest.raises(polyop.errors.VmapError, match="examples::nms"):
        torch.vmap(lambda b: nms(b, torch.tensor(scores), 0.3))(pair)
