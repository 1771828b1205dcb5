/* The engine: keeps three input rows of every convolution and computes an output row as soon as its
 * input rows are there.
 */
#include <string.h>

#include "edgel3.h"
#include "edgel3_kernels.h"
#include "edgel3_packed.h"

/* State of a convolution while a window is computed. */
typedef struct edgel3_layer {
  const edgel3_kernels *kernels;
  uint8_t *ring;     /* the latest three input rows */
  void *prepared;    /* expanded weights; null if the kernels expand them for every row */
  uint32_t rows_in;  /* input rows received */
  uint32_t rows_out; /* output rows computed, before pooling */
} edgel3_layer;

struct edgel3_engine {
  edgel3_model model;
  edgel3_layer layers[EDGEL3_MAX_CONVOLUTIONS];
  /* Scratch memory of the kernels, shared by all layers. */
  uint16_t *offsets;
  edgel3_tap *list;
  int32_t *accumulators;
  uint8_t *row;     /* one channel of an output row before pooling */
  uint8_t *maximum; /* of each channel of the last convolution, so far */
  size_t arena_bytes;
  size_t idle_from; /* offset of the arena's part that is not needed between windows */
  edgel3_row_hook hook;
  void *hook_context;
  edgel3_between_rows between_rows;
  void *between_rows_context;
};

/* Bytes of the arena for the engine itself: the same for every processor, so that the converter can
 * compute the arena of any of them. */
#define STATE_BYTES 2048u
typedef char edgel3_state_fits[sizeof(edgel3_engine) <= STATE_BYTES ? 1 : -1];

/* `widen` tells whether the arena has room for widened rows. */
static const edgel3_kernels *choose_kernels(const edgel3_conv *conv, edgel3_kernel_choice choice,
                                            int widen) {
#ifdef EDGEL3_HAS_KERNELS_M7
  if (choice == EDGEL3_KERNELS_BEST && edgel3_kernels_pairs_m7.accepts(conv)) {
    return &edgel3_kernels_pairs_m7;
  }
  if (choice == EDGEL3_KERNELS_BEST && widen && edgel3_kernels_words_m7.accepts(conv)) {
    return &edgel3_kernels_words_m7;
  }
  if (choice == EDGEL3_KERNELS_BEST && edgel3_kernels_m7.accepts(conv)) return &edgel3_kernels_m7;
#endif
#ifdef EDGEL3_EXTRA_KERNELS
  for (const edgel3_extra_kernels *extra = EDGEL3_EXTRA_KERNELS; extra->kernels != NULL; ++extra) {
    const int is_chosen = choice == EDGEL3_KERNELS_BEST || (uint32_t)choice == extra->choice;
    if (is_chosen && extra->is_supported() && extra->kernels->accepts(conv)) return extra->kernels;
  }
#endif
  (void)conv;
  (void)choice;
  (void)widen;
  return &edgel3_kernels_portable;
}

#ifdef EDGEL3_EXTRA_KERNELS
int edgel3_find_kernels(const char *name) {
  if (strcmp(name, "best") == 0) return EDGEL3_KERNELS_BEST;
  if (strcmp(name, "portable") == 0) return EDGEL3_KERNELS_PORTABLE;
  for (const edgel3_extra_kernels *extra = EDGEL3_EXTRA_KERNELS; extra->kernels != NULL; ++extra) {
    if (strcmp(name, extra->name) == 0 && extra->is_supported()) return (int)extra->choice;
  }
  return -1;
}
#endif

/* Divides an arena into pieces. If the arena is null, it only counts the bytes. */
typedef struct layout {
  uint8_t *arena;
  size_t used;
} layout;

static void *take(layout *plan, size_t bytes) {
  void *piece = plan->arena == NULL ? NULL : plan->arena + plan->used;
  plan->used += (bytes + EDGEL3_ARENA_ALIGNMENT - 1u) & ~(size_t)(EDGEL3_ARENA_ALIGNMENT - 1u);
  return piece;
}

/* Lay out the arena and return the bytes used. If engine and arena are null, only count them. */
static size_t lay_out(edgel3_engine *engine, const edgel3_model *model, edgel3_kernel_choice choice,
                      int widen, uint8_t *arena) {
  edgel3_engine unused;
  if (engine == NULL) engine = &unused;
  layout plan = {arena, 0};
  size_t offsets_bytes = 0, list_bytes = 0, columns = 0;
  take(&plan, STATE_BYTES);
  for (uint32_t i = 0; i < model->info.convolutions; ++i) {
    const edgel3_conv *conv = &model->convolutions[i];
    const edgel3_kernels *kernels = choose_kernels(conv, choice, widen);
    engine->layers[i].kernels = kernels;
    engine->layers[i].prepared =
        kernels->prepared_bytes == NULL ? NULL : take(&plan, kernels->prepared_bytes(conv));
  }
  /* What follows is not needed between windows. */
  engine->idle_from = plan.used;
  for (uint32_t i = 0; i < model->info.convolutions; ++i) {
    const edgel3_conv *conv = &model->convolutions[i];
    engine->layers[i].ring =
        (uint8_t *)take(&plan, 3u * edgel3_slot_bytes(conv) + EDGEL3_OVERREAD_BYTES);
    const edgel3_kernels *kernels = engine->layers[i].kernels;
    const int widened = kernels->widened_bytes != NULL;
    const size_t list = edgel3_list_bytes(conv) + (widened ? kernels->widened_bytes(conv) : 0);
    const size_t offsets =
        edgel3_taps_per_channel(conv) * (widened ? sizeof(uint32_t) : sizeof *engine->offsets);
    if (offsets > offsets_bytes) offsets_bytes = offsets;
    if (list > list_bytes) list_bytes = list;
    if (edgel3_padded_columns(conv) > columns) columns = edgel3_padded_columns(conv);
  }
  engine->offsets = (uint16_t *)take(&plan, offsets_bytes);
  engine->list = (edgel3_tap *)take(&plan, list_bytes);
  engine->accumulators = (int32_t *)take(&plan, columns * sizeof *engine->accumulators);
  engine->row = (uint8_t *)take(&plan, columns);
  engine->maximum = (uint8_t *)take(&plan, model->info.embedding);
  return plan.used;
}

edgel3_status edgel3_describe(const void *model, size_t model_bytes, edgel3_info *info) {
  edgel3_model view;
  if (info == NULL) return EDGEL3_ERROR_ARGUMENT;
  const edgel3_status status = edgel3_read_model(&view, model, model_bytes);
  if (status == EDGEL3_OK) *info = view.info;
  return status;
}

edgel3_status edgel3_arena_bytes(const void *model, size_t model_bytes,
                                 edgel3_kernel_choice kernels, size_t *arena_bytes) {
  edgel3_model view;
  if (arena_bytes == NULL) return EDGEL3_ERROR_ARGUMENT;
  const edgel3_status status = edgel3_read_model(&view, model, model_bytes);
  if (status == EDGEL3_OK) *arena_bytes = lay_out(NULL, &view, kernels, 1, NULL);
  return status;
}

edgel3_status edgel3_least_arena_bytes(const void *model, size_t model_bytes, size_t idle_bytes,
                                       size_t *arena_bytes) {
  edgel3_engine plan;
  if (arena_bytes == NULL) return EDGEL3_ERROR_ARGUMENT;
  const edgel3_status status = edgel3_read_model(&plan.model, model, model_bytes);
  if (status != EDGEL3_OK) return status;
  const size_t least = lay_out(&plan, &plan.model, EDGEL3_KERNELS_BEST, 0, NULL);
  const size_t idle = plan.idle_from + idle_bytes;
  *arena_bytes = idle > least ? idle : least;
  return EDGEL3_OK;
}

edgel3_status edgel3_open(edgel3_engine **engine, const void *model, size_t model_bytes,
                          edgel3_kernel_choice kernels, void *arena, size_t arena_bytes) {
  if (engine == NULL) return EDGEL3_ERROR_ARGUMENT;
  *engine = NULL;
  if (arena == NULL || (uintptr_t)arena % EDGEL3_ARENA_ALIGNMENT != 0) return EDGEL3_ERROR_ARGUMENT;
  if (arena_bytes < STATE_BYTES) return EDGEL3_ERROR_ARENA;
  edgel3_engine *self = (edgel3_engine *)arena;
  memset(self, 0, sizeof *self);
  const edgel3_status status = edgel3_read_model(&self->model, model, model_bytes);
  if (status != EDGEL3_OK) return status;
  const int widen = lay_out(NULL, &self->model, kernels, 1, NULL) <= arena_bytes;
  if (!widen && lay_out(NULL, &self->model, kernels, 0, NULL) > arena_bytes) {
    return EDGEL3_ERROR_ARENA;
  }
  lay_out(self, &self->model, kernels, widen, (uint8_t *)arena);
  for (uint32_t i = 0; i < self->model.info.convolutions; ++i) {
    edgel3_layer *layer = &self->layers[i];
    if (layer->kernels->prepare != NULL) {
      layer->kernels->prepare(&self->model.convolutions[i], self->offsets, self->list,
                              layer->prepared);
    }
  }
  self->arena_bytes = arena_bytes;
  edgel3_begin(self);
  *engine = self;
  return EDGEL3_OK;
}

void edgel3_set_row_hook(edgel3_engine *engine, edgel3_row_hook hook, void *context) {
  engine->hook = hook;
  engine->hook_context = context;
}

void edgel3_set_between_rows(edgel3_engine *engine, edgel3_between_rows between_rows,
                             void *context) {
  engine->between_rows = between_rows;
  engine->between_rows_context = context;
}

void *edgel3_idle_memory(edgel3_engine *engine, size_t *bytes) {
  *bytes = engine->arena_bytes - engine->idle_from;
  return (uint8_t *)engine + engine->idle_from;
}

/* The slot of a ring for input row `row` - 1. Row 0 is the padding above the map. */
static uint8_t *ring_slot(const edgel3_conv *conv, const edgel3_layer *layer, uint32_t row) {
  return layer->ring + row % 3u * edgel3_slot_bytes(conv);
}

void edgel3_begin(edgel3_engine *engine) {
  for (uint32_t i = 0; i < engine->model.info.convolutions; ++i) {
    const edgel3_conv *conv = &engine->model.convolutions[i];
    edgel3_layer *layer = &engine->layers[i];
    /* Fill the ring with padding. Rows overwrite the columns only; slot 0 is the padding above the
     * map until row 3 needs it. */
    memset(layer->ring, conv->input_zero, 3u * edgel3_slot_bytes(conv) + EDGEL3_OVERREAD_BYTES);
    layer->rows_in = 0;
    layer->rows_out = 0;
  }
  memset(engine->maximum, 0, engine->model.info.embedding);
}

static uint8_t largest(uint8_t value, const uint8_t *row, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) value = row[i] > value ? row[i] : value;
  return value;
}

static void row_arrived(edgel3_engine *engine, uint32_t index) {
  const edgel3_conv *conv = &engine->model.convolutions[index];
  edgel3_layer *layer = &engine->layers[index];
  layer->rows_in += 1u;
  if (engine->hook != NULL) {
    engine->hook(engine->hook_context, index, layer->rows_in - 1u,
                 ring_slot(conv, layer, layer->rows_in) + 1, conv->input_channels, conv->columns,
                 edgel3_row_stride(conv));
  }
}

static void compute_row(edgel3_engine *engine, uint32_t index) {
  const edgel3_conv *conv = &engine->model.convolutions[index];
  edgel3_layer *layer = &engine->layers[index];
  const edgel3_conv *next_conv = conv + 1;
  const edgel3_layer *next = layer + 1;
  const uint32_t number = layer->rows_out;
  layer->rows_out += 1u;
  /* If the number of rows is odd, 2x2 pooling ignores the last row. */
  if (conv->pool == EDGEL3_POOL_2X2 && number == conv->rows - 1u && number % 2u == 0) return;
  /* For the last row, the padding below the map replaces the input row that is no longer needed. */
  if (number == conv->rows - 1u) {
    memset(ring_slot(conv, layer, conv->rows + 1u), conv->input_zero, edgel3_slot_bytes(conv));
  }

  const edgel3_row row = {
      .conv = conv,
      .ring = layer->ring,
      .offsets = engine->offsets,
      .rotation = number % 3u,
      .list = engine->list,
      .accumulators = engine->accumulators,
      .prepared = layer->prepared,
  };
  edgel3_begin_row(layer->kernels, &row);
  const uint8_t *cursor = conv->weights;
  for (uint32_t channel = 0; channel < conv->output_channels; ++channel) {
    if (conv->pool == EDGEL3_POOL_GLOBAL) {
      layer->kernels->convolve(&row, channel, &cursor, engine->row);
      uint8_t *maximum = &engine->maximum[channel];
      *maximum = largest(*maximum, engine->row, conv->columns);
      continue;
    }
    uint8_t *values = ring_slot(next_conv, next, next->rows_in + 1u) + 1u +
                      channel * edgel3_row_stride(next_conv);
    if (conv->pool == EDGEL3_POOL_NONE) {
      layer->kernels->convolve(&row, channel, &cursor, values);
      continue;
    }
    layer->kernels->convolve(&row, channel, &cursor, engine->row);
    /* The maxima of the first row stay in `values` until the second row is pooled with them. */
    layer->kernels->pool(values, engine->row, next_conv->columns, number % 2u == 1u);
  }
  if (conv->pool == EDGEL3_POOL_NONE || (conv->pool == EDGEL3_POOL_2X2 && number % 2u == 1u)) {
    row_arrived(engine, index + 1u);
  }
}

/* Return whether all input rows of the next output row are there. */
static int is_ready(const edgel3_conv *conv, const edgel3_layer *layer) {
  if (layer->rows_out == conv->rows) return 0;
  return layer->rows_in == conv->rows || layer->rows_in >= layer->rows_out + 2u;
}

edgel3_status edgel3_push_row(edgel3_engine *engine, const int8_t *row) {
  if (engine == NULL || row == NULL) return EDGEL3_ERROR_ARGUMENT;
  const edgel3_model *model = &engine->model;
  if (engine->layers[0].rows_in == model->info.rows) return EDGEL3_ERROR_STATE;
  uint8_t *values =
      ring_slot(&model->convolutions[0], &engine->layers[0], engine->layers[0].rows_in + 1u) + 1u;
  for (uint32_t t = 0; t < model->info.columns; ++t) values[t] = (uint8_t)(row[t] ^ -128);
  row_arrived(engine, 0);

  /* Compute the last layer that is ready first. A ring has room for a further row only after its
   * layer has used the oldest one. */
  uint32_t index = model->info.convolutions;
  while (index > 0) {
    if (is_ready(&model->convolutions[index - 1u], &engine->layers[index - 1u])) {
      compute_row(engine, index - 1u);
      if (engine->between_rows != NULL) engine->between_rows(engine->between_rows_context);
      index = model->info.convolutions;
    } else {
      --index;
    }
  }
  return EDGEL3_OK;
}

edgel3_status edgel3_finish(edgel3_engine *engine, int8_t *embedding) {
  if (engine == NULL || embedding == NULL) return EDGEL3_ERROR_ARGUMENT;
  const edgel3_model *model = &engine->model;
  if (engine->layers[0].rows_in != model->info.rows) return EDGEL3_ERROR_STATE;
  for (uint32_t i = 0; i < model->info.embedding; ++i) {
    embedding[i] = (int8_t)(engine->maximum[i] - 128);
  }
  return EDGEL3_OK;
}

edgel3_status edgel3_run(edgel3_engine *engine, const int8_t *window, int8_t *embedding) {
  if (engine == NULL || window == NULL) return EDGEL3_ERROR_ARGUMENT;
  const edgel3_info *info = &engine->model.info;
  edgel3_begin(engine);
  for (uint32_t row = 0; row < info->rows; ++row) {
    const edgel3_status status = edgel3_push_row(engine, window + row * info->columns);
    if (status != EDGEL3_OK) return status;
  }
  return edgel3_finish(engine, embedding);
}

const char *edgel3_status_text(edgel3_status status) {
  switch (status) {
    case EDGEL3_OK: return "ok";
    case EDGEL3_ERROR_ARGUMENT: return "a pointer is null or not aligned";
    case EDGEL3_ERROR_TRUNCATED:
      return "the packed model is truncated: fewer bytes than its header says";
    case EDGEL3_ERROR_MAGIC: return "the bytes are not a packed model";
    case EDGEL3_ERROR_VERSION: return "the packed model has another version of the format";
    case EDGEL3_ERROR_CHECKSUM: return "the packed model is damaged: its checksum differs";
    case EDGEL3_ERROR_INCONSISTENT:
      return "a field of the packed model is inconsistent or out of range";
    case EDGEL3_ERROR_ARENA: return "the arena is too small";
    case EDGEL3_ERROR_STATE: return "a row after the last one, or the embedding read before it";
    default: return "unknown status";
  }
}
