/* The PDM microphone of a board, by the PDM library of its Arduino core. Used by edgel3_node.ino.
 *
 * The microphone is never turned off after its first start, because on some boards the library
 * cannot start a second time. While nobody listens, its samples are discarded.
 */
#ifndef EDGEL3_MICROPHONE_H_
#define EDGEL3_MICROPHONE_H_

#include <stdint.h>

/** Samples of the ring, a power of two. It fills while a frame or a packet is processed. */
constexpr uint32_t kMicrophoneRingSamples = 4096;
/** Size of the ring in bytes. */
constexpr uint32_t kMicrophoneRingBytes = kMicrophoneRingSamples * sizeof(int16_t);

/** Sample rate of the microphone. */
struct MicrophoneRate {
  /** Whether the rate is within 3 % of the requested one, so that resampling corrects it. Giga and
   * Nicla differ by 1.6 % at 48 kHz. */
  bool is_usable;
  /** Rate in Hz, measured against the board's clock; 0 if no samples arrived. */
  uint32_t measured_hz;
};

/** Start to listen. The first call takes about 0.5 s: it discards the first buffers, which are bad,
 * and measures the rate.
 *
 * @param[in] sample_rate_hz  requested rate in Hz; the first call decides
 * @param[in] gain            gain of the driver, or EDGEL3_BOARD_OWN_GAIN to keep its default
 * @return the rate; the microphone listens only if it is usable
 */
MicrophoneRate microphone_start(uint32_t sample_rate_hz, int gain);

/** Stop listening. The microphone keeps running. */
void microphone_stop();

/** Take samples from the ring.
 *
 * @param[out] samples  int16 [count], full scale 32768
 * @param[in]  count    largest number of samples to take
 * @return number of samples taken; 0 to count
 */
uint32_t microphone_read(int16_t *samples, uint32_t count);

/** Return whether samples or losses wait to be taken. Runs with interrupts masked or not. */
bool microphone_has_samples();

/** Return how many samples were lost since the last call, because the ring was full.
 *
 * If any were lost, the samples in the ring are discarded and counted too, because a gap separates
 * them from the next ones.
 */
uint32_t microphone_take_lost();

#endif /* EDGEL3_MICROPHONE_H_ */
