"""A photograph through a vision pipeline: exported, lowered to ONNX Runtime, run elsewhere.

python examples/onnx_pipeline/pipeline.py

The pipeline calls two operators of the examples. `crop` is Pillow; its author
says what it is in ONNX, so it is in ONNX Runtime's model with all around it.
`softplus` is a C function without a translation; it stays between two parts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from crop import crop
from softplus_c import softplus

import polyop
from polyop.export import Dim, export, register_onnx, save, to_backend

HERE = Path(__file__).parent
BOX = [150, 60, 386, 332]  # left, top, right, bottom: the face
MEAN = polyop.tensor([[[0.485]], [[0.456]], [[0.406]]])
SPREAD = polyop.tensor([[[0.229]], [[0.224]], [[0.225]]])
FILTERS = polyop.from_numpy(np.random.default_rng(0).normal(size=(16, 27)).astype("float32"))


def photograph() -> polyop.Tensor:
    """Give the photograph: (channels, height, width), float32 from 0 to 1."""
    pixels = np.asarray(Image.open(HERE.parent / "photo.jpg"), np.float32) / 255
    return polyop.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def convolve(x: polyop.Tensor, filters: polyop.Tensor) -> polyop.Tensor:
    """Apply 3x3 filters: each pixel's neighbourhood is a column, and a product does the rest."""
    height, width = x.shape[1] - 2, x.shape[2] - 2
    shifted = [x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    columns = polyop.stack(shifted, axis=1).reshape(27, height * width)
    return (filters @ columns).reshape(filters.shape[0], height, width)


def pool(x: polyop.Tensor) -> polyop.Tensor:
    """Halve height and width: the greatest of each 2x2 block."""
    channels, height, width = x.shape
    return x.reshape(channels, height // 2, 2, width // 2, 2).max(axis=(2, 4))


def pipeline(pic: polyop.Tensor) -> dict[str, polyop.Tensor]:
    """Give the features of a face, and how strongly each filter answers."""
    face = (crop(pic, BOX) - MEAN) / SPREAD
    features = pool(softplus(convolve(face, FILTERS)))
    return {"features": features, "answers": features.mean(axis=(1, 2)).softmax(0)}


@register_onnx(crop)
def crop_onnx(model: Any, pic: Any, box: list[int]) -> Any:
    """Say what `crop` is in ONNX: black where the box leaves the picture, then a slice."""
    left, top, right, bottom = box
    size = model.op("Shape", model.cast(pic, np.dtype("float32")), start=1, end=3)
    over = model.op("Sub", model.ints([bottom, right]), size)
    after = model.op("Max", over, model.ints([0, 0]))
    before = [max(0, -top), max(0, -left)]
    pads = model.op("Concat", model.ints([0, *before, 0]), after, axis=0)
    padded = model.op("Pad", model.cast(pic, np.dtype("float32")), pads)
    begin = [top + before[0], left + before[1]]
    end = [bottom + before[0], right + before[1]]
    part = model.op("Slice", padded, *map(model.ints, (begin, end, [1, 2])))
    return model.cast_any(part, model.out.dtype)


def milliseconds(fn: Callable[..., Any], *args: Any) -> float:
    """Give the time of a call: the best of several."""
    times = []
    for _ in range(9):
        start = time.perf_counter()
        fn(*args)
        times.append(time.perf_counter() - start)
    return min(times) * 1000


def main() -> None:
    pic = photograph()
    eager = pipeline(pic)
    shapes = {"pic": {1: Dim("height"), 2: Dim("width")}}
    program = export(pipeline, (pic,), dynamic_shapes=shapes)
    lowered = to_backend(program, "onnx")
    print(f"exported: {len(program.graph.nodes)} nodes; lowered, of these are left:\n")
    print(lowered.graph, "\n")
    with tempfile.TemporaryDirectory() as folder:
        saved, answer = Path(folder, "pipeline.polyop"), Path(folder, "answer.npz")
        save(lowered, saved)
        print(f"saved: {saved.stat().st_size / 1000:.0f} kB; another process loads and runs it:\n")
        subprocess.run([sys.executable, str(HERE / "run_saved.py"), saved, answer], check=True)
        found = np.load(answer)
        for name, value in eager.items():
            error = np.abs(found[name] - value.numpy()).max()
            print(f"  {name} {value.shape}: the greatest difference from eager is {error:.1e}")
            assert np.allclose(found[name], value.numpy(), rtol=1e-4, atol=1e-4)
    small = polyop.clone(pic[:, :200, :300])  # another size, and the box leaves the picture
    assert polyop.allclose(lowered.module()(small)["features"], pipeline(small)["features"],
                           rtol=1e-4, atol=1e-4)  # fmt: skip
    print("\n  another size of picture, which the box leaves: equal too")
    print(f"\n  eager polyop   {milliseconds(pipeline, pic):6.2f} ms")
    print(f"  exported       {milliseconds(program.module(), pic):6.2f} ms")
    print(f"  ONNX Runtime   {milliseconds(lowered.module(), pic):6.2f} ms")


if __name__ == "__main__":
    main()
