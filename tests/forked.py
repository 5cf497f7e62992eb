"""Programs in processes of their own, forked from one that has imported what they begin with.

To import PyTorch and its compilers takes longer than most laws of a new process. Such a law asks
for a process that knows nothing of ours, and that is what a fork of an importing process is.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

#: What programs that compile or export begin with.
COMPILERS = "import torch, torch._inductor.compile_fx, torch.export._trace"
#: What programs begin with that find the compiler loaded, or that load it themselves.
DYNAMO = "import torch, torch._dynamo"
TORCH = "import torch"
#: What every run of the tests says to PyTorch: not to ask the C++ compiler which vectors it has,
#: which takes long on a new machine, and not to keep processes that wait for kernels to build.
#: And to JAX, which compiles each call: to emit fused loops the way that is quicker to compile.
QUICK = {
    "TORCHINDUCTOR_VEC_ISA_OK": "0",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false",
}


def run_forked(
    program: str,
    imported: str = COMPILERS,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program where `imported` was run before, and give what it wrote and how it ended."""
    server = _server(imported)
    with tempfile.TemporaryDirectory() as folder:
        said = [f"{folder}/out", f"{folder}/err"]
        wish = {
            "program": program,
            "cwd": os.fspath(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "said": said,
        }
        server.stdin.write(json.dumps(wish) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(program, code, *[Path(f).read_text() for f in said])


@cache
def _server(imported: str) -> Any:
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, imported],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.communicate)  # the end of its input is its end
    return server


def _serve() -> None:
    """Fork a process for each line of the input, and say how it ended."""
    sys.path[0] = ""  # as for a program on the command line
    exec(sys.argv[1], {})
    for line in sys.stdin:
        child = os.fork()
        if not child:
            return _become(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def _become(program: str, cwd: str, env: dict[str, str], said: list[str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for stream, file in enumerate([os.devnull, *said]):
        kind = os.O_RDWR if stream == 0 else os.O_WRONLY | os.O_CREAT
        os.dup2(os.open(file, kind), stream)
    sys.argv[1:] = []
    module = sys.modules["__main__"] = ModuleType("__main__")
    exec(compile(program, "<string>", "exec"), module.__dict__)


if __name__ == "__main__":
    _serve()
