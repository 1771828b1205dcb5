/* Lists of the weights of two channels: any bytes, of any length, in memory that ends with them. */
// eva: -eva-slevel 1000000 -eva-split-return-function read_part:-1
#include "any.h"
#include "edgel3_packed.c"

/* Longest part of a list that the analysis follows. A longer one does not fit into the memory. */
enum { LONGEST = 2, LISTS = 2 * LONGEST + EDGEL3_WEIGHT_SLACK };

static uint8_t lists[LISTS];
static int32_t bias[2], multiplier[2];
static uint16_t negatives[2], positives[2];
static int8_t shift[2];

static uint16_t or_longer(uint32_t count) {
  return (uint16_t)(count <= LONGEST ? count : any(LONGEST + 1, 65535));
}

void main(void) {
  Frama_C_make_unknown((char *)lists, sizeof lists);
  Frama_C_make_unknown((char *)bias, sizeof bias);
  Frama_C_make_unknown((char *)multiplier, sizeof multiplier);
  Frama_C_make_unknown((char *)shift, sizeof shift);
  const uint32_t size = any(EDGEL3_WEIGHT_SLACK, LISTS);
  const uint32_t negatives_0 = any(0, LONGEST + 1), negatives_1 = any(0, LONGEST + 1);
  const uint32_t positives_0 = any(0, LONGEST + 1), positives_1 = any(0, LONGEST + 1);
  //@ split size;
  //@ split negatives_0;
  //@ split negatives_1;
  //@ split positives_0;
  //@ split positives_1;
  negatives[0] = or_longer(negatives_0);
  negatives[1] = or_longer(negatives_1);
  positives[0] = or_longer(positives_0);
  positives[1] = or_longer(positives_1);
  edgel3_conv conv = {.bias = bias,
                      .multiplier = multiplier,
                      .negatives = negatives,
                      .positives = positives,
                      .shift = shift,
                      .weights = lists + LISTS - size,
                      .input_channels = 1,
                      .output_channels = 2};
  conv.encoding = any(0, 1) ? EDGEL3_ENCODING_GAP12 : EDGEL3_ENCODING_GAP16;
  read_weights(&conv, size);
}
