/* The dense network on CMSIS-NN, as TFLite Micro would run it. */
#include "arm_nnfunctions.h"
#include "board.h"
#include "edgel3_packed.h"
#include "jobs.h"

static arm_cmsis_nn_status convolve(const dense_layer *layer) {
  const cmsis_nn_dims input = {1, (int32_t)layer->rows, (int32_t)layer->columns,
                               (int32_t)layer->input_channels};
  const cmsis_nn_dims output = {1, (int32_t)layer->rows, (int32_t)layer->columns,
                                (int32_t)layer->output_channels};
  const cmsis_nn_dims filter = {(int32_t)layer->output_channels, 3, 3,
                                (int32_t)layer->input_channels};
  const cmsis_nn_dims bias = {1, 1, 1, (int32_t)layer->output_channels};
  const cmsis_nn_conv_params parameters = {layer->input_offset,
                                           layer->output_offset,
                                           {1, 1},
                                           {1, 1},
                                           {1, 1},
                                           {layer->lower_clamp, layer->upper_clamp}};
  const cmsis_nn_per_channel_quant_params quantization = {(int32_t *)layer->multiplier,
                                                          (int32_t *)layer->shift};
  const cmsis_nn_context context = {(void *)layer->scratch, (int32_t)layer->scratch_bytes};
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
  const cmsis_nn_dims input = {1, (int32_t)layer->rows, (int32_t)layer->columns,
                               (int32_t)layer->output_channels};
  const cmsis_nn_dims filter = {1, height, width, 1};
  const cmsis_nn_dims output = {1, (int32_t)layer->rows / height, (int32_t)layer->columns / width,
                                (int32_t)layer->output_channels};
  const cmsis_nn_pool_params parameters = {{width, height}, {0, 0}, {-128, 127}};
  const cmsis_nn_context context = {0, 0};
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
