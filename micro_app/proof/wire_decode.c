/* edgel3_wire_decode: any byte, in any state that earlier bytes may have left. */
// eva: -eva-slevel 100 -eva-split-return-function edgel3_wire_decode:0 -eva-use-spec unstuff
#include "any.h"
#include "edgel3_packed.c"
#include "edgel3_wire.c"

void main(void) {
  edgel3_wire_decoder decoder;
  edgel3_wire_packet packet;
  Frama_C_make_unknown((char *)&decoder, sizeof decoder);
  decoder.length = any(0, sizeof decoder.frame);
  if (edgel3_wire_decode(&decoder, (uint8_t)any(0, 255), &packet)) {
    //@ assert fields: \initialized(&packet.command) && \initialized(&packet.sequence);
    //@ assert status: \initialized(&packet.status);
  }
}
