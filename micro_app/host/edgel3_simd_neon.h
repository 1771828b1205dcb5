/* The kernels for AArch64. edgel3_kernels_host.c includes this file.
 *
 * The taps of a channel are combined into groups whose sums fit in 16 bits. The kernel multiplies
 * bytes and adds the products in lanes of 16 bits, which is twice as fast as in 32 bits, and adds
 * the sum of each group to sums of 32 bits. Intermediate sums may wrap around; the result does not
 * depend on it. Small weights, as most weights of a dense layer are, give long groups. Therefore
 * there is no other path for dense layers.
 */
#include <arm_neon.h>

/* The largest sum of magnitudes of one sign in a group: 128 * 255 fits in an int16. */
#define GROUP_LIMIT 128u

/* What `prepare` writes. There follow, for n output channels: uint32 [n + 1], the first entry of
 * each channel and the end of the last one; entry [3][capacity], the entries for each rotation of
 * the ring.
 */
typedef struct prepared_layer {
  uint32_t capacity; /* entries of a rotation */
} prepared_layer;

/* A tap: the magnitude of its weight and its offset. Or the head of a group, before its taps: the
 * number of taps of positive and of negative weight, which follow in this order.
 */
typedef struct entry {
  uint16_t first;
  uint16_t second;
} entry;

static uint32_t *starts_of(const prepared_layer *layer) { return (uint32_t *)(layer + 1); }

static entry *entries_of(const prepared_layer *layer, const edgel3_conv *conv, uint32_t rotation) {
  return (entry *)(void *)(starts_of(layer) + conv->output_channels + 1u) +
         (size_t)rotation * layer->capacity;
}

/* The largest number of entries of a rotation. Each group has at least one tap. Of one sign, two
 * successive groups have a sum of more than GROUP_LIMIT, and all groups of a channel have at most
 * the accumulator's bound divided by the largest input.
 */
static uint32_t entry_capacity(const edgel3_conv *conv) {
  const int64_t most_groups = 1 + conv->accumulator_bound / 255 / (GROUP_LIMIT / 2);
  uint32_t entries = 0;
  for (uint32_t channel = 0; channel < conv->output_channels; ++channel) {
    const uint32_t taps = (uint32_t)conv->negatives[channel] + conv->positives[channel];
    entries += taps + (taps < most_groups ? taps : (uint32_t)most_groups);
  }
  return entries;
}

static size_t prepared_bytes_neon(const edgel3_conv *conv) {
  return sizeof(prepared_layer) + (conv->output_channels + 1u) * sizeof(uint32_t) +
         3u * sizeof(entry) * entry_capacity(conv);
}

/* Append taps of one sign, as many as a group takes. Return the first tap that is left. */
static const edgel3_tap *fill_group(const edgel3_tap *tap, const edgel3_tap *end, entry **to) {
  uint32_t sum = 0;
  for (; tap < end && sum + tap->weight <= GROUP_LIMIT; ++tap) {
    if (tap->weight == 0) continue;
    sum += tap->weight;
    (*to)->first = (uint16_t)tap->weight;
    (*to)->second = (uint16_t)tap->offset;
    *to += 1;
  }
  return tap;
}

static void prepare_neon(const edgel3_conv *conv, uint16_t *offsets, edgel3_tap *list,
                         void *prepared) {
  prepared_layer *layer = (prepared_layer *)prepared;
  uint32_t *starts = starts_of(layer);
  layer->capacity = entry_capacity(conv);
  for (uint32_t rotation = 0; rotation < 3u; ++rotation) {
    entry *const begin = entries_of(layer, conv, rotation);
    entry *end = begin;
    edgel3_tap_offsets(conv, NULL, rotation, offsets);
    const uint8_t *cursor = conv->weights;
    for (uint32_t channel = 0; channel < conv->output_channels; ++channel) {
      const edgel3_list taps = edgel3_expand(conv, channel, &cursor, offsets, list);
      const edgel3_tap *negative = taps.begin, *positive = taps.positives;
      starts[channel] = (uint32_t)(end - begin);
      while (negative < taps.positives || positive < taps.end) {
        entry *head = end++;
        entry *const first = end;
        positive = fill_group(positive, taps.end, &end);
        head->first = (uint16_t)(end - first);
        negative = fill_group(negative, taps.positives, &end);
        head->second = (uint16_t)(end - first - head->first);
        if (end == first) end = head; /* nothing but taps of magnitude 0 */
      }
    }
    starts[conv->output_channels] = (uint32_t)(end - begin);
  }
}

/* Add the bias to four sums, then compute what edgel3_requantize computes. */
static inline int32x4_t requantize(const edgel3_conv *conv, uint32_t channel, int32x4_t sums) {
  const int shift = conv->shift[channel];
  const int exponent = shift < 0 ? -shift : 0;
  const int32_t mask = (int32_t)((INT64_C(1) << exponent) - 1);
  const int zero = conv->output_zero;
  const int32x4_t biased = vaddq_s32(sums, vdupq_n_s32(conv->bias[channel]));
  const int32x4_t shifted = vshlq_s32(biased, vdupq_n_s32(shift > 0 ? shift : 0));
  const int32x4_t high = vqrdmulhq_n_s32(shifted, conv->multiplier[channel]);
  const int32x4_t remainder = vandq_s32(high, vdupq_n_s32(mask));
  const int32x4_t is_negative = vshrq_n_s32(high, 31); /* -1 or 0 */
  const int32x4_t threshold = vsubq_s32(vdupq_n_s32(mask >> 1), is_negative);
  const uint32x4_t is_larger = vcgtq_s32(remainder, threshold); /* -1 or 0 */
  int32x4_t result = vshlq_s32(high, vdupq_n_s32(-exponent));
  result = vsubq_s32(result, vreinterpretq_s32_u32(is_larger));
  /* The clamps minus the zero point: adding the zero point first could overflow. */
  result = vmaxq_s32(result, vdupq_n_s32(conv->output_min - zero));
  result = vminq_s32(result, vdupq_n_s32(conv->output_max - zero));
  return vaddq_s32(result, vdupq_n_s32(zero));
}

/* Compute 8 * `parts` columns of a channel and store the first `count`. `parts` is a constant. */
static inline void convolve_columns(const edgel3_conv *conv, uint32_t channel, const uint8_t *ring,
                                    const entry *begin, const entry *end, uint32_t parts,
                                    uint8_t *output, uint32_t count) {
  int32x4_t low[4], high[4];
  for (uint32_t i = 0; i < parts; ++i) low[i] = high[i] = vdupq_n_s32(0);
  while (begin < end) {
    const entry *tap = begin + 1;
    const entry *negatives = tap + begin->first;
    const entry *last = negatives + begin->second;
    uint16x8_t sums[4];
    for (uint32_t i = 0; i < parts; ++i) sums[i] = vdupq_n_u16(0);
    for (; tap < negatives; ++tap) {
      const uint8x8_t weight = vdup_n_u8((uint8_t)tap->first);
      for (uint32_t i = 0; i < parts; ++i) {
        sums[i] = vmlal_u8(sums[i], vld1_u8(ring + tap->second + 8u * i), weight);
      }
    }
    for (; tap < last; ++tap) {
      const uint8x8_t weight = vdup_n_u8((uint8_t)tap->first);
      for (uint32_t i = 0; i < parts; ++i) {
        sums[i] = vmlsl_u8(sums[i], vld1_u8(ring + tap->second + 8u * i), weight);
      }
    }
    for (uint32_t i = 0; i < parts; ++i) {
      const int16x8_t sum = vreinterpretq_s16_u16(sums[i]);
      low[i] = vaddw_s16(low[i], vget_low_s16(sum));
      high[i] = vaddw_high_s16(high[i], sum);
    }
    begin = last;
  }
  uint8_t bytes[32];
  for (uint32_t i = 0; i < parts; ++i) {
    const int16x8_t words = vcombine_s16(vmovn_s32(requantize(conv, channel, low[i])),
                                         vmovn_s32(requantize(conv, channel, high[i])));
    vst1_u8(bytes + 8u * i, vmovn_u16(vreinterpretq_u16_s16(words)));
  }
  memcpy(output, bytes, count < 8u * parts ? count : 8u * parts);
}

static void convolve_neon(const edgel3_row *row, uint32_t channel, const uint8_t **cursor,
                          uint8_t *output) {
  const edgel3_conv *conv = row->conv;
  const prepared_layer *layer = (const prepared_layer *)row->prepared;
  const uint32_t *starts = starts_of(layer);
  const entry *entries = entries_of(layer, conv, row->rotation);
  const entry *begin = entries + starts[channel], *end = entries + starts[channel + 1u];
  (void)cursor;
  for (uint32_t t = 0; t < conv->columns; t += 32u) {
    const uint32_t left = conv->columns - t;
    const uint8_t *ring = row->ring + t;
    if (left > 24u) {
      convolve_columns(conv, channel, ring, begin, end, 4u, output + t, left);
    } else if (left > 16u) {
      convolve_columns(conv, channel, ring, begin, end, 3u, output + t, left);
    } else if (left > 8u) {
      convolve_columns(conv, channel, ring, begin, end, 2u, output + t, left);
    } else {
      convolve_columns(conv, channel, ring, begin, end, 1u, output + t, left);
    }
  }
}

/* NEON is part of AArch64. */
static int has_neon(void) { return 1; }

static const edgel3_kernels kernels_neon = {
    .name = "neon",
    .accepts = accepts_all,
    .prepared_bytes = prepared_bytes_neon,
    .prepare = prepare_neon,
    .convolve = convolve_neon,
    .pool = edgel3_pool_row,
};
