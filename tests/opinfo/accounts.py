"""The operators here that PyTorch publishes no samples for, each with the reason."""

from __future__ import annotations

#: Parts of other operators' gradients and kernels: they are compared through those.
PARTS = {
    "alias": "x[...]", "among": "isin", "batch_numbers": "index in a batch",
    "cholesky_lower": "linalg.cholesky", "clip_part": "clip", "cofactors": "linalg.det",
    "copy": "copy_", "deviation": "var", "diagonal_grad": "diagonal", "expand_to": "sum_to",
    "fft_c2c": "fft.fft", "fft_c2r": "fft.irfft", "fft_r2c": "fft.rfft",
    "half_tril": "linalg.cholesky", "hermitian_part": "linalg.cholesky", "index_grad": "index",
    "last_put": "index_put", "last_put_along_axis": "put_along_axis",
    "matmul_left": "matmul", "matmul_right": "matmul", "mean_grad": "mean",
    "mean_or_zero": "mean", "peaks": "max", "prod_others": "prod", "prod_pairs": "prod",
    "running_prod_grad": "cumulative_prod", "select_grad": "select", "slice_grad": "slice",
    "spread": "sum", "suffix_sum": "cumulative_sum", "uniform": "uniform_",
    "zero_like": "index_put", "zero_of": "index in a batch",
}  # fmt: skip

#: Operators of PyTorch's too, without published samples.
UNPUBLISHED = {
    "copy_": "PyTorch publishes no samples for it; tests/ops/test_inplace.py compares it",
    "detach": "PyTorch publishes no samples for it: it has no gradient to compare",
    "rand": "PyTorch publishes samples for rand_like, which is compared",
    "randperm": "PyTorch publishes no samples for it",
    "manual_seed": "no operator: it sets a state",
    "as_tensor": "PyTorch publishes no samples for what reads Python's data",
    "asarray": "PyTorch publishes no samples for what reads Python's data",
    "tensor": "PyTorch publishes no samples for what reads Python's data",
    "from_array": "PyTorch publishes no samples for other libraries' arrays",
    "to_array": "PyTorch publishes no samples for other libraries' arrays",
    "from_numpy": "PyTorch publishes no samples for what reads Python's data",
    "from_dlpack": "PyTorch publishes no samples for what reads Python's data",
    "fft.fftfreq": "PyTorch publishes no samples for it; tests/ops compares it with NumPy",
    "fft.rfftfreq": "PyTorch publishes no samples for it; tests/ops compares it with NumPy",
}

#: Public functions that are no operators on tensors.
NO_OPERATORS = {
    "associative_scan", "can_cast", "check", "compile", "cond", "custom_op", "finfo",
    "get_include", "iinfo", "is_grad_enabled", "isdtype", "map", "opcheck", "result_type", "scan",
    "statically_known_true", "sym_max", "sym_min", "vmap", "while_loop",
}  # fmt: skip

#: Published operators whose name is here too, for something else or for less.
OTHER_NAMES = {
    "linalg.cond": "the condition of a matrix; `cond` here is the operator on branches",
    "sparse.mm": "sparse tensors do not exist here",
    "nn.functional.pad/circular": "`pad` here has constants only, and says so",
    "nn.functional.pad/reflect": "`pad` here has constants only, and says so",
    "nn.functional.pad/replicate": "`pad` here has constants only, and says so",
    "nn.functional.pad/replicate_negative": "`pad` here has constants only, and says so",
    "normal": "`normal` here takes numbers, not tensors of means",
    "bmm/triton_optimized": "for another device",
}

#: Families of published operators that do not exist here under any name.
ABSENT_FAMILIES = ("masked.", "sparse.", "special.", "signal.", "nn.functional.", "torch.")
