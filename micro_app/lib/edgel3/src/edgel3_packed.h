/* The packed model: the format of its bytes, and a checked view of them. Internal to the library.
 *
 * All numbers are little-endian. Offsets count from the first byte of the model. "Zero" means bytes
 * that must be 0. Each line gives position, size in bytes and content.
 *
 *   header, 64 bytes
 *     0  4  magic "EL3P"
 *     4  2  version, 1
 *     6  2  number of convolutions, 1 to EDGEL3_MAX_CONVOLUTIONS
 *     8  4  size of the packed model in bytes
 *    12  4  CRC-32, as zlib computes it, of all bytes from position 16 to the end
 *    16  2  input rows            18  2  input columns
 *    20  2  embedding size        22  2  zero
 *    24  4  input scale, float32  28  1  input zero point, int8   29  3  zero
 *    32  4  output scale          36  1  output zero point        37  3  zero
 *    40 16  first half of the SHA-256 of the dense flatbuffer
 *    56  8  zero
 *
 *   one record of 32 bytes for every convolution (3x3, stride 1, padding 'same'), from position 64
 *     0  2  input channels        2  2  output channels
 *     4  1  input zero point      5  1  output zero point (int8, as the next two)
 *     6  1  lower clamp           7  1  upper clamp
 *     8  1  pooling of the output: 0 none, 1 maximum of 2x2 with stride 2, 2 global maximum
 *     9  1  encoding of the weights: 0 dense, 1 gap12, 2 gap16
 *    10  2  zero
 *    12  4  offset of the channel table, a multiple of 4
 *    16  4  offset of the weights, a multiple of 4
 *    20  4  bytes of weights, including EDGEL3_WEIGHT_SLACK bytes of zero at the end
 *    24  8  zero
 *   The last convolution, and no other, has global pooling.
 *
 *   channel table of a convolution with n output channels
 *     int32 bias[n]         TFLite's bias minus the sum of weight * (input zero point + 128),
 *                           because the engine's inputs are quantized value + 128
 *     int32 multiplier[n]   Q31, 2^30 or more; or 0, for a channel without weights and bias
 *     uint16 negatives[n]   taps of negative weight; a list's taps of magnitude 0 count as well
 *     uint16 positives[n]   taps of positive weight, likewise
 *     int8 shift[n]         as TFLite has it: a right shift if negative; -31 to 30
 *     zero up to a multiple of 4
 *
 *   weights, one channel after another. Tap (ky, kx, c) has number (ky * 3 + kx) * channels + c.
 *     dense   int8 for every tap, including zeros, ordered by number
 *     gap16   a list of uint16: `negatives` taps, then `positives` taps. Each part is ordered by
 *             number. Bits 0 to 6 are the magnitude of the weight. Bits 7 to 15 are the gap: the
 *             number of the tap minus that of the tap before it; for the first tap of a part, its
 *             number.
 *     gap12   the same with 12 bits: bits 0 to 6 are the magnitude, bits 7 to 11 the gap. Two taps
 *             take three bytes, the first tap in the lower 12 bits. Both parts have an even number
 *             of taps.
 *   A gap that is too large for its field is split by taps of magnitude 0. One such tap more makes
 *   a part even. A weight of -128 is two taps of magnitude 64, the second with a gap of 0.
 */
#ifndef EDGEL3_PACKED_H_
#define EDGEL3_PACKED_H_

#include "edgel3.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Largest number of convolutions of a model. */
#define EDGEL3_MAX_CONVOLUTIONS 8u
/** Size of the header in bytes. */
#define EDGEL3_HEADER_BYTES 64u
/** Size of the record of a convolution in bytes. */
#define EDGEL3_RECORD_BYTES 32u
/** Zero bytes after a convolution's weights. Decoders read words, up to 3 bytes past a list. */
#define EDGEL3_WEIGHT_SLACK 4u
/** Largest ring in bytes: an offset into a ring has 16 bits, and 65535 marks a row of zeros. */
#define EDGEL3_RING_MAX_BYTES 65535u
/** Bytes after a ring. Kernels read past a row by less than this, and do not use what they read. */
#define EDGEL3_OVERREAD_BYTES 64u

/** Pooling of a convolution's output. */
typedef enum edgel3_pool {
  EDGEL3_POOL_NONE = 0,  /**< no pooling */
  EDGEL3_POOL_2X2 = 1,   /**< maximum of 2x2 with stride 2 */
  EDGEL3_POOL_GLOBAL = 2 /**< maximum of each channel over the whole map */
} edgel3_pool;

/** Encoding of a convolution's weights; the comment at the top describes them. */
typedef enum edgel3_encoding {
  EDGEL3_ENCODING_DENSE = 0, /**< int8 for every tap */
  EDGEL3_ENCODING_GAP12 = 1, /**< a list of taps of 12 bits */
  EDGEL3_ENCODING_GAP16 = 2  /**< a list of taps of 16 bits */
} edgel3_encoding;

/** A convolution of a checked model. All pointers point into the model. */
typedef struct edgel3_conv {
  const int32_t *bias;       /**< [output_channels] */
  const int32_t *multiplier; /**< [output_channels], Q31; 0, or 2^30 to 2^31 - 1 */
  const uint16_t *negatives; /**< [output_channels], taps of negative weight */
  const uint16_t *positives; /**< [output_channels], taps of positive weight */
  const int8_t *shift;       /**< [output_channels], a right shift if negative; -31 to 30 */
  const uint8_t *weights;    /**< encoded weights of all channels */
  uint32_t input_channels;   /**< 1 to 65535 */
  uint32_t output_channels;  /**< 1 to 65535 */
  uint32_t rows;             /**< rows of the input, and of the output before pooling; 1 or more */
  uint32_t columns;  /**< columns of the input, and of the output before pooling; 1 or more */
  uint32_t max_taps; /**< taps of the longest list of a channel, negative and positive */
  edgel3_pool pool;
  edgel3_encoding encoding;
  uint8_t input_zero;        /**< zero point of the input plus 128 */
  uint8_t output_zero;       /**< zero point of the output plus 128 */
  uint8_t output_min;        /**< lower clamp plus 128 */
  uint8_t output_max;        /**< upper clamp plus 128; output_min or more */
  int64_t accumulator_bound; /**< largest magnitude of an accumulator, with bias, for any input */
  int64_t accumulator_range; /**< largest difference of two accumulators of a channel, likewise */
} edgel3_conv;

/** A checked view of a packed model. */
typedef struct edgel3_model {
  edgel3_info info;                                  /**< properties of the whole model */
  edgel3_conv convolutions[EDGEL3_MAX_CONVOLUTIONS]; /**< the first info.convolutions are valid */
} edgel3_model;

/** Check every field of a packed model and fill the view.
 *
 * @param[out] model  the view; valid only if EDGEL3_OK is returned
 * @param[in]  bytes  the packed model, aligned to EDGEL3_MODEL_ALIGNMENT; the view points into it
 * @param[in]  size   bytes that may be read; the model's size or more
 * @return EDGEL3_OK, EDGEL3_ERROR_ARGUMENT, or why the model is refused
 */
/*@ requires \valid(model);
  @ requires bytes == \null || \valid_read((const uint8_t *)bytes + (0 .. size - 1));
  @ assigns *model, \result \from bytes, ((const uint8_t *)bytes)[0 .. size - 1], size;
  @*/
edgel3_status edgel3_read_model(edgel3_model *model, const void *bytes, size_t size);

/** Compute the CRC-32, as zlib does, of a sequence of bytes that may come in parts.
 *
 * @param[in] crc    CRC-32 of the bytes before these; 0 if there are none
 * @param[in] bytes  uint8 [count]
 * @param[in] count  number of bytes; 0 or more
 * @return the CRC-32 of all bytes so far
 */
/*@ requires \valid_read(bytes + (0 .. count - 1));
  @ assigns \result \from crc, bytes[0 .. count - 1], count;
  @*/
uint32_t edgel3_crc32(uint32_t crc, const uint8_t *bytes, size_t count);

/** Return the bytes from a channel's row to the next channel's row: the columns and one byte of
 * padding.
 *
 * The padding is both the right edge of the one row and the left edge of the next.
 *
 * @param[in] conv  a convolution of a checked model
 */
static inline uint32_t edgel3_row_stride(const edgel3_conv *conv) { return conv->columns + 1u; }

/** Return the size in bytes of one slot of a ring: one row of every input channel, with padding.
 *
 * @param[in] conv  a convolution of a checked model
 */
static inline uint32_t edgel3_slot_bytes(const edgel3_conv *conv) {
  return conv->input_channels * edgel3_row_stride(conv) + 1u;
}

/** Return the number of taps of an output channel, including zeros.
 *
 * @param[in] conv  a convolution of a checked model
 */
static inline uint32_t edgel3_taps_per_channel(const edgel3_conv *conv) {
  return 9u * conv->input_channels;
}

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_PACKED_H_ */
