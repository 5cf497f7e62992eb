"""The command: what it prints, what it writes, and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from polyop.cli import main

BROKEN = Path(__file__).parent / "broken_operators"
RIGHT = str(BROKEN / "right.py")
WRONG = str(BROKEN / "fake_wrong_shape.py")

OPERATOR = """
import numpy as np
from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array

@custom_op("{name}", mutates_args=())
def op(x: Tensor) -> Tensor:
    return of_array(x.numpy() * 2)

op.register_fake(lambda x: x.new_empty(x.shape))
"""


def write(folder: Path, name: str, more: str = "", file: str = "ops_here.py") -> str:
    path = folder / file
    path.write_text(OPERATOR.format(name=name) + more)
    return str(path)


def run(*arguments: str) -> int:
    return main(["check", *arguments])


def test_a_table_of_operators_and_laws(capsys: pytest.CaptureFixture[str]) -> None:
    """S207: the table has a column for each operator and a row for each law."""
    assert run(RIGHT) == 0
    out = capsys.readouterr().out
    for word in ("right::scaled", "right::halve_", "schema", "faketensor", "gradient", "ok"):
        assert word in out
    assert "BROKEN" not in out


def test_reasons_why_laws_do_not_apply(capsys: pytest.CaptureFixture[str]) -> None:
    """A law that does not apply is shown as such, with its reason."""
    assert run(RIGHT) == 0
    out = capsys.readouterr().out
    assert "right::halve_: test_gradient: does not apply: the operator writes its arguments" in out


def test_failures_come_below_with_all_parts(capsys: pytest.CaptureFixture[str]) -> None:
    """S207: below the table, each failure has its sample, reason, place and fix."""
    assert run(WRONG) == 1
    out = capsys.readouterr().out
    assert "BROKEN" in out
    assert "broken::fake_wrong_shape at sample 0 (x: float64[2, 3])" in out
    for part in ("declared: shape [2, 3]", "seen:     shape [2]", "where:    ", "fix:      "):
        assert part in out
    assert "1 operator, 1 broken law" in out


def test_several_targets(capsys: pytest.CaptureFixture[str]) -> None:
    """S207: several files are one report; one broken law makes the status 1."""
    assert run(RIGHT, WRONG) == 1
    assert "4 operators, 1 broken law" in capsys.readouterr().out


def test_quiet_prints_failures_only(capsys: pytest.CaptureFixture[str]) -> None:
    """`--quiet` leaves out the table and the remarks."""
    assert run("--quiet", WRONG) == 1
    out = capsys.readouterr().out
    assert "operators and laws" not in out
    assert "does not apply" not in out
    assert "wrong about the shape" in out


@pytest.mark.parametrize("name", ["schema", "test_schema"])
def test_one_law_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--law` tries one law, with or without `test_`."""
    assert run("--law", name, WRONG) == 0
    out = capsys.readouterr().out
    assert "schema" in out and "faketensor" not in out


def test_an_unknown_law(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown law is a wrong use: status 2, with the nearest name."""
    assert run("--law", "test_shema", WRONG) == 2
    assert "did you mean 'test_schema'?" in capsys.readouterr().err


def test_json_report(tmp_path: Path) -> None:
    """S207: `--json FILE` writes verdict, reason, place and fix of each law."""
    file = tmp_path / "report.json"
    assert run("--quiet", "--json", str(file), WRONG) == 1
    data = json.loads(file.read_text())
    assert data["ok"] is False
    (op,) = data["operators"]
    assert op["name"] == "broken::fake_wrong_shape"
    laws = op["laws"]
    assert laws["test_schema"] == {"verdict": "holds", "reason": ""}
    assert laws["test_vmap"]["verdict"] == "does not apply"
    broken = laws["test_faketensor"]
    assert broken["verdict"] == "broken"
    assert broken["declared"] == "shape [2, 3] (the fake rule)"
    assert broken["seen"] == "shape [2] (the kernel)"
    assert "fake_wrong_shape.py:" in broken["where"] and broken["fix"]


def test_json_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json -` prints the data, and nothing else."""
    assert run("--json", "-", RIGHT) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


class Page(HTMLParser):
    """The tags and links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []
        self.void = {"meta"}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.links += [v or "" for k, v in attrs if k in {"src", "href"}]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_page(tmp_path: Path) -> None:
    """S207: `--html PAGE` writes one well-formed page that needs no other file."""
    file = tmp_path / "report.html"
    assert run("--quiet", "--html", str(file), RIGHT, WRONG) == 1
    text = file.read_text()
    page = Page()
    page.feed(text)
    assert not page.open
    assert not page.links and "script" not in page.seen
    assert text.count("<section>") == 1
    assert "wrong about the shape of the result" in text and "fake_wrong_shape.py:" in text


def test_the_page_is_escaped(tmp_path: Path) -> None:
    """What an author's code says is text in the page, never markup."""
    target = write(
        tmp_path,
        "cli_tests::escaped",
        "\ndef fail(x):\n    raise ValueError('<script>alert(1)</script>')\n"
        "op.register_fake(fail)\nop_samples = [(of_array(np.ones(2)),)]\n",
    )
    file = tmp_path / "report.html"
    assert run("--quiet", "--html", str(file), target) == 1
    assert "<script>" not in file.read_text()
    assert "&lt;script&gt;" in file.read_text()


SAMPLES = [
    "op_samples = [(of_array(np.ones(2)),)]",
    "op_samples = [of_array(np.ones(2))]",
    "op_samples = [((of_array(np.ones(2)),), {})]",
    "op_samples = [{'x': of_array(np.ones(2))}]",
    "op_samples = [(np.ones(2),)]",
    "SAMPLES = {op: [(of_array(np.ones(2)),)]}",
    "SAMPLES = {op._opoverload: [(of_array(np.ones(2)),)]}",
    "SAMPLES = {'op': lambda: [(of_array(np.ones(2)),)]}",
    "@op.samples\ndef some():\n    yield (of_array(np.ones(2)),)",
    "op.samples([(of_array(np.ones(2)),)])",
]


@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_samples_are_found(number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """S207: samples come from `@op.samples`, or from a list beside the operator, in any form."""
    more = SAMPLES[number].replace("'op'", f"'samples_{number}'")
    if number % 2:  # by the operator's name, and by the variable's
        more = more.replace("op_samples", f"samples_{number}_samples")
    target = write(tmp_path, f"cli_tests::samples_{number}", more, f"samples_{number}.py")
    assert run("--json", "-", target) == 0
    (op,) = json.loads(capsys.readouterr().out)["operators"]
    assert op["samples"] == 1 and op["laws"]["test_schema"]["verdict"] == "holds"


def test_an_operator_without_samples_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator that could not be checked is no success, and the report says what to add."""
    assert run(write(tmp_path, "cli_tests::bare", file="bare.py")) == 1
    out = capsys.readouterr().out
    assert "cli_tests::bare: no samples; add @bare.samples" in out
    assert "1 operator, 0 broken laws, 1 not checked" in out


def test_operators_of_a_library_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """S207: operators that a file defines by schema are found, each overload for itself."""
    path = tmp_path / "by_library.py"
    path.write_text(
        "import numpy as np\n"
        "from polyop.dispatch.library import Library\n"
        "from polyop.tensor.tensor import of_array\n"
        'lib = Library("cli_library", "DEF")\n'
        'lib.define("twice(Tensor x) -> Tensor")\n'
        'lib.define("twice.plus(Tensor x, float y) -> Tensor")\n'
        'lib.impl("twice", lambda x: of_array(x.numpy() * 2), "CPU")\n'
        'lib.impl("twice.plus", lambda x, y: of_array(x.numpy() * 2 + y), "CPU")\n'
        'SAMPLES = {"cli_library::twice": [np.ones(2)]}\n'
    )
    assert run("--json", "-", "--law", "schema", str(path)) == 1
    first, second = json.loads(capsys.readouterr().out)["operators"]
    assert first["name"] == "cli_library::twice"
    assert first["laws"]["test_schema"]["verdict"] == "holds"
    assert second["name"] == "cli_library::twice.plus"
    assert "no samples" in second["problem"]


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ("op_samples = [('text',)]", "a sample does not fit"),
        ("def wrong_samples():\n    raise KeyError('k')", "the samples raised KeyError: 'k'"),
    ],
)
def test_wrong_samples_fail(
    samples: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Samples that do not fit, or raise, are reported and fail."""
    more = samples.replace("op_samples", "wrong_samples")
    name = f"cli_tests{len(samples)}::wrong"
    assert run(write(tmp_path, name, more, f"wrong_{len(samples)}.py")) == 1
    assert said in capsys.readouterr().out


def test_a_module_is_checked_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """S207: a module that can be imported is named with dots; a package with all its files."""
    package = tmp_path / "cli_tests_package"
    package.mkdir()
    (package / "__init__.py").write_text("from . import inner\n")
    sample = "inner_op_samples = [(of_array(np.ones(2)),)]\n"
    write(package, "cli_tests::inner_op", sample, "inner.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run("--json", "-", "cli_tests_package") == 0
    (op,) = json.loads(capsys.readouterr().out)["operators"]
    assert op["name"] == "cli_tests::inner_op"
    # Again, though it is imported already.
    assert run("--quiet", "cli_tests_package.inner") == 0


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no_such_file.py", "there is no file 'no_such_file.py'"),
        ("no_such_module_here", "there is no module 'no_such_module_here'"),
        ("json", "json defines no operator"),
    ],
)
def test_nothing_to_check(target: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A target without operators is a wrong use: status 2."""
    assert run(target) == 2
    assert said in capsys.readouterr().err


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    """`polyop show` prints schema, rules with their lines, and the dispatch table."""
    assert main(["show", "--load", RIGHT, "right::scaled"]) == 0
    out = capsys.readouterr().out
    assert "right::scaled(Tensor x, Tensor y, Tensor? bias=None, float factor=2." in out
    for slot in ("fake: ", "backward: ", "CompositeExplicitAutograd: ", "samples: "):
        assert slot in out
    assert out.count("right.py:") >= 5
    assert "dispatch table:" in out and "CPU: " in out


def test_show_of_an_unknown_operator(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown operator is a wrong use, and the nearest name is given."""
    assert main(["show", "--load", RIGHT, "right::scaledd"]) == 2
    assert "did you mean 'right::scaled'?" in capsys.readouterr().err


def test_show_finds_operators_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An operator that no import defines is shown with `--load`, which the error names."""
    path = write(tmp_path, "test_cli_loaded::op")
    assert main(["show", "test_cli_loaded::op"]) == 2
    assert "--load FILE_OR_MODULE" in "".join(capsys.readouterr())
    assert main(["show", "--load", path, "test_cli_loaded::op"]) == 0
    assert "test_cli_loaded::op(Tensor x) -> Tensor" in capsys.readouterr().out


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    """`polyop list` prints the schemas of one namespace, sorted."""
    assert main(["list", "--load", RIGHT, "right"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.partition("(")[0] for line in lines]
    assert names == sorted(names)
    assert [name for name in names if not name.endswith(".functional")] == [
        "right::halve_",
        "right::running",
        "right::scaled",
    ]


def test_the_installed_command() -> None:
    """The command runs in a process of its own, and its status is the exit status."""
    done = subprocess.run(
        [sys.executable, "-m", "polyop", "check", "--quiet", WRONG],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "wrong about the shape of the result" in done.stdout
