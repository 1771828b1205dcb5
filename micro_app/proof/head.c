/* edgel3_head_scores: any weights, scales and embedding; the largest embedding, and three classes. */
// eva: -eva-domains gauges -eva-auto-loop-unroll 10
#include "any.h"
#include "edgel3_head.c"

enum { EMBEDDING = 65535, CLASSES = 3 };

static int8_t weights[EMBEDDING], embedding[EMBEDDING];
static float scale[CLASSES], bias[CLASSES], scores[CLASSES];

void main(void) {
  Frama_C_make_unknown((char *)weights, sizeof weights);
  Frama_C_make_unknown((char *)embedding, sizeof embedding);
  Frama_C_make_unknown((char *)scale, sizeof scale);
  Frama_C_make_unknown((char *)bias, sizeof bias);
  edgel3_head head = {.kind = any(0, 1) ? EDGEL3_HEAD_SOFTMAX : EDGEL3_HEAD_SIGMOID,
                      .classes = 1,
                      .embedding = EMBEDDING,
                      .embedding_zero_point = Frama_C_int_interval(-128, 127),
                      .weights = weights,
                      .scale = scale,
                      .bias = bias};
  edgel3_head_scores(&head, embedding, scores);
  head.classes = any(0, CLASSES);
  head.embedding = any(0, EMBEDDING / CLASSES);
  //@ split head.classes;
  edgel3_head_scores(&head, embedding, scores);
}
