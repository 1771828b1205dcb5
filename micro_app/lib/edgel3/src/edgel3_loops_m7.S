/* Inner loops for the Cortex-M7; edgel3_kernels_m7.c tells the idea and declares the functions.
 *
 * A group of three taps over four columns is one LDM and 15 instructions, 64 bytes of code. The loops
 * are unrolled and entered where the number of groups that are left over says.
 */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'

#define UNROLL 16
#define GROUP_BYTES_LOG2 6

  .syntax unified
  .thumb
  .text

/* The frame of a sweep: no register is free to point to anything, so all lies here. Behind what is saved
 * are the arguments, a struct of which the first four words came in registers.
 */
#define NEGATIVES_FIRST 0 /* where to begin: with the taps that make no group, if there are any */
#define NEGATIVE_GROUPS 4 /* where to go on: with the groups */
#define POSITIVES_FIRST 8
#define POSITIVE_GROUPS 12
#define LIST 16
#define LOCAL_BYTES 20
#define ARGUMENTS (LOCAL_BYTES + 9 * 4)
#define POSITIVES (ARGUMENTS + 0)
#define END (ARGUMENTS + 4)
#define START (ARGUMENTS + 8)
#define MULTIPLIER (ARGUMENTS + 16) /* and the addend */
#define EXPONENT (ARGUMENTS + 24)
#define OUTPUT (ARGUMENTS + 28) /* and the end of the columns */

  .macro tap weight, input
  ldr \input, [r5, \input]
  and lr, r6, \input
  umlal r0, r1, lr, \weight
  and \input, r6, \input, ror #16
  umlal r2, r3, \input, \weight
  .endm

  .macro groups
  .rept UNROLL
  ldmia r4!, {r7-r12}
  tap r7, r8
  tap r9, r10
  tap r11, r12
  .endr
  .endm

  /* Where to enter the loop at \top for \taps taps, and where before that; addresses with the bit that
   * says Thumb. Uses r5 to r7.
   */
  .macro find_entries taps, top, one, two, first, groups
  movs r5, #3
  udiv r6, \taps, r5
  mls r7, r6, r5, \taps
  and r6, r6, #UNROLL - 1
  rsb r6, r6, #UNROLL
  adr.w r5, \top
  add r5, r5, r6, lsl #GROUP_BYTES_LOG2
  orr r5, r5, #1
  str r5, [sp, #\groups]
  cmp r7, #1
  it eq
  adreq.w r5, \one
  it hi
  adrhi.w r5, \two
  orr r5, r5, #1
  str r5, [sp, #\first]
  .endm

  .macro one_tap then
  ldrd r11, r12, [r4], #8
  tap r11, r12
  ldr pc, [sp, #\then]
  .endm

  .macro two_taps then
  ldmia r4!, {r9-r12}
  tap r9, r10
  tap r11, r12
  ldr pc, [sp, #\then]
  .endm

  /* Twice the sums of two columns from their pair of lanes. Bit 23 of the low word is the sign of the
   * lower lane, which borrowed one from the upper if it is negative.
   */
  .macro split lower, upper, low, high
  lsl \lower, \low, #8
  asr \lower, \lower, #7
  lsl \upper, \high, #9
  orr \upper, \upper, \low, lsr #23
  add \upper, \upper, \lower, lsr #31
  .endm

  /* gemmlowp's doubling high multiplication and its division, which rounds away from zero; the addend
   * holds half the divisor, and the zero point. Behind a ReLU negative values come out as 0 anyway.
   */
  .macro requantize value, rectified
  .if \rectified
  smmlar \value, \value, r0, r1
  .else
  smmulr \value, \value, r0
  add \value, \value, \value, asr #31
  add \value, \value, r1
  .endif
  asr \value, \value, r2
  usat \value, #8, \value
  .endm

  .macro sweep name, rectified
  .balign 4
  .global \name
  .type \name, %function
  .thumb_func
\name:
  push {r4-r11, lr}
  sub sp, sp, #LOCAL_BYTES
  /* r0: negative taps, r1: positive taps, r2: ring, r3: list */
  find_entries r0, 1f, 3f, 4f, NEGATIVES_FIRST, NEGATIVE_GROUPS
  find_entries r1, 2f, 5f, 6f, POSITIVES_FIRST, POSITIVE_GROUPS
  str r3, [sp, #LIST]
  mov r5, r2
  movw r6, #0x00ff
  movt r6, #0xff00

0: /* four columns */
  ldr r4, [sp, #LIST]
  ldrd r0, r1, [sp, #START]
  ldrd r2, r3, [sp, #START]
  ldr pc, [sp, #NEGATIVES_FIRST]
  .balign 4
1:
  groups
  .if (. - 1b) != (UNROLL << GROUP_BYTES_LOG2)
  .error "a group of taps has another size than the loop's entry is computed with"
  .endif
  ldr lr, [sp, #POSITIVES]
  cmp r4, lr
  bne.w 1b
  /* The complement of n - bias - 1 is bias - n. */
  mvns r0, r0
  mvns r1, r1
  mvns r2, r2
  mvns r3, r3
  ldr pc, [sp, #POSITIVES_FIRST]
  .balign 4
2:
  groups
  ldr lr, [sp, #END]
  cmp r4, lr
  bne.w 2b
  split r7, r8, r0, r1
  split r9, r10, r2, r3
  ldrd r0, r1, [sp, #MULTIPLIER]
  ldr r2, [sp, #EXPONENT]
  requantize r7, \rectified
  requantize r10, \rectified
  requantize r9, \rectified
  requantize r8, \rectified
  orr r7, r7, r10, lsl #8
  orr r7, r7, r9, lsl #16
  orr r7, r7, r8, lsl #24
  ldrd r8, r9, [sp, #OUTPUT]
  str r7, [r8, r5]
  adds r5, r5, #4
  cmp r5, r9
  bne.w 0b

  add sp, sp, #LOCAL_BYTES
  pop {r4-r11, pc}

  .balign 4
3:
  one_tap NEGATIVE_GROUPS
  .balign 4
4:
  two_taps NEGATIVE_GROUPS
  .balign 4
5:
  one_tap POSITIVE_GROUPS
  .balign 4
6:
  two_taps POSITIVE_GROUPS
  .size \name, . - \name
  .endm

  sweep edgel3_sweep_rectified_m7, 1
  sweep edgel3_sweep_m7, 0

/* Expanding one part of a list. r0: packed taps, r1: how many, r2: offsets, r3: where the list ends; the
 * new end is returned. r4: number of the tap, r12: the mark of a row of zeros.
 */
  .macro put_tap
  ldrh r7, [r2, r4, lsl #1]
  strd r6, r7, [r3]
  cmp r7, r12
  it ne
  addne r3, r3, #8
  .endm

  .balign 4
  .global edgel3_expand_gap16_m7
  .type edgel3_expand_gap16_m7, %function
  .thumb_func
edgel3_expand_gap16_m7:
  push {r4-r7}
  movs r4, #0
  movw r12, #0xffff
  lsrs r1, r1, #1
  bcc 1f
  ldrh r5, [r0], #2
  add r4, r4, r5, lsr #7
  and r6, r5, #0x7f
  put_tap
1:
  cbz r1, 3f
2: /* two taps */
  ldr r5, [r0], #4
  ubfx r6, r5, #7, #9
  add r4, r4, r6
  and r6, r5, #0x7f
  put_tap
  add r4, r4, r5, lsr #23
  ubfx r6, r5, #16, #7
  put_tap
  subs r1, r1, #1
  bne 2b
3:
  mov r0, r3
  pop {r4-r7}
  bx lr
  .size edgel3_expand_gap16_m7, . - edgel3_expand_gap16_m7

  .balign 4
  .global edgel3_expand_gap12_m7
  .type edgel3_expand_gap12_m7, %function
  .thumb_func
edgel3_expand_gap12_m7:
  push {r4-r7}
  movs r4, #0
  movw r12, #0xffff
  lsrs r1, r1, #1
  beq 3f
2: /* two taps, in three bytes */
  ldr r5, [r0], #3
  ubfx r6, r5, #7, #5
  add r4, r4, r6
  and r6, r5, #0x7f
  put_tap
  ubfx r6, r5, #19, #5
  add r4, r4, r6
  ubfx r6, r5, #12, #7
  put_tap
  subs r1, r1, #1
  bne 2b
3:
  mov r0, r3
  pop {r4-r7}
  bx lr
  .size edgel3_expand_gap12_m7, . - edgel3_expand_gap12_m7

#endif
