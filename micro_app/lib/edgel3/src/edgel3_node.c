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
#define LIVE_BYTES 28u
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
  const size_t work_bytes = EDGEL3_FRONTEND_WORK_BYTES(frontend->dft_samples);
  node->is_open = node->port.hear != NULL && model->ears != NULL &&
                  model->ears_bytes >= edgel3_node_ears_bytes(frontend);
  uint8_t *work = (uint8_t *)(node->is_open ? model->ears : memory->window);
  uint8_t *levels = node->is_open ? work + work_bytes : (uint8_t *)memory->idle;
  if (opened == EDGEL3_ERROR_ARENA || window_values(node) > memory->window_bytes ||
      (!node->is_open && (edgel3_frontend_levels_bytes(frontend) > memory->idle_bytes ||
                          work_bytes > memory->window_bytes)) ||
      node->info.embedding > EDGEL3_NODE_MAX_EMBEDDING || classes(node) > EDGEL3_NODE_MAX_CLASSES) {
    return EDGEL3_NODE_MEMORY_TOO_SMALL;
  }
  /* This checks the frontend's tables. It clears memory, so it must follow the check of sizes. */
  uint8_t *ring = work + EDGEL3_FRONTEND_SPECTRUM_BYTES(frontend->dft_samples);
  if (edgel3_frontend_open(&node->frontend, frontend, levels, ring, work) != EDGEL3_OK) {
    return EDGEL3_NODE_MODEL_REFUSED;
  }
  return 0;
}

size_t edgel3_node_ears_bytes(const edgel3_frontend_config *frontend) {
  return EDGEL3_FRONTEND_WORK_BYTES(frontend->dft_samples) + edgel3_frontend_levels_bytes(frontend);
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
  node->hearing_ticks = 0;
  node->phase = PHASE_COMING;
  if (kind == KIND_PCM) edgel3_frontend_begin(&node->frontend);
}

static uint32_t push(edgel3_node *node, const int16_t *samples, uint32_t count) {
  const uint32_t start = node->port.ticks(node->port.context);
  const uint32_t taken = edgel3_frontend_push(&node->frontend, samples, count);
  node->hearing_ticks += node->port.ticks(node->port.context) - start;
  return taken;
}

/* Turn a window whose samples or log-mel values are complete into the network's input. */
static edgel3_status complete(edgel3_node *node) {
  node->phase = PHASE_NOTHING; /* the input is consumed, even on an error */
  if (node->kind == KIND_PCM) {
    const uint32_t start = node->port.ticks(node->port.context);
    const edgel3_status status = edgel3_frontend_finish(&node->frontend);
    if (status != EDGEL3_OK) return status;
    edgel3_frontend_quantize(&node->frontend, (int8_t *)node->memory.window);
    node->hearing_ticks += node->port.ticks(node->port.context) - start;
  }
  node->frontend_ticks = node->hearing_ticks;
  return EDGEL3_OK;
}

/* Hear what the microphone has to say, between two rows of the network. */
static void hear_between_rows(void *context) {
  edgel3_node *node = (edgel3_node *)context;
  const uint32_t start = node->port.ticks(node->port.context);
  node->port.hear(node->port.context);
  node->between_ticks += node->port.ticks(node->port.context) - start;
}

/* Run the network on the window and measure its time. */
static edgel3_status embed(edgel3_node *node) {
  const edgel3_node_model *model = &node->model;
  const uint32_t start = node->port.ticks(node->port.context);
  node->between_ticks = 0;
  const edgel3_status status = model->engine->run(
      model, node->embedding, node->is_computing ? hear_between_rows : NULL, node);
  node->engine_ticks = node->port.ticks(node->port.context) - start - node->between_ticks;
  return status;
}

/* Compute embedding and scores of a completed window. */
static edgel3_status compute(edgel3_node *node) {
  const edgel3_status status = embed(node);
  if (status != EDGEL3_OK) return status;
  if (node->model.head != NULL) {
    edgel3_head_scores(node->model.head, node->embedding, node->scores);
  }
  node->windows += 1u;
  return EDGEL3_OK;
}

/* Write the scores, if there is a head. Return the number of bytes. */
static uint32_t put_scores(const edgel3_node *node, uint8_t *bytes) {
  for (uint32_t c = 0; c < classes(node); ++c) edgel3_put_f32(bytes + 4u * c, node->scores[c]);
  return 4u * classes(node);
}

/* Return where the body of an answer is written. */
static uint8_t *answer_body(edgel3_node *node) { return node->frame + EDGEL3_WIRE_BODY_OFFSET; }

/* Send an answer whose body is written. This overwrites the body. */
static void send(edgel3_node *node, uint8_t command, uint8_t sequence, uint8_t status,
                 uint32_t length) {
  const edgel3_wire_packet packet = {(uint8_t)(command | EDGEL3_WIRE_ANSWER), sequence, status,
                                     answer_body(node), length};
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
  uint8_t *body = answer_body(node);
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
  uint8_t *body = answer_body(node);
  edgel3_put_u32(body, node->requests);
  edgel3_put_u32(body + 4, node->decoder.dropped);
  edgel3_put_u32(body + 8, node->windows);
  edgel3_put_u32(body + 12, node->missed);
  edgel3_put_u32(body + 16, node->frontend_ticks);
  edgel3_put_u32(body + 20, node->engine_ticks);
  edgel3_put_u64(body + 24, node->covered);
  edgel3_put_u64(body + 32, node->skipped);
  return 40;
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
  if (complete(node) != EDGEL3_OK || compute(node) != EDGEL3_OK) return EDGEL3_WIRE_ERROR_ENGINE;
  node->phase = PHASE_COMPUTED;
  return 0;
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

/* Begin to hear a window with the next sample. */
static void hear_window(edgel3_node *node) {
  begin(node, KIND_PCM);
  node->first = node->position;
  node->waiting = 0;
}

/* Turn the microphone on or off. Return a status. */
static uint8_t stream(edgel3_node *node, uint8_t on) {
  if (on > 1u) return EDGEL3_WIRE_ERROR_VALUE;
  if (node->port.listen == NULL) return EDGEL3_WIRE_ERROR_ABSENT;
  if (node->failures != 0) return EDGEL3_WIRE_ERROR_ENGINE;
  if (!node->port.listen(node->port.context, on)) return EDGEL3_WIRE_ERROR_ABSENT;
  if (on) {
    node->position = 0;
    node->passing = 0;
    node->meanwhile = 0;
    hear_window(node);
  } else if (node->streaming) {
    node->phase = PHASE_NOTHING; /* discard the incomplete window */
  }
  node->streaming = on;
  return 0;
}

/* Carry out a request. Return the status of the answer, and in `length` the length of its body. */
static uint8_t serve(edgel3_node *node, const edgel3_wire_packet *request, uint32_t *length) {
  const uint8_t command = request->command;
  const uint8_t *body = request->body;
  uint8_t *answer = answer_body(node);
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
    case EDGEL3_WIRE_STREAM: return stream(node, body[0]);
    default: break;
  }
  /* All other requests use the memory that streaming needs. */
  if (node->streaming) return EDGEL3_WIRE_ERROR_BUSY;
  if (command == EDGEL3_WIRE_SELF_TEST) {
    edgel3_put_u32(answer, self_test(node));
    *length = 4;
    return 0;
  }
  if (node->failures != 0) return EDGEL3_WIRE_ERROR_ENGINE;
  uint8_t status = 0;
  switch (command) {
    case EDGEL3_WIRE_BEGIN:
      if (body[0] > KIND_LOG_MEL) return EDGEL3_WIRE_ERROR_VALUE;
      begin(node, body[0]);
      edgel3_put_u32(answer, expected_bytes(node));
      *length = 4;
      break;
    case EDGEL3_WIRE_DATA:
      status = take_data(node, body + 4, request->length - 4u, edgel3_get_u32(body));
      edgel3_put_u32(answer, node->received);
      *length = 4;
      break;
    case EDGEL3_WIRE_EMBED:
      status = embed_request(node);
      memcpy(answer, node->embedding, node->info.embedding);
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
      memcpy(answer, (const uint8_t *)node->memory.window + offset, count);
      *length = count;
      break;
    }
    case EDGEL3_WIRE_SCORES:
    default:
      if (node->model.head == NULL) return EDGEL3_WIRE_ERROR_ABSENT;
      if (node->phase != PHASE_COMPUTED) return EDGEL3_WIRE_ERROR_STATE;
      *length = put_scores(node, answer);
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

/* Discard what was heard of a window, and begin another. */
static void drop_window(edgel3_node *node) {
  const uint32_t whole = node->model.frontend->window_samples;
  node->skipped += node->frontend.samples < whole ? node->frontend.samples : whole;
  hear_window(node);
}

/* Let a complete window wait while samples pass. A window that has waited for half of its length is
 * no longer the present: another one begins.
 */
static void wait(edgel3_node *node, uint32_t count) {
  node->position += count;
  node->waiting += count;
  if (node->waiting >= node->model.frontend->window_samples / 2u) drop_window(node);
}

/* Take some of the samples, and return how many. A complete window takes none, unless the network
 * runs: then it waits.
 */
static uint32_t take_heard(edgel3_node *node, const int16_t *samples, uint32_t count) {
  if (node->passing > 0) {
    if (count > node->passing) count = node->passing;
    node->passing -= count;
    node->skipped += count;
    node->position += count;
    node->first = node->position;
    return count;
  }
  if (!edgel3_frontend_is_full(&node->frontend)) {
    count = push(node, samples, count);
    node->position += count;
    return count;
  }
  if (!node->is_computing) return 0;
  node->skipped += count;
  wait(node, count);
  return count;
}

static void take_all(edgel3_node *node, const int16_t *samples, uint32_t count) {
  node->meanwhile += count;
  while (count > 0) {
    const uint32_t taken = take_heard(node, samples, count);
    samples += taken;
    count -= taken;
  }
}

/* Send the result of the window that began at a position. */
static void send_live(edgel3_node *node, uint64_t first) {
  uint8_t *body = answer_body(node);
  edgel3_put_u32(body, node->windows);
  edgel3_put_u32(body + 4, node->port.milliseconds(node->port.context));
  edgel3_put_u64(body + 8, first);
  edgel3_put_u32(body + 16, node->missed);
  edgel3_put_u32(body + 20, node->frontend_ticks);
  edgel3_put_u32(body + 24, node->engine_ticks);
  memcpy(body + LIVE_BYTES, node->embedding, node->info.embedding);
  const uint32_t length = LIVE_BYTES + node->info.embedding;
  send(node, EDGEL3_WIRE_LIVE, 0, 0, length + put_scores(node, body + length));
}

/* Embed the complete window. With open ears, first take the samples that follow it.
 * Return how many were taken.
 */
static uint32_t embed_heard(edgel3_node *node, const int16_t *samples, uint32_t count) {
  const uint32_t whole = node->model.frontend->window_samples;
  const uint64_t first = node->first;
  edgel3_status status = complete(node);
  if (node->is_open) {
    /* The next window is to end when the network does, if it takes as long as the last time. */
    node->passing = node->meanwhile > whole ? node->meanwhile - whole : 0;
    node->meanwhile = 0;
    node->is_computing = 1;
    hear_window(node);
    take_all(node, samples, count);
  }
  if (status == EDGEL3_OK) status = compute(node);
  if (node->is_open) {
    node->is_computing = 0;
    node->passing = 0;
  } else {
    hear_window(node);
  }
  if (status == EDGEL3_OK) {
    node->covered += whole;
    send_live(node, first);
  } else {
    node->skipped += whole;
  }
  return node->is_open ? count : 0;
}

void edgel3_node_hear(edgel3_node *node, const int16_t *samples, uint32_t count) {
  if (node->is_computing) {
    take_all(node, samples, count);
    return;
  }
  while (node->streaming) {
    uint32_t taken;
    if (edgel3_frontend_is_full(&node->frontend)) {
      taken = embed_heard(node, samples, count);
      if (node->is_open) return; /* it took all samples; requests must be served between windows */
    } else if (count > 0) {
      taken = take_heard(node, samples, count);
    } else {
      return;
    }
    samples += taken;
    count -= taken;
  }
}

void edgel3_node_miss(edgel3_node *node, uint32_t count) {
  node->missed += count;
  if (!node->streaming) return;
  node->meanwhile += count;
  if (edgel3_frontend_is_full(&node->frontend)) {
    wait(node, count); /* the gap is after the window */
    return;
  }
  node->position += count;
  node->passing -= count < node->passing ? count : node->passing;
  drop_window(node);
}
