/* Kernels for desktop processors with AVX-512 and VNNI. They are not part of the Arduino library.
 *
 * The Python extension and the node for the host compile this file with the library, and define
 * EDGEL3_EXTRA_KERNELS as edgel3_kernels_avx512 (edgel3_kernels.h). The engine uses these kernels
 * if the processor has the instructions, which `accepts` checks at run time.
 *
 * VPDPBUSD multiplies four unsigned inputs by four signed weights and adds the products. The
 * kernels process four taps at a time. They interleave 64 columns of the four input rows byte by
 * byte, so that the four inputs of a column are adjacent. A desktop has memory enough to expand all
 * lists once, at set-up.
 */
#include "edgel3_kernels.h"

extern const edgel3_kernels edgel3_kernels_avx512;

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define COLUMNS 64u
#define TAPS 4u

/* Four taps. Unused ones have weight 0 and offset 0. */
typedef struct group {
  int8_t weights[TAPS];
  uint16_t offsets[TAPS];
} group;

/* Layout of the prepared memory, for n output channels: uint32 [n + 1], the first group of each
 * channel and the end of the last one; uint32, the capacity of a rotation in groups; group
 * [3][capacity], the groups for each rotation of the ring.
 */
static const group *groups_of(const uint32_t *starts, const edgel3_conv *conv, uint32_t rotation) {
  const uint32_t capacity = starts[conv->output_channels + 1u];
  return (const group *)(const void *)(starts + conv->output_channels + 2u) +
         (size_t)rotation * capacity;
}

static uint32_t group_capacity(const edgel3_conv *conv) {
  uint32_t groups = 0;
  for (uint32_t channel = 0; channel < conv->output_channels; ++channel) {
    const uint32_t taps = (uint32_t)conv->negatives[channel] + conv->positives[channel];
    groups += (taps + TAPS - 1u) / TAPS;
  }
  return groups;
}

static size_t prepared_bytes(const edgel3_conv *conv) {
  return (conv->output_channels + 2u) * sizeof(uint32_t) +
         3u * sizeof(group) * group_capacity(conv);
}

static void prepare(const edgel3_conv *conv, uint16_t *offsets, edgel3_tap *list, void *prepared) {
  uint32_t *starts = (uint32_t *)prepared;
  starts[conv->output_channels + 1u] = group_capacity(conv);
  for (uint32_t rotation = 0; rotation < 3u; ++rotation) {
    group *groups = (group *)groups_of(starts, conv, rotation);
    edgel3_tap_offsets(conv, NULL, rotation, offsets);
    const uint8_t *cursor = conv->weights;
    uint32_t count = 0;
    for (uint32_t channel = 0; channel < conv->output_channels; ++channel) {
      const edgel3_list ends = edgel3_expand(conv, channel, &cursor, offsets, list);
      uint32_t filled = 0;
      starts[channel] = count;
      for (const edgel3_tap *tap = ends.begin; tap < ends.end; ++tap) {
        const int magnitude = (int)tap->weight;
        if (magnitude == 0) continue;
        group *last = &groups[count];
        if (filled == 0) memset(last, 0, sizeof *last);
        last->weights[filled] = (int8_t)(tap < ends.positives ? -magnitude : magnitude);
        last->offsets[filled] = (uint16_t)tap->offset;
        filled = (filled + 1u) % TAPS;
        count += filled == 0;
      }
      count += filled != 0;
    }
    starts[conv->output_channels] = count;
  }
}

/* Parameters for requantizing a channel, the same in all lanes. */
typedef struct requantization {
  __m512i bias;
  __m512i multiplier;
  __m512i zero;
  __m512i lower; /* the clamps minus the zero point: adding the zero point first could overflow */
  __m512i upper;
  __m128i left;  /* bits to shift left before the multiplication */
  __m128i right; /* bits to shift right after it */
  __m512i mask;  /* the bits that the right shift removes */
} requantization;

TARGET static inline requantization requantization_of(const edgel3_conv *conv, uint32_t channel) {
  const int shift = conv->shift[channel];
  const int exponent = shift < 0 ? -shift : 0;
  const int zero = conv->output_zero;
  const requantization result = {
      .bias = _mm512_set1_epi32(conv->bias[channel]),
      .multiplier = _mm512_set1_epi32(conv->multiplier[channel]),
      .zero = _mm512_set1_epi32(zero),
      .lower = _mm512_set1_epi32(conv->output_min - zero),
      .upper = _mm512_set1_epi32(conv->output_max - zero),
      .left = _mm_cvtsi32_si128(shift > 0 ? shift : 0),
      .right = _mm_cvtsi32_si128(exponent),
      .mask = _mm512_set1_epi32((int)((INT64_C(1) << exponent) - 1)),
  };
  return result;
}

/* Add the bias to 16 sums, then compute what edgel3_requantize computes. */
TARGET static inline __m128i requantize(const requantization *by, __m512i sums) {
  const __m512i nudge = _mm512_set1_epi64(INT64_C(1) << 30);
  const __m512i x = _mm512_sll_epi32(_mm512_add_epi32(sums, by->bias), by->left);
  /* The high half of an even lane's product moves down by 31 bits. That of an odd lane moves up by
   * one bit, and so into the upper half. */
  const __m512i even =
      _mm512_srli_epi64(_mm512_add_epi64(_mm512_mul_epi32(x, by->multiplier), nudge), 31);
  const __m512i odd = _mm512_slli_epi64(
      _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(x, 32), by->multiplier), nudge), 1);
  const __m512i high = _mm512_mask_blend_epi32(0xaaaa, even, odd);

  const __m512i remainder = _mm512_and_si512(high, by->mask);
  const __m512i threshold =
      _mm512_add_epi32(_mm512_srli_epi32(by->mask, 1), _mm512_srli_epi32(high, 31));
  __m512i result = _mm512_sra_epi32(high, by->right);
  result = _mm512_mask_add_epi32(result, _mm512_cmpgt_epi32_mask(remainder, threshold), result,
                                 _mm512_set1_epi32(1));
  result = _mm512_min_epi32(_mm512_max_epi32(result, by->lower), by->upper);
  return _mm512_cvtepi32_epi8(_mm512_add_epi32(result, by->zero));
}

/* Sums of 64 columns. The interleaving instructions work within lanes of 128 bits: lane i of part k
 * holds columns 16 i + 4 k to 16 i + 4 k + 3.
 */
typedef struct sums {
  __m512i parts[4];
} sums;

/* Add the products of four taps to the sums of 64 columns. `weights` has the four weights in each
 * lane of 32 bits.
 */
TARGET static inline void add_taps(sums *to, const uint8_t *ring, const group *taps,
                                   __m512i weights) {
  const __m512i a = _mm512_loadu_si512(ring + taps->offsets[0]);
  const __m512i b = _mm512_loadu_si512(ring + taps->offsets[1]);
  const __m512i c = _mm512_loadu_si512(ring + taps->offsets[2]);
  const __m512i d = _mm512_loadu_si512(ring + taps->offsets[3]);
  const __m512i ab_low = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b);
  const __m512i cd_low = _mm512_unpacklo_epi8(c, d), cd_high = _mm512_unpackhi_epi8(c, d);
  __m512i *parts = to->parts;
  parts[0] = _mm512_dpbusd_epi32(parts[0], _mm512_unpacklo_epi16(ab_low, cd_low), weights);
  parts[1] = _mm512_dpbusd_epi32(parts[1], _mm512_unpackhi_epi16(ab_low, cd_low), weights);
  parts[2] = _mm512_dpbusd_epi32(parts[2], _mm512_unpacklo_epi16(ab_high, cd_high), weights);
  parts[3] = _mm512_dpbusd_epi32(parts[3], _mm512_unpackhi_epi16(ab_high, cd_high), weights);
}

/* Bring 64 sums into the order of their columns, requantize them and store the first `count`. */
TARGET static inline void put_columns(const requantization *by, const sums *from, uint8_t *output,
                                      uint32_t count) {
  const __m512i *parts = from->parts;
  const __m512i low0 = _mm512_shuffle_i32x4(parts[0], parts[1], 0x44);
  const __m512i low1 = _mm512_shuffle_i32x4(parts[2], parts[3], 0x44);
  const __m512i high0 = _mm512_shuffle_i32x4(parts[0], parts[1], 0xee);
  const __m512i high1 = _mm512_shuffle_i32x4(parts[2], parts[3], 0xee);
  __m128i bytes[4];
  bytes[0] = requantize(by, _mm512_shuffle_i32x4(low0, low1, 0x88));
  bytes[1] = requantize(by, _mm512_shuffle_i32x4(low0, low1, 0xdd));
  bytes[2] = requantize(by, _mm512_shuffle_i32x4(high0, high1, 0x88));
  bytes[3] = requantize(by, _mm512_shuffle_i32x4(high0, high1, 0xdd));
  if (count < COLUMNS) {
    memcpy(output, bytes, count);
  } else {
    memcpy(output, bytes, COLUMNS);
  }
}

TARGET static void convolve(const edgel3_row *row, uint32_t channel, const uint8_t **cursor,
                            uint8_t *output) {
  const edgel3_conv *conv = row->conv;
  const uint32_t *starts = (const uint32_t *)row->prepared;
  const group *groups = groups_of(starts, conv, row->rotation);
  const group *end = groups + starts[channel + 1u];
  const requantization by = requantization_of(conv, channel);
  (void)cursor;

  /* Two blocks of 64 columns at a time, to load each group once for both. */
  for (uint32_t t = 0; t < conv->columns; t += 2u * COLUMNS) {
    const uint32_t left = conv->columns - t;
    const uint8_t *ring = row->ring + t;
    sums first = {{_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                   _mm512_setzero_si512()}};
    sums second = first;
    if (left <= COLUMNS) {
      for (const group *taps = groups + starts[channel]; taps < end; ++taps) {
        int32_t word;
        memcpy(&word, taps->weights, sizeof word);
        add_taps(&first, ring, taps, _mm512_set1_epi32(word));
      }
      put_columns(&by, &first, output + t, left);
    } else {
      for (const group *taps = groups + starts[channel]; taps < end; ++taps) {
        int32_t word;
        memcpy(&word, taps->weights, sizeof word);
        const __m512i weights = _mm512_set1_epi32(word);
        add_taps(&first, ring, taps, weights);
        add_taps(&second, ring + COLUMNS, taps, weights);
      }
      put_columns(&by, &first, output + t, COLUMNS);
      put_columns(&by, &second, output + t + COLUMNS, left - COLUMNS);
    }
  }
}

static int accepts(const edgel3_conv *conv) {
  (void)conv;
  return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

const edgel3_kernels edgel3_kernels_avx512 = {
    .name = "avx512",
    .accepts = accepts,
    .prepared_bytes = prepared_bytes,
    .prepare = prepare,
    .convolve = convolve,
    .pool = edgel3_pool_row,
};

#else

/* On every other processor the set accepts no convolution: the engine uses the portable kernels. */
static int accepts(const edgel3_conv *conv) {
  (void)conv;
  return 0;
}

const edgel3_kernels edgel3_kernels_avx512 = {.name = "avx512", .accepts = accepts};

#endif
