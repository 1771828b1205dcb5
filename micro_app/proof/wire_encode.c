/* edgel3_wire_encode: packets of any bytes, in a frame of the size that their length needs. */
// eva: -eva-slevel 10000000
#include "any.h"
#include "edgel3_packed.c"
#include "edgel3_wire.c"

/* Bodies of up to three bytes; and one whose packet has 255 bytes, of which all but the last seven
 * are not zero. */
enum { SHORT = 3, LONG = 255 - EDGEL3_WIRE_HEAD_BYTES - 4, FILLED = LONG - 3 };

static uint8_t memory[EDGEL3_WIRE_FRAME_BYTES], body[LONG];

void main(void) {
  uint32_t length = any(0, SHORT + 1);
  //@ split length;
  if (length > SHORT) length = LONG;
  const uint32_t least = length == LONG;
  const edgel3_wire_packet packet = {(uint8_t)any(least, 255), (uint8_t)any(least, 255),
                                     (uint8_t)any(least, 255), body, length};
  for (uint32_t i = 0; i < length; ++i) body[i] = (uint8_t)any(i < FILLED ? least : 0, 255);
  const uint32_t size = EDGEL3_WIRE_HEAD_BYTES + length + 4u;
  edgel3_wire_encode(&packet, memory + sizeof memory - (size + size / 254u + 2u));
}
