/* The engines of a node that run the network in TFLM's interpreter. */
#include "edgel3_tflm.h"

#ifdef EDGEL3_HAS_TFLM

#include <string.h>

#include <new>

#include "edgel3_node_tflm.h"
#include "tensorflow/lite/micro/micro_allocator.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace edgel3 {
namespace {

using namespace tflite;

using PackedResolver = MicroMutableOpResolver<1>;
using BuiltinResolver = MicroMutableOpResolver<3>;

bool AddOperators(PackedResolver *resolver) {
  return resolver->AddCustom(EDGEL3_TFLM_OPERATOR, TflmRegistration()) == kTfLiteOk;
}

/* The operators that the converter writes: convolution with activation, pooling, flattening. */
bool AddOperators(BuiltinResolver *resolver) {
  return resolver->AddConv2D() == kTfLiteOk && resolver->AddMaxPool2D() == kTfLiteOk &&
         resolver->AddReshape() == kTfLiteOk;
}

edgel3_status DescribeTensors(MicroInterpreter *interpreter, edgel3_info *info) {
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
  network->application.memory_bytes = edgel3_frontend_log_mel_bytes(model->frontend);
  if (arena_bytes > EDGEL3_NODE_TFLM_BYTES) {
    network->application.arena_limit_bytes = arena_bytes - EDGEL3_NODE_TFLM_BYTES;
  }
  if (!AddOperators(&network->resolver) ||
      network->interpreter.SetMicroExternalContext(&network->application) != kTfLiteOk) {
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

/* The window is the interpreter's input, and the log-mel values are in the engine's arena. */
edgel3_status OpenPacked(const edgel3_node_model *model, edgel3_info *info,
                         edgel3_node_memory *memory) {
  const edgel3_status status =
      Open<PackedResolver>(model, model->arena_bytes, model->window, model->window_bytes, info);
  if (status != EDGEL3_OK) return status;
  Network<PackedResolver> *network = Opened<PackedResolver>(model);
  uint8_t *input = network->interpreter.input(0)->data.uint8;
  const uint8_t *end = static_cast<uint8_t *>(model->window) + model->window_bytes;
  *memory = {network->application.memory, network->application.memory_bytes, input,
             static_cast<size_t>(end - input)};
  return EDGEL3_OK;
}

edgel3_status RunPacked(const edgel3_node_model *model, int8_t *embedding,
                        edgel3_between_rows between_rows, void *context) {
  Network<PackedResolver> *network = Opened<PackedResolver>(model);
  network->application.between_rows = between_rows;
  network->application.between_rows_context = context;
  return Invoke(network, embedding);
}

/* TFLM's kernels overwrite their input, which LOG_MEL returns later: the window is a copy. The log-mel
 * values are at the end of the arena. */
edgel3_status OpenBuiltin(const edgel3_node_model *model, edgel3_info *info,
                          edgel3_node_memory *memory) {
  const size_t log_mel_bytes = edgel3_frontend_log_mel_bytes(model->frontend);
  if (model->arena_bytes < log_mel_bytes) return EDGEL3_ERROR_ARENA;
  const size_t arena_bytes = model->arena_bytes - log_mel_bytes;
  *memory = {static_cast<uint8_t *>(model->arena) + arena_bytes, log_mel_bytes, model->window,
             model->window_bytes};
  return Open<BuiltinResolver>(model, arena_bytes, nullptr, 0, info);
}

edgel3_status RunBuiltin(const edgel3_node_model *model, int8_t *embedding, edgel3_between_rows,
                         void *) {
  Network<BuiltinResolver> *network = Opened<BuiltinResolver>(model);
  TfLiteTensor *input = network->interpreter.input(0);
  memcpy(input->data.int8, model->window, input->bytes);
  return Invoke(network, embedding);
}

}  // namespace
}  // namespace edgel3

const edgel3_node_engine edgel3_node_tflm_packed = {edgel3::OpenPacked, edgel3::RunPacked};
const edgel3_node_engine edgel3_node_tflm_builtin = {edgel3::OpenBuiltin, edgel3::RunBuiltin};

#endif  // EDGEL3_HAS_TFLM
