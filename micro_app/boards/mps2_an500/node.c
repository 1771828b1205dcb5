/* The node on the emulated board: UART 0 is the host's, UART 1 takes the microphone's place.
 *
 * QEMU feeds a UART as fast as it is read, so that no byte is lost and nobody has to hurry: what
 * comes to UART 1 while a window is computed waits. It is int16 samples, little-endian, and is read
 * only while the node listens.
 */
#include "board.h"
#include "edgel3_node_model.h"

/* CMSDK APB UARTs. */
typedef struct uart {
  volatile uint32_t data;
  volatile uint32_t state;
  volatile uint32_t control;
  volatile uint32_t interrupts; /* pending; those written are cleared */
  volatile uint32_t divider;
} uart;

#define HOST ((uart *)0x40004000u)
#define MICROPHONE ((uart *)0x40005000u)
#define UART_WRITE_FULL 1u
#define UART_READ_FULL 2u
#define UART_WRITES 1u
#define UART_READS 2u
#define UART_READ_INTERRUPT 8u

#define NVIC_ENABLE (*(volatile uint32_t *)0xe000e100u)
#define NVIC_CLEAR (*(volatile uint32_t *)0xe000e280u)
#define HOST_READS (1u << 0)
#define MICROPHONE_READS (1u << 2)

#define TICKS_PER_SECOND 25000000u
/* A host that takes nothing for so long has gone. QEMU needs seconds for it: asking a UART is slow. */
#define PATIENCE_TICKS (TICKS_PER_SECOND / 10u)

static uint8_t arena[EDGEL3_NODE_ARENA_BYTES] __attribute__((aligned(16)));
static uint8_t window[EDGEL3_NODE_WINDOW_BYTES] __attribute__((aligned(16)));
static edgel3_node node;
static int is_listening;

static int write_byte(uint8_t byte, uint32_t patience_ticks) {
  const uint32_t start = board_ticks();
  while (HOST->state & UART_WRITE_FULL) {
    if (board_ticks() - start >= patience_ticks) return 0;
  }
  HOST->data = byte;
  return 1;
}

/* A host that takes nothing loses the rest of a frame, and all others until it takes bytes again.
 * What it has of the frame is ended then, or the next would be lost with it. */
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

/* The ticks begin anew every 172 s: asked more often than that, this does not. */
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
  return 1;
}

/* A byte of a sample, the lower one first. */
static void take_microphone(uint8_t byte) {
  static int16_t samples[64];
  static uint32_t bytes;
  ((uint8_t *)samples)[bytes++] = byte;
  if (bytes < sizeof samples) return;
  bytes = 0;
  edgel3_node_hear(&node, samples, sizeof samples / sizeof *samples);
}

int main(void) {
  static const edgel3_node_model model = EDGEL3_NODE_MODEL(arena, window);
  static const edgel3_node_port port = {
      "mps2-an500", NULL, write_frame, read_ticks, TICKS_PER_SECOND, read_milliseconds, listen,
  };
  edgel3_node_open(&node, &model, &port);
  HOST->divider = 16u;
  MICROPHONE->divider = 16u;
  HOST->control = UART_WRITES | UART_READS | UART_READ_INTERRUPT;
  MICROPHONE->control = UART_READS | UART_READ_INTERRUPT;
  NVIC_ENABLE = HOST_READS;
  /* Interrupts only end the waiting; nothing is done in them. */
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
