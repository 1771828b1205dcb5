/* Runs a flatbuffer of the custom operator in TFLM on the emulated board, for
 * test_tflm_operator.py. Prints each embedding as a line of hexadecimal digits, then the used bytes
 * of the arena. */
#include "edgel3_tflm.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

extern "C" {
#include "board.h"

extern const unsigned char test_model[], test_windows[], test_windows_end[];
}

using namespace tflite;
using namespace tflite::micro;

namespace {

alignas(16) uint8_t arena[3 * 1024 * 1024];

}  // namespace

int main() {
  MicroMutableOpResolver<1> resolver;
  if (resolver.AddCustom(EDGEL3_TFLM_OPERATOR, edgel3::TflmRegistration()) != kTfLiteOk) return 1;
  MicroInterpreter interpreter(GetModel(test_model), resolver, arena, sizeof arena);
  if (interpreter.AllocateTensors() != kTfLiteOk) return 2;
  TfLiteTensor *window = interpreter.input(0);
  const TfLiteTensor *embedding = interpreter.output(0);
  for (const unsigned char *at = test_windows; at < test_windows_end; at += window->bytes) {
    for (size_t i = 0; i < window->bytes; ++i) window->data.uint8[i] = at[i];
    if (interpreter.Invoke() != kTfLiteOk) return 3;
    board_write_bytes("", embedding->data.raw, static_cast<uint32_t>(embedding->bytes));
    board_write("\n");
  }
  board_write_number("", interpreter.arena_used_bytes());
  board_write("\n");
  return 0;
}
