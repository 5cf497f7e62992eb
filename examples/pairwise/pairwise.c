/* Squared distances between the rows of two matrices, without an array of the differences. */
#include <stdlib.h>

#include "polyop.h"

/* The loops of an argument: its axes before the last two. */
static int64_t loops(const PolyopValue *value) { return value->as.tensor->ndim - 2; }

/* The size of a loop, counted from the last; 1 where an argument has none, or repeats. */
static int64_t loop_size(const PolyopValue *value, int64_t from_last) {
  int64_t i = loops(value) - 1 - from_last;
  return i < 0 ? 1 : value->as.tensor->shape[i];
}

/* Which matrix of an argument belongs to a matrix of the result. */
static int64_t matrix_of(const PolyopValue *value, const PolyopValue *result, int64_t number) {
  int64_t found = 0, stride = 1;
  for (int64_t i = 0; i < loops(result); i++) {
    int64_t here = number % loop_size(result, i), size = loop_size(value, i);
    number /= loop_size(result, i);
    if (size > 1) found += here * stride;
    stride *= size;
  }
  return found;
}

/* So many rows of y are taken at once, with their columns side by side: one sum in each lane. */
#define LANES 16

#define DISTANCES(name, real)                                                                  \
  static int name(const real *x, const real *y, real *out, int64_t m, int64_t n, int64_t k) {  \
    real *columns = calloc((size_t)(k ? k : 1) * LANES, sizeof *columns);                      \
    if (!columns) return 1;                                                                    \
    for (int64_t j = 0; j < n; j += LANES) {                                                   \
      int64_t here = n - j < LANES ? n - j : LANES;                                            \
      for (int64_t w = 0; w < here; w++)                                                       \
        for (int64_t c = 0; c < k; c++) columns[c * LANES + w] = y[(j + w) * k + c];           \
      for (int64_t i = 0; i < m; i++) {                                                        \
        real sums[LANES] = {0};                                                                \
        for (int64_t c = 0; c < k; c++)                                                        \
          for (int w = 0; w < LANES; w++) {                                                    \
            real difference = x[i * k + c] - columns[c * LANES + w];                           \
            sums[w] += difference * difference;                                                \
          }                                                                                    \
        for (int64_t w = 0; w < here; w++) out[i * n + j + w] = sums[w];                       \
      }                                                                                        \
    }                                                                                          \
    free(columns);                                                                             \
    return 0;                                                                                  \
  }
DISTANCES(distances_f32, float)
DISTANCES(distances_f64, double)

POLYOP_KERNEL(pairwise) {
  const PolyopValue *x = &args[0], *y = &args[1];
  int64_t m = polyop_size(x, -2), n = polyop_size(y, -2), k = polyop_size(x, -1);
  int64_t most = loops(x) > loops(y) ? loops(x) : loops(y), shape[32];
  POLYOP_CHECK(loops(x) >= 0 && loops(y) >= 0, "x and y are matrices");
  POLYOP_CHECK(most < 30, "at most 29 loops, not %d", (int)most);
  POLYOP_CHECK(polyop_size(y, -1) == k, "rows of %d and of %d numbers", (int)k,
               (int)polyop_size(y, -1));
  POLYOP_CHECK(polyop_is(y, x->as.tensor->dtype.code, x->as.tensor->dtype.bits),
               "x and y have one dtype");
  for (int64_t i = 0; i < most; i++) {
    int64_t a = loop_size(x, i), b = loop_size(y, i);
    POLYOP_CHECK(a == b || a == 1 || b == 1, "loops of %d and of %d", (int)a, (int)b);
    shape[most - 1 - i] = a == 1 ? b : a;
  }
  shape[most] = m, shape[most + 1] = n;
  if (polyop_make(call, 0, x->as.tensor->dtype, (int32_t)most + 2, shape)) return 1;
  int64_t matrices = m * n ? polyop_count(&results[0]) / (m * n) : 0;
  for (int64_t i = 0; i < matrices; i++) {
    int64_t a = matrix_of(x, &results[0], i) * m * k, b = matrix_of(y, &results[0], i) * n * k;
    int failed =
        polyop_is(x, POLYOP_FLOAT_TYPE, 32)
            ? distances_f32((const float *)polyop_data(x) + a, (const float *)polyop_data(y) + b,
                            (float *)polyop_written(&results[0]) + i * m * n, m, n, k)
            : distances_f64((const double *)polyop_data(x) + a, (const double *)polyop_data(y) + b,
                            (double *)polyop_written(&results[0]) + i * m * n, m, n, k);
    POLYOP_CHECK(!failed, "no memory for %d columns", (int)k);
  }
  return 0;
}

static const PolyopOperator operators[] = {
    {POLYOP_HERE, .schema = "examples::pairwise", .kernel = pairwise, .dtypes = "float32, float64"},
};
POLYOP_LIBRARY(operators)
