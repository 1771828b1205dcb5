/* Runs the custom operator on the emulated board without TFLM, for test_tflm_operator.py: this file
 * defines what the operator uses of TFLM. For each of the limits in test_limits it prints the
 * largest buffer that the operator allocates, and the embedding in hexadecimal digits. */
#include "edgel3_tflm.h"
#include "tensorflow/lite/micro/micro_context.h"
#include "tensorflow/lite/micro/micro_log.h"

extern "C" {
#include "board.h"

extern const unsigned char test_model[], test_window[];
extern const uint32_t test_limits[], test_limits_end[];
extern const uint32_t test_model_bytes;
}

using namespace tflite;
using namespace tflite::micro;

namespace {

alignas(16) uint8_t arena[1024 * 1024];
size_t used, largest;
TfLiteTensor tensors[3];
TfLiteEvalTensor eval_tensors[3];

class Context : public MicroContext {
 public:
  explicit Context(edgel3::TflmContext *application) : application_(application) {}
  void *AllocatePersistentBuffer(size_t bytes) override {
    void *buffer = arena + used;
    used += (bytes + 15) / 16 * 16;
    if (bytes > largest) largest = bytes;
    return used <= sizeof arena ? buffer : nullptr;
  }
  TfLiteTensor *AllocateTempTfLiteTensor(int index) override { return &tensors[index]; }
  void DeallocateTempTfLiteTensor(TfLiteTensor *) override {}
  void *external_context() override { return application_; }
  TfLiteStatus RequestScratchBufferInArena(size_t, int *) override { return kTfLiteError; }
  void *GetScratchBuffer(int) override { return nullptr; }
  uint8_t *AllocateTempBuffer(size_t, size_t) override { return nullptr; }
  void DeallocateTempBuffer(uint8_t *) override {}
  TfLiteEvalTensor *GetEvalTensor(int index) override { return &eval_tensors[index]; }
  TfLiteStatus set_external_context(void *) override { return kTfLiteError; }
  MicroGraph &graph() override { return *static_cast<MicroGraph *>(nullptr); }

 private:
  edgel3::TflmContext *application_;
  TF_LITE_REMOVE_VIRTUAL_DELETE
};

}  // namespace

void MicroPrintf(const char *format, ...) {
  board_write(format);
  board_write("\n");
}

namespace tflite {

TfLiteTensor *MicroContext::AllocateTempInputTensor(const TfLiteNode *node, int index) {
  return AllocateTempTfLiteTensor(node->inputs->data[index]);
}

TfLiteTensor *MicroContext::AllocateTempOutputTensor(const TfLiteNode *node, int index) {
  return AllocateTempTfLiteTensor(node->outputs->data[index]);
}

namespace micro {

TFLMRegistration RegisterOp(void *(*init)(TfLiteContext *, const char *, size_t),
                            TfLiteStatus (*prepare)(TfLiteContext *, TfLiteNode *),
                            TfLiteStatus (*invoke)(TfLiteContext *, TfLiteNode *),
                            void (*)(TfLiteContext *, void *), void (*)(TfLiteContext *, void *)) {
  TFLMRegistration registration = {};
  registration.init = init;
  registration.prepare = prepare;
  registration.invoke = invoke;
  return registration;
}

const TfLiteEvalTensor *GetEvalInput(const TfLiteContext *, const TfLiteNode *node, int index) {
  return &eval_tensors[node->inputs->data[index]];
}

TfLiteEvalTensor *GetEvalOutput(const TfLiteContext *, const TfLiteNode *node, int index) {
  return &eval_tensors[node->outputs->data[index]];
}

}  // namespace micro
}  // namespace tflite

int main() {
  static struct {
    int size;
    int data[4];
  } window_shape, embedding_shape = {2, {1}}, inputs = {2, {0, 1}}, outputs = {1, {2}};
  static int8_t embedding[512];
  edgel3_info info;
  if (edgel3_describe(test_model, test_model_bytes, &info) != EDGEL3_OK) return 1;
  window_shape = {4, {1, static_cast<int>(info.rows), static_cast<int>(info.columns), 1}};
  embedding_shape.data[1] = static_cast<int>(info.embedding);
  TfLiteTensor &window = tensors[0], &model = tensors[1], &output = tensors[2];
  window.type = output.type = kTfLiteInt8;
  window.dims = reinterpret_cast<TfLiteIntArray *>(&window_shape);
  window.params = {info.input_scale, info.input_zero_point};
  output.dims = reinterpret_cast<TfLiteIntArray *>(&embedding_shape);
  output.params = {info.output_scale, info.output_zero_point};
  model.type = kTfLiteUInt8;
  model.allocation_type = kTfLiteMmapRo;
  model.data.data = const_cast<unsigned char *>(test_model);
  model.bytes = test_model_bytes;
  eval_tensors[0].data.data = const_cast<unsigned char *>(test_window);
  eval_tensors[2].data.data = embedding;

  for (const uint32_t *limit = test_limits; limit < test_limits_end; ++limit) {
    used = largest = 0;
    edgel3::TflmContext application;
    application.arena_limit_bytes = *limit;
    Context micro_context(&application);
    TfLiteContext context = {};
    context.impl_ = &micro_context;
    TfLiteNode node = {};
    node.inputs = reinterpret_cast<TfLiteIntArray *>(&inputs);
    node.outputs = reinterpret_cast<TfLiteIntArray *>(&outputs);
    const edgel3::TflmOperator *op = edgel3::TflmRegistration();
    node.user_data = op->init(&context, nullptr, 0);
    if (op->prepare(&context, &node) != kTfLiteOk) return 2;
    if (op->invoke(&context, &node) != kTfLiteOk) return 3;
    board_write_number("", largest);
    board_write_bytes(" ", embedding, info.embedding);
    board_write("\n");
  }
  return 0;
}
