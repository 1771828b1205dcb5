/* The application of a node: microphone or host in, embeddings and class scores out.
 *
 * The board brings memory, a pipe of bytes, a clock and perhaps a microphone, and calls in from its
 * main loop; nothing here knows which board it is. edgel3_wire.h says what goes over the pipe.
 */
#ifndef EDGEL3_NODE_H_
#define EDGEL3_NODE_H_

#include "edgel3.h"
#include "edgel3_frontend.h"
#include "edgel3_head.h"
#include "edgel3_wire.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EDGEL3_NODE_MAX_EMBEDDING 512u
#define EDGEL3_NODE_MAX_CLASSES 64u

/** Failures that SELF_TEST answers, a bit each. */
#define EDGEL3_NODE_MODEL_REFUSED 1u    /**< the network is damaged, or another one */
#define EDGEL3_NODE_MEMORY_TOO_SMALL 2u /**< the arena, or a buffer, is */
#define EDGEL3_NODE_OTHER_EMBEDDING 4u  /**< not what the converter's own run gave */

struct edgel3_node_model;

/** What runs a network. */
typedef struct edgel3_node_engine {
  /** Check a model and describe it; EDGEL3_ERROR_ARENA if its arena is too small. May write to the
   * arena. */
  edgel3_status (*describe)(const struct edgel3_node_model *model, edgel3_info *info);
  /** From a window to its embedding. What the arena holds is of no use any more. */
  edgel3_status (*run)(const struct edgel3_node_model *model, const int8_t *window,
                       int8_t *embedding);
} edgel3_node_engine;

/** This library's own, for packed models. Those of TFLM are in edgel3_node_tflm.h. */
extern const edgel3_node_engine edgel3_node_packed;

/** What the converter makes, and the memory it says that takes. */
typedef struct edgel3_node_model {
  const edgel3_node_engine *engine;
  const void *network; /**< a packed model, or a flatbuffer */
  size_t network_bytes;
  const uint8_t *source_sha256; /**< [16] as in edgel3_info; null where the network says it */
  const edgel3_frontend_config *frontend;
  const edgel3_head *head;  /**< null without one */
  uint32_t self_test_crc32; /**< of the embedding of edgel3_node_self_test_value's window */
  void *arena;              /**< the engine's; before it runs, the log-mel values lie here */
  size_t arena_bytes;
  void *window; /**< the network's input; before that, what the frontend works in */
  size_t window_bytes;
} edgel3_node_model;

/** The board. */
typedef struct edgel3_node_port {
  const char *board;
  void *context; /**< handed to all of these */
  void (*write)(void *context, const uint8_t *bytes, uint32_t count);
  uint32_t (*ticks)(void *context);
  uint32_t ticks_per_second;
  uint32_t (*milliseconds)(void *context);
  /** Turn the microphone on or off; answers whether it did. Null on a board without one. */
  int (*listen)(void *context, int on);
} edgel3_node_port;

/** A node at work. Its fields are its own business. */
typedef struct edgel3_node {
  edgel3_node_model model;
  edgel3_node_port port;
  edgel3_info info;
  uint32_t failures; /* found when it was opened: bits as SELF_TEST answers */
  edgel3_frontend frontend;
  uint8_t kind;  /* of what is coming in */
  uint8_t phase; /* what there is of it */
  uint8_t streaming;
  uint32_t received; /* bytes */
  uint32_t requests;
  uint32_t windows;
  uint32_t missed; /* samples */
  uint32_t frontend_ticks;
  uint32_t engine_ticks;
  int8_t embedding[EDGEL3_NODE_MAX_EMBEDDING];
  float scores[EDGEL3_NODE_MAX_CLASSES];
  edgel3_wire_decoder decoder;
  uint8_t body[EDGEL3_WIRE_MAX_BODY];
  uint8_t frame[EDGEL3_WIRE_FRAME_BYTES];
} edgel3_node;

/** Value number `index` of the window that the self-test runs. */
static inline int8_t edgel3_node_self_test_value(uint32_t index) {
  return (int8_t)(uint8_t)(index * 2654435761u >> 24);
}

/** Start a node. It answers its host even if the model is refused; SELF_TEST says why then.
 *
 * @return failures, as SELF_TEST answers them, but for the embedding, which is not tried
 */
uint32_t edgel3_node_open(edgel3_node *node, const edgel3_node_model *model,
                          const edgel3_node_port *port);

/** Take bytes from the host; answers are written before this returns. */
void edgel3_node_receive(edgel3_node *node, const uint8_t *bytes, uint32_t count);

/** Take samples from the microphone. A window that they complete is computed and sent at once, which
 * takes seconds: what is heard meanwhile is to be thrown away and told to edgel3_node_miss.
 */
void edgel3_node_hear(edgel3_node *node, const int16_t *samples, uint32_t count);

/** Samples were lost: the window that has begun is not whole and begins anew. */
void edgel3_node_miss(edgel3_node *node, uint32_t count);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_NODE_H_ */
