/* The frontend computes a frame when its last sample has arrived. Samples outside of the window are
 * zeros. Those before the window are the zeros that fill the ring at its beginning.
 *
 * The code calls no mathematical function of the C library and allows no fused operation. With the
 * portable Fourier transform it computes the same bytes on every processor.
 */
#include "edgel3_frontend.h"

#include <string.h>

#include "edgel3_fft.h"
/* must be the last include */
#include "edgel3_contraction.h"

#define MAX_DFT_SAMPLES 16384u
#define MAX_MELS 4096u
#define MAX_WINDOW_SAMPLES 65536u

/* Converts the power of samples with full scale 32768 to full scale 1. */
#define POWER_SCALE (1.0f / 1073741824.0f)
/* Smallest power: an amplitude of 10^-10. */
#define POWER_FLOOR 1e-20f
/* Level 0, in dB below full scale. */
#define MIDDLE_DB 36.0f

/* 10 log10 of the square root of a power is 5 log10 of the power. */
static const float decibels_per_octave = 1.50514998f; /* 5 log10(2) */
static const float decibels_per_neper = 2.17147241f;  /* 5 / ln(10) */

/* Return the largest integer not above `value`: a conversion rounds towards zero. */
static int32_t round_down(float value) {
  const int32_t truncated = (int32_t)value;
  return truncated - (value < (float)truncated);
}

/* Return 5 log10(power) as a level, for normal numbers. The logarithm is the exponent plus that of
 * the mantissa, which is 2 artanh(s) with |s| less than 0.172. The first omitted term of the series,
 * s^9 / 9, is less than 2^-26.
 */
static int16_t level_of(float power) {
  uint32_t bits;
  memcpy(&bits, &power, sizeof bits);
  int32_t octaves = (int32_t)(bits >> 23) - 127;
  bits = (bits & 0x7fffffu) | 0x3f800000u;
  float mantissa;
  memcpy(&mantissa, &bits, sizeof mantissa);
  if (mantissa > 1.41421356f) {
    mantissa *= 0.5f;
    octaves += 1;
  }
  const float s = (mantissa - 1.0f) / (mantissa + 1.0f);
  const float square = s * s;
  const float series =
      1.0f + square * ((1.0f / 3.0f) + square * ((1.0f / 5.0f) + square * (1.0f / 7.0f)));
  const float decibels =
      decibels_per_octave * (float)octaves + decibels_per_neper * (2.0f * s * series);
  /* The range of int16 from -100 dB, the least level, to 28 dB. A full-scale square wave reaches 23 dB
   * in frames of 2048 samples. */
  const int32_t level = round_down((decibels + MIDDLE_DB) * EDGEL3_FRONTEND_LEVELS_PER_DB + 0.5f);
  if (level < INT16_MIN) return INT16_MIN;
  return (int16_t)(level > INT16_MAX ? INT16_MAX : level);
}

size_t edgel3_frontend_levels_bytes(const edgel3_frontend_config *config) {
  return (size_t)config->mels * config->frames * sizeof(int16_t);
}

/* Number of zeros before and after a window, together. */
static uint32_t padding_of(const edgel3_frontend_config *config) {
  return (config->frames - 1u) * config->hop_samples + config->dft_samples - config->window_samples;
}

/* Number of samples after the start of the window at which a frame is complete. */
static uint32_t end_of_frame(const edgel3_frontend_config *config, uint32_t frame) {
  return frame * config->hop_samples + config->dft_samples - padding_of(config) / 2u;
}

static int is_consistent(const edgel3_frontend_config *config) {
  const uint32_t dft_samples = config->dft_samples;
  if (dft_samples < 8u || dft_samples > MAX_DFT_SAMPLES || (dft_samples & (dft_samples - 1u))) {
    return 0;
  }
  if (config->window_samples == 0 || config->window_samples > MAX_WINDOW_SAMPLES) return 0;
  if (config->mels == 0 || config->mels > MAX_MELS) return 0;
  /* As for a convolution with padding 'same': one frame for every hop or part of a hop. */
  if (config->hop_samples == 0 ||
      config->frames != (config->window_samples - 1u) / config->hop_samples + 1u) {
    return 0;
  }
  if ((config->frames - 1u) * config->hop_samples + dft_samples < config->window_samples) return 0;
  if (!(config->dynamic_range_db > 0.0f)) return 0;
  if (config->window == NULL || config->cosines == NULL || config->mel_first == NULL ||
      config->mel_count == NULL || config->mel_weights == NULL) {
    return 0;
  }
  for (uint32_t mel = 0; mel < config->mels; ++mel) {
    const uint32_t end = (uint32_t)config->mel_first[mel] + config->mel_count[mel];
    if (end > dft_samples / 2u + 1u) return 0;
  }
  return 1;
}

edgel3_status edgel3_frontend_open(edgel3_frontend *frontend, const edgel3_frontend_config *config,
                                   void *levels, void *ring, void *spectrum) {
  if (frontend == NULL || config == NULL || levels == NULL || ring == NULL || spectrum == NULL ||
      (uintptr_t)levels % sizeof(int16_t) != 0 || (uintptr_t)ring % sizeof(int16_t) != 0 ||
      (uintptr_t)spectrum % sizeof(float) != 0) {
    return EDGEL3_ERROR_ARGUMENT;
  }
  if (!is_consistent(config)) return EDGEL3_ERROR_INCONSISTENT;
  frontend->config = config;
  frontend->levels = (int16_t *)levels;
  frontend->ring = (int16_t *)ring;
  frontend->spectrum = (float *)spectrum;
  edgel3_frontend_begin(frontend);
  return EDGEL3_OK;
}

void edgel3_frontend_begin(edgel3_frontend *frontend) {
  memset(frontend->ring, 0, frontend->config->dft_samples * sizeof *frontend->ring);
  frontend->samples = 0;
  frontend->frames = 0;
  frontend->maximum = level_of(POWER_FLOOR);
}

/* Load the frame that ends with the latest sample, multiplied by the Hann window. */
static void load_frame(const edgel3_frontend *frontend) {
  const edgel3_frontend_config *config = frontend->config;
  const uint32_t start = frontend->samples & (config->dft_samples - 1u);
  const uint32_t first = config->dft_samples - start;
  for (uint32_t i = 0; i < first; ++i) {
    frontend->spectrum[i] = config->window[i] * frontend->ring[start + i];
  }
  for (uint32_t i = 0; i < start; ++i) {
    frontend->spectrum[first + i] = config->window[first + i] * frontend->ring[i];
  }
}

static void compute_frame(edgel3_frontend *frontend) {
  const edgel3_frontend_config *config = frontend->config;
  float *power = frontend->spectrum;
  load_frame(frontend);
  edgel3_fft_real(frontend->spectrum, config->dft_samples, config->cosines);
  /* In place: power[k] overwrites only bins up to k, which are no longer needed. */
  for (uint32_t k = 0; k <= config->dft_samples / 2u; ++k) {
    const float re = frontend->spectrum[2u * k];
    const float im = frontend->spectrum[2u * k + 1u];
    power[k] = re * re + im * im;
  }
  const float *weights = config->mel_weights;
  int16_t *level = frontend->levels + frontend->frames;
  for (uint32_t mel = 0; mel < config->mels; ++mel, level += config->frames) {
    const float *bins = power + config->mel_first[mel];
    const uint32_t count = config->mel_count[mel];
    float sum = 0.0f;
    for (uint32_t i = 0; i < count; ++i) sum += weights[i] * bins[i];
    weights += count;
    sum *= POWER_SCALE;
    *level = level_of(sum > POWER_FLOOR ? sum : POWER_FLOOR);
    if (*level > frontend->maximum) frontend->maximum = *level;
  }
  frontend->frames += 1u;
}

/* Add samples to the ring, or zeros if `samples` is null, and compute every frame they complete. */
static void take(edgel3_frontend *frontend, const int16_t *samples, uint32_t count) {
  const edgel3_frontend_config *config = frontend->config;
  while (count > 0) {
    const uint32_t position = frontend->samples & (config->dft_samples - 1u);
    uint32_t part = config->dft_samples - position;
    const uint32_t missing = end_of_frame(config, frontend->frames) - frontend->samples;
    if (part > count) part = count;
    if (part > missing) part = missing;
    if (samples != NULL) {
      memcpy(frontend->ring + position, samples, part * sizeof *samples);
      samples += part;
    } else {
      memset(frontend->ring + position, 0, part * sizeof *samples);
    }
    frontend->samples += part;
    count -= part;
    if (part == missing) compute_frame(frontend);
  }
}

uint32_t edgel3_frontend_push(edgel3_frontend *frontend, const int16_t *samples, uint32_t count) {
  if (edgel3_frontend_is_full(frontend)) return 0;
  const uint32_t missing = frontend->config->window_samples - frontend->samples;
  if (count > missing) count = missing;
  take(frontend, samples, count);
  return count;
}

int edgel3_frontend_is_full(const edgel3_frontend *frontend) {
  return frontend->samples >= frontend->config->window_samples;
}

edgel3_status edgel3_frontend_finish(edgel3_frontend *frontend) {
  const edgel3_frontend_config *config = frontend->config;
  if (!edgel3_frontend_is_full(frontend)) return EDGEL3_ERROR_STATE;
  take(frontend, NULL, end_of_frame(config, config->frames - 1u) - frontend->samples);
  return EDGEL3_OK;
}

void edgel3_frontend_quantize(const edgel3_frontend *frontend, int8_t *window) {
  const edgel3_frontend_config *config = frontend->config;
  const uint32_t count = config->mels * config->frames;
  const float floor_db = -config->dynamic_range_db;
  for (uint32_t i = 0; i < count; ++i) {
    float decibels =
        (float)(frontend->levels[i] - frontend->maximum) * (1.0f / EDGEL3_FRONTEND_LEVELS_PER_DB);
    if (decibels < floor_db) decibels = floor_db;
    float value = config->input_factor * decibels + config->input_offset + 0.5f;
    if (value < -128.0f) value = -128.0f;
    if (value > 127.0f) value = 127.0f;
    window[i] = (int8_t)round_down(value);
  }
}
