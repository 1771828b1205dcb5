/* The frontend: computes the log-mel spectrogram of one window while its samples arrive.
 *
 * The values are those that the networks were trained on. The frontend takes frames as a strided
 * convolution with padding 'same' does, applies a periodic Hann window and computes the power
 * spectrum. It sums the power in triangular mel filters, takes the square root and converts it to
 * dB. From all values it subtracts the window's maximum, and it limits them to the dynamic range.
 *
 * Each frame is computed as soon as its last sample has arrived, so the frontend keeps the samples
 * of one frame only. The maximum is known only at the end. Until then all values are kept as levels
 * in 1/512 dB, in 16 bits: half of the memory that float would need. The rounding is at most half a
 * level; a quantized value of a network is about 160 levels wide.
 */
#ifndef EDGEL3_FRONTEND_H_
#define EDGEL3_FRONTEND_H_

#include "edgel3.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Levels per dB. */
#define EDGEL3_FRONTEND_LEVELS_PER_DB 512
/** Size of the ring in bytes, for frames of `dft_samples` samples. */
#define EDGEL3_FRONTEND_RING_BYTES(dft_samples) (2u * (dft_samples))
/** Size of the spectrum in bytes, for frames of `dft_samples` samples. */
#define EDGEL3_FRONTEND_SPECTRUM_BYTES(dft_samples) (4u * (dft_samples) + 8u)
/** Size of spectrum and ring together in bytes. */
#define EDGEL3_FRONTEND_WORK_BYTES(dft_samples) (6u * (dft_samples) + 8u)

/** Parameters and tables of a frontend, as the converter writes them for a model. */
typedef struct edgel3_frontend_config {
  uint32_t sample_rate_hz; /**< sample rate in Hz; for information, the frontend does not use it */
  uint32_t window_samples; /**< samples of a window; 1 to 65536 */
  uint32_t dft_samples;    /**< samples of a frame; a power of two from 8 to 16384 */
  uint32_t hop_samples;    /**< samples from one frame to the next; 1 or more */
  uint32_t mels;           /**< mel bands; 1 to 4096 */
  uint32_t frames;         /**< frames of a window; (window_samples - 1) / hop_samples + 1 */
  float dynamic_range_db;  /**< range below the window's maximum, in dB; above 0 */
  float input_factor;   /**< q = floor(input_factor * dB + input_offset + 0.5), clamped to int8 */
  float input_offset;   /**< see input_factor; in quantized values */
  const float *window;  /**< float [dft_samples], the periodic Hann window */
  const float *cosines; /**< float [dft_samples / 4 + 1], cos(2 pi i / dft_samples) */
  const uint16_t *mel_first; /**< [mels], first DFT bin of each band; 0 to dft_samples / 2 + 1 */
  const uint16_t
      *mel_count; /**< [mels], bins of each band; 0 or more, none beyond dft_samples / 2 */
  const float *mel_weights; /**< [sum of mel_count], filter weights of all bands, one after another,
                                for samples with full scale 1 */
} edgel3_frontend_config;

/** State of a frontend. Private: do not access the fields. */
typedef struct edgel3_frontend {
  const edgel3_frontend_config *config;
  int16_t *levels;  /**< [mels][frames], in 1/512 dB */
  int16_t *ring;    /**< [dft_samples], the latest samples */
  float *spectrum;  /**< [EDGEL3_FFT_FLOATS(dft_samples)], a frame, then its spectrum */
  uint32_t samples; /**< samples since the window began, including the zeros after its end */
  uint32_t frames;  /**< frames computed so far */
  int16_t maximum;  /**< largest level so far */
} edgel3_frontend;

/** Return the size of the levels in bytes: int16 [mels][frames].
 *
 * @param[in] config  the configuration
 */
/*@ requires \valid_read(config);
  @ assigns \result \from config->mels, config->frames;
  @ ensures \result == config->mels * config->frames * sizeof(int16_t);
  @*/
size_t edgel3_frontend_levels_bytes(const edgel3_frontend_config *config);

/** Check a configuration, set up a frontend and begin a window.
 *
 * Later calls do not check the configuration again. The configuration, its tables and all memories
 * must stay where they are as long as the frontend is in use.
 *
 * @param[out] frontend  the frontend
 * @param[in]  config    the configuration that the converter wrote
 * @param[out] levels    edgel3_frontend_levels_bytes bytes, aligned to 2. They must not change from
 *                       edgel3_frontend_begin to edgel3_frontend_quantize
 * @param[out] ring      EDGEL3_FRONTEND_RING_BYTES(dft_samples) bytes, aligned to 2. They must not
 *                       change from edgel3_frontend_begin to edgel3_frontend_finish; the memory may
 *                       be the one that edgel3_frontend_quantize writes to
 * @param[out] spectrum  EDGEL3_FRONTEND_SPECTRUM_BYTES(dft_samples) bytes, aligned to 4. Scratch:
 *                       they may change between two calls
 * @return EDGEL3_OK; EDGEL3_ERROR_ARGUMENT if a pointer is null or not aligned;
 *         EDGEL3_ERROR_INCONSISTENT if a field of the configuration is out of range
 */
/*@ requires \valid(frontend) && \valid_read(config);
  @ requires levels == \null ||
  @          \valid((char *)levels + (0 .. 2 * config->mels * config->frames - 1));
  @ requires ring == \null ||
  @          \valid((char *)ring + (0 .. EDGEL3_FRONTEND_RING_BYTES(config->dft_samples) - 1));
  @ requires spectrum == \null ||
  @          \valid((char *)spectrum +
  @                 (0 .. EDGEL3_FRONTEND_SPECTRUM_BYTES(config->dft_samples) - 1));
  @ assigns *frontend, ((int16_t *)ring)[0 .. config->dft_samples - 1], \result
  @   \from config, *config, levels, ring, spectrum;
  @ ensures \result == EDGEL3_OK || \result == EDGEL3_ERROR_ARGUMENT ||
  @         \result == EDGEL3_ERROR_INCONSISTENT;
  @ ensures \result == EDGEL3_OK ==> frontend->config == config;
  @*/
edgel3_status edgel3_frontend_open(edgel3_frontend *frontend, const edgel3_frontend_config *config,
                                   void *levels, void *ring, void *spectrum);

/** Begin a window and discard all samples pushed before.
 *
 * @param[in,out] frontend  an open frontend
 */
/*@ requires \valid(frontend) && \valid_read(frontend->config);
  @ assigns frontend->samples, frontend->frames, frontend->maximum \from \nothing;
  @ assigns frontend->ring[0 .. frontend->config->dft_samples - 1] \from \nothing;
  @ ensures frontend->samples == 0 && frontend->frames == 0;
  @*/
void edgel3_frontend_begin(edgel3_frontend *frontend);

/** Push samples of the window, and compute every frame that they complete.
 *
 * @param[in,out] frontend  an open frontend
 * @param[in]     samples   int16 [count], full scale 32768
 * @param[in]     count     number of samples; any
 * @return how many samples were taken; samples after the end of the window are not
 */
/*@ requires \valid(frontend) && \valid_read(frontend->config);
  @ requires \valid_read(samples + (0 .. count - 1));
  @ assigns frontend->samples, frontend->frames, frontend->maximum, \result
  @   \from indirect:*frontend, indirect:samples[0 .. count - 1], count;
  @ ensures 0 <= \result <= count;
  @*/
uint32_t edgel3_frontend_push(edgel3_frontend *frontend, const int16_t *samples, uint32_t count);

/** Return whether all samples of the window have arrived: 1 or 0.
 *
 * @param[in] frontend  an open frontend
 */
/*@ requires \valid_read(frontend) && \valid_read(frontend->config);
  @ assigns \result \from frontend->samples, frontend->config->window_samples;
  @ ensures \result == (frontend->samples >= frontend->config->window_samples);
  @*/
int edgel3_frontend_is_full(const edgel3_frontend *frontend);

/** Compute the last frames. Calls may be repeated; the levels then stay the same.
 *
 * @param[in,out] frontend  an open frontend
 * @return EDGEL3_OK, or EDGEL3_ERROR_STATE if samples are missing
 */
/*@ requires \valid(frontend) && \valid_read(frontend->config);
  @ assigns frontend->samples, frontend->frames, frontend->maximum, \result
  @   \from indirect:*frontend;
  @ ensures \result == EDGEL3_OK || \result == EDGEL3_ERROR_STATE;
  @*/
edgel3_status edgel3_frontend_finish(edgel3_frontend *frontend);

/** Quantize the log-mel values for the network, after edgel3_frontend_finish.
 *
 * A log-mel value in dB is a level minus the largest level, divided by
 * EDGEL3_FRONTEND_LEVELS_PER_DB, and at least -dynamic_range_db.
 *
 * @param[in]  frontend  a frontend after edgel3_frontend_finish
 * @param[out] window    int8 [mels][frames], quantized values. It must not overlap the levels
 *                       unless it begins at the same address; then it overwrites them
 */
/*@ requires \valid_read(frontend) && \valid_read(frontend->config);
  @ requires \valid(window + (0 .. frontend->config->mels * frontend->config->frames - 1));
  @ assigns window[0 .. frontend->config->mels * frontend->config->frames - 1]
  @   \from indirect:*frontend;
  @*/
void edgel3_frontend_quantize(const edgel3_frontend *frontend, int8_t *window);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_FRONTEND_H_ */
