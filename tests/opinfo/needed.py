"""What the other side needs: without PyTorch, or its published samples, there is nothing to run."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="PyTorch is the other side of this comparison")
pytest.importorskip("expecttest", reason="PyTorch's published samples import it")
