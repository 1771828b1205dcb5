/* The engine as a custom operator of TensorFlow Lite Micro.
 *
 *   tflite::MicroMutableOpResolver<1> resolver;
 *   resolver.AddCustom(EDGEL3_TFLM_OPERATOR, edgel3::TflmRegistration());
 *
 * and int8_packed.tflite of a deployment runs like any other flatbuffer. The engine's arena comes out
 * of the interpreter's. A flatbuffer that the operator refuses fails AllocateTensors(), with a line
 * that says why.
 *
 * Compile with the macros that TFLM's library was compiled with: TF_LITE_STATIC_MEMORY, which its own
 * build defines, changes what lies where in TFLM's structures. The headers ask for C++17.
 *
 * Where TFLM's headers are not on the include path there is nothing here, and EDGEL3_HAS_TFLM is not
 * defined.
 */
#ifndef EDGEL3_TFLM_H_
#define EDGEL3_TFLM_H_

#if defined(__cplusplus) && defined(__has_include)
#if __has_include("tensorflow/lite/micro/micro_common.h")
#define EDGEL3_HAS_TFLM 1
#endif
#endif

#ifdef EDGEL3_HAS_TFLM

#include "tensorflow/lite/micro/micro_common.h"

/** What the flatbuffer calls the operator. */
#define EDGEL3_TFLM_OPERATOR "EDGEL3"

/* TFLM's types were global, and are in tflite::micro since October 2026. */
namespace tflite {
namespace micro {}
}  // namespace tflite

namespace edgel3 {
using namespace tflite::micro;

/** The operator, for MicroMutableOpResolver::AddCustom, which copies it. */
TFLMRegistration *TflmRegistration();

}  // namespace edgel3

#endif /* EDGEL3_HAS_TFLM */

#endif /* EDGEL3_TFLM_H_ */
