/* The node: answers requests of its host, and turns windows into embeddings and class scores. */
#include "edgel3_node.h"

#include <string.h>

#include "edgel3_bytes.h"
#include "edgel3_packed.h" /* for edgel3_crc32 */
#include "edgel3_version.h"

enum { KIND_PCM = 0, KIND_LOG_MEL = 1 };
enum { PHASE_NOTHING = 0, PHASE_COMING = 1, PHASE_COMPUTED = 2 };

/* Bytes of the answer to INFO before its strings, and of LIVE before the embedding. */
#define INFO_BYTES 60u
#define LIVE_BYTES 8u
/* Zero bytes that end the strings of INFO: board, version and labels. */
#define INFO_ZERO_BYTES (2u + EDGEL3_NODE_MAX_CLASSES)

/* A negative array size is an error; C99 has no static assertion. */
typedef char
    edgel3_info_exceeds_the_body[INFO_BYTES + INFO_ZERO_BYTES <= EDGEL3_WIRE_MAX_BODY ? 1 : -1];
typedef char edgel3_live_exceeds_the_body[LIVE_BYTES + EDGEL3_NODE_MAX_EMBEDDING +
                                                      4u * EDGEL3_NODE_MAX_CLASSES <=
                                                  EDGEL3_WIRE_MAX_BODY
                                              ? 1
                                              : -1];

/* Number of log-mel values of a window. */
static uint32_t window_values(const edgel3_node *node) {
  return node->model.frontend->mels * node->model.frontend->frames;
}

/* Number of bytes that the host sends for a window of the current kind. */
static uint32_t expected_bytes(const edgel3_node *node) {
  return node->kind == KIND_PCM ? 2u * node->model.frontend->window_samples : window_values(node);
}

static uint32_t classes(const edgel3_node *node) {
  return node->model.head == NULL ? 0 : node->model.head->classes;
}

/* Check model and memory, and set up the frontend. Return failures as SELF_TEST does. */
static uint32_t find_failures(edgel3_node *node) {
  const edgel3_node_model *model = &node->model;
  const edgel3_frontend_config *frontend = model->frontend;
  edgel3_node_memory *memory = &node->memory;
  memset(&node->info, 0, sizeof node->info);
  memset(memory, 0, sizeof *memory);
  const edgel3_status opened = model->engine->open(model, &node->info, memory);
  if ((opened != EDGEL3_OK && opened != EDGEL3_ERROR_ARENA) || node->info.rows != frontend->mels ||
      node->info.columns != frontend->frames ||
      (model->head != NULL && model->head->embedding != node->info.embedding)) {
    return EDGEL3_NODE_MODEL_REFUSED;
  }
  if (opened == EDGEL3_ERROR_ARENA ||
      edgel3_frontend_log_mel_bytes(frontend) > memory->idle_bytes ||
      edgel3_frontend_work_bytes(frontend) > memory->window_bytes ||
      window_values(node) > memory->window_bytes ||
      node->info.embedding > EDGEL3_NODE_MAX_EMBEDDING || classes(node) > EDGEL3_NODE_MAX_CLASSES) {
    return EDGEL3_NODE_MEMORY_TOO_SMALL;
  }
  /* This checks the frontend's tables. It clears memory, so it must follow the check of sizes. */
  if (edgel3_frontend_open(&node->frontend, frontend, memory->idle, memory->window) != EDGEL3_OK) {
    return EDGEL3_NODE_MODEL_REFUSED;
  }
  return 0;
}

uint32_t edgel3_node_open(edgel3_node *node, const edgel3_node_model *model,
                          const edgel3_node_port *port) {
  memset(node, 0, sizeof *node);
  node->model = *model;
  node->port = *port;
  node->failures = find_failures(node);
  return node->failures;
}

static void begin(edgel3_node *node, uint8_t kind) {
  node->kind = kind;
  node->received = 0;
  node->frontend_ticks = 0;
  node->phase = PHASE_COMING;
  if (kind == KIND_PCM) edgel3_frontend_begin(&node->frontend);
}

static uint32_t push(edgel3_node *node, const int16_t *samples, uint32_t count) {
  const uint32_t start = node->port.ticks(node->port.context);
  const uint32_t taken = edgel3_frontend_push(&node->frontend, samples, count);
  node->frontend_ticks += node->port.ticks(node->port.context) - start;
  return taken;
}

/* Run the network on the window and measure its time. */
static edgel3_status embed(edgel3_node *node) {
  const edgel3_node_model *model = &node->model;
  const uint32_t start = node->port.ticks(node->port.context);
  const edgel3_status status = model->engine->run(model, node->embedding, NULL, NULL);
  node->engine_ticks = node->port.ticks(node->port.context) - start;
  return status;
}

/* Compute embedding and scores of a window whose samples or log-mel values are complete. */
static edgel3_status compute(edgel3_node *node) {
  node->phase = PHASE_NOTHING; /* the input is consumed, even on an error */
  if (node->kind == KIND_PCM) {
    const uint32_t start = node->port.ticks(node->port.context);
    const edgel3_status status = edgel3_frontend_finish(&node->frontend);
    if (status != EDGEL3_OK) return status;
    edgel3_frontend_quantize(&node->frontend, (int8_t *)node->memory.window);
    node->frontend_ticks += node->port.ticks(node->port.context) - start;
  }
  const edgel3_status status = embed(node);
  if (status != EDGEL3_OK) return status;
  if (node->model.head != NULL) {
    edgel3_head_scores(node->model.head, node->embedding, node->scores);
  }
  node->windows += 1u;
  node->phase = PHASE_COMPUTED;
  return EDGEL3_OK;
}

/* Write the scores, if there is a head. Return the number of bytes. */
static uint32_t put_scores(const edgel3_node *node, uint8_t *bytes) {
  for (uint32_t c = 0; c < classes(node); ++c) edgel3_put_f32(bytes + 4u * c, node->scores[c]);
  return 4u * classes(node);
}

/* Send an answer whose body is in node->body. */
static void send(edgel3_node *node, uint8_t command, uint8_t sequence, uint8_t status,
                 uint32_t length) {
  const edgel3_wire_packet packet = {(uint8_t)(command | EDGEL3_WIRE_ANSWER), sequence, status,
                                     node->body, length};
  node->port.write(node->port.context, node->frame, edgel3_wire_encode(&packet, node->frame));
}

/* Append a string and a zero byte to a body, and return its new length. If there is no room, the
 * string is truncated. Room is reserved for the zero bytes of all following strings.
 */
static uint32_t put_string(uint8_t *body, uint32_t length, const char *text) {
  const uint32_t room = EDGEL3_WIRE_MAX_BODY - INFO_ZERO_BYTES;
  while (*text != 0 && length < room) body[length++] = (uint8_t)*text++;
  body[length] = 0;
  return length + 1u;
}

static uint32_t answer_info(edgel3_node *node) {
  const edgel3_frontend_config *frontend = node->model.frontend;
  /* A head with more classes is refused; there is no room to name them. */
  const uint32_t named = classes(node) <= EDGEL3_NODE_MAX_CLASSES ? classes(node) : 0;
  uint8_t *body = node->body;
  edgel3_put_u16(body, EDGEL3_WIRE_VERSION);
  edgel3_put_u16(body + 2, named);
  edgel3_put_u32(body + 4, frontend->sample_rate_hz);
  edgel3_put_u32(body + 8, frontend->window_samples);
  edgel3_put_u16(body + 12, frontend->mels);
  edgel3_put_u16(body + 14, frontend->frames);
  edgel3_put_u16(body + 16, node->info.embedding);
  edgel3_put_u16(body + 18, 0);
  edgel3_put_f32(body + 20, node->info.output_scale);
  edgel3_put_u32(body + 24, (uint32_t)node->info.output_zero_point);
  memcpy(body + 28, node->info.source_sha256, 16);
  edgel3_put_u32(body + 44, (uint32_t)node->model.network_bytes);
  edgel3_put_u32(body + 48, (uint32_t)node->model.arena_bytes);
  edgel3_put_u32(body + 52, (uint32_t)node->model.window_bytes);
  edgel3_put_u32(body + 56, node->port.ticks_per_second);
  uint32_t length = put_string(body, INFO_BYTES, node->port.board);
  length = put_string(body, length, EDGEL3_VERSION);
  for (uint32_t c = 0; c < named; ++c) {
    length = put_string(body, length, node->model.head->labels[c]);
  }
  return length;
}

static uint32_t answer_statistics(edgel3_node *node) {
  edgel3_put_u32(node->body, node->requests);
  edgel3_put_u32(node->body + 4, node->decoder.dropped);
  edgel3_put_u32(node->body + 8, node->windows);
  edgel3_put_u32(node->body + 12, node->missed);
  edgel3_put_u32(node->body + 16, node->frontend_ticks);
  edgel3_put_u32(node->body + 20, node->engine_ticks);
  return 24;
}

/* Add bytes to the window. Bytes that were received before are skipped. Return a status. */
static uint8_t take_data(edgel3_node *node, const uint8_t *bytes, uint32_t length,
                         uint32_t offset) {
  if (node->phase != PHASE_COMING) return EDGEL3_WIRE_ERROR_STATE;
  const uint32_t expected = expected_bytes(node);
  if (offset > expected || length > expected - offset) return EDGEL3_WIRE_ERROR_VALUE;
  if (offset > node->received) return EDGEL3_WIRE_ERROR_OFFSET;
  if (node->kind == KIND_PCM && (offset % 2u != 0 || length % 2u != 0)) {
    return EDGEL3_WIRE_ERROR_VALUE;
  }
  const uint32_t known = node->received - offset;
  if (known >= length) return 0;
  bytes += known;
  length -= known;
  if (node->kind == KIND_LOG_MEL) {
    memcpy((uint8_t *)node->memory.window + node->received, bytes, length);
  } else {
    /* In the packet the samples may be at an odd address: copy them. */
    int16_t samples[64];
    for (uint32_t done = 0; done < length;) {
      const uint32_t size = length - done < sizeof samples ? length - done : sizeof samples;
      memcpy(samples, bytes + done, size);
      push(node, samples, size / 2u);
      done += size;
    }
  }
  node->received += length;
  return 0;
}

static uint8_t embed_request(edgel3_node *node) {
  if (node->phase == PHASE_COMPUTED) return 0; /* the request was repeated: the result exists */
  if (node->phase != PHASE_COMING || node->received != expected_bytes(node)) {
    return EDGEL3_WIRE_ERROR_STATE;
  }
  return compute(node) == EDGEL3_OK ? 0 : EDGEL3_WIRE_ERROR_ENGINE;
}

/* Check everything and run the network once. Return failures as SELF_TEST does. */
static uint32_t self_test(edgel3_node *node) {
  node->failures = find_failures(node);
  if (node->failures != 0) return node->failures;
  node->phase = PHASE_NOTHING;
  int8_t *window = (int8_t *)node->memory.window;
  for (uint32_t i = 0; i < window_values(node); ++i) window[i] = edgel3_node_self_test_value(i);
  if (embed(node) != EDGEL3_OK) return EDGEL3_NODE_MODEL_REFUSED;
  const uint32_t crc = edgel3_crc32(0, (const uint8_t *)node->embedding, node->info.embedding);
  return crc == node->model.self_test_crc32 ? 0 : EDGEL3_NODE_OTHER_EMBEDDING;
}

/* Length of a request's body in bytes. UINT32_MAX for DATA, which has 4 bytes or more. */
static uint32_t request_length(uint8_t command) {
  switch (command) {
    case EDGEL3_WIRE_BEGIN:
    case EDGEL3_WIRE_STREAM: return 1;
    case EDGEL3_WIRE_LOG_MEL: return 8;
    case EDGEL3_WIRE_DATA: return UINT32_MAX;
    default: return 0;
  }
}

/* Carry out a request. Return the status of the answer, and in `length` the length of its body. */
static uint8_t serve(edgel3_node *node, const edgel3_wire_packet *request, uint32_t *length) {
  const uint8_t command = request->command;
  const uint8_t *body = request->body;
  *length = 0;
  if (command < EDGEL3_WIRE_INFO || command > EDGEL3_WIRE_SELF_TEST) {
    return EDGEL3_WIRE_ERROR_COMMAND;
  }
  const uint32_t wanted = request_length(command);
  if (wanted == UINT32_MAX ? request->length < 4u : request->length != wanted) {
    return EDGEL3_WIRE_ERROR_LENGTH;
  }
  switch (command) {
    case EDGEL3_WIRE_INFO: *length = answer_info(node); return 0;
    case EDGEL3_WIRE_STATISTICS: *length = answer_statistics(node); return 0;
    case EDGEL3_WIRE_STREAM:
      if (body[0] > 1u) return EDGEL3_WIRE_ERROR_VALUE;
      if (node->port.listen == NULL) return EDGEL3_WIRE_ERROR_ABSENT;
      if (node->failures != 0) return EDGEL3_WIRE_ERROR_ENGINE;
      if (!node->port.listen(node->port.context, body[0])) return EDGEL3_WIRE_ERROR_ABSENT;
      if (body[0]) {
        begin(node, KIND_PCM);
      } else if (node->streaming) {
        node->phase = PHASE_NOTHING; /* discard the incomplete window */
      }
      node->streaming = body[0];
      return 0;
    default: break;
  }
  /* All other requests use the memory that streaming needs. */
  if (node->streaming) return EDGEL3_WIRE_ERROR_BUSY;
  if (command == EDGEL3_WIRE_SELF_TEST) {
    edgel3_put_u32(node->body, self_test(node));
    *length = 4;
    return 0;
  }
  if (node->failures != 0) return EDGEL3_WIRE_ERROR_ENGINE;
  uint8_t status = 0;
  switch (command) {
    case EDGEL3_WIRE_BEGIN:
      if (body[0] > KIND_LOG_MEL) return EDGEL3_WIRE_ERROR_VALUE;
      begin(node, body[0]);
      edgel3_put_u32(node->body, expected_bytes(node));
      *length = 4;
      break;
    case EDGEL3_WIRE_DATA:
      status = take_data(node, body + 4, request->length - 4u, edgel3_get_u32(body));
      edgel3_put_u32(node->body, node->received);
      *length = 4;
      break;
    case EDGEL3_WIRE_EMBED:
      status = embed_request(node);
      memcpy(node->body, node->embedding, node->info.embedding);
      *length = node->info.embedding;
      break;
    case EDGEL3_WIRE_LOG_MEL: {
      const uint32_t offset = edgel3_get_u32(body);
      const uint32_t count = edgel3_get_u32(body + 4);
      if (node->phase != PHASE_COMPUTED) return EDGEL3_WIRE_ERROR_STATE;
      if (count > EDGEL3_WIRE_MAX_BODY || offset > window_values(node) ||
          count > window_values(node) - offset) {
        return EDGEL3_WIRE_ERROR_VALUE;
      }
      memcpy(node->body, (const uint8_t *)node->memory.window + offset, count);
      *length = count;
      break;
    }
    case EDGEL3_WIRE_SCORES:
    default:
      if (node->model.head == NULL) return EDGEL3_WIRE_ERROR_ABSENT;
      if (node->phase != PHASE_COMPUTED) return EDGEL3_WIRE_ERROR_STATE;
      *length = put_scores(node, node->body);
      break;
  }
  return status;
}

void edgel3_node_receive(edgel3_node *node, const uint8_t *bytes, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    edgel3_wire_packet request;
    if (!edgel3_wire_decode(&node->decoder, bytes[i], &request)) continue;
    uint32_t length;
    const uint8_t status = serve(node, &request, &length);
    node->requests += 1u;
    send(node, request.command, request.sequence, status, status == 0 ? length : 0);
  }
}

void edgel3_node_hear(edgel3_node *node, const int16_t *samples, uint32_t count) {
  while (node->streaming && count > 0) {
    const uint32_t taken = push(node, samples, count);
    samples += taken;
    count -= taken;
    if (!edgel3_frontend_is_full(&node->frontend)) continue;
    if (compute(node) == EDGEL3_OK) {
      edgel3_put_u32(node->body, node->windows);
      edgel3_put_u32(node->body + 4, node->port.milliseconds(node->port.context));
      memcpy(node->body + LIVE_BYTES, node->embedding, node->info.embedding);
      const uint32_t length = LIVE_BYTES + node->info.embedding;
      send(node, EDGEL3_WIRE_LIVE, 0, 0, length + put_scores(node, node->body + length));
    }
    begin(node, KIND_PCM);
  }
}

void edgel3_node_miss(edgel3_node *node, uint32_t count) {
  node->missed += count;
  if (node->streaming) begin(node, KIND_PCM);
}
