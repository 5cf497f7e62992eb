"""polyop: write a tensor operator once; use it, checked, in every array library.

This is the list for users. `polyop.extend` is the list for builders of modes,
transforms and backends; neither holds logic.
"""

import typing as _typing

from numpy import dtype

from polyop import assembly as _assembly  # first: it imports what registers itself
from polyop import errors, schema, symbolic, tree
from polyop.devices import Device as device
from polyop.devices import Layout as layout
from polyop.devices import MemoryFormat as memory_format
from polyop.dispatch.namespaces import ops
from polyop.late_names import PLACES as _PLACES
from polyop.layers.autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from polyop.lazy import lazily as _lazily
from polyop.numbers import (
    bool,
    cdouble,
    cfloat,
    complex64,
    complex128,
    double,
    e,
    float,
    float16,
    float32,
    float64,
    half,
    inf,
    int,
    int8,
    int16,
    int32,
    int64,
    long,
    nan,
    newaxis,
    pi,
    short,
    uint8,
    uint16,
    uint32,
    uint64,
)
from polyop.ops.closeness import (
    allclose,
    array_equal,
    isclose,
)
from polyop.ops.comparison import (
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    equal,
    greater,
    greater_equal,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    not_equal,
    signbit,
)
from polyop.ops.complex_parts import complex_ as complex
from polyop.ops.creation import (
    as_tensor,
    asarray,
    from_dlpack,
    from_numpy,
    tensor,
)
from polyop.ops.elementwise import (
    abs,
    acos,
    acosh,
    add,
    addcdiv,
    addcmul,
    angle,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    conj,
    copysign,
    cos,
    cosh,
    divide,
    exp,
    exp2,
    expm1,
    floor_divide,
    fmod,
    hypot,
    imag,
    lerp,
    log,
    log1p,
    log2,
    log10,
    logaddexp,
    multiply,
    negative,
    positive,
    pow,
    real,
    reciprocal,
    relu,
    remainder,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sinh,
    softplus,
    sqrt,
    square,
    subtract,
    tan,
    tanh,
)
from polyop.ops.factories import arange, empty, eye, full, linspace, ones, zeros
from polyop.ops.generator import Generator, manual_seed
from polyop.ops.indexing import (
    index_add,
    index_put,
    index_select,
    take,
)
from polyop.ops.joining import (
    broadcast_arrays,
    concat,
    hstack,
    meshgrid,
    pad,
    repeat,
    roll,
    stack,
    tile,
    tril,
    triu,
    vstack,
)
from polyop.ops.likes import empty_like, full_like, ones_like, zeros_like
from polyop.ops.linear import (
    dot,
    matmul,
    mv,
    outer,
    tensordot,
    vecdot,
)
from polyop.ops.random import (
    bernoulli,
    normal,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
)
from polyop.ops.reductions import (
    all,
    any,
    argmax,
    argmin,
    count_nonzero,
    max,
    min,
    prod,
    sum,
)
from polyop.ops.rounding import (
    ceil,
    clone,
    floor,
    nan_to_num,
    round,
    trunc,
)
from polyop.ops.select import (
    clip,
    masked_fill,
    maximum,
    minimum,
    nextafter,
    where,
)
from polyop.ops.sets import (
    argwhere,
    nonzero,
    unique_all,
    unique_counts,
    unique_inverse,
    unique_values,
)
from polyop.ops.splitting import (
    chunk,
    expand,
    flatten,
    moveaxis,
    narrow,
    ravel,
    split,
    t,
    transpose,
    unbind,
    unflatten,
    unstack,
)
from polyop.ops.standard import (
    __array_api_version__,
    __array_namespace_info__,
    astype,
    reshape,
)
from polyop.ops.subscripts import put_along_axis
from polyop.ops.views import (
    broadcast_to,
    detach,
    diagonal,
    expand_dims,
    flip,
    matrix_transpose,
    permute_dims,
    select,
    squeeze,
    unsqueeze,
    view,
)
from polyop.schema.tags import Tag
from polyop.symbolic import check, statically_known_true, sym_max, sym_min
from polyop.tensor.tensor import Tensor

if _typing.TYPE_CHECKING:
    from polyop import (
        autograd,
        bridge,
        export,
        extend,
        fake,
        fft,
        func,
        graph,
        hop,
        library,
        linalg,
        objects,
    )
    from polyop.checking import opcheck
    from polyop.compile import compile
    from polyop.dispatch.custom_op import custom_op
    from polyop.dispatch.library import Library, scoped_library
    from polyop.dispatch.shared_library import get_include
    from polyop.hop import associative_scan, cond, map, scan, while_loop
    from polyop.layers.autocast import autocast
    from polyop.layers.vmap import vmap
    from polyop.ops.contractions import einsum
    from polyop.ops.differences import diff, isin
    from polyop.ops.dtypes import (
        broadcast_shapes,
        can_cast,
        finfo,
        iinfo,
        isdtype,
        result_type,
    )
    from polyop.ops.running import cumulative_prod, cumulative_sum
    from polyop.ops.running import cumulative_prod as cumprod
    from polyop.ops.running import cumulative_sum as cumsum
    from polyop.ops.searching import (
        argsort,
        searchsorted,
        sort,
        take_along_axis,
        topk,
    )
    from polyop.ops.statistics import log_softmax, logsumexp, mean, softmax, std, var
    from polyop.payloads.api import from_array, to_array
    from polyop.small_floats import bfloat16, float8_e4m3fn, float8_e5m2
else:  # hidden from type checkers, to which every name would be there
    __getattr__, __dir__ = _lazily(__name__, _PLACES, ["compile"])

# The names of PyTorch for functions that the Array API standard calls otherwise.
amax, amin, cat = max, min, concat
div, eq, ge, gt, le, lt, mul, ne, neg, permute, sub = (
    divide, equal, greater_equal, greater, less_equal, less, multiply, not_equal, negative,
    permute_dims, subtract,
)  # fmt: skip

__version__ = "0.1.0"

__all__ = [
    "Generator", "Library", "Tag", "Tensor", "__array_api_version__",
    "__array_namespace_info__", "__version__", "abs", "acos", "acosh", "add", "addcdiv",
    "addcmul", "all", "allclose", "amax", "amin", "angle", "any", "arange", "argmax", "argmin",
    "argsort", "argwhere", "array_equal", "as_tensor", "asarray", "asin", "asinh",
    "associative_scan", "astype", "atan", "atan2", "atanh", "autocast", "autograd", "bernoulli",
    "bfloat16", "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or",
    "bitwise_right_shift", "bitwise_xor", "bool", "bridge", "broadcast_arrays",
    "broadcast_shapes", "broadcast_to", "can_cast", "cat", "cdouble", "ceil", "cfloat", "check",
    "chunk", "clip", "clone", "compile", "complex", "complex64", "complex128", "concat", "cond",
    "conj", "copysign", "cos", "cosh", "count_nonzero", "cumprod", "cumsum", "cumulative_prod",
    "cumulative_sum", "custom_op", "detach", "device", "diagonal", "diff", "div", "divide",
    "dot", "double", "dtype", "e", "einsum", "empty", "empty_like", "enable_grad", "eq",
    "equal", "errors", "exp", "exp2", "expand", "expand_dims", "expm1", "export", "extend",
    "eye", "fake", "fft", "finfo", "flatten", "flip", "float", "float8_e4m3fn", "float8_e5m2",
    "float16", "float32", "float64", "floor", "floor_divide", "fmod", "from_array",
    "from_dlpack", "from_numpy", "full", "full_like", "func", "ge", "get_include", "graph",
    "greater", "greater_equal", "gt", "half", "hop", "hstack", "hypot", "iinfo", "imag",
    "index_add", "index_put", "index_select", "inf", "inference_mode", "int", "int8", "int16",
    "int32", "int64", "is_grad_enabled", "isclose", "isdtype", "isfinite", "isin", "isinf",
    "isnan", "layout", "le", "lerp", "less", "less_equal", "library", "linalg", "linspace",
    "log", "log1p", "log2", "log10", "log_softmax", "logaddexp", "logical_and", "logical_not",
    "logical_or", "logical_xor", "logsumexp", "long", "lt", "manual_seed", "map", "masked_fill",
    "matmul", "matrix_transpose", "max", "maximum", "mean", "memory_format", "meshgrid", "min",
    "minimum", "moveaxis", "mul", "multiply", "mv", "nan", "nan_to_num", "narrow", "ne", "neg",
    "negative", "newaxis", "nextafter", "no_grad", "nonzero", "normal", "not_equal", "objects",
    "ones", "ones_like", "opcheck", "ops", "outer", "pad", "permute", "permute_dims", "pi",
    "positive", "pow", "prod", "put_along_axis", "rand", "rand_like", "randint", "randn",
    "randn_like", "randperm", "ravel", "real", "reciprocal", "relu", "remainder", "repeat",
    "reshape", "result_type", "roll", "round", "rsqrt", "scan", "schema", "scoped_library",
    "searchsorted", "select", "set_grad_enabled", "short", "sigmoid", "sign", "signbit", "sin",
    "sinh", "softmax", "softplus", "sort", "split", "sqrt", "square", "squeeze", "stack",
    "statically_known_true", "std", "sub", "subtract", "sum", "sym_max", "sym_min", "symbolic",
    "t", "take", "take_along_axis", "tan", "tanh", "tensor", "tensordot", "tile", "to_array",
    "topk", "transpose", "tree", "tril", "triu", "trunc", "uint8", "uint16", "uint32", "uint64",
    "unbind", "unflatten", "unique_all", "unique_counts", "unique_inverse", "unique_values",
    "unsqueeze", "unstack", "var", "vecdot", "view", "vmap", "vstack", "where", "while_loop",
    "zeros", "zeros_like",
]  # fmt: skip
