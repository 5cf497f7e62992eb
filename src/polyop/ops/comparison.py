"""Comparisons and logic: operators whose results are bools, and those on bits.

None has a gradient.
"""

from __future__ import annotations

import numpy as np

from polyop.ops.pointwise import binary, unary

equal = binary("equal", np.equal, None)
not_equal = binary("not_equal", np.not_equal, None)
less = binary("less", np.less, None)
less_equal = binary("less_equal", np.less_equal, None)
greater = binary("greater", np.greater, None)
greater_equal = binary("greater_equal", np.greater_equal, None)

isfinite = unary("isfinite", np.isfinite, None)
isinf = unary("isinf", np.isinf, None)
isnan = unary("isnan", np.isnan, None)
signbit = unary("signbit", np.signbit, None)

logical_and = binary("logical_and", np.logical_and, None)
logical_or = binary("logical_or", np.logical_or, None)
logical_xor = binary("logical_xor", np.logical_xor, None)
logical_not = unary("logical_not", np.logical_not, None)

bitwise_and = binary("bitwise_and", np.bitwise_and, None)
bitwise_or = binary("bitwise_or", np.bitwise_or, None)
bitwise_xor = binary("bitwise_xor", np.bitwise_xor, None)
bitwise_invert = unary("bitwise_invert", np.invert, None)
bitwise_left_shift = binary("bitwise_left_shift", np.left_shift, None)
bitwise_right_shift = binary("bitwise_right_shift", np.right_shift, None)
