/* The engine of a node that runs packed models with this library. */
#include "edgel3_node.h"

static edgel3_status open_model(const edgel3_node_model *model, edgel3_info *info,
                                edgel3_node_memory *memory) {
  edgel3_engine *engine;
  const edgel3_status status = edgel3_describe(model->network, model->network_bytes, info);
  if (status != EDGEL3_OK) return status;
  memory->idle = model->arena;
  memory->idle_bytes = model->arena_bytes;
  memory->window = model->window;
  memory->window_bytes = model->window_bytes;
  /* Opening shows whether the arena is large enough. */
  return edgel3_open(&engine, model->network, model->network_bytes, EDGEL3_KERNELS_BEST,
                     model->arena, model->arena_bytes);
}

/* The log-mel values have overwritten the arena: set up the engine again. */
static edgel3_status run(const edgel3_node_model *model, int8_t *embedding,
                         edgel3_between_rows between_rows, void *context) {
  edgel3_engine *engine;
  const edgel3_status status = edgel3_open(&engine, model->network, model->network_bytes,
                                           EDGEL3_KERNELS_BEST, model->arena, model->arena_bytes);
  if (status != EDGEL3_OK) return status;
  edgel3_set_between_rows(engine, between_rows, context);
  return edgel3_run(engine, (const int8_t *)model->window, embedding);
}

const edgel3_node_engine edgel3_node_packed = {.open = open_model, .run = run};
