/* A node's engine that runs the network in the interpreter of TensorFlow Lite Micro (TFLM).
 *
 * The engine sets the interpreter up again for each window, because the log-mel values are in its
 * arena before. TFLM does not tell an arena that is too small from a network that it cannot run:
 * both count as a refused model, and TFLM prints what is missing. TFLM does not check that a
 * flatbuffer is complete either. Damage of a packed model inside a flatbuffer is found; other
 * damage may cause a fault.
 *
 * Without TFLM's headers on the include path, edgel3_node_tflm.cc compiles to nothing.
 * edgel3_tflm.h names the macros that must be defined.
 */
#ifndef EDGEL3_NODE_TFLM_H_
#define EDGEL3_NODE_TFLM_H_

#include "edgel3_node.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Runs int8_packed.tflite, whose only operator is this library's engine. */
extern const edgel3_node_engine edgel3_node_tflm_packed;

/** Runs the dense int8.tflite with TFLM's own kernels. */
extern const edgel3_node_engine edgel3_node_tflm_builtin;

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_NODE_TFLM_H_ */
