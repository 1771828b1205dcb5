/* What a node and its host say to each other, over any pipe of bytes.
 *
 * A frame is a packet, COBS-encoded (Cheshire and Baker, 1999), with a zero byte behind it. A packet:
 *
 *     0  1  command; an answer's has EDGEL3_WIRE_ANSWER added
 *     1  1  sequence number; an answer's is that of its request, an event's is 0
 *     2  1  in a request 0; in an answer a status: 0 for success, or an edgel3_wire_error
 *     3  n  body, little-endian, at most EDGEL3_WIRE_MAX_BODY bytes
 *     .  4  CRC-32 (that of zlib) of all before it
 *
 * Every request with a right checksum is answered once, a wrong one with an error. A frame that is cut,
 * too long or damaged is dropped and counted; the next zero byte begins anew. A host that gets no answer
 * in time may send its request again: chunks say where they belong, so nothing is taken twice.
 *
 *     command       request                            answer
 *     INFO          -                                  edgel3_wire_info (see edgel3_node.c)
 *     BEGIN         u8 kind: 0 PCM, 1 log-mel          u32 bytes expected in all
 *     DATA          u32 offset, bytes                  u32 bytes there now
 *     EMBED         -                                  int8 [embedding]
 *     LOG_MEL       u32 offset, u16 count              int8 [count] of the window the network got
 *     SCORES        -                                  float32 [classes]
 *     STATISTICS    -                                  counters and times (see edgel3_node.c)
 *     STREAM        u8: 1 on, 0 off                    -
 *     SELF_TEST     -                                  u32 0 if all is well, else a bit a failure
 *   events, sent unasked while streaming
 *     LIVE          -                                  u32 window number, u32 milliseconds, int8
 *                                                      [embedding], float32 [classes]
 *
 * PCM is int16, one window of it; log-mel is int8 [mels][frames], as the network takes it.
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

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_WIRE_H_ */
