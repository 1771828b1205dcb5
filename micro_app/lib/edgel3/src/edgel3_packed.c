/* Checks a packed model once, so that the engine can use it without checks. */
#include "edgel3_packed.h"

#include <string.h>

#include "edgel3_bytes.h"

/* For each channel: bias and multiplier of 4 bytes, two counts of 2 bytes, shift of 1 byte. */
#define CHANNEL_TABLE_BYTES 13u
/* Largest input, which is a quantized value plus 128. */
#define MAX_INPUT 255

static int all_zero(const uint8_t *bytes, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (bytes[i] != 0) return 0;
  }
  return 1;
}

/* Return whether a float32 is positive and finite. Its bits tell, without floating point. */
static int is_scale(const uint8_t *bytes) {
  const uint32_t bits = edgel3_get_u32(bytes);
  return bits != 0 && bits < 0x7f800000u;
}

/* Four bits at a time: the table takes 64 bytes only, and the speed is sufficient at set-up. */
uint32_t edgel3_crc32(uint32_t crc, const uint8_t *bytes, size_t count) {
  static const uint32_t table[16] = {0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu,
                                     0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
                                     0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
                                     0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
  crc = ~crc;
  for (size_t i = 0; i < count; ++i) {
    crc ^= bytes[i];
    crc = crc >> 4 ^ table[crc & 15u];
    crc = crc >> 4 ^ table[crc & 15u];
  }
  return ~crc;
}

/* Read one part of a channel's list. Return the sum of its magnitudes, or -1 if the number of a tap
 * is too large.
 */
static int64_t read_part(const edgel3_conv *conv, const uint8_t **cursor, uint32_t count) {
  const uint32_t taps = edgel3_taps_per_channel(conv);
  const uint8_t *bytes = *cursor;
  uint32_t tap = 0;
  int64_t sum = 0;
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t entry;
    if (conv->encoding == EDGEL3_ENCODING_GAP16) {
      entry = edgel3_get_u16(bytes);
      bytes += 2;
    } else if (i % 2u == 0) {
      entry = edgel3_get_u16(bytes) & 0xfffu;
    } else {
      entry = (uint32_t)edgel3_get_u16(bytes + 1) >> 4;
      bytes += 3;
    }
    tap += entry >> 7;
    if (tap >= taps) return -1;
    sum += entry & 0x7fu;
  }
  *cursor = bytes;
  return sum;
}

static size_t list_bytes(const edgel3_conv *conv, uint32_t taps) {
  return conv->encoding == EDGEL3_ENCODING_GAP16 ? (size_t)taps * 2u : (size_t)taps / 2u * 3u;
}

/*@ requires \valid(conv);
  @ assigns conv->max_taps, conv->accumulator_bound, conv->accumulator_range, \result
  @   \from *conv, weight_bytes;
  @ ensures \result == EDGEL3_OK || \result == EDGEL3_ERROR_INCONSISTENT;
  @*/
/* Check the weights of all channels; find the longest list and the largest accumulator. */
static edgel3_status read_weights(edgel3_conv *conv, size_t weight_bytes) {
  const uint8_t *cursor = conv->weights;
  const uint8_t *end = conv->weights + weight_bytes - EDGEL3_WEIGHT_SLACK;
  const uint32_t taps = edgel3_taps_per_channel(conv);
  for (uint32_t channel = 0; channel < conv->output_channels; ++channel) {
    const uint32_t negatives = conv->negatives[channel];
    const uint32_t positives = conv->positives[channel];
    int64_t negative_sum = 0;
    int64_t positive_sum = 0;
    if (conv->encoding == EDGEL3_ENCODING_DENSE) {
      uint32_t found_negatives = 0;
      uint32_t found_positives = 0;
      if ((size_t)(end - cursor) < taps) return EDGEL3_ERROR_INCONSISTENT;
      for (uint32_t tap = 0; tap < taps; ++tap) {
        const int weight = (int8_t)cursor[tap];
        found_negatives += weight < 0;
        found_positives += weight > 0;
        if (weight < 0) negative_sum -= weight;
        if (weight > 0) positive_sum += weight;
      }
      cursor += taps;
      if (found_negatives != negatives || found_positives != positives) {
        return EDGEL3_ERROR_INCONSISTENT;
      }
    } else {
      if (conv->encoding == EDGEL3_ENCODING_GAP12 && ((negatives | positives) & 1u) != 0) {
        return EDGEL3_ERROR_INCONSISTENT;
      }
      if ((size_t)(end - cursor) < list_bytes(conv, negatives + positives)) {
        return EDGEL3_ERROR_INCONSISTENT;
      }
      negative_sum = read_part(conv, &cursor, negatives);
      positive_sum = read_part(conv, &cursor, positives);
      if (negative_sum < 0 || positive_sum < 0) return EDGEL3_ERROR_INCONSISTENT;
    }
    if (negatives + positives > conv->max_taps) conv->max_taps = negatives + positives;

    /* For every input the accumulator must fit in 32 bits, before and after a left shift. */
    const int64_t bias = conv->bias[channel];
    const int64_t sum = negative_sum > positive_sum ? negative_sum : positive_sum;
    const int64_t bound = (bias < 0 ? -bias : bias) + MAX_INPUT * sum;
    const int shift = conv->shift[channel];
    if (shift < -31 || shift > 30) return EDGEL3_ERROR_INCONSISTENT;
    if (bound > INT32_MAX >> (shift > 0 ? shift : 0)) return EDGEL3_ERROR_INCONSISTENT;
    if (bound > conv->accumulator_bound) conv->accumulator_bound = bound;
    const int64_t range = MAX_INPUT * (negative_sum + positive_sum);
    if (range > conv->accumulator_range) conv->accumulator_range = range;
    if (conv->multiplier[channel] != 0 && conv->multiplier[channel] < 1 << 30) {
      return EDGEL3_ERROR_INCONSISTENT;
    }
  }
  return cursor == end && all_zero(end, EDGEL3_WEIGHT_SLACK) ? EDGEL3_OK
                                                             : EDGEL3_ERROR_INCONSISTENT;
}

/*@ requires \valid(conv) && \valid_read(bytes + (0 .. size - 1));
  @ requires \valid_read(record + (0 .. EDGEL3_RECORD_BYTES - 1));
  @ assigns *conv, \result \from record[0 .. EDGEL3_RECORD_BYTES - 1], bytes, indirect:size;
  @ ensures \result == EDGEL3_OK || \result == EDGEL3_ERROR_INCONSISTENT;
  @ ensures \initialized(conv);
  @ ensures 0 <= conv->input_channels <= 65535 && 0 <= conv->output_channels <= 65535;
  @*/
static edgel3_status read_record(edgel3_conv *conv, const uint8_t *bytes, size_t size,
                                 const uint8_t *record) {
  memset(conv, 0, sizeof *conv);
  conv->input_channels = edgel3_get_u16(record);
  conv->output_channels = edgel3_get_u16(record + 2);
  conv->input_zero = (uint8_t)(record[4] ^ 0x80u);
  conv->output_zero = (uint8_t)(record[5] ^ 0x80u);
  conv->output_min = (uint8_t)(record[6] ^ 0x80u);
  conv->output_max = (uint8_t)(record[7] ^ 0x80u);
  if (conv->input_channels == 0 || conv->output_channels == 0 ||
      conv->output_min > conv->output_max || record[8] > EDGEL3_POOL_GLOBAL ||
      record[9] > EDGEL3_ENCODING_GAP16 || !all_zero(record + 10, 2) || !all_zero(record + 24, 8)) {
    return EDGEL3_ERROR_INCONSISTENT;
  }
  conv->pool = (edgel3_pool)record[8];
  conv->encoding = (edgel3_encoding)record[9];

  const size_t channels = conv->output_channels;
  const size_t table = edgel3_get_u32(record + 12);
  const size_t weights = edgel3_get_u32(record + 16);
  const size_t weight_bytes = edgel3_get_u32(record + 20);
  if (table % 4u != 0 || table > size || size - table < channels * CHANNEL_TABLE_BYTES ||
      weights % 4u != 0 || weights > size || size - weights < weight_bytes ||
      weight_bytes < EDGEL3_WEIGHT_SLACK) {
    return EDGEL3_ERROR_INCONSISTENT;
  }
  /* These pointers are aligned, because the offsets and the model's address are multiples of 4. */
  conv->bias = (const int32_t *)(const void *)(bytes + table);
  conv->multiplier = conv->bias + channels;
  conv->negatives = (const uint16_t *)(const void *)(conv->multiplier + channels);
  conv->positives = conv->negatives + channels;
  conv->shift = (const int8_t *)(conv->positives + channels);
  conv->weights = bytes + weights;
  return EDGEL3_OK;
}

edgel3_status edgel3_read_model(edgel3_model *model, const void *start, size_t size) {
  const uint8_t *bytes = (const uint8_t *)start;
  if (bytes == NULL || (uintptr_t)bytes % EDGEL3_MODEL_ALIGNMENT != 0) return EDGEL3_ERROR_ARGUMENT;
  if (size < EDGEL3_HEADER_BYTES) return EDGEL3_ERROR_TRUNCATED;
  if (memcmp(bytes, "EL3P", 4) != 0) return EDGEL3_ERROR_MAGIC;
  if (edgel3_get_u16(bytes + 4) != 1u) return EDGEL3_ERROR_VERSION;
  const uint32_t stated = edgel3_get_u32(bytes + 8);
  if (stated > size) return EDGEL3_ERROR_TRUNCATED;
  size = stated;
  const uint32_t convolutions = edgel3_get_u16(bytes + 6);
  if (convolutions == 0 || convolutions > EDGEL3_MAX_CONVOLUTIONS ||
      size < EDGEL3_HEADER_BYTES + convolutions * EDGEL3_RECORD_BYTES) {
    return EDGEL3_ERROR_INCONSISTENT;
  }
  if (edgel3_get_u32(bytes + 12) != edgel3_crc32(0, bytes + 16, size - 16u))
    return EDGEL3_ERROR_CHECKSUM;

  edgel3_info *info = &model->info;
  info->rows = edgel3_get_u16(bytes + 16);
  info->columns = edgel3_get_u16(bytes + 18);
  info->embedding = edgel3_get_u16(bytes + 20);
  info->input_scale = edgel3_get_f32(bytes + 24);
  info->input_zero_point = (int8_t)bytes[28];
  info->output_scale = edgel3_get_f32(bytes + 32);
  info->output_zero_point = (int8_t)bytes[36];
  info->convolutions = convolutions;
  memcpy(info->source_sha256, bytes + 40, sizeof info->source_sha256);
  if (!all_zero(bytes + 22, 2) || !all_zero(bytes + 29, 3) || !all_zero(bytes + 37, 3) ||
      !all_zero(bytes + 56, 8) || !is_scale(bytes + 24) || !is_scale(bytes + 32)) {
    return EDGEL3_ERROR_INCONSISTENT;
  }

  uint32_t rows = info->rows;
  uint32_t columns = info->columns;
  uint32_t channels = 1;
  uint8_t zero = (uint8_t)(bytes[28] ^ 0x80u);
  for (uint32_t i = 0; i < convolutions; ++i) {
    edgel3_conv *conv = &model->convolutions[i];
    const uint8_t *record = bytes + EDGEL3_HEADER_BYTES + i * EDGEL3_RECORD_BYTES;
    edgel3_status status = read_record(conv, bytes, size, record);
    if (status != EDGEL3_OK) return status;
    conv->rows = rows;
    conv->columns = columns;
    const int is_last = i + 1 == convolutions;
    if (rows == 0 || columns == 0 || conv->input_channels != channels || conv->input_zero != zero ||
        (conv->pool == EDGEL3_POOL_GLOBAL) != is_last) {
      return EDGEL3_ERROR_INCONSISTENT;
    }
    /* 64 bits: the factors are at most 2^16, so their product may not fit in 32 bits. */
    const uint64_t slot = (uint64_t)channels * (columns + 1u) + 1u;
    if (3u * slot + EDGEL3_OVERREAD_BYTES > EDGEL3_RING_MAX_BYTES) return EDGEL3_ERROR_INCONSISTENT;
    status = read_weights(conv, edgel3_get_u32(record + 20));
    if (status != EDGEL3_OK) return status;
    channels = conv->output_channels;
    zero = conv->output_zero;
    if (conv->pool == EDGEL3_POOL_2X2) {
      rows /= 2u;
      columns /= 2u;
    }
  }
  if (channels != info->embedding || zero != (uint8_t)(bytes[36] ^ 0x80u)) {
    return EDGEL3_ERROR_INCONSISTENT;
  }
  return EDGEL3_OK;
}
