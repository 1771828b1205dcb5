/* DATA with a body that is longer than the node's buffer for samples. */
// eva: -eva-slevel 100000 -eva-split-return-function edgel3_node_open:0,find_failures:0,edgel3_frontend_open:0
#define SAMPLES 160
#include "opened.h"

static uint8_t body[2 * SAMPLES];

void main(void) {
  static edgel3_node node;
  if (open_node(&node) != 0) return;
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
