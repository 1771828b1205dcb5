/* LOG_MEL of a window that is larger than the body of an answer. */
// eva: -eva-slevel 100000 -eva-split-return-function edgel3_node_open:0,find_failures:0
// eva: -eva-split-return-function edgel3_frontend_open:0
#define SAMPLES 2050
#include "node.h"

static uint8_t input[VALUES], ears[EDGEL3_FRONTEND_WORK_BYTES(DFT) + 2 * VALUES];

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
  node.phase = PHASE_COMPUTED;
  uint8_t body[8] = {0};
  const uint32_t count = any(EDGEL3_WIRE_MAX_BODY, EDGEL3_WIRE_MAX_BODY + 1);
  //@ split count;
  edgel3_put_u32(body + 4, count);
  const edgel3_wire_packet request = {EDGEL3_WIRE_LOG_MEL, 0, 0, body, sizeof body};
  uint32_t length;
  serve(&node, &request, &length);
  //@ assert length: length <= EDGEL3_WIRE_MAX_BODY;
}
