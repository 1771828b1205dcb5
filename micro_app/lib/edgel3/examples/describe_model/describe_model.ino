/* Example: checks a packed model, runs it once on noise, and prints time and sizes to the serial
 * monitor.
 *
 * Before you compile it, copy edgel3_packed_model.c and edgel3_packed_model.h into this sketch's
 * folder. `edgel3-tflm convert` writes both files.
 */
#include <edgel3.h>

#if __has_include("edgel3_packed_model.h")
#include "edgel3_packed_model.h"
#else
#error "no model: copy edgel3_packed_model.c and edgel3_packed_model.h into the sketch's folder"
#endif

#ifndef DMAMEM /* Only Teensy has two RAM regions; DMAMEM is the second one. */
#define DMAMEM
#endif

DMAMEM alignas(EDGEL3_ARENA_ALIGNMENT) static uint8_t arena[EDGEL3_PACKED_MODEL_ARENA_BYTES];
static int8_t row[EDGEL3_MODEL_FRAMES];
static int8_t embedding[EDGEL3_MODEL_EMBEDDING_SIZE];

/* Compute the embedding of a window of pseudo-random values. */
static edgel3_status run(edgel3_engine *engine, uint32_t rows) {
  uint32_t state = 1u;
  edgel3_begin(engine);
  for (uint32_t r = 0; r < rows; ++r) {
    for (int8_t &value : row) {
      state = state * 1664525u + 1013904223u;
      value = static_cast<int8_t>(static_cast<uint8_t>(state >> 24));
    }
    const edgel3_status status = edgel3_push_row(engine, row);
    if (status != EDGEL3_OK) return status;
  }
  return edgel3_finish(engine, embedding);
}

void setup() {
  Serial.begin(115200);
  while (!Serial && millis() < 5000) {
  }
  edgel3_info info;
  edgel3_engine *engine = nullptr;
  edgel3_status status = edgel3_describe(edgel3_packed_model, EDGEL3_PACKED_MODEL_BYTES, &info);
  if (status == EDGEL3_OK) {
    status = edgel3_open(&engine, edgel3_packed_model, EDGEL3_PACKED_MODEL_BYTES,
                         EDGEL3_KERNELS_BEST, arena, sizeof arena);
  }
  const uint32_t start = millis();
  if (status == EDGEL3_OK) status = run(engine, info.rows);
  if (status != EDGEL3_OK) {
    Serial.println(edgel3_status_text(status));
    return;
  }
  Serial.print("time for one window of noise, ms: ");
  Serial.println(millis() - start);
  Serial.print("embedding size, values: ");
  Serial.println(info.embedding);
  Serial.print("model, bytes: ");
  Serial.println(EDGEL3_PACKED_MODEL_BYTES);
  Serial.print("arena, bytes: ");
  Serial.println(EDGEL3_PACKED_MODEL_ARENA_BYTES);
}

void loop() {}
