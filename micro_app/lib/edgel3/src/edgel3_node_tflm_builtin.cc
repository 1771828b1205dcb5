/* The engine of a node that runs a dense flatbuffer with TFLM's own kernels. */
#include "edgel3_node_tflm_network.h"

#ifdef EDGEL3_HAS_TFLM

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

namespace edgel3 {
namespace {

/* Finds the operators that the converter writes: convolution with activation, pooling, flattening.
 * Adding cannot fail: there is room for all three. */
class BuiltinResolver : public MicroMutableOpResolver<3> {
 public:
  BuiltinResolver() {
    AddConv2D();
    AddMaxPool2D();
    AddReshape();
  }

 private:
  TF_LITE_REMOVE_VIRTUAL_DELETE
};

/* TFLM's kernels overwrite their input, which LOG_MEL returns later: the window is a copy. The levels
 * are at the end of the arena. */
edgel3_status OpenBuiltin(const edgel3_node_model *model, edgel3_info *info,
                          edgel3_node_memory *memory) {
  const size_t levels_bytes = edgel3_frontend_levels_bytes(model->frontend);
  if (model->arena_bytes < levels_bytes) return EDGEL3_ERROR_ARENA;
  const size_t arena_bytes = model->arena_bytes - levels_bytes;
  *memory = {static_cast<uint8_t *>(model->arena) + arena_bytes, levels_bytes, model->window,
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

const edgel3_node_engine edgel3_node_tflm_builtin = {edgel3::OpenBuiltin, edgel3::RunBuiltin};

#endif  // EDGEL3_HAS_TFLM
