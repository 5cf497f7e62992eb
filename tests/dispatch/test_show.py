"""`polyop show`: an operator's registrations and its whole table, with places."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from polyop.cli import main
from polyop.dispatch.keys import RUNTIME_KEYS
from polyop.dispatch.library import Library
from polyop.dispatch.table import fallthrough_kernel

#: A line of the table: the key, the reason, and where a kernel is from.
LINE = re.compile(r"  (\w+): ([a-z ]+?)(?: of (\w+))?(?: (built in|\S+:\d+))?$")


def kernel(x: Any) -> Any:
    return x


@pytest.fixture
def lib() -> Iterator[Library]:
    made = Library("show_here", "DEF")
    made.define("f(Tensor x) -> Tensor")
    made.define("f.more(Tensor x, int n) -> Tensor")
    yield made
    made.destroy()


def shown(capsys: pytest.CaptureFixture[str], name: str) -> str:
    assert main(["show", name]) == 0
    return capsys.readouterr().out


def test_every_entry_has_its_reason(lib: Library, capsys: pytest.CaptureFixture[str]) -> None:
    """S105: all keys are shown with the reason, the alias and the kernel's file and line."""
    lib.impl("f", kernel, "CPU")
    lib.impl("f", kernel)
    lib.impl("f", kernel, "FPGA")
    lib.impl("f", kernel, "Autograd")
    lib.impl("f", fallthrough_kernel, "XLA")
    text = shown(capsys, "show_here::f.default")
    lines = map(LINE.match, text.partition("dispatch table:\n")[2].splitlines())
    table = {m[1]: (m[2], m[3], m[4]) for m in lines if m}
    assert table.keys() == {"Undefined", *(k.name for k in RUNTIME_KEYS)}
    here = f"{__file__}:{kernel.__code__.co_firstlineno}"
    assert table["CPU"] == ("kernel", None, here)
    assert table["CUDA"] == ("math kernel", "CompositeImplicitAutograd", here)
    assert table["AutogradCPU"] == ("autograd kernel", "Autograd", here)
    assert table["AutogradOther"][0] == "ambiguous"
    assert table["XLA"][0] == "fallthrough"
    assert table["Python"] == ("backend fallback", None, "built in")
    assert table["TESTING_ONLY_GenericMode"][0] == "missing"


def test_registrations_are_marked(lib: Library, capsys: pytest.CaptureFixture[str]) -> None:
    """S105, S37: all registrations of a place are shown, the acting one first."""
    lib.impl("f", kernel, "CPU")
    over = Library("show_here", "IMPL", "CPU")
    over.impl("f", fallthrough_kernel)
    rules = shown(capsys, "show_here::f.default").partition("rules:\n")[2].splitlines()
    assert re.fullmatch(r"  CPU: .*test_show.py:\d+ \[fallthrough\]", rules[0])
    assert re.fullmatch(r"  CPU: .*test_show.py:\d+ \[overridden\]", rules[1])
    over.destroy()


def test_overloads(lib: Library, capsys: pytest.CaptureFixture[str]) -> None:
    """S105: a name shows all its overloads, a full name that one; an unknown one is an error."""
    assert shown(capsys, "show_here::f").count("dispatch table:") == 2
    assert "int n" in shown(capsys, "show_here::f.more")
    assert main(["show", "show_here::f.less"]) == 2
    assert "has no overload 'less'" in capsys.readouterr().err
