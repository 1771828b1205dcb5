/* What a node and its host say to each other, over any pipe of bytes.
 *
 * A frame is a packet, COBS-encoded (Cheshire and Baker, 1999), with a zero byte behind it. A packet:
 *
 *     0  1  command; an answer's has EDGEL3_WIRE_ANSWER added
 *     1  1  sequence number; an answer's is that of its request
 *     2  1  in a request 0; in an answer 0 for success, or an edgel3_wire_error
 *     3  n  body, little-endian, at most EDGEL3_WIRE_MAX_BODY bytes
 *     .  4  CRC-32 (that of zlib) of all before it
 *
 * Every request with a right checksum is answered once, a wrong one with an error and no body. A
 * frame that is cut, too long or damaged is dropped and counted, and the next zero byte begins anew.
 * A host that gets no answer in time sends its request again: chunks say where they belong, and a
 * window once computed stays, so nothing is done twice.
 *
 *     command     request                           answer
 *     INFO        -                                 see below
 *     BEGIN       u8 kind: 0 PCM, 1 log-mel         u32 bytes expected in all
 *     DATA        u32 offset, bytes                 u32 bytes there now
 *     EMBED       -                                 int8 [embedding]
 *     LOG_MEL     u32 offset, u32 count             int8 [count] of the window computed last
 *     SCORES      -                                 float32 [classes] of that window
 *     STATISTICS  -                                 see below
 *     STREAM      u8: 1 on, 0 off                   -
 *     SELF_TEST   -                                 u32: a bit a failure (edgel3_node.h)
 *   sent unasked while streaming, as an answer with sequence number 0
 *     LIVE                                          u32 number, u32 milliseconds since the start,
 *                                                   int8 [embedding], float32 [classes]
 *
 * PCM is int16, as many samples as a window has; log-mel is int8 [mels][frames], as the network
 * takes it.
 *
 *   INFO answers
 *     0  u16 EDGEL3_WIRE_VERSION    2  u16 classes of the head, 0 without one
 *     4  u32 sample rate in Hz      8  u32 samples of a window
 *    12  u16 mels                  14  u16 frames
 *    16  u16 embedding             18  u16 zero
 *    20  f32 embedding scale       24  i32 embedding zero point
 *    28  u8 [16] first half of the SHA-256 of the dense flatbuffer
 *    44  u32 bytes of packed model 48  u32 bytes of arena
 *    52  u32 bytes of window       56  u32 ticks a second
 *    60  strings, each with a zero behind it: board, version of the library, classes
 *   STATISTICS answers
 *     0  u32 requests answered      4  u32 frames dropped
 *     8  u32 windows computed      12  u32 samples heard and not used, for want of time
 *    16  u32 ticks of the last window's frontend
 *    20  u32 ticks of the last window's engine
 */
#ifndef EDGEL3_WIRE_H_
#define EDGEL3_WIRE_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EDGEL3_WIRE_VERSION 1u
#define EDGEL3_WIRE_ANSWER 0x80u
#define EDGEL3_WIRE_MAX_BODY 2048u
#define EDGEL3_WIRE_HEAD_BYTES 3u
#define EDGEL3_WIRE_PACKET_BYTES (EDGEL3_WIRE_HEAD_BYTES + EDGEL3_WIRE_MAX_BODY + 4u)
/* COBS adds a byte for every 254 that have begun; the zero behind the frame comes on top. */
#define EDGEL3_WIRE_FRAME_BYTES (EDGEL3_WIRE_PACKET_BYTES + EDGEL3_WIRE_PACKET_BYTES / 254u + 2u)

typedef enum edgel3_wire_command {
  EDGEL3_WIRE_INFO = 1,
  EDGEL3_WIRE_BEGIN = 2,
  EDGEL3_WIRE_DATA = 3,
  EDGEL3_WIRE_EMBED = 4,
  EDGEL3_WIRE_LOG_MEL = 5,
  EDGEL3_WIRE_SCORES = 6,
  EDGEL3_WIRE_STATISTICS = 7,
  EDGEL3_WIRE_STREAM = 8,
  EDGEL3_WIRE_SELF_TEST = 9,
  EDGEL3_WIRE_LIVE = 10
} edgel3_wire_command;

typedef enum edgel3_wire_error {
  EDGEL3_WIRE_ERROR_COMMAND = 1, /**< no such command */
  EDGEL3_WIRE_ERROR_LENGTH = 2,  /**< a body of another length than the command has */
  EDGEL3_WIRE_ERROR_VALUE = 3,   /**< a field out of range */
  EDGEL3_WIRE_ERROR_STATE = 4,   /**< not begun, not all there yet, or nothing computed */
  EDGEL3_WIRE_ERROR_OFFSET = 5,  /**< bytes before these are missing */
  EDGEL3_WIRE_ERROR_BUSY = 6,    /**< streaming */
  EDGEL3_WIRE_ERROR_ENGINE = 7,  /**< the model or its memory is refused: run the self-test */
  EDGEL3_WIRE_ERROR_ABSENT = 8   /**< no microphone, or no head */
} edgel3_wire_error;

/** Takes the bytes of frames and gives packets. All zeros is its beginning. */
typedef struct edgel3_wire_decoder {
  uint8_t frame[EDGEL3_WIRE_FRAME_BYTES];
  uint32_t length;
  uint32_t dropped; /**< frames */
} edgel3_wire_decoder;

/** A packet, without its checksum. */
typedef struct edgel3_wire_packet {
  uint8_t command;
  uint8_t sequence;
  uint8_t status;
  const uint8_t *body;
  uint32_t length; /**< of the body */
} edgel3_wire_packet;

/** Take a byte.
 *
 * @return 1 if it completes a packet, the body of which lies in the decoder until its next byte
 */
int edgel3_wire_decode(edgel3_wire_decoder *decoder, uint8_t byte, edgel3_wire_packet *packet);

/** Write the frame of a packet with a body of at most EDGEL3_WIRE_MAX_BODY bytes.
 *
 * @param frame  EDGEL3_WIRE_FRAME_BYTES; must not overlap the body
 * @return bytes of the frame, the zero at its end included
 */
uint32_t edgel3_wire_encode(const edgel3_wire_packet *packet, uint8_t *frame);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_WIRE_H_ */
