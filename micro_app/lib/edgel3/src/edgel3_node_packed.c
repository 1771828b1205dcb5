/* The engine of a node that runs packed models with this library. */
#include "edgel3_node.h"

static edgel3_status describe(const edgel3_node_model *model, edgel3_info *info) {
  edgel3_engine *engine;
  const edgel3_status status = edgel3_describe(model->network, model->network_bytes, info);
  if (status != EDGEL3_OK) return status;
  /* Opening shows whether the arena is large enough. */
  return edgel3_open(&engine, model->network, model->network_bytes, EDGEL3_KERNELS_BEST,
                     model->arena, model->arena_bytes);
}

/* The log-mel values have overwritten the arena: set up the engine again. */
static edgel3_status run(const edgel3_node_model *model, const int8_t *window, int8_t *embedding,
                         edgel3_between_rows between_rows, void *context) {
  edgel3_engine *engine;
  const edgel3_status status = edgel3_open(&engine, model->network, model->network_bytes,
                                           EDGEL3_KERNELS_BEST, model->arena, model->arena_bytes);
  if (status != EDGEL3_OK) return status;
  edgel3_set_between_rows(engine, between_rows, context);
  return edgel3_run(engine, window, embedding);
}

const edgel3_node_engine edgel3_node_packed = {.describe = describe, .run = run};
