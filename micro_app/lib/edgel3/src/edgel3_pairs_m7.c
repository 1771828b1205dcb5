/* Kernels for dense weights on the Cortex-M7 and every other ARMv7E-M processor.
 *
 * Two output channels are computed at once. A word holds the weights a and b of a tap in both of
 * them, as a + b * 2^24. SMLAL multiplies it by an input and adds the product to a sum of 64 bits.
 * The sum holds those of both channels, in a lower and an upper lane, as long as the lower sum fits
 * in 24 bits. One instruction thus does two multiply-accumulates, and its input is one byte, which
 * is never an unaligned load.
 *
 * Of an input row, a kernel uses a column for up to three outputs: to its left, at its position and
 * to its right. A block of four columns takes 6 loads of inputs and 12 multiplications for each
 * input row. edgel3_pair_loops_m7.S contains the loops.
 */
#include "edgel3_kernels.h"

#ifdef EDGEL3_HAS_KERNELS_M7

#include <string.h>

/* The weights of one input row, and the step from it to the row of the next entry. Rows are in the
 * order of their addresses. Only the last step is negative: it leads back to the first row.
 */
typedef struct edgel3_entry {
  int32_t weights[3]; /* of the columns left, in the middle and right, each of two channels */
  int32_t step;
} edgel3_entry;

#define ENTRY_WORDS 4u /* words of an entry */

/* How one of the two channels is requantized. edgel3_pair_loops_m7.S relies on the layout. */
typedef struct edgel3_half {
  int32_t multiplier; /* Q31; 0, or 2^30 or more */
  int32_t addend;     /* added to the product before it is divided by 2^exponent */
  int32_t exponent;   /* 0 to 31; 1 to 22 for edgel3_pairs_m7 */
  uintptr_t output;   /* address of the output minus that of the input */
} edgel3_half;

/* Two output channels of one row. edgel3_pair_loops_m7.S relies on the layout. */
typedef struct edgel3_pairs {
  const edgel3_entry *before; /* one entry before the first */
  const uint8_t *input;       /* the padding to the left of the row that comes first in memory */
  int64_t start;              /* the biases in both lanes */
  edgel3_half lower;
  edgel3_half upper;
  uint32_t threes; /* blocks of three columns, at the left */
  uint32_t fours;  /* blocks of four columns */
} edgel3_pairs;

typedef char edgel3_pairs_layout[offsetof(edgel3_pairs, lower) == 16 &&
                                         offsetof(edgel3_pairs, upper) == 32 &&
                                         offsetof(edgel3_pairs, threes) == 48
                                     ? 1
                                     : -1];

/* Compute two channels of an output row. The first routine is for an output whose zero is stored as
 * 0, as after a ReLU; the second is for any output.
 */
void edgel3_pairs_rectified_m7(edgel3_pairs *pairs);
void edgel3_pairs_m7(edgel3_pairs *pairs);

static uint32_t entry_count(const edgel3_conv *conv) { return 3u * conv->input_channels; }

/* Write the steps, which are the same for all channels of a row. */
static void write_steps(const edgel3_conv *conv, edgel3_entry *entries) {
  const int32_t stride = (int32_t)edgel3_row_stride(conv);
  int32_t total = 0;
  for (uint32_t i = 0; i < entry_count(conv); ++i) {
    /* A slot ends with one byte of padding more. */
    const int32_t step = stride + ((i + 1u) % conv->input_channels == 0);
    entries[i].step = step;
    total += step;
  }
  edgel3_entry *last = &entries[entry_count(conv) - 1u];
  last->step -= total;
}

/* Combine the weights of two channels. */
static void write_weights(const edgel3_conv *conv, uint32_t rotation, const int8_t *lower,
                          const int8_t *upper, edgel3_entry *entries) {
  const uint32_t channels = conv->input_channels;
  for (uint32_t ky = 0; ky < 3u; ++ky) {
    edgel3_entry *slot = entries + (rotation + ky) % 3u * channels;
    for (uint32_t kx = 0; kx < 3u; ++kx) {
      int32_t *to = &slot[0].weights[kx];
      uint32_t c = 0;
      for (; c + 4u <= channels; c += 4u, to += 4u * ENTRY_WORDS) {
        uint32_t low, high; /* four weights each */
        memcpy(&low, lower + c, sizeof low);
        memcpy(&high, upper + c, sizeof high);
        to[0] = (int32_t)((uint32_t)(int8_t)low + (high << 24));
        to[ENTRY_WORDS] = (int32_t)((uint32_t)(int8_t)(low >> 8) + ((high & 0xff00u) << 16));
        to[2u * ENTRY_WORDS] = (int32_t)((uint32_t)(int8_t)(low >> 16) + ((high & 0xff0000u) << 8));
        to[3u * ENTRY_WORDS] = (int32_t)((uint32_t)(int8_t)(low >> 24) + (high & 0xff000000u));
      }
      for (; c < channels; ++c, to += ENTRY_WORDS) *to = lower[c] + upper[c] * (1 << 24);
      lower += channels;
      upper += channels;
    }
  }
}

/* Inputs are read in place. */
static void begin_row(const edgel3_row *row) {
  write_steps(row->conv, (edgel3_entry *)(void *)row->list);
}

static edgel3_half half_of(const edgel3_conv *conv, uint32_t channel, const uint8_t *output,
                           const uint8_t *input) {
  const int32_t exponent = -conv->shift[channel];
  const int32_t rounding = exponent > 0 ? 1 << (exponent - 1) : 0;
  const edgel3_half half = {
      .multiplier = conv->multiplier[channel],
      .addend = rounding + (int32_t)((uint32_t)conv->output_zero << exponent),
      .exponent = exponent,
      .output = (uintptr_t)output - (uintptr_t)input,
  };
  return half;
}

/* Channels come in ascending order. With a channel of even number the next one is computed too, and
 * kept until it is asked for.
 */
static void convolve(const edgel3_row *row, uint32_t channel, const uint8_t **cursor,
                     uint8_t *output) {
  const edgel3_conv *conv = row->conv;
  const uint32_t columns = conv->columns;
  const uint32_t taps = edgel3_taps_per_channel(conv);
  uint8_t *kept = (uint8_t *)row->accumulators;
  const int8_t *weights = (const int8_t *)*cursor;
  *cursor += taps;
  if (channel % 2u == 1u) {
    memcpy(output, kept, columns);
    return;
  }

  const uint32_t second = channel + 1u < conv->output_channels ? channel + 1u : channel;
  edgel3_entry *entries = (edgel3_entry *)(void *)row->list;
  /* A last channel without a second one is combined with itself. */
  write_weights(conv, row->rotation, weights, second == channel ? weights : weights + taps,
                entries);
  const uint32_t threes = (4u - columns % 4u) % 4u;
  edgel3_pairs pairs = {
      .before = entries - 1,
      .input = row->ring,
      .start = conv->bias[channel] + conv->bias[second] * (INT64_C(1) << 24),
      .lower = half_of(conv, channel, output, row->ring),
      .upper = half_of(conv, second, kept, row->ring),
      .threes = threes,
      .fours = (columns - 3u * threes) / 4u,
  };
  /* Without a block of four columns, the last word extends past the row by one byte. */
  const uint8_t after = output[columns];
  if (conv->output_zero == 0) {
    edgel3_pairs_rectified_m7(&pairs);
  } else {
    edgel3_pairs_m7(&pairs);
  }
  output[columns] = after;
}

/* The word of two weights must fit in 32 bits: it does unless the second is -128. Blocks of three and
 * of four columns must add up to the row. edgel3_kernels_m7.c explains the other conditions.
 */
static int accepts(const edgel3_conv *conv) {
  const uint32_t columns = conv->columns;
  if (conv->encoding != EDGEL3_ENCODING_DENSE || columns < 3u || columns == 5u ||
      edgel3_list_bytes(conv) < entry_count(conv) * sizeof(edgel3_entry) ||
      !edgel3_kernels_m7.accepts(conv)) {
    return 0;
  }
  const uint32_t count = conv->output_channels * edgel3_taps_per_channel(conv);
  for (uint32_t i = 0; i < count; ++i) {
    if (conv->weights[i] == 0x80u) return 0;
  }
  return 1;
}

const edgel3_kernels edgel3_kernels_pairs_m7 = {
    .name = "pairs_m7",
    .accepts = accepts,
    .prepared_bytes = NULL,
    .prepare = NULL,
    .begin_row = begin_row,
    .convolve = convolve,
    .pool = edgel3_pool_m7,
};

#endif /* EDGEL3_HAS_KERNELS_M7 */
