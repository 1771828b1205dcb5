/* The seam between the engine and its kernels. Internal to the library. */
#ifndef EDGEL3_KERNELS_H_
#define EDGEL3_KERNELS_H_

#include "edgel3_packed.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Marks, among the offsets of taps, an input row of one channel that is zero all along. */
#define EDGEL3_ROW_IS_ZERO 65535u

/* A tap of an expanded list. */
typedef struct edgel3_tap {
  uint32_t weight; /* its magnitude */
  uint32_t offset; /* of its input for output column 0, in bytes from the beginning of the ring */
} edgel3_tap;

/* Room for an expanded list: a tap is written before it is known whether it stays. */
static inline size_t edgel3_list_bytes(const edgel3_conv *conv) {
  return (conv->max_taps + 1u) * sizeof(edgel3_tap);
}

/* Columns rounded up to what the widest kernel computes at once. */
static inline uint32_t edgel3_padded_columns(const edgel3_conv *conv) {
  return (conv->columns + 63u) & ~63u;
}

/* What it takes to compute one output row. */
typedef struct edgel3_row {
  const edgel3_conv *conv;
  const uint8_t *ring;
  const uint16_t *offsets; /* of every tap, by number */
  uint32_t rotation;       /* slot of the ring, 0 to 2, that holds the topmost of the three rows */
  edgel3_tap *list;        /* scratch, edgel3_list_bytes */
  int32_t *accumulators;   /* scratch, edgel3_padded_columns of them */
  const void *prepared;    /* what `prepare` made */
} edgel3_row;

/* A set of kernels. `convolve` gives one channel of an output row: uint8 values, that is int8 ones
 * plus 128, `columns` of them. Channels are asked for in turn: `cursor` is where the weights of this
 * one begin and is moved to the next's.
 */
typedef struct edgel3_kernels {
  const char *name;
  /* Whether these kernels compute this convolution exactly, on this processor. */
  int (*accepts)(const edgel3_conv *conv);
  /* Memory for lists that are expanded once, at set-up (`offsets` and `list` are scratch then as they
   * are in edgel3_row); both null where every row expands them. */
  size_t (*prepared_bytes)(const edgel3_conv *conv);
  void (*prepare)(const edgel3_conv *conv, uint16_t *offsets, edgel3_tap *list, void *prepared);
  void (*convolve)(const edgel3_row *row, uint32_t channel, const uint8_t **cursor,
                   uint8_t *output);
  /* Maxima of `count` pairs of neighbours; of the values that are there as well, if `second`. */
  void (*pool)(uint8_t *values, const uint8_t *row, uint32_t count, int second);
} edgel3_kernels;

extern const edgel3_kernels edgel3_kernels_portable;
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#define EDGEL3_HAS_KERNELS_M7 1
extern const edgel3_kernels edgel3_kernels_m7;
#endif
/* A build may add one more set of kernels: it defines EDGEL3_EXTRA_KERNELS as the name of the set, an
 * edgel3_kernels constant in a file of its own.
 */
#ifdef EDGEL3_EXTRA_KERNELS
extern const edgel3_kernels EDGEL3_EXTRA_KERNELS;
#endif

/* Where the three rows of a ring and their channels lie: offsets[tap] for every tap by number. Rows
 * that are zero all along are marked, if a zero is held as 0 and `ring` is not null.
 */
void edgel3_tap_offsets(const edgel3_conv *conv, const uint8_t *ring, uint32_t rotation,
                        uint16_t *offsets);

/* A channel's list: taps of negative weight, then those of positive weight. */
typedef struct edgel3_list {
  const edgel3_tap *begin;
  const edgel3_tap *positives;
  const edgel3_tap *end;
} edgel3_list;

/* Expand the weights of one channel into a list of the taps whose inputs are not all zero.
 *
 * @param scratch  edgel3_list_bytes, in which the list will lie
 */
edgel3_list edgel3_expand(const edgel3_conv *conv, uint32_t channel, const uint8_t **cursor,
                          const uint16_t *offsets, edgel3_tap *scratch);

/* The portable `pool`. */
void edgel3_pool_row(uint8_t *values, const uint8_t *row, uint32_t count, int second);

/* One accumulator to one output, as TFLite's reference does it: gemmlowp's doubling high
 * multiplication and its division by a power of two, both rounding; then zero point and clamps.
 */
uint8_t edgel3_requantize(const edgel3_conv *conv, uint32_t channel, int32_t accumulator);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_KERNELS_H_ */
