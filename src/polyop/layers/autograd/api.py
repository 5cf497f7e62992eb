"""`backward`, `grad`, hooks, and what autograd adds to `Tensor`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.dispatch.bits import GRAD, INFERENCE_TENSOR, LIFTED, NO_GRAD, NUMPY, OTHER, WRAPPED
from polyop.dispatch.context import word
from polyop.errors import AutogradError, UsageError, UsageTypeError
from polyop.layers.autograd.arrays import zeros
from polyop.layers.autograd.engine import owned_array, refuse_complex, run, run_scalar
from polyop.layers.autograd.hooks import add_hook, add_hook_after, call_hooks, keep_grad
from polyop.layers.autograd.leaves import ANY_FROZEN, FROZEN, STORING, accumulate, add_array
from polyop.layers.autograd.node import Node, is_result, leaf_node
from polyop.lazy import load
from polyop.ops.define import ON_TENSORS
from polyop.tensor.asked import CAPTURES, answer, assigned, note
from polyop.tensor.tensor import MADE, Tensor, is_differentiable, of_array

Tensors = Tensor | Sequence[Tensor]


def backward(  # noqa: PLR0917 - PyTorch's signature
    tensors: Tensors,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Tensors | None = None,
) -> None:
    """Add the gradients of leaves, or of chosen tensors, to their `.grad`.

    Args:
        tensors: what to differentiate.
        grad_tensors: the gradient of each; None for the one of a scalar.
        retain_graph: whether the graph can be used again; by default, if `create_graph`.
        create_graph: whether the gradients can be differentiated.
        grad_variables: PyTorch's former name of `grad_tensors`.
        inputs: what to add to, leaves or not; None for all leaves.

    Raises:
        AutogradError: a tensor does not require grad, a gradient does not fit,
            or the graph was freed.
        UsageError: gradients are given under both names.
    """
    if grad_variables is not None and grad_tensors is not None:
        fix = "leave grad_variables out"
        raise UsageError("the gradients are given under two names", op="backward", fix=fix)
    roots = _roots(_listed(tensors), grad_variables if grad_tensors is None else grad_tensors)
    if create_graph:
        _refuse_levels(_listed(tensors))
    wanted = None if inputs is None else frozenset(map(_node, _listed(inputs)))
    retain = create_graph if retain_graph is None else retain_graph
    found = run(roots, retain=retain, create_graph=create_graph, wanted=wanted)
    for node, g in found.items():
        accumulate(node, g)


def grad(  # noqa: PLR0917 - PyTorch's signature
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """Give the gradients of outputs with respect to inputs; no `.grad` changes.

    Args:
        outputs: what to differentiate.
        inputs: with respect to what; leaves or not.
        grad_outputs: the gradient of each output; None for the one of a scalar.
        retain_graph: whether the graph can be used again; by default, if `create_graph`.
        create_graph: whether the gradients can be differentiated.
        only_inputs: True; no other gradients are changed.
        allow_unused: whether an input that is not reached gives None.
        is_grads_batched: whether each of `grad_outputs` has an axis of samples in front; the
            gradients then have one too, and backward runs once for all samples.
        materialize_grads: whether an input that is not reached gives zeros.

    Raises:
        AutogradError: an input is not reached or does not require grad, a
            gradient does not fit, or the graph was freed.
        UsageError: `only_inputs` is not True.
    """
    if only_inputs is not True:
        problem, fix = "grad changes no other gradients", "leave only_inputs out"
        raise UsageError(problem, op="grad", seen=f"only_inputs={only_inputs}", fix=fix)
    if is_grads_batched:
        rest = (retain_graph, create_graph, True, allow_unused, False, materialize_grads)
        return _grad_batched(_listed(outputs), _listed(inputs), grad_outputs, *rest)
    wanted = _listed(inputs)
    nodes = [_node(t, i) for i, t in enumerate(wanted)]
    roots = _roots(_listed(outputs), grad_outputs)
    if create_graph:
        _refuse_levels(_listed(outputs))
    retain = create_graph if retain_graph is None else retain_graph
    found = run(roots, retain=retain, create_graph=create_graph, wanted=frozenset(nodes))
    done = []
    for i, (tensor, node) in enumerate(zip(wanted, nodes, strict=True)):
        g = found.get(node)
        if g is not None and node in nodes[:i]:
            g = ON_TENSORS["clone"](g)
        if g is not None and node.seq == 0:
            g = call_hooks(node.hooks, g)
        done.append(_unused(i, tensor, allow_unused, materialize_grads) if g is None else g)
    return tuple(done)


def _grad_batched(
    outputs: list[Tensor], inputs: list[Tensor], grad_outputs: Any, *rest: Any
) -> tuple[Tensor | None, ...]:
    """Give the gradients for each sample of the gradients of the outputs."""
    given = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs or ())
    if not given or any(g is not None and not g.ndim for g in given):
        raise AutogradError(
            "with is_grads_batched each gradient has an axis of samples in front",
            argument="grad_outputs",
            seen=repr(grad_outputs)[:80],
            fix="stack the gradients of the samples, and pass them as grad_outputs",
        )
    found: list[Any] = []

    def of_sample(*samples: Tensor) -> list[Tensor]:
        every = iter(samples)
        filled = [None if g is None else next(every) for g in given]
        found[:] = grad(outputs, inputs, filled, *rest)
        return [g for g in found if g is not None]

    batches = load("polyop.layers.vmap.api:vmap")(of_sample)(*[g for g in given if g is not None])
    done = iter(batches)
    return tuple([None if g is None else next(done) for g in found])


def _unused(i: int, tensor: Tensor, allow: bool | None, materialize: bool) -> Tensor | None:
    if materialize:
        return zeros(tensor.payload.shape, tensor.payload.dtype, tensor)  # type: ignore[no-any-return]
    if not allow:
        raise AutogradError(
            f"input {i} is not reached from the outputs",
            argument=f"inputs[{i}]",
            seen=f"shape {tuple(tensor.shape)}",
            fix="pass allow_unused=True to get None for it, or materialize_grads=True for zeros",
        )
    return None


def _listed(tensors: Any) -> list[Tensor]:
    one = isinstance(tensors, Tensor) or not hasattr(tensors, "__iter__")
    found = [tensors] if one else list(tensors)
    for tensor in found:
        if not isinstance(tensor, Tensor):
            seen, fix = f"{type(tensor).__name__} {tensor!r:.60}", "give a Tensor, or several"
            raise UsageTypeError("not a Tensor", seen=seen, fix=fix)
    return found


def _node(tensor: Tensor, i: int = 0) -> Node:
    if not tensor.keys & GRAD:
        raise AutogradError(
            f"input {i} does not require grad",
            argument=f"inputs[{i}]",
            seen=f"shape {tuple(tensor.shape)}, dtype {tensor.dtype}",
            fix="call requires_grad_() on it before it is used",
        )
    found: Node = tensor.grad_node
    return found


def _refuse_levels(outputs: Sequence[Tensor]) -> None:
    """Refuse to record the gradient of what a running `func.grad` watches: it keeps bare values.

    Raises:
        AutogradError: an output belongs to a transform.
    """
    for i, tensor in enumerate(outputs):
        if tensor.keys & LIFTED:
            raise AutogradError(
                f"the gradient of output {i}, a tensor inside {tensor.payload.level.kind}, cannot "
                "be differentiated again",
                argument=f"outputs[{i}]",
                seen=f"create_graph=True, shape {tuple(tensor.shape)}",
                fix="use polyop.func.grad or polyop.func.vjp inside the transformed function",
            )


def _roots(outputs: Sequence[Tensor], given: Any) -> list[tuple[Node, Tensor]]:
    if given is None or isinstance(given, Tensor):
        given = [given] * len(outputs) if given is None else [given]
    given = list(given)
    if len(given) != len(outputs):
        raise AutogradError(
            "there must be one gradient per output",
            declared=f"{len(outputs)} outputs",
            seen=f"{len(given)} gradients",
        )
    return [_root(i, t, g) for i, (t, g) in enumerate(zip(outputs, given, strict=True))]


def _root(i: int, output: Tensor, g: Tensor | None) -> tuple[Node, Tensor]:
    if not output.keys & GRAD:
        raise AutogradError(
            f"output {i} does not require grad, so it has no gradient",
            argument=f"outputs[{i}]",
            seen=f"shape {tuple(output.shape)}, dtype {output.dtype}",
            fix="call requires_grad_() on an input, and compute outside of no_grad",
        )
    if g is None:
        g = _one(i, output)
    elif tuple(g.shape) != tuple(output.shape):
        raise AutogradError(
            f"the gradient of output {i} has the wrong shape",
            argument=f"grad_outputs[{i}]",
            declared=f"shape {tuple(output.shape)}",
            seen=f"shape {tuple(g.shape)}",
        )
    if output.keys & OTHER and not g.keys & OTHER:
        g = ON_TENSORS["add"](g, ON_TENSORS["zero_of"](output, []))  # of the output's library
    return output.grad_node, g


def _one(i: int, output: Tensor) -> Tensor:
    payload = output.payload
    if payload.shape != () and output.size != 1:
        raise AutogradError(
            f"output {i} is no scalar, so its gradient must be given",
            argument=f"outputs[{i}]",
            declared="one element",
            seen=f"shape {tuple(payload.shape)}",
            fix="sum it, or pass a gradient of its shape",
        )
    refuse_complex(output.dtype, f"outputs[{i}]")
    if payload.__class__ is np.ndarray:
        return of_array(np.ones(payload.shape, payload.dtype))
    one: Tensor = ON_TENSORS["ones_like"](output)
    return one


# -- methods of Tensor --------------------------------------------------------


def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    """Make it a leaf that gradients flow to, or one that they do not.

    Raises:
        AutogradError: its dtype has no gradients, it is no leaf, or it belongs to a transform.
    """
    if requires_grad == bool(self.keys & GRAD):
        return self
    if not requires_grad:
        if not self.is_leaf:
            raise AutogradError(
                "a tensor that was computed cannot stop requiring grad", fix="use .detach()"
            )
        FROZEN.add(self.grad_node)
        self.keys &= ~GRAD
        return self
    if not is_differentiable(self.dtype):
        raise AutogradError(
            "only floating-point and complex tensors can require grad", seen=self.dtype
        )
    if self.keys & WRAPPED:
        raise AutogradError(
            "a tensor inside a transform cannot be made to require grad",
            fix="use polyop.func.grad inside the transformed function",
        )
    if self.keys & INFERENCE_TENSOR:
        raise AutogradError(
            "a tensor made under inference_mode cannot require grad",
            fix="clone it outside of inference_mode",
        )
    node: Node | None = getattr(self, "grad_node", None)
    if node is not None and node in FROZEN:  # the graphs of before lead to it again
        FROZEN.discard(node)
    else:
        self.grad_node = leaf_node(self.dtype)
    self.keys |= GRAD
    return self


def _get_grad(self: Tensor) -> Tensor | None:
    if self.payload.__class__ is not np.ndarray:
        note(self, "grad")
    node = getattr(self, "grad_node", None)
    kept = None if node is None else getattr(node, "kept", None)
    return answer(self, "grad", kept) if CAPTURES else kept


def _set_grad(self: Tensor, value: Tensor | None) -> None:
    if CAPTURES:
        assigned(self, "grad")
    if value is None and self.keys & GRAD:
        self.grad_node.kept = None
        return
    if value is not None:
        if not isinstance(value, Tensor):
            raise UsageTypeError("a gradient is a Tensor", seen=type(value).__name__)
        if tuple(value.shape) != tuple(self.shape):
            raise AutogradError(
                "a gradient has the shape of its tensor",
                declared=f"shape {tuple(self.shape)}",
                seen=f"shape {tuple(value.shape)}",
            )
        if value.dtype != self.dtype:
            raise AutogradError(
                "a gradient has the dtype of its tensor",
                declared=f"dtype {self.dtype}",
                seen=f"dtype {value.dtype}",
                fix=f"convert it with .astype({self.dtype})",
            )
    if getattr(self, "grad_node", None) is None:
        self.grad_node = leaf_node(self.dtype)
    self.grad_node.kept = value


#: The bits of a plain tensor with a history, and those of a context in which somebody watches.
_RECORDED, _WATCHED = NUMPY | GRAD, ~NO_GRAD


def _backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensors | None = None,
) -> None:
    """Add the gradients of leaves to their `.grad`; see `polyop.autograd.backward`."""
    plain = gradient is None and inputs is None and not create_graph
    plain = plain and self.keys == _RECORDED and not MADE.subclasses
    if plain and not word() & _WATCHED and self.payload.size == 1:
        grads = run_scalar(self, bool(retain_graph))
        while grads:
            node, g = grads.popitem()
            if node.kept is None and not node.hooks and not ANY_FROZEN:
                new = owned_array(node, g)
                with STORING:  # `_stored`, in this frame
                    if node.kept is None:
                        node.kept = new
                        continue
            add_array(node, g)
        return
    backward(
        self, None if gradient is None else [gradient], retain_graph, create_graph, inputs=inputs
    )


def _register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> Any:
    """Call `hook(gradient)` in backward; what it returns replaces the gradient.

    Hooks run in the order of their registration; the handle's `remove()` takes one away.

    Raises:
        AutogradError: the tensor does not require grad; in backward, if another shape comes back.
    """
    return add_hook(_node(self), hook)


def _register_hook_after(self: Tensor, hook: Callable[[Tensor], None]) -> Any:
    """Call `hook(tensor)` when `backward` has added to the `.grad` of this leaf.

    Raises:
        AutogradError: the tensor is no leaf, or does not require grad.
    """
    _node(self)
    return add_hook_after(self, hook)


def _retain_grad(self: Tensor) -> None:
    """Keep `.grad` of a tensor that is no leaf."""
    keep_grad(_node(self))


def _grad_fn(self: Tensor) -> Node | None:
    t = self if self.payload.__class__ is np.ndarray else note(self, "is_leaf")
    node = t.grad_node if t.keys & GRAD else None
    main: Node | None = None
    if node is not None and node.seq:
        main = node.n0 if is_result(node) else node
    return answer(self, "grad_fn", main) if CAPTURES else main


_METHODS: dict[str, Any] = {
    "requires_grad_": requires_grad_,
    "backward": _backward,
    "register_hook": _register_hook,
    "register_post_accumulate_grad_hook": _register_hook_after,
    "retain_grad": _retain_grad,
    "grad": property(_get_grad, _set_grad, doc="The gradient that backward added up, or None."),
    "grad_fn": property(_grad_fn, doc="The node that computed it, or None for a leaf."),
}
for _name, _method in _METHODS.items():
    setattr(Tensor, _name, _method)
