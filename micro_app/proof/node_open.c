/* edgel3_node_open: every model and memory that an engine may describe. */
// eva: -eva-slevel 1000000 -eva-split-return-function find_failures:0,edgel3_node_open:0,edgel3_frontend_open:0
#include "node.h"

static uint8_t idle[2 * VALUES] __attribute__((aligned(16)));
static uint8_t input[EDGEL3_FRONTEND_WORK_BYTES(DFT)] __attribute__((aligned(16)));
static uint8_t ears[EDGEL3_FRONTEND_WORK_BYTES(DFT) + 2 * VALUES] __attribute__((aligned(16)));

/* The memory is as large as described, or missing. */
static edgel3_status open_engine(const edgel3_node_model *model, edgel3_info *info,
                                 edgel3_node_memory *memory) {
  (void)model;
  info->rows = any(MELS - 1, MELS);
  info->columns = any(FRAMES - 1, FRAMES);
  info->embedding = any(0, 65535);
  const uint32_t idle_less = any(0, 1);
  uint32_t input_less = any(0, 2);
  //@ split idle_less;
  //@ split input_less;
  if (input_less == 2) input_less = sizeof input - (VALUES - 1);
  memory->idle = idle + idle_less;
  memory->idle_bytes = sizeof idle - idle_less;
  memory->window = input + input_less;
  memory->window_bytes = sizeof input - input_less;
  return any(0, EDGEL3_ERROR_STATE);
}

static edgel3_status run(const edgel3_node_model *model, int8_t *embedding,
                         edgel3_between_rows between_rows, void *context) {
  return EDGEL3_OK;
}

static const edgel3_node_engine engine = {.open = open_engine, .run = run};

void main(void) {
  edgel3_node_model model = {.engine = &engine, .frontend = &config};
  const uint32_t ears_less = any(0, 1);
  //@ split ears_less;
  if (any(0, 1)) model.head = &head;
  head.embedding = any(0, 65535);
  head.classes = any(0, UINT32_MAX);
  model.ears_bytes = sizeof ears - ears_less;
  if (any(0, 1)) model.ears = ears + ears_less;
  edgel3_node_port port = {.write = write, .ticks = clock, .milliseconds = clock};
  if (any(0, 1)) port.hear = hear;
  edgel3_node node;
  if (edgel3_node_open(&node, &model, &port) == 0) {
    //@ assert window: node.memory.window_bytes >= VALUES;
    //@ assert embedding: node.info.embedding <= EDGEL3_NODE_MAX_EMBEDDING;
  }
}
