"""The dtypes and constants under their public names."""

from math import e, inf, nan, pi

from polyop.devices import DTYPES

bool = DTYPES["bool"]
int8, int16, int32, int64 = (DTYPES[f"int{n}"] for n in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (DTYPES[f"uint{n}"] for n in (8, 16, 32, 64))
float16, float32, float64 = (DTYPES[f"float{n}"] for n in (16, 32, 64))
complex64, complex128 = DTYPES["complex64"], DTYPES["complex128"]

half, float, double = float16, float32, float64
short, int, long = int16, int32, int64
cfloat, cdouble = complex64, complex128
newaxis = None

__all__ = [
    "bool", "cdouble", "cfloat", "complex64", "complex128", "double", "e", "float",
    "float16", "float32", "float64", "half", "inf", "int", "int8",
    "int16", "int32", "int64", "long", "nan", "newaxis", "pi", "short", "uint8", "uint16",
    "uint32", "uint64",
]  # fmt: skip
