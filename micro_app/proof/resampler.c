/* The resampler: any samples; rates that differ by up to a tenth. */
// eva: -eva-slevel 1000000
#include "any.h"
#include "edgel3_resampler.c"

enum { COUNT = 20 };

static int16_t inputs[COUNT], outputs[EDGEL3_RESAMPLER_OUTPUTS(COUNT)];

void main(void) {
  Frama_C_make_unknown((char *)inputs, sizeof inputs);
  uint32_t rate = any(0, 4);
  //@ split rate;
  rate = 48000u - 4800u + 2400u * rate;
  edgel3_resampler resampler;
  edgel3_resampler_begin(&resampler, rate, 48000);
  const uint32_t written = edgel3_resampler_run(&resampler, inputs, COUNT, outputs);
  //@ assert written: written <= EDGEL3_RESAMPLER_OUTPUTS(COUNT);
}
