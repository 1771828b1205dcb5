/* Decoding of COBS: any bytes, in memory that ends one byte after them. */
// eva: -eva-slevel 10000000 -eva-alloc-builtin fresh_weak -eva-no-alloc-returns-null
#include <stdlib.h>

#include "any.h"
#include "edgel3_wire.c"

enum { LONGEST = 24 };

void main(void) {
  const uint32_t length = any(1, LONGEST);
  //@ split length;
  uint8_t *bytes;
  bytes = calloc(length + 1u, 1);
  Frama_C_make_unknown((char *)bytes, length + 1u);
  unstuff(bytes, length);
}
