/* Dense weights of two channels: any bytes, in memory that ends with them. */
#include "any.h"
#include "edgel3_packed.c"

enum { DENSE = 20 + EDGEL3_WEIGHT_SLACK };

static uint8_t dense[DENSE];
static int32_t bias[2], multiplier[2];
static uint16_t negatives[2], positives[2];
static int8_t shift[2];

void main(void) {
  Frama_C_make_unknown((char *)dense, sizeof dense);
  Frama_C_make_unknown((char *)bias, sizeof bias);
  Frama_C_make_unknown((char *)multiplier, sizeof multiplier);
  Frama_C_make_unknown((char *)negatives, sizeof negatives);
  Frama_C_make_unknown((char *)positives, sizeof positives);
  Frama_C_make_unknown((char *)shift, sizeof shift);
  const uint32_t size = any(EDGEL3_WEIGHT_SLACK, DENSE);
  //@ split size;
  edgel3_conv conv = {.bias = bias,
                      .multiplier = multiplier,
                      .negatives = negatives,
                      .positives = positives,
                      .shift = shift,
                      .weights = dense + DENSE - size,
                      .input_channels = 1,
                      .output_channels = 2,
                      .encoding = EDGEL3_ENCODING_DENSE};
  read_weights(&conv, size);
}
