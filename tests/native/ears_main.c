/* A node whose microphone delivers a fixed number of samples per row of the network, for
 * test_ears.py:
 *
 *   ears_main SAMPLES_PER_ROW LOSE_AT LOSE open|closed
 *
 * Standard input is the sound, int16. The program passes it to the node in blocks, and between rows
 * as many samples as SAMPLES_PER_ROW says. Sample LOSE_AT and the following, LOSE samples, are lost.
 * Standard output are the node's frames.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgel3_node_model.h"

#define BLOCK_SAMPLES 100u

static edgel3_node node;
static int16_t *sound;
static uint32_t samples, position, lose_at, lose;
static uint32_t per_row, ticks;

static void write_frame(void *context, const uint8_t *bytes, uint32_t count) {
  (void)context;
  fwrite(bytes, 1, count, stdout);
}

static uint32_t read_ticks(void *context) {
  (void)context;
  return ticks;
}

static int listen(void *context, int on) {
  (void)context;
  return on <= 1;
}

/* Pass the next samples. The node must not keep the block: its memory is freed. With open ears it
 * runs the network at most once, so that requests are served between two windows. */
static void pass(uint32_t count) {
  if (position == lose_at && lose > 0) {
    edgel3_node_miss(&node, lose);
    position += lose;
  }
  if (position < lose_at && count > lose_at - position) count = lose_at - position;
  if (count > samples - position) count = samples - position;
  int16_t *block = (int16_t *)malloc(count * sizeof *block);
  if (count > 0 && block == NULL) exit(1);
  memcpy(block, sound + position, count * sizeof *block);
  position += count;
  const uint32_t windows = node.windows;
  edgel3_node_hear(&node, block, count);
  if (node.is_open && node.windows > windows + 1u) exit(4);
  free(block);
}

static void hear(void *context) {
  (void)context;
  ticks += 7u;
  pass(per_row);
  ticks += 3u;
}

static void send_request(uint8_t command, const uint8_t *body, uint32_t length) {
  static uint8_t frame[EDGEL3_WIRE_FRAME_BYTES];
  const edgel3_wire_packet packet = {command, 1, 0, body, length};
  edgel3_node_receive(&node, frame, edgel3_wire_encode(&packet, frame));
}

int main(int argc, char **argv) {
  static const edgel3_node_port port = {
      .board = "ears",
      .write = write_frame,
      .ticks = read_ticks,
      .ticks_per_second = 1000000u,
      .milliseconds = read_ticks,
      .listen = listen,
      .hear = hear,
  };
  static uint8_t window[EDGEL3_NODE_WINDOW_BYTES] __attribute__((aligned(16)));
  static uint8_t ears[EDGEL3_NODE_EARS_BYTES] __attribute__((aligned(16)));
  static uint8_t arena[4 << 20] __attribute__((aligned(64)));
  edgel3_node_model model = EDGEL3_NODE_MODEL(arena, window, ears);
  if (argc != 5) return 2;
  per_row = (uint32_t)atoi(argv[1]);
  lose_at = (uint32_t)atoi(argv[2]);
  lose = (uint32_t)atoi(argv[3]);
  if (strcmp(argv[4], "closed") == 0) model.ears = NULL;
  const size_t most = 16u << 20;
  sound = (int16_t *)malloc(most);
  if (sound == NULL) return 1;
  samples = (uint32_t)(fread(sound, 1, most, stdin) / sizeof *sound);
  if (edgel3_node_open(&node, &model, &port) != 0) return 3;
  const uint8_t on = 1, off = 0;
  send_request(EDGEL3_WIRE_INFO, NULL, 0);
  send_request(EDGEL3_WIRE_STREAM, &on, 1);
  while (position < samples) pass(BLOCK_SAMPLES);
  send_request(EDGEL3_WIRE_STREAM, &off, 1);
  send_request(EDGEL3_WIRE_STATISTICS, NULL, 0);
  free(sound);
  return 0;
}
