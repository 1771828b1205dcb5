/* The classifier: one dense int8 layer, then softmax or sigmoid. */
#include "edgel3_head.h"

#include <math.h>

void edgel3_head_scores(const edgel3_head *head, const int8_t *embedding, float *scores) {
  float largest = 0.0f;
  for (uint32_t c = 0; c < head->classes; ++c) {
    const int8_t *weights = head->weights + (uint64_t)c * head->embedding;
    int32_t sum = 0;
    for (uint32_t i = 0; i < head->embedding; ++i) {
      sum += (embedding[i] - head->embedding_zero_point) * weights[i];
    }
    scores[c] = head->scale[c] * (float)sum + head->bias[c];
    if (c == 0 || scores[c] > largest) largest = scores[c];
  }
  if (head->kind == EDGEL3_HEAD_SIGMOID) {
    for (uint32_t c = 0; c < head->classes; ++c) scores[c] = 1.0f / (1.0f + expf(-scores[c]));
    return;
  }
  /* Subtracting the largest output prevents an overflow of expf. */
  float total = 0.0f;
  for (uint32_t c = 0; c < head->classes; ++c) {
    scores[c] = expf(scores[c] - largest);
    total += scores[c];
  }
  for (uint32_t c = 0; c < head->classes; ++c) scores[c] /= total;
}
