/* The packed model: its bytes, and the checked view of them. Internal to the library.
 *
 * Everything is little-endian; offsets count from the first byte of the model.
 *
 *   header, 64 bytes
 *     0  4  magic "EL3P"
 *     4  2  version, 1
 *     6  2  number of convolutions, 1 to EDGEL3_MAX_CONVOLUTIONS
 *     8  4  size of the packed model in bytes
 *    12  4  CRC-32 (that of zlib) of the bytes from 16 to the end
 *    16  2  input rows            18  2  input columns
 *    20  2  embedding size        22  2  zero
 *    24  4  input scale, float32  28  1  input zero point, int8   29  3  zero
 *    32  4  output scale          36  1  output zero point        37  3  zero
 *    40 16  first half of the SHA-256 of the dense flatbuffer
 *    56  8  zero
 *
 *   one record of 32 bytes for every convolution (3x3, stride 1, 'same'), from 64 on
 *     0  2  input channels        2  2  output channels
 *     4  1  input zero point      5  1  output zero point (int8, as the next two)
 *     6  1  lower clamp           7  1  upper clamp
 *     8  1  pooling behind it: 0 none, 1 maximum of 2x2 with stride 2, 2 global maximum (the last's)
 *     9  1  encoding of the weights: 0 dense, 1 gap12, 2 gap16
 *    10  2  zero
 *    12  4  offset of the channel table, a multiple of 4
 *    16  4  offset of the weights, a multiple of 4
 *    20  4  bytes of weights, EDGEL3_WEIGHT_SLACK at their end (zeros) included
 *    24  8  zero
 *
 *   channel table of a convolution with n output channels
 *     int32 bias[n]         less the sum of weight * (input zero point + 128): inputs count from -128
 *     int32 multiplier[n]   Q31, 2^30 or more (0 only for a channel without weights and bias)
 *     uint16 negatives[n]   taps with a negative weight; with dense encoding, how many there are
 *     uint16 positives[n]   the others of the list
 *     int8 shift[n]         TFLite's: right if negative
 *     zeros up to a multiple of 4
 *
 *   weights, channel after channel. Tap (ky, kx, c) has the number (ky * 3 + kx) * channels + c.
 *     dense   int8 for every tap, zeros included, in the order of their numbers
 *     gap16   a list of uint16: `negatives` taps, then `positives` taps, each part ascending.
 *             Bits 0..6: magnitude of the weight. Bits 7..15: how far the tap's number is from the
 *             one before (from 0, for the first of a part).
 *     gap12   the same with 5 bits for the distance: bits 0..6 and 7..11. Two of them in three bytes,
 *             the first in the lower bits; both parts have an even number of taps.
 *   A distance too great for its field is covered by taps of magnitude 0 on the way, and a part is
 *   made even by one more of them. A weight of -128 is two taps of magnitude 64 with distance 0.
 */
#ifndef EDGEL3_PACKED_H_
#define EDGEL3_PACKED_H_

#include "edgel3.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EDGEL3_MAX_CONVOLUTIONS 8u
#define EDGEL3_HEADER_BYTES 64u
#define EDGEL3_RECORD_BYTES 32u
/* Decoders read whole words: up to three bytes past a list. */
#define EDGEL3_WEIGHT_SLACK 4u
/* Offsets into a ring are 16 bits wide, and this one marks a row of zeros. */
#define EDGEL3_RING_MAX_BYTES 65535u
/* Kernels read on past a row by less than this many bytes, and throw away what comes of it. */
#define EDGEL3_OVERREAD_BYTES 64u

typedef enum edgel3_pool {
  EDGEL3_POOL_NONE = 0,
  EDGEL3_POOL_2X2 = 1,
  EDGEL3_POOL_GLOBAL = 2
} edgel3_pool;

typedef enum edgel3_encoding {
  EDGEL3_ENCODING_DENSE = 0,
  EDGEL3_ENCODING_GAP12 = 1,
  EDGEL3_ENCODING_GAP16 = 2
} edgel3_encoding;

/* A convolution of a checked model. Pointers lead into the model. */
typedef struct edgel3_conv {
  const int32_t *bias;
  const int32_t *multiplier;
  const uint16_t *negatives;
  const uint16_t *positives;
  const int8_t *shift;
  const uint8_t *weights;
  uint32_t input_channels;
  uint32_t output_channels;
  uint32_t rows;     /* of the input, and of the output before pooling */
  uint32_t columns;  /* likewise */
  uint32_t max_taps; /* of a channel's list, both parts */
  edgel3_pool pool;
  edgel3_encoding encoding;
  /* Activations are held as int8 value + 128: what a zero of the input and the clamps are then. */
  uint8_t input_zero;
  uint8_t output_zero;
  uint8_t output_min;
  uint8_t output_max;
  /* Largest magnitude an accumulator of any channel can reach, bias included, whatever the input. */
  int64_t accumulator_bound;
} edgel3_conv;

typedef struct edgel3_model {
  edgel3_info info;
  edgel3_conv convolutions[EDGEL3_MAX_CONVOLUTIONS];
} edgel3_model;

/* Check every byte's meaning and fill the view. Nothing of it is valid unless it answers EDGEL3_OK. */
edgel3_status edgel3_read_model(edgel3_model *model, const void *bytes, size_t size);

/* CRC-32, that of zlib, of `crc`'s bytes with these behind them; 0 for none. */
uint32_t edgel3_crc32(uint32_t crc, const uint8_t *bytes, size_t count);

/* Bytes from a row of one channel to that of the next: one column of padding between them serves both
 * as the right edge of the one and the left edge of the other. */
static inline uint32_t edgel3_row_stride(const edgel3_conv *conv) { return conv->columns + 1u; }

/* Bytes of one slot of a convolution's ring: a row of every input channel. */
static inline uint32_t edgel3_slot_bytes(const edgel3_conv *conv) {
  return conv->input_channels * edgel3_row_stride(conv) + 1u;
}

static inline uint32_t edgel3_taps_per_channel(const edgel3_conv *conv) {
  return 9u * conv->input_channels;
}

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_PACKED_H_ */
