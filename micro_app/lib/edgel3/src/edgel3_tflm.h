/* The engine as a custom operator of TensorFlow Lite Micro (TFLM).
 *
 *   tflite::MicroMutableOpResolver<1> resolver;
 *   resolver.AddCustom(EDGEL3_TFLM_OPERATOR, edgel3::TflmRegistration());
 *
 * Then the int8_packed.tflite of a deployment runs like any other flatbuffer. The engine's arena is
 * part of the interpreter's arena. If the operator refuses a flatbuffer, it prints the reason and
 * AllocateTensors() fails.
 *
 * Compile with the macros that TFLM's library was compiled with. TFLM's own build defines
 * TF_LITE_STATIC_MEMORY, which changes the layout of TFLM's structures. The headers of
 * TFLM's kernels need C++17.
 *
 * Without TFLM's headers on the include path, this header declares nothing and does not define
 * EDGEL3_HAS_TFLM.
 */
#ifndef EDGEL3_TFLM_H_
#define EDGEL3_TFLM_H_

#if defined(__cplusplus) && defined(__has_include)
#if __has_include("tensorflow/lite/micro/kernels/kernel_util.h")
/** Defined if TFLM's headers are on the include path. */
#define EDGEL3_HAS_TFLM 1
#endif
#endif

#ifdef EDGEL3_HAS_TFLM

#include "edgel3.h"
#include "tensorflow/lite/micro/kernels/kernel_util.h"

/** Name of the operator in the flatbuffer. */
#define EDGEL3_TFLM_OPERATOR "EDGEL3"

/* TFLM's types are in tflite::micro since October 2026; before, they were global. */
namespace tflite {
namespace micro {}
}  // namespace tflite

namespace edgel3 {
using namespace tflite::micro;

/** TFLM's type of an operator: TFLMRegistration, or TfLiteRegistration in older versions. */
using TflmOperator = decltype(tflite::micro::RegisterOp(nullptr, nullptr, nullptr));

/** What an application and the operator tell each other, optionally.
 *
 * Pass its address to MicroInterpreter::SetMicroExternalContext() before AllocateTensors(). It must
 * stay where it is as long as the interpreter is in use. The operator takes every external context
 * for a TflmContext: do not pass it another one.
 */
struct TflmContext {
  /** The application sets the most bytes that the engine's arena may take in the interpreter's. The
   * engine uses its fastest kernels if their arena takes no more, and otherwise has its least arena
   * and may be slower. */
  size_t arena_limit_bytes = 0;
  /** The application sets the least size in bytes that it needs of `memory`; AllocateTensors() sets
   * the size that there is. */
  size_t memory_bytes = 0;
  /** AllocateTensors() sets it: memory that the application may use while Invoke() does not run, and
   * that Invoke() overwrites. It is part of the engine's arena; see edgel3_idle_memory. */
  void *memory = nullptr;
  /** The engine calls it after every row, unless it is null. May be changed before every Invoke(). */
  edgel3_between_rows between_rows = nullptr;
  /** Passed to every call of between_rows. */
  void *between_rows_context = nullptr;
};

/** Return the operator, for MicroMutableOpResolver::AddCustom, which copies it.
 *
 * @return a static object; never null
 */
TflmOperator *TflmRegistration();

}  // namespace edgel3

#endif /* EDGEL3_HAS_TFLM */

#endif /* EDGEL3_TFLM_H_ */
