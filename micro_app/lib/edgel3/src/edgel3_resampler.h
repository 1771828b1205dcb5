/* A resampler for small corrections: turns samples of a microphone, whose rate is a few percent off,
 * into samples at the rate of the network.
 *
 * Each output is a windowed sinc filter of 32 taps over the inputs, evaluated at the output's time.
 * Up to 86 % of half the input rate (21 kHz at 48.78 kHz) tones keep their level to 0.02 dB, with an
 * error of -58 dB or less; at 94 % they are 1.3 dB lower. There is no filter against aliases: inputs
 * above half the output rate are mirrored. If both rates are equal, outputs equal inputs. The delay
 * is 16 inputs. All arithmetic is in integers, so every processor computes the same samples.
 */
#ifndef EDGEL3_RESAMPLER_H_
#define EDGEL3_RESAMPLER_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Taps of the filter. */
#define EDGEL3_RESAMPLER_TAPS 32u
/** Largest number of outputs for `count` inputs. */
#define EDGEL3_RESAMPLER_OUTPUTS(count) ((count) + (count) / 8u + 2u)

/** State of a resampler. Private: do not access the fields. */
typedef struct edgel3_resampler {
  uint64_t step;     /**< time from one output to the next, in inputs, Q32 */
  uint64_t position; /**< time of the next output after the centre of the line, in inputs, Q32 */
  uint32_t next;     /**< where the next input goes; 0 to EDGEL3_RESAMPLER_TAPS - 1 */
  int16_t line[2 * EDGEL3_RESAMPLER_TAPS]; /**< the latest inputs, twice, so that any 32 in a row
                                                are contiguous */
} edgel3_resampler;

/** Begin with silence before the first input.
 *
 * @param[out] resampler  the resampler
 * @param[in]  from_hz    rate of the inputs in Hz; 90 % to 110 % of to_hz
 * @param[in]  to_hz      rate of the outputs in Hz; above 0
 */
void edgel3_resampler_begin(edgel3_resampler *resampler, uint32_t from_hz, uint32_t to_hz);

/** Resample. Calls with parts of a signal give the same outputs as one call with all of it.
 *
 * @param[in,out] resampler  the resampler
 * @param[in]     inputs     int16 [count]
 * @param[in]     count      number of inputs; 0 or more
 * @param[out]    outputs    int16 [EDGEL3_RESAMPLER_OUTPUTS(count)]; must not overlap the inputs
 * @return number of outputs
 */
uint32_t edgel3_resampler_run(edgel3_resampler *resampler, const int16_t *inputs, uint32_t count,
                              int16_t *outputs);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_RESAMPLER_H_ */
