/* A node's network in the interpreter of TensorFlow Lite Micro, in place of the bare engine.
 *
 * The interpreter is set up anew for each window, since the log-mel values wait in its arena. An arena
 * that is too small counts as a model that is refused: TFLM does not tell the two apart, but prints
 * what it lacks. Nor does it check that a flatbuffer is whole: a damaged packed model within one is
 * refused, damage elsewhere may be a fault.
 *
 * Where TFLM's headers are not on the include path there is nothing here; see edgel3_tflm.h for the
 * macros it takes.
 */
#ifndef EDGEL3_NODE_TFLM_H_
#define EDGEL3_NODE_TFLM_H_

#include "edgel3_node.h"

#ifdef __cplusplus
extern "C" {
#endif

/** For int8_packed.tflite, whose one operator is this library's engine. */
extern const edgel3_node_engine edgel3_node_tflm_packed;

/** For int8.tflite, on TFLM's own kernels: dense. */
extern const edgel3_node_engine edgel3_node_tflm_builtin;

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_NODE_TFLM_H_ */
