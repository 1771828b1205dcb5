/* The PDM microphone of a board, through the PDM library of its Arduino core.
 *
 * It never stops once it has begun: on some boards the library cannot begin a second time. While
 * nobody listens, what it hears is thrown away.
 */
#ifndef EDGEL3_MICROPHONE_H_
#define EDGEL3_MICROPHONE_H_

#include <stdint.h>

/* What is heard while a frame or a serial packet is being worked on waits here: a power of two. */
constexpr uint32_t kMicrophoneRingSamples = 4096;
constexpr uint32_t kMicrophoneRingBytes = kMicrophoneRingSamples * sizeof(int16_t);

struct MicrophoneRate {
  /* Within 3 % of what was asked for: Giga and Nicla are 1.6 % off at 48 kHz. */
  bool is_usable;
  /* Against the board's own clock; 0 if nothing was heard. */
  uint32_t measured_hz;
};

/* Begin, throw the first buffers away, which are bad, and measure the rate. Takes about 0.5 s the
 * first time. */
MicrophoneRate microphone_start(uint32_t sample_rate_hz, int gain);

void microphone_stop();

/* Take up to `count` samples. */
uint32_t microphone_read(int16_t *samples, uint32_t count);

/* Samples that found no room since last asked. If there are any, those that waited are thrown away
 * and counted too: between them and the next ones there is a gap. */
uint32_t microphone_take_lost();

#endif /* EDGEL3_MICROPHONE_H_ */
