/* Kernels for desktop processors. They are not part of the Arduino library.
 *
 * The Python extension and the node for the host compile this file with the library, and define
 * EDGEL3_EXTRA_KERNELS as edgel3_kernels_host (edgel3_kernels.h): the sets of kernels in this file,
 * the fastest first. Which of them the processor supports is checked at run time. A desktop has memory enough to expand all weights once, at set-up.
 *
 * With a compiler that is neither GCC nor Clang, and for other processors, the table is empty.
 */
#include <string.h>

#include "edgel3_kernels.h"

extern const edgel3_extra_kernels edgel3_kernels_host[];

/* GCC does not align the stack for vectors of 32 bytes on Windows. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(_WIN32)
#define HAS_X86_KERNELS
#elif defined(__aarch64__) && defined(__GNUC__)
#define HAS_NEON_KERNELS
#endif

#if defined(HAS_X86_KERNELS) || defined(HAS_NEON_KERNELS)
static int accepts_all(const edgel3_conv *conv) {
  (void)conv;
  return 1;
}
#endif

#ifdef HAS_NEON_KERNELS
#include "edgel3_simd_neon.h"
#endif

#ifdef HAS_X86_KERNELS

#include <cpuid.h>
#include <immintrin.h>

/* Taps of a group of the sparse path. */
#define TAPS 4u
/* Output channels that the dense path computes at once. */
#define DENSE_CHANNELS 8u
/* The largest sum of two weights of the same sign whose products with inputs of up to 255 have a
 * sum that fits in an int16. The sum of products always fits for weights of different signs. */
#define PAIR_LIMIT 128u

/* What `prepare` writes. In the sparse path there follow, for n output channels: uint32 [n + 1], the
 * first group of each channel and the end of the last one; group [3][capacity], the groups for each
 * rotation of the ring. dense_layout describes the dense path.
 */
typedef struct prepared_layer {
  uint32_t is_dense;
  uint32_t capacity; /* groups of a rotation */
} prepared_layer;

/* Four taps. Unused ones have weight 0 and offset 0. Two neighbouring taps, the first and second or
 * the third and fourth, either have weights of different signs, or comply with PAIR_LIMIT.
 */
typedef struct group {
  int8_t weights[TAPS];
  uint16_t offsets[TAPS];
} group;

static uint32_t *starts_of(const prepared_layer *layer) { return (uint32_t *)(layer + 1); }

static group *groups_of(const prepared_layer *layer, const edgel3_conv *conv, uint32_t rotation) {
  return (group *)(void *)(starts_of(layer) + conv->output_channels + 1u) +
         (size_t)rotation * layer->capacity;
}

static uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

/* Round up to a multiple of `step`, a power of two. */
static uint32_t padded(uint32_t count, uint32_t step) { return (count + step - 1u) & ~(step - 1u); }

/* The largest number of groups of a channel: each pair of taps has at least one tap of the more
 * frequent sign.
 */
static uint32_t most_groups(const edgel3_conv *conv, uint32_t channel) {
  return (larger(conv->negatives[channel], conv->positives[channel]) + 1u) / 2u;
}

static uint32_t group_capacity(const edgel3_conv *conv) {
  uint32_t groups = 0;
  for (uint32_t channel = 0; channel < conv->output_channels; ++channel) {
    groups += most_groups(conv, channel);
  }
  return groups;
}

static size_t sparse_bytes(const edgel3_conv *conv) {
  return sizeof(prepared_layer) + (conv->output_channels + 1u) * sizeof(uint32_t) +
         3u * sizeof(group) * group_capacity(conv);
}

/* Appends pairs of taps to groups. */
typedef struct pairing {
  group *groups;
  uint32_t pairs; /* so far */
} pairing;

static void put_pair(pairing *to, int32_t weight0, uint32_t offset0, int32_t weight1,
                     uint32_t offset1) {
  group *last = &to->groups[to->pairs / 2u];
  const uint32_t at = to->pairs % 2u * 2u;
  if (at == 0) memset(last, 0, sizeof *last);
  last->weights[at] = (int8_t)weight0;
  last->weights[at + 1u] = (int8_t)weight1;
  last->offsets[at] = (uint16_t)offset0;
  last->offsets[at + 1u] = (uint16_t)offset1;
  to->pairs += 1u;
}

static const edgel3_tap *skip_zeros(const edgel3_tap *tap, const edgel3_tap *end) {
  while (tap < end && tap->weight == 0) ++tap;
  return tap;
}

/* Combine the taps of one sign that are left. A tap that fits no other one of its sign stays alone.
 */
static void put_remaining(pairing *to, const edgel3_tap *tap, const edgel3_tap *end, int32_t sign) {
  const edgel3_tap *waiting = NULL;
  for (; (tap = skip_zeros(tap, end)) < end; ++tap) {
    if (waiting == NULL) {
      waiting = tap;
    } else if (waiting->weight + tap->weight <= PAIR_LIMIT) {
      put_pair(to, sign * (int32_t)waiting->weight, waiting->offset, sign * (int32_t)tap->weight,
               tap->offset);
      waiting = NULL;
    } else {
      const edgel3_tap *alone = waiting->weight > tap->weight ? waiting : tap;
      put_pair(to, sign * (int32_t)alone->weight, alone->offset, 0, 0);
      waiting = alone == tap ? waiting : tap;
    }
  }
  if (waiting != NULL) put_pair(to, sign * (int32_t)waiting->weight, waiting->offset, 0, 0);
}

/* Combine the taps of a list into groups, and return their number. */
static uint32_t put_groups(const edgel3_list *list, group *groups) {
  pairing to = {groups, 0};
  const edgel3_tap *negative = skip_zeros(list->begin, list->positives);
  const edgel3_tap *positive = skip_zeros(list->positives, list->end);
  while (negative < list->positives && positive < list->end) {
    put_pair(&to, -(int32_t)negative->weight, negative->offset, (int32_t)positive->weight,
             positive->offset);
    negative = skip_zeros(negative + 1, list->positives);
    positive = skip_zeros(positive + 1, list->end);
  }
  put_remaining(&to, negative, list->positives, -1);
  put_remaining(&to, positive, list->end, 1);
  return (to.pairs + 1u) / 2u;
}

static void prepare_sparse(const edgel3_conv *conv, uint16_t *offsets, edgel3_tap *list,
                           prepared_layer *layer) {
  uint32_t *starts = starts_of(layer);
  layer->capacity = group_capacity(conv);
  for (uint32_t rotation = 0; rotation < 3u; ++rotation) {
    group *groups = groups_of(layer, conv, rotation);
    edgel3_tap_offsets(conv, NULL, rotation, offsets);
    const uint8_t *cursor = conv->weights;
    uint32_t count = 0;
    for (uint32_t channel = 0; channel < conv->output_channels; ++channel) {
      const edgel3_list taps = edgel3_expand(conv, channel, &cursor, offsets, list);
      starts[channel] = count;
      count += put_groups(&taps, groups + count);
    }
    starts[conv->output_channels] = count;
  }
}

/* Where the parts of a dense layer are, in bytes from its start, and their sizes.
 *
 * A unit has the inputs, or the weights, of neighbouring input channels in 32 bits: four int8, or
 * two int16.
 */
typedef struct dense_layout {
  uint32_t columns;
  uint32_t unit_taps;
  uint32_t units;       /* units of all input channels */
  uint32_t stride;      /* units from one row of inputs to the next */
  uint32_t sums_stride; /* sums from one channel to the next */
  size_t weights;       /* int32 [channels / DENSE_CHANNELS][3 * units * 3][DENSE_CHANNELS] */
  size_t inputs;        /* int32 [3 * units][stride], scratch */
  size_t sums;          /* int32 [DENSE_CHANNELS][sums_stride], scratch */
  size_t bytes;         /* size of everything */
} dense_layout;

static dense_layout dense_layout_of(const edgel3_conv *conv, uint32_t unit_taps) {
  dense_layout at;
  at.columns = conv->columns;
  at.unit_taps = unit_taps;
  at.units = (conv->input_channels + unit_taps - 1u) / unit_taps;
  at.stride = padded(conv->columns + 2u, 16u);
  at.sums_stride = edgel3_padded_columns(conv);
  at.weights = 64u;
  at.inputs =
      at.weights + (size_t)padded(conv->output_channels, DENSE_CHANNELS) * 9u * at.units * 4u;
  at.sums = at.inputs + (size_t)3u * at.units * at.stride * 4u;
  at.bytes = at.sums + (size_t)DENSE_CHANNELS * at.sums_stride * 4u;
  return at;
}

static void prepare_dense(const edgel3_conv *conv, uint16_t *offsets, edgel3_tap *list,
                          prepared_layer *layer, uint32_t unit_taps) {
  const dense_layout at = dense_layout_of(conv, unit_taps);
  const uint32_t channels = conv->input_channels;
  uint8_t *weights = (uint8_t *)layer + at.weights;
  memset(weights, 0, at.inputs - at.weights);
  /* Instead of offsets, the lists get the taps' numbers. */
  for (uint32_t tap = 0; tap < edgel3_taps_per_channel(conv); ++tap) offsets[tap] = (uint16_t)tap;
  const uint8_t *cursor = conv->weights;
  for (uint32_t channel = 0; channel < conv->output_channels; ++channel) {
    const edgel3_list taps = edgel3_expand(conv, channel, &cursor, offsets, list);
    uint8_t *block =
        weights + (size_t)(channel / DENSE_CHANNELS) * DENSE_CHANNELS * 9u * at.units * 4u;
    for (const edgel3_tap *tap = taps.begin; tap < taps.end; ++tap) {
      const uint32_t input = tap->offset % channels, kx = tap->offset / channels % 3u,
                     ky = tap->offset / channels / 3u;
      const uint32_t unit = (ky * at.units + input / unit_taps) * 3u + kx;
      const uint32_t first = (unit * DENSE_CHANNELS + channel % DENSE_CHANNELS) * 4u;
      const int32_t weight = tap < taps.positives ? -(int32_t)tap->weight : (int32_t)tap->weight;
      /* A list may contain a tap twice. */
      if (unit_taps == 4u) {
        uint8_t *to = &block[first + input % 4u];
        *to = (uint8_t)(*to + (uint32_t)weight);
      } else {
        int16_t value;
        uint8_t *to = &block[first + input % 2u * 2u];
        memcpy(&value, to, sizeof value);
        value = (int16_t)(value + weight);
        memcpy(to, &value, sizeof value);
      }
    }
  }
  layer->capacity = 0;
}

/* Interleave the three input rows of an output row into units. SSE2 is part of x86-64. */
static void interleave_inputs(const edgel3_row *row, const dense_layout *at) {
  const edgel3_conv *conv = row->conv;
  const uint32_t channels = conv->input_channels;
  uint8_t *output = (uint8_t *)row->prepared + at->inputs;
  for (uint32_t ky = 0; ky < 3u; ++ky) {
    const uint8_t *slot = row->ring + (row->rotation + ky) % 3u * edgel3_slot_bytes(conv);
    for (uint32_t unit = 0; unit < at->units; ++unit, output += 4u * at->stride) {
      const uint8_t *inputs[4];
      for (uint32_t i = 0; i < at->unit_taps; ++i) {
        /* The weights of channels that are too many are 0: any inputs will do. */
        const uint32_t channel = unit * at->unit_taps + i;
        inputs[i] = slot + (channel < channels ? channel : 0u) * edgel3_row_stride(conv);
      }
      for (uint32_t t = 0; t < conv->columns + 2u; t += 16u) {
        __m128i a = _mm_loadu_si128((const __m128i *)(const void *)(inputs[0] + t));
        __m128i b = _mm_setzero_si128();
        __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(inputs[1] + t));
        __m128i d = b;
        if (at->unit_taps == 4u) {
          b = c;
          c = _mm_loadu_si128((const __m128i *)(const void *)(inputs[2] + t));
          d = _mm_loadu_si128((const __m128i *)(const void *)(inputs[3] + t));
        }
        const __m128i ab_low = _mm_unpacklo_epi8(a, b), ab_high = _mm_unpackhi_epi8(a, b);
        const __m128i cd_low = _mm_unpacklo_epi8(c, d), cd_high = _mm_unpackhi_epi8(c, d);
        __m128i *to = (__m128i *)(void *)(output + 4u * t);
        _mm_storeu_si128(to, _mm_unpacklo_epi16(ab_low, cd_low));
        _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(ab_low, cd_low));
        _mm_storeu_si128(to + 2, _mm_unpacklo_epi16(ab_high, cd_high));
        _mm_storeu_si128(to + 3, _mm_unpackhi_epi16(ab_high, cd_high));
      }
    }
  }
}

/* `pool` of edgel3_kernels, 16 maxima at a time. */
static void pool(uint8_t *values, const uint8_t *row, uint32_t count, int second) {
  const __m128i low = _mm_set1_epi16(0xff);
  for (uint32_t i = 0; i < count; i += 16u) {
    const uint32_t size = count - i < 16u ? count - i : 16u;
    const __m128i *pairs = (const __m128i *)(const void *)(row + 2u * i);
    const __m128i a = _mm_loadu_si128(pairs), b = _mm_loadu_si128(pairs + 1);
    const __m128i from_a = _mm_and_si128(_mm_max_epu8(a, _mm_srli_epi16(a, 8)), low);
    const __m128i from_b = _mm_and_si128(_mm_max_epu8(b, _mm_srli_epi16(b, 8)), low);
    __m128i maxima = _mm_packus_epi16(from_a, from_b);
    if (second) {
      __m128i first = _mm_setzero_si128();
      memcpy(&first, values + i, size);
      maxima = _mm_max_epu8(maxima, first);
    }
    memcpy(values + i, &maxima, size);
  }
}

/* Return whether the dense path is faster. While the sparse path computes 100 products, it computes
 * `advantage`. Both paths compute columns up to a multiple of a step.
 */
static int prefers_dense(const edgel3_conv *conv, uint32_t sparse_step, uint32_t dense_step,
                         uint32_t advantage) {
  /* A tap's number takes the place of its offset in a list. */
  if (edgel3_taps_per_channel(conv) >= EDGEL3_ROW_IS_ZERO) return 0;
  const uint64_t sparse =
      (uint64_t)TAPS * group_capacity(conv) * padded(conv->columns, sparse_step);
  const uint64_t dense = (uint64_t)padded(conv->output_channels, DENSE_CHANNELS) * 9u *
                         padded(conv->input_channels, TAPS) * padded(conv->columns, dense_step);
  return sparse * advantage > dense * 100u;
}

/* The sums of 16 bits in `pairs` are exact, because groups comply with PAIR_LIMIT. */
__attribute__((target("avx2"))) static inline __m256i add_products_avx2(__m256i sums,
                                                                        __m256i inputs,
                                                                        __m256i weights) {
  const __m256i pairs = _mm256_maddubs_epi16(inputs, weights);
  return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

__attribute__((target("avx2"))) static inline __m256i add_units_avx2(__m256i sums, __m256i units,
                                                                     __m256i weights) {
  return _mm256_add_epi32(sums, _mm256_madd_epi16(units, weights));
}

/* The three sets with vectors of 32 bytes. */
#define LOG2_BYTES 5
#define vector __m256i
#define MM(name) _mm256_##name
#define LOAD(address) _mm256_loadu_si256((const __m256i *)(const void *)(address))
#define AND(a, b) _mm256_and_si256(a, b)
#define BLEND_ODD(even, odd) _mm256_blend_epi32(even, odd, 0xaa)
#define UNSHUFFLE(bytes) \
  _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))

#define SET(name) name##_avx2
#define TARGET __attribute__((target("avx2")))
#define UNIT_TAPS 2u
#define ADD_PRODUCTS add_products_avx2
#define ADD_UNITS add_units_avx2
#define DENSE_ADVANTAGE 90u
#include "edgel3_simd_x86.h"
#undef SET
#undef TARGET
#undef UNIT_TAPS
#undef ADD_PRODUCTS
#undef ADD_UNITS
#undef DENSE_ADVANTAGE

#define UNIT_TAPS 4u
#define DENSE_ADVANTAGE 200u

#if __GNUC__ >= 11 || defined(__clang__)
#define HAS_AVXVNNI_KERNELS
#define SET(name) name##_avxvnni
#define TARGET __attribute__((target("avx2,avxvnni")))
#define ADD_PRODUCTS _mm256_dpbusd_avx_epi32
#define ADD_UNITS _mm256_dpbusd_avx_epi32
#include "edgel3_simd_x86.h"
#undef SET
#undef TARGET
#undef ADD_PRODUCTS
#undef ADD_UNITS
#endif

/* AVX-512, for rows that would fill less than half of a longer vector. */
#define SET(name) name##_avx512_narrow
#define TARGET __attribute__((target("avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define ADD_PRODUCTS _mm256_dpbusd_epi32
#define ADD_UNITS _mm256_dpbusd_epi32
#include "edgel3_simd_x86.h"
#undef SET
#undef LOG2_BYTES
#undef vector
#undef MM
#undef LOAD
#undef AND
#undef BLEND_ODD
#undef UNSHUFFLE
#undef ADD_PRODUCTS
#undef ADD_UNITS

#define LOG2_BYTES 6
#define vector __m512i
#define MM(name) _mm512_##name
#define LOAD(address) _mm512_loadu_si512(address)
#define AND(a, b) _mm512_and_si512(a, b)
#define BLEND_ODD(even, odd) _mm512_mask_blend_epi32(0xaaaa, even, odd)
#define UNSHUFFLE(bytes)    \
  _mm512_permutexvar_epi32( \
      _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), bytes)
#define SET(name) name##_avx512
#define ADD_PRODUCTS _mm512_dpbusd_epi32
#define ADD_UNITS _mm512_dpbusd_epi32
#include "edgel3_simd_x86.h"
#undef SET

static int has_avx2(void) { return __builtin_cpu_supports("avx2") != 0; }

#ifdef HAS_AVXVNNI_KERNELS
static int has_avxvnni(void) {
  unsigned eax = 0, ebx, ecx, edx;
  /* Clang 14 does not know this feature by name. */
  return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1u) != 0;
}
#endif

static int has_avx512(void) {
  return has_avx2() && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

/* In a short row, a vector of 64 bytes computes no more columns than one of 32. */
static int accepts_long_rows(const edgel3_conv *conv) {
  const uint32_t step = is_dense_avx512(conv) ? 16u : 64u;
  return padded(conv->columns, step) < 2u * padded(conv->columns, step / 2u);
}

#define KERNELS(set, accepts_)                  \
  static const edgel3_kernels kernels_##set = { \
      .name = #set,                             \
      .accepts = accepts_,                      \
      .prepared_bytes = prepared_bytes_##set,   \
      .prepare = prepare_##set,                 \
      .convolve = convolve_##set,               \
      .pool = pool,                             \
  }

KERNELS(avx512, accepts_long_rows);
KERNELS(avx512_narrow, accepts_all);
KERNELS(avx2, accepts_all);
#ifdef HAS_AVXVNNI_KERNELS
KERNELS(avxvnni, accepts_all);
#endif

#endif /* HAS_X86_KERNELS */

enum { AVX512 = EDGEL3_KERNELS_EXTRA, AVXVNNI, AVX2, NEON };

const edgel3_extra_kernels edgel3_kernels_host[] = {
#ifdef HAS_X86_KERNELS
    {&kernels_avx512, "avx512", AVX512, has_avx512},
    {&kernels_avx512_narrow, "avx512", AVX512, has_avx512},
#ifdef HAS_AVXVNNI_KERNELS
    {&kernels_avxvnni, "avxvnni", AVXVNNI, has_avxvnni},
#endif
    {&kernels_avx2, "avx2", AVX2, has_avx2},
#endif
#ifdef HAS_NEON_KERNELS
    {&kernels_neon, "neon", NEON, has_neon},
#endif
    {NULL, NULL, EDGEL3_KERNELS_PORTABLE, NULL},
};
