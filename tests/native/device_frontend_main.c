/* Runs the frontend on the emulated board, for test_frontend_toolchains.py.
 *
 * QEMU's loader writes the number of windows (uint32) and their int16 samples to WINDOWS_ADDRESS.
 * The program pushes the samples in blocks, as a microphone's driver does. For each window it
 * prints a line of JSON with the instructions of each step and the quantized log-mel values
 * ("cells").
 */
#include <stdint.h>

#include "board.h"
#include "edgel3_model_frontend.h"

#define WINDOWS_ADDRESS 0x60000000u
#define BLOCK_SAMPLES 256u
#define CELLS (EDGEL3_MODEL_FRONTEND_LEVELS_BYTES / sizeof(int16_t))
#define GUARD 0x5au

static int16_t levels[CELLS];
/* A guard of four bytes follows the working memory. */
static uint32_t work[EDGEL3_MODEL_FRONTEND_WORK_BYTES / 4u + 1u];

static uint32_t instructions_since(uint32_t start) {
  return (board_ticks() - start) * BOARD_INSTRUCTIONS_PER_TICK;
}

int main(void) {
  const edgel3_frontend_config *config = &edgel3_model_frontend;
  const uint32_t *image = (const uint32_t *)WINDOWS_ADDRESS;
  const int16_t *samples = (const int16_t *)(image + 1);
  int8_t *cells = (int8_t *)levels;
  edgel3_frontend frontend;
  const uint32_t last = sizeof work / sizeof work[0] - 1u;
  work[last] = GUARD;
  void *ring = (uint8_t *)work + EDGEL3_FRONTEND_SPECTRUM_BYTES(config->dft_samples);
  if (edgel3_frontend_levels_bytes(config) != sizeof levels ||
      edgel3_frontend_open(&frontend, config, levels, ring, work) != EDGEL3_OK) {
    return 2;
  }
  for (uint32_t window = 0; window < image[0]; ++window) {
    const int16_t *end = samples + config->window_samples;
    uint32_t slowest = 0;
    uint32_t start = board_ticks();
    edgel3_frontend_begin(&frontend);
    while (samples < end) {
      const uint32_t left = (uint32_t)(end - samples);
      const uint32_t push_start = board_ticks();
      samples +=
          edgel3_frontend_push(&frontend, samples, left < BLOCK_SAMPLES ? left : BLOCK_SAMPLES);
      const uint32_t push = instructions_since(push_start);
      if (push > slowest) slowest = push;
    }
    const uint32_t push = instructions_since(start);
    start = board_ticks();
    if (edgel3_frontend_finish(&frontend) != EDGEL3_OK) return 3;
    const uint32_t finish = instructions_since(start);
    start = board_ticks();
    edgel3_frontend_quantize(&frontend, cells);
    const uint32_t quantize = instructions_since(start);
    board_write_number("{\"push\": ", push);
    board_write_number(", \"slowest_push\": ", slowest);
    board_write_number(", \"finish\": ", finish);
    board_write_number(", \"quantize\": ", quantize);
    board_write_bytes(", \"cells\": \"", cells, CELLS);
    board_write("\"}\n");
  }
  return work[last] == GUARD ? 0 : 4;
}
