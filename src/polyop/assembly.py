"""Puts the parts together: each of these files registers something when it is imported.

Operators, methods and layers are found in tables; the order of `LAYERS` is
written in `layers/late.py`, and the order of this list does not matter.
What is made here stays as long as the process, so that Python's collector,
which would walk it forty times meanwhile, rests. Afterwards all is moved to the
oldest objects, where it would end up, without a walk.
"""

import gc

from polyop.lazy import load

PARTS = {
    "dispatch": ("entry", "registry"),
    "tensor": ("foreign", "storage"),
    "ops": (
        "complex_parts", "creation", "elementwise", "indexing", "inplace", "joining", "linear",
        "methods", "random", "reductions", "sets", "signatures", "standard", "views",
    ),
    "layers": ("late",),
}  # fmt: skip

_collects = gc.isenabled()
gc.disable()
try:
    for _floor, _names in PARTS.items():
        for _name in _names:
            load(f"polyop.{_floor}.{_name}")
finally:
    if _collects:
        if gc.get_freeze_count() == 0:  # else it is the program's own: its objects stay frozen
            gc.freeze()
            gc.unfreeze()
        gc.enable()
