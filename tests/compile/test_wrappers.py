"""Compiled functions of traceable wrappers, with their gradients: results are those of eager."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop import Tensor, autograd, errors, tree
from polyop.extend import make_wrapper_subclass, return_and_correct_aliasing

X = np.linspace(0.2, 1.1, 6, dtype=np.float64).reshape(2, 3)


class Couple(Tensor):
    """Two tensors on which each call is made apart."""

    def __new__(cls, a: Tensor, b: Tensor, note: Any = None) -> Any:
        t = make_wrapper_subclass(cls, a.shape, dtype=a.dtype, device=a.device)
        t.a, t.b, t.note = a, b, note
        return t

    def __tensor_flatten__(self) -> Any:
        return ["a", "b"], self.note

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, context: Any, shape: Any, strides: Any) -> Any:
        return cls(inner["a"], inner["b"], context)

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = args, kwargs or {}
        notes = [x.note for x in tree.leaves(given) if isinstance(x, cls)]
        sides = []
        for side in ("a", "b"):
            inner = tree.map_leaves(lambda x, s=side: getattr(x, s) if isinstance(x, cls) else x,
                                    given)  # fmt: skip
            sides.append(op(*inner[0], **inner[1]))
        make = lambda x, y: cls(x, y, notes[0]) if isinstance(x, Tensor) else x  # noqa: E731
        out = tree.map_leaves(make, sides[0], sides[1])
        return return_and_correct_aliasing(op, args, kwargs, out)


CALLS: list[str] = []


class Scaled(Tensor):
    """A tensor times a number, which is kept apart; classes of users do such things."""

    def __new__(cls, inner: Tensor, scale: float) -> Any:
        t = make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)
        t.inner, t.scale = inner, scale
        return t

    def __tensor_flatten__(self) -> Any:
        return ["inner"], self.scale

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, context: Any, shape: Any, strides: Any) -> Any:
        return cls(inner["inner"], context)

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        CALLS.append(op.name())
        whole = lambda x: x.inner * x.scale if isinstance(x, cls) else x  # noqa: E731
        args, named = tree.map_leaves(whole, (args, kwargs or {}))
        wrap = lambda x: cls(x / 4.0, 4.0) if isinstance(x, Tensor) and x.ndim else x  # noqa: E731
        return tree.map_leaves(wrap, op(*args, **named))


def tensor(values: Any = X) -> Tensor:
    return polyop.from_numpy(np.array(values, "float64"))


def couple(k: float = 1.0, note: Any = None) -> Any:
    return Couple(tensor(X * k), tensor(X + k), note)


def scaled(k: float = 1.0) -> Any:
    return Scaled(tensor(X * k), 2.0)


def nested(k: float = 1.0) -> Any:
    return Couple(scaled(k), scaled(k + 1), "outer")


MAKERS: dict[str, Callable[..., Any]] = {
    "couple": couple, "scaled": scaled, "nested": nested, "plain": lambda k=1.0: tensor(X * k),
}  # fmt: skip


def plain(value: Any) -> Any:
    """Give what a tree holds: wrappers by class, context and what is inside."""
    if isinstance(value, Couple):
        return "Couple", value.note, plain(value.a), plain(value.b)
    if isinstance(value, Scaled):
        return "Scaled", value.scale, plain(value.inner)
    if isinstance(value, Tensor):
        return value.detach().numpy().round(12).tolist()
    return value if not isinstance(value, (list, tuple, dict)) else [
        plain(leaf) for leaf in tree.leaves(value)]  # fmt: skip


def outcome(f: Any, made: list[Any], seed: Any = None) -> Any:
    """Give results, what requires grad, and gradients."""
    results = [x for x in tree.leaves(f(*made)) if isinstance(x, Tensor)]
    grown = [x for x in results if x.requires_grad]
    loss = [(x * (seed or 1.0)).sum() for x in grown]
    wanted = [x for x in made if isinstance(x, Tensor) and x.requires_grad]
    seeds = [polyop.ones_like(x) for x in loss]
    grads = autograd.grad(loss, wanted, seeds, allow_unused=True) if loss else ()
    return plain(results), [x.requires_grad for x in results], plain(list(grads))


def both(f: Any, kinds: list[str], wants: list[bool]) -> tuple[Any, Any]:
    """Give the outcome of an eager call, and of compiled ones."""

    def made() -> list[Any]:
        found = [MAKERS[kind](1.0 + i) for i, kind in enumerate(kinds)]
        return [x.requires_grad_() if want else x for x, want in zip(found, wants, strict=True)]

    compiled = polyop.compile(f, fullgraph=True)
    first, second = outcome(compiled, made()), outcome(compiled, made())
    assert first == second
    return outcome(f, made()), first


FUNCTIONS: list[Callable[..., Any]] = [
    lambda x, y: x.sin() * y,
    lambda x, y: [x * y, {"more": (x + y).exp()}],
    lambda x, y: (x, x * 2.0, y),
    lambda x, y: (x * y).sum(),
    lambda x, y: (x * x).detach() + y,
]


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize(
    "kinds",
    [["couple", "couple"], ["scaled", "scaled"], ["nested", "nested"], ["couple", "plain"],
     ["plain", "scaled"], ["couple", "scaled"]],
)  # fmt: skip
@pytest.mark.parametrize("wants", [[True, True], [True, False], [False, True]])
def test_gradients_are_those_of_eager(f: Any, kinds: list[str], wants: list[bool]) -> None:
    """S165, S211: compiled over wrappers, results and gradients equal eager's, in one graph."""
    eager, compiled = both(f, kinds, wants)
    assert compiled == eager


def counting() -> tuple[Any, list[int]]:
    """Give a backend that counts the runs of its graphs."""
    runs: list[int] = []

    def backend(module: Any, inputs: Any) -> Any:
        def run(*given: Any) -> Any:
            runs.append(len(module.graph.nodes))
            return module(*given)

        return run

    return backend, runs


def test_a_call_is_two_programs_of_the_tensors_inside() -> None:
    """S165, S211: forward and backward run as graphs; no class is asked when they run."""
    backend, runs = counting()
    f = polyop.compile(lambda x: x.sin() * x, fullgraph=True, backend=backend)
    for _ in range(2):
        x = couple().requires_grad_()
        y = f(x)
        assert type(y) is Couple and y.requires_grad and not y.a.requires_grad
        y.backward(couple(2.0))
        expected = couple().requires_grad_()
        (expected.sin() * expected).backward(couple(2.0))
        assert type(x.grad) is Couple and plain(x.grad) == plain(expected.grad)
    assert len(runs) == 4
    g = polyop.compile(lambda x: x.exp() * x, fullgraph=True)
    x = scaled().requires_grad_()
    seed = Scaled(tensor(X), 4.0)
    g(x).backward(seed)
    CALLS.clear()
    y = g(x)
    assert CALLS == []
    y.backward(seed)
    assert set(CALLS) <= {"core::add"}  # the second gradient is added to the first


def test_gradients_that_look_otherwise_are_learned() -> None:
    """S211: a gradient of another class or context than expected is right, and then compiled."""
    backend, runs = counting()
    f = polyop.compile(lambda x: x * x, fullgraph=True, backend=backend)
    for seed in (tensor(X), Scaled(tensor(X), 0.5), tensor(X), couple(), Scaled(tensor(X), 7.0)):
        for _ in range(2):
            x, y = scaled().requires_grad_(), scaled().requires_grad_()
            f(x).backward(seed)
            (y * y).backward(seed)
            assert plain(x.grad) == plain(y.grad)
    assert len(runs) > 10


@pytest.mark.parametrize("kind", ["couple", "scaled", "plain"])
def test_parameters_get_their_gradients(kind: str) -> None:
    """S211: what the function reads from around it gets its gradient too, and is guarded."""
    f = lambda x: x * weight + x  # noqa: E731
    compiled = polyop.compile(f, fullgraph=True)
    for k in (1.0, 3.0):
        weight = MAKERS[kind](k).requires_grad_()
        found = []
        for run in (compiled, f):
            weight.grad = None
            x = couple() if kind != "scaled" else scaled()
            y = run(x)
            assert y.requires_grad
            y.sum().backward(polyop.ones_like(y.sum()))
            found.append((plain(y), plain(weight.grad)))
        assert found[0] == found[1]
        with polyop.no_grad():
            assert not compiled(x).requires_grad


@pytest.mark.parametrize("kind", ["couple", "scaled", "nested"])
def test_gradients_of_gradients(kind: str) -> None:
    """S211: a second gradient goes through the function itself, and is eager's."""

    def second(f: Any) -> Any:
        x = MAKERS[kind]().requires_grad_()
        y = f(x).sum()
        (g,) = autograd.grad([y], [x], [polyop.ones_like(y)], create_graph=True)
        return plain(autograd.grad([g], [x], [polyop.ones_like(g)])[0])

    f = lambda x: x * x * x  # noqa: E731
    assert second(polyop.compile(f, fullgraph=True)) == second(f)


def test_a_gradient_that_cannot_be_taken_again_is_refused() -> None:
    """S211: where the function would have to run again, and may not, there is a named error."""

    def f(x: Any, y: Any) -> Any:
        y.add_(1.0)
        return x * x

    x, y = couple().requires_grad_(), couple()
    z = polyop.compile(f, fullgraph=True)(x, y)
    assert plain(y) == plain(couple().add_(1.0))
    with pytest.raises(errors.AutogradError, match="repeat its writes"):
        autograd.grad([z], [x], [couple()], create_graph=True)


def test_writes_are_counted_at_the_wrapper() -> None:
    """S211: a compiled write to a wrapper is one that autograd sees: saved values are stale."""
    f = polyop.compile(lambda x: [x.add_(1.0)], fullgraph=True)
    x, w = couple(), couple().requires_grad_()
    y = w * x
    f(x)
    with pytest.raises(errors.AutogradError, match="written"):
        y.backward(couple())


def test_a_write_between_forward_and_backward_is_noticed() -> None:
    """S211: as in eager, what backward reads may not be written before it runs."""
    x, w = couple(), couple().requires_grad_()
    y = polyop.compile(lambda x, w: x * w, fullgraph=True)(x, w)
    x.mul_(2.0)
    with pytest.raises(errors.AutogradError):
        y.backward(couple())


def test_an_unused_result() -> None:
    """S211: a result that no gradient comes from adds nothing, as in eager."""

    def run(f: Any) -> Any:
        x = couple().requires_grad_()
        f(x)[1].backward(couple(3.0))
        return plain(x.grad)

    f = lambda x: (x.exp(), x * x)  # noqa: E731
    assert run(polyop.compile(f, fullgraph=True)) == run(f)


def test_what_cannot_be_captured() -> None:
    """S212: a look at data runs eagerly with its gradient, and is an error of `fullgraph`."""

    def f(x: Any) -> Any:
        return x * (2.0 if float(x.a.sum().item()) > 0 else 3.0)

    x, y = couple().requires_grad_(), couple().requires_grad_()
    for _ in range(5):
        x.grad = y.grad = None
        polyop.compile(f)(x).backward(couple())
        f(y).backward(couple())
        assert plain(x.grad) == plain(y.grad)
    with pytest.raises(errors.CaptureError, match="looks at data"):
        polyop.compile(f, fullgraph=True)(x)


def test_errors_of_the_function_are_its_own() -> None:
    """S211: what the function raises is raised, by each way to compile."""

    def f(x: Any) -> Any:
        raise KeyError(x.shape[0])

    for full in (True, False):
        with pytest.raises(KeyError, match="2"):
            polyop.compile(f, fullgraph=full)(couple().requires_grad_())


def test_errors_of_a_backward_come_when_it_runs() -> None:
    """S211: an author's backward that fails does so in the gradient, not in the compiled call."""

    class Fails(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2.0

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            raise KeyError("mine")

    x = couple().requires_grad_()
    y = polyop.compile(Fails.apply)(x)
    assert plain(y) == plain(couple() * 2.0)
    with pytest.raises(KeyError, match="mine"):
        y.backward(couple())
    with pytest.raises(errors.CaptureError, match="gradient cannot be captured"):
        polyop.compile(Fails.apply, fullgraph=True)(x)


def test_tensors_inside_that_require_grad_are_eager() -> None:
    """S165, S211: a class may give gradients to what is inside; then the call is the eager one."""
    x = Couple(tensor().requires_grad_(), tensor())
    f = lambda x: x.a * 2.0  # noqa: E731
    polyop.compile(f)(x).backward(tensor())
    assert plain(x.a.grad) == plain(tensor() * 2.0)
    with pytest.raises(errors.CaptureError, match="requires grad itself"):
        polyop.compile(f, fullgraph=True)(x)


def test_a_leaf_written_in_place_is_refused_as_in_eager() -> None:
    """S211: a write to a wrapper that requires grad raises eager's error, before any write."""
    x = couple().requires_grad_()
    for f in (lambda x: x.add_(1.0), polyop.compile(lambda x: x.add_(1.0), fullgraph=True)):
        with pytest.raises(errors.PolyopError) as caught:
            f(x)
        assert not isinstance(caught.value, errors.CaptureError)
        assert plain(x) == plain(couple())


def test_other_tensors_in_a_given_wrapper() -> None:
    """S211: a function that puts another tensor into its argument does so, compiled or not."""

    def f(x: Any) -> Any:
        x.a = x.a + 1.0
        return x * 2.0

    for wants in (False, True):
        x, y = (couple().requires_grad_(wants) for _ in range(2))
        assert plain(polyop.compile(f)(x)) == plain(f(y))
        assert plain(x) == plain(y)
        with pytest.raises(errors.CaptureError):
            polyop.compile(f, fullgraph=True)(x)


def test_the_same_wrapper_twice() -> None:
    """S211: that two arguments are one tensor is part of what a program is for."""
    f = lambda x, y: (x * y, x is y)  # noqa: E731
    compiled = polyop.compile(f, fullgraph=True)
    for same in (True, False, True):
        x = couple().requires_grad_()
        y = x if same else couple(2.0).requires_grad_()
        z, found = compiled(x, y)
        z.backward(couple())
        assert found is same
        expected = (x.detach() + y.detach() if same else y.detach()) * couple()
        assert plain(x.grad) == plain(expected)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.sampled_from(["sin", "tanh", "mul", "add", "sum", "detach"]), max_size=5),
    st.sampled_from(["couple", "scaled", "nested"]),
    st.booleans(),
)
def test_chains_of_calls(names: list[str], kind: str, wants: bool) -> None:
    """S211: any composition gives what eager gives, values and gradients."""

    def f(x: Any, y: Any) -> Any:
        z = x
        for name in names:
            z = z * y if name == "mul" else z + y if name == "add" else getattr(z, name)()
        return z

    eager, compiled = both(f, [kind, kind], [True, wants])
    assert compiled == eager


def test_threads_share_a_compiled_function() -> None:
    """S211: calls of several threads, with and without gradients, do not meet."""
    f = polyop.compile(lambda x, y: x * y + x, fullgraph=True)
    wrong: list[Any] = []

    def work(k: float) -> None:
        for n in range(4):
            x, y = couple(k).requires_grad_(n % 2 == 0), couple(k + 1)
            z = f(x, y)
            if plain(z) != plain(couple(k) * couple(k + 1) + couple(k)):
                wrong.append(k)
            if n % 2 == 0:
                z.backward(couple(k))
                if plain(x.grad) != plain(couple(k) * couple(k + 1) + couple(k)):
                    wrong.append(-k)

    threads = [threading.Thread(target=work, args=(float(k),)) for k in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_wrappers_that_the_function_makes() -> None:
    """S165, S211: wrappers made of plain arguments are results, and gradients go through them."""
    weight = couple(2.0).requires_grad_()
    for wants in (False, True):
        found = []
        f = lambda x: [x * weight, Couple(x.detach() * 2.0, x.detach(), "made"), weight]  # noqa: E731
        for run in (f, polyop.compile(f, fullgraph=True), polyop.compile(f)):
            weight.grad = None
            x = tensor().requires_grad_(wants)
            y, made, same = run(x)
            assert same is weight and not made.requires_grad
            y.backward(couple())
            found.append([plain(y), plain(made), plain(weight.grad), plain(x.grad)])
        assert found[0] == found[1] == found[2]


def test_a_gradient_inside_a_wrapper_that_has_none_is_not_lost() -> None:
    """S211: gradients of what is inside are eager's, or an error of `fullgraph`."""
    f = lambda x: Couple(x * 2.0, x)  # noqa: E731
    for compiled in (f, polyop.compile(f)):
        x = tensor().requires_grad_()
        compiled(x).a.sum().backward()
        assert plain(x.grad) == plain(tensor() * 0.0 + 2.0)
    with pytest.raises(errors.CaptureError, match="requires grad itself"):
        polyop.compile(f, fullgraph=True)(x)


def test_a_plain_result_of_a_wrapper_that_is_a_parameter() -> None:
    """S211: the gradient of a plain result goes through the wrapper that the function reads."""
    weight = scaled().requires_grad_()
    f = lambda x: (x * weight).sum()  # noqa: E731
    found = []
    for run in (f, polyop.compile(f, fullgraph=True)):
        weight.grad = None
        run(tensor()).backward()
        found.append(plain(weight.grad))
    assert found[0] == found[1] and found[0] is not None


@pytest.mark.parametrize("kind", ["couple", "scaled", "plain"])
def test_a_look_at_data_makes_parts(kind: str) -> None:
    """S212: without gradients a call of wrappers runs in parts, and gives whole wrappers."""
    weight = scaled(2.0)

    def f(x: Any) -> Any:
        y = x * weight if kind != "couple" else x * 2.0
        k = 2.0 if float(polyop.ones(3).sum().item()) > 2 else 3.0
        return [y * k, y]

    compiled = polyop.compile(f)
    for k in (1.0, 2.0):
        assert plain(compiled(MAKERS[kind](k))) == plain(f(MAKERS[kind](k)))


def test_inner_tensors_that_were_replaced_are_seen() -> None:
    """S211: a program notices that a wrapper which it reads is made of other tensors now."""
    weight = couple(2.0)
    compiled = polyop.compile(lambda x: x * weight, fullgraph=True)
    for k in (2.0, 5.0):
        weight.a = tensor(X * k)
        assert plain(compiled(couple())) == plain(couple() * weight)


class Quantized(Tensor):
    """Integers and a factor: what is inside has no gradient, and that of the wrapper is plain."""

    def __new__(cls, whole: Tensor, factor: Tensor) -> Any:
        t = make_wrapper_subclass(cls, whole.shape, dtype=factor.dtype, device=whole.device)
        t.whole, t.factor = whole, factor
        return t

    def __tensor_flatten__(self) -> Any:
        return ["whole", "factor"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, context: Any, shape: Any, strides: Any) -> Any:
        return cls(inner["whole"], inner["factor"])

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        real = lambda x: x.whole * x.factor if isinstance(x, cls) else x  # noqa: E731
        args, named = tree.map_leaves(real, (args, kwargs or {}))
        return op(*args, **named)


def test_what_is_inside_needs_no_gradient_of_its_own() -> None:
    """S165, S211: integers inside a wrapper are no hindrance; its gradient may be plain."""
    found = []
    for f in (lambda x, w: (x * w).sin(), None):
        run = f or polyop.compile(lambda x, w: (x * w).sin(), fullgraph=True)
        x = Quantized(polyop.arange(6).reshape((2, 3)), tensor(X)).requires_grad_()
        w = tensor().requires_grad_()
        y = run(x, w)
        y.backward(tensor())
        assert type(y) is Tensor and type(x.grad) is Tensor
        found.append((plain(y), plain(x.grad), plain(w.grad)))
    assert found[0] == found[1]


def test_old_parameters_are_not_kept() -> None:
    """S211: a weight that is another tensor at each call is right, and dropped after a while."""
    f = polyop.compile(
        lambda x: x * weight, fullgraph=True, options={"cache_size_limit": 4}
    )  # fmt: skip
    old = []
    for k in range(12):
        weight = couple(float(k)).requires_grad_()
        f(couple()).backward(couple())
        assert plain(weight.grad) == plain(couple() * couple())
        old.append(weakref.ref(weight))
    gc.collect()
    assert sum(ref() is not None for ref in old) < 12


def test_a_training_loop() -> None:
    """S211: weights that are written between calls are read anew, in forward and backward."""

    class Linear:
        def __init__(self) -> None:
            self.weight, self.bias = scaled(2.0).requires_grad_(), tensor().requires_grad_()

        def __call__(self, x: Any) -> Any:
            return (x * self.weight + self.bias).tanh()

    def train(model: Any, run: Any) -> Any:
        found = []
        for _ in range(3):
            model.weight.grad = model.bias.grad = None
            y = run(scaled()).sum()
            y.backward()
            found.append((plain(y), plain(model.weight.grad), plain(model.bias.grad)))
            with polyop.no_grad():
                model.weight.inner.sub_(model.weight.grad.inner * 0.1)
                model.bias.sub_(getattr(model.bias.grad, "inner", model.bias.grad) * 0.1)
        return found

    first, second = Linear(), Linear()
    assert train(first, first) == train(second, polyop.compile(second, fullgraph=True))
