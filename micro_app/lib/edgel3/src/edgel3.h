/* EdgeL3 audio embeddings on a microcontroller: sparse int8 weights, row by row, bit-exact.
 *
 * The engine computes what TFLite's int8 reference kernels compute with the dense model. Weights are
 * read in place from the packed model (edgel3_packed.h describes the bytes); activations live in
 * rings of three rows, in an arena that the caller owns. There is no heap and no global state: as
 * many engines may run at a time as there are arenas. An engine itself is not reentrant.
 */
#ifndef EDGEL3_H_
#define EDGEL3_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Alignment in bytes that an arena must have. */
#define EDGEL3_ARENA_ALIGNMENT 16u
/** Alignment in bytes that a packed model must have. */
#define EDGEL3_MODEL_ALIGNMENT 4u

/** What a call answers. */
typedef enum edgel3_status {
  EDGEL3_OK = 0,
  EDGEL3_ERROR_ARGUMENT = 1,     /**< a null pointer, or a misaligned one */
  EDGEL3_ERROR_TRUNCATED = 2,    /**< fewer bytes than the model's header promises */
  EDGEL3_ERROR_MAGIC = 3,        /**< not a packed model */
  EDGEL3_ERROR_VERSION = 4,      /**< a packed model of another version of the format */
  EDGEL3_ERROR_CHECKSUM = 5,     /**< the bytes are not those that were packed */
  EDGEL3_ERROR_INCONSISTENT = 6, /**< a field that contradicts another or exceeds its range */
  EDGEL3_ERROR_ARENA = 7,        /**< the arena is smaller than edgel3_arena_bytes says */
  EDGEL3_ERROR_STATE = 8         /**< rows pushed after the last, or an embedding asked too early */
} edgel3_status;

/** Which kernels an engine uses. All give the same bytes. */
typedef enum edgel3_kernel_choice {
  EDGEL3_KERNELS_BEST = 0,    /**< the fastest this processor has */
  EDGEL3_KERNELS_PORTABLE = 1 /**< the C99 ones, which define the result */
} edgel3_kernel_choice;

/** What a packed model says about itself. */
typedef struct edgel3_info {
  uint32_t rows;      /**< input rows: mel bins */
  uint32_t columns;   /**< input columns: frames */
  uint32_t embedding; /**< values of an embedding */
  float input_scale;  /**< input value = input_scale * (q - input_zero_point) */
  int32_t input_zero_point;
  float output_scale; /**< embedding value = output_scale * (q - output_zero_point) */
  int32_t output_zero_point;
  uint32_t convolutions;
  uint8_t source_sha256[16]; /**< first half of the SHA-256 of the dense flatbuffer */
} edgel3_info;

/** An engine; it lies at the start of its arena. */
typedef struct edgel3_engine edgel3_engine;

/** Called with every row that enters a convolution, for debugging.
 *
 * @param convolution  0 for the first
 * @param row          0 for the first row of a window
 * @param values       [channels][stride] of int8 value + 128; a channel's row has `columns` of them
 */
typedef void (*edgel3_row_hook)(void *context, uint32_t convolution, uint32_t row,
                                const uint8_t *values, uint32_t channels, uint32_t columns,
                                uint32_t stride);

/** A line of English for a status. */
const char *edgel3_status_text(edgel3_status status);

/** Check a packed model whole and describe it.
 *
 * @param model  aligned to EDGEL3_MODEL_ALIGNMENT
 */
edgel3_status edgel3_describe(const void *model, size_t model_bytes, edgel3_info *info);

/** Bytes of arena that an engine for this model needs; checks the model whole.
 *
 * On a microcontroller both choices of kernels need the same. Kernels that a build adds to the library
 * may keep expanded weights in the arena, and then need far more.
 */
edgel3_status edgel3_arena_bytes(const void *model, size_t model_bytes,
                                 edgel3_kernel_choice kernels, size_t *arena_bytes);

/** Check a packed model and set an engine up.
 *
 * Nothing is checked again afterwards. Neither the model nor the arena may move or change while the
 * engine is in use. On any error *engine is null.
 *
 * @param arena  aligned to EDGEL3_ARENA_ALIGNMENT
 */
edgel3_status edgel3_open(edgel3_engine **engine, const void *model, size_t model_bytes,
                          edgel3_kernel_choice kernels, void *arena, size_t arena_bytes);

/** Have `hook` called from now on; null for none. */
void edgel3_set_row_hook(edgel3_engine *engine, edgel3_row_hook hook, void *context);

/** Begin a window; forgets whatever was pushed before. An engine just opened has begun one. */
void edgel3_begin(edgel3_engine *engine);

/** Push the next row of the window.
 *
 * @param row  one mel bin, int8, as many values as the window has frames; the lowest bin comes first
 */
edgel3_status edgel3_push_row(edgel3_engine *engine, const int8_t *row);

/** The embedding, after the last row of a window.
 *
 * @param embedding  int8, edgel3_info.embedding values
 */
edgel3_status edgel3_finish(edgel3_engine *engine, int8_t *embedding);

/** Begin, push every row, finish.
 *
 * @param window  int8 [rows][columns]
 */
edgel3_status edgel3_run(edgel3_engine *engine, const int8_t *window, int8_t *embedding);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_H_ */
