"""JAX: an operator as a primitive, when JAX's arrays come."""
