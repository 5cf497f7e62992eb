"""Pointwise parts of a graph as compiled C loops: the backend `"c"` of `compile`.

A group of pointwise calls becomes one loop, and the loop a NumPy ufunc, which
brings broadcasting, strides and unaligned data with it.

NOTE [The kernel is the formula]
What an operator computes is asked from its kernel, by running it on symbols
that write down the ufuncs applied to them (`symbols.py`). A second table of
formulas, dtypes and promotions would drift from what the kernels do. An
operator whose kernel does anything else is left to the graph.

NOTE [Floating-point warnings]
Loops do not warn. They note which of the processor's flags were raised, and
where `numpy.errstate` does not ignore these, the group runs once more, operator
by operator: warnings, errors and results are then those of the eager call. What
a choice leaves out, a compiler would not compute, and raise no flags for it; the
loops of groups keep it (`choices.py`). Loops of tangents, which nobody asked for,
leave such choices to NumPy.
"""
