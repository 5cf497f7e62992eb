"""The samples of the reference run here, with their import lines replaced.

The reference stands beside the checkout, not in it; without it there is
nothing to run, and the test says so. Replaced are the imports of torch, the
private paths that have a home here, and lines that need CUDA; the vision and
plotting helpers that the tutorial imports are stood in for.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import polyop
from polyop.dispatch.registry import DEFINITIONS, disown, places_of

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
pytestmark = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the reference does not stand beside this checkout"
)

REPLACED = (
    (r"from torch\.fx\.experimental\.proxy_tensor import", "from polyop.graph import"),
    (r"torch\._subclasses\.fake_tensor\.FakeTensorMode", "torch.fake.FakeTensorMode"),
    (r"^import torch$", "import polyop as torch"),
    (r"^from torch(\.library)? import", r"from polyop\1 import"),
    (r"^.*(\.cuda\(\)|x_cuda).*$", ""),
)


def replaced(code: str) -> str:
    for pattern, new in REPLACED:
        code = re.sub(pattern, new, code, flags=re.MULTILINE)
    return code


def markdown_samples(text: str) -> list[str]:
    return [s for s in re.findall(r"```py\n(.*?)```", text, re.DOTALL) if "import torch" in s]


def tutorial_samples(text: str) -> list[str]:
    blocks = re.findall(r"\.\. code-block:: default\n\n+((?:    .*\n|\s*\n)+)", text)
    return [textwrap.dedent(block) for block in blocks]


def to_pil_image(pic: polyop.Tensor) -> Image.Image:
    """Give an 8-bit image of a (channels, height, width) tensor; floats are scaled by 255."""
    array = pic.numpy(force=True)
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            array = (array * 255).astype(np.int64).astype(np.uint8)
    array = array.transpose(1, 2, 0)
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def pil_to_tensor(image: Image.Image) -> polyop.Tensor:
    """Give the (channels, height, width) tensor of an image's bytes."""
    array = np.array(image)
    array = array[:, :, None] if array.ndim == 2 else array
    return polyop.from_numpy(array).permute(2, 0, 1)


@pytest.fixture(autouse=True)
def a_namespace_of_its_own():
    """Each page is a program of its own: what it defined in `mylib` goes with it."""
    yield
    for name in [n for n in DEFINITIONS if n.startswith("mylib::")]:
        disown(places_of(name))


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the packages that the tutorial shows pictures with."""
    vision = ModuleType("torchvision.transforms.functional")
    vision.to_pil_image, vision.pil_to_tensor = to_pil_image, pil_to_tensor
    plot = ModuleType("matplotlib.pyplot")
    plot.imshow = lambda array: None
    for name in ("torchvision", "torchvision.transforms", "IPython", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, vision.__name__, vision)
    monkeypatch.setitem(sys.modules, plot.__name__, plot)
    sys.modules["matplotlib"].pyplot = plot


LIBRARY = (
    markdown_samples((REFERENCE / "torch_library.md").read_text()) if REFERENCE.is_dir() else []
)


@pytest.mark.parametrize("number", range(len(LIBRARY)))
def test_a_sample_of_the_library_page_runs(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Each sample of the torch.library page runs as it stands."""
    code = replaced(LIBRARY[number])
    assert "polyop" in code
    assert "torch.utils" not in code
    exec(compile(code, f"<library page, sample {number}>", "exec"), {"__name__": f"sample{number}"})


def test_there_are_samples() -> None:
    """The pages hold the samples that these tests are about."""
    text = (REFERENCE / "python_custom_operators_tutorial.rst").read_text()
    assert len(LIBRARY) == 3
    assert len(tutorial_samples(text)) == 13


def test_the_tutorial_runs(helpers: None) -> None:
    """The tutorial runs from its first line to its last, and its gradient is the one it shows."""
    samples = tutorial_samples((REFERENCE / "python_custom_operators_tutorial.rst").read_text())
    scope: dict[str, object] = {"__name__": "tutorial"}
    for number, sample in enumerate(samples):
        exec(compile(replaced(sample), f"<tutorial, sample {number}>", "exec"), scope)
    grad = scope["img"].grad.numpy()
    assert grad[:, 10:50, 10:50].min() == 1
    assert grad.sum() == 3 * 40 * 40


def test_the_uncommented_failure_of_the_tutorial(helpers: None) -> None:
    """What the tutorial says raises, raises: PIL's crop cannot be captured as one graph."""
    samples = tutorial_samples((REFERENCE / "python_custom_operators_tutorial.rst").read_text())
    scope: dict[str, object] = {"__name__": "tutorial_failure"}
    for sample in samples[:3]:
        exec(compile(replaced(sample), "<tutorial>", "exec"), scope)
    with pytest.raises(polyop.errors.CaptureError, match="numpy"):
        scope["f"](scope["img"])
