"""Operators that call one function in some setting, so that a program keeps it as one node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from polyop.graph import GraphModule
from polyop.hop.batches import in_batch, on_batch
from polyop.hop.control import ControlOperator
from polyop.hop.derived import SubgraphOperator
from polyop.hop.forms import Flat, Form, Group, breach
from polyop.hop.pullbacks import places_of, pullback
from polyop.hop.reuse import same_program
from polyop.hop.sharing import like
from polyop.hop.steps import check_function, fake_result
from polyop.hop.subgraph import Subgraph
from polyop.layers.autocast import autocast
from polyop.layers.autograd.modes import enable_grad, no_grad
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.trace.tracer import Tracer
from polyop.layers.vmap.batch import VmapLevel, peel
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]


class Wrapper(ControlOperator):
    """Base of operators that call one function, in a context that the options name."""

    names = ("the function",)
    gives = True

    def context(self, options: dict[str, Any]) -> AbstractContextManager[Any]:
        """Give what the function runs inside."""
        return nullcontext()

    def arguments(self, form: Form) -> list[tuple[Any, ...]]:
        """Give what the function gets."""
        return [form.groups[0]]

    def eager(self, form: Form) -> Any:
        """Call the function in the context."""
        with self.context(form.options):
            return form.functions[0](*form.groups[0])

    def flattened(self, form: Form) -> Form:
        """Put the context into the function: its gradient and its batch need it too."""
        made = super().flattened(form)
        (fn,) = made.functions
        return made._replace(functions=(Within(self, fn, form.options),))  # type: ignore[arg-type]

    def structure(self, form: Form) -> Any:
        """Give the structure of what the function gave."""
        return form.functions[0].__wrapped__.result  # type: ignore[attr-defined]

    def samples(self, form: Form, mode: FakeTensorMode) -> list[Group]:
        """Give the operands."""
        return [tuple(mode.constant(x) if isinstance(x, Tensor) else x for x in form.groups[0])]

    def outcome(self, form: Form, results: Sequence[Group], mode: FakeTensorMode) -> Group:
        """Give the results."""
        return tuple(like(results, [fake_result(mode, x) for x in results[0]]))

    def pull(self, form: Form, grads: Sequence[Any]) -> list[Any]:
        """Call it on the gradient of the function."""
        (fn,), (operands,) = form.functions, form.groups
        needed = fn.needed  # type: ignore[attr-defined]
        chosen = places_of(operands, needed)
        wanted = [i for i, g in enumerate(grads) if g is not None]
        back = pullback(fn, len(operands), chosen, wanted, needed)  # type: ignore[arg-type]
        given = (*operands, *[grads[i] for i in wanted])
        found = iter(self.again(Form((back,), (given,), form.options)))
        places = set(chosen)
        return [next(found) if i in places else None for i in range(len(operands))]

    def batch(self, form: Form, level: VmapLevel) -> Any:
        """Call it on the function of a whole batch."""
        (fn,), (operands,) = form.functions, form.groups
        pairs = [peel(x, level) for x in operands]
        found: list[bool] = []
        call = on_batch(fn, [a for _, a in pairs], level, found, ())  # type: ignore[arg-type]
        out = self.below(Form((call,), (tuple(v for v, _ in pairs),), form.options), level)
        axes = [0 if differs else None for differs in found]
        return tuple(in_batch(x, a, level) for x, a in zip(out, axes, strict=True))


class Within(Flat):
    """A function of leaves in the context of its operator."""

    def __init__(self, hop: Wrapper, fn: Flat, options: dict[str, Any]) -> None:
        super().__init__(fn, None, fn.name)
        self.hop = hop
        self.options = options

    def __call__(self, *leaves: Any) -> Group:
        """Call the function in the context."""
        with self.hop.context(self.options):
            return super().__call__(*leaves)

    def leaf_names(self, operands: Sequence[Any]) -> list[str]:
        """Name the leaves of the operands, as the function does."""
        found: list[str] = self.__wrapped__.leaf_names(operands)  # type: ignore[attr-defined]
        return found


class WrapWithSetGradEnabled(Wrapper):
    """Calls a function with grad mode on or off.

    Args:
        enabled: whether calls inside are recorded.
        wrapped_fn: the function.
        operands: what it is called with.

    Example:
        >>> import polyop
        >>> x = polyop.ones(2).requires_grad_()
        >>> polyop.hop.wrap_with_set_grad_enabled(False, lambda x: x * 2, x).requires_grad
        False
    """

    def __call__(self, enabled: bool, wrapped_fn: Fn, *operands: Any) -> Any:
        """Call the function."""
        return self.enter(enabled, wrapped_fn, *operands)

    def parse(self, enabled: bool, wrapped_fn: Fn, *operands: Any) -> Form:
        """Give the form of a call, checked."""
        check_function(self, wrapped_fn, "wrapped_fn")
        return Form((wrapped_fn,), (operands,), {"enabled": enabled})

    def spell(self, form: Form) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of a call."""
        return (form.options["enabled"], *form.functions, *form.groups[0]), {}

    def context(self, options: dict[str, Any]) -> AbstractContextManager[Any]:
        """Set grad mode."""
        return enable_grad() if options["enabled"] else no_grad()

    def autograd(self, *args: Any, **kwargs: Any) -> Any:
        """Record the call, or not, as it says itself."""
        form = self.parse(*args, **kwargs)
        inside = form.is_flat and form.functions[0].recorded  # type: ignore[attr-defined]
        with nullcontext() if inside else self.context(form.options):
            return super().autograd(*args, **kwargs)

    def grad(self, *args: Any, **kwargs: Any) -> Any:
        """Record the call, or not, as it says itself."""
        to, *rest = args
        form = self.parse(*rest, **kwargs)
        inside = form.is_flat and form.functions[0].recorded  # type: ignore[attr-defined]
        with nullcontext() if inside else self.context(form.options):
            return super().grad(to, *rest, **kwargs)


class WrapWithAutocast(Wrapper):
    """Calls a function under autocast.

    Args:
        device_type: the device whose tensors are cast.
        dtype: what `autocast_dtype` answers inside.
        enabled: False turns autocast off inside.
        cache_enabled: kept for programs of PyTorch; there is no cache.
        wrapped_fn: the function.
        operands: what it is called with.

    Example:
        >>> import polyop
        >>> call = polyop.hop.wrap_with_autocast
        >>> call("cpu", polyop.bfloat16, True, None, lambda x: x + 1, polyop.ones(2))
        tensor([2., 2.])
    """

    def __call__(
        self,
        device_type: str,
        dtype: Any,
        enabled: bool,
        cache_enabled: bool | None,
        wrapped_fn: Fn,
        *operands: Any,
    ) -> Any:
        """Call the function."""
        return self.enter(device_type, dtype, enabled, cache_enabled, wrapped_fn, *operands)

    def parse(
        self,
        device_type: str,
        dtype: Any,
        enabled: bool,
        cache_enabled: bool | None,
        wrapped_fn: Fn,
        *operands: Any,
    ) -> Form:
        """Give the form of a call, checked."""
        check_function(self, wrapped_fn, "wrapped_fn")
        options = {"device_type": device_type, "dtype": dtype, "enabled": enabled}
        return Form((wrapped_fn,), (operands,), {**options, "cache_enabled": cache_enabled})

    def spell(self, form: Form) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of a call."""
        return (*form.options.values(), *form.functions, *form.groups[0]), {}

    def record(self, tracer: Tracer, form: Form, *, pre_dispatch: bool) -> Any:
        """Add the node of a call; a program that has the casts themselves runs without autocast."""
        if not pre_dispatch:
            form = form._replace(options={**form.options, "enabled": False})
        return super().record(tracer, form, pre_dispatch=pre_dispatch)

    def context(self, options: dict[str, Any]) -> AbstractContextManager[Any]:
        """Enter autocast."""
        return autocast(options["device_type"], options["dtype"], options["enabled"])


class InvokeSubgraph(Wrapper):
    """Calls a function that a program keeps once, however often it is called.

    Args:
        subgraph: the function, or a `GraphModule`.
        identifier: what calls of one subgraph have in common.
        operands: what it is called with.

    Example:
        >>> import polyop
        >>> polyop.hop.invoke_subgraph(lambda x: x * 2, "double", polyop.ones(2))
        tensor([2., 2.])
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._known: WeakKeyDictionary[Tracer, dict[str, list[Subgraph]]] = WeakKeyDictionary()

    def __call__(self, subgraph: Fn, identifier: str, *operands: Any) -> Any:
        """Call the function."""
        return self.enter(subgraph, identifier, *operands)

    def parse(self, subgraph: Fn, identifier: str, *operands: Any) -> Form:
        """Give the form of a call, checked."""
        check_function(self, subgraph, "subgraph")
        return Form((subgraph,), (operands,), {"identifier": identifier})

    def spell(self, form: Form) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of a call."""
        return (form.functions[0], form.options["identifier"], *form.groups[0]), {}

    def graphs(
        self, tracer: Tracer | None, form: Form, mode: FakeTensorMode, *, pre_dispatch: bool = False
    ) -> list[Subgraph]:
        """Trace the function; a program that is the same as that of a former call is that one."""
        (made,) = super().graphs(tracer, form, mode, pre_dispatch=pre_dispatch)
        if tracer is None or made.lifted:
            return [made]
        known = self._known.setdefault(tracer, {}).setdefault(form.options["identifier"], [])
        for former in known:
            if same_program(former.module, made.module):
                return [replace(made, module=former.module)]
        known.append(made)
        return [made]


class ForeachMap(Wrapper):
    """Calls a function for each row of lists.

    Args:
        op: called with one item of each list, and with the other operands as they are.
        operands: lists of one length, or Tensors and numbers.

    Returns:
        The list of what it gave.

    Raises:
        SubgraphError: the lists have different lengths, or there is none.

    Example:
        >>> import polyop
        >>> polyop.hop.foreach_map(polyop.add, [polyop.ones(1), polyop.zeros(1)], 1)
        [tensor([2.]), tensor([1.])]
    """

    def __call__(self, op: Fn, *operands: Any) -> Any:
        """Call the function for each row."""
        return self.enter(op, *operands)

    def parse(self, op: Fn, *operands: Any) -> Form:
        """Give the form of a call, checked."""
        check_function(self, op, "op")
        if isinstance(op, (Flat, GraphModule)):
            return Form((op,), (operands,), {})
        lengths = {len(x) for x in operands if isinstance(x, (list, tuple))}
        if len(lengths) != 1:
            breach(
                f"the lists of {self} have one length", self, argument="operands",
                seen=", ".join(map(str, sorted(lengths))) or "no list",
                fix="give lists of equal length",
            )  # fmt: skip
        return Form((rows(op, lengths.pop()),), (operands,), {})

    def spell(self, form: Form) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of a call."""
        return (*form.functions, *form.groups[0]), {}


def rows(fn: Fn, length: int) -> Fn:
    """Give the function of columns that calls a function for each row."""

    def of_columns(*columns: Any) -> list[Any]:
        lists = (list, tuple)
        return [fn(*[c[i] if isinstance(c, lists) else c for c in columns]) for i in range(length)]

    return of_columns


wrap = SubgraphOperator("wrap", cacheable=True)
wrap_with_set_grad_enabled = WrapWithSetGradEnabled("wrap_with_set_grad_enabled")
wrap_with_autocast = WrapWithAutocast("wrap_with_autocast")
invoke_subgraph = InvokeSubgraph("invoke_subgraph")
foreach_map = ForeachMap("foreach_map")
