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
 * TF_LITE_STATIC_MEMORY, which changes the layout of TFLM's structures. TFLM's headers need C++17.
 *
 * Without TFLM's headers on the include path, this header declares nothing and does not define
 * EDGEL3_HAS_TFLM.
 */
#ifndef EDGEL3_TFLM_H_
#define EDGEL3_TFLM_H_

#if defined(__cplusplus) && defined(__has_include)
#if __has_include("tensorflow/lite/micro/micro_common.h")
/** Defined if TFLM's headers are on the include path. */
#define EDGEL3_HAS_TFLM 1
#endif
#endif

#ifdef EDGEL3_HAS_TFLM

#include "edgel3.h"
#include "tensorflow/lite/micro/micro_common.h"

/** Name of the operator in the flatbuffer. */
#define EDGEL3_TFLM_OPERATOR "EDGEL3"

/* TFLM's types are in tflite::micro since October 2026; before, they were global. */
namespace tflite {
namespace micro {}
}  // namespace tflite

namespace edgel3 {
using namespace tflite::micro;

/** Return the operator, for MicroMutableOpResolver::AddCustom, which copies it.
 *
 * @return a static object; never null
 */
TFLMRegistration *TflmRegistration();

/** Set the function that the operator's engines call after every row; see edgel3_between_rows.
 *
 * @param[in] between_rows  the function to call; null to call none
 * @param[in] context       passed to every call of the function; may be null
 */
void TflmSetBetweenRows(edgel3_between_rows between_rows, void *context);

}  // namespace edgel3

#endif /* EDGEL3_HAS_TFLM */

#endif /* EDGEL3_TFLM_H_ */
