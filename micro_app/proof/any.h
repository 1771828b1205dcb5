#ifndef ANY_H_
#define ANY_H_

#include <stdint.h>

#include "__fc_builtin.h"

/* Return any value of a range. */
static inline uint32_t any(uint32_t least, uint32_t most) {
  return Frama_C_unsigned_int_interval(least, most);
}

/* Write a number above `most`, which is less than 255, as `count` little-endian bytes. Of the bytes
 * of an interval the analysis knows nothing, so the number's highest byte is chosen.
 */
static inline void put_above(uint8_t *bytes, uint32_t count, uint32_t most) {
  const uint32_t highest = any(0, count - 1u);
  //@ split highest;
  for (uint32_t i = 0; i < count; ++i) bytes[i] = (uint8_t)(i < highest ? any(0, 255) : 0);
  bytes[highest] = (uint8_t)any(highest == 0 ? most + 1u : 1u, 255);
}

#endif
