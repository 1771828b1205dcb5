/* The record of a convolution: whatever it says, the tables of an accepted one lie in the model. */
// eva: -eva-slevel 1000000 -eva-split-return-function read_record:0
#include "any.h"
#include "edgel3_packed.c"

/* Tables of up to two channels fit. */
enum { BYTES = 28, CHANNELS = BYTES / 13 };

static uint8_t bytes[BYTES] __attribute__((aligned(4)));
static uint8_t record[EDGEL3_RECORD_BYTES];

static void tables(void) {
  edgel3_conv conv;
  const uint32_t table = any(0, BYTES + 1), channels = any(0, CHANNELS + 1);
  //@ split table;
  //@ split channels;
  edgel3_put_u32(record + 12, table);
  edgel3_put_u16(record + 2, channels);
  if (table > BYTES) put_above(record + 12, 4, BYTES);
  if (channels > CHANNELS) put_above(record + 2, 2, CHANNELS);
  if (read_record(&conv, bytes, BYTES, record) != EDGEL3_OK) return;
  const uint32_t last = conv.output_channels - 1;
  //@ assert channels: conv.output_channels >= 1;
  //@ assert alignment: \offset(conv.bias) % 4 == 0;
  //@ assert bias: \valid_read(conv.bias + (0 .. last));
  //@ assert multiplier: \valid_read(conv.multiplier + (0 .. last));
  //@ assert negatives: \valid_read(conv.negatives + (0 .. last));
  //@ assert positives: \valid_read(conv.positives + (0 .. last));
  //@ assert shift: \valid_read(conv.shift + (0 .. last));
}

static void weights(void) {
  edgel3_conv conv;
  const uint32_t weights = any(0, BYTES + 1), weight_bytes = any(0, BYTES + 1);
  //@ split weights;
  //@ split weight_bytes;
  edgel3_put_u32(record + 16, weights);
  edgel3_put_u32(record + 20, weight_bytes);
  if (weights > BYTES) put_above(record + 16, 4, BYTES);
  if (weight_bytes > BYTES) put_above(record + 20, 4, BYTES);
  if (read_record(&conv, bytes, BYTES, record) != EDGEL3_OK) return;
  //@ assert slack: weight_bytes >= EDGEL3_WEIGHT_SLACK;
  //@ assert weights: \valid_read(conv.weights + (0 .. weight_bytes - 1));
}

void main(void) {
  Frama_C_make_unknown((char *)record, sizeof record);
  Frama_C_make_unknown((char *)bytes, sizeof bytes);
  if (any(0, 1)) {
    tables();
  } else {
    weights();
  }
}
