/* edgel3_node_receive: any packet, in any state that earlier packets and sounds may have left. */
// eva: -eva-slevel-function open_engine:100 -eva-split-return-function open_engine:0
// eva: -eva-split-return-function find_failures:0,edgel3_node_open:0,edgel3_frontend_open:0
// eva: -eva-slevel-function find_failures:100000,edgel3_node_open:100000,self_test:100000
// eva: -eva-slevel-function main:100000,serve:100000,edgel3_node_receive:100000
#include "node.h"

/* Window and levels, with open ears; no memory is larger than needed. One byte follows the
 * window, because Frama-C demands a readable byte even of a memcpy of 0 bytes. */
static uint8_t input[VALUES + 1] __attribute__((aligned(16)));
static uint8_t ears[EDGEL3_FRONTEND_WORK_BYTES(DFT) + 2 * VALUES] __attribute__((aligned(16)));
/* A string that is truncated in the answer to INFO. */
static char board[EDGEL3_WIRE_MAX_BODY];
enum { PCM_BYTES = 2 * SAMPLES };

static edgel3_status open_engine(const edgel3_node_model *model, edgel3_info *info,
                                 edgel3_node_memory *memory) {
  (void)model;
  info->rows = MELS;
  info->columns = FRAMES;
  info->embedding = EMBEDDING;
  if (any(0, 1)) return EDGEL3_ERROR_CHECKSUM;
  memory->window = input;
  memory->window_bytes = VALUES;
  return EDGEL3_OK;
}

static edgel3_status run(const edgel3_node_model *model, int8_t *embedding,
                         edgel3_between_rows between_rows, void *context) {
  (void)model;
  (void)context;
  //@ assert not_streaming: between_rows == \null;
  for (uint32_t i = 0; i < EMBEDDING; ++i) embedding[i] = (int8_t)any(0, 255);
  return any(0, 1) ? EDGEL3_OK : EDGEL3_ERROR_ARENA;
}

static const edgel3_node_engine engine = {.open = open_engine, .run = run};

static uint32_t command, offset, length;

/* Any packet. The analysis follows an offset, and the length of DATA, one by one if they may be right. */
int edgel3_wire_decode(edgel3_wire_decoder *decoder, uint8_t byte, edgel3_wire_packet *packet) {
  (void)byte;
  uint8_t *body = decoder->frame + EDGEL3_WIRE_HEAD_BYTES;
  Frama_C_make_unknown((char *)decoder->frame, sizeof decoder->frame);
  edgel3_put_u32(body, offset);
  if (offset > PCM_BYTES) put_above(body, 4, PCM_BYTES);
  packet->command = (uint8_t)(command == EDGEL3_WIRE_LIVE ? any(EDGEL3_WIRE_LIVE, 255) : command);
  packet->sequence = (uint8_t)any(0, 255);
  packet->status = (uint8_t)any(0, 255);
  packet->body = body;
  packet->length = length;
  return 1;
}

void main(void) {
  command = any(0, EDGEL3_WIRE_LIVE);
  //@ split command;
  offset = any(0, PCM_BYTES + 1);
  const int is_data = command == EDGEL3_WIRE_DATA;
  const int has_head = command == EDGEL3_WIRE_INFO || command == EDGEL3_WIRE_SCORES ||
                       command == EDGEL3_WIRE_SELF_TEST;
  edgel3_node_model model = {
      .engine = &engine, .frontend = &config, .ears = ears, .ears_bytes = sizeof ears};
  uint32_t classes = has_head ? any(0, 2) : 0;
  //@ split classes;
  if (classes > 0) {
    model.head = &head;
    head.classes = classes == 1 ? EDGEL3_NODE_MAX_CLASSES : EDGEL3_NODE_MAX_CLASSES + 1;
    for (uint32_t i = 0; i < head.classes; ++i) labels[i] = "label";
  }
  edgel3_node_port port = {.write = write, .ticks = clock, .milliseconds = clock, .hear = hear};
  if (command == EDGEL3_WIRE_STREAM && any(0, 1)) port.listen = listen;
  port.board = "board";

  static edgel3_node node;
  uint32_t failures = edgel3_node_open(&node, &model, &port);
  //@ split failures;
  if (command == EDGEL3_WIRE_INFO) {
    if (classes > 0) node.port.board = memset(board, 'b', sizeof board - 1u);
  } else {
    node.kind = (uint8_t)any(KIND_PCM, KIND_LOG_MEL);
    //@ split node.kind;
    ;
  }
  node.phase = (uint8_t)any(PHASE_NOTHING, PHASE_COMPUTED);
  node.received = any(0, expected_bytes(&node));
  node.streaming = (uint8_t)any(0, 1);
  node.requests = any(0, UINT32_MAX);
  node.frontend.samples = any(0, UINT32_MAX);
  Frama_C_make_unknown((char *)node.embedding, sizeof node.embedding);
  Frama_C_make_unknown((char *)node.scores, sizeof node.scores);
  length = any(0, EDGEL3_WIRE_MAX_BODY);
  if (failures == 0 && command == EDGEL3_WIRE_LOG_MEL) {
    //@ split offset;
    ;
  }
  if (failures == 0 && is_data) {
    length = any(3, 4 + PCM_BYTES + 1);
    //@ split offset;
    //@ split node.received;
    //@ split length;
    if (length == 3) length = any(0, 3);
    if (length > 4 + PCM_BYTES) length = any(4 + PCM_BYTES + 1, EDGEL3_WIRE_MAX_BODY);
  }
  const uint8_t byte = 0;
  edgel3_node_receive(&node, &byte, 1);
  if (command == EDGEL3_WIRE_BEGIN) return; /* a new window: nothing is received */
  //@ assert received: node.received <= (node.kind == KIND_PCM ? PCM_BYTES : VALUES);
}
