/* LOG_MEL of a window that is larger than the body of an answer. */
// eva: -eva-slevel 100000 -eva-split-return-function edgel3_node_open:0,find_failures:0
// eva: -eva-split-return-function edgel3_frontend_open:0
#define SAMPLES 2050
#include "opened.h"

void main(void) {
  static edgel3_node node;
  if (open_node(&node) != 0) return;
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
