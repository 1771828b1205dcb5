/* A node: turns samples from a microphone or from its host into embeddings and class scores.
 *
 * The board provides memory, a connection to the host, a clock and possibly a microphone. Its main
 * loop passes what it receives to the functions below. This code is the same for every board.
 * edgel3_wire.h describes the protocol of the connection.
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

/** Largest embedding, in values. */
#define EDGEL3_NODE_MAX_EMBEDDING 512u
/** Largest number of classes of a head. */
#define EDGEL3_NODE_MAX_CLASSES 64u

/* Failures in the answer to SELF_TEST, one bit each. */
/** The network is damaged, or frontend or head belong to another network. */
#define EDGEL3_NODE_MODEL_REFUSED 1u
/** The arena or another buffer is too small. */
#define EDGEL3_NODE_MEMORY_TOO_SMALL 2u
/** The embedding differs from the one that the converter computed. */
#define EDGEL3_NODE_OTHER_EMBEDDING 4u

struct edgel3_node_model;

/** Memory that a node uses while its network does not run. */
typedef struct edgel3_node_memory {
  void *idle; /**< memory that running the network overwrites, aligned to 16 bytes */
  size_t idle_bytes;
  void *window; /**< the input of the network, int8 [mels][frames], aligned to 16 bytes; running the
                     network changes only what follows it */
  size_t window_bytes;
} edgel3_node_memory;

/** The engine of a node: runs its network. */
typedef struct edgel3_node_engine {
  /** Check a model, describe it, and prepare to run it. Writes to arena and window.
   *
   * @param[in]  model   the model
   * @param[out] info    properties of the network
   * @param[out] memory  memory for the node, in the arena and the window of the model
   * @return EDGEL3_OK, EDGEL3_ERROR_ARENA if the arena is too small, or why the model is refused
   */
  edgel3_status (*open)(const struct edgel3_node_model *model, edgel3_info *info,
                        edgel3_node_memory *memory);
  /** Compute the embedding of the window that is in the memory that `open` returned.
   *
   * @param[in]  model         the model, opened
   * @param[out] embedding     int8 [EDGEL3_NODE_MAX_EMBEDDING]; the network's embedding size is
   *                           written
   * @param[in]  between_rows  to be called often while the network runs, at best after every row of
   *                           a layer; null to call none
   * @param[in]  context       passed to every call of between_rows
   * @return EDGEL3_OK, or why the network did not run
   */
  edgel3_status (*run)(const struct edgel3_node_model *model, int8_t *embedding,
                       edgel3_between_rows between_rows, void *context);
} edgel3_node_engine;

/** Runs packed models with this library. edgel3_node_tflm.h has the engines that use TFLM. */
extern const edgel3_node_engine edgel3_node_packed;

/** A model as the converter writes it, and the memory that it needs, aligned to 16 bytes. */
typedef struct edgel3_node_model {
  const edgel3_node_engine *engine;
  const void *network; /**< a packed model, or a flatbuffer for an engine that uses TFLM */
  size_t network_bytes;
  const uint8_t *source_sha256; /**< [16] as in edgel3_info; null if the network contains it */
  const edgel3_frontend_config *frontend;
  const edgel3_head *head;  /**< null without a head */
  uint32_t self_test_crc32; /**< of the embedding of the window of edgel3_node_self_test_value */
  void *arena;              /**< the engine's arena; with closed ears also the frontend's levels */
  size_t arena_bytes;
  void *window; /**< the network's input; with closed ears also the frontend's spectrum and ring */
  size_t window_bytes;
  /** edgel3_node_ears_bytes bytes open the ears: the frontend works here, so that it can hear the
   * next window while the network runs. Null or less: closed ears. */
  void *ears;
  size_t ears_bytes;
} edgel3_node_model;

/** Return the size of the memory that opens the ears, in bytes.
 *
 * @param[in] frontend  the frontend's configuration
 */
size_t edgel3_node_ears_bytes(const edgel3_frontend_config *frontend);

/** What a board provides. */
typedef struct edgel3_node_port {
  const char *board; /**< name of the board for INFO; may change while the node runs */
  void *context;     /**< passed to every function of the port */
  /** Send bytes to the host.
   *
   * @param[in] context  the port's context
   * @param[in] bytes    uint8 [count], one whole frame
   * @param[in] count    1 to EDGEL3_WIRE_FRAME_BYTES
   */
  void (*write)(void *context, const uint8_t *bytes, uint32_t count);
  /** Return a counter, modulo 2^32, for measuring time.
   *
   * @param[in] context  the port's context
   */
  uint32_t (*ticks)(void *context);
  uint32_t ticks_per_second; /**< frequency of `ticks` in Hz */
  /** Return the milliseconds since the start of the board, modulo 2^32.
   *
   * @param[in] context  the port's context
   */
  uint32_t (*milliseconds)(void *context);
  /** Turn the microphone on or off. Null on a board without a microphone.
   *
   * @param[in] context  the port's context
   * @param[in] on       1 to turn it on, 0 to turn it off
   * @return 1 on success, otherwise 0
   */
  int (*listen)(void *context, int on);
  /** Pass everything that the microphone has heard to edgel3_node_hear and edgel3_node_miss.
   *
   * If the ears are open, the node calls this function after every row of the network. Null on a
   * board without a microphone.
   *
   * @param[in] context  the port's context
   */
  void (*hear)(void *context);
} edgel3_node_port;

/** State of a node. Private: do not access the fields. */
typedef struct edgel3_node {
  edgel3_node_model model;
  edgel3_node_port port;
  edgel3_info info;
  edgel3_node_memory memory;
  uint32_t
      failures; /**< found by edgel3_node_open or SELF_TEST; bits as in the answer to SELF_TEST */
  edgel3_frontend frontend;
  uint8_t kind;            /**< of the window: 0 PCM, 1 log-mel */
  uint8_t phase;           /**< of the window: none, being received, or computed */
  uint8_t streaming;       /**< whether samples come from the microphone */
  uint8_t is_open;         /**< whether the ears are open while the network runs */
  uint8_t is_computing;    /**< whether the network runs on a window from the microphone */
  uint32_t received;       /**< bytes of the window received from the host */
  uint32_t requests;       /**< requests answered */
  uint32_t windows;        /**< windows computed */
  uint32_t missed;         /**< microphone samples lost */
  uint64_t covered;        /**< microphone samples in windows computed */
  uint64_t skipped;        /**< microphone samples heard, but in no window computed */
  uint64_t position;       /**< microphone samples heard or lost since the stream began */
  uint64_t first;          /**< position of the first sample of the window being heard */
  uint32_t passing;        /**< samples to skip before the next window begins */
  uint32_t meanwhile;      /**< samples heard or lost while the network ran last */
  uint32_t waiting;        /**< samples since the window being heard is complete */
  uint32_t hearing_ticks;  /**< time of the frontend for the window being heard */
  uint32_t between_ticks;  /**< time between rows, while the network ran last */
  uint32_t frontend_ticks; /**< time of the frontend for the latest window */
  uint32_t engine_ticks;   /**< time of the engine for the latest window */
  int8_t embedding[EDGEL3_NODE_MAX_EMBEDDING];
  float scores[EDGEL3_NODE_MAX_CLASSES];
  edgel3_wire_decoder decoder;
  uint8_t frame[EDGEL3_WIRE_FRAME_BYTES]; /**< frame of an answer; its body is encoded in place */
} edgel3_node;

/** Return a quantized value of the window that SELF_TEST runs.
 *
 * @param[in] index  position in the window, int8 [mels][frames]; 0 is the first
 */
static inline int8_t edgel3_node_self_test_value(uint32_t index) {
  return (int8_t)(uint8_t)(index * 2654435761u >> 24);
}

/** Set up a node.
 *
 * The node answers its host even if the model is refused; SELF_TEST then returns the reason.
 *
 * @param[out] node   the node
 * @param[in]  model  the model, which is copied. What it points to must stay as long as the node is
 *                    in use
 * @param[in]  port   the board's functions, which are copied
 * @return failures as in the answer to SELF_TEST; the embedding is not checked
 */
uint32_t edgel3_node_open(edgel3_node *node, const edgel3_node_model *model,
                          const edgel3_node_port *port);

/** Process bytes from the host. Answers are sent before the function returns.
 *
 * @param[in,out] node   an open node
 * @param[in]     bytes  uint8 [count]
 * @param[in]     count  number of bytes; 0 or more
 */
void edgel3_node_receive(edgel3_node *node, const uint8_t *bytes, uint32_t count);

/** Process samples from the microphone. Without streaming they are ignored.
 *
 * If the samples complete a window, the function computes and sends its embedding before it
 * returns. That may take seconds.
 *
 * With open ears the node calls the port's `hear` meanwhile, which calls this function again. If the
 * network takes less time than a window lasts, windows follow one another without a gap. Otherwise
 * the next window begins as late as the time of the last run allows, so that it ends when the
 * network does: it is the latest sound. The samples before are skipped and counted. A window that
 * is complete before the network ends waits for the next call, so that the board can pass requests
 * to the node meanwhile.
 *
 * With closed ears, the board discards the samples of that time and reports them by
 * edgel3_node_miss.
 *
 * @param[in,out] node     an open node
 * @param[in]     samples  int16 [count], full scale 32768
 * @param[in]     count    number of samples; 0 or more
 */
void edgel3_node_hear(edgel3_node *node, const int16_t *samples, uint32_t count);

/** Report lost microphone samples. The current window has a gap: the node begins a new one.
 *
 * @param[in,out] node   an open node
 * @param[in]     count  number of lost samples
 */
void edgel3_node_miss(edgel3_node *node, uint32_t count);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_NODE_H_ */
