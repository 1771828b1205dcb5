/* The node as a program for this machine. Its host uses the program's standard input and output.
 *
 * CMakeLists.txt builds it, and the tests of the protocol run it. It has no microphone. The kernels
 * for desktop processors need a larger arena than the header of the model says. The program asks
 * the engine for the size; with TFLM, whose arena contains that of the engine, it provides 64 MiB.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define EDGEL3_NODE_OPENS_EARS 0
#include "edgel3_node_model.h"

static edgel3_node node;

static void write_frame(void *context, const uint8_t *bytes, uint32_t count) {
  (void)context;
  while (count > 0) {
    const ssize_t written = write(STDOUT_FILENO, bytes, count);
    if (written <= 0) exit(0); /* the host has closed the connection */
    bytes += written;
    count -= (uint32_t)written;
  }
}

static uint32_t read_microseconds(void *context) {
  struct timespec now;
  (void)context;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint32_t)((uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u);
}

static uint32_t read_milliseconds(void *context) {
  struct timespec now;
  (void)context;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint32_t)((uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u);
}

int main(void) {
  static const edgel3_node_port port = {
      .board = "host",
      .context = NULL,
      .write = write_frame,
      .ticks = read_microseconds,
      .ticks_per_second = 1000000u,
      .milliseconds = read_milliseconds,
      .listen = NULL,
      .hear = NULL,
  };
  static uint8_t window[EDGEL3_NODE_WINDOW_BYTES] __attribute__((aligned(16)));
  static uint8_t arena[EDGEL3_NODE_ARENA_BYTES] __attribute__((aligned(16)));
  static uint8_t ears[EDGEL3_NODE_EARS_BYTES] __attribute__((aligned(16)));
  edgel3_node_model model = EDGEL3_NODE_MODEL(arena, window, ears);
#ifdef EDGEL3_NODE_USES_TFLM
  const size_t arena_bytes = 64u * 1024u * 1024u;
#else
  size_t arena_bytes = 0;
  edgel3_arena_bytes(model.network, model.network_bytes, EDGEL3_KERNELS_BEST, &arena_bytes);
#endif
  if (arena_bytes > model.arena_bytes) {
    void *larger = NULL;
    if (posix_memalign(&larger, 64, arena_bytes) != 0) return 1;
    model.arena = larger;
    model.arena_bytes = arena_bytes;
  }
  edgel3_node_open(&node, &model, &port);
  uint8_t bytes[4096];
  for (;;) {
    const ssize_t count = read(STDIN_FILENO, bytes, sizeof bytes);
    if (count <= 0) return 0;
    edgel3_node_receive(&node, bytes, (uint32_t)count);
  }
}
