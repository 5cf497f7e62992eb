"""The demonstration: what `make demo` runs first ends well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polyop

ROOT = Path(__file__).parent.parent


def test_the_demonstration_runs() -> None:
    """Every example operator does what the demonstration shows of it."""
    script = str(ROOT / "examples" / "demo.py")
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "hann: a factory, chosen by its device" in found.stdout


def test_a_factory_on_the_device_meta_needs_its_fake_rule_only() -> None:
    """S104, S143: a call without tensors that asks for `meta` is answered by the fake rule."""

    @polyop.custom_op("demo_test::hann", mutates_args=(), device_types="cpu")
    def hann(length: int, device: polyop.device) -> polyop.Tensor:
        return polyop.ones(length)

    hann.register_fake(lambda length, device: polyop.empty(length, device=device))
    assert hann(5, "meta").device.type == "meta"
    assert hann(5, "cpu").device.type == "cpu"
