/* Start-up code, text output and fault reports of the emulated board (board.h). */
#include "board.h"

#include <string.h>

/* Exit code after a fault or any other exception: the programs use none. */
#define EXIT_FAULT 70

/* Registers of the Cortex-M7: coprocessor access, then status and address of a fault. */
#define CPACR (*(volatile uint32_t *)0xe000ed88u)
#define CFSR (*(volatile uint32_t *)0xe000ed28u)
#define HFSR (*(volatile uint32_t *)0xe000ed2cu)
#define MMFAR (*(volatile uint32_t *)0xe000ed34u)
#define BFAR (*(volatile uint32_t *)0xe000ed38u)

/* Registers of the memory protection unit. */
#define MPU_CTRL (*(volatile uint32_t *)0xe000ed94u)
#define MPU_RNR (*(volatile uint32_t *)0xe000ed98u)
#define MPU_RBAR (*(volatile uint32_t *)0xe000ed9cu)
#define MPU_RASR (*(volatile uint32_t *)0xe000eda0u)

/* Registers of CMSDK APB timer 0, which counts down. */
#define TIMER_CTRL (*(volatile uint32_t *)0x40000000u)
#define TIMER_VALUE (*(volatile uint32_t *)0x40000004u)
#define TIMER_RELOAD (*(volatile uint32_t *)0x40000008u)

/* Operations of Arm semihosting, by which the program calls QEMU. */
#define SYS_WRITE0 0x04u
#define SYS_EXIT_EXTENDED 0x20u
#define ADP_STOPPED_APPLICATION_EXIT 0x20026u

extern uint32_t board_data_load[], board_data_start[], board_data_end[];
extern uint32_t board_bss_start[], board_bss_end[];

int main(void);
void board_reset(void) __attribute__((noreturn));
void board_fault(void);
void board_report_fault(const uint32_t *frame) __attribute__((noreturn, used));

static uint32_t semihost(uint32_t operation, const void *argument) {
  register uint32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

uint32_t board_ticks(void) { return ~TIMER_VALUE; }

void board_write(const char *text) { semihost(SYS_WRITE0, text); }

void board_write_number(const char *text, uint64_t number) {
  char digits[21];
  char *first = digits + sizeof digits - 1;
  *first = 0;
  do {
    *--first = (char)('0' + number % 10u);
    number /= 10u;
  } while (number != 0);
  board_write(text);
  board_write(first);
}

void board_write_bytes(const char *text, const void *bytes, uint32_t count) {
  const uint8_t *byte = (const uint8_t *)bytes;
  char digits[129];
  board_write(text);
  while (count > 0) {
    uint32_t length = 0;
    for (; count > 0 && length + 1u < sizeof digits; --count, ++byte) {
      digits[length++] = "0123456789abcdef"[*byte >> 4];
      digits[length++] = "0123456789abcdef"[*byte & 15u];
    }
    digits[length] = 0;
    board_write(digits);
  }
}

void board_exit(int code) {
  const uint32_t argument[2] = {ADP_STOPPED_APPLICATION_EXIT, (uint32_t)code};
  for (;;) semihost(SYS_EXIT_EXTENDED, argument);
}

static void write_register(const char *name, uint32_t value) {
  char text[] = " 0x00000000";
  for (int digit = 0; digit < 8; ++digit) {
    text[10 - digit] = "0123456789abcdef"[value >> (4 * digit) & 15u];
  }
  board_write(name);
  board_write(text);
}

/* Print the registers of a fault and exit. The processor has stored r0 to r3, r12, lr, pc and xpsr
 * at `frame`.
 */
void board_report_fault(const uint32_t *frame) {
  uint32_t exception;
  __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
  write_register("\nfault: exception", exception);
  write_register(" cfsr", CFSR);
  write_register(" hfsr", HFSR);
  write_register(" mmfar", MMFAR);
  write_register(" bfar", BFAR);
  /* After a stack overflow there is no frame. */
  if (frame >= board_stack_bottom && frame + 8 <= board_stack_top) {
    write_register(" lr", frame[5]);
    write_register(" pc", frame[6]);
  } else {
    write_register(" no stack at", (uint32_t)(uintptr_t)frame);
  }
  board_write("\n");
  board_exit(EXIT_FAULT);
}

/* Handler of every exception. It resets the stack pointer, because the old stack may be full. */
__attribute__((naked)) void board_fault(void) {
  __asm__ volatile(
      "mov r0, sp\n"
      "ldr sp, =board_stack_top\n"
      "b board_report_fault\n");
}

void board_reset(void) {
  CPACR |= 0xfu << 20; /* full access to the floating-point unit */
  /* Forbid access to the 2^20 bytes below the stack, so that a stack overflow is a fault. All other
   * addresses keep the access that they have without a memory protection unit. */
  MPU_RNR = 0;
  MPU_RBAR = (uint32_t)(uintptr_t)board_stack_bottom - (1u << 20);
  MPU_RASR = 1u << 28 | (20u - 1u) << 1 | 1u;
  MPU_CTRL = 1u << 2 | 1u;
  __asm__ volatile("dsb\n isb");
  memcpy(board_data_start, board_data_load,
         (size_t)((uintptr_t)board_data_end - (uintptr_t)board_data_start));
  memset(board_bss_start, 0, (size_t)((uintptr_t)board_bss_end - (uintptr_t)board_bss_start));
  TIMER_RELOAD = 0xffffffffu;
  TIMER_VALUE = 0xffffffffu;
  TIMER_CTRL = 1u;
  board_exit(main());
}

typedef void (*vector)(void);

__attribute__((section(".vectors"), used)) static const vector vectors[] = {
    (vector)(uintptr_t)board_stack_top,
    board_reset,
    board_fault, /* NMI */
    board_fault, /* hard fault */
    board_fault, /* memory management */
    board_fault, /* bus fault */
    board_fault, /* usage fault */
    board_fault,
    board_fault,
    board_fault,
    board_fault,
    board_fault, /* SVCall */
    board_fault, /* debug monitor */
    board_fault,
    board_fault, /* PendSV */
    board_fault, /* SysTick */
};
