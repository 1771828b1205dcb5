/* The node on the emulated board. CMakeLists.txt builds it; `edgel3-tflm device --emulate` runs it.
 *
 * UART 0 is the connection to the host. UART 1 replaces the microphone: it receives little-endian
 * int16 samples, which the node reads only while it listens. QEMU delivers a byte only when the
 * UART can take it, so no byte is lost.
 *
 * While the network runs, the node reads as many samples as a microphone would deliver by the
 * emulated clock, and waits for those that the host has not yet sent. The time of reading does not
 * count, and between two windows the clock goes on with the next samples. What the node hears in
 * each window therefore depends on the instructions that it executes, but not on the host's speed.
 */
#include "board.h"
#include "edgel3_node_model.h"

/* Registers of a CMSDK APB UART. */
typedef struct uart {
  volatile uint32_t data;
  volatile uint32_t state;
  volatile uint32_t control;
  volatile uint32_t interrupts; /* pending interrupts; writing a bit clears it */
  volatile uint32_t divider;
} uart;

#define HOST ((uart *)0x40004000u)
#define MICROPHONE ((uart *)0x40005000u)
#define UART_WRITE_FULL 1u
#define UART_READ_FULL 2u
#define UART_WRITES 1u
#define UART_READS 2u
#define UART_READ_INTERRUPT 8u

/* Registers of the interrupt controller: enable interrupts, clear pending ones. */
#define NVIC_ENABLE (*(volatile uint32_t *)0xe000e100u)
#define NVIC_CLEAR (*(volatile uint32_t *)0xe000e280u)
#define HOST_READS (1u << 0)
#define MICROPHONE_READS (1u << 2)

#define TICKS_PER_SECOND 25000000u
/* After this time without progress, the node assumes that the host no longer reads. In QEMU it
 * takes seconds of real time, because reading a UART's state is slow. */
#define PATIENCE_TICKS (TICKS_PER_SECOND / 10u)

static uint8_t arena[EDGEL3_NODE_ARENA_BYTES] __attribute__((aligned(16)));
static uint8_t window[EDGEL3_NODE_WINDOW_BYTES] __attribute__((aligned(16)));
static edgel3_node node;
static uint8_t ears[EDGEL3_NODE_EARS_BYTES] __attribute__((aligned(16)));
static int is_listening;

/* The microphone: ticks and samples since it was turned on, and when the ticks were counted last. */
#define BLOCK_SAMPLES 64u
static uint64_t elapsed_ticks, samples_read;
static uint32_t counted_at;
static int16_t block[BLOCK_SAMPLES];
static uint32_t block_bytes;

/* Send a byte to the host. Return 0 if the UART takes none within the given time, otherwise 1. */
static int write_byte(uint8_t byte, uint32_t patience_ticks) {
  const uint32_t start = board_ticks();
  while (HOST->state & UART_WRITE_FULL) {
    if (board_ticks() - start >= patience_ticks) return 0;
  }
  HOST->data = byte;
  return 1;
}

/* Send a frame. If the host does not read, the rest of the frame and all further frames are lost
 * until it reads again. Then a zero byte ends the incomplete frame, so that the next frame is not
 * lost with it.
 */
static void write_frame(void *context, const uint8_t *bytes, uint32_t count) {
  static int was_cut;
  (void)context;
  if (was_cut && !write_byte(0, 0)) return;
  was_cut = 0;
  for (uint32_t i = 0; i < count && !was_cut; ++i) was_cut = !write_byte(bytes[i], PATIENCE_TICKS);
}

static uint32_t read_ticks(void *context) {
  (void)context;
  return board_ticks();
}

/* The ticks wrap around every 172 s; the milliseconds do not if this is called more often. */
static uint32_t read_milliseconds(void *context) {
  static uint32_t last, ticks, milliseconds;
  (void)context;
  const uint32_t now = board_ticks();
  ticks += now - last;
  last = now;
  milliseconds += ticks / (TICKS_PER_SECOND / 1000u);
  ticks %= TICKS_PER_SECOND / 1000u;
  return milliseconds;
}

static int listen(void *context, int on) {
  (void)context;
  is_listening = on;
  elapsed_ticks = samples_read = 0; /* the block keeps its bytes: a sample may be incomplete */
  counted_at = board_ticks();
  return 1;
}

/* Return how many samples the microphone would have delivered by now. */
static uint64_t samples_due(void) {
  return elapsed_ticks * EDGEL3_MODEL_SAMPLE_RATE_HZ / TICKS_PER_SECOND;
}

static void count_ticks(void) {
  const uint32_t now = board_ticks();
  elapsed_ticks += now - counted_at;
  counted_at = now;
}

/* Add a byte to the block of samples. A whole block goes to the node. */
static void take_microphone(uint8_t byte) {
  ((uint8_t *)block)[block_bytes++] = byte;
  if (block_bytes < sizeof block) return;
  block_bytes = 0;
  samples_read += BLOCK_SAMPLES;
  /* The processor had nothing to do until these samples came: the clock jumps to their time. */
  if (samples_due() < samples_read) {
    elapsed_ticks = (samples_read * TICKS_PER_SECOND + EDGEL3_MODEL_SAMPLE_RATE_HZ - 1u) /
                    EDGEL3_MODEL_SAMPLE_RATE_HZ;
  }
  counted_at = board_ticks();
  edgel3_node_hear(&node, block, BLOCK_SAMPLES);
}

/* Pass all samples that are due to the node. */
static void hear(void *context) {
  (void)context;
  for (count_ticks(); samples_due() >= samples_read + BLOCK_SAMPLES; count_ticks()) {
    for (uint32_t left = sizeof block - block_bytes; left > 0; --left) {
      while (!(MICROPHONE->state & UART_READ_FULL)) {
      }
      take_microphone((uint8_t)MICROPHONE->data);
    }
  }
}

int main(void) {
  static const edgel3_node_model model = EDGEL3_NODE_MODEL(arena, window, ears);
  static const edgel3_node_port port = {
      .board = "mps2-an500",
      .context = NULL,
      .write = write_frame,
      .ticks = read_ticks,
      .ticks_per_second = TICKS_PER_SECOND,
      .milliseconds = read_milliseconds,
      .listen = listen,
      .hear = hear,
  };
  edgel3_node_open(&node, &model, &port);
  HOST->divider = 16u;
  MICROPHONE->divider = 16u;
  HOST->control = UART_WRITES | UART_READS | UART_READ_INTERRUPT;
  MICROPHONE->control = UART_READS | UART_READ_INTERRUPT;
  NVIC_ENABLE = HOST_READS;
  /* Interrupts are masked: they end WFI, but no handler runs. */
  __asm__ volatile("cpsid i");
  for (;;) {
    if (HOST->state & UART_READ_FULL) {
      const uint8_t byte = (uint8_t)HOST->data;
      edgel3_node_receive(&node, &byte, 1);
    } else if (is_listening && MICROPHONE->state & UART_READ_FULL) {
      take_microphone((uint8_t)MICROPHONE->data);
    } else {
      NVIC_ENABLE = HOST_READS | (is_listening ? MICROPHONE_READS : 0u);
      __asm__ volatile("dsb\n wfi");
    }
    HOST->interrupts = UART_READS;
    MICROPHONE->interrupts = UART_READS;
    NVIC_CLEAR = HOST_READS | MICROPHONE_READS;
  }
}
