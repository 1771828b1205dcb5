/* The model of a deployment and its static memory, for a node.
 *
 * An application includes this header in exactly one source file. The include path must contain the
 * headers of a deployment: edgel3_packed_model.h or edgel3_tflm_model.h (the network then runs in
 * TFLM's interpreter), edgel3_model_frontend.h and, for a node with a head, edgel3_model_head.h.
 * Compiling fails if the node needs more memory than its budget. The macros below give the size of
 * each part.
 */
#ifndef EDGEL3_NODE_MODEL_H_
#define EDGEL3_NODE_MODEL_H_

#if defined(__has_include)
#if !__has_include("edgel3_model_frontend.h")
#error \
    "edgel3_model_frontend.h is not on the include path: write a project by edgel3-tflm export-app"
#endif
#if __has_include("edgel3_tflm_model.h")
/** Defined if the network runs in TFLM's interpreter. */
#define EDGEL3_NODE_USES_TFLM 1
#endif
#if __has_include("edgel3_model_head.h")
#include "edgel3_model_head.h"
/** Address of the head, or NULL without a head. */
#define EDGEL3_NODE_HEAD (&edgel3_model_head)
#endif
#if __has_include("edgel3_node_options.h")
#include "edgel3_node_options.h"
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
#ifndef EDGEL3_MODEL_FRONTEND_LEVELS_BYTES
#error "edgel3_model_frontend.h is from an older edgel3-tflm: convert the network again"
#endif
#ifndef EDGEL3_NODE_HEAD
#define EDGEL3_NODE_HEAD NULL
#endif

/** Budget in bytes for arena, window and node together; the stack is not included. A board may
 * define another budget before it includes this header. This one is the least of the boards'. */
#ifndef EDGEL3_NODE_RAM_BUDGET_BYTES
#define EDGEL3_NODE_RAM_BUDGET_BYTES 425984u
#endif

/** Budget in bytes for the ears alone. A board that has another memory for them defines it before it
 * includes this header; otherwise the ears are within the budget above. */
#ifdef EDGEL3_NODE_EARS_BUDGET_BYTES
#define EDGEL3_NODE_EARS_ARE_APART 1
#else
#define EDGEL3_NODE_EARS_ARE_APART 0
#define EDGEL3_NODE_EARS_BUDGET_BYTES EDGEL3_NODE_RAM_BUDGET_BYTES
#endif

/** The larger of two numbers. */
#define EDGEL3_NODE_LARGER(a, b) ((a) > (b) ? (a) : (b))

/* EDGEL3_NODE_NETWORK_BYTES: size of the network in bytes.
 * EDGEL3_NODE_ENGINE_ARENA_BYTES: size of the engine's least arena in bytes.
 * EDGEL3_NODE_FAST_ARENA_BYTES: size of the arena of its fastest kernels in bytes.
 * EDGEL3_NODE_INPUT_BYTES: size of the network's input in bytes, with TFLM also of its output.
 * EDGEL3_NODE_NETWORK: the first four fields of edgel3_node_model.
 * EDGEL3_NODE_SELF_TEST_CRC32: CRC-32 of the embedding that SELF_TEST expects.
 */
#ifdef EDGEL3_NODE_USES_TFLM
#define EDGEL3_NODE_NETWORK_BYTES EDGEL3_MODEL_BYTES
#define EDGEL3_NODE_ENGINE_ARENA_BYTES EDGEL3_TFLM_MODEL_ARENA_BYTES
#define EDGEL3_NODE_FAST_ARENA_BYTES EDGEL3_TFLM_MODEL_FAST_ARENA_BYTES
#define EDGEL3_NODE_INPUT_BYTES EDGEL3_TFLM_MODEL_WINDOW_BYTES
#define EDGEL3_NODE_NETWORK \
  &EDGEL3_TFLM_MODEL_ENGINE, edgel3_model, EDGEL3_MODEL_BYTES, edgel3_tflm_model_source
#define EDGEL3_NODE_SELF_TEST_CRC32 EDGEL3_TFLM_MODEL_SELF_TEST_CRC32
#else
#define EDGEL3_NODE_NETWORK_BYTES EDGEL3_PACKED_MODEL_BYTES
#ifndef EDGEL3_PACKED_MODEL_FAST_ARENA_BYTES
#error "edgel3_packed_model.h is from an older edgel3-tflm: convert the network again"
#endif
#define EDGEL3_NODE_ENGINE_ARENA_BYTES EDGEL3_PACKED_MODEL_ARENA_BYTES
#define EDGEL3_NODE_FAST_ARENA_BYTES EDGEL3_PACKED_MODEL_FAST_ARENA_BYTES
#define EDGEL3_NODE_INPUT_BYTES (EDGEL3_MODEL_MELS * EDGEL3_MODEL_FRAMES)
#define EDGEL3_NODE_NETWORK \
  &edgel3_node_packed, edgel3_packed_model, EDGEL3_PACKED_MODEL_BYTES, NULL
#define EDGEL3_NODE_SELF_TEST_CRC32 EDGEL3_PACKED_MODEL_SELF_TEST_CRC32
#endif

/** Size of the window in bytes: the network's input. With closed ears, it holds the frontend's
 * spectrum and ring before the engine runs. */
#define EDGEL3_NODE_WINDOW_BYTES \
  EDGEL3_NODE_LARGER(EDGEL3_NODE_INPUT_BYTES, EDGEL3_MODEL_FRONTEND_WORK_BYTES)
/** Size of the memory that opens the ears in bytes: spectrum, ring and levels. */
#define EDGEL3_NODE_OPEN_EARS_BYTES \
  (EDGEL3_MODEL_FRONTEND_WORK_BYTES + EDGEL3_MODEL_FRONTEND_LEVELS_BYTES)
/** Size in bytes of all static memory within the budget, with an engine's arena and a memory for the
 * ears of these sizes. With closed ears, the arena holds the levels before the engine runs. */
#define EDGEL3_NODE_RAM_BYTES_WITH(engine_arena, ears)                    \
  (EDGEL3_NODE_LARGER(engine_arena, EDGEL3_MODEL_FRONTEND_LEVELS_BYTES) + \
   EDGEL3_NODE_WINDOW_BYTES + sizeof(edgel3_node) + (EDGEL3_NODE_EARS_ARE_APART ? 0u : (ears)))
/** Whether they are within the budgets. */
#define EDGEL3_NODE_FITS(engine_arena, ears)                                         \
  (EDGEL3_NODE_RAM_BYTES_WITH(engine_arena, ears) <= EDGEL3_NODE_RAM_BUDGET_BYTES && \
   (ears) <= EDGEL3_NODE_EARS_BUDGET_BYTES)
/** Whether the ears stay open, rather than to use the fastest kernels, if the budget does not allow
 * both. export-app defines it in edgel3_node_options.h, as what hears more of the sound. */
#ifndef EDGEL3_NODE_PREFERS_EARS
#define EDGEL3_NODE_PREFERS_EARS 0
#endif
/** Whether the ears stay open while the network runs. A board without a microphone defines this
 * macro as 0 before it includes this header; otherwise the budget decides. */
#ifndef EDGEL3_NODE_OPENS_EARS
#define EDGEL3_NODE_OPENS_EARS                                                       \
  (EDGEL3_NODE_FITS(EDGEL3_NODE_FAST_ARENA_BYTES, EDGEL3_NODE_OPEN_EARS_BYTES) ||    \
   (EDGEL3_NODE_FITS(EDGEL3_NODE_ENGINE_ARENA_BYTES, EDGEL3_NODE_OPEN_EARS_BYTES) && \
    (EDGEL3_NODE_PREFERS_EARS || !EDGEL3_NODE_FITS(EDGEL3_NODE_FAST_ARENA_BYTES, 4u))))
#endif
/** Size of the memory for the ears in bytes. If they stay closed, the node does not use it. */
#define EDGEL3_NODE_EARS_BYTES (EDGEL3_NODE_OPENS_EARS ? EDGEL3_NODE_OPEN_EARS_BYTES : 4u)
/** Whether the arena is that of the fastest kernels. */
#define EDGEL3_NODE_IS_FAST EDGEL3_NODE_FITS(EDGEL3_NODE_FAST_ARENA_BYTES, EDGEL3_NODE_EARS_BYTES)
/** Size of the arena in bytes: that of the fastest kernels, or the least. */
#define EDGEL3_NODE_ARENA_BYTES                                                            \
  EDGEL3_NODE_LARGER(                                                                      \
      EDGEL3_NODE_IS_FAST ? EDGEL3_NODE_FAST_ARENA_BYTES : EDGEL3_NODE_ENGINE_ARENA_BYTES, \
      EDGEL3_MODEL_FRONTEND_LEVELS_BYTES)
/** Size of all static memory within the budget in bytes. */
#define EDGEL3_NODE_RAM_BYTES \
  EDGEL3_NODE_RAM_BYTES_WITH(EDGEL3_NODE_ARENA_BYTES, EDGEL3_NODE_EARS_BYTES)

/* A negative array size is an error; C99 has no static assertion. */
typedef char edgel3_node_needs_more_ram_than_its_budget
    [EDGEL3_NODE_RAM_BYTES <= EDGEL3_NODE_RAM_BUDGET_BYTES ? 1 : -1];
typedef char edgel3_node_holds_no_embedding_of_this_size
    [EDGEL3_MODEL_EMBEDDING_SIZE <= EDGEL3_NODE_MAX_EMBEDDING ? 1 : -1];

/** Initializer of an edgel3_node_model.
 *
 * @param arena   uint8 [EDGEL3_NODE_ARENA_BYTES], an array, aligned to 16 bytes
 * @param window  uint8 [EDGEL3_NODE_WINDOW_BYTES], an array, aligned to 16 bytes
 * @param ears    uint8 [EDGEL3_NODE_EARS_BYTES], an array, aligned to 16 bytes
 */
#define EDGEL3_NODE_MODEL(arena, window, ears) \
  {EDGEL3_NODE_NETWORK,                        \
   &edgel3_model_frontend,                     \
   EDGEL3_NODE_HEAD,                           \
   EDGEL3_NODE_SELF_TEST_CRC32,                \
   arena,                                      \
   sizeof(arena),                              \
   window,                                     \
   sizeof(window),                             \
   ears,                                       \
   sizeof(ears)}

#endif /* EDGEL3_NODE_MODEL_H_ */
