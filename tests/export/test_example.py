"""The example: a photograph through an exported pipeline, in another process (S213, S214, S216)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "examples" / "onnx_pipeline"


def test_the_pipeline_runs_elsewhere_with_the_same_result() -> None:
    """S216: lowered to ONNX Runtime, saved, and read by a new process, it is the same."""
    ran = subprocess.run(
        [sys.executable, str(FOLDER / "pipeline.py")], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("call_delegate: ") + ran.stdout.count("call_delegate_1: ") == 2
    assert "examples.softplus" in ran.stdout and "examples.crop" not in ran.stdout
    assert "equal too" in ran.stdout and "ONNX Runtime" in ran.stdout
