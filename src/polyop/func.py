"""`polyop.func`: transforms of functions; each is read when it is first used."""

from typing import TYPE_CHECKING

from polyop.lazy import lazily

if TYPE_CHECKING:
    from polyop.layers.autograd.forward_mode import jvp, linearize
    from polyop.layers.autograd.jacobians import hessian, jacfwd, jacrev
    from polyop.layers.autograd.transforms import grad, grad_and_value, value_and_grad, vjp
    from polyop.layers.functionalize import functionalize
    from polyop.layers.vmap import vmap

__all__ = [
    "functionalize",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "value_and_grad",
    "vjp",
    "vmap",
]
_AUTOGRAD = "polyop.layers.autograd"
__getattr__, __dir__ = lazily(
    __name__,
    dict.fromkeys(__all__, f"{_AUTOGRAD}.transforms")
    | dict.fromkeys(("jvp", "linearize"), f"{_AUTOGRAD}.forward_mode")
    | dict.fromkeys(("hessian", "jacfwd", "jacrev"), f"{_AUTOGRAD}.jacobians")
    | {"functionalize": "polyop.layers.functionalize", "vmap": "polyop.layers.vmap"},
)
