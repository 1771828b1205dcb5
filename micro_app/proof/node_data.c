/* DATA with a body that is longer than the node's buffer for samples. */
// eva: -eva-slevel 100000 -eva-split-return-function edgel3_node_open:0,find_failures:0,edgel3_frontend_open:0
#define SAMPLES 160
#include "node.h"

static uint8_t input[VALUES], ears[EDGEL3_FRONTEND_WORK_BYTES(DFT) + 2 * VALUES];
static uint8_t body[2 * SAMPLES];

static edgel3_status open_engine(const edgel3_node_model *model, edgel3_info *info,
                                 edgel3_node_memory *memory) {
  (void)model;
  info->rows = MELS;
  info->columns = FRAMES;
  info->embedding = EMBEDDING;
  memory->window = input;
  memory->window_bytes = sizeof input;
  return EDGEL3_OK;
}

static const edgel3_node_engine engine = {.open = open_engine};

void main(void) {
  edgel3_node_model model = {
      .engine = &engine, .frontend = &config, .ears = ears, .ears_bytes = sizeof ears};
  edgel3_node_port port = {.write = write, .ticks = clock, .milliseconds = clock, .hear = hear};
  static edgel3_node node;
  if (edgel3_node_open(&node, &model, &port) != 0) return;
  node.phase = PHASE_COMING;
  node.kind = (uint8_t)any(KIND_PCM, KIND_LOG_MEL);
  node.received = any(0, 2);
  /* The buffer has 128 bytes. */
  uint32_t length = any(126, 130), offset = any(0, 2);
  if (any(0, 1)) length += 128u;
  //@ split node.kind;
  //@ split node.received;
  //@ split length;
  //@ split offset;
  take_data(&node, body + sizeof body - length, length, offset);
}
