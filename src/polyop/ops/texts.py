"""What built-in operators compute, in a sentence or two: the text that `help` shows for each.

Operators of a family end with the same sentence, on shapes and dtypes. A name is the
Array API's where the standard has the function, else NumPy's or PyTorch's.
"""

from __future__ import annotations

FLOATING = "Elementwise: the shape is that of `x`, and integers become floating-point numbers."
SAME = "Elementwise: the result has the shape and the dtype of `x`."
BOOLS = "Elementwise: the result is of bools, in the shape of `x`."
BOTH = "Elementwise: shapes broadcast, and dtypes promote."
BOTH_BOOLS = "Elementwise: shapes broadcast, and the result is of bools."
OVER = "Over the axes in `axis`, by default all; `keepdims` keeps them, with size one."
ALONG = "Along `axis`, which may be left out for a tensor of one axis."

FAMILIES: dict[str, dict[str, str]] = {
    FLOATING: {
        "acos": "Give the angle whose cosine an element is, from 0 to pi.",
        "acosh": "Give the number whose hyperbolic cosine an element is, from 0 on.",
        "angle": "Give the angle of each complex number in the plane, from -pi to pi.",
        "asin": "Give the angle whose sine an element is, from -pi/2 to pi/2.",
        "asinh": "Give the number whose hyperbolic sine an element is.",
        "atan": "Give the angle whose tangent an element is, between -pi/2 and pi/2.",
        "atanh": "Give the number whose hyperbolic tangent an element is.",
        "cos": "Give the cosine of each angle, in radians.",
        "cosh": "Give the hyperbolic cosine of each element.",
        "exp": "Give e to the power of each element.",
        "exp2": "Give 2 to the power of each element.",
        "expm1": "Give `exp(x) - 1`, exact also where `x` is near zero.",
        "log": "Give the natural logarithm of each element.",
        "log10": "Give the logarithm of each element to base 10.",
        "log1p": "Give `log(1 + x)`, exact also where `x` is near zero.",
        "log2": "Give the logarithm of each element to base 2.",
        "reciprocal": "Give one divided by each element.",
        "rsqrt": "Give one divided by the square root of each element.",
        "sigmoid": "Give `1 / (1 + exp(-x))`, which is from 0 to 1.",
        "sin": "Give the sine of each angle, in radians.",
        "sinh": "Give the hyperbolic sine of each element.",
        "softplus": "Give `log(1 + exp(x))`, a smooth `relu`.",
        "sqrt": "Give the square root of each element; of a negative real one NaN.",
        "tan": "Give the tangent of each angle, in radians.",
        "tanh": "Give the hyperbolic tangent of each element, from -1 to 1.",
    },
    SAME: {
        "bitwise_invert": "Invert each bit of integers, and the truth of bools.",
        "ceil": "Round each element up to a whole number.",
        "conj": "Give the complex conjugate of each element; real ones are their own.",
        "floor": "Round each element down to a whole number.",
        "nan_to_num": "Put numbers in the place of NaN and of both infinities; by default these "
        "are zero, and the greatest and the least number of the dtype.",
        "negative": "Change the sign of each element.",
        "positive": "Give each element as it is, in new memory.",
        "relu": "Give each element, or zero where it is negative.",
        "round": "Round each element to `decimals` places, halves to the even neighbour.",
        "sign": "Give 1, 0 or -1 for the sign of each element; of a complex one `x / abs(x)`.",
        "square": "Give the product of each element with itself.",
        "trunc": "Cut off what each element has behind the point.",
    },
    BOOLS: {
        "isfinite": "Tell whether each element is a number that is neither infinite nor NaN.",
        "isinf": "Tell whether each element is infinite.",
        "isnan": "Tell whether each element is NaN.",
        "logical_not": "Tell whether each element is false, or zero.",
        "signbit": "Tell whether the sign of each element is minus, that of -0.0 too.",
    },
    BOTH: {
        "add": "Add two tensors, or a tensor and a number.",
        "atan2": "Give the angle of the point `(b, a)` in the plane, from -pi to pi.",
        "bitwise_and": "Give the bits that are set in both of two integers.",
        "bitwise_left_shift": "Shift the bits of integers to the left, by `b` places.",
        "bitwise_or": "Give the bits that are set in one of two integers.",
        "bitwise_right_shift": "Shift the bits of integers to the right, by `b` places.",
        "bitwise_xor": "Give the bits in which two integers differ.",
        "copysign": "Give the size of `a` with the sign of `b`.",
        "divide": "Divide `a` by `b`; the result is never of integers.",
        "floor_divide": "Divide `a` by `b`, and round down to a whole number.",
        "fmod": "Give what a division leaves over, with the sign of `a`.",
        "hypot": "Give `sqrt(a**2 + b**2)` without overflow on the way.",
        "logaddexp": "Give `log(exp(a) + exp(b))` without overflow on the way.",
        "maximum": "Give the greater of two elements; NaN if one of them is.",
        "minimum": "Give the smaller of two elements; NaN if one of them is.",
        "multiply": "Multiply two tensors, or a tensor and a number.",
        "nextafter": "Give the floating-point number next to `a` in the direction of `b`.",
        "pow": "Give `a` to the power of `b`.",
        "remainder": "Give what a division leaves over, with the sign of `b`.",
        "subtract": "Subtract `b` from `a`.",
        "addcdiv": "Give `x + value * a / b`.",
        "addcmul": "Give `x + value * a * b`.",
        "lerp": "Give `a + weight * (b - a)`, the point between `a` and `b` at a weight.",
        "where": "Take elements of `a` where the condition holds, and of `b` elsewhere. With the "
        "condition alone, give the indices where it holds, as `nonzero` does.",
        "clip": "Give each element, but at least `min` and at most `max`; either may be left out.",
        "masked_fill": "Put a value where the mask holds; the dtype is that of `x`.",
    },
    BOTH_BOOLS: {
        "equal": "Tell whether two elements are equal; NaN is not equal to itself.",
        "greater": "Tell whether `a` is greater than `b`.",
        "greater_equal": "Tell whether `a` is greater than `b`, or equal.",
        "less": "Tell whether `a` is less than `b`.",
        "less_equal": "Tell whether `a` is less than `b`, or equal.",
        "logical_and": "Tell whether both of two elements are true, or not zero.",
        "logical_or": "Tell whether one of two elements is true, or not zero.",
        "logical_xor": "Tell whether exactly one of two elements is true, or not zero.",
        "not_equal": "Tell whether two elements differ.",
    },
    OVER: {
        "all": "Tell whether all elements are true, or not zero; of none they are.",
        "any": "Tell whether an element is true, or not zero; of none none is.",
        "argmax": "Give the place of the greatest element, the first of several, as an int64; "
        "without an axis that in the flattened tensor.",
        "argmin": "Give the place of the smallest element, the first of several, as an int64; "
        "without an axis that in the flattened tensor.",
        "count_nonzero": "Count the elements that are not zero, as an int64.",
        "logsumexp": "Give the logarithm of the sum of `exp(x)`, without overflow on the way.",
        "max": "Give the greatest element; NaN if there is one.",
        "mean": "Give the mean of the elements; that of integers is a floating-point number.",
        "min": "Give the smallest element; NaN if there is one.",
        "prod": "Multiply the elements; the product of integers and bools is of 64 bits.",
        "std": "Give the standard deviation: the square root of `var`.",
        "sum": "Add the elements up; the sum of integers and bools is of 64 bits.",
        "var": "Give the variance: the sum of squared distances from the mean, divided by the "
        "number of elements less `correction`.",
    },
    ALONG: {
        "cumulative_prod": "Give the product of all elements up to each; `include_initial` puts "
        "a one in front.",
        "cumulative_sum": "Give the sum of all elements up to each; `include_initial` puts a "
        "zero in front.",
    },
}

#: By operator: what it computes.
TEXTS = {
    name: f"{text}\n\n{last}" for last, texts in FAMILIES.items() for name, text in texts.items()
}
TEXTS |= {
    "abs": "Give the size of each element. Elementwise; that of a complex number is real.",
    "alias": "Give a view of the whole tensor.",
    "argsort": "Give the places of the elements along `axis` in their order, as an int64 tensor of "
    "the same shape. With `stable`, equal elements keep theirs.",
    "argwhere": "Give the indices of the elements that are not zero: one row each, one column for "
    "each axis, of int64.",
    "bernoulli": "Give ones with the probability that each element is, and zeros else, in the "
    "shape and dtype of `x`.",
    "broadcast_to": "Repeat a tensor to a shape, as a view.",
    "clone": "Copy a tensor: same shape and dtype, new memory. Gradients flow through.",
    "complex": "Make complex numbers of real and imaginary parts. Elementwise: shapes broadcast.",
    "concat": "Join tensors along an axis that they have; without one (None), flattened. Dtypes "
    "promote.",
    "copy_": "Write the elements of another tensor, which broadcasts, into the tensor.",
    "det": "Give the determinant of square matrices `(..., N, N)`, in the shape `(...)`.",
    "detach": "Give a view through which no gradient flows.",
    "diagonal": "Give the diagonals of two axes, as the last axis of a view; `offset` counts up "
    "from the main one.",
    "eigvalsh": "Give the eigenvalues of Hermitian matrices `(..., N, N)` in rising order, as real "
    "numbers `(..., N)`.",
    "expand_dims": "Insert an axis of size one, as a view.",
    "fill_": "Write one number to each element of the tensor.",
    "flip": "Reverse the elements along axes, by default all, as a view.",
    "imag": "Give the imaginary part of each element, which is zero for real ones. Elementwise; "
    "the result is real.",
    "index_put": "Copy a tensor, and put values where the indices say; with `accumulate` they are "
    "added to what is there.",
    "inv": "Give the inverse of square matrices `(..., N, N)`, in the same shape.",
    "log_softmax": "Give the logarithm of `softmax` along an axis, in the shape of `x`.",
    "matmul": "Multiply matrices `(..., M, K)` and `(..., K, N)`; other axes broadcast, and an "
    "argument of one axis is a vector. Dtypes promote.",
    "matrix_transpose": "Swap the last two axes, as a view.",
    "normal_": "Write random numbers of a normal distribution to each element of the tensor.",
    "permute_dims": "Put the axes in another order, as a view.",
    "real": "Give the real part of each element. Elementwise; the result is real.",
    "searchsorted": "Give the places in the sorted tensor of one axis where the elements of `x` "
    "belong, as an int64 tensor of the shape of `x`.",
    "select": "Give what is at one place of an axis, as a view without this axis.",
    "softmax": "Give `exp(x)` divided by its sum along an axis: positive numbers that add up to "
    "one, in the shape of `x`.",
    "sort": "Give the elements along `axis` in rising order, or in falling order with "
    "`descending`. The shape and dtype stay.",
    "squeeze": "Leave out axes of size one, as a view; by default all of them.",
    "stack": "Join tensors of one shape along a new axis. Dtypes promote.",
    "sum_to": "Add up the axes that a shape lacks, or has with size one.",
    "svdvals": "Give the singular values of matrices `(..., M, N)` in falling order, as real "
    "numbers `(..., min(M, N))`.",
    "take_along_axis": "Take along an axis the elements at the places in `indices`; the result has "
    "the shape of these, and other axes broadcast.",
    "topk": "Give the `k` greatest elements along an axis, or the smallest, and their places.",
    "transpose": "Swap two axes, as a view.",
    "tril": "Keep the lower triangle of matrices, up to the diagonal `k`, and put zeros elsewhere.",
    "triu": "Keep the upper triangle of matrices, from the diagonal `k` on, and put zeros "
    "elsewhere.",
    "uniform_": "Write random numbers from `low` to `high` to each element of the tensor.",
    "unique_values": "Give the distinct elements in rising order, as one axis; each NaN is "
    "distinct.",
    "vecdot": "Sum the products of two tensors along an axis; `a` is conjugated, and other axes "
    "broadcast.",
    "view": "Give a view of another shape with the same elements in the same order.",
    "zero_": "Write zero to each element of the tensor.",
}  # fmt: skip


def text_of(name: str) -> str | None:
    """Give the text of an operator; one that writes in place does what its twin does."""
    text = TEXTS.get(name)
    if text is None and name.endswith("_") and name[:-1] in TEXTS:
        return f"Write what `{name[:-1]}` gives to the tensor itself, and give the tensor."
    return text


__all__ = ["FAMILIES", "TEXTS", "text_of"]
