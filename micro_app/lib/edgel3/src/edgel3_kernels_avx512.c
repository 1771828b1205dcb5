/* Kernels for desktop processors with AVX-512 and VNNI, chosen at run time.
 *
 * VPDPBUSD multiplies four unsigned inputs by four signed weights and adds up the products. Four taps
 * are taken together: 64 columns of each are interleaved byte by byte, so that the four inputs of a
 * column stand side by side. Memory is no concern here: lists are expanded once.
 */
#include "edgel3_kernels.h"

#ifdef EDGEL3_HAS_KERNELS_AVX512

#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define COLUMNS 64u
#define TAPS 4u

typedef struct group {
  int8_t weights[TAPS];
  uint16_t offsets[TAPS];
} group;

/* Prepared: where each channel's groups begin (and the last one's end), then the groups, once for
 * every rotation of the ring.
 */
static size_t group_capacity(const edgel3_conv *conv) {
  size_t groups = 0;
  for (uint32_t channel = 0; channel < conv->output_channels; ++channel) {
    const uint32_t taps = (uint32_t)conv->negatives[channel] + conv->positives[channel];
    /* The parts of a list are filled up before they come here. */
    groups += (taps + 2u * EDGEL3_TAP_GROUP + TAPS - 1u) / TAPS;
  }
  return groups;
}

static size_t prepared_bytes(const edgel3_conv *conv) {
  return (conv->output_channels + 1u) * sizeof(uint32_t) +
         3u * group_capacity(conv) * sizeof(group);
}

static void prepare(const edgel3_conv *conv, uint16_t *offsets, edgel3_tap *list, void *prepared) {
  const size_t capacity = group_capacity(conv);
  uint32_t *starts = (uint32_t *)prepared;
  group *groups = (group *)(void *)(starts + conv->output_channels + 1u);
  for (uint32_t rotation = 0; rotation < 3u; ++rotation, groups += capacity) {
    edgel3_tap_offsets(conv, NULL, rotation, offsets);
    const uint8_t *cursor = conv->weights;
    uint32_t count = 0;
    for (uint32_t channel = 0; channel < conv->output_channels; ++channel) {
      const edgel3_list ends = edgel3_expand(conv, channel, &cursor, offsets, list);
      uint32_t filled = 0;
      starts[channel] = count;
      for (const edgel3_tap *tap = list; tap < ends.end; ++tap) {
        const int magnitude = (int)(tap->weight >> 1);
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

/* edgel3_requantize for 16 accumulators. */
TARGET static inline __m512i requantize(__m512i accumulators, __m512i multiplier, int shift,
                                        __m512i zero, __m512i lower, __m512i upper) {
  const __m512i nudge = _mm512_set1_epi64(INT64_C(1) << 30);
  const __m512i x = _mm512_sll_epi32(accumulators, _mm_cvtsi32_si128(shift > 0 ? shift : 0));
  const __m512i even = _mm512_srai_epi64(
      _mm512_add_epi64(_mm512_mul_epi32(x, multiplier), nudge), 31);
  const __m512i odd = _mm512_srai_epi64(
      _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(x, 32), multiplier), nudge), 31);
  const __m512i high = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));

  const int exponent = shift < 0 ? -shift : 0;
  const int mask = (int)((INT64_C(1) << exponent) - 1);
  const __m512i remainder = _mm512_and_si512(high, _mm512_set1_epi32(mask));
  const __m512i threshold =
      _mm512_add_epi32(_mm512_set1_epi32(mask >> 1), _mm512_srli_epi32(high, 31));
  __m512i result = _mm512_sra_epi32(high, _mm_cvtsi32_si128(exponent));
  result = _mm512_mask_add_epi32(result, _mm512_cmpgt_epi32_mask(remainder, threshold), result,
                                 _mm512_set1_epi32(1));
  /* The bounds come without the zero point: adding it first could overflow. */
  result = _mm512_min_epi32(_mm512_max_epi32(result, lower), upper);
  return _mm512_add_epi32(result, zero);
}

TARGET static void convolve(const edgel3_row *row, uint32_t channel, const uint8_t **cursor,
                            uint8_t *output) {
  const edgel3_conv *conv = row->conv;
  const uint32_t *starts = (const uint32_t *)row->prepared;
  const group *groups = (const group *)(const void *)(starts + conv->output_channels + 1u) +
                        row->rotation * group_capacity(conv);
  const group *begin = groups + starts[channel];
  const group *end = groups + starts[channel + 1u];
  const int zero_point = conv->output_zero;
  const __m512i multiplier = _mm512_set1_epi32(conv->multiplier[channel]);
  const __m512i zero = _mm512_set1_epi32(zero_point);
  const __m512i lower = _mm512_set1_epi32(conv->output_min - zero_point);
  const __m512i upper = _mm512_set1_epi32(conv->output_max - zero_point);
  const __m512i bias = _mm512_set1_epi32(conv->bias[channel]);
  (void)cursor;

  for (uint32_t t = 0; t < conv->columns; t += COLUMNS) {
    const uint8_t *ring = row->ring + t;
    __m512i sum0 = _mm512_setzero_si512(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    for (const group *taps = begin; taps < end; ++taps) {
      int32_t word;
      memcpy(&word, taps->weights, sizeof word);
      const __m512i weights = _mm512_set1_epi32(word);
      const __m512i a = _mm512_loadu_si512(ring + taps->offsets[0]);
      const __m512i b = _mm512_loadu_si512(ring + taps->offsets[1]);
      const __m512i c = _mm512_loadu_si512(ring + taps->offsets[2]);
      const __m512i d = _mm512_loadu_si512(ring + taps->offsets[3]);
      const __m512i ab_low = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b);
      const __m512i cd_low = _mm512_unpacklo_epi8(c, d), cd_high = _mm512_unpackhi_epi8(c, d);
      sum0 = _mm512_dpbusd_epi32(sum0, _mm512_unpacklo_epi16(ab_low, cd_low), weights);
      sum1 = _mm512_dpbusd_epi32(sum1, _mm512_unpackhi_epi16(ab_low, cd_low), weights);
      sum2 = _mm512_dpbusd_epi32(sum2, _mm512_unpacklo_epi16(ab_high, cd_high), weights);
      sum3 = _mm512_dpbusd_epi32(sum3, _mm512_unpackhi_epi16(ab_high, cd_high), weights);
    }
    /* Interleaving works within 16 bytes: 128-bit lane i of sum k holds columns 16 i + 4 k on. */
    const __m512i pair0 = _mm512_shuffle_i32x4(sum0, sum1, 0x44);
    const __m512i pair1 = _mm512_shuffle_i32x4(sum2, sum3, 0x44);
    const __m512i pair2 = _mm512_shuffle_i32x4(sum0, sum1, 0xee);
    const __m512i pair3 = _mm512_shuffle_i32x4(sum2, sum3, 0xee);
    const __m512i ordered[4] = {
        _mm512_shuffle_i32x4(pair0, pair1, 0x88), _mm512_shuffle_i32x4(pair0, pair1, 0xdd),
        _mm512_shuffle_i32x4(pair2, pair3, 0x88), _mm512_shuffle_i32x4(pair2, pair3, 0xdd)};
    for (uint32_t i = 0; i < 4u && t + 16u * i < conv->columns; ++i) {
      const uint32_t left = conv->columns - t - 16u * i;
      const __mmask16 present = (__mmask16)(left < 16u ? (1u << left) - 1u : 0xffffu);
      const __m512i result = requantize(_mm512_add_epi32(ordered[i], bias), multiplier,
                                        conv->shift[channel], zero, lower, upper);
      _mm512_mask_cvtepi32_storeu_epi8(output + t + 16u * i, present, result);
    }
  }
}

static int accepts(const edgel3_conv *conv) {
  (void)conv;
  return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

const edgel3_kernels edgel3_kernels_avx512 = {"avx512", accepts, prepared_bytes, prepare, convolve};

#endif /* EDGEL3_HAS_KERNELS_AVX512 */
