/* Log-mel spectrogram of one window, computed while its samples arrive.
 *
 * The same values that the networks were trained on: frames of a strided 'same' convolution with a
 * periodic Hann window, power spectrum, triangular mel filters, square root, decibels, less the
 * window's own maximum, not below the dynamic range. No second of audio is kept: a frame is computed
 * as soon as its last sample is there. The maximum is known at the end only, so all log-mel values
 * wait as float until then; the memory for them may be the engine's arena, which is idle meanwhile.
 */
#ifndef EDGEL3_FRONTEND_H_
#define EDGEL3_FRONTEND_H_

#include "edgel3.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Bytes of memory to work in, for frames of so many samples. */
#define EDGEL3_FRONTEND_WORK_BYTES(dft_samples) (6u * (dft_samples) + 8u)

/** What the converter writes for a model: shapes, quantization of the input, tables. */
typedef struct edgel3_frontend_config {
  uint32_t sample_rate_hz;
  uint32_t window_samples;
  uint32_t dft_samples; /**< a power of two, from 8 to 16384 */
  uint32_t hop_samples;
  uint32_t mels;
  uint32_t frames;
  float dynamic_range_db;
  /** int8 input = floor(factor * decibels + offset + 0.5), clamped */
  float input_factor;
  float input_offset;
  const float *window;  /**< [dft_samples] periodic Hann */
  const float *cosines; /**< [dft_samples / 4 + 1] cos(2 pi i / dft_samples) */
  /** Triangular filters: band m weighs the mel_count[m] bins from mel_first[m] on, perhaps none. */
  const uint16_t *mel_first; /**< [mels] */
  const uint16_t *mel_count; /**< [mels] */
  const float *mel_weights;  /**< of all bands, one after the other; for full scale 1 */
} edgel3_frontend_config;

/** A frontend at work. The fields are its own business. */
typedef struct edgel3_frontend {
  const edgel3_frontend_config *config;
  float *log_mel;
  float *spectrum;
  int16_t *ring;
  uint32_t samples; /* since the window began, with the zeros behind its end */
  uint32_t frames;  /* computed */
  float maximum_db;
} edgel3_frontend;

/** Bytes of log-mel values, float [mels][frames]. */
size_t edgel3_frontend_log_mel_bytes(const edgel3_frontend_config *config);

/** Bytes of memory to work in: the last samples, and a frame that becomes its spectrum. */
size_t edgel3_frontend_work_bytes(const edgel3_frontend_config *config);

/** Set a frontend up and begin a window.
 *
 * Answers EDGEL3_ERROR_ARGUMENT for memory that is missing or misaligned, EDGEL3_ERROR_INCONSISTENT
 * for a configuration that the converter did not write. Nothing is checked again afterwards.
 *
 * @param log_mel  edgel3_frontend_log_mel_bytes, aligned to 4; may be the arena of an engine that is
 *                 opened, or begun, afterwards
 * @param work     edgel3_frontend_work_bytes, aligned to 4
 */
edgel3_status edgel3_frontend_open(edgel3_frontend *frontend, const edgel3_frontend_config *config,
                                   void *log_mel, void *work);

/** Begin a window; forgets whatever was pushed before. */
void edgel3_frontend_begin(edgel3_frontend *frontend);

/** Push samples, full scale 32768.
 *
 * @return how many were taken: those beyond the end of the window are not
 */
uint32_t edgel3_frontend_push(edgel3_frontend *frontend, const int16_t *samples, uint32_t count);

/** Whether all samples of the window are there. */
int edgel3_frontend_is_full(const edgel3_frontend *frontend);

/** Compute the last frames, then turn all levels into decibels in [-dynamic range, 0].
 *
 * log_mel then holds them, float [mels][frames]. Answers EDGEL3_ERROR_STATE before all samples are
 * there.
 */
edgel3_status edgel3_frontend_finish(edgel3_frontend *frontend);

/** What the network takes, after edgel3_frontend_finish.
 *
 * @param window  int8 [mels][frames]; must not overlap the log-mel values, or must begin where they
 *                do and replaces them
 */
void edgel3_frontend_quantize(const edgel3_frontend *frontend, int8_t *window);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_FRONTEND_H_ */
