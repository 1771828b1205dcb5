/* The engines of a node that run the network in TFLM's interpreter. */
#include "edgel3_tflm.h"

#ifdef EDGEL3_HAS_TFLM

#include <string.h>

#include "edgel3_node_tflm.h"
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

/* Set up an interpreter in the arena. Then describe the network if `info` is given, else run it. */
template <typename Resolver>
edgel3_status Interpret(const edgel3_node_model *model, edgel3_info *info, const int8_t *values,
                        int8_t *embedding) {
  const Model *flatbuffer = GetModel(model->network);
  if (flatbuffer->version() != TFLITE_SCHEMA_VERSION) return EDGEL3_ERROR_VERSION;
  Resolver resolver;
  if (!AddOperators(&resolver)) return EDGEL3_ERROR_STATE;
  MicroInterpreter interpreter(flatbuffer, resolver, static_cast<uint8_t *>(model->arena),
                               model->arena_bytes);
  if (interpreter.AllocateTensors() != kTfLiteOk) return EDGEL3_ERROR_INCONSISTENT;
  if (info != nullptr) return DescribeTensors(&interpreter, info);
  /* Sizes match: the node checked them when it was opened. */
  TfLiteTensor *window = interpreter.input(0);
  memcpy(window->data.int8, values, window->bytes);
  if (interpreter.Invoke() != kTfLiteOk) return EDGEL3_ERROR_STATE;
  const TfLiteTensor *found = interpreter.output(0);
  memcpy(embedding, found->data.int8, found->bytes);
  return EDGEL3_OK;
}

template <typename Resolver>
edgel3_status Describe(const edgel3_node_model *model, edgel3_info *info) {
  if (model->source_sha256 != nullptr) {
    memcpy(info->source_sha256, model->source_sha256, sizeof info->source_sha256);
  }
  return Interpret<Resolver>(model, info, nullptr, nullptr);
}

template <typename Resolver>
edgel3_status Run(const edgel3_node_model *model, const int8_t *window, int8_t *embedding,
                  edgel3_between_rows between_rows, void *context) {
  TflmSetBetweenRows(between_rows, context); /* TFLM's own kernels do not call it */
  return Interpret<Resolver>(model, nullptr, window, embedding);
}

}  // namespace
}  // namespace edgel3

const edgel3_node_engine edgel3_node_tflm_packed = {edgel3::Describe<edgel3::PackedResolver>,
                                                    edgel3::Run<edgel3::PackedResolver>};
const edgel3_node_engine edgel3_node_tflm_builtin = {edgel3::Describe<edgel3::BuiltinResolver>,
                                                     edgel3::Run<edgel3::BuiltinResolver>};

#endif  // EDGEL3_HAS_TFLM
