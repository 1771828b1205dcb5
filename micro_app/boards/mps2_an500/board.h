/* The emulated board: Arm's MPS2 with image AN500, a Cortex-M7, as `qemu-system-arm -M mps2-an500` is.
 *
 * Text and the exit code go to the host by semihosting, so that the UARTs stay free.
 */
#ifndef BOARD_H_
#define BOARD_H_

#include <stdint.h>

/** Instructions between two ticks when QEMU runs with `-icount shift=0`: one is 1 ns of its time, and
 * the timer has 25 MHz. */
#define BOARD_INSTRUCTIONS_PER_TICK 40u

/** Ticks since the start, modulo 2^32: 171 G instructions. */
uint32_t board_ticks(void);

/** Write text to the host's console. */
void board_write(const char *text);

/** Write text, and a number in decimal digits behind it. */
void board_write_number(const char *text, uint64_t number);

/** Write text, and bytes in hexadecimal digits behind it. */
void board_write_bytes(const char *text, const void *bytes, uint32_t count);

/** End the emulation; 0 is success. */
void board_exit(int code) __attribute__((noreturn));

/** The stack, from its lowest address to the one behind its highest. An overflow is a fault. */
extern uint32_t board_stack_bottom[], board_stack_top[];

#endif /* BOARD_H_ */
