/* Resamples int16 samples from standard input to standard output by the C library, for
 * test_resampler.py. Arguments: rates of the inputs and outputs in Hz, inputs of each call. */
#include <stdio.h>
#include <stdlib.h>

#include "edgel3_resampler.h"

int main(int count, char **arguments) {
  if (count != 4) return 2;
  const size_t part = (size_t)atoi(arguments[3]);
  int16_t *inputs = malloc(part * sizeof *inputs);
  int16_t *outputs = malloc(EDGEL3_RESAMPLER_OUTPUTS(part) * sizeof *outputs);
  edgel3_resampler resampler;
  edgel3_resampler_begin(&resampler, (uint32_t)atoi(arguments[1]), (uint32_t)atoi(arguments[2]));
  size_t taken;
  while ((taken = fread(inputs, sizeof *inputs, part, stdin)) > 0) {
    const uint32_t made = edgel3_resampler_run(&resampler, inputs, (uint32_t)taken, outputs);
    fwrite(outputs, sizeof *outputs, made, stdout);
  }
  free(inputs);
  free(outputs);
  return 0;
}
