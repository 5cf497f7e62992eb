"""Where the bridges are: names alone, which each part of them may read first."""

#: By the name of a framework: its bridge: `remove`, `takes`, `call`, `call_tensors`.
BRIDGES = {
    "torch": "polyop.bridges.torch.bridge",
    "jax": "polyop.bridges.jax.bridge",
    "dask": "polyop.bridges.dask.bridge",
}
#: Where a framework that compiles what is made of operators says what it compiled.
COMPILED = {"jax": "polyop.bridges.jax.anew:COMPILED"}
