/* The check of a frontend's configuration: any numbers in it. */
// eva: -eva-slevel 20 -eva-auto-loop-unroll 10 -eva-split-return-function is_consistent:0
#include "any.h"
#include "edgel3_frontend.c"

static float table[1];
static uint16_t mel_first[MAX_MELS], mel_count[MAX_MELS];

void main(void) {
  Frama_C_make_unknown((char *)mel_first, sizeof mel_first);
  Frama_C_make_unknown((char *)mel_count, sizeof mel_count);
  edgel3_frontend_config config;
  Frama_C_make_unknown((char *)&config, sizeof config);
  config.window = any(0, 1) ? table : NULL;
  config.cosines = any(0, 1) ? table : NULL;
  config.mel_first = any(0, 1) ? mel_first : NULL;
  config.mel_count = any(0, 1) ? mel_count : NULL;
  config.mel_weights = any(0, 1) ? table : NULL;
  if (!is_consistent(&config)) return;
  //@ assert mels: 1 <= config.mels <= MAX_MELS;
  //@ assert window: 1 <= config.window_samples <= MAX_WINDOW_SAMPLES;
  //@ assert hop: config.hop_samples >= 1;
  //@ assert frames: 1 <= config.frames <= MAX_WINDOW_SAMPLES;
  //@ assert tables: \valid_read(config.mel_first + (0 .. config.mels - 1));
}
