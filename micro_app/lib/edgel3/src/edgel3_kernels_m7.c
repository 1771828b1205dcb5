/* Kernels for the Cortex-M7 and every other ARMv7E-M processor.
 *
 * UMLAL multiplies 32 by 32 bits into 64. Of a word of four inputs the first and the last, the others
 * masked away, are one factor: b0 + b3 * 2^24. Its product with a weight holds both products, and
 * sums of such products hold both sums as long as the lower one fits 24 bits: one instruction does two
 * multiply-accumulates, and one AND, with the rotation that brings the middle inputs to the ends, makes
 * the next factor ready. Factors are not negative, so negative weights are summed up by their
 * magnitudes first and that sum is subtracted. Four columns of a tap take 5 1/3 instructions, loading
 * the tap included (edgel3_loops_m7.S).
 */
#include "edgel3_kernels.h"

#ifdef EDGEL3_HAS_KERNELS_M7

#include <arm_acle.h>
#include <string.h>

/* Arguments of a sweep, in the order in which the assembler finds them. */
typedef struct edgel3_sweep {
  uint32_t negatives; /* how many taps */
  uint32_t positives;
  const uint8_t *ring;
  const edgel3_tap *list;
  const edgel3_tap *list_positives;
  const edgel3_tap *list_end;
  uint64_t start; /* complement of the bias in both lanes: negative taps are added to it first */
  int32_t multiplier;
  int32_t addend; /* to the product, before it is divided by 2^exponent */
  int32_t exponent;
  uintptr_t output;        /* address of the output less that of the ring */
  const uint8_t *ring_end; /* as far from the ring as the columns, rounded up to four, reach */
} edgel3_sweep;

/* One channel of a row, requantized: words of four columns are written. The second one is for an output
 * whose zero is not held as 0, which takes two instructions more a column.
 */
void edgel3_sweep_rectified_m7(edgel3_sweep sweep);
void edgel3_sweep_m7(edgel3_sweep sweep);

/* One part of a list; they answer where it ends. */
edgel3_tap *edgel3_expand_gap16_m7(const uint8_t *taps, uint32_t count, const uint16_t *offsets,
                                   edgel3_tap *end);
edgel3_tap *edgel3_expand_gap12_m7(const uint8_t *taps, uint32_t count, const uint16_t *offsets,
                                   edgel3_tap *end);

static edgel3_list expand(const edgel3_row *row, uint32_t channel, const uint8_t **cursor) {
  const edgel3_conv *conv = row->conv;
  const uint32_t negatives = conv->negatives[channel];
  const uint32_t positives = conv->positives[channel];
  const uint8_t *taps = *cursor;
  edgel3_list list = {row->list, NULL, NULL};
  switch (conv->encoding) {
    case EDGEL3_ENCODING_GAP16: {
      edgel3_tap *middle = edgel3_expand_gap16_m7(taps, negatives, row->offsets, row->list);
      taps += 2u * negatives;
      list.positives = middle;
      list.end = edgel3_expand_gap16_m7(taps, positives, row->offsets, middle);
      *cursor = taps + 2u * positives;
      return list;
    }
    case EDGEL3_ENCODING_GAP12: {
      edgel3_tap *middle = edgel3_expand_gap12_m7(taps, negatives, row->offsets, row->list);
      taps += 3u * negatives / 2u;
      list.positives = middle;
      list.end = edgel3_expand_gap12_m7(taps, positives, row->offsets, middle);
      *cursor = taps + 3u * positives / 2u;
      return list;
    }
    case EDGEL3_ENCODING_DENSE:
    default: return edgel3_expand(conv, channel, cursor, row->offsets, row->list);
  }
}

static void convolve(const edgel3_row *row, uint32_t channel, const uint8_t **cursor,
                     uint8_t *output) {
  const edgel3_conv *conv = row->conv;
  const edgel3_list list = expand(row, channel, cursor);
  const int64_t bias = conv->bias[channel];
  const int32_t exponent = -conv->shift[channel];
  const int32_t half = exponent > 0 ? 1 << (exponent - 1) : 0;
  const edgel3_sweep sweep = {(uint32_t)(list.positives - list.begin),
                              (uint32_t)(list.end - list.positives),
                              row->ring,
                              list.begin,
                              list.positives,
                              list.end,
                              ~(uint64_t)(bias + bias * (1 << 24)),
                              conv->multiplier[channel],
                              half + (int32_t)((uint32_t)conv->output_zero << exponent),
                              exponent,
                              (uintptr_t)output - (uintptr_t)row->ring,
                              row->ring + ((conv->columns + 3u) & ~3u)};
  /* The last word written may reach beyond the row: what stands there is put back. */
  uint32_t behind;
  memcpy(&behind, output + conv->columns, sizeof behind);
  if (conv->output_zero == 0) {
    edgel3_sweep_rectified_m7(sweep);
  } else {
    edgel3_sweep_m7(sweep);
  }
  memcpy(output + conv->columns, &behind, sizeof behind);
}

/* Maxima byte by byte. */
static inline uint32_t larger(uint32_t a, uint32_t b) {
  (void)__usub8(a, b);
  return __sel(a, b);
}

/* Maxima of the pairs of a word's bytes, in its lower half. */
static inline uint32_t pool_word(uint32_t word) {
  const uint32_t apart = larger(word, word >> 8) & 0x00ff00ffu;
  return apart | apart >> 8;
}

static void pool(uint8_t *values, const uint8_t *row, uint32_t count, int second) {
  uint32_t i = 0;
  for (; i + 4u <= count; i += 4u) {
    uint32_t words[2];
    memcpy(words, row + 2u * i, sizeof words);
    uint32_t pooled = (pool_word(words[0]) & 0xffffu) | pool_word(words[1]) << 16;
    if (second) {
      uint32_t first;
      memcpy(&first, values + i, sizeof first);
      pooled = larger(pooled, first);
    }
    memcpy(values + i, &pooled, sizeof pooled);
  }
  edgel3_pool_row(values + i, row + 2u * i, count - i, second);
}

/* The lower of two lanes has 24 bits, and outputs saturate to all of eight. Where a zero is not held as
 * 0, rounding away from zero takes a division to round for, and the zero point must fit the addend.
 */
static int accepts(const edgel3_conv *conv) {
  if (conv->accumulator_bound >= 1 << 23 || conv->output_min != 0 || conv->output_max != 255) {
    return 0;
  }
  for (uint32_t channel = 0; channel < conv->output_channels; ++channel) {
    const int exponent = -conv->shift[channel];
    if (exponent < 0) return 0;
    if (conv->output_zero != 0 && (exponent == 0 || exponent > 22)) return 0;
  }
  return 1;
}

const edgel3_kernels edgel3_kernels_m7 = {"m7", accepts, NULL, NULL, convolve, pool};

#endif /* EDGEL3_HAS_KERNELS_M7 */
