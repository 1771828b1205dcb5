/* The model of a deployment and the static memory it takes, for a node.
 *
 * To be included once in an application, where the files of a deployment are on the include path:
 * edgel3_packed_model.h (or edgel3_tflm_model.h, which puts TFLM's interpreter in the engine's place),
 * edgel3_model_frontend.h and, if there is a head, edgel3_model_head.h. It does not compile if the
 * memory is more than the budget; what it takes part by part are constants.
 */
#ifndef EDGEL3_NODE_MODEL_H_
#define EDGEL3_NODE_MODEL_H_

#if defined(__has_include)
#if !__has_include("edgel3_model_frontend.h")
#error \
    "no edgel3_model_frontend.h on the include path: edgel3-tflm export-app writes a whole project"
#endif
#if __has_include("edgel3_tflm_model.h")
#define EDGEL3_NODE_USES_TFLM 1
#endif
#if __has_include("edgel3_model_head.h")
#include "edgel3_model_head.h"
#define EDGEL3_NODE_HEAD (&edgel3_model_head)
#endif
#endif

#include "edgel3_model_frontend.h"
#ifdef EDGEL3_NODE_USES_TFLM
#include "edgel3_node_tflm.h"
#include "edgel3_tflm_model.h"
#else
#include "edgel3_node.h"
#include "edgel3_packed_model.h"
#endif
#ifndef EDGEL3_NODE_HEAD
#define EDGEL3_NODE_HEAD NULL
#endif

/** RAM that arena, window and node may take together; the stack comes on top. A board may say else
 * before it includes this. */
#ifndef EDGEL3_NODE_RAM_BUDGET_BYTES
#define EDGEL3_NODE_RAM_BUDGET_BYTES 300000u
#endif

#define EDGEL3_NODE_LARGER(a, b) ((a) > (b) ? (a) : (b))

#ifdef EDGEL3_NODE_USES_TFLM
#define EDGEL3_NODE_NETWORK_BYTES EDGEL3_MODEL_BYTES
#define EDGEL3_NODE_ENGINE_ARENA_BYTES EDGEL3_MODEL_ARENA_BYTES
#define EDGEL3_NODE_NETWORK \
  &EDGEL3_TFLM_MODEL_ENGINE, edgel3_model, EDGEL3_MODEL_BYTES, edgel3_tflm_model_source
#define EDGEL3_NODE_SELF_TEST_CRC32 EDGEL3_TFLM_MODEL_SELF_TEST_CRC32
#else
#define EDGEL3_NODE_NETWORK_BYTES EDGEL3_PACKED_MODEL_BYTES
#define EDGEL3_NODE_ENGINE_ARENA_BYTES EDGEL3_PACKED_MODEL_ARENA_BYTES
#define EDGEL3_NODE_NETWORK \
  &edgel3_node_packed, edgel3_packed_model, EDGEL3_PACKED_MODEL_BYTES, NULL
#define EDGEL3_NODE_SELF_TEST_CRC32 EDGEL3_PACKED_MODEL_SELF_TEST_CRC32
#endif

/** The engine's arena; the log-mel values lie there before it. */
#define EDGEL3_NODE_ARENA_BYTES \
  EDGEL3_NODE_LARGER(EDGEL3_NODE_ENGINE_ARENA_BYTES, EDGEL3_MODEL_FRONTEND_LOG_MEL_BYTES)
/** The network's input; the frontend works there before it. */
#define EDGEL3_NODE_WINDOW_BYTES \
  EDGEL3_NODE_LARGER(EDGEL3_MODEL_MELS *EDGEL3_MODEL_FRAMES, EDGEL3_MODEL_FRONTEND_WORK_BYTES)
/** All static memory. */
#define EDGEL3_NODE_RAM_BYTES \
  (EDGEL3_NODE_ARENA_BYTES + EDGEL3_NODE_WINDOW_BYTES + sizeof(edgel3_node))

/* Neither C99 nor every C++ has an assertion of its own for this. */
typedef char edgel3_node_needs_more_ram_than_its_budget
    [EDGEL3_NODE_RAM_BYTES <= EDGEL3_NODE_RAM_BUDGET_BYTES ? 1 : -1];
typedef char edgel3_node_holds_no_embedding_of_this_size
    [EDGEL3_MODEL_EMBEDDING_SIZE <= EDGEL3_NODE_MAX_EMBEDDING ? 1 : -1];

/** An edgel3_node_model in braces. Both memories are arrays of the sizes above, aligned to 16. */
#define EDGEL3_NODE_MODEL(arena, window) \
  {EDGEL3_NODE_NETWORK,                  \
   &edgel3_model_frontend,               \
   EDGEL3_NODE_HEAD,                     \
   EDGEL3_NODE_SELF_TEST_CRC32,          \
   arena,                                \
   sizeof(arena),                        \
   window,                               \
   sizeof(window)}

#endif /* EDGEL3_NODE_MODEL_H_ */
