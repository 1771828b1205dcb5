/* The lists of taps and the rows of words that the loops of edgel3_word_loops_m7.S read, for ARMv7E-M.
 *
 * edgel3_words_m7.c explains the method and declares the routines. All follow the Arm procedure call
 * standard (AAPCS), preserve r4 to r11, change the flags and use no floating-point register.
 */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'

  .syntax unified
  .thumb
  .text

/* edgel3_tap *edgel3_words_gap16_m7(const uint8_t *taps, uint32_t count,
 *                                   const uint32_t *addresses, edgel3_tap *end)
 * and likewise edgel3_words_negative_gap16_m7, edgel3_words_gap12_m7,
 * edgel3_words_negative_gap12_m7
 *
 * Expand one part of a list (edgel3_packed.h describes both formats) with the taps' addresses in
 * place of offsets, and skip the taps whose address is 0. The negative forms negate the weights.
 * gap12 requires an even count.
 *
 * Result: the end of the list after the appended taps, in r0. Stack: 36 bytes.
 *
 * register  content
 * r0        taps, the address of the packed taps; out: the new end of the list
 * r1        count; then the number of pairs that are left
 * r2        addresses, by tap number
 * r3        end of the list
 * r4        number of the current tap
 * r5        two packed taps
 * r6 to r9  weights and addresses of two taps
 * r10       gap16: whether one tap is left after the pairs: 1 or 0
 * r11, r12  negative gap16: the weights' bits of two packed taps; -1
 * lr        negative gap16: the weights of two packed taps
 *
 * buffer    access  size
 * taps      read    gap16: 2 * count bytes; gap12: 3 * count / 2 bytes and one more
 * addresses read    uint32 [edgel3_taps_per_channel]
 * end       write   8 * count bytes, aligned to 4
 */
  /* Append two taps, whose packed form is in r5. With \load, load the next two. Negative weights of
   * gap16 are multiplied by -1: that needs one instruction less than ANDs and subtractions.
   */
  .macro put_taps bits, negative, load
  .if \bits == 16
  ubfx r6, r5, #7, #9
  .if \negative
  and lr, r5, r11
  .endif
  add r4, r4, r6
  lsr r8, r5, #23
  .if \negative
  smulbb r6, lr, r12
  .endif
  .else
  ubfx r6, r5, #7, #5
  ubfx r8, r5, #19, #5
  add r4, r4, r6
  .endif
  .if !\negative || \bits == 12
  and r6, r5, #0x7f
  .endif
  .if \negative && \bits == 12
  rsb r6, r6, #0
  .endif
  ldr r7, [r2, r4, lsl #2]
  add r4, r4, r8
  .if \negative && \bits == 16
  .if \load
  ldr r5, [r0], #4
  .endif
  cmp r7, #0
  it ne
  strdne r6, r7, [r3], #8
  ldr r9, [r2, r4, lsl #2]
  smultb r8, lr, r12
  .else
  cmp r7, #0
  it ne
  strdne r6, r7, [r3], #8
  ubfx r8, r5, #\bits, #7
  ldr r9, [r2, r4, lsl #2]
  .if \negative
  rsb r8, r8, #0
  .endif
  .if \load
  ldr r5, [r0], #\bits / 4
  .endif
  .endif
  cmp r9, #0
  it ne
  strdne r8, r9, [r3], #8
  .endm

  /* Append one tap of gap16. */
  .macro put_tap negative
  ldrh r5, [r0], #2
  add r4, r4, r5, lsr #7
  and r6, r5, #0x7f
  ldr r7, [r2, r4, lsl #2]
  .if \negative
  rsb r6, r6, #0
  .endif
  cmp r7, #0
  it ne
  strdne r6, r7, [r3], #8
  .endm

  .macro expand name, bits, negative
  .balign 4
  .global \name
  .type \name, %function
  .thumb_func
\name:
  push {r4-r11, lr}
  movs r4, #0
  .if \bits == 16
  .if \negative
  mov r11, #0x007f007f
  mov r12, #-1
  .endif
  cmp r1, #0
  beq 5f
  /* Pairs are loaded at multiples of 4. */
  tst r0, #2
  beq 1f
  put_tap \negative
  subs r1, r1, #1
1:
  and r10, r1, #1
  .endif
  lsrs r1, r1, #1
  beq 4f
  ldr r5, [r0], #\bits / 4
  subs r1, r1, #1
  beq 3f
2: /* the next two taps */
  put_taps \bits, \negative, 1
  subs r1, r1, #1
  bne 2b
3: /* the last two */
  put_taps \bits, \negative, 0
4:
  .if \bits == 16
  cmp r10, #0
  beq 5f
  put_tap \negative
  .endif
5:
  mov r0, r3
  pop {r4-r11, pc}
  .size \name, . - \name
  .endm

  expand edgel3_words_gap16_m7, 16, 0
  expand edgel3_words_negative_gap16_m7, 16, 1
  expand edgel3_words_gap12_m7, 12, 0
  expand edgel3_words_negative_gap12_m7, 12, 1

/* uint32_t *edgel3_widen_m7(const uint8_t *row, uint32_t half, uint32_t fours, uint32_t *words)
 *
 * Write 4 * fours words of two columns: the bytes at row and at row + half.
 *
 * Result: the end of the words. Stack: 32 bytes.
 */
  .balign 4
  .global edgel3_widen_m7
  .type edgel3_widen_m7, %function
  .thumb_func
edgel3_widen_m7:
  push {r4-r11}
  add r1, r0, r1
  lsrs r2, r2, #1
  bcc 1f
  ldrb r4, [r0]
  ldrb r8, [r1]
  ldrb r5, [r0, #1]
  ldrb r9, [r1, #1]
  ldrb r6, [r0, #2]
  ldrb r10, [r1, #2]
  orr r4, r4, r8, lsl #23
  ldrb r7, [r0, #3]
  orr r5, r5, r9, lsl #23
  ldrb r11, [r1, #3]
  strd r4, r5, [r3]
  orr r6, r6, r10, lsl #23
  add r0, r0, #4
  orr r7, r7, r11, lsl #23
  add r1, r1, #4
  strd r6, r7, [r3, #8]
  add r3, r3, #16
  beq 2f
1: /* the next eight words */
  ldrb r9, [r1, #1]
  ldrb r8, [r1]
  ldrb r4, [r0]
  ldrb r5, [r0, #1]
  ldrb r6, [r0, #2]
  ldrb r11, [r1, #3]
  orr r4, r4, r8, lsl #23
  ldrb r10, [r1, #2]
  orr r5, r5, r9, lsl #23
  ldrb r7, [r0, #3]
  strd r4, r5, [r3]
  orr r7, r7, r11, lsl #23
  ldrb r8, [r1, #4]
  ldrb r9, [r1, #5]
  ldrb r5, [r0, #5]
  ldrb r11, [r1, #7]
  ldrb r4, [r0, #4]
  orr r6, r6, r10, lsl #23
  ldrb r10, [r1, #6]
  strd r6, r7, [r3, #8]
  orr r4, r4, r8, lsl #23
  ldrb r6, [r0, #6]
  orr r5, r5, r9, lsl #23
  subs r2, r2, #1
  ldrb r7, [r0, #7]
  strd r4, r5, [r3, #16]
  orr r7, r7, r11, lsl #23
  add r0, r0, #8
  add r1, r1, #8
  orr r6, r6, r10, lsl #23
  strd r6, r7, [r3, #24]
  add r3, r3, #32
  bne 1b
2:
  mov r0, r3
  pop {r4-r11}
  bx lr
  .size edgel3_widen_m7, . - edgel3_widen_m7

#endif
