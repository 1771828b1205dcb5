/* The node on the emulated board. CMakeLists.txt builds it; `edgel3-tflm device --emulate` runs it.
 *
 * UART 0 is the connection to the host. UART 1 replaces the microphone: it receives little-endian
 * int16 samples, which the node reads only while it listens. QEMU delivers a byte only when the
 * UART can take it, so no byte is lost: samples that arrive while the node computes a window wait.
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
static int is_listening;

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
  return 1;
}

/* Add a byte of the little-endian samples. Each 64 samples go to the node. */
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
      .board = "mps2-an500",
      .context = NULL,
      .write = write_frame,
      .ticks = read_ticks,
      .ticks_per_second = TICKS_PER_SECOND,
      .milliseconds = read_milliseconds,
      .listen = listen,
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
