/* Encodes and decodes the frames of edgel3_wire.h. */
#include "edgel3_wire.h"

#include <string.h>

#include "edgel3_bytes.h"
#include "edgel3_packed.h" /* for edgel3_crc32 */

/*@ requires \valid(bytes + (0 .. length));
  @ assigns bytes[0 .. length - 1], \result \from bytes[0 .. length - 1], length;
  @ ensures \result <= length;
  @*/
/* Decode COBS in place. Return the length of the packet, or 0 if the frame is invalid. */
static uint32_t unstuff(uint8_t *bytes, uint32_t length) {
  uint32_t in = 0, out = 0;
  while (in < length) {
    const uint32_t block = bytes[in++];
    //@ split block;
    if (block - 1u > length - in) return 0;
    memmove(bytes + out, bytes + in, block - 1u);
    in += block - 1u;
    out += block - 1u;
    /* A zero follows each block that is shorter than the longest possible, but not the last. */
    if (block < 255u && in < length) bytes[out++] = 0;
  }
  return out;
}

int edgel3_wire_decode(edgel3_wire_decoder *decoder, uint8_t byte, edgel3_wire_packet *packet) {
  if (byte != 0) {
    /* Drop bytes that do not fit. A frame that fills the buffer is too long: the longest frame
     * fits together with its zero. */
    if (decoder->length < sizeof decoder->frame) decoder->frame[decoder->length++] = byte;
    return 0;
  }
  const uint32_t length = decoder->length;
  decoder->length = 0;
  if (length == 0) return 0; /* further zeros between frames */
  const uint32_t size = length < sizeof decoder->frame ? unstuff(decoder->frame, length) : 0;
  if (size < EDGEL3_WIRE_HEAD_BYTES + 4u || size > EDGEL3_WIRE_PACKET_BYTES ||
      edgel3_crc32(0, decoder->frame, size - 4u) != edgel3_get_u32(decoder->frame + size - 4u)) {
    decoder->dropped += 1u;
    return 0;
  }
  packet->command = decoder->frame[0];
  packet->sequence = decoder->frame[1];
  packet->status = decoder->frame[2];
  packet->body = decoder->frame + EDGEL3_WIRE_HEAD_BYTES;
  packet->length = size - EDGEL3_WIRE_HEAD_BYTES - 4u;
  return 1;
}

/* State of a COBS encoder. */
typedef struct stuffing {
  uint8_t *block; /* position for the length of the current block */
  uint8_t *end;   /* end of the frame so far */
} stuffing;

static void close_block(stuffing *to) {
  *to->block = (uint8_t)(to->end - to->block);
  to->block = to->end++;
}

static void stuff(stuffing *to, const uint8_t *bytes, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    /* Close a full block only before a further byte: the last block needs no empty one after it. */
    if (to->end - to->block == 255) close_block(to);
    if (bytes[i] == 0) {
      close_block(to);
    } else {
      *to->end++ = bytes[i];
    }
  }
}

/* A body in its frame begins so late that no byte is overwritten before it is read. Byte k of a packet
 * is written at k + k / 254 + 1 or before, and byte k of the longest one would be at
 * k + EDGEL3_WIRE_FRAME_BYTES - EDGEL3_WIRE_PACKET_BYTES. */
uint32_t edgel3_wire_encode(const edgel3_wire_packet *packet, uint8_t *frame) {
  const uint8_t head[EDGEL3_WIRE_HEAD_BYTES] = {packet->command, packet->sequence, packet->status};
  uint8_t checksum[4];
  edgel3_put_u32(checksum,
                 edgel3_crc32(edgel3_crc32(0, head, sizeof head), packet->body, packet->length));
  stuffing to = {frame, frame + 1};
  stuff(&to, head, sizeof head);
  stuff(&to, packet->body, packet->length);
  stuff(&to, checksum, sizeof checksum);
  *to.block = (uint8_t)(to.end - to.block);
  *to.end++ = 0;
  return (uint32_t)(to.end - frame);
}
