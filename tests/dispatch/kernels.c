/* A library that tries all that polyop.h offers. */
#include "polyop.h"

static DLDataType float64 = {POLYOP_FLOAT_TYPE, 64, 1};

/* Doubles elements of float32 and float64. */
POLYOP_KERNEL(twice) {
  int64_t n = polyop_count(&args[0]);
  if (polyop_is(&args[0], POLYOP_FLOAT_TYPE, 32)) {
    const float *x = polyop_data(&args[0]);
    float *y = polyop_written(&results[0]);
    for (int64_t i = 0; i < n; i++) y[i] = 2 * x[i];
  } else {
    POLYOP_CHECK(polyop_is(&args[0], POLYOP_FLOAT_TYPE, 64), "twice takes floats of %d or %d bits", 32, 64);
    const double *x = polyop_data(&args[0]);
    double *y = polyop_written(&results[0]);
    for (int64_t i = 0; i < n; i++) y[i] = 2 * x[i];
  }
  return 0;
}

/* Sums what it is given, each kind of value in its own way. */
POLYOP_KERNEL(total) {
  double sum = 0;
  for (int i = 0; i < 7; i++) {
    const PolyopValue *v = &args[i];
    if (v->kind == POLYOP_INT || v->kind == POLYOP_BOOL) sum += (double)v->as.integer;
    if (v->kind == POLYOP_FLOAT) sum += v->as.number;
    if (v->kind == POLYOP_COMPLEX) sum += v->as.parts[0] + v->as.parts[1];
    if (v->kind == POLYOP_STRING) sum += (double)strlen(v->as.text);
    if (v->kind == POLYOP_DTYPE) sum += v->as.dtype.bits;
    if (v->kind == POLYOP_LIST)
      for (int64_t j = 0; j < v->as.list.count; j++) sum += (double)v->as.list.items[j].as.integer;
  }
  polyop_set_float(&results[0], sum);
  return 0;
}

/* Adds the tensors of a list, with None among them, into `out`. */
POLYOP_KERNEL(add_into) {
  double *out = polyop_written(&args[0]);
  for (int64_t i = 0; i < args[1].as.list.count; i++) {
    const PolyopValue *one = &args[1].as.list.items[i];
    if (one->kind == POLYOP_NONE) continue;
    POLYOP_CHECK(polyop_same_shape(one, &args[0]), "tensor %d has another shape", (int)i);
    if (polyop_written(one)) return polyop_fail(call, "an input can be written");
    const double *x = polyop_data(one);
    for (int64_t j = 0; j < polyop_count(one); j++) out[j] += x[j];
  }
  return 0;
}

/* The strides that arrive, as a tensor. */
POLYOP_KERNEL(strides) {
  double *out = polyop_written(&results[0]);
  for (int32_t i = 0; i < args[0].as.tensor->ndim; i++)
    out[i] = (double)args[0].as.tensor->strides[i];
  return 0;
}
POLYOP_SHAPE(strides_shape) {
  if (polyop_data(&args[0])) return polyop_fail(call, "a shape function saw data");
  int64_t n = args[0].as.tensor->ndim;
  return polyop_make(call, 0, float64, 1, &n);
}

/* Two results and a number; the sizes are in the data. */
POLYOP_KERNEL(parts) {
  const double *x = polyop_data(&args[0]);
  int64_t n = (int64_t)x[0], none = 0;
  if (polyop_make(call, 0, float64, 1, &n) || polyop_make(call, 2, float64, 1, &none)) return 1;
  double *out = polyop_written(&results[0]);
  for (int64_t i = 0; i < n; i++) out[i] = (double)i;
  polyop_set_int(&results[1], n);
  return 0;
}

/* Breaks the rules in the way that its argument says. */
POLYOP_KERNEL(bad) {
  int64_t n = 2, minus = -2;
  DLDataType odd = {99, 3, 1};
  switch (args[1].as.integer) {
    case 0: return 0;
    case 1: return polyop_make(call, 5, float64, 1, &n), 0;
    case 2: return polyop_make(call, 0, float64, 1, &minus);
    case 3: return polyop_make(call, 0, odd, 1, &n);
    case 4: return polyop_make(call, 0, float64, -3, &n);
    case 5: return polyop_make(call, 0, float64, 1, &n) || polyop_make(call, 0, float64, 1, &n);
    case 6: return 7;
    case 7: n = INT64_MAX; return polyop_make(call, 0, float64, 1, &n);
    default: return polyop_fail(call, "%2000d", 1);
  }
}

POLYOP_KERNEL(seven) {
  polyop_set_int(&results[0], 7);
  return 0;
}
POLYOP_KERNEL(wrong_kind) {
  polyop_set_float(&results[0], 1.5);
  return 0;
}

POLYOP_KERNEL(filled) {
  double *out = polyop_written(&results[0]);
  for (int64_t i = 0; i < polyop_count(&results[0]); i++) out[i] = args[1].as.number;
  return 0;
}
POLYOP_SHAPE(filled_shape) {
  int64_t sizes[8];
  POLYOP_CHECK(args[0].as.list.count <= 8, "at most 8 sizes");
  for (int64_t i = 0; i < args[0].as.list.count; i++) sizes[i] = args[0].as.list.items[i].as.integer;
  return polyop_make(call, 0, float64, (int32_t)args[0].as.list.count, sizes);
}

static const PolyopOperator operators[] = {
    {POLYOP_HERE, .schema = "clib::twice(Tensor x) -> Tensor", .kernel = twice, .like = "x"},
    {POLYOP_HERE, .schema = "clib::total(int a, float b, bool c, int[] d, str e, ScalarType? f=None, "
                            "complex g=0j) -> float", .kernel = total},
    {POLYOP_HERE, .schema = "clib::add_into(Tensor(a!) out, Tensor?[] xs) -> ()", .kernel = add_into,
     .dtypes = "float64"},
    {POLYOP_HERE, .schema = "clib::strides(Tensor x) -> Tensor", .kernel = strides,
     .shape = strides_shape, .flags = POLYOP_STRIDED},
    {POLYOP_HERE, .schema = "clib::packed(Tensor x) -> Tensor", .kernel = strides,
     .shape = strides_shape},
    {POLYOP_HERE, .schema = "clib::parts(Tensor x) -> (Tensor, int, Tensor)", .kernel = parts,
     .dtypes = "float64"},
    {POLYOP_HERE, .schema = "clib::bad(Tensor x, int how) -> Tensor", .kernel = bad},
    {POLYOP_HERE, .schema = "clib::seven(Tensor x) -> int", .kernel = seven},
    {POLYOP_HERE, .schema = "clib::wrong_kind(Tensor x) -> int", .kernel = wrong_kind},
    {POLYOP_HERE, .schema = "clib::filled(SymInt[] size, float value=1.0) -> Tensor",
     .kernel = filled, .shape = filled_shape},
    {POLYOP_HERE, .schema = "clib_python::twice", .kernel = twice, .like = "x"},
};
POLYOP_LIBRARY(operators)
