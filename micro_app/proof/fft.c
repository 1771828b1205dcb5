/* edgel3_fft_real: any numbers, in memory that ends with them; sizes from 8 to 256. */
// eva: -eva-slevel 1000000
#include "any.h"
#include "edgel3_fft.c"

enum { MOST = 256 };

static float data[MOST + 2], cosines[MOST / 4 + 1];

void main(void) {
  uint32_t samples = any(3, 8);
  //@ split samples;
  samples = 1u << samples;
  Frama_C_make_unknown((char *)data, sizeof data);
  Frama_C_make_unknown((char *)cosines, sizeof cosines);
  edgel3_fft_real(data + MOST - samples, samples, cosines + (MOST - samples) / 4u);
}
