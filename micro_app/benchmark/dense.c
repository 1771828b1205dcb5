/* Runs the dense network with CMSIS-NN, by the same calls as TensorFlow Lite Micro, for comparison.
 *
 * Part of the benchmark's firmware: emulator.py builds it, main.c calls dense_run.
 */
#include "arm_nnfunctions.h"
#include "board.h"
#include "edgel3_packed.h"
#include "jobs.h"

static arm_cmsis_nn_status convolve(const dense_layer *layer) {
  const int32_t rows = (int32_t)layer->rows, columns = (int32_t)layer->columns;
  const int32_t input_channels = (int32_t)layer->input_channels;
  const int32_t output_channels = (int32_t)layer->output_channels;
  const cmsis_nn_dims input = {.n = 1, .h = rows, .w = columns, .c = input_channels};
  const cmsis_nn_dims output = {.n = 1, .h = rows, .w = columns, .c = output_channels};
  const cmsis_nn_dims filter = {.n = output_channels, .h = 3, .w = 3, .c = input_channels};
  const cmsis_nn_dims bias = {.n = 1, .h = 1, .w = 1, .c = output_channels};
  const cmsis_nn_conv_params parameters = {
      .input_offset = layer->input_offset,
      .output_offset = layer->output_offset,
      .stride = {.w = 1, .h = 1},
      .padding = {.w = 1, .h = 1},
      .dilation = {.w = 1, .h = 1},
      .activation = {.min = layer->lower_clamp, .max = layer->upper_clamp},
  };
  const cmsis_nn_per_channel_quant_params quantization = {
      .multiplier = (int32_t *)layer->multiplier,
      .shift = (int32_t *)layer->shift,
  };
  const cmsis_nn_context context = {
      .buf = (void *)layer->scratch,
      .size = (int32_t)layer->scratch_bytes,
  };
  if (arm_convolve_wrapper_s8_get_buffer_size(&parameters, &input, &filter, &output) >
      context.size) {
    return ARM_CMSIS_NN_ARG_ERROR;
  }
  return arm_convolve_wrapper_s8(&context, &parameters, &quantization, &input,
                                 (const int8_t *)layer->input, &filter,
                                 (const int8_t *)layer->weights, &bias,
                                 (const int32_t *)layer->bias, &output, (int8_t *)layer->output);
}

static arm_cmsis_nn_status pool(const dense_layer *layer) {
  const int is_global = layer->pool == EDGEL3_POOL_GLOBAL;
  const int32_t height = is_global ? (int32_t)layer->rows : 2;
  const int32_t width = is_global ? (int32_t)layer->columns : 2;
  const int32_t rows = (int32_t)layer->rows, columns = (int32_t)layer->columns;
  const int32_t channels = (int32_t)layer->output_channels;
  const cmsis_nn_dims input = {.n = 1, .h = rows, .w = columns, .c = channels};
  const cmsis_nn_dims filter = {.n = 1, .h = height, .w = width, .c = 1};
  const cmsis_nn_dims output = {.n = 1, .h = rows / height, .w = columns / width, .c = channels};
  const cmsis_nn_pool_params parameters = {
      .stride = {.w = width, .h = height},
      .padding = {.w = 0, .h = 0},
      .activation = {.min = -128, .max = 127},
  };
  const cmsis_nn_context context = {.buf = NULL, .size = 0};
  return arm_max_pool_s8(&context, &parameters, &input, (const int8_t *)layer->output, &filter,
                         &output, (int8_t *)layer->pooled);
}

uint32_t dense_run(const dense_layer *layers, uint32_t count, uint32_t *ticks) {
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t start = board_ticks();
    if (convolve(&layers[i]) != ARM_CMSIS_NN_SUCCESS) return i + 1u;
    ticks[2u * i] = board_ticks() - start;
    start = board_ticks();
    if (layers[i].pool != EDGEL3_POOL_NONE && pool(&layers[i]) != ARM_CMSIS_NN_SUCCESS)
      return i + 1u;
    ticks[2u * i + 1u] = board_ticks() - start;
  }
  return 0;
}
