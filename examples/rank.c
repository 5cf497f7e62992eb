/* A kernel library in one C file: ranks of the elements, a running maximum, and the nonzero ones.
 *
 *   cc -O2 -shared -fPIC -I"$(python -c 'import polyop; print(polyop.get_include())')" rank.c -o rank.so
 */
#include "polyop.h"

/* How many elements of the same row are smaller, for each element of a matrix. */
POLYOP_KERNEL(rank) {
  POLYOP_CHECK(args[0].as.tensor->ndim == 2, "x must have 2 dimensions, not %d",
               (int)args[0].as.tensor->ndim);
  const double *x = polyop_data(&args[0]);
  int64_t *out = polyop_written(&results[0]);
  int64_t rows = polyop_size(&args[0], 0), columns = polyop_size(&args[0], 1);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < columns; i++) {
      int64_t smaller = 0;
      for (int64_t j = 0; j < columns; j++) smaller += x[r * columns + j] < x[r * columns + i];
      out[r * columns + i] = smaller;
    }
  return 0;
}

POLYOP_SHAPE(rank_shape) {
  DLTensor *x = args[0].as.tensor;
  DLDataType int64 = {POLYOP_INT_TYPE, 64, 1};
  return polyop_make(call, 0, int64, x->ndim, x->shape);
}

/* The greatest element so far, in place. */
POLYOP_KERNEL(running_max) {
  double *x = polyop_written(&args[0]);
  for (int64_t i = 1; i < polyop_count(&args[0]); i++)
    if (x[i] < x[i - 1]) x[i] = x[i - 1];
  return 0;
}

/* The positions of elements above a limit: a size that only the kernel knows. */
POLYOP_KERNEL(above) {
  const double *x = polyop_data(&args[0]);
  DLDataType int64 = {POLYOP_INT_TYPE, 64, 1};
  int64_t n = polyop_count(&args[0]), found = 0;
  for (int64_t i = 0; i < n; i++) found += x[i] > args[1].as.number;
  if (polyop_make(call, 0, int64, 1, &found)) return 1;
  int64_t *out = polyop_written(&results[0]);
  for (int64_t i = 0; i < n; i++)
    if (x[i] > args[1].as.number) *out++ = i;
  return 0;
}

static const PolyopOperator operators[] = {
    {POLYOP_HERE, .schema = "rank::rank(Tensor x) -> Tensor", .kernel = rank,
     .shape = rank_shape, .dtypes = "float64"},
    {POLYOP_HERE, .schema = "rank::running_max_(Tensor(a!) x) -> ()", .kernel = running_max,
     .dtypes = "float64"},
    {POLYOP_HERE, .schema = "rank::above(Tensor x, float limit=0.0) -> Tensor", .kernel = above,
     .dtypes = "float64"},
};
POLYOP_LIBRARY(operators)
