#include "sparse_products.h"

#include <stddef.h>
#include <string.h>

#include "edgel3_contraction.h"

/* Eight sums, in one register or in several. GCC does not align the stack for vectors of 32 bytes on
 * Windows.
 */
#define LANES 8u
#if defined(__GNUC__) && !defined(_WIN32)
typedef float lanes __attribute__((vector_size(32)));
#define INLINE static inline __attribute__((always_inline))

INLINE void add_scaled(lanes *sums, float weight, const float *values) {
  lanes factors;
  memcpy(&factors, values, sizeof factors);
  *sums += weight * factors;
}

INLINE void add_products(lanes *sums, const float *left, const float *right) {
  lanes factors[2];
  memcpy(&factors[0], left, sizeof factors[0]);
  memcpy(&factors[1], right, sizeof factors[1]);
  *sums += factors[0] * factors[1];
}
#else
typedef struct lanes {
  float values[LANES];
} lanes;
#define INLINE static inline

INLINE void add_scaled(lanes *sums, float weight, const float *values) {
  for (uint32_t i = 0; i < LANES; i++) sums->values[i] += weight * values[i];
}

INLINE void add_products(lanes *sums, const float *left, const float *right) {
  for (uint32_t i = 0; i < LANES; i++) sums->values[i] += left[i] * right[i];
}
#endif

/* Columns that are computed at once: as many sums as fit in the registers of AVX2, SSE and NEON
 * without waiting for each other. */
#define BLOCK_LANES 8u
#define BLOCK (BLOCK_LANES * LANES)
/* Columns whose products are summed at once. */
#define STRIDE_LANES 4u
#define STRIDE (STRIDE_LANES * LANES)

INLINE void multiply_block(const float *values, const uint32_t *offsets, const float *weights,
                           uint32_t entries, float bias, float *sums) {
  lanes block[BLOCK_LANES];
  memset(block, 0, sizeof block);
  for (uint32_t entry = 0; entry < entries; entry++) {
    const float *from = values + offsets[entry];
    for (uint32_t i = 0; i < BLOCK_LANES; i++) {
      add_scaled(&block[i], weights[entry], from + i * LANES);
    }
  }
  memcpy(sums, block, sizeof block);
  for (uint32_t i = 0; i < BLOCK; i++) sums[i] += bias;
}

INLINE void multiply(const float *values, const uint32_t *begins, const uint32_t *offsets,
                     const float *weights, const float *bias, uint32_t first, uint32_t end,
                     uint32_t columns, float *sums) {
  /* The last block overlaps the one before it. */
  for (uint32_t column = 0; column < columns && columns >= BLOCK; column += BLOCK) {
    const uint32_t start = columns - column < BLOCK ? columns - BLOCK : column;
    for (uint32_t row = first; row < end; row++) {
      const uint32_t begin = begins[row];
      multiply_block(values + start, offsets + begin, weights + begin, begins[row + 1] - begin,
                     bias[row], sums + (size_t)row * columns + start);
    }
  }
  if (columns >= BLOCK) return;
  for (uint32_t row = first; row < end; row++) {
    for (uint32_t column = 0; column < columns; column++) {
      float sum = 0;
      for (uint32_t entry = begins[row]; entry < begins[row + 1]; entry++) {
        sum += weights[entry] * values[offsets[entry] + column];
      }
      sums[(size_t)row * columns + column] = sum + bias[row];
    }
  }
}

INLINE float correlate_entry(const float *values, const float *errors, uint32_t columns) {
  lanes block[STRIDE_LANES];
  float each[STRIDE];
  uint32_t column = 0;
  memset(block, 0, sizeof block);
  for (; columns - column >= STRIDE; column += STRIDE) {
    for (uint32_t i = 0; i < STRIDE_LANES; i++) {
      add_products(&block[i], values + column + i * LANES, errors + column + i * LANES);
    }
  }
  memcpy(each, block, sizeof each);
  for (uint32_t half = STRIDE / 2; half > 0; half /= 2) {
    for (uint32_t i = 0; i < half; i++) each[i] += each[half + i];
  }
  for (; column < columns; column++) each[0] += values[column] * errors[column];
  return each[0];
}

INLINE void correlate(const float *values, const uint32_t *begins, const uint32_t *offsets,
                      const float *errors, uint32_t first, uint32_t end, uint32_t columns,
                      float *gradients) {
  for (uint32_t row = first; row < end; row++) {
    for (uint32_t entry = begins[row]; entry < begins[row + 1]; entry++) {
      gradients[entry] =
          correlate_entry(values + offsets[entry], errors + (size_t)row * columns, columns);
    }
  }
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(_WIN32)
#define AVX2 __attribute__((target("avx2"))) static

AVX2 void multiply_avx2(const float *values, const uint32_t *begins, const uint32_t *offsets,
                        const float *weights, const float *bias, uint32_t first, uint32_t end,
                        uint32_t columns, float *sums) {
  multiply(values, begins, offsets, weights, bias, first, end, columns, sums);
}

AVX2 void correlate_avx2(const float *values, const uint32_t *begins, const uint32_t *offsets,
                         const float *errors, uint32_t first, uint32_t end, uint32_t columns,
                         float *gradients) {
  correlate(values, begins, offsets, errors, first, end, columns, gradients);
}

#define CALL(function, ...) \
  (__builtin_cpu_supports("avx2") ? function##_avx2(__VA_ARGS__) : function(__VA_ARGS__))
#else
#define CALL(function, ...) function(__VA_ARGS__)
#endif

void edgel3_sparse_multiply(const float *values, const uint32_t *begins, const uint32_t *offsets,
                            const float *weights, const float *bias, uint32_t first, uint32_t end,
                            uint32_t columns, float *sums) {
  CALL(multiply, values, begins, offsets, weights, bias, first, end, columns, sums);
}

void edgel3_sparse_correlate(const float *values, const uint32_t *begins, const uint32_t *offsets,
                             const float *errors, uint32_t first, uint32_t end, uint32_t columns,
                             float *gradients) {
  CALL(correlate, values, begins, offsets, errors, first, end, columns, gradients);
}
