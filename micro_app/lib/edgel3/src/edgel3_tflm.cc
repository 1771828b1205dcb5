/* The custom operator: checks the flatbuffer's tensors, then runs the engine. */
#include "edgel3_tflm.h"

#ifdef EDGEL3_HAS_TFLM

#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/micro/micro_context.h"
#include "tensorflow/lite/micro/micro_log.h"

namespace edgel3 {
namespace {

using namespace tflite;

/* Inputs: the int8 log-mel window, and the packed model as a constant. Output: the embedding. */
enum { kWindow = 0, kModel = 1, kInputs = 2 };
enum { kEmbedding = 0, kOutputs = 1 };

/* State of an operator in a graph. */
struct State {
  edgel3_engine *engine;
};

/* A tensor's description. TFLM lends it while it prepares the graph; the destructor returns it. */
class LentTensor {
 public:
  LentTensor(MicroContext *context, TfLiteTensor *tensor) : context_(context), tensor_(tensor) {}
  ~LentTensor() {
    if (tensor_ != nullptr) context_->DeallocateTempTfLiteTensor(tensor_);
  }
  LentTensor(const LentTensor &) = delete;
  LentTensor &operator=(const LentTensor &) = delete;

  const TfLiteTensor *get() const { return tensor_; }
  const TfLiteTensor *operator->() const { return tensor_; }

 private:
  MicroContext *context_;
  TfLiteTensor *tensor_;
};

bool HasShape(const TfLiteTensor *tensor, const int *sizes, int dimensions) {
  if (tensor->dims == nullptr || tensor->dims->size != dimensions) return false;
  for (int i = 0; i < dimensions; ++i) {
    if (tensor->dims->data[i] != sizes[i]) return false;
  }
  return true;
}

/* Scales must be exactly equal, because both are copies of one number. */
bool HasQuantization(const TfLiteTensor *tensor, float scale, int32_t zero_point) {
  return !(tensor->params.scale < scale) && !(tensor->params.scale > scale) &&
         tensor->params.zero_point == zero_point;
}

/* Return whether the flatbuffer's tensors match the input and the output of the packed model. */
bool Matches(const edgel3_info &info, const TfLiteTensor *window, const TfLiteTensor *embedding) {
  const int rows = static_cast<int>(info.rows);
  const int columns = static_cast<int>(info.columns);
  const int size = static_cast<int>(info.embedding);
  const int window_shape[] = {1, rows, columns, 1};
  const int embedding_shape[] = {1, size};
  if (window->type != kTfLiteInt8 || !HasShape(window, window_shape, 4)) {
    MicroPrintf("EDGEL3: expected an int8 input of shape [1, %d, %d, 1]; convert again", rows,
                columns);
    return false;
  }
  if (embedding->type != kTfLiteInt8 || !HasShape(embedding, embedding_shape, 2)) {
    MicroPrintf("EDGEL3: expected an int8 output of shape [1, %d]; convert again", size);
    return false;
  }
  const bool input_matches = HasQuantization(window, info.input_scale, info.input_zero_point);
  if (!input_matches || !HasQuantization(embedding, info.output_scale, info.output_zero_point)) {
    MicroPrintf("EDGEL3: the %s is not quantized as the packed model's; convert again",
                input_matches ? "output" : "input");
    return false;
  }
  return true;
}

bool Accepted(edgel3_status status) {
  if (status != EDGEL3_OK) {
    MicroPrintf("EDGEL3: the engine refuses its model: %s", edgel3_status_text(status));
  }
  return status == EDGEL3_OK;
}

TflmContext *GetApplication(TfLiteContext *context) {
  return static_cast<TflmContext *>(GetMicroContext(context)->external_context());
}

void *Init(TfLiteContext *context, const char *, size_t) {
  State *state =
      static_cast<State *>(GetMicroContext(context)->AllocatePersistentBuffer(sizeof(State)));
  if (state != nullptr) state->engine = nullptr;
  return state;
}

TfLiteStatus Prepare(TfLiteContext *context, TfLiteNode *node) {
  State *state = static_cast<State *>(node->user_data);
  if (state == nullptr) {
    MicroPrintf(
        "EDGEL3: the tensor arena is full, or the macro TF_LITE_STATIC_MEMORY is not defined as for"
        " TFLM's library; enlarge the arena or compile with the same macros");
    return kTfLiteError;
  }
  if (node->inputs->size != kInputs || node->outputs->size != kOutputs) {
    MicroPrintf("EDGEL3: expected %d inputs and %d output, found %d and %d; convert again", kInputs,
                kOutputs, node->inputs->size, node->outputs->size);
    return kTfLiteError;
  }
  MicroContext *micro_context = GetMicroContext(context);
  const LentTensor window(micro_context, micro_context->AllocateTempInputTensor(node, kWindow));
  const LentTensor model(micro_context, micro_context->AllocateTempInputTensor(node, kModel));
  const LentTensor embedding(micro_context,
                             micro_context->AllocateTempOutputTensor(node, kEmbedding));
  if (window.get() == nullptr || model.get() == nullptr || embedding.get() == nullptr) {
    MicroPrintf("EDGEL3: a tensor is missing, or the tensor arena is full; enlarge the arena");
    return kTfLiteError;
  }
  /* The engine reads the weights in place. Only a constant never moves. */
  if (model->type != kTfLiteUInt8 || model->allocation_type != kTfLiteMmapRo) {
    MicroPrintf("EDGEL3: expected the packed model as a uint8 constant; convert again");
    return kTfLiteError;
  }
  const void *bytes = model->data.data;
  if (reinterpret_cast<uintptr_t>(bytes) % EDGEL3_MODEL_ALIGNMENT != 0) {
    MicroPrintf("EDGEL3: the packed model is not aligned to %d bytes; align the flatbuffer to 16",
                static_cast<int>(EDGEL3_MODEL_ALIGNMENT));
    return kTfLiteError;
  }
  TflmContext *application = GetApplication(context);
  const size_t lent_bytes = application == nullptr ? 0 : application->memory_bytes;
  const size_t limit_bytes = application == nullptr ? 0 : application->arena_limit_bytes;
  edgel3_info info;
  size_t arena_bytes, fast_arena_bytes;
  if (!Accepted(edgel3_describe(bytes, model->bytes, &info)) ||
      !Matches(info, window.get(), embedding.get()) ||
      !Accepted(edgel3_least_arena_bytes(bytes, model->bytes, lent_bytes, &arena_bytes)) ||
      !Accepted(edgel3_arena_bytes(bytes, model->bytes, EDGEL3_KERNELS_BEST, &fast_arena_bytes))) {
    return kTfLiteError;
  }
  if (fast_arena_bytes > arena_bytes && fast_arena_bytes <= limit_bytes) {
    arena_bytes = fast_arena_bytes;
  }
  void *arena = micro_context->AllocatePersistentBuffer(arena_bytes);
  if (arena == nullptr) {
    MicroPrintf("EDGEL3: the engine needs %d bytes of the tensor arena; enlarge it",
                static_cast<int>(arena_bytes));
    return kTfLiteError;
  }
  if (!Accepted(edgel3_open(&state->engine, bytes, model->bytes, EDGEL3_KERNELS_BEST, arena,
                            arena_bytes))) {
    return kTfLiteError;
  }
  if (application != nullptr) {
    application->memory = edgel3_idle_memory(state->engine, &application->memory_bytes);
  }
  return kTfLiteOk;
}

TfLiteStatus Invoke(TfLiteContext *context, TfLiteNode *node) {
  State *state = static_cast<State *>(node->user_data);
  const TfLiteEvalTensor *window = tflite::micro::GetEvalInput(context, node, kWindow);
  TfLiteEvalTensor *embedding = tflite::micro::GetEvalOutput(context, node, kEmbedding);
  const TflmContext *application = GetApplication(context);
  if (application != nullptr) {
    edgel3_set_between_rows(state->engine, application->between_rows,
                            application->between_rows_context);
  }
  const edgel3_status status = edgel3_run(state->engine, window->data.int8, embedding->data.int8);
  if (status != EDGEL3_OK) MicroPrintf("EDGEL3: %s", edgel3_status_text(status));
  return status == EDGEL3_OK ? kTfLiteOk : kTfLiteError;
}

}  // namespace

TflmOperator *TflmRegistration() {
  /* An assignment instead of an initializer, which would need a guard against threads. */
  static TflmOperator registration;
  registration = tflite::micro::RegisterOp(Init, Prepare, Invoke);
  return &registration;
}

}  // namespace edgel3

#endif  // EDGEL3_HAS_TFLM
