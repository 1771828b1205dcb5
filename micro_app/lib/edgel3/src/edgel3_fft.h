/* Fourier transforms in place, of float32. Internal to the library. */
#ifndef EDGEL3_FFT_H_
#define EDGEL3_FFT_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Floats that edgel3_fft_real works on. */
#define EDGEL3_FFT_FLOATS(samples) ((samples) + 2u)

/** Spectrum of real samples.
 *
 * @param data     EDGEL3_FFT_FLOATS(samples). Before: the samples and two of any value; afterwards:
 *                 real and imaginary parts of the bins 0 to samples / 2
 * @param samples  a power of two, 8 or more
 * @param cosines  cos(2 pi i / samples) for i from 0 to samples / 4
 */
void edgel3_fft_real(float *data, uint32_t samples, const float *cosines);

/** Complex spectrum by CMSIS-DSP; only where EDGEL3_USE_CMSIS_DSP is defined.
 *
 * @param data  real and imaginary parts of `points` values
 * @return 0 if it was not asked to: it is for 512 and 1024 points
 */
int edgel3_fft_cmsis(float *data, uint32_t points);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_FFT_H_ */
