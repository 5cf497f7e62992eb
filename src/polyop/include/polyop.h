/* A kernel library for polyop in one C file, built by one call of a compiler:
 *
 *   cc -O2 -shared -fPIC -I"$(python -c 'import polyop; print(polyop.get_include())')" lib.c -o lib.so
 *
 * and loaded by polyop.ops.load_library("lib.so"). The file writes kernels, lists them with their
 * schemas, and names the list:
 *
 *   #include <math.h>
 *   #include "polyop.h"
 *
 *   POLYOP_KERNEL(half) {
 *       const float *x = polyop_data(&args[0]);
 *       float *y = polyop_written(&results[0]);
 *       POLYOP_CHECK(args[0].as.tensor->ndim > 0, "half takes no scalars");
 *       for (int64_t i = 0; i < polyop_count(&args[0]); i++) y[i] = x[i] / 2;
 *       return 0;
 *   }
 *
 *   static const PolyopOperator operators[] = {
 *       {POLYOP_HERE, .schema = "mylib::half(Tensor x) -> Tensor", .kernel = half, .like = "x",
 *        .dtypes = "float32"},
 *   };
 *   POLYOP_LIBRARY(operators)
 *
 * Tensors are DLPack's. Those that come in are contiguous unless the operator says POLYOP_STRIDED.
 * Kernels run without Python's lock, several at once: what they share must be guarded.
 * Symbols of a library are global, so whatever is not `static` is shared with libraries loaded
 * before; POLYOP_KERNEL and POLYOP_SHAPE make their functions static.
 */
#ifndef POLYOP_H_
#define POLYOP_H_

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define POLYOP_ABI_VERSION 1

/* -- tensors: DLPack's structures; a file that needs more of dlpack.h includes it first -- */

#ifndef DLPACK_DLPACK_H_
typedef struct {
  int32_t device_type; /* 1: memory of the CPU */
  int32_t device_id;
} DLDevice;

typedef struct {
  uint8_t code; /* PolyopTypeCode */
  uint8_t bits;
  uint16_t lanes;
} DLDataType;

typedef struct {
  void *data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape;
  int64_t *strides; /* in elements; never NULL here */
  uint64_t byte_offset;
} DLTensor;
#endif

typedef enum {
  POLYOP_INT_TYPE = 0,
  POLYOP_UINT_TYPE = 1,
  POLYOP_FLOAT_TYPE = 2,
  POLYOP_BFLOAT_TYPE = 4,
  POLYOP_COMPLEX_TYPE = 5,
  POLYOP_BOOL_TYPE = 6,
  POLYOP_FLOAT8_E4M3FN_TYPE = 10,
  POLYOP_FLOAT8_E5M2_TYPE = 12
} PolyopTypeCode;

/* -- values: what arguments and results are -- */

typedef enum {
  POLYOP_NONE = 0,
  POLYOP_INT = 1,
  POLYOP_FLOAT = 2,
  POLYOP_BOOL = 3, /* in `integer` */
  POLYOP_COMPLEX = 4,
  POLYOP_STRING = 5, /* UTF-8, ends with a zero */
  POLYOP_DTYPE = 6,
  POLYOP_TENSOR = 7,
  POLYOP_LIST = 8
} PolyopKind;

/* The kernel may write the tensor's data: a result, or an argument declared `Tensor(a!)`. */
#define POLYOP_WRITTEN 1u

typedef struct PolyopValue {
  int32_t kind; /* PolyopKind */
  uint32_t flags;
  union {
    int64_t integer;
    double number;
    double parts[2];
    const char *text;
    DLDataType dtype;
    DLTensor *tensor;
    struct {
      const struct PolyopValue *items;
      int64_t count;
    } list;
  } as;
} PolyopValue;

/* -- calls: what polyop offers to a kernel while it runs -- */

typedef struct PolyopCall {
  char *error; /* the text of an error, at most error_size bytes with its zero */
  uint64_t error_size;
  /* Makes result `index`: gives 0, and the tensor is in results[index]. */
  int (*make)(struct PolyopCall *call, int32_t index, DLDataType dtype, int32_t ndim,
              const int64_t *shape);
  void *reserved[4];
} PolyopCall;

/* Both give 0, or another number after polyop_fail. A shape function gets tensors without data
 * and makes every tensor among the results; it runs ahead of the kernel, and as the fake rule. */
typedef int (*PolyopFunction)(PolyopCall *call, const PolyopValue *args, PolyopValue *results);

/* Arguments may have any strides; without it, they are copied first if they are not contiguous. */
#define POLYOP_STRIDED 1u

typedef struct {
  const char *file; /* both by POLYOP_HERE */
  int32_t line;
  uint32_t flags;
  /* "ns::name(Tensor x) -> Tensor", or only "ns::name" for an operator that is there already. */
  const char *schema;
  PolyopFunction kernel;
  /* How polyop knows the results: one argument's name for each tensor, "x, y", whose shape and
   * dtype it has; or a function; or, with neither, the kernel makes the results itself. */
  const char *like;
  PolyopFunction shape;
  const char *key; /* a dispatch key; NULL for "CPU" */
  /* What polyop lets through: the dtypes that tensors may have, "float32, float64"; NULL: any,
   * and the kernel must look itself before it reads. */
  const char *dtypes;
} PolyopOperator;

typedef struct {
  uint32_t abi_version;
  uint32_t operator_size;
  const PolyopOperator *operators;
  uint64_t count;
} PolyopLibrary;

#if defined(_WIN32)
#define POLYOP_EXPORT __declspec(dllexport)
#else
#define POLYOP_EXPORT __attribute__((visibility("default")))
#endif

#if defined(__GNUC__)
#define POLYOP_MAYBE_UNUSED __attribute__((unused))
#define POLYOP_FORMAT __attribute__((format(printf, 2, 3)))
#else
#define POLYOP_MAYBE_UNUSED
#define POLYOP_FORMAT
#endif

#define POLYOP_HERE .file = __FILE__, .line = __LINE__

#define POLYOP_LIBRARY(operators)                                                         \
  POLYOP_EXPORT const PolyopLibrary *polyop_library(void) {                               \
    static const PolyopLibrary library = {POLYOP_ABI_VERSION, sizeof(PolyopOperator),     \
                                          operators, sizeof(operators) / sizeof *operators}; \
    return &library;                                                                      \
  }

#define POLYOP_KERNEL(name)                                                                  \
  static int name(PolyopCall *call POLYOP_MAYBE_UNUSED, const PolyopValue *args POLYOP_MAYBE_UNUSED, \
                  PolyopValue *results POLYOP_MAYBE_UNUSED)
#define POLYOP_SHAPE(name) POLYOP_KERNEL(name)

/* Refuse the call with a text, as printf has it, unless a condition holds. */
#define POLYOP_CHECK(condition, ...)                                \
  do {                                                              \
    if (!(condition)) return polyop_fail(call, __VA_ARGS__);        \
  } while (0)

POLYOP_MAYBE_UNUSED POLYOP_FORMAT static int polyop_fail(PolyopCall *call, const char *format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(call->error, (size_t)call->error_size, format, values);
  va_end(values);
  return 1;
}

/* -- reading a value -- */

/* The first element, which may only be read; NULL for what is no tensor, or one without data. */
POLYOP_MAYBE_UNUSED static const void *polyop_data(const PolyopValue *value) {
  if (value->kind != POLYOP_TENSOR || !value->as.tensor->data) return NULL;
  return (const char *)value->as.tensor->data + value->as.tensor->byte_offset;
}

/* The first element of a result, or of an argument that is declared as written; else NULL. */
POLYOP_MAYBE_UNUSED static void *polyop_written(const PolyopValue *value) {
  if (value->kind != POLYOP_TENSOR || !(value->flags & POLYOP_WRITTEN)) return NULL;
  if (!value->as.tensor->data) return NULL;
  return (char *)value->as.tensor->data + value->as.tensor->byte_offset;
}

/* The number of elements. */
POLYOP_MAYBE_UNUSED static int64_t polyop_count(const PolyopValue *value) {
  int64_t count = 1;
  for (int32_t i = 0; i < value->as.tensor->ndim; i++) count *= value->as.tensor->shape[i];
  return count;
}

/* The size of a dimension; -1 is the last one. */
POLYOP_MAYBE_UNUSED static int64_t polyop_size(const PolyopValue *value, int32_t dim) {
  return value->as.tensor->shape[dim < 0 ? dim + value->as.tensor->ndim : dim];
}

/* Whether a tensor is of a type. */
POLYOP_MAYBE_UNUSED static int polyop_is(const PolyopValue *value, PolyopTypeCode code, int bits) {
  return value->kind == POLYOP_TENSOR && value->as.tensor->dtype.code == code &&
         value->as.tensor->dtype.bits == bits;
}

/* Whether two tensors have the same shape. */
POLYOP_MAYBE_UNUSED static int polyop_same_shape(const PolyopValue *a, const PolyopValue *b) {
  if (a->as.tensor->ndim != b->as.tensor->ndim) return 0;
  for (int32_t i = 0; i < a->as.tensor->ndim; i++)
    if (a->as.tensor->shape[i] != b->as.tensor->shape[i]) return 0;
  return 1;
}

/* -- making results -- */

/* Makes result `index`, for `return polyop_make(...)`, or `if (polyop_make(...)) return 1;`. */
POLYOP_MAYBE_UNUSED static int polyop_make(PolyopCall *call, int32_t index, DLDataType dtype,
                                           int32_t ndim, const int64_t *shape) {
  return call->make(call, index, dtype, ndim, shape);
}

/* A result that is a number. */
POLYOP_MAYBE_UNUSED static void polyop_set_int(PolyopValue *result, int64_t value) {
  result->kind = POLYOP_INT;
  result->as.integer = value;
}
POLYOP_MAYBE_UNUSED static void polyop_set_float(PolyopValue *result, double value) {
  result->kind = POLYOP_FLOAT;
  result->as.number = value;
}
POLYOP_MAYBE_UNUSED static void polyop_set_bool(PolyopValue *result, int value) {
  result->kind = POLYOP_BOOL;
  result->as.integer = value != 0;
}

#ifdef __cplusplus
}
#endif
#endif /* POLYOP_H_ */
