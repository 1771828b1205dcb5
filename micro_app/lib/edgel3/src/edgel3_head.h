/* A small classifier on top of the embedding: one dense int8 layer that the converter writes. */
#ifndef EDGEL3_HEAD_H_
#define EDGEL3_HEAD_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** How a class's linear output becomes its score. */
typedef enum edgel3_head_kind {
  EDGEL3_HEAD_SOFTMAX = 0, /**< exactly one class applies: the scores sum to 1 */
  EDGEL3_HEAD_SIGMOID = 1 /**< any number of classes apply: each score is a probability by itself */
} edgel3_head_kind;

/** A classifier.
 *
 * The linear output of class c is
 * scale[c] * sum over i of (q[i] - embedding_zero_point) * weights[c][i], plus bias[c].
 */
typedef struct edgel3_head {
  edgel3_head_kind kind;
  uint32_t classes;             /**< number of classes; 1 or more */
  uint32_t embedding;           /**< values of an embedding; 1 to 65535 */
  int32_t embedding_zero_point; /**< zero point of the embedding; -128 to 127 */
  const int8_t *weights;        /**< int8 [classes][embedding] */
  const float *scale;           /**< float [classes]; includes the scale of the embedding */
  const float *bias;            /**< float [classes] */
  const char *const *labels;    /**< [classes], names in UTF-8, each ended by a zero byte */
} edgel3_head;

/** Compute the class scores of an embedding.
 *
 * @param[in]  head       the classifier
 * @param[in]  embedding  int8 [head->embedding], quantized values as the engine writes them
 * @param[out] scores     float [head->classes], each in [0, 1]
 */
/*@ requires \valid_read(head) && head->embedding <= 65535;
  @ requires -128 <= head->embedding_zero_point <= 127;
  @ requires \valid_read(embedding + (0 .. head->embedding - 1));
  @ requires \valid_read(head->weights + (0 .. head->classes * head->embedding - 1));
  @ requires \valid_read(head->scale + (0 .. head->classes - 1));
  @ requires \valid_read(head->bias + (0 .. head->classes - 1));
  @ requires \valid(scores + (0 .. head->classes - 1));
  @ assigns scores[0 .. head->classes - 1] \from *head, embedding[0 .. head->embedding - 1];
  @*/
void edgel3_head_scores(const edgel3_head *head, const int8_t *embedding, float *scores);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_HEAD_H_ */
