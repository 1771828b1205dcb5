/* Lets the processor sleep until its next interrupt, when the sketch has nothing to do. */
#ifndef EDGEL3_SLEEP_H_
#define EDGEL3_SLEEP_H_

/** Sleep until the next interrupt, for at most a millisecond.
 *
 * Serial port, microphone and the core's millisecond counter cause interrupts. Data that arrives
 * between the last check and this call waits for up to a millisecond: a few bytes of the port, or
 * 48 samples of the microphone. Their drivers buffer more than that.
 */
inline void wait_for_interrupt() {
#ifdef __ARM_ARCH_7EM__
  __asm__ volatile("dsb\n\twfi" ::: "memory");
#endif
}

#endif /* EDGEL3_SLEEP_H_ */
