/* Lets the processor sleep until its next interrupt, when the sketch has nothing to do. */
#ifndef EDGEL3_SLEEP_H_
#define EDGEL3_SLEEP_H_

#include "edgel3_board.h"

/** Sleep until the next interrupt, unless there is work. Without sleep on boards that cannot wake.
 *
 * An interrupt between a check for work and WFI would not end the sleep, although it brought work.
 * The check therefore runs while interrupts are masked: a masked interrupt stays pending and ends
 * WFI at once. Its handler runs when this function unmasks it.
 *
 * @param[in] has_work  whether the serial port or the microphone has data; runs with interrupts
 *                      masked
 */
inline void sleep_unless(bool (*has_work)()) {
#if EDGEL3_BOARD_CAN_SLEEP && defined(__ARM_ARCH_7EM__)
  __asm__ volatile("cpsid i" ::: "memory");
  if (!has_work()) __asm__ volatile("dsb\n\twfi" ::: "memory");
  __asm__ volatile("cpsie i\n\tisb" ::: "memory");
#else
  (void)has_work;
#endif
}

#endif /* EDGEL3_SLEEP_H_ */
