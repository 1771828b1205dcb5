/* edgel3_read_model on any bytes of any size; records and weights are the subject of other files. */
// eva: -eva-use-spec read_record,read_weights
#include "any.h"
#include "edgel3_packed.c"

enum { BYTES = 352 };

static uint8_t memory[BYTES] __attribute__((aligned(4)));

void main(void) {
  Frama_C_make_unknown((char *)memory, BYTES);
  const uint32_t size = 4u * any(0, BYTES / 4u);
  //@ split size;
  edgel3_model model;
  /* The model ends where the memory does. */
  edgel3_read_model(&model, memory + BYTES - size, size);
  edgel3_read_model(&model, NULL, size);
}
