/* The protocol between a node and its host, over any connection that carries bytes.
 *
 * A frame is one packet in COBS encoding (Cheshire and Baker, 1999), then a zero byte. A packet,
 * with position, size in bytes and content:
 *
 *     0  1  command; in an answer EDGEL3_WIRE_ANSWER is added
 *     1  1  sequence number; an answer has that of its request
 *     2  1  status; in a request 0, in an answer 0 for success or an edgel3_wire_error
 *     3  n  body, little-endian, at most EDGEL3_WIRE_MAX_BODY bytes
 *     .  4  CRC-32, as zlib computes it, of all bytes before it
 *
 * The node answers each request with a correct checksum once. The answer to a request that it
 * cannot carry out has an error as its status and no body. The node drops and counts a frame that
 * is incomplete, too long or damaged; after the next zero byte it expects a new frame. If no answer
 * arrives in time, the host sends its request again. That is safe: DATA says where its bytes
 * belong, and the result of a window stays until the next BEGIN.
 *
 *     command     body of the request               body of the answer
 *     INFO        -                                 see below
 *     BEGIN       u8 kind: 0 PCM, 1 log-mel         u32 bytes of the window
 *     DATA        u32 offset, bytes                 u32 bytes received so far
 *     EMBED       -                                 int8 [embedding]
 *     LOG_MEL     u32 offset, u32 count             int8 [count] of the latest window's log-mel
 *                                                   values
 *     SCORES      -                                 float32 [classes] of the latest window
 *     STATISTICS  -                                 see below
 *     STREAM      u8: 1 on, 0 off                   -
 *     SELF_TEST   -                                 u32: one bit for each failure (edgel3_node.h)
 *   sent without a request while streaming, as an answer with sequence number 0
 *     LIVE                                          see below
 *
 * PCM is int16, as many samples as a window has. Log-mel is int8 [mels][frames], the network's
 * input.
 *
 *   Answer to INFO
 *     0  u16 EDGEL3_WIRE_VERSION    2  u16 classes of the head; 0 without a head, or if it has more
 *                                      than a node can hold
 *     4  u32 sample rate in Hz      8  u32 samples of a window
 *    12  u16 mel bands             14  u16 frames
 *    16  u16 embedding size        18  u16 zero
 *    20  f32 embedding scale       24  i32 embedding zero point
 *    28  u8 [16] first half of the SHA-256 of the dense flatbuffer
 *    44  u32 bytes of packed model 48  u32 bytes of arena
 *    52  u32 bytes of window       56  u32 ticks per second
 *    60  strings, each ended by a zero byte: board, version of the library, labels of the classes
 *   Answer to STATISTICS
 *     0  u32 requests answered      4  u32 frames dropped
 *     8  u32 windows computed      12  u32 microphone samples lost because the node was busy
 *    16  u32 ticks of the frontend for the latest window
 *    20  u32 ticks of the engine for the latest window, without those of the frontend meanwhile
 *    24  u64 microphone samples in windows computed
 *    32  u64 microphone samples heard, but in no window, because the network was busy
 *   LIVE
 *     0  u32 window number          4  u32 milliseconds since the start
 *     8  u64 position of the window's first sample: samples heard or lost since the stream began
 *    16  u32 microphone samples lost since the start
 *    20  u32 ticks of the frontend for the window
 *    24  u32 ticks of the engine for the window
 *    28  int8 [embedding], float32 [classes]
 */
#ifndef EDGEL3_WIRE_H_
#define EDGEL3_WIRE_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Version of the protocol. */
#define EDGEL3_WIRE_VERSION 2u
/** Added to the command of an answer. */
#define EDGEL3_WIRE_ANSWER 0x80u
/** Largest body in bytes. */
#define EDGEL3_WIRE_MAX_BODY 2048u
/** Bytes of a packet before its body. */
#define EDGEL3_WIRE_HEAD_BYTES 3u
/** Largest packet in bytes. */
#define EDGEL3_WIRE_PACKET_BYTES (EDGEL3_WIRE_HEAD_BYTES + EDGEL3_WIRE_MAX_BODY + 4u)
/** Largest frame in bytes: COBS adds a byte for every 254 or fewer, and a zero ends the frame. */
#define EDGEL3_WIRE_FRAME_BYTES (EDGEL3_WIRE_PACKET_BYTES + EDGEL3_WIRE_PACKET_BYTES / 254u + 2u)
/** Position of a body in the memory of its own frame, for edgel3_wire_encode. */
#define EDGEL3_WIRE_BODY_OFFSET \
  (EDGEL3_WIRE_FRAME_BYTES - EDGEL3_WIRE_PACKET_BYTES + EDGEL3_WIRE_HEAD_BYTES)

/** Commands; the comment at the top describes them. */
typedef enum edgel3_wire_command {
  EDGEL3_WIRE_INFO = 1,       /**< describe model and board */
  EDGEL3_WIRE_BEGIN = 2,      /**< begin a window */
  EDGEL3_WIRE_DATA = 3,       /**< receive bytes of the window */
  EDGEL3_WIRE_EMBED = 4,      /**< compute the embedding of the window */
  EDGEL3_WIRE_LOG_MEL = 5,    /**< return log-mel values of the latest window */
  EDGEL3_WIRE_SCORES = 6,     /**< return the class scores of the latest window */
  EDGEL3_WIRE_STATISTICS = 7, /**< return the counters */
  EDGEL3_WIRE_STREAM = 8,     /**< turn the microphone on or off */
  EDGEL3_WIRE_SELF_TEST = 9,  /**< check model and memory, and run the network once */
  EDGEL3_WIRE_LIVE = 10       /**< result of a window from the microphone; never a request */
} edgel3_wire_command;

/** Status of an answer, other than 0 for success. */
typedef enum edgel3_wire_error {
  EDGEL3_WIRE_ERROR_COMMAND = 1, /**< there is no such command */
  EDGEL3_WIRE_ERROR_LENGTH = 2,  /**< the body has another length than the command requires */
  EDGEL3_WIRE_ERROR_VALUE = 3,   /**< a field of the body is out of range */
  EDGEL3_WIRE_ERROR_STATE = 4,   /**< no window was begun, it is incomplete, or no result exists */
  EDGEL3_WIRE_ERROR_OFFSET = 5,  /**< bytes before these are missing */
  EDGEL3_WIRE_ERROR_BUSY = 6,    /**< the node is streaming */
  EDGEL3_WIRE_ERROR_ENGINE = 7,  /**< model or memory are refused; SELF_TEST returns the reason */
  EDGEL3_WIRE_ERROR_ABSENT = 8   /**< the node has no microphone, or no head */
} edgel3_wire_error;

/** State of a decoder, which turns bytes into packets. Set all of it to zero before first use. */
typedef struct edgel3_wire_decoder {
  uint8_t frame[EDGEL3_WIRE_FRAME_BYTES]; /**< the frame that is being received, then its packet */
  uint32_t length;                        /**< bytes of the frame received so far */
  uint32_t dropped;                       /**< frames dropped */
} edgel3_wire_decoder;

/** A packet, without its checksum. */
typedef struct edgel3_wire_packet {
  uint8_t command;     /**< edgel3_wire_command; in an answer plus EDGEL3_WIRE_ANSWER */
  uint8_t sequence;    /**< sequence number; 0 to 255 */
  uint8_t status;      /**< 0, or an edgel3_wire_error */
  const uint8_t *body; /**< uint8 [length] */
  uint32_t length;     /**< bytes of the body; 0 to EDGEL3_WIRE_MAX_BODY */
} edgel3_wire_packet;

/** Decode one byte.
 *
 * @param[in,out] decoder  the decoder
 * @param[in]     byte     the next byte that was received
 * @param[out]    packet   the packet that the byte completes. Its body is in the decoder and stays
 *                         valid until the next call. Not written if 0 is returned
 * @return 1 if the byte completes a packet with a correct checksum, otherwise 0
 */
/*@ requires \valid(decoder) && decoder->length <= sizeof(decoder->frame) && \valid(packet);
  @ assigns *decoder, *packet, \result \from *decoder, byte;
  @ ensures decoder->length <= sizeof(decoder->frame);
  @ ensures \result == 0 || \result == 1;
  @ ensures \result == 1 ==> packet->length <= EDGEL3_WIRE_MAX_BODY;
  @ ensures \result == 1 ==> packet->body == &decoder->frame[EDGEL3_WIRE_HEAD_BYTES];
  @*/
int edgel3_wire_decode(edgel3_wire_decoder *decoder, uint8_t byte, edgel3_wire_packet *packet);

/** Write the frame of a packet.
 *
 * @param[in]  packet  the packet; its body has at most EDGEL3_WIRE_MAX_BODY bytes
 * @param[out] frame   EDGEL3_WIRE_FRAME_BYTES bytes. It must not overlap the body, unless the body
 *                     begins at frame + EDGEL3_WIRE_BODY_OFFSET; then it overwrites the body
 * @return bytes of the frame, including the zero at its end
 */
/*@ requires \valid_read(packet) && packet->length <= EDGEL3_WIRE_MAX_BODY;
  @ requires \valid_read(packet->body + (0 .. packet->length - 1));
  @ requires \valid(frame + (0 .. packet->length + 8 + (packet->length + 7) / 254));
  @ assigns frame[0 .. packet->length + 8 + (packet->length + 7) / 254], \result
  @   \from indirect:*packet, indirect:packet->body[0 .. packet->length - 1];
  @ ensures 0 < \result <= packet->length + 9 + (packet->length + 7) / 254;
  @ ensures \result <= EDGEL3_WIRE_FRAME_BYTES;
  @*/
uint32_t edgel3_wire_encode(const edgel3_wire_packet *packet, uint8_t *frame);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_WIRE_H_ */
