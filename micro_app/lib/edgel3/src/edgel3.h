/* The engine: runs a packed EdgeL3 network on a microcontroller, in int8.
 *
 * The input of the network is one window of log-mel values, the output one embedding. Both are int8
 * quantized values. The engine computes the same bytes as TensorFlow Lite's int8 reference kernels
 * do with the dense network.
 *
 * The engine reads the weights in place from the packed model, whose format edgel3_packed.h
 * describes. It keeps three rows of every convolution's input, in an arena that the caller
 * provides. It uses no heap and no global state: a program may run one engine for every arena. Two
 * threads must not use the same engine at the same time.
 *
 * Every function returns an edgel3_status unless stated otherwise.
 */
#ifndef EDGEL3_H_
#define EDGEL3_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Required alignment of an arena, in bytes. */
#define EDGEL3_ARENA_ALIGNMENT 16u
/** Required alignment of a packed model, in bytes. */
#define EDGEL3_MODEL_ALIGNMENT 4u

/** Result of a call: EDGEL3_OK, or the reason for an error. */
typedef enum edgel3_status {
  EDGEL3_OK = 0,                 /**< success */
  EDGEL3_ERROR_ARGUMENT = 1,     /**< a pointer is null or not aligned as required */
  EDGEL3_ERROR_TRUNCATED = 2,    /**< the model has fewer bytes than its header says */
  EDGEL3_ERROR_MAGIC = 3,        /**< the bytes are not a packed model */
  EDGEL3_ERROR_VERSION = 4,      /**< the packed model has another version of the format */
  EDGEL3_ERROR_CHECKSUM = 5,     /**< the checksum differs: the packed model is damaged */
  EDGEL3_ERROR_INCONSISTENT = 6, /**< a field contradicts another one or exceeds its range */
  EDGEL3_ERROR_ARENA = 7,        /**< the arena is smaller than edgel3_arena_bytes says */
  EDGEL3_ERROR_STATE = 8         /**< the call is not allowed at this point of a window */
} edgel3_status;

/** Which kernels an engine uses. The results are the same bytes with all of them. */
typedef enum edgel3_kernel_choice {
  EDGEL3_KERNELS_BEST = 0,     /**< for each convolution the fastest that this processor can run */
  EDGEL3_KERNELS_PORTABLE = 1, /**< the C99 kernels, which define the result */
  EDGEL3_KERNELS_EXTRA = 2 /**< this and larger values: kernels that a build adds to the library,
                                    as edgel3_find_kernels returns them */
} edgel3_kernel_choice;

/** Properties of a packed model. */
typedef struct edgel3_info {
  uint32_t rows;             /**< rows of the input, one for each mel band; 1 to 65535 */
  uint32_t columns;          /**< columns of the input, one for each frame; 1 to 65535 */
  uint32_t embedding;        /**< values of an embedding; 1 to 65535 */
  float input_scale;         /**< input in dB = input_scale * (q - input_zero_point); above 0 */
  int32_t input_zero_point;  /**< -128 to 127 */
  float output_scale;        /**< embedding = output_scale * (q - output_zero_point); above 0 */
  int32_t output_zero_point; /**< -128 to 127 */
  uint32_t convolutions;     /**< number of convolutions; 1 to 8 */
  uint8_t source_sha256[16]; /**< first half of the SHA-256 of the dense flatbuffer */
} edgel3_info;

/** An engine. It is the first part of its arena; its fields are private. */
typedef struct edgel3_engine edgel3_engine;

/** Debugging hook: the engine calls it with every row that enters a convolution.
 *
 * The values are valid during the call only.
 *
 * @param[in,out] context      the pointer that edgel3_set_row_hook was given
 * @param[in]     convolution  index of the convolution; 0 is the first
 * @param[in]     row          index of the row within the window; 0 is the first
 * @param[in]     values       uint8 [channels][stride], the int8 quantized values plus 128; each
 *                             channel has `columns` values, then stride - columns bytes of padding
 * @param[in]     channels     input channels of the convolution; 1 or more
 * @param[in]     columns      values of a channel's row; 1 or more
 * @param[in]     stride       bytes from one channel's row to the next; columns + 1
 */
typedef void (*edgel3_row_hook)(void *context, uint32_t convolution, uint32_t row,
                                const uint8_t *values, uint32_t channels, uint32_t columns,
                                uint32_t stride);

/** Function that the engine calls after every row of a convolution's output, so that a program can do
 * short other work while a window is computed, such as reading a microphone.
 *
 * It must not use the engine or its arena.
 *
 * @param[in,out] context  the pointer that edgel3_set_between_rows was given
 */
typedef void (*edgel3_between_rows)(void *context);

/** Describe a status in English.
 *
 * @param[in] status  any value
 * @return a static string without a full stop; never null
 */
const char *edgel3_status_text(edgel3_status status);

#ifdef EDGEL3_EXTRA_KERNELS
/** Find kernels by their name. Only builds that add kernels have this function.
 *
 * @param[in] name  "best", "portable", or the name of kernels that the build adds
 * @return the choice; -1 if the build or this processor has no kernels of this name
 */
int edgel3_find_kernels(const char *name);
#endif

/** Check every field of a packed model, and read its properties.
 *
 * @param[in]  model        the packed model, aligned to EDGEL3_MODEL_ALIGNMENT bytes
 * @param[in]  model_bytes  bytes that may be read at `model`; the model's size or more
 * @param[out] info         the properties; written only on success
 * @return EDGEL3_OK, EDGEL3_ERROR_ARGUMENT, or why the model is refused
 */
edgel3_status edgel3_describe(const void *model, size_t model_bytes, edgel3_info *info);

/** Check a packed model like edgel3_describe, and compute the size of the arena that it needs.
 *
 * The fastest kernels for ARMv7E-M widen input rows in the arena: for EdgeL3 95.45 it is 30 % larger
 * than with EDGEL3_KERNELS_PORTABLE. edgel3_open takes either size; with the smaller one, the engine
 * computes the same bytes with slower kernels. Kernels that a build adds to the library may keep
 * expanded weights in the arena, and need many times as much.
 *
 * @param[in]  model        the packed model, aligned to EDGEL3_MODEL_ALIGNMENT bytes
 * @param[in]  model_bytes  bytes that may be read at `model`; the model's size or more
 * @param[in]  kernels      the kernels that the engine will use
 * @param[out] arena_bytes  size of the arena in bytes, 2048 or more; written only on success
 * @return EDGEL3_OK, EDGEL3_ERROR_ARGUMENT, or why the model is refused
 */
edgel3_status edgel3_arena_bytes(const void *model, size_t model_bytes,
                                 edgel3_kernel_choice kernels, size_t *arena_bytes);

/** Check a packed model like edgel3_describe, and compute the size of the smallest arena that
 * edgel3_open takes with EDGEL3_KERNELS_BEST. On a microcontroller it is the one that the headers of
 * a deployment give; with the larger arena of edgel3_arena_bytes the engine may be faster.
 *
 * @param[in]  model        the packed model, aligned to EDGEL3_MODEL_ALIGNMENT bytes
 * @param[in]  model_bytes  bytes that may be read at `model`; the model's size or more
 * @param[in]  idle_bytes   least size of edgel3_idle_memory; 0 if it is not used
 * @param[out] arena_bytes  size of the arena in bytes, 2048 or more; written only on success
 * @return EDGEL3_OK, EDGEL3_ERROR_ARGUMENT, or why the model is refused
 */
edgel3_status edgel3_least_arena_bytes(const void *model, size_t model_bytes, size_t idle_bytes,
                                       size_t *arena_bytes);

/** Check a packed model, set up an engine and begin a window.
 *
 * Later calls do not check the model again. Model and arena must stay where they are, and nobody
 * may change them, as long as the engine is in use. There is nothing to close: the caller reuses
 * the arena.
 *
 * @param[out] engine       the engine; null on any error
 * @param[in]  model        the packed model, aligned to EDGEL3_MODEL_ALIGNMENT bytes
 * @param[in]  model_bytes  bytes that may be read at `model`; the model's size or more
 * @param[in]  kernels      the kernels to use
 * @param[out] arena        memory for the engine, aligned to EDGEL3_ARENA_ALIGNMENT bytes
 * @param[in]  arena_bytes  size of the arena in bytes; what edgel3_arena_bytes gives for the same
 *                          kernels, or more. For ARMv7E-M also what it gives for
 *                          EDGEL3_KERNELS_PORTABLE: the engine is then slower.
 * @return EDGEL3_OK, EDGEL3_ERROR_ARGUMENT, EDGEL3_ERROR_ARENA, or why the model is refused
 */
edgel3_status edgel3_open(edgel3_engine **engine, const void *model, size_t model_bytes,
                          edgel3_kernel_choice kernels, void *arena, size_t arena_bytes);

/** Set the hook that is called with every row from now on.
 *
 * @param[in,out] engine   an open engine
 * @param[in]     hook     the function to call; null to call none
 * @param[in]     context  passed to every call of the hook; may be null
 */
void edgel3_set_row_hook(edgel3_engine *engine, edgel3_row_hook hook, void *context);

/** Set the function that is called after every row of a convolution's output from now on.
 *
 * @param[in,out] engine        an open engine
 * @param[in]     between_rows  the function to call; null to call none
 * @param[in]     context       passed to every call of the function; may be null
 */
void edgel3_set_between_rows(edgel3_engine *engine, edgel3_between_rows between_rows,
                             void *context);

/** Return the part of the arena that the engine does not need between two windows. The caller may
 * use it, and must then call edgel3_begin or edgel3_run, which overwrite it.
 *
 * @param[in]  engine  an open engine
 * @param[out] bytes   size of the memory in bytes; almost the whole arena on a microcontroller
 * @return the memory, aligned to EDGEL3_ARENA_ALIGNMENT bytes; never null
 */
void *edgel3_idle_memory(edgel3_engine *engine, size_t *bytes);

/** Begin a window and discard all rows pushed before. edgel3_open has begun the first window.
 *
 * @param[in,out] engine  an open engine
 */
void edgel3_begin(edgel3_engine *engine);

/** Push the next row of the window, and compute everything that it completes.
 *
 * @param[in,out] engine  an open engine
 * @param[in]     row     int8 [columns], the quantized values of one mel band at every frame; the
 *                        lowest band is the first row
 * @return EDGEL3_OK, EDGEL3_ERROR_ARGUMENT, or EDGEL3_ERROR_STATE if the window is complete
 */
edgel3_status edgel3_push_row(edgel3_engine *engine, const int8_t *row);

/** Read the embedding after the last row of a window. Calls may be repeated.
 *
 * @param[in]  engine     an open engine
 * @param[out] embedding  int8 [embedding], quantized values; see output_scale in edgel3_info
 * @return EDGEL3_OK, EDGEL3_ERROR_ARGUMENT, or EDGEL3_ERROR_STATE if rows are missing
 */
edgel3_status edgel3_finish(edgel3_engine *engine, int8_t *embedding);

/** Compute the embedding of a whole window: begin, push every row, finish.
 *
 * @param[in,out] engine     an open engine
 * @param[in]     window     int8 [rows][columns], quantized values; the lowest mel band comes first
 * @param[out]    embedding  int8 [embedding], quantized values
 * @return EDGEL3_OK or EDGEL3_ERROR_ARGUMENT
 */
edgel3_status edgel3_run(edgel3_engine *engine, const int8_t *window, int8_t *embedding);

#ifdef __cplusplus
}
#endif

#endif /* EDGEL3_H_ */
