/* A network in TFLM's interpreter, in a node's arena. Internal to the engines of
 * edgel3_node_tflm.h, which differ in the resolver that finds the network's operators.
 */
#ifndef EDGEL3_NODE_TFLM_NETWORK_H_
#define EDGEL3_NODE_TFLM_NETWORK_H_

#include "edgel3_tflm.h"

#ifdef EDGEL3_HAS_TFLM

#include <string.h>

#include <new>

#include "edgel3_node_tflm.h"
#include "tensorflow/lite/micro/compatibility.h"
#include "tensorflow/lite/micro/micro_allocator.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace edgel3 {

using namespace tflite;

inline edgel3_status DescribeTensors(MicroInterpreter *interpreter, edgel3_info *info) {
  const TfLiteTensor *window = interpreter->input(0);
  const TfLiteTensor *embedding = interpreter->output(0);
  if (window == nullptr || embedding == nullptr || window->type != kTfLiteInt8 ||
      embedding->type != kTfLiteInt8 || window->dims->size != 4 || embedding->dims->size != 2) {
    return EDGEL3_ERROR_INCONSISTENT;
  }
  info->rows = static_cast<uint32_t>(window->dims->data[1]);
  info->columns = static_cast<uint32_t>(window->dims->data[2]);
  info->embedding = static_cast<uint32_t>(embedding->dims->data[1]);
  info->input_scale = window->params.scale;
  info->input_zero_point = window->params.zero_point;
  info->output_scale = embedding->params.scale;
  info->output_zero_point = embedding->params.zero_point;
  return window->bytes == info->rows * info->columns && embedding->bytes == info->embedding
             ? EDGEL3_OK
             : EDGEL3_ERROR_INCONSISTENT;
}

/* An interpreter and what it uses: the first part of a node's arena, where it stays. */
template <typename Resolver>
struct Network {
  Network(const Model *flatbuffer, MicroAllocator *allocator)
      : interpreter(flatbuffer, resolver, allocator) {}

  Resolver resolver;
  TflmContext application;
  MicroInterpreter interpreter;
};

constexpr size_t kAlignment = EDGEL3_ARENA_ALIGNMENT;

template <typename Resolver>
constexpr size_t kNetworkBytes =
    (sizeof(Network<Resolver>) + kAlignment - 1) / kAlignment * kAlignment;

/* Set up an interpreter in the arena. With `tensors`, its input and output are there instead. */
template <typename Resolver>
edgel3_status Open(const edgel3_node_model *model, size_t arena_bytes, void *tensors,
                   size_t tensors_bytes, edgel3_info *info) {
  if (model->source_sha256 != nullptr) {
    memcpy(info->source_sha256, model->source_sha256, sizeof info->source_sha256);
  }
  const Model *flatbuffer = GetModel(model->network);
  if (flatbuffer->version() != TFLITE_SCHEMA_VERSION) return EDGEL3_ERROR_VERSION;
  if (arena_bytes < kNetworkBytes<Resolver>) return EDGEL3_ERROR_ARENA;
  uint8_t *rest = static_cast<uint8_t *>(model->arena) + kNetworkBytes<Resolver>;
  const size_t rest_bytes = arena_bytes - kNetworkBytes<Resolver>;
  MicroAllocator *allocator =
      tensors == nullptr ? MicroAllocator::Create(rest, rest_bytes)
                         : MicroAllocator::Create(rest, rest_bytes, static_cast<uint8_t *>(tensors),
                                                  tensors_bytes);
  if (allocator == nullptr) return EDGEL3_ERROR_ARENA;
  /* It is never destroyed: it has nothing outside of the arena. */
  Network<Resolver> *network = new (model->arena) Network<Resolver>(flatbuffer, allocator);
  network->application.memory_bytes = edgel3_frontend_levels_bytes(model->frontend);
  if (arena_bytes > EDGEL3_NODE_TFLM_BYTES) {
    network->application.arena_limit_bytes = arena_bytes - EDGEL3_NODE_TFLM_BYTES;
  }
  if (network->interpreter.SetMicroExternalContext(&network->application) != kTfLiteOk) {
    return EDGEL3_ERROR_STATE;
  }
  if (network->interpreter.AllocateTensors() != kTfLiteOk) return EDGEL3_ERROR_INCONSISTENT;
  return DescribeTensors(&network->interpreter, info);
}

template <typename Resolver>
Network<Resolver> *Opened(const edgel3_node_model *model) {
  return static_cast<Network<Resolver> *>(model->arena);
}

template <typename Resolver>
edgel3_status Invoke(Network<Resolver> *network, int8_t *embedding) {
  if (network->interpreter.Invoke() != kTfLiteOk) return EDGEL3_ERROR_STATE;
  const TfLiteTensor *found = network->interpreter.output(0);
  memcpy(embedding, found->data.int8, found->bytes);
  return EDGEL3_OK;
}

}  // namespace edgel3

#endif /* EDGEL3_HAS_TFLM */

#endif /* EDGEL3_NODE_TFLM_NETWORK_H_ */
