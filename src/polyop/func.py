"""`polyop.func`: transforms of functions."""

from polyop.layers.autograd.transforms import grad, grad_and_value, value_and_grad, vjp
from polyop.layers.functionalize import functionalize
from polyop.layers.vmap import vmap

__all__ = ["functionalize", "grad", "grad_and_value", "value_and_grad", "vjp", "vmap"]
