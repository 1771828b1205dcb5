/* A small node for the proofs about edgel3_node.c. The contracts in the headers stand for frontend
 * and head; a function of the engine returns whatever it may return. */
#ifndef NODE_H_
#define NODE_H_

#include "any.h"
#include "edgel3_node.c"

#ifndef SAMPLES
#define SAMPLES 3
#endif
enum { HOP = 2, DFT = 8, FRAMES = (SAMPLES - 1) / HOP + 1, MELS = 2, VALUES = MELS * FRAMES };
enum { EMBEDDING = 4, LABELS = EDGEL3_NODE_MAX_CLASSES + 1 };

static float hann[DFT], cosines[DFT / 4 + 1], mel_weights[MELS];
static uint16_t mel_first[MELS], mel_count[MELS];
static const edgel3_frontend_config config = {.sample_rate_hz = 8000,
                                              .window_samples = SAMPLES,
                                              .dft_samples = DFT,
                                              .hop_samples = HOP,
                                              .mels = MELS,
                                              .frames = FRAMES,
                                              .dynamic_range_db = 80.0f,
                                              .input_factor = 3.0f,
                                              .input_offset = 100.0f,
                                              .window = hann,
                                              .cosines = cosines,
                                              .mel_first = mel_first,
                                              .mel_count = mel_count,
                                              .mel_weights = mel_weights};

static int8_t weights[LABELS * (EDGEL3_NODE_MAX_EMBEDDING + 1)];
static float scale[LABELS], bias[LABELS];
static const char *labels[LABELS];
static edgel3_head head = {.embedding = EMBEDDING,
                           .embedding_zero_point = -128,
                           .weights = weights,
                           .scale = scale,
                           .bias = bias,
                           .labels = labels};

static void write(void *context, const uint8_t *bytes, uint32_t count) {
  (void)context;
  //@ assert count: 1 <= count <= EDGEL3_WIRE_FRAME_BYTES;
  //@ assert frame: \valid_read(bytes + (0 .. count - 1));
}

static uint32_t clock(void *context) {
  (void)context;
  return any(0, UINT32_MAX);
}

static int listen(void *context, int on) {
  (void)context;
  (void)on;
  return (int)any(0, 1);
}

/* The contract, as code: of a result and a state that depend on each other, Eva loses the relation. */
edgel3_status edgel3_frontend_open(edgel3_frontend *frontend, const edgel3_frontend_config *config,
                                   void *levels, void *ring, void *spectrum) {
  if (any(0, 1)) return any(0, 1) ? EDGEL3_ERROR_ARGUMENT : EDGEL3_ERROR_INCONSISTENT;
  frontend->config = config;
  frontend->levels = levels;
  frontend->ring = ring;
  frontend->spectrum = spectrum;
  edgel3_frontend_begin(frontend);
  return EDGEL3_OK;
}

static void hear(void *context) { (void)context; }

#endif
