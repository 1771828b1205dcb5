/* A small classifier on top of the embedding: one int8 dense layer, made by the converter. */
#ifndef EDGEL3_HEAD_H_
#define EDGEL3_HEAD_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What the scores mean. */
typedef enum edgel3_head_kind {
  EDGEL3_HEAD_SOFTMAX = 0, /**< one class applies: they sum to 1 */
  EDGEL3_HEAD_SIGMOID = 1  /**< any number of classes apply: each is a probability of its own */
} edgel3_head_kind;

/** Class c: scale[c] * sum((q - embedding_zero_point) * weights[c]) + bias[c], then the kind's map. */
typedef struct edgel3_head {
  edgel3_head_kind kind;
  uint32_t classes;
  uint32_t embedding;
  int32_t embedding_zero_point;
  const int8_t *weights;     /**< [classes][embedding] */
  const float *scale;        /**< [classes] */
  const float *bias;         /**< [classes] */
  const char *const *labels; /**< [classes] */
} edgel3_head;

/** Scores of an embedding, in [0, 1].
 *
 * @param embedding  int8 [head->embedding]
 * @param scores     [head->classes]
 */
void edgel3_head_scores(const edgel3_head *head, const int8_t *embedding, float *scores);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_HEAD_H_ */
