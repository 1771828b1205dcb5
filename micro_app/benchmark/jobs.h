/* What the host asks the emulated board to do: an image that QEMU's loader puts at JOBS_ADDRESS.
 *
 *   uint32 magic, uint32 count, then `count` jobs; whatever their addresses name lies behind.
 *
 * emulator.py writes it. The board answers every job in lines of JSON.
 */
#ifndef JOBS_H_
#define JOBS_H_

#include <stdint.h>

#define JOBS_ADDRESS 0x60000000u
#define JOBS_MAGIC 0x4a334c45u /* "EL3J" */

#define JOB_ENGINE 1u
#define JOB_DENSE 2u
#define JOB_OVERFLOW 3u /* use up the stack, to see what that looks like */

typedef struct job {
  uint32_t kind;
  uint32_t model;      /* address of a packed model, or of the layers of a dense one */
  uint32_t model_size; /* its bytes, or how many layers */
  uint32_t windows;    /* address of int8 inputs, one after the other */
  uint32_t window_count;
  uint32_t window_bytes;
  uint32_t output_bytes;
  uint32_t kernels; /* JOB_ENGINE: an edgel3_kernel_choice */
  int32_t damage;   /* JOB_ENGINE: after the run spoil the byte this far from the arena's end,
                           which a check must notice; INT32_MIN: spoil none */
} job;

/* A 3x3 'same' convolution and its pooling; addresses are of int8 maps (rows, columns, channels). */
typedef struct dense_layer {
  uint32_t rows;
  uint32_t columns;
  uint32_t input_channels;
  uint32_t output_channels;
  int32_t input_offset;
  int32_t output_offset;
  int32_t lower_clamp;
  int32_t upper_clamp;
  uint32_t pool; /* an edgel3_pool */
  uint32_t weights;
  uint32_t bias;
  uint32_t multiplier;
  uint32_t shift;
  uint32_t input;
  uint32_t output;
  uint32_t pooled;
  uint32_t scratch;
  uint32_t scratch_bytes;
} dense_layer;

/* Run dense layers; ticks[2 * i] is what the convolution of layer i took, ticks[2 * i + 1] its pool.
 * Answers 0, or the number of the layer that CMSIS-NN refused, from 1. */
uint32_t dense_run(const dense_layer *layers, uint32_t count, uint32_t *ticks);

#endif /* JOBS_H_ */
