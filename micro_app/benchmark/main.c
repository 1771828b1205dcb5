/* The benchmark's firmware for the emulated board: runs jobs and prints the results as lines of
 * JSON.
 *
 * emulator.py builds it, writes the jobs (jobs.h) and reads the lines. For each job it counts
 * instructions, and measures which bytes of arena and stack were written. bench.py and
 * tests/micro_app/test_emulated.py use it.
 */
#include <string.h>

#include "board.h"
#include "edgel3.h"
#include "edgel3_kernels.h"
#include "jobs.h"

#define GUARD_BYTES 65536u
#define ARENA_MAX_BYTES (1024u * 1024u)
#define OUTPUT_MAX_BYTES 4096u
#define STACK_PAINT 0x5bad57acu

/* A guard, the arena, a guard. All three are filled with a pattern before an engine is opened. */
static uint8_t memory[GUARD_BYTES + ARENA_MAX_BYTES + GUARD_BYTES]
    __attribute__((aligned(EDGEL3_ARENA_ALIGNMENT)));
static int8_t output[OUTPUT_MAX_BYTES];

/* ---- Lines of JSON ---- */

static void write_numbers(const char *name, const uint64_t *numbers, uint32_t count) {
  board_write(name);
  for (uint32_t i = 0; i < count; ++i) board_write_number(i == 0 ? "" : ", ", numbers[i]);
  board_write("]");
}

static uint64_t instructions(uint32_t ticks) {
  return (uint64_t)ticks * BOARD_INSTRUCTIONS_PER_TICK;
}

/* ---- Written memory ---- */

static inline uint8_t pattern(uint32_t position) { return (uint8_t)(position * 37u + 101u); }

static uint32_t count_changed(uint32_t begin, uint32_t end) {
  uint32_t changed = 0;
  for (uint32_t i = begin; i < end; ++i) changed += memory[i] != pattern(i);
  return changed;
}

/* Fill the stack below this function's frame with a pattern. Return where the caller's ends. */
static __attribute__((noinline)) const uint32_t *paint_stack(void) {
  uint32_t *frame = (uint32_t *)__builtin_frame_address(0);
  for (uint32_t *word = board_stack_bottom; word < frame - 16; ++word) *word = STACK_PAINT;
  return frame;
}

/* Return the bytes of stack used below a frame since paint_stack. */
static uint32_t stack_used(const uint32_t *frame) {
  const uint32_t *word = board_stack_bottom;
  while (*word == STACK_PAINT) ++word;
  return (uint32_t)((uintptr_t)frame - (uintptr_t)word);
}

/* Use more stack than there is. */
static __attribute__((noinline)) uint32_t overflow_stack(uint32_t depth) {
  volatile uint32_t frame[64];
  frame[0] = depth;
  return depth == UINT32_MAX ? 0 : overflow_stack(depth + 1u) + frame[0];
}

/* ---- Time of each layer ----
 *
 * The engine calls edgel3_begin_row at the start of each row of a layer. The linker (--wrap)
 * redirects that call to this file. The time until the next call is counted for that layer.
 */

static struct {
  const edgel3_conv *first; /* the first row of a window belongs to it */
  uint32_t current;         /* index of the layer that is running */
  uint32_t since;           /* tick at which it started */
  uint32_t ticks[EDGEL3_MAX_CONVOLUTIONS];
  uint32_t rows[EDGEL3_MAX_CONVOLUTIONS];
  const char *kernels[EDGEL3_MAX_CONVOLUTIONS]; /* names */
} layers;

extern __typeof__(edgel3_begin_row) __real_edgel3_begin_row, __wrap_edgel3_begin_row;

void __wrap_edgel3_begin_row(const edgel3_kernels *kernels, const edgel3_row *row) {
  const edgel3_conv *conv = row->conv;
  const uint32_t now = board_ticks();
  if (layers.first == NULL) layers.first = conv;
  layers.ticks[layers.current] += now - layers.since;
  layers.since = now;
  layers.current = (uint32_t)(conv - layers.first);
  layers.rows[layers.current] += 1u;
  layers.kernels[layers.current] = kernels->name;
  __real_edgel3_begin_row(kernels, row);
}

/* ---- Windows ---- */

/* Called before and after every window. The plugin of the cycle model (blocks.c) divides the run at
 * these calls.
 */
static __attribute__((noinline)) void mark_window(void) { __asm__ volatile("" ::: "memory"); }

/* ---- Jobs ---- */

/* Print the error of a job. */
static void refuse(uint32_t number, const char *reason) {
  board_write_number("{\"job\": ", number);
  board_write(", \"error\": \"");
  board_write(reason);
  board_write("\"}\n");
}

static void run_engine(uint32_t number, const job *task) {
  const void *model = (const void *)task->model;
  const edgel3_kernel_choice kernels = (edgel3_kernel_choice)(task->kernels & ~JOB_LEAST_ARENA);
  const edgel3_kernel_choice sized =
      (task->kernels & JOB_LEAST_ARENA) != 0 ? EDGEL3_KERNELS_PORTABLE : kernels;
  edgel3_engine *engine;
  edgel3_info info;
  size_t arena_bytes;
  edgel3_status status = edgel3_describe(model, task->model_size, &info);
  if (status == EDGEL3_OK) {
    status = edgel3_arena_bytes(model, task->model_size, sized, &arena_bytes);
  }
  if (status != EDGEL3_OK) {
    refuse(number, edgel3_status_text(status));
    return;
  }
  if (arena_bytes > ARENA_MAX_BYTES || task->output_bytes != info.embedding ||
      task->output_bytes > OUTPUT_MAX_BYTES || task->window_bytes != info.rows * info.columns) {
    refuse(number,
           "the job's sizes differ from the model's, or the model exceeds the board's memory");
    return;
  }

  /* The arena has the promised alignment and no larger one. */
  const uint32_t arena = GUARD_BYTES + EDGEL3_ARENA_ALIGNMENT;
  const uint32_t arena_end = arena + (uint32_t)arena_bytes;
  const uint32_t guard_end = arena_end + GUARD_BYTES - EDGEL3_ARENA_ALIGNMENT;
  for (uint32_t i = 0; i < guard_end; ++i) memory[i] = pattern(i);
  const uint32_t *stack_end = paint_stack();
  const uint32_t open_start = board_ticks();
  status = edgel3_open(&engine, model, task->model_size, kernels, memory + arena, arena_bytes);
  const uint32_t open_ticks = board_ticks() - open_start;
  for (uint32_t w = 0; w < task->window_count; ++w) {
    uint64_t layer_instructions[EDGEL3_MAX_CONVOLUTIONS];
    uint64_t layer_rows[EDGEL3_MAX_CONVOLUTIONS];
    memset(&layers, 0, sizeof layers);
    mark_window();
    const uint32_t start = board_ticks();
    layers.since = start;
    if (status == EDGEL3_OK) {
      status = edgel3_run(engine, (const int8_t *)task->windows + w * task->window_bytes, output);
    }
    const uint32_t end = board_ticks();
    mark_window();
    if (status != EDGEL3_OK) {
      refuse(number, edgel3_status_text(status));
      return;
    }
    layers.ticks[layers.current] += end - layers.since;
    for (uint32_t i = 0; i < info.convolutions; ++i) {
      layer_instructions[i] = instructions(layers.ticks[i]);
      layer_rows[i] = layers.rows[i];
    }
    board_write_number("{\"job\": ", number);
    board_write_number(", \"window\": ", w);
    board_write_number(", \"instructions\": ", instructions(end - start));
    write_numbers(", \"layers\": [", layer_instructions, info.convolutions);
    write_numbers(", \"rows\": [", layer_rows, info.convolutions);
    board_write(", \"kernels\": [");
    for (uint32_t i = 0; i < info.convolutions; ++i) {
      board_write(i == 0 ? "\"" : ", \"");
      board_write(layers.kernels[i]);
      board_write("\"");
    }
    board_write("]");
    board_write_bytes(", \"output\": \"", output, info.embedding);
    board_write("\"}\n");
  }

  const uint32_t stack_bytes = stack_used(stack_end);
  if (task->damage != INT32_MIN) memory[(int32_t)arena_end + task->damage] ^= 1u;
  uint32_t touched_end = arena_end;
  while (touched_end > arena && memory[touched_end - 1u] == pattern(touched_end - 1u))
    --touched_end;
  board_write_number("{\"job\": ", number);
  board_write_number(", \"open_instructions\": ", instructions(open_ticks));
  board_write_number(", \"arena_bytes\": ", arena_bytes);
  board_write_number(", \"arena_touched_bytes\": ", touched_end - arena);
  board_write_number(", \"stack_bytes\": ", stack_bytes);
  board_write_number(", \"guard_bytes_changed\": ",
                     count_changed(0, arena) + count_changed(arena_end, guard_end));
  /* The checksum tells whether the model was changed. */
  board_write(", \"model\": \"");
  board_write(edgel3_status_text(edgel3_describe(model, task->model_size, &info)));
  board_write("\"}\n");
}

static void run_dense(uint32_t number, const job *task) {
  const dense_layer *network = (const dense_layer *)task->model;
  const uint32_t count = task->model_size;
  if (count == 0 || count > EDGEL3_MAX_CONVOLUTIONS) {
    refuse(number, "expected 1 to 8 layers");
    return;
  }
  for (uint32_t w = 0; w < task->window_count; ++w) {
    uint32_t ticks[2u * EDGEL3_MAX_CONVOLUTIONS];
    uint64_t parts[2u * EDGEL3_MAX_CONVOLUTIONS];
    memcpy((void *)network[0].input, (const int8_t *)task->windows + w * task->window_bytes,
           task->window_bytes);
    const uint32_t *stack_end = paint_stack();
    mark_window();
    const uint32_t start = board_ticks();
    const uint32_t refused = dense_run(network, count, ticks);
    const uint32_t end = board_ticks();
    mark_window();
    const uint32_t stack_bytes = stack_used(stack_end);
    if (refused != 0) {
      refuse(number, "CMSIS-NN refused a layer");
      return;
    }
    for (uint32_t i = 0; i < 2u * count; ++i) parts[i] = instructions(ticks[i]);
    board_write_number("{\"job\": ", number);
    board_write_number(", \"window\": ", w);
    board_write_number(", \"instructions\": ", instructions(end - start));
    write_numbers(", \"parts\": [", parts, 2u * count);
    board_write_number(", \"stack_bytes\": ", stack_bytes);
    board_write_bytes(", \"output\": \"", (const void *)network[count - 1u].pooled,
                      task->output_bytes);
    board_write("\"}\n");
  }
}

int main(void) {
  const uint32_t *image = (const uint32_t *)JOBS_ADDRESS;
  const job *jobs = (const job *)(image + 2);
  if (image[0] != JOBS_MAGIC) {
    board_write("expected jobs at JOBS_ADDRESS, found none\n");
    return 2;
  }
  for (uint32_t i = 0; i < image[1]; ++i) {
    if (jobs[i].kind == JOB_ENGINE) {
      run_engine(i, &jobs[i]);
    } else if (jobs[i].kind == JOB_DENSE) {
      run_dense(i, &jobs[i]);
    } else if (jobs[i].kind == JOB_OVERFLOW) {
      board_write_number("{\"job\": ", i);
      board_write_number(", \"survived\": ", overflow_stack(0));
      board_write("}\n");
    } else {
      refuse(i, "unknown kind of job");
    }
  }
  return 0;
}
