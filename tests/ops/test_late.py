"""Families of operators that are defined when they are first used, each looked at from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from polyop.dispatch.late_operators import LATE_OPERATORS

ROOT = Path(__file__).parent.parent.parent / "src" / "polyop"


def fresh(program: str) -> None:
    """Run a program in a process in which no late family is there yet."""
    begin = """
        import sys
        import polyop
        from polyop.dispatch.late_operators import LATE_OPERATORS
        from polyop.dispatch.registry import DEFINITIONS, PACKETS
        LATE = sorted(set(LATE_OPERATORS.values()))
        assert not [place for place in LATE if place in sys.modules]
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(begin) + dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_list_has_every_late_operator() -> None:
    """S58: each name in the list is defined by its file, and no file defines others late."""
    fresh("""
        early = set(PACKETS)
        for place in LATE:
            __import__(place)
            assert {n for n, p in LATE_OPERATORS.items() if p == place} <= set(PACKETS), place
        assert set(PACKETS) - early == set(LATE_OPERATORS)
    """)


def test_formulas_name_what_is_there() -> None:
    """A gradient's text calls operators of its own family, or of those that are always there."""
    fresh(r"""
        import re
        late = {name.partition("::")[2] for name in LATE_OPERATORS}
        for name, definition in DEFINITIONS.items():
            formula = definition.op.rule("formula")
            for text in formula.text.values() if formula else ():
                assert not late & set(re.findall(r"\w+", text)), name
    """)


@pytest.mark.parametrize(
    "use",
    [
        "polyop.mean(x)", "x.mean()", "polyop.ops.core.mean(x)", "polyop.Tensor.mean(x)",
        "x.std()", "polyop.cumsum(x, axis=0)", "x.cumsum(0)", "x.sort()", "x.gather(0, i)",
        "polyop.topk(x, 1)", "x.topk(1)", "x.det()", "polyop.linalg.inv(x)", "x.trace()",
        "polyop.var(x)", "polyop.searchsorted(x[0], x[1])",
        "polyop.ops.core.norm2.default(x)", "getattr(x, 'softmax')(-1)",
    ],
)  # fmt: skip
def test_every_way_to_a_late_operator_brings_it(use: str) -> None:
    """S58: by function, method, class, attribute of the namespace: the first use finds it."""
    fresh(f"""
        x, i = polyop.eye(2), polyop.zeros((1, 2), dtype=polyop.int64)
        assert not [place for place in LATE if place in sys.modules]
        first, second = {use}, {use}
        assert type(first) is type(second)
        assert [place for place in LATE if place in sys.modules]
    """)


def test_names_are_the_same_objects() -> None:
    """Two names of one function give one object, and signatures are the standard's."""
    fresh("""
        import inspect
        assert polyop.cumsum is polyop.cumulative_sum is polyop.ops.core.cumulative_sum.default.op
        assert polyop.cumprod is polyop.cumulative_prod
        wanted = "(x, /, *, axis=None, keepdims=False)"
        assert str(inspect.signature(polyop.mean)) == wanted
        assert polyop.Tensor.mean.__name__ == "mean"
    """)


def test_gradients_and_batches_of_late_operators() -> None:
    """S118, S155: what is defined late has its rules at once."""
    fresh("""
        x = polyop.asarray([[2.0, 1.0], [1.0, 3.0]])
        g = polyop.func.grad(lambda t: t.mean() + t.sort(1).sum() + t.det())(x)
        assert polyop.allclose(g, polyop.asarray([[4.25, 0.25], [0.25, 3.25]])), g
        assert polyop.vmap(lambda t: t.softmax(0))(x).shape == (2, 2)
    """)


def test_a_subclass_may_call_the_method_below() -> None:
    """A method of a subclass calls the one of `Tensor` of its name, also as the first."""
    fresh("""
        class Marked(polyop.Tensor):
            def mean(self):
                return super().mean() + 1
        x, marked = polyop.ones(3), Marked()
        marked.payload, marked.keys, marked.version = x.payload, x.keys, 0
        assert float(marked.mean()) == float(marked.mean()) == 2
        assert float(x.mean()) == 1
    """)


def test_registrations_find_what_is_not_there_yet() -> None:
    """S34, S37: a kernel put over a late operator's acts; a second definition is refused."""
    fresh("""
        lib = polyop.Library("core", "FRAGMENT")
        try:
            lib.define("sort(Tensor x) -> Tensor")
        except polyop.errors.DuplicateRegistrationError:
            pass
        else:
            raise AssertionError("defined twice")
        lib.impl("mean", lambda x, axis, keepdims: polyop.zeros(()), "CPU")
        assert float(polyop.ones(3).mean()) == 0
        lib._destroy()
        assert float(polyop.ones(3).mean()) == 1
    """)


def test_errors_know_late_names() -> None:
    """S4: a name that is nearly that of a late operator is told it, and nothing is read."""
    fresh("""
        try:
            polyop.ops.core.argsorts
        except AttributeError as error:
            assert "core::argsort" in str(error)
        assert "polyop.ops.searching" not in sys.modules
    """)


def test_layers_read_no_late_family() -> None:
    """Layers are read under the registry's lock, for which the import of a family waits."""
    late = "|".join(re.escape(place) for place in set(LATE_OPERATORS.values()))
    facades = {"__init__.py", "fft.py", "linalg.py"}
    for path in ROOT.rglob("*.py"):
        if path.relative_to(ROOT).parts[0] not in {"ops", *facades}:
            found = re.search(rf"^(from|import) ({late})\b", path.read_text(), re.MULTILINE)
            assert found is None, path


def test_threads_may_be_first_together() -> None:
    """S4: threads that use late operators at the same moment all find them."""
    fresh("""
        from threading import Barrier, Thread
        x = polyop.eye(3)
        uses = [
            lambda: x.mean(), lambda: polyop.mean(x), lambda: polyop.ops.core.mean(x),
            lambda: x.sort(), lambda: polyop.argsort(x), lambda: polyop.linalg.inv(x),
            lambda: x.det(), lambda: polyop.softmax(x, axis=0), lambda: polyop.cumsum(x, axis=0),
            lambda: polyop.ops.core.norm2(x), lambda: polyop.linalg.svd(x), lambda: x.cumsum(0),
        ]
        barrier, found = Barrier(len(uses)), []
        def run(use):
            barrier.wait()
            found.append(use())
        threads = [Thread(target=run, args=(use,)) for use in uses]
        [t.start() for t in threads]
        [t.join(60) for t in threads]
        assert len(found) == len(uses)
    """)
