"""Load a saved program and run it on the photograph: `run_saved.py PROGRAM ANSWER`.

The file holds data alone. The operators that it names must be defined, so their
modules are imported; the function that was exported is not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

import crop  # noqa: F401 - defines examples::crop
import softplus_c  # noqa: F401 - defines examples::softplus

import polyop

if __name__ == "__main__":
    program = polyop.export.load(sys.argv[1])
    pixels = np.asarray(Image.open(Path(__file__).parent.parent / "photo.jpg"), np.float32) / 255
    pic = polyop.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    answer = program.module()(pic)
    np.savez(sys.argv[2], **{name: value.numpy() for name, value in answer.items()})
    print(f"  ran {program!r} without the module that exported it")
