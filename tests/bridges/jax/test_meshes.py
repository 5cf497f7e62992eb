"""Operators over several devices; the laws run in one process that has four."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

LAWS = {
    "the_first_program_may_be_over_a_mesh": "S66: what is tested first knows of no mesh",
    "index_rule": "S56: under jit XLA cuts the loops of an index signature, and no named axis",
    "gradient_under_the_rule": "S56: so it does where the gradient calls the operator",
    "batches_under_the_rule": "S56: and where vmap adds a loop",
    "without_a_rule_a_cut_array_is_refused": "S2: what nobody may cut is refused, with both ways",
    "explicit_meshes_cut_loops": "S56: where types say how arrays are cut, loops stay cut so",
    "explicit_meshes_are_differentiated_and_batched": "S124: and gradients lie as arguments do",
    "explicit_meshes_refuse_what_nothing_cuts": "S2: without a signature that is refused by name",
    "pointwise_operators_are_cut": "S196: what is pointwise is cut along all axes",
    "shard_map_gives_each_device_its_piece": "S66: shard_map calls the operator with pieces",
    "what_is_whole_everywhere_gets_the_sum_of_gradients": "S124: gradients are summed over devices",
    "collectives_stand_beside_operators": "S66: JAX knows along what a result varies",
    "results_stay_where_arguments_are": "S66: a result is on the device of its arguments",
}


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    """Give what the laws said, by name; nothing where one holds."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.bridges.jax.over_devices"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.parametrize("law", LAWS)
def test_a_law_over_four_devices(found, law):
    """S56, S66: over several devices results are those of one, or a named error."""
    assert not found[law], found[law]


def test_every_law_is_run(found):
    """S56: each law of the process is one of these tests."""
    assert list(found) == list(LAWS)
