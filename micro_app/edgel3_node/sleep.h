/* Nothing to do: the processor sleeps until its next interrupt. */
#ifndef EDGEL3_SLEEP_H_
#define EDGEL3_SLEEP_H_

/* Interrupts are those of the serial port, of the microphone, and the one that every core counts its
 * milliseconds with. So what came between the last look and this is not found for a millisecond, in
 * which a port brings a few bytes and a microphone 48 samples: their drivers keep more. */
inline void wait_for_interrupt() {
#ifdef __ARM_ARCH_7EM__
  __asm__ volatile("dsb\n\twfi" ::: "memory");
#endif
}

#endif /* EDGEL3_SLEEP_H_ */
