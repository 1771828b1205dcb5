/* Kernels for the Cortex-M7 and every other ARMv7E-M processor.
 *
 * UMLAL multiplies 32 by 32 bits into 64. Of a word of four inputs the first and the last, the others
 * masked away, are one factor: b0 + b3 * 2^24. Its product with a weight holds both products, and
 * sums of such products hold both sums as long as the lower one fits 24 bits: one instruction does two
 * multiply-accumulates and one (AND, with the rotation that brings the middle inputs to the ends) makes
 * the factor ready. Factors are not negative, so negative weights are summed up by their magnitudes
 * first and their sum is subtracted. Where no column is skipped that is 5.3 instructions for 4 columns
 * of a tap, loading the tap included.
 */
#include "edgel3_kernels.h"

#ifdef EDGEL3_HAS_KERNELS_M7

#include <string.h>

/* What edgel3_sweep_m7.S works on. It sums, for every four columns, two pairs of lanes:
 * column 0 + column 3 * 2^24, then column 2 + column 1 * 2^24.
 */
typedef struct edgel3_sweep {
  const edgel3_tap *list;
  const edgel3_tap *positives;
  const edgel3_tap *end;
  uint32_t negative_groups;
  uint32_t positive_groups;
  const uint8_t *ring;
  uint32_t *lanes;
  uint32_t *lanes_end;
  uint32_t bias_low; /* both lanes begin with twice the bias */
  uint32_t bias_high;
} edgel3_sweep;

void edgel3_sweep_m7(const edgel3_sweep *sweep);

static inline int32_t lower_lane(uint32_t low) { return (int32_t)(low << 8) >> 8; }

/* A negative lower lane has borrowed one from the upper. */
static inline int32_t upper_lane(uint32_t low, uint32_t high, int32_t lower) {
  return (int32_t)((low >> 24 | high << 8) + ((uint32_t)lower >> 31));
}

/* offset + (a * b + 2^31) / 2^32: with `a` doubled, gemmlowp's doubling high multiplication. */
static inline int32_t multiply_high(int32_t a, int32_t b, int32_t offset) {
  int32_t result;
  __asm__("smmlar %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(offset));
  return result;
}

static inline uint32_t saturate(int32_t value) {
  uint32_t result;
  __asm__("usat %0, #8, %1" : "=r"(result) : "r"(value));
  return result;
}

static inline uint32_t requantize_rectified(int32_t doubled, int32_t multiplier, int32_t half,
                                            int32_t exponent) {
  return saturate(multiply_high(doubled, multiplier, half) >> exponent);
}

/* Behind a ReLU, where 0 is held as 0. Negative values come out as 0 however they are rounded, so the
 * rounding of gemmlowp's division, away from zero, need not be told from rounding up.
 */
static void requantize_row_rectified(const edgel3_conv *conv, uint32_t channel,
                                     const uint32_t *lanes, uint8_t *output) {
  const int32_t multiplier = conv->multiplier[channel];
  const int32_t exponent = -conv->shift[channel];
  const int32_t half = exponent > 0 ? 1 << (exponent - 1) : 0;
  uint32_t left = conv->columns;
  for (;;) {
    const int32_t a = lower_lane(lanes[0]);
    const int32_t d = upper_lane(lanes[0], lanes[1], a);
    const int32_t c = lower_lane(lanes[2]);
    const int32_t b = upper_lane(lanes[2], lanes[3], c);
    lanes += 4;
    const uint32_t word = requantize_rectified(a, multiplier, half, exponent) |
                          requantize_rectified(b, multiplier, half, exponent) << 8 |
                          requantize_rectified(c, multiplier, half, exponent) << 16 |
                          requantize_rectified(d, multiplier, half, exponent) << 24;
    if (left <= 4u) {
      memcpy(output, &word, left);
      return;
    }
    memcpy(output, &word, sizeof word);
    output += 4;
    left -= 4u;
  }
}

static void requantize_row(const edgel3_conv *conv, uint32_t channel, const uint32_t *lanes,
                           uint8_t *output) {
  for (uint32_t t = 0; t < conv->columns; ++t) {
    const uint32_t *pair = lanes + t / 4u * 4u + (t % 4u == 1u || t % 4u == 2u ? 2u : 0u);
    const int32_t lower = lower_lane(pair[0]);
    const int32_t doubled = t % 2u == 0 ? lower : upper_lane(pair[0], pair[1], lower);
    output[t] = edgel3_requantize(conv, channel, doubled / 2);
  }
}

static void convolve(const edgel3_row *row, uint32_t channel, const uint8_t **cursor,
                     uint8_t *output) {
  const edgel3_conv *conv = row->conv;
  const edgel3_list list = edgel3_expand(conv, channel, cursor, row->offsets, row->list);
  uint32_t *lanes = (uint32_t *)row->accumulators;
  const int64_t bias = 2 * (int64_t)conv->bias[channel];
  const uint64_t both = (uint64_t)(bias + bias * (1 << 24));
  const edgel3_sweep sweep = {row->list,
                              list.positives,
                              list.end,
                              (uint32_t)(list.positives - row->list) / EDGEL3_TAP_GROUP,
                              (uint32_t)(list.end - list.positives) / EDGEL3_TAP_GROUP,
                              row->ring,
                              lanes,
                              lanes + ((conv->columns + 3u) & ~3u),
                              (uint32_t)both,
                              (uint32_t)(both >> 32)};
  edgel3_sweep_m7(&sweep);
  if (conv->output_zero == 0 && conv->output_min == 0 && conv->output_max == 255) {
    requantize_row_rectified(conv, channel, lanes, output);
  } else {
    requantize_row(conv, channel, lanes, output);
  }
}

/* The lower of two lanes has 24 bits for a sum that is doubled. */
static int accepts(const edgel3_conv *conv) {
  return conv->max_shift <= 0 && 2 * conv->accumulator_bound < 1 << 23;
}

const edgel3_kernels edgel3_kernels_m7 = {"m7", accepts, NULL, NULL, convolve};

#endif /* EDGEL3_HAS_KERNELS_M7 */
