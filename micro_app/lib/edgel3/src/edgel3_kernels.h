/* The interface between the engine and its kernels. Internal to the library.
 *
 * A kernel computes one channel of one output row of a convolution. Inside the engine, an
 * activation is a uint8: the int8 quantized value plus 128.
 *
 * A tap is one weight of a kernel together with the input row that it multiplies. A ring holds the
 * three input rows that an output row needs: three slots, each with a row of every input channel.
 */
#ifndef EDGEL3_KERNELS_H_
#define EDGEL3_KERNELS_H_

#include "edgel3_packed.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Takes the place of a tap's offset if all values of its input row are zero. */
#define EDGEL3_ROW_IS_ZERO 65535u

/** A tap of an expanded list. */
typedef struct edgel3_tap {
  uint32_t weight; /**< magnitude of the weight; 0 to 128 */
  uint32_t offset; /**< its input for output column 0, in bytes from the start of the ring */
} edgel3_tap;

/** Return the size in bytes of the memory for an expanded list of one channel.
 *
 * It has room for three taps more than the longest list: a tap is written before it is known whether
 * its input row is zero, and the kernels for ARMv7E-M fill a list up and mark its end.
 *
 * @param[in] conv  a convolution of a checked model
 */
static inline size_t edgel3_list_bytes(const edgel3_conv *conv) {
  return (conv->max_taps + 3u) * sizeof(edgel3_tap);
}

/** Return the columns of a row, rounded up to a multiple of 64.
 *
 * A kernel may write as many columns. The value is the same on every processor, and with it the
 * plan of the arena.
 *
 * @param[in] conv  a convolution of a checked model
 */
static inline uint32_t edgel3_padded_columns(const edgel3_conv *conv) {
  return (conv->columns + 63u) & ~63u;
}

/** Everything that a kernel needs to compute one output row. */
typedef struct edgel3_row {
  const edgel3_conv *conv;
  uint8_t
      *ring; /**< uint8 [3 * edgel3_slot_bytes + EDGEL3_OVERREAD_BYTES]. Kernels may overwrite the
                      topmost row, but must restore its padding after the last channel. */
  uint16_t *offsets;     /**< [edgel3_taps_per_channel], by tap number; edgel3_begin_row fills it */
  uint32_t rotation;     /**< slot of the ring, 0 to 2, that holds the topmost of the three rows */
  edgel3_tap *list;      /**< scratch, edgel3_list_bytes bytes, then widened_bytes */
  int32_t *accumulators; /**< scratch, int32 [edgel3_padded_columns] */
  void *prepared; /**< what `prepare` wrote, scratch included; null if there is no `prepare` */
} edgel3_row;

/** A set of kernels. */
typedef struct edgel3_kernels {
  const char *name; /**< for debugging */

  /** Return whether these kernels compute the convolution exactly: 1 or 0.
   *
   * @param[in] conv  a convolution of a checked model
   */
  int (*accepts)(const edgel3_conv *conv);

  /** Return the size in bytes of the memory for `prepare`. Null if `prepare` is null.
   *
   * @param[in] conv  a convolution of a checked model
   */
  size_t (*prepared_bytes)(const edgel3_conv *conv);

  /** Expand the weights of a convolution once, at set-up. Null if every row expands them.
   *
   * @param[in]  conv      a convolution of a checked model
   * @param[out] offsets   scratch, uint16 [edgel3_taps_per_channel]
   * @param[out] list      scratch, edgel3_list_bytes bytes
   * @param[out] prepared  prepared_bytes bytes, aligned to EDGEL3_ARENA_ALIGNMENT
   */
  void (*prepare)(const edgel3_conv *conv, uint16_t *offsets, edgel3_tap *list, void *prepared);

  /** Return the size in bytes of the memory for widened input rows, which follows that of the list.
   * The offsets of the taps are then words, too. Null if the kernels widen no rows.
   *
   * @param[in] conv  a convolution that the kernels accept
   */
  size_t (*widened_bytes)(const edgel3_conv *conv);

  /** Prepare the scratch memory for the channels of a row. Null if edgel3_tap_offsets does.
   *
   * @param[in] row  the input rows and scratch memory
   */
  void (*begin_row)(const edgel3_row *row);

  /** Compute one channel of an output row. The engine asks for the channels of a row in ascending
   * order.
   *
   * @param[in]     row      the input rows and scratch memory
   * @param[in]     channel  output channel; 0 to output_channels - 1
   * @param[in,out] cursor   where the weights of this channel start; the kernel moves it to those
   *                         of the next channel, unless the convolution is prepared
   * @param[out]    output   uint8 [columns]
   */
  void (*convolve)(const edgel3_row *row, uint32_t channel, const uint8_t **cursor,
                   uint8_t *output);

  /** Compute the maximum of each pair of neighbouring columns.
   *
   * @param[in,out] values  uint8 [count], the maxima; with `second`, the larger of the old value
   *                        and the maximum of the pair
   * @param[in]     row     uint8 [2 * count]; up to a multiple of 64, more bytes may be read
   * @param[in]     count   pairs; 0 or more
   * @param[in]     second  whether `row` is the second of the two rows that are pooled: 1 or 0
   */
  void (*pool)(uint8_t *values, const uint8_t *row, uint32_t count, int second);
} edgel3_kernels;

/** The kernels in C99. They accept every convolution and define the result. */
extern const edgel3_kernels edgel3_kernels_portable;
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
/** Defined if this build has kernels for ARMv7E-M. */
#define EDGEL3_HAS_KERNELS_M7 1
/** The kernels for ARMv7E-M, such as the Cortex-M7. */
extern const edgel3_kernels edgel3_kernels_m7;
/** The kernels for ARMv7E-M and dense weights. They are faster, and accept fewer convolutions. */
extern const edgel3_kernels edgel3_kernels_pairs_m7;
/** The kernels for ARMv7E-M and lists of taps, which need widened input rows. Likewise. */
extern const edgel3_kernels edgel3_kernels_words_m7;
/** Return whether the kernels for ARMv7E-M can requantize the output of a convolution: 1 or 0.
 *
 * @param[in] conv  a convolution of a checked model
 */
int edgel3_requantizes_m7(const edgel3_conv *conv);
/** The `pool` of these kernels; see there. */
void edgel3_pool_m7(uint8_t *values, const uint8_t *row, uint32_t count, int second);
#endif

/** A set of kernels that a build adds. */
typedef struct edgel3_extra_kernels {
  const edgel3_kernels *kernels; /**< null after the last set */
  const char *name;              /**< of the choice; see edgel3_find_kernels */
  uint32_t choice;               /**< the choice that uses them; EDGEL3_KERNELS_EXTRA or more */
  int (*is_supported)(void);     /**< whether this processor has their instructions: 1 or 0 */
} edgel3_extra_kernels;

/* A build may add sets of kernels: it defines EDGEL3_EXTRA_KERNELS as the name of a table, in a file
 * of its own. The fastest set comes first. Several sets may belong to one choice. A convolution is
 * computed by the first set of the choice that this processor supports and that accepts it. If
 * there is none, the portable kernels compute it.
 */
#ifdef EDGEL3_EXTRA_KERNELS
extern const edgel3_extra_kernels EDGEL3_EXTRA_KERNELS[];
#endif

/** Compute the offsets of all taps: where each tap's input for output column 0 is in the ring.
 *
 * If `ring` is not null and an input of zero is stored as 0, EDGEL3_ROW_IS_ZERO takes the place of
 * the offset for every input row of zeros.
 *
 * @param[in]  conv      a convolution of a checked model
 * @param[in]  ring      uint8 [3 * edgel3_slot_bytes], the input rows; null to mark no row
 * @param[in]  rotation  slot of the ring, 0 to 2, that holds the topmost of the three rows
 * @param[out] offsets   uint16 [edgel3_taps_per_channel], by tap number
 */
void edgel3_tap_offsets(const edgel3_conv *conv, const uint8_t *ring, uint32_t rotation,
                        uint16_t *offsets);

/** Return whether all bytes are 0: 1 or 0.
 *
 * @param[in] bytes  uint8 [count]
 * @param[in] count  number of bytes; 0 or more
 */
int edgel3_is_zero(const uint8_t *bytes, uint32_t count);

/** Prepare the scratch memory for the channels of a row.
 *
 * @param[in] kernels  the kernels that will compute the row
 * @param[in] row      the input rows and scratch memory
 */
void edgel3_begin_row(const edgel3_kernels *kernels, const edgel3_row *row);

/** The expanded list of a channel: taps of negative weight, then taps of positive weight. */
typedef struct edgel3_list {
  const edgel3_tap *begin;     /**< the first tap of negative weight */
  const edgel3_tap *positives; /**< the first tap of positive weight */
  const edgel3_tap *end;       /**< the address after the last tap */
} edgel3_list;

/** Expand the weights of a channel into a list of those taps whose input row is not zero.
 *
 * @param[in]     conv     a convolution of a checked model
 * @param[in]     channel  output channel; 0 to output_channels - 1
 * @param[in,out] cursor   where the weights of this channel start; moved to those of the next
 *                         channel
 * @param[in]     offsets  uint16 [edgel3_taps_per_channel], from edgel3_tap_offsets
 * @param[out]    scratch  edgel3_list_bytes bytes, which the list points into
 * @return the list
 */
edgel3_list edgel3_expand(const edgel3_conv *conv, uint32_t channel, const uint8_t **cursor,
                          const uint16_t *offsets, edgel3_tap *scratch);

/** The portable `pool` of edgel3_kernels; see there.
 *
 * @param[in,out] values  uint8 [count]
 * @param[in]     row     uint8 [2 * count]
 * @param[in]     count   pairs; 0 or more
 * @param[in]     second  whether `row` is the second of two rows: 1 or 0
 */
void edgel3_pool_row(uint8_t *values, const uint8_t *row, uint32_t count, int second);

/** Convert an accumulator to an output value, as TensorFlow Lite's reference kernels do.
 *
 * The steps are gemmlowp's: a doubling high multiplication and a division by a power of two, which
 * both round, then the output zero point and the clamp.
 *
 * @param[in] conv         a convolution of a checked model
 * @param[in] channel      output channel; 0 to output_channels - 1
 * @param[in] accumulator  magnitude at most conv->accumulator_bound
 * @return the output value plus 128
 */
uint8_t edgel3_requantize(const edgel3_conv *conv, uint32_t channel, int32_t accumulator);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_KERNELS_H_ */
