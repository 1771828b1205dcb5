/* Kernels for lists of taps on the Cortex-M7 and every other ARMv7E-M processor.
 *
 * Before the first channel of an output row, the kernels widen its three input rows: a word holds
 * the inputs a and b of two columns, half a row apart, as a + b * 2^23. SMLAL multiplies a word by a
 * weight and adds the product to a sum of 64 bits. The sum holds those of both columns, in a lower
 * and an upper lane, as long as the lower sum fits in 23 bits. One instruction thus does two
 * multiply-accumulates, and a shift by a column is a shift by a word: every load is aligned.
 *
 * The list of a channel holds addresses of words. edgel3_word_loops_m7.S contains the loops, one for
 * each block of four words, and edgel3_word_lists_m7.S the routines that write lists and words.
 */
#include "edgel3_kernels.h"

#ifdef EDGEL3_HAS_KERNELS_M7

#include <string.h>

/* A tap of a list. Same size as an edgel3_tap, in whose memory it is. */
typedef struct edgel3_word_tap {
  int32_t weight;
  uint32_t address; /* of its word for the first block of four */
} edgel3_word_tap;

/* Arguments of a sweep: one output channel of one row. edgel3_word_loops_m7.S relies on the layout.
 */
typedef struct edgel3_words {
  const edgel3_word_tap *list;
  const edgel3_word_tap *rounds; /* the tap after the first one, less those that are skipped */
  int64_t start;                 /* the bias in both lanes */
  int32_t multiplier;            /* Q31; 0, or 2^30 or more */
  int32_t addend;                /* added to the product before it is divided by 2^exponent */
  int32_t exponent;              /* 0 to 31; 1 to 22 unless the output's zero is stored as 0 */
  uint32_t plain; /* whether the output's zero is stored as 0, and the center is 0: 1 or 0 */
  uint8_t *output;
  uint32_t half;    /* columns of the lower lane */
  uint32_t first;   /* words before the blocks of four; 0 to 3 */
  uint32_t skipped; /* pairs of taps by which the list is shorter than whole rounds; 0 to 3 */
  uint32_t scratch[3];
  int32_t center; /* added to twice a sum */
  uint32_t fours; /* blocks of four words */
} edgel3_words;

typedef char edgel3_words_layout[offsetof(edgel3_words, start) == 8 &&
                                         offsetof(edgel3_words, output) == 32 &&
                                         offsetof(edgel3_words, scratch) == 48 &&
                                         sizeof(edgel3_word_tap) == sizeof(edgel3_tap)
                                     ? 1
                                     : -1];

void edgel3_words_m7(edgel3_words *words);
uint32_t *edgel3_widen_m7(const uint8_t *row, uint32_t half, uint32_t fours, uint32_t *words);

/* Expand one part of a list to `end` and return the new end. gap12 requires an even count. */
typedef edgel3_word_tap *expand_part(const uint8_t *taps, uint32_t count, const uint32_t *addresses,
                                     edgel3_word_tap *end);
expand_part edgel3_words_gap16_m7, edgel3_words_negative_gap16_m7, edgel3_words_gap12_m7,
    edgel3_words_negative_gap12_m7;

/* The weight of the tap that ends a list. Its address is read, too. */
#define END_WEIGHT INT32_MIN
/* Largest half of a row that is widened; the loops' code has 25 blocks of four words. */
#define MAX_HALF_COLUMNS 103u
/* Largest memory for widened rows, in bytes. The arena of EdgeL3 95.45 is thus below 300 kB. */
#define MAX_WORDS_BYTES 71680u
#define LARGEST_INPUT 255
#define LANE_LIMIT (1 << 22) /* the lower lane has 23 bits, sign included */

/* Return half of the columns of a row, rounded up. */
static uint32_t half_columns(const edgel3_conv *conv) { return (conv->columns + 1u) / 2u; }

/* Return the words of an input row that the kernels for ARMv7E-M have widened: one for each two
 * columns, half a row apart, and one at each end for the padding.
 */
static uint32_t row_words(const edgel3_conv *conv) { return half_columns(conv) + 2u; }

/* Return how many channels' rows of the topmost input row are widened into that row's own slot, which
 * is not needed any more. They must not overwrite a row before it is read.
 */
static uint32_t rows_in_slot(const edgel3_conv *conv) {
  /* The address is rounded up to a multiple of 4, and the last row is written in whole blocks. */
  const uint32_t margin = 3u + 12u;
  const uint32_t bytes = (conv->input_channels - 1u) * edgel3_row_stride(conv);
  return bytes < margin ? 0 : (bytes - margin) / (4u * row_words(conv));
}

/* Return the size in bytes of the memory for widened input rows, or 0 if there would be none.
 *
 * Dense weights need none. A sweep has at most MAX_HALF_COLUMNS words, because every four
 * words have a loop of their own. Like the rest of the arena, the size depends on the model only.
 */
static size_t widened_bytes(const edgel3_conv *conv) {
  const uint32_t half = half_columns(conv);
  const uint32_t rows = 3u * conv->input_channels - rows_in_slot(conv);
  /* The last row is written in whole blocks of four words. */
  const size_t bytes = (rows * row_words(conv) + 3u) * sizeof(uint32_t);
  return conv->encoding == EDGEL3_ENCODING_DENSE || half < 4u || half > MAX_HALF_COLUMNS ||
                 bytes > MAX_WORDS_BYTES
             ? 0
             : bytes;
}

/* The slot that holds the row ky, 0 to 2. */
static uint8_t *slot_of(const edgel3_row *row, uint32_t ky) {
  return row->ring + (row->rotation + ky) % 3u * edgel3_slot_bytes(row->conv);
}

static uint32_t *words_of(const edgel3_row *row) {
  return (uint32_t *)(void *)((uint8_t *)row->list + edgel3_list_bytes(row->conv));
}

/* Widen a row of a channel unless it is zero. Return the address of its word for the first block of
 * four, or 0.
 */
static uint32_t widen(const edgel3_conv *conv, const uint8_t *bytes, uint32_t *words) {
  const uint32_t half = half_columns(conv);
  if (conv->input_zero == 0 && edgel3_is_zero(bytes + 1, conv->columns)) return 0;
  /* The last words may extend into the next row, which is written later. */
  edgel3_widen_m7(bytes, half, (row_words(conv) + 3u) / 4u, words);
  return (uint32_t)(uintptr_t)(words + half % 4u);
}

/* Widen the input rows, and write the addresses of all taps: 0 for a tap whose input row is zero. The
 * topmost row comes last, because the end of it is widened into its own slot.
 */
static void begin_row(const edgel3_row *row) {
  const edgel3_conv *conv = row->conv;
  const uint32_t channels = conv->input_channels;
  const uint32_t in_slot = rows_in_slot(conv);
  uint32_t *words = words_of(row);
  for (uint32_t i = 0; i < 3u; ++i) {
    const uint32_t ky = (i + 1u) % 3u;
    uint8_t *bytes = slot_of(row, ky);
    uint32_t *left = (uint32_t *)(void *)row->offsets + ky * 3u * channels;
    for (uint32_t c = 0; c < channels; ++c, ++left) {
      if (ky == 0 && c == channels - in_slot) {
        words = (uint32_t *)(((uintptr_t)slot_of(row, 0) + 3u) & ~(uintptr_t)3u);
      }
      const uint32_t address = widen(conv, bytes, words);
      left[0] = address;
      left[channels] = address == 0 ? 0 : address + 4u;
      left[2u * channels] = address == 0 ? 0 : address + 8u;
      bytes += edgel3_row_stride(conv);
      words += row_words(conv);
    }
  }
}

/* Restore the padding of the slot that held words. */
static void end_row(const edgel3_row *row) {
  const edgel3_conv *conv = row->conv;
  uint8_t *bytes = slot_of(row, 0);
  for (uint32_t c = 0; c <= conv->input_channels; ++c, bytes += edgel3_row_stride(conv)) {
    *bytes = conv->input_zero;
  }
}

/* Expand the weights of a channel. Return the end of the list, which has an even number of taps. */
static edgel3_word_tap *expand(const edgel3_row *row, uint32_t channel, const uint8_t *taps) {
  const edgel3_conv *conv = row->conv;
  const uint32_t negatives = conv->negatives[channel];
  const uint32_t positives = conv->positives[channel];
  const uint32_t *addresses = (const uint32_t *)(const void *)row->offsets;
  edgel3_word_tap *list = (edgel3_word_tap *)(void *)row->list;
  edgel3_word_tap *end;
  if (conv->encoding == EDGEL3_ENCODING_GAP16) {
    end = edgel3_words_negative_gap16_m7(taps, negatives, addresses, list);
    end = edgel3_words_gap16_m7(taps + 2u * negatives, positives, addresses, end);
  } else {
    end = edgel3_words_negative_gap12_m7(taps, negatives, addresses, list);
    end = edgel3_words_gap12_m7(taps + 3u * negatives / 2u, positives, addresses, end);
  }
  const uint32_t any_row = (uint32_t)(uintptr_t)(words_of(row) + half_columns(conv) % 4u);
  const edgel3_word_tap filler = {0, any_row};
  while (end == list || ((end - list) & 1) != 0) *end++ = filler;
  end->weight = END_WEIGHT;
  end->address = any_row;
  return end;
}

/* Return what to subtract from the sums of a channel so that they fit in the lower lane. */
static int32_t center_of(const edgel3_conv *conv, uint32_t channel, const edgel3_word_tap *tap,
                         const edgel3_word_tap *end) {
  int32_t sum = 0;
  if (conv->accumulator_bound < LANE_LIMIT) return 0;
  for (; tap < end; ++tap) sum += tap->weight;
  return conv->bias[channel] + LARGEST_INPUT * sum / 2;
}

static void convolve(const edgel3_row *row, uint32_t channel, const uint8_t **cursor,
                     uint8_t *output) {
  const edgel3_conv *conv = row->conv;
  edgel3_word_tap *list = (edgel3_word_tap *)(void *)row->list;
  const edgel3_word_tap *end = expand(row, channel, *cursor);
  const uint32_t taps = (uint32_t)conv->negatives[channel] + conv->positives[channel];
  *cursor += conv->encoding == EDGEL3_ENCODING_GAP16 ? 2u * taps : 3u * taps / 2u;

  const uint32_t half = half_columns(conv);
  const int32_t center = center_of(conv, channel, list, end);
  const int32_t exponent = -conv->shift[channel];
  const int32_t rounding = exponent > 0 ? 1 << (exponent - 1) : 0;
  const uint32_t skipped = (uint32_t)(list - end) / 2u % 4u;
  edgel3_words words = {
      .list = list,
      .rounds = list + 1 - (ptrdiff_t)(2u * skipped),
      .start = (conv->bias[channel] - center) * ((INT64_C(1) << 23) + 1),
      .multiplier = conv->multiplier[channel],
      .addend = rounding + (int32_t)((uint32_t)conv->output_zero << exponent),
      .exponent = exponent,
      .plain = conv->output_zero == 0 && center == 0,
      .output = output,
      .half = half,
      .first = half % 4u,
      .skipped = skipped,
      .center = 2 * center,
      .fours = half / 4u,
  };
  /* If the number of columns is odd, the last word extends past the row by one byte. */
  const uint8_t after = output[conv->columns];
  edgel3_words_m7(&words);
  output[conv->columns] = after;
  if (channel == conv->output_channels - 1u) end_row(row);
}

/* If a channel's sums are not small, they are counted from the middle of their range, which must fit
 * in the lower lane. edgel3_kernels_m7.c explains the conditions on the output.
 */
static int accepts(const edgel3_conv *conv) {
  return widened_bytes(conv) > 0 && conv->accumulator_range < 2 * LANE_LIMIT - 2 &&
         edgel3_requantizes_m7(conv);
}

const edgel3_kernels edgel3_kernels_words_m7 = {
    .name = "words_m7",
    .accepts = accepts,
    .widened_bytes = widened_bytes,
    .begin_row = begin_row,
    .convolve = convolve,
    .pool = edgel3_pool_m7,
};

#endif /* EDGEL3_HAS_KERNELS_M7 */
