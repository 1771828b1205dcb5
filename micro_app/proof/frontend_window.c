/* A window through the frontend: any samples, tables of any numbers, pushed in two parts. */
// eva: -eva-slevel 100000 -eva-split-return-function edgel3_frontend_open:0
#include "any.h"
#include "edgel3_fft.c"
#include "edgel3_frontend.c"

enum { DFT = 8, SAMPLES = 5, HOP = 2, FRAMES = 3, MELS = 2, BINS = DFT / 2 + 1 };

static float hann[DFT], cosines[DFT / 4 + 1], mel_weights[BINS + 1];
static uint16_t mel_first[MELS], mel_count[MELS];
static int16_t samples[SAMPLES + 1], levels[MELS * FRAMES], ring[DFT];
static float spectrum[DFT + 2];
static int8_t window[MELS * FRAMES];

void main(void) {
  Frama_C_make_unknown((char *)hann, sizeof hann);
  Frama_C_make_unknown((char *)cosines, sizeof cosines);
  Frama_C_make_unknown((char *)mel_weights, sizeof mel_weights);
  Frama_C_make_unknown((char *)samples, sizeof samples);
  const uint32_t first = any(0, BINS + 1), count = any(0, BINS + 1);
  uint32_t part = any(0, SAMPLES + 1);
  //@ split first;
  //@ split count;
  //@ split part;
  mel_first[0] = (uint16_t)first;
  mel_count[0] = (uint16_t)count;
  if (first != 1) part = SAMPLES;
  edgel3_frontend_config config = {.window_samples = SAMPLES,
                                   .dft_samples = DFT,
                                   .hop_samples = HOP,
                                   .mels = MELS,
                                   .frames = FRAMES,
                                   .window = hann,
                                   .cosines = cosines,
                                   .mel_first = mel_first,
                                   .mel_count = mel_count,
                                   .mel_weights = mel_weights + BINS + 1 - count};
  /* Of a NaN or an infinity there would be no quantized value. */
  config.dynamic_range_db = Frama_C_float_interval(-1e6f, 1e6f);
  config.input_factor = Frama_C_float_interval(-1e6f, 1e6f);
  config.input_offset = Frama_C_float_interval(-1e6f, 1e6f);
  edgel3_frontend frontend;
  if (edgel3_frontend_open(&frontend, &config, levels, ring, spectrum) != EDGEL3_OK) return;
  edgel3_frontend_push(&frontend, samples + SAMPLES + 1 - part, part);
  edgel3_frontend_push(&frontend, samples, SAMPLES + 1);
  if (edgel3_frontend_finish(&frontend) != EDGEL3_OK) return;
  edgel3_frontend_quantize(&frontend, window);
}
