/* The kernels for x86-64, written once for all of its instruction sets.
 *
 * edgel3_kernels_host.c includes this file once for each set. It defines before:
 *
 *   SET(name)        the name of a function or type of this set
 *   TARGET           the attribute that lets a function use the set's instructions
 *   LOG2_BYTES       binary logarithm of the bytes of a vector: 5 or 6
 *   vector           the type of a vector: __m256i or __m512i
 *   MM(name)         the intrinsic of that name for the vector's width
 *   LOAD, AND, BLEND_ODD    intrinsics whose names depend on the width otherwise
 *   UNIT_TAPS        taps of a unit of the dense path: 2 of int16 or 4 of int8
 *   ADD_PRODUCTS     ADD_PRODUCTS(sums, inputs, weights): for each int32 lane, add the products of
 *                    four uint8 inputs and four int8 weights. The sum of the first two products and
 *                    that of the last two must fit in an int16.
 *   ADD_UNITS        the same for a unit of the dense path, for any weights
 *   UNSHUFFLE        bring groups of four bytes from the order of `pack` into that of the columns
 *   DENSE_ADVANTAGE  products that the dense path computes while the sparse one computes 100,
 *                    measured on a Zen 4 processor with layers that have no zeros
 *
 * There are two paths. `prepare` chooses one for each layer.
 *
 * Sparse: the taps of a channel are combined into groups of four. The kernel interleaves the four
 * input rows of a group byte by byte, so that the four inputs of a column are adjacent, and adds
 * their products to sums of one vector's bytes of columns.
 *
 * Dense: for each output row the kernel interleaves the inputs of neighbouring channels once, into
 * units of 32 bits. All output channels then use the units. Eight channels are computed at once.
 */
#define BYTES (1u << LOG2_BYTES)
#define LANES (BYTES / 4u)

/* Parameters for requantizing a channel, the same in all lanes. */
typedef struct SET(requantization) {
  vector bias;
  vector multiplier;
  vector zero;
  vector lower; /* the clamps minus the zero point: adding the zero point first could overflow */
  vector upper;
  __m128i left;  /* bits to shift left before the multiplication */
  __m128i right; /* bits to shift right after it */
  vector mask;   /* the bits that the right shift removes */
} SET(requantization);

TARGET static inline SET(requantization)
    SET(requantization_of)(const edgel3_conv *conv, uint32_t channel) {
  const int shift = conv->shift[channel];
  const int exponent = shift < 0 ? -shift : 0;
  const int zero = conv->output_zero;
  const SET(requantization) result = {
      .bias = MM(set1_epi32)(conv->bias[channel]),
      .multiplier = MM(set1_epi32)(conv->multiplier[channel]),
      .zero = MM(set1_epi32)(zero),
      .lower = MM(set1_epi32)(conv->output_min - zero),
      .upper = MM(set1_epi32)(conv->output_max - zero),
      .left = _mm_cvtsi32_si128(shift > 0 ? shift : 0),
      .right = _mm_cvtsi32_si128(exponent),
      .mask = MM(set1_epi32)((int)((INT64_C(1) << exponent) - 1)),
  };
  return result;
}

/* Add the bias to sums, then compute what edgel3_requantize computes, in lanes of int32. */
TARGET static inline vector SET(requantize)(const SET(requantization) * by, vector sums) {
  const vector nudge = MM(srli_epi64)(MM(set1_epi32)(1 << 30), 32); /* in lanes of 64 bits */
  const vector x = MM(sll_epi32)(MM(add_epi32)(sums, by->bias), by->left);
  /* The high half of an even lane's product moves down by 31 bits. That of an odd lane moves up by
   * one bit, and so into the upper half. */
  const vector even = MM(srli_epi64)(MM(add_epi64)(MM(mul_epi32)(x, by->multiplier), nudge), 31);
  const vector odd =
      MM(slli_epi64)(MM(add_epi64)(MM(mul_epi32)(MM(srli_epi64)(x, 32), by->multiplier), nudge), 1);
  const vector high = BLEND_ODD(even, odd);

  /* The remainder and the threshold are 0 or more, and the threshold is at most 2^30: the sign of
   * their difference tells which is larger. */
  const vector remainder = AND(high, by->mask);
  const vector threshold = MM(add_epi32)(MM(srli_epi32)(by->mask, 1), MM(srli_epi32)(high, 31));
  const vector is_larger = MM(srli_epi32)(MM(sub_epi32)(threshold, remainder), 31);
  const vector result = MM(add_epi32)(MM(sra_epi32)(high, by->right), is_larger);
  return MM(add_epi32)(MM(min_epi32)(MM(max_epi32)(result, by->lower), by->upper), by->zero);
}

/* Sums of one vector's bytes of columns. The interleaving instructions work within lanes of 128
 * bits: lane i of part k contains columns 16 i + 4 k to 16 i + 4 k + 3.
 */
typedef struct SET(sums) {
  vector parts[4];
} SET(sums);

/* Add the products of four taps. `weights` has the four weights in each lane of 32 bits. */
TARGET static inline void SET(add_taps)(SET(sums) * to, const uint8_t *ring, const group *taps,
                                        vector weights) {
  const vector a = LOAD(ring + taps->offsets[0]), b = LOAD(ring + taps->offsets[1]);
  const vector c = LOAD(ring + taps->offsets[2]), d = LOAD(ring + taps->offsets[3]);
  const vector ab_low = MM(unpacklo_epi8)(a, b), ab_high = MM(unpackhi_epi8)(a, b);
  const vector cd_low = MM(unpacklo_epi8)(c, d), cd_high = MM(unpackhi_epi8)(c, d);
  vector *parts = to->parts;
  parts[0] = ADD_PRODUCTS(parts[0], MM(unpacklo_epi16)(ab_low, cd_low), weights);
  parts[1] = ADD_PRODUCTS(parts[1], MM(unpackhi_epi16)(ab_low, cd_low), weights);
  parts[2] = ADD_PRODUCTS(parts[2], MM(unpacklo_epi16)(ab_high, cd_high), weights);
  parts[3] = ADD_PRODUCTS(parts[3], MM(unpackhi_epi16)(ab_high, cd_high), weights);
}

/* Requantize sums, and pack them into bytes: those of lane i of part k become the bytes 16 i + 4 k
 * to 16 i + 4 k + 3. In the order of the sparse path this undoes the interleaving.
 */
TARGET static inline vector SET(pack)(const SET(requantization) * by, const SET(sums) * from) {
  const vector low =
      MM(packs_epi32)(SET(requantize)(by, from->parts[0]), SET(requantize)(by, from->parts[1]));
  const vector high =
      MM(packs_epi32)(SET(requantize)(by, from->parts[2]), SET(requantize)(by, from->parts[3]));
  return MM(packus_epi16)(low, high);
}

/* Store the first `count` bytes of a vector, or all of them if it has fewer. */
TARGET static inline void SET(put)(uint8_t *output, vector bytes, uint32_t count) {
  if (count < BYTES) {
    memcpy(output, &bytes, count);
  } else {
    memcpy(output, &bytes, BYTES);
  }
}

TARGET static inline vector SET(weights_of)(const group *taps) {
  int32_t word;
  memcpy(&word, taps->weights, sizeof word);
  return MM(set1_epi32)(word);
}

TARGET static void SET(convolve_sparse)(const edgel3_row *row, uint32_t channel, uint8_t *output) {
  const edgel3_conv *conv = row->conv;
  const prepared_layer *layer = (const prepared_layer *)row->prepared;
  const uint32_t *starts = starts_of(layer);
  const group *groups = groups_of(layer, conv, row->rotation);
  const group *begin = groups + starts[channel], *end = groups + starts[channel + 1u];
  const SET(requantization) by = SET(requantization_of)(conv, channel);
  const vector none = MM(set1_epi32)(0);

  for (uint32_t t = 0; t < conv->columns; t += BYTES) {
    SET(sums) sums = {{none, none, none, none}};
    for (const group *taps = begin; taps < end; ++taps) {
      SET(add_taps)(&sums, row->ring + t, taps, SET(weights_of)(taps));
    }
    SET(put)(output + t, SET(pack)(&by, &sums), conv->columns - t);
  }
}

/* Compute the sums of DENSE_CHANNELS channels of a row, from `channel` on. */
TARGET static void SET(add_block)(const dense_layout *at, prepared_layer *layer, uint32_t channel) {
  uint8_t *bytes = (uint8_t *)layer;
  const int32_t *block = (const int32_t *)(void *)(bytes + at->weights) + channel * 9u * at->units;
  int32_t *sums = (int32_t *)(void *)(bytes + at->sums);
  for (uint32_t t = 0; t < at->columns; t += LANES) {
    const uint8_t *inputs = bytes + at->inputs + 4u * t;
    const int32_t *weights = block;
    vector to[DENSE_CHANNELS];
    for (uint32_t i = 0; i < DENSE_CHANNELS; ++i) to[i] = MM(set1_epi32)(0);
    for (uint32_t row = 0; row < 3u * at->units; ++row, inputs += 4u * at->stride) {
      for (uint32_t kx = 0; kx < 3u; ++kx, weights += DENSE_CHANNELS) {
        const vector units = LOAD(inputs + 4u * kx);
        for (uint32_t i = 0; i < DENSE_CHANNELS; ++i) {
          to[i] = ADD_UNITS(to[i], units, MM(set1_epi32)(weights[i]));
        }
      }
    }
    for (uint32_t i = 0; i < DENSE_CHANNELS; ++i) {
      memcpy(sums + i * at->sums_stride + t, &to[i], sizeof to[i]);
    }
  }
}

TARGET static void SET(convolve_dense)(const edgel3_row *row, uint32_t channel, uint8_t *output) {
  const edgel3_conv *conv = row->conv;
  prepared_layer *layer = (prepared_layer *)row->prepared;
  const dense_layout at = dense_layout_of(conv, UNIT_TAPS);
  if (channel == 0) interleave_inputs(row, &at);
  if (channel % DENSE_CHANNELS == 0) SET(add_block)(&at, layer, channel);

  const SET(requantization) by = SET(requantization_of)(conv, channel);
  const int32_t *sums = (const int32_t *)(void *)((uint8_t *)layer + at.sums) +
                        channel % DENSE_CHANNELS * at.sums_stride;
  for (uint32_t t = 0; t < conv->columns; t += BYTES) {
    SET(sums) from;
    memcpy(from.parts, sums + t, sizeof from.parts);
    SET(put)(output + t, UNSHUFFLE(SET(pack)(&by, &from)), conv->columns - t);
  }
}

TARGET static void SET(convolve)(const edgel3_row *row, uint32_t channel, const uint8_t **cursor,
                                 uint8_t *output) {
  (void)cursor;
  if (((const prepared_layer *)row->prepared)->is_dense) {
    SET(convolve_dense)(row, channel, output);
  } else {
    SET(convolve_sparse)(row, channel, output);
  }
}

static int SET(is_dense)(const edgel3_conv *conv) {
  return prefers_dense(conv, BYTES, LANES, DENSE_ADVANTAGE);
}

static size_t SET(prepared_bytes)(const edgel3_conv *conv) {
  return SET(is_dense)(conv) ? dense_layout_of(conv, UNIT_TAPS).bytes : sparse_bytes(conv);
}

static void SET(prepare)(const edgel3_conv *conv, uint16_t *offsets, edgel3_tap *list,
                         void *prepared) {
  prepared_layer *layer = (prepared_layer *)prepared;
  layer->is_dense = (uint32_t)SET(is_dense)(conv);
  if (layer->is_dense) {
    prepare_dense(conv, offsets, list, layer, UNIT_TAPS);
  } else {
    prepare_sparse(conv, offsets, list, layer);
  }
}

#undef BYTES
#undef LANES
