"""What is remembered of calls holds nothing of them."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
from tests.dispatch.registry_state import known_aside

from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.modes import DispatchMode
from polyop.layers.autograd.transforms import grad
from polyop.layers.fake import FakeTensorMode
from polyop.layers.vmap import vmap
from polyop.tensor.tensor import Tensor, of_array


def twice_rule(info: Any, in_dims: Any, x: Tensor) -> Any:
    return x * 2, in_dims[0]


@custom_op("memo::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return of_array(x.numpy() * 2)


twice.register_fake(lambda x: x.new_empty(x.shape))
twice.register_vmap(twice_rule)
twice.register_autograd(lambda ctx, g: 2 * g)


class Through(DispatchMode):
    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return op(*args, **(kwargs or {}))


def call_in_all_ways(kept: list[weakref.ref[Any]]) -> None:
    """Call it under everything, and note what must not live on."""
    x = of_array(np.ones((2, 2)))
    kept.append(weakref.ref(x))
    with Through() as mode:
        twice(x)
    kept.append(weakref.ref(mode))
    with FakeTensorMode() as fakes:
        twice(fakes.from_tensor(x))
    kept.append(weakref.ref(fakes))

    def watched(x: Any) -> Any:
        kept.append(weakref.ref(x.payload.level))
        return twice(x).sum()

    vmap(watched)(x)
    grad(watched)(x)


def test_a_memo_holds_nothing_of_its_calls() -> None:
    """S107: handlers are remembered by key set; modes, transforms and tensors go when they end."""
    with known_aside():
        kept: list[weakref.ref[Any]] = []
        call_in_all_ways(kept)
        assert len(twice._opoverload.memo) >= 4
        gc.collect()
        assert [ref() for ref in kept] == [None] * 5
