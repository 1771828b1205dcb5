/* Products of a sparse float matrix, for the quantizer. Python calls them as the module
 * edgel3_tflm.converters.quantization._sparse_products.
 *
 * All sums run over the same terms in the same order on every processor, and round after every
 * product and every sum, so that the results are the same bytes everywhere.
 */
#ifndef EDGEL3_SPARSE_PRODUCTS_H_
#define EDGEL3_SPARSE_PRODUCTS_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Multiplies a sparse matrix by columns of a dense one: sums[row][column] = bias[row] + the sum over
 * the row's entries of weights[entry] * values[offsets[entry] + column].
 *
 * The entries of a row are those from begins[row] to begins[row + 1] - 1. `sums` has the shape
 * [rows][columns]. Rows from `first` to `end` - 1 are computed.
 */
void edgel3_sparse_multiply(const float *values, const uint32_t *begins, const uint32_t *offsets,
                            const float *weights, const float *bias, uint32_t first, uint32_t end,
                            uint32_t columns, float *sums);

/* Computes the gradient of the weights: gradients[entry] = the sum over all columns of
 * errors[row][column] * values[offsets[entry] + column], for the entries of rows `first` to `end` - 1.
 */
void edgel3_sparse_correlate(const float *values, const uint32_t *begins, const uint32_t *offsets,
                             const float *errors, uint32_t first, uint32_t end, uint32_t columns,
                             float *gradients);

#ifdef __cplusplus
}
#endif

#endif
