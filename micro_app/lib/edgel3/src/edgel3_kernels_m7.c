/* Kernels for the Cortex-M7 and every other ARMv7E-M processor.
 *
 * The kernels use UMLAL, which multiplies 32 by 32 bits and adds the product to a sum of 64 bits. A
 * word of the input row holds the inputs b0 to b3 of four columns. Masking b1 and b2 leaves the
 * factor b0 + b3 * 2^24. Its product with a weight w is b0 * w + b3 * w * 2^24. A sum of such
 * products holds the sums of both columns, in a lower and an upper lane, as long as the lower sum
 * fits in 24 bits. One instruction thus does two multiply-accumulates. Rotating the word by 16 bits
 * and masking it leaves the factor of the other two columns, b2 + b1 * 2^24; one AND does both.
 *
 * The factors are not negative. The kernels therefore sum the taps of negative weight first, by
 * magnitude, and subtract that sum. One tap takes 5 1/3 instructions for four columns, including
 * the load of the tap. edgel3_loops_m7.S contains the loops.
 */
#include "edgel3_kernels.h"

#ifdef EDGEL3_HAS_KERNELS_M7

#include <arm_acle.h>
#include <stddef.h>
#include <string.h>

/* Arguments of a sweep: one output channel of one row. edgel3_loops_m7.S relies on the layout. */
typedef struct edgel3_sweep {
  uint32_t negatives;  /* taps of negative weight */
  uint32_t positives;  /* taps of positive weight */
  const uint8_t *ring; /* the input rows, to which the taps' offsets are added */
  const edgel3_tap *list;
  const edgel3_tap *list_positives;
  const edgel3_tap *list_end;
  uint64_t start;          /* complement of the bias in both lanes; negative taps are added to it */
  int32_t multiplier;      /* Q31; 0, or 2^30 or more */
  int32_t addend;          /* added to the product before it is divided by 2^exponent */
  int32_t exponent;        /* 0 to 31; 1 to 22 for edgel3_sweep_m7 */
  uintptr_t output;        /* address of the output minus that of the ring */
  const uint8_t *ring_end; /* ring plus the number of columns, rounded up to a multiple of four */
} edgel3_sweep;

/* The first four words are in r0 to r3, and the rest is on the stack: edgel3_loops_m7.S counts its
 * offsets from the fifth word. A negative array size is an error; C99 has no static assertion.
 */
#define ON_STACK(field) (offsetof(edgel3_sweep, field) - 16u)
typedef char edgel3_sweep_differs_from_the_registers
    [offsetof(edgel3_sweep, negatives) == 0 && offsetof(edgel3_sweep, positives) == 4 &&
             offsetof(edgel3_sweep, ring) == 8 && offsetof(edgel3_sweep, list) == 12
         ? 1
         : -1];
typedef char edgel3_sweep_differs_from_the_stack
    [ON_STACK(list_positives) == 0 && ON_STACK(list_end) == 4 && ON_STACK(start) == 8 &&
             ON_STACK(multiplier) == 16 && ON_STACK(addend) == 20 && ON_STACK(exponent) == 24 &&
             ON_STACK(output) == 28 && ON_STACK(ring_end) == 32
         ? 1
         : -1];

/* Compute one channel of an output row and requantize it. Both write words of four columns. The
 * first is for an output whose zero is stored as 0, as after a ReLU. The second is for any output;
 * it takes two instructions more for each column.
 */
void edgel3_sweep_rectified_m7(edgel3_sweep sweep);
void edgel3_sweep_m7(edgel3_sweep sweep);

/* Expand one part of a list to `end` and return the new end. gap12 requires an even count. */
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
  const edgel3_sweep sweep = {
      .negatives = (uint32_t)(list.positives - list.begin),
      .positives = (uint32_t)(list.end - list.positives),
      .ring = row->ring,
      .list = list.begin,
      .list_positives = list.positives,
      .list_end = list.end,
      .start = ~(uint64_t)(bias + bias * (1 << 24)),
      .multiplier = conv->multiplier[channel],
      .addend = half + (int32_t)((uint32_t)conv->output_zero << exponent),
      .exponent = exponent,
      .output = (uintptr_t)output - (uintptr_t)row->ring,
      .ring_end = row->ring + ((conv->columns + 3u) & ~3u),
  };
  /* The last word may extend past the row: save the bytes there and restore them afterwards. */
  uint32_t after;
  memcpy(&after, output + conv->columns, sizeof after);
  if (conv->output_zero == 0) {
    edgel3_sweep_rectified_m7(sweep);
  } else {
    edgel3_sweep_m7(sweep);
  }
  memcpy(output + conv->columns, &after, sizeof after);
}

/* Return the maximum of each two corresponding bytes. USUB8 sets the flags that SEL reads. */
static inline uint32_t larger(uint32_t a, uint32_t b) {
  (void)__usub8(a, b);
  return __sel(a, b);
}

/* Return the maxima of bytes 0 and 1 and of bytes 2 and 3 of a word, in bytes 0 and 1. */
static inline uint32_t pool_word(uint32_t word) {
  const uint32_t apart = larger(word, word >> 8) & 0x00ff00ffu;
  return apart | apart >> 8;
}

void edgel3_pool_m7(uint8_t *values, const uint8_t *row, uint32_t count, int second) {
  uint32_t i = 0;
  for (; i + 4u <= count; i += 4u) {
    uint32_t left, right;
    memcpy(&left, row + 2u * i, sizeof left);
    memcpy(&right, row + 2u * i + 4u, sizeof right);
    uint32_t pooled = (pool_word(left) & 0xffffu) | pool_word(right) << 16;
    if (second) {
      uint32_t first;
      memcpy(&first, values + i, sizeof first);
      pooled = larger(pooled, first);
    }
    memcpy(values + i, &pooled, sizeof pooled);
  }
  edgel3_pool_row(values + i, row + 2u * i, count - i, second);
}

/* USAT clamps to 0 and 255 only. If the output zero is not stored as 0, edgel3_sweep_m7 needs a
 * division to round in, and the addend must hold the zero point.
 */
int edgel3_requantizes_m7(const edgel3_conv *conv) {
  if (conv->output_min != 0 || conv->output_max != 255) return 0;
  for (uint32_t channel = 0; channel < conv->output_channels; ++channel) {
    const int exponent = -conv->shift[channel];
    if (exponent < 0) return 0;
    if (conv->output_zero != 0 && (exponent == 0 || exponent > 22)) return 0;
  }
  return 1;
}

static int accepts(const edgel3_conv *conv) {
  return conv->accumulator_bound < 1 << 23 && edgel3_requantizes_m7(conv);
}

const edgel3_kernels edgel3_kernels_m7 = {
    .name = "m7",
    .accepts = accepts,
    .prepared_bytes = NULL,
    .prepare = NULL,
    .convolve = convolve,
    .pool = edgel3_pool_m7,
};

#endif /* EDGEL3_HAS_KERNELS_M7 */
