/* Fourier transforms of float32 values, in place. Internal to the library. */
#ifndef EDGEL3_FFT_H_
#define EDGEL3_FFT_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Size of edgel3_fft_real's buffer in floats, for a transform of `samples` samples. */
#define EDGEL3_FFT_FLOATS(samples) ((samples) + 2u)

/** Compute the spectrum of real samples: bins 0 to samples / 2, not normalized.
 *
 * @param[in,out] data     float [EDGEL3_FFT_FLOATS(samples)], aligned to 4 bytes. Before the call:
 *                         the samples, then two floats of any value. After it: real part and
 *                         imaginary part of every bin, in turn
 * @param[in]     samples  number of samples; a power of two, 8 or more
 * @param[in]     cosines  float [samples / 4 + 1], cos(2 pi i / samples)
 */
void edgel3_fft_real(float *data, uint32_t samples, const float *cosines);

/** Compute a complex spectrum with CMSIS-DSP. Exists only if EDGEL3_USE_CMSIS_DSP is defined.
 *
 * @param[in,out] data    float [2 * points], real part and imaginary part of every value, in turn;
 *                        aligned to 4 bytes. After the call: the spectrum, or unchanged if 0 is
 *                        returned
 * @param[in]     points  number of complex values
 * @return 1 if `data` was transformed, which it is for 512 and for 1024 points; otherwise 0
 */
int edgel3_fft_cmsis(float *data, uint32_t points);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_FFT_H_ */
