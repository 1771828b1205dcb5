/* libFuzzer target: for any input, a node must follow the protocol and stay within its memory.
 *
 * tests/micro_app/test_fuzz_node.py builds and runs it. By hand:
 *
 * clang -g -O1 -fsanitize=fuzzer,address,undefined -I../src fuzz_node.c ../src/[files] -o fuzz_node
 *
 * The first byte of an input says whether the model is refused (bit 0), whether the ears are open
 * (bit 1), how many samples the microphone hears in a row of the network (bits 2 to 6), and whether
 * it loses as many (bit 7). Then come entries of a length (12 bits of two bytes) and as many bytes.
 * Bit 15 of the length marks bytes for the decoder, bit 14 samples from the microphone, bit 13 a
 * number of lost samples. All other entries are requests: a command, a sequence number and a body,
 * which the target puts into a frame, because hardly any random frame has a correct checksum. The
 * node has a frontend, a head and a microphone.
 */
#include <stdlib.h>
#include <string.h>

#include "edgel3_bytes.h"
#include "edgel3_node.h"
#include "edgel3_packed.h" /* for edgel3_crc32 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

enum { MELS = 8, FRAMES = 5, DFT = 16, HOP = 8, SAMPLES = 40, EMBEDDING = 4, CLASSES = 2 };
/* Header, one record, channel table (4 + 4 + 2 + 2 + 1 bytes for each channel), weights. */
enum { TABLE = 64 + 32, WEIGHTS = TABLE + 13 * EMBEDDING, MODEL = WEIGHTS + 9 * EMBEDDING + 4 };

static uint8_t packed[MODEL] __attribute__((aligned(16)));
static float window[DFT], cosines[DFT / 4 + 1];
static uint16_t mel_first[MELS], mel_count[MELS];
static float mel_weights[MELS];
static const edgel3_frontend_config frontend = {
    .sample_rate_hz = 8000,
    .window_samples = SAMPLES,
    .dft_samples = DFT,
    .hop_samples = HOP,
    .mels = MELS,
    .frames = FRAMES,
    .dynamic_range_db = 80.0f,
    .input_factor = 3.0f,
    .input_offset = 100.0f,
    .window = window,
    .cosines = cosines,
    .mel_first = mel_first,
    .mel_count = mel_count,
    .mel_weights = mel_weights,
};
static const int8_t head_weights[CLASSES * EMBEDDING] = {1, -2, 3, -4, 5, -128, 127, 0};
static const float head_scale[CLASSES] = {0.1f, 10.0f};
static const float head_bias[CLASSES] = {0.5f, -1.0f};
static const char *const labels[CLASSES] = {"one", "two"};
static const edgel3_head head = {
    .kind = EDGEL3_HEAD_SOFTMAX,
    .classes = CLASSES,
    .embedding = EMBEDDING,
    .embedding_zero_point = -128,
    .weights = head_weights,
    .scale = head_scale,
    .bias = head_bias,
    .labels = labels,
};

/* Write a packed model of one convolution with a few taps. */
static void make_model(void) {
  memcpy(packed, "EL3P\1\0\1", 7);
  edgel3_put_u32(packed + 8, MODEL);
  packed[16] = MELS;
  packed[18] = FRAMES;
  packed[20] = EMBEDDING;
  edgel3_put_u32(packed + 24, 0x3f800000u);
  edgel3_put_u32(packed + 32, 0x3f800000u);
  packed[28] = 0x80;
  packed[36] = 0x80;
  uint8_t *record = packed + 64;
  record[0] = 1;
  record[2] = EMBEDDING;
  record[4] = 0x80;
  record[5] = 0x80;
  record[6] = 0x80;
  record[7] = 0x7f;
  record[8] = EDGEL3_POOL_GLOBAL;
  record[9] = EDGEL3_ENCODING_DENSE;
  edgel3_put_u32(record + 12, TABLE);
  edgel3_put_u32(record + 16, WEIGHTS);
  edgel3_put_u32(record + 20, MODEL - WEIGHTS);
  uint8_t *table = packed + TABLE;
  for (int channel = 0; channel < EMBEDDING; ++channel) {
    edgel3_put_u32(table + 4 * EMBEDDING + 4 * channel, 1u << 30);
    table[10 * EMBEDDING + 2 * channel] = 9; /* every weight is 1 */
    table[12 * EMBEDDING + channel] = (uint8_t)-4;
  }
  memset(packed + WEIGHTS, 1, 9 * EMBEDDING);
  edgel3_put_u32(packed + 12, edgel3_crc32(0, packed + 16, MODEL - 16));
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  make_model();
  edgel3_info info;
  if (edgel3_describe(packed, sizeof packed, &info) != EDGEL3_OK) abort();
  for (int i = 0; i < DFT; ++i) window[i] = 1.0f;
  for (int i = 0; i < MELS; ++i) {
    mel_first[i] = (uint16_t)i;
    mel_count[i] = 1;
    mel_weights[i] = 1.0f;
  }
  return 0;
}

/* The host: receives one whole frame for each request with a correct checksum. */
typedef struct host {
  edgel3_node *node;
  edgel3_wire_decoder decoder;
  uint32_t answers;
  uint32_t live;
  uint8_t expected_command;
  uint8_t expected_sequence;
  int expects;
  uint32_t per_row; /* samples that the microphone hears in a row of the network */
  int loses;        /* whether it loses as many */
} host;

static uint32_t fields_of(const edgel3_wire_packet *packet) {
  return packet->command | (uint32_t)packet->sequence << 8;
}

static void check_answer(host *to, const edgel3_wire_packet *answer) {
  if (!(answer->command & EDGEL3_WIRE_ANSWER) || answer->status > EDGEL3_WIRE_ERROR_ABSENT) abort();
  if (answer->status != 0 && answer->length != 0) abort();
  if (answer->command == (EDGEL3_WIRE_LIVE | EDGEL3_WIRE_ANSWER) && answer->sequence == 0 &&
      answer->status == 0) {
    if (answer->length != 28 + EMBEDDING + 4 * CLASSES) abort();
    to->live += 1;
    return;
  }
  to->answers += 1;
  if (to->expects && fields_of(answer) != ((to->expected_command | EDGEL3_WIRE_ANSWER) |
                                           (uint32_t)to->expected_sequence << 8)) {
    abort();
  }
}

static void write_frame(void *context, const uint8_t *bytes, uint32_t count) {
  host *to = (host *)context;
  for (uint32_t i = 0; i < count; ++i) {
    edgel3_wire_packet answer;
    if (edgel3_wire_decode(&to->decoder, bytes[i], &answer)) check_answer(to, &answer);
  }
  if (to->decoder.length != 0 || to->decoder.dropped != 0) abort();
}

static uint32_t count_up(void *context) {
  static uint32_t ticks;
  (void)context;
  return ++ticks;
}

static int listen(void *context, int on) {
  (void)context;
  (void)on;
  return 1;
}

static void hear(void *context) {
  const host *from = (const host *)context;
  /* From the heap, so that AddressSanitizer knows when the node may no longer read it. */
  int16_t *samples = (int16_t *)calloc(from->per_row + 1u, sizeof *samples);
  if (samples == NULL) abort();
  edgel3_node_hear(from->node, samples, from->per_row);
  free(samples);
  if (from->loses) edgel3_node_miss(from->node, from->per_row);
}

static void send_request(edgel3_node *node, host *from, const uint8_t *data, uint32_t length) {
  static uint8_t frame[EDGEL3_WIRE_FRAME_BYTES];
  const edgel3_wire_packet request = {data[0] & 0x7fu, data[1], 0, data + 2, length - 2};
  const uint32_t size = edgel3_wire_encode(&request, frame);
  /* A zero ends the bytes that were sent before. They may form a whole frame, which is answered. */
  edgel3_node_receive(node, (const uint8_t *)"", 1);
  const uint32_t answers = from->answers;
  from->expected_command = request.command;
  from->expected_sequence = request.sequence;
  from->expects = 1;
  edgel3_node_receive(node, frame, size);
  from->expects = 0;
  if (from->answers != answers + 1) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  const int refused = data[0] & 1;
  const size_t ears_bytes = data[0] & 2 ? edgel3_node_ears_bytes(&frontend) : 0;
  const uint32_t per_row = data[0] >> 2 & 31u;
  const int loses = data[0] >> 7;
  ++data;
  --size;
  size_t arena_bytes = 0;
  edgel3_arena_bytes(packed, sizeof packed, EDGEL3_KERNELS_BEST, &arena_bytes);
  if (arena_bytes < edgel3_frontend_levels_bytes(&frontend)) {
    arena_bytes = edgel3_frontend_levels_bytes(&frontend);
  }
  size_t window_bytes = EDGEL3_FRONTEND_WORK_BYTES(frontend.dft_samples);
  if (window_bytes < MELS * FRAMES) window_bytes = MELS * FRAMES;
  /* From the heap, so that AddressSanitizer checks both ends. */
  void *arena = NULL, *input = NULL, *ears = NULL;
  if (posix_memalign(&arena, 64, arena_bytes) != 0) return 0;
  if (posix_memalign(&input, 16, window_bytes) != 0) return 0;
  if (posix_memalign(&ears, 16, ears_bytes) != 0) return 0;
  edgel3_node *node = (edgel3_node *)malloc(sizeof *node);
  host from = {.node = node, .per_row = per_row, .loses = loses};
  const edgel3_node_model model = {
      .engine = &edgel3_node_packed,
      .network = packed,
      .network_bytes = sizeof packed - (size_t)refused,
      .frontend = &frontend,
      .head = &head,
      .arena = arena,
      .arena_bytes = arena_bytes,
      .window = input,
      .window_bytes = window_bytes,
      .ears = ears,
      .ears_bytes = ears_bytes,
  };
  const edgel3_node_port port = {
      .board = "fuzz",
      .context = &from,
      .write = write_frame,
      .ticks = count_up,
      .ticks_per_second = 1000,
      .milliseconds = count_up,
      .listen = listen,
      .hear = hear,
  };
  if ((edgel3_node_open(node, &model, &port) != 0) != refused) abort();
  while (size >= 4) {
    const uint32_t head_bits = data[0] | (uint32_t)data[1] << 8;
    uint32_t length = head_bits & 0xfffu;
    data += 2;
    size -= 2;
    if (length > size) length = (uint32_t)size;
    if (head_bits & 0x8000u) {
      edgel3_node_receive(node, data, length);
    } else if (head_bits & 0x4000u) {
      static int16_t samples[2048];
      memcpy(samples, data, length & ~1u);
      edgel3_node_hear(node, samples, length / 2);
    } else if (head_bits & 0x2000u) {
      edgel3_node_miss(node, length);
      length = 0;
    } else if (length >= 2 && length <= EDGEL3_WIRE_MAX_BODY + 2u) {
      send_request(node, &from, data, length);
    }
    data += length;
    size -= length;
  }
  /* After any input, the node must return its statistics and, unless its model is refused, the
   * embedding of the next window. */
  const uint8_t statistics[2] = {EDGEL3_WIRE_STATISTICS, 9};
  send_request(node, &from, statistics, 2);
  if (!refused) {
    const uint8_t stop[3] = {EDGEL3_WIRE_STREAM, 10, 0}, begin[3] = {EDGEL3_WIRE_BEGIN, 11, 1};
    const uint8_t embed[2] = {EDGEL3_WIRE_EMBED, 13};
    uint8_t content[6 + MELS * FRAMES] = {EDGEL3_WIRE_DATA, 12};
    send_request(node, &from, stop, 3);
    send_request(node, &from, begin, 3);
    send_request(node, &from, content, sizeof content);
    const uint32_t windows = node->windows;
    send_request(node, &from, embed, 2);
    if (node->windows != windows + 1) abort();
  }
  free(node);
  free(ears);
  free(input);
  free(arena);
  return 0;
}
