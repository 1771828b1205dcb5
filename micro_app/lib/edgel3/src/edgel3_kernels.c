/* The portable kernels in C99, which define the result, and what all kernels share. */
#include "edgel3_kernels.h"

#include <string.h>

/* Return whether eight bytes are 0. */
static int are_zero(const uint8_t *bytes) {
  uint32_t first, second;
  memcpy(&first, bytes, sizeof first);
  memcpy(&second, bytes + 4, sizeof second);
  return (first | second) == 0;
}

/* Most rows that are not zero show it in the first eight bytes. After them, aligned words are
 * compared, for speed: rows begin at any address.
 */
int edgel3_is_zero(const uint8_t *bytes, uint32_t count) {
  if (count >= 8u && !are_zero(bytes)) return 0;
  uint32_t i = 0;
  for (; i < count && ((uintptr_t)(bytes + i) & 3u) != 0; ++i) {
    if (bytes[i] != 0) return 0;
  }
  for (; i + 8u <= count; i += 8u) {
    if (!are_zero(bytes + i)) return 0;
  }
  for (; i < count; ++i) {
    if (bytes[i] != 0) return 0;
  }
  return 1;
}

void edgel3_tap_offsets(const edgel3_conv *conv, const uint8_t *ring, uint32_t rotation,
                        uint16_t *offsets) {
  const uint32_t channels = conv->input_channels;
  const uint32_t stride = edgel3_row_stride(conv);
  for (uint32_t ky = 0; ky < 3u; ++ky) {
    uint32_t offset = (rotation + ky) % 3u * edgel3_slot_bytes(conv);
    uint16_t *left = offsets + ky * 3u * channels;
    for (uint32_t channel = 0; channel < channels; ++channel, offset += stride) {
      /* A row may be skipped only if an input of zero is stored as 0. Otherwise its products are
       * not zero, and the bias compensates for them. */
      const int skip = ring != NULL && conv->input_zero == 0 &&
                       edgel3_is_zero(ring + offset + 1u, conv->columns);
      left[channel] = (uint16_t)(skip ? EDGEL3_ROW_IS_ZERO : offset);
      left[channels + channel] = (uint16_t)(skip ? EDGEL3_ROW_IS_ZERO : offset + 1u);
      left[2u * channels + channel] = (uint16_t)(skip ? EDGEL3_ROW_IS_ZERO : offset + 2u);
    }
  }
}

void edgel3_begin_row(const edgel3_kernels *kernels, const edgel3_row *row) {
  if (kernels->begin_row != NULL) {
    kernels->begin_row(row);
  } else if (row->prepared == NULL) {
    edgel3_tap_offsets(row->conv, row->ring, row->rotation, row->offsets);
  }
}

/* Append a tap. If its input row is zero, the end stays and the next tap overwrites this one. */
static inline edgel3_tap *put_tap(edgel3_tap *end, uint32_t magnitude, uint32_t offset) {
  end->weight = magnitude;
  end->offset = offset;
  return end + (offset != EDGEL3_ROW_IS_ZERO);
}

/* Append one part of a gap16 list; see edgel3_packed.h for the format. */
static edgel3_tap *expand_gap16(const uint8_t **cursor, uint32_t count, const uint16_t *offsets,
                                edgel3_tap *end) {
  const uint8_t *bytes = *cursor;
  for (uint32_t i = 0; i < count; ++i) {
    uint16_t entry;
    memcpy(&entry, bytes, sizeof entry);
    bytes += 2;
    offsets += entry >> 7;
    end = put_tap(end, entry & 0x7fu, *offsets);
  }
  *cursor = bytes;
  return end;
}

/* Append one part of a gap12 list, two taps at a time. */
static edgel3_tap *expand_gap12(const uint8_t **cursor, uint32_t count, const uint16_t *offsets,
                                edgel3_tap *end) {
  const uint8_t *bytes = *cursor;
  for (uint32_t i = 0; i < count; i += 2u) {
    uint32_t pair; /* 24 bits; the upper 8 are not used */
    memcpy(&pair, bytes, sizeof pair);
    bytes += 3;
    offsets += pair >> 7 & 0x1fu;
    end = put_tap(end, pair & 0x7fu, *offsets);
    offsets += pair >> 19 & 0x1fu;
    end = put_tap(end, pair >> 12 & 0x7fu, *offsets);
  }
  *cursor = bytes;
  return end;
}

/* Expand dense weights. Taps of positive weight are appended from position `negatives` on; taps of
 * negative weight are put before them, from there downwards.
 */
static edgel3_list expand_dense(const uint8_t *bytes, uint32_t taps, uint32_t negatives,
                                const uint16_t *offsets, edgel3_tap *scratch) {
  edgel3_tap *begin = scratch + negatives;
  const edgel3_tap *positives = begin;
  edgel3_tap *end = begin;
  for (uint32_t tap = 0; tap < taps; ++tap) {
    const int weight = (int8_t)bytes[tap];
    if (weight > 0) {
      end = put_tap(end, (uint32_t)weight, offsets[tap]);
    } else if (weight < 0 && offsets[tap] != EDGEL3_ROW_IS_ZERO) {
      --begin;
      begin->weight = (uint32_t)-weight;
      begin->offset = offsets[tap];
    }
  }
  const edgel3_list list = {begin, positives, end};
  return list;
}

edgel3_list edgel3_expand(const edgel3_conv *conv, uint32_t channel, const uint8_t **cursor,
                          const uint16_t *offsets, edgel3_tap *scratch) {
  const uint32_t negatives = conv->negatives[channel];
  const uint32_t taps = edgel3_taps_per_channel(conv);
  if (conv->encoding == EDGEL3_ENCODING_DENSE) {
    const uint8_t *bytes = *cursor;
    *cursor += taps;
    return expand_dense(bytes, taps, negatives, offsets, scratch);
  }
  edgel3_tap *(*const expand)(const uint8_t **, uint32_t, const uint16_t *, edgel3_tap *) =
      conv->encoding == EDGEL3_ENCODING_GAP16 ? expand_gap16 : expand_gap12;
  edgel3_tap *positives = expand(cursor, negatives, offsets, scratch);
  const edgel3_tap *end = expand(cursor, conv->positives[channel], offsets, positives);
  const edgel3_list list = {scratch, positives, end};
  return list;
}

/* Return the high half of twice the product, rounded to nearest. Only (-2^31) * (-2^31) would
 * overflow, which cannot occur because multipliers are not negative.
 */
static int32_t multiply_high(int32_t value, int32_t multiplier) {
  const int64_t product = (int64_t)value * multiplier;
  /* For both signs this equals gemmlowp's truncating division of (product + nudge). */
  return (int32_t)((product + (INT64_C(1) << 30)) >> 31);
}

/* Divide by 2^exponent, rounded to nearest; halves are rounded away from zero. */
static int32_t divide_by_power(int32_t value, int exponent) {
  const int32_t mask = (int32_t)((INT64_C(1) << exponent) - 1);
  const int32_t remainder = value & mask;
  const int32_t threshold = (mask >> 1) + (value < 0);
  return (value >> exponent) + (remainder > threshold);
}

uint8_t edgel3_requantize(const edgel3_conv *conv, uint32_t channel, int32_t accumulator) {
  const int shift = conv->shift[channel];
  const int32_t scaled = shift > 0 ? accumulator * (1 << shift) : accumulator;
  const int32_t rounded =
      divide_by_power(multiply_high(scaled, conv->multiplier[channel]), shift < 0 ? -shift : 0);
  /* 64 bits, because the quotient may be close to the limits of 32 bits. */
  const int64_t value = (int64_t)rounded + conv->output_zero;
  if (value < conv->output_min) return conv->output_min;
  if (value > conv->output_max) return conv->output_max;
  return (uint8_t)value;
}

static void convolve(const edgel3_row *row, uint32_t channel, const uint8_t **cursor,
                     uint8_t *output) {
  const edgel3_conv *conv = row->conv;
  const edgel3_list list = edgel3_expand(conv, channel, cursor, row->offsets, row->list);
  int32_t *accumulators = row->accumulators;
  const uint32_t columns = conv->columns;
  for (uint32_t t = 0; t < columns; ++t) accumulators[t] = conv->bias[channel];
  for (const edgel3_tap *tap = list.begin; tap < list.end; ++tap) {
    const uint8_t *input = row->ring + tap->offset;
    const int32_t magnitude = (int32_t)tap->weight;
    const int32_t weight = tap < list.positives ? -magnitude : magnitude;
    for (uint32_t t = 0; t < columns; ++t) accumulators[t] += weight * input[t];
  }
  for (uint32_t t = 0; t < columns; ++t) {
    output[t] = edgel3_requantize(conv, channel, accumulators[t]);
  }
}

static inline uint8_t larger(uint8_t a, uint8_t b) { return a > b ? a : b; }

void edgel3_pool_row(uint8_t *values, const uint8_t *row, uint32_t count, int second) {
  if (second) {
    for (uint32_t i = 0; i < count; ++i) {
      values[i] = larger(values[i], larger(row[2u * i], row[2u * i + 1u]));
    }
  } else {
    for (uint32_t i = 0; i < count; ++i) values[i] = larger(row[2u * i], row[2u * i + 1u]);
  }
}

static int accepts(const edgel3_conv *conv) {
  (void)conv;
  return 1;
}

const edgel3_kernels edgel3_kernels_portable = {
    .name = "portable",
    .accepts = accepts,
    .prepared_bytes = NULL,
    .prepare = NULL,
    .widened_bytes = NULL,
    .begin_row = NULL,
    .convolve = convolve,
    .pool = edgel3_pool_row,
};
