/* The engine of a node that runs a packed model in TFLM's interpreter. */
#include "edgel3_node_tflm_network.h"

#ifdef EDGEL3_HAS_TFLM

namespace edgel3 {
namespace {

/* Finds the network's only operator. MicroMutableOpResolver includes the headers of TFLM's kernels,
 * which need C++17; the Arduino IDE compiles for Mbed boards as C++14. */
class PackedResolver : public MicroOpResolver {
 public:
  PackedResolver() : operator_(*TflmRegistration()) {
    operator_.builtin_code = BuiltinOperator_CUSTOM;
    operator_.custom_name = EDGEL3_TFLM_OPERATOR;
  }

  const TflmOperator *FindOp(BuiltinOperator) const override { return nullptr; }
  const TflmOperator *FindOp(const char *name) const override {
    return strcmp(name, EDGEL3_TFLM_OPERATOR) == 0 ? &operator_ : nullptr;
  }
  TfLiteBridgeBuiltinParseFunction GetOpDataParser(BuiltinOperator) const override {
    return nullptr;
  }

 private:
  TflmOperator operator_;
  TF_LITE_REMOVE_VIRTUAL_DELETE
};

/* The window is the interpreter's input, and with closed ears the levels are in the engine's
 * arena. */
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

}  // namespace
}  // namespace edgel3

const edgel3_node_engine edgel3_node_tflm_packed = {edgel3::OpenPacked, edgel3::RunPacked};

#endif  // EDGEL3_HAS_TFLM
