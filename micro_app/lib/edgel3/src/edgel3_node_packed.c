/* The engine of a node that runs packed models with this library. */
#include "edgel3_node.h"

static edgel3_status describe(const edgel3_node_model *model, edgel3_info *info) {
  size_t arena_bytes = 0;
  edgel3_status status = edgel3_describe(model->network, model->network_bytes, info);
  if (status == EDGEL3_OK) {
    status =
        edgel3_arena_bytes(model->network, model->network_bytes, EDGEL3_KERNELS_BEST, &arena_bytes);
  }
  return status == EDGEL3_OK && arena_bytes > model->arena_bytes ? EDGEL3_ERROR_ARENA : status;
}

/* The log-mel values have overwritten the arena: set up the engine again. */
static edgel3_status run(const edgel3_node_model *model, const int8_t *window, int8_t *embedding) {
  edgel3_engine *engine;
  const edgel3_status status = edgel3_open(&engine, model->network, model->network_bytes,
                                           EDGEL3_KERNELS_BEST, model->arena, model->arena_bytes);
  return status == EDGEL3_OK ? edgel3_run(engine, window, embedding) : status;
}

const edgel3_node_engine edgel3_node_packed = {.describe = describe, .run = run};
