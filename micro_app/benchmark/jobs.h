/* The benchmark's jobs: what the host asks the emulated board to do.
 *
 * emulator.py writes an image, and QEMU's loader puts it at JOBS_ADDRESS. The firmware (main.c)
 * prints lines of JSON for each job. The image, little-endian:
 *
 *   uint32 JOBS_MAGIC, uint32 count, job [count], then the data that the jobs' addresses point to
 */
#ifndef JOBS_H_
#define JOBS_H_

#include <stdint.h>

/** Address of the image. */
#define JOBS_ADDRESS 0x60000000u
/** First word of the image. */
#define JOBS_MAGIC 0x4a334c45u /* "EL3J" */

/** Kind of a job: run a packed model with the engine. */
#define JOB_ENGINE 1u
/** Kind of a job: run a dense network with CMSIS-NN. */
#define JOB_DENSE 2u
/** Kind of a job: overflow the stack. The board must report a fault. */
#define JOB_OVERFLOW 3u

/** Added to a job's kernels: the engine gets the arena of the portable kernels. */
#define JOB_LEAST_ARENA 0x100u

/** A job. */
typedef struct job {
  uint32_t kind;  /**< JOB_ENGINE, JOB_DENSE or JOB_OVERFLOW */
  uint32_t model; /**< address of a packed model, aligned to 4, or of dense_layer [model_size] */
  uint32_t model_size;   /**< bytes of the packed model, or number of layers (1 to 8) */
  uint32_t windows;      /**< address of int8 [window_count][window_bytes] */
  uint32_t window_count; /**< number of windows; 0 or more */
  uint32_t window_bytes; /**< bytes of a window */
  uint32_t output_bytes; /**< bytes of an embedding; 1 to 4096 */
  uint32_t kernels;      /**< JOB_ENGINE: an edgel3_kernel_choice, and JOB_LEAST_ARENA */
  int32_t damage; /**< JOB_ENGINE: after the run, change the byte at this distance from the end
                              of the arena, which a check must find; INT32_MIN: change none */
} job;

/** A 3x3 convolution with padding 'same', and its pooling; maps are [rows][columns][channels]. */
typedef struct dense_layer {
  uint32_t rows;            /**< rows of input and output; 1 or more */
  uint32_t columns;         /**< columns of input and output; 1 or more */
  uint32_t input_channels;  /**< 1 or more */
  uint32_t output_channels; /**< 1 or more */
  int32_t input_offset;     /**< minus the zero point of the input; -127 to 128 */
  int32_t output_offset;    /**< zero point of the output; -128 to 127 */
  int32_t lower_clamp;      /**< smallest output; -128 to 127 */
  int32_t upper_clamp;      /**< largest output; -128 to 127 */
  uint32_t pool;            /**< an edgel3_pool */
  uint32_t weights;         /**< address of int8 [output_channels][3][3][input_channels] */
  uint32_t bias;            /**< address of int32 [output_channels] */
  uint32_t multiplier;      /**< address of int32 [output_channels], Q31 */
  uint32_t shift;           /**< address of int32 [output_channels], a right shift if negative */
  uint32_t input;           /**< address of the input map */
  uint32_t output;          /**< address of the output map before pooling */
  uint32_t pooled;          /**< address of the map after pooling; `output` without pooling */
  uint32_t scratch;         /**< address of CMSIS-NN's buffer, aligned to 16 */
  uint32_t scratch_bytes;   /**< bytes of that buffer */
} dense_layer;

/** Run a dense network with CMSIS-NN.
 *
 * @param[in]  layers  dense_layer [count]
 * @param[in]  count   number of layers; 1 to 8
 * @param[out] ticks   uint32 [2 * count]; for layer i, the time of its convolution at 2 * i and of
 *                     its pooling at 2 * i + 1
 * @return 0, or the number of the layer that CMSIS-NN refused; 1 is the first
 */
uint32_t dense_run(const dense_layer *layers, uint32_t count, uint32_t *ticks);

#endif /* JOBS_H_ */
