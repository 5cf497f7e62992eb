"""`ctx`: what an author's gradient keeps from forward to backward (S125)."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from polyop.dispatch.bits import INFERENCE_TENSOR
from polyop.errors import AutogradError, UsageTypeError
from polyop.layers.autograd.saved import Twin, check, count_of, revive, twin
from polyop.tensor.tensor import Tensor


class Context:
    """What `setup_context` fills and `backward` reads; any attribute may be set on it.

    Attributes:
        needs_input_grad: one bool per argument of the schema, lists for lists.
    """

    # Defaults stand on the class: most contexts change one or two of them.
    needs_input_grad: Any = ()
    _saved: Sequence[Any] = ()
    _versions: Sequence[int] = ()
    _names: tuple[str, ...] = ()
    _ids: tuple[int, ...] = ()
    _without: tuple[int, ...] = ()
    _dirty: tuple[int, ...] = ()
    _materialize = True
    #: What data depend on that `setup_context` took out of tensors (`taken.py`).
    _taken: tuple[Tensor, ...] = ()
    #: Who is running: the node, a weak reference to it, or at least what has its `op`.
    _node: Any = None

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors; that nobody writes to them until backward is checked."""
        first = tensors[0] if len(tensors) == 1 else None  # the common call, without a loop
        if first.__class__ is Tensor and not first.keys & INFERENCE_TENSOR:
            version = first.version
            self._saved = tensors
            self._versions = (version if version.__class__ is int else version.n,)
            return
        versions = []
        for tensor in tensors:
            # By class first: what is saved is nearly always a plain tensor.
            if tensor.__class__ is Tensor and not tensor.keys & INFERENCE_TENSOR:
                version = tensor.version
                versions.append(version if version.__class__ is int else version.n)
                continue
            if not isinstance(tensor, (Tensor, type(None))):
                raise UsageTypeError(
                    "save_for_backward takes tensors and None",
                    seen=f"{type(tensor).__name__} {tensor!r:.80}",
                    fix="keep anything else as an attribute: ctx.name = value",
                )
            versions.append(0 if tensor is None else count_of(tensor))
        self._saved = tensors
        self._versions = versions

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `jvp`, which alone has a use for them."""

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved.

        Raises:
            AutogradError: a saved tensor was written since.
        """
        saved = self._saved
        if len(saved) == 1 and saved[0].__class__ is Tensor and saved.__class__ is tuple:
            version = saved[0].version
            if (version if version.__class__ is int else version.n) == self._versions[0]:
                return saved
        for one, then in zip(saved, self._versions, strict=False):
            if one.__class__ is not Tensor:
                break
            version = one.version
            if (version if version.__class__ is int else version.n) != then:
                break
        else:  # plain tensors, none written since
            return saved if saved.__class__ is tuple else tuple(saved)
        return tuple([self._load(i, one) for i, one in enumerate(saved)])

    def _load(self, i: int, saved: Any) -> Any:
        if saved is None:
            return None
        node, inner = self._node, saved.tensor if saved.__class__ is Twin else saved
        if node.__class__ is weakref.ref:
            node = node()
        if node is None:
            return inner
        name = self._names[i] if i < len(self._names) else self._name_of(i, saved)
        check(node, name, inner, self._versions[i])
        return revive(node, saved)

    def _name_of(self, i: int, saved: Any) -> str:
        """Name what was saved by the argument that it was; both are alive, so ids say it."""
        node = self._node() if self._node.__class__ is weakref.ref else self._node
        names = getattr(node, "names", None) or node.more[1].names  # type: ignore[union-attr]
        found = self._ids.index(id(saved)) if id(saved) in self._ids else -1
        return names[found] if found >= 0 else f"saved tensor {i}"

    def mark_non_differentiable(self, *results: Tensor) -> None:
        """Say that results do not require grad."""
        self._without += tuple(map(id, results))

    def mark_dirty(self, *inputs: Tensor) -> None:
        """Say that inputs of a `Function` were written."""
        self._dirty += tuple(map(id, inputs))

    def set_materialize_grads(self, value: bool) -> None:
        """Say whether absent gradients come as zeros (they do) or as None."""
        self._materialize = value

    def seal(self, named: Sequence[tuple[str, Any]], results: Sequence[Any], kept: Any) -> None:
        """End the forward: name what was saved, and keep no result itself.

        Args:
            named: arguments and their names.
            results: the tensors that will have this node.
            kept: what to keep of each, or None for a twin (NOTE [Saved results]).
        """
        self._names = tuple(_name(saved, i, named) for i, saved in enumerate(self._saved))
        if any(saved is not None for saved in self._saved):
            self._saved = tuple(_sealed(saved, results, kept) for saved in self._saved)

    def keep_twin(self, result: Any) -> None:
        """Keep no result itself; see NOTE [Saved results]."""
        self._saved = [twin(s, -1) if s is result else s for s in self._saved]

    def keep_twins(self, results: Sequence[Any]) -> None:
        """Do the same for several results, if one of them was saved."""
        if any(s is r for s in self._saved for r in results):
            self._saved = [_sealed(s, results, None) for s in self._saved]

    def running(self, node: Any) -> Context:
        """Give the context as backward sees it: the same attributes, and who runs.

        What backward changes on it is gone with it, so that backward may run again.
        """
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._node = node
        return made


def _name(saved: Any, i: int, named: Iterable[tuple[str, Any]]) -> str:
    for name, value in named:
        if value is saved:
            return name
    return f"saved tensor {i}"


def _sealed(saved: Any, results: Sequence[Any], kept: Any) -> Any:
    for number, result in enumerate(results):
        if saved is result and saved is not None:
            if kept is not None:
                return kept[number]
            return twin(saved, number if len(results) > 1 else -1)
    return saved


def refuse(op: Any, problem: str, **parts: Any) -> AutogradError:
    """Make the error of a gradient that does not fit."""
    return AutogradError(problem, op=getattr(op, "_schema", op), **parts)
