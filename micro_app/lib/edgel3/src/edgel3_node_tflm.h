/* A node's engine that runs the network in the interpreter of TensorFlow Lite Micro (TFLM).
 *
 * The interpreter is set up once, in the arena, and stays there. TFLM does not tell an arena that is
 * too small from a network that it cannot run: both count as a refused model, and TFLM prints what
 * is missing. TFLM does not check that a flatbuffer is complete either. Damage of a packed model
 * inside a flatbuffer is found; other damage may cause a fault.
 *
 * Without TFLM's headers on the include path, edgel3_node_tflm.cc compiles to nothing.
 * edgel3_tflm.h names the macros that must be defined.
 */
#ifndef EDGEL3_NODE_TFLM_H_
#define EDGEL3_NODE_TFLM_H_

#include "edgel3_node.h"

/** Size in bytes of the interpreter and its records in the node's arena, at most. The rest is for
 * the engine's arena. */
#define EDGEL3_NODE_TFLM_BYTES 2048u

#ifdef __cplusplus
extern "C" {
#endif

/** Runs int8_packed.tflite, whose only operator is this library's engine. The node's arena contains
 * the interpreter, its records and the engine's arena, and the node's window its input and output.
 * The log-mel values are in the engine's arena. */
extern const edgel3_node_engine edgel3_node_tflm_packed;

/** Runs the dense int8.tflite with TFLM's own kernels. The node's arena contains the interpreter, its
 * records and tensors, and the log-mel values; the node's window a copy of the network's input. */
extern const edgel3_node_engine edgel3_node_tflm_builtin;

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_NODE_TFLM_H_ */
