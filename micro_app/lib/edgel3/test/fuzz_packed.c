/* libFuzzer target: for any bytes as a packed model, the engine must stay within its memory.
 *
 * tests/micro_app/test_fuzz.py builds and runs it. By hand:
 *
 * clang -g -O1 -fsanitize=fuzzer,address,undefined -I../src fuzz_packed.c ../src/[files] -o
 * fuzz_packed
 *
 * The mutator corrects size and checksum, because hardly any random input has the right ones. The
 * target runs every accepted model, in an arena of exactly the required size.
 */
#include <stdlib.h>
#include <string.h>

#include "edgel3.h"
#include "edgel3_bytes.h"
#include "edgel3_packed.h"

/* Limits for the models that are run; larger ones take more time and find no more. */
#define MAX_ARENA_BYTES (1u << 20)
#define MAX_MACS (1u << 24)

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  /* Leave one in eight inputs as it is, to test the checks of size and checksum as well. */
  if (size >= 16u && seed % 8u != 0) {
    memcpy(data, "EL3P\1", 6);
    edgel3_put_u32(data + 8, (uint32_t)size);
    edgel3_put_u32(data + 12, edgel3_crc32(0, data + 16, size - 16u));
  }
  return size;
}

static void run(const uint8_t *model, size_t size, const edgel3_info *info,
                edgel3_kernel_choice kernels) {
  size_t arena_bytes = 0;
  if (edgel3_arena_bytes(model, size, kernels, &arena_bytes) != EDGEL3_OK) abort();
  if (arena_bytes > MAX_ARENA_BYTES) return;
  /* From the heap, so that AddressSanitizer checks both ends. */
  uint8_t *arena = NULL;
  if (posix_memalign((void **)(void *)&arena, EDGEL3_ARENA_ALIGNMENT, arena_bytes) != 0) return;
  int8_t *window = (int8_t *)malloc((size_t)info->rows * info->columns);
  int8_t *embedding = (int8_t *)malloc(info->embedding);
  edgel3_engine *engine = NULL;
  if (arena_bytes > 0 &&
      edgel3_open(&engine, model, size, kernels, arena, arena_bytes - 1u) != EDGEL3_ERROR_ARENA) {
    abort();
  }
  if (edgel3_open(&engine, model, size, kernels, arena, arena_bytes) != EDGEL3_OK) abort();
  for (size_t i = 0; i < (size_t)info->rows * info->columns; ++i) {
    window[i] = (int8_t)(uint8_t)(i * 37u);
  }
  if (edgel3_run(engine, window, embedding) != EDGEL3_OK) abort();
  free(embedding);
  free(window);
  free(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t *model = NULL;
  edgel3_info info;
  if (posix_memalign((void **)(void *)&model, EDGEL3_ARENA_ALIGNMENT, size) != 0) return 0;
  memcpy(model, data, size);
  if (edgel3_describe(model, size, &info) == EDGEL3_OK &&
      (uint64_t)info.rows * info.columns * size < MAX_MACS) {
    run(model, size, &info, EDGEL3_KERNELS_PORTABLE);
    run(model, size, &info, EDGEL3_KERNELS_BEST);
  }
  free(model);
  return 0;
}
