/* A node that is open, with an engine that accepts its window. The proofs of single requests put it into
 * the state that they are about. */
#ifndef OPENED_H_
#define OPENED_H_

#include "node.h"

static uint8_t input[VALUES], ears[EDGEL3_FRONTEND_WORK_BYTES(DFT) + 2 * VALUES];

static edgel3_status open_engine(const edgel3_node_model *model, edgel3_info *info,
                                 edgel3_node_memory *memory) {
  (void)model;
  info->rows = MELS;
  info->columns = FRAMES;
  info->embedding = EMBEDDING;
  memory->window = input;
  memory->window_bytes = sizeof input;
  return EDGEL3_OK;
}

static const edgel3_node_engine engine = {.open = open_engine};

/* Open a node. Return what edgel3_node_open returns. */
static uint32_t open_node(edgel3_node *node) {
  static edgel3_node_model model = {
      .engine = &engine, .frontend = &config, .ears = ears, .ears_bytes = sizeof ears};
  static edgel3_node_port port = {
      .write = write, .ticks = clock, .milliseconds = clock, .hear = hear};
  return edgel3_node_open(node, &model, &port);
}

#endif
