/* The emulated board: Arm's MPS2 with image AN500, a Cortex-M7, as in `qemu-system-arm -M
 * mps2-an500`.
 *
 * The node for this board (node.c), the benchmark and programs of the tests use it. Text and the
 * exit code go to the host by semihosting, so that the UARTs remain free for the program.
 */
#ifndef BOARD_H_
#define BOARD_H_

#include <stdint.h>

/** Instructions per tick. With `-icount shift=0` QEMU counts 1 ns for each instruction; the timer
 * has 25 MHz, so a tick is 40 ns. */
#define BOARD_INSTRUCTIONS_PER_TICK 40u

/** Return the ticks since the start, modulo 2^32 (172 s, or 172 billion instructions). */
uint32_t board_ticks(void);

/** Write text to the host's console.
 *
 * @param[in] text  a string, ended by a zero byte
 */
void board_write(const char *text);

/** Write text, then a number in decimal digits.
 *
 * @param[in] text    a string, ended by a zero byte
 * @param[in] number  any number
 */
void board_write_number(const char *text, uint64_t number);

/** Write text, then bytes in hexadecimal digits.
 *
 * @param[in] text   a string, ended by a zero byte
 * @param[in] bytes  [count]
 * @param[in] count  number of bytes; 0 or more
 */
void board_write_bytes(const char *text, const void *bytes, uint32_t count);

/** End the emulation.
 *
 * @param[in] code  exit status of QEMU; 0 is success, 70 is reserved for faults
 */
void board_exit(int code) __attribute__((noreturn));

/** The stack: its lowest address, and the address after its highest. An overflow is a fault. */
extern uint32_t board_stack_bottom[], board_stack_top[];

#endif /* BOARD_H_ */
