/* Reads and writes little-endian numbers at any address, aligned or not. Internal to the library.
 *
 * Every `bytes` points to at least as many bytes as the number has: 2 for u16, 4 for u32 and f32,
 * 8 for u64.
 */
#ifndef EDGEL3_BYTES_H_
#define EDGEL3_BYTES_H_

#include <stdint.h>
#include <string.h>

/** Read 2 bytes as an unsigned number. */
static inline uint16_t edgel3_get_u16(const uint8_t *bytes) {
  return (uint16_t)(bytes[0] | (uint16_t)(bytes[1] << 8));
}

/** Read 4 bytes as an unsigned number. */
static inline uint32_t edgel3_get_u32(const uint8_t *bytes) {
  return edgel3_get_u16(bytes) | (uint32_t)edgel3_get_u16(bytes + 2) << 16;
}

/** Read 4 bytes as an IEEE 754 single-precision number. */
static inline float edgel3_get_f32(const uint8_t *bytes) {
  const uint32_t bits = edgel3_get_u32(bytes);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/** Write the lower 16 bits of a value as 2 bytes. */
static inline void edgel3_put_u16(uint8_t *bytes, uint32_t value) {
  bytes[0] = (uint8_t)value;
  bytes[1] = (uint8_t)(value >> 8);
}

/** Write a value as 4 bytes. */
static inline void edgel3_put_u32(uint8_t *bytes, uint32_t value) {
  edgel3_put_u16(bytes, value);
  edgel3_put_u16(bytes + 2, value >> 16);
}

/** Write a value as 8 bytes. */
static inline void edgel3_put_u64(uint8_t *bytes, uint64_t value) {
  edgel3_put_u32(bytes, (uint32_t)value);
  edgel3_put_u32(bytes + 4, (uint32_t)(value >> 32));
}

/** Write an IEEE 754 single-precision number as 4 bytes. */
static inline void edgel3_put_f32(uint8_t *bytes, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  edgel3_put_u32(bytes, bits);
}

#endif /* EDGEL3_BYTES_H_ */
