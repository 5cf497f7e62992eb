"""A walk through the examples: define, run, differentiate, batch, trace, compile.

python examples/demo.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import polyop

sys.path.insert(0, str(Path(__file__).parent))
from crop import crop
from nonzero import nonzero
from sine import sine
from softplus_c import softplus
from solve import solve_tridiagonal
from window import hann

FOLDER = Path(__file__).parent


def title(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")


def photograph() -> polyop.Tensor:
    """Give the photograph: (channels, height, width), float32 from 0 to 1."""
    pixels = np.asarray(Image.open(FOLDER / "photo.jpg"), np.float32) / 255
    return polyop.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def show_crop() -> None:
    title("crop: Pillow as an operator, on a photograph")
    pic, box = photograph(), [150, 60, 380, 330]
    face = crop(pic, box)
    print(f"  {tuple(pic.shape)} cropped to {tuple(face.shape)}")
    pic.requires_grad_()
    (crop(pic, box) ** 2).sum().backward()
    inside = pic.grad[:, 60:330, 150:380]
    exact = polyop.allclose(inside, 2 * face)
    outside = float(pic.grad.abs().sum() - inside.abs().sum())
    print(f"  gradient: 2x the part inside the box ({exact}), {outside:g} outside")
    batch = polyop.stack([pic.detach(), pic.detach() * 0.5])
    print(f"  a batch of two: {tuple(polyop.vmap(lambda p: crop(p, box))(batch).shape)}")


def show_compile() -> None:
    title("compile: one graph, though Pillow cannot be looked into")

    @polyop.compile(fullgraph=True)
    def brightest(pic):
        part = crop(pic, [10, 10, 40, 40])
        return (part * 1.5).clip(0.0, 1.0).max()

    pic = photograph()
    eager = (crop(pic, [10, 10, 40, 40]) * 1.5).clip(0.0, 1.0).max()
    print(f"  compiled {float(brightest(pic)):.4f}, eager {float(eager):.4f}")


def show_trace() -> None:
    title("trace: a size that depends on data stays a size")
    x = polyop.tensor([0.0, 3.0, 0.0, 5.0])
    graph = polyop.graph.make_fx(lambda x: nonzero(x) * 2, tracing_mode="symbolic")(x)
    print("  " + graph.print_readable(print_output=False).strip().replace("\n", "\n  "))
    print(f"  on other data: {graph(polyop.ones(4)).tolist()}")


def show_others() -> None:
    title("sine: a kernel that writes")
    out = polyop.empty(3)
    sine(polyop.tensor([0.0, 0.5, 1.0]), out)
    print(f"  {out}")
    title("solve: SciPy, and the adjoint gradient")
    rng = np.random.default_rng(0)
    bands, b = rng.normal(size=(3, 4)), rng.normal(size=4)
    bands[1] += 5.0
    worked = polyop.autograd.gradcheck(
        solve_tridiagonal,
        (polyop.tensor(bands, requires_grad=True), polyop.tensor(b, requires_grad=True)),
    )
    print(f"  agrees with finite differences: {worked}")
    title("softplus: a C kernel")
    print(f"  {softplus(polyop.tensor([-1.0, 0.0, 1.0]))}")
    title("hann: a factory, chosen by its device")
    print(f"  {hann(5, 'cpu')}, and without data: {hann(5, 'meta')}")


if __name__ == "__main__":
    show_crop()
    show_compile()
    show_trace()
    show_others()
    print("\nNow the laws: polyop check examples\n")
