/* Runs packed models under the sanitizers, for test_engine_toolchains.py:
 *
 *   engine_driver KERNELS|short WINDOWS MODEL...
 *
 * KERNELS is the name of a choice of kernels, such as portable or avx2.
 * The program prints a line for each model: the status of edgel3_open, then the embedding of every
 * window in hexadecimal digits. Each buffer is a heap block of its exact size, so that
 * AddressSanitizer finds any access past its end. With `short` the arena is smaller than the engine
 * is told, which AddressSanitizer must find.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgel3.h"

typedef struct bytes {
  uint8_t *data;
  size_t size;
} bytes;

static void fail(const char *what) {
  fprintf(stderr, "engine_driver: %s\n", what);
  exit(2);
}

static void *allocate(size_t size) {
  void *block = malloc(size);
  if (block == NULL) fail("out of memory");
  return block;
}

static bytes read_file(const char *path) {
  FILE *file = fopen(path, "rb");
  bytes result;
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) fail(path);
  result.size = (size_t)ftell(file);
  result.data = (uint8_t *)allocate(result.size);
  rewind(file);
  if (fread(result.data, 1, result.size, file) != result.size) fail(path);
  fclose(file);
  return result;
}

/* Read all bytes that a hook may read. */
static void read_row(void *context, uint32_t convolution, uint32_t row, const uint8_t *values,
                     uint32_t channels, uint32_t columns, uint32_t stride) {
  uint32_t *sum = (uint32_t *)context;
  for (uint32_t i = 0; i < channels * stride; ++i) *sum += values[i];
  *sum += convolution + row + columns;
}

static void run_model(bytes model, bytes windows, edgel3_kernel_choice kernels, size_t missing) {
  size_t arena_bytes = 0;
  edgel3_status status = edgel3_arena_bytes(model.data, model.size, kernels, &arena_bytes);
  void *arena = allocate(status == EDGEL3_OK ? arena_bytes - missing : 0);
  edgel3_engine *engine = NULL;
  if (status == EDGEL3_OK) {
    status = edgel3_open(&engine, model.data, model.size, kernels, arena, arena_bytes);
  }
  printf("%d", (int)status);
  if (status == EDGEL3_OK) {
    uint32_t sum = 0;
    edgel3_info info;
    if (edgel3_describe(model.data, model.size, &info) != EDGEL3_OK) fail("describe");
    edgel3_set_row_hook(engine, read_row, &sum);
    const size_t window_bytes = (size_t)info.rows * info.columns;
    int8_t *window = (int8_t *)allocate(window_bytes);
    int8_t *embedding = (int8_t *)allocate(info.embedding);
    for (size_t at = 0; at + window_bytes <= windows.size; at += window_bytes) {
      memcpy(window, windows.data + at, window_bytes);
      if (edgel3_run(engine, window, embedding) != EDGEL3_OK) fail("run");
      putchar(' ');
      for (uint32_t i = 0; i < info.embedding; ++i) printf("%02x", (unsigned)(uint8_t)embedding[i]);
      /* Between windows this memory is the caller's. */
      size_t idle_bytes;
      void *idle = edgel3_idle_memory(engine, &idle_bytes);
      if (missing == 0) memset(idle, 0xa5, idle_bytes);
    }
    free(window);
    free(embedding);
  }
  putchar('\n');
  free(arena);
}

int main(int argc, char **argv) {
  if (argc < 4) fail("expected KERNELS|short WINDOWS MODEL...");
  const int is_short = strcmp(argv[1], "short") == 0;
  const int choice = edgel3_find_kernels(is_short ? "portable" : argv[1]);
  if (choice < 0) fail("unknown kernels, or this processor lacks them");
  const edgel3_kernel_choice kernels = (edgel3_kernel_choice)choice;
  const size_t missing = is_short ? EDGEL3_ARENA_ALIGNMENT : 0;
  const bytes windows = read_file(argv[2]);
  for (int i = 3; i < argc; ++i) {
    const bytes model = read_file(argv[i]);
    run_model(model, windows, kernels, missing);
    free(model.data);
  }
  free(windows.data);
  return 0;
}
