/* Inner loops for dense weights on ARMv7E-M, scheduled for the Cortex-M7.
 *
 * edgel3_pairs_m7.c explains the method and declares the two routines. Both follow the Arm procedure
 * call standard (AAPCS), preserve r4 to r11, change the flags and use no floating-point register.
 */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'

  .syntax unified
  .thumb
  .text

/* An edgel3_pairs, as offsets in bytes. */
#define LIST 0       /* list minus the size of an entry */
#define INPUT 4      /* input of the next columns */
#define START 8      /* start, 8 bytes */
#define LOWER 16     /* an edgel3_half: multiplier, addend, exponent, output minus input */
#define UPPER 32     /* another */
#define THREES 48    /* numbers of blocks of three and of four columns */
#define FOURS 52

  /* Separate the two lanes of two sums: twice the lower sums in r0 and r2, or in r4 and r6, twice the
   * upper sums in the registers after them. The lower lane has 24 bits. If it is negative (bit 23),
   * it has borrowed 1 from the upper lane, which is added here.
   */
  .macro separate low, high, low2, high2
  lsl \high, \high, #9
  lsl \high2, \high2, #9
  orr \high, \high, \low, lsr #23
  lsl \low, \low, #8
  orr \high2, \high2, \low2, lsr #23
  asr \low, \low, #7
  lsl \low2, \low2, #8
  add \high, \high, \low, lsr #31
  asr \low2, \low2, #7
  add \high2, \high2, \low2, lsr #31
  .endm

  /* The first step of `requantize` in edgel3_loops_m7.S. r8: the multiplier, r9: the addend. */
  .macro multiply rectified, value
  .if \rectified
  smmlar \value, \value, r8, r9
  .else
  smmulr \value, \value, r8
  add \value, \value, \value, asr #31
  add \value, \value, r9
  .endif
  .endm

  /* Requantize the sums of a lane in four registers, and store the outputs as a word. The steps are
   * those of `requantize` in edgel3_loops_m7.S. r12: the edgel3_pairs, r11: the input.
   */
  .macro put_lane half, rectified, first, second, third, fourth
  ldrd r8, r9, [r12, #\half]
  ldrd r10, lr, [r12, #\half + 8]
  .irp value, \first, \second, \third, \fourth
  multiply \rectified, \value
  .endr
  .irp value, \first, \second, \third, \fourth
  asr \value, \value, r10
  .endr
  .irp value, \first, \second, \third, \fourth
  usat \value, #8, \value
  .endr
  orr \first, \first, \second, lsl #8
  orr \third, \third, \fourth, lsl #8
  orr \first, \first, \third, lsl #16
  str \first, [lr, r11]
  .endm

  /* The end of a block of four columns, scheduled by a search: `separate` both halves, `put_lane` both
   * lanes, proceed to the next four columns and count. The flags say whether the count is 0.
   */
  .macro put_four rectified
  lsl r1, r1, #9
  orr r1, r1, r0, lsr #23
  ldrd r8, r9, [r12, #LOWER]
  lsl r3, r3, #9
  orr r3, r3, r2, lsr #23
  lsl r7, r7, #9
  lsl r0, r0, #8
  ldrd r10, lr, [r12, #LOWER + 8]
  lsl r5, r5, #9
  lsl r2, r2, #8
  asr r2, r2, #7
  orr r5, r5, r4, lsr #23
  lsl r4, r4, #8
  add r3, r3, r2, lsr #31
  multiply \rectified, r2
  asr r0, r0, #7
  asr r4, r4, #7
  add r1, r1, r0, lsr #31
  orr r7, r7, r6, lsr #23
  lsl r6, r6, #8
  asr r6, r6, #7
  add r5, r5, r4, lsr #31
  multiply \rectified, r4
  add r7, r7, r6, lsr #31
  multiply \rectified, r0
  asr r2, r2, r10
  asr r0, r0, r10
  asr r4, r4, r10
  multiply \rectified, r6
  usat r2, #8, r2
  asr r6, r6, r10
  usat r6, #8, r6
  usat r0, #8, r0
  usat r4, #8, r4
  ldrd r8, r9, [r12, #UPPER]
  orr r4, r4, r6, lsl #8
  multiply \rectified, r3
  orr r0, r0, r2, lsl #8
  multiply \rectified, r5
  orr r0, r0, r4, lsl #16
  str r0, [lr, r11]
  ldrd r10, lr, [r12, #UPPER + 8]
  asr r5, r5, r10
  multiply \rectified, r1
  asr r3, r3, r10
  multiply \rectified, r7
  asr r1, r1, r10
  asr r7, r7, r10
  ldr r0, [r12, #FOURS]
  usat r7, #8, r7
  usat r1, #8, r1
  usat r3, #8, r3
  usat r5, #8, r5
  subs r0, r0, #1
  orr r5, r5, r7, lsl #8
  orr r1, r1, r3, lsl #8
  str r0, [r12, #FOURS]
  orr r1, r1, r5, lsl #16
  str r1, [lr, r11]
  add r11, r11, #4
  .endm

/* void edgel3_pairs_rectified_m7(edgel3_pairs *pairs)
 * void edgel3_pairs_m7(edgel3_pairs *pairs)
 *
 * Compute two channels of an output row and requantize them: blocks of three columns, then blocks of
 * four. The two routines differ in `requantize` only; edgel3_pairs_rectified_m7 requires an output
 * whose zero is stored as 0.
 *
 * Arguments: r0, the address of an edgel3_pairs, which is changed. Result: none. Stack: 40 bytes.
 *
 * register  content
 * r0 to r7  sums of three or four columns; a block of three columns has inputs in r6 and r7
 * r8 to r10 weights of the columns left, in the middle and right; inputs; the step of an entry
 * r11       input of the block's first column
 * r12       the entry before the next one; at the end of a block, the edgel3_pairs
 * lr        an input
 *
 * buffer    access  size
 * list      read    16 bytes for each entry, aligned to 4
 * input     read    for each entry, columns + 2 bytes
 * outputs   write   columns bytes, at any address; without a block of four columns, one byte more
 *
 * The loops end at the only entry whose step is negative: its addition sets the carry flag.
 *
 * A Cortex-M7 issues two instructions in a cycle if the second needs no result of the first. It
 * needs a loaded value two cycles later. A byte is therefore loaded into the register of a value
 * that was used last, while other multiplications are issued.
 */
  .macro pairs name, rectified
  .balign 4
  .global \name
  .type \name, %function
  .thumb_func
\name:
  push {r0, r4-r11, lr}
  mov r12, r0
  ldr r11, [r12, #INPUT]
  ldr r0, [r12, #THREES]
  cmp r0, #0
  beq.w 3f

1: /* the next three columns */
  ldrd r0, r1, [r12, #START]
  ldrd r2, r3, [r12, #START]
  ldrd r4, r5, [r12, #START]
  ldr r12, [r12, #LIST]
  .balign 4
2:
  ldrd r8, r9, [r12, #16]!
  ldrb lr, [r11]
  ldrb r6, [r11, #1]
  ldrb r7, [r11, #2]
  ldr r10, [r12, #8]
  smlal r0, r1, lr, r8
  ldrb lr, [r11, #3]
  smlal r2, r3, r6, r8
  smlal r0, r1, r6, r9
  ldrb r6, [r11, #4]
  smlal r4, r5, r7, r8
  ldr r8, [r12, #12]
  smlal r2, r3, r7, r9
  smlal r0, r1, r7, r10
  smlal r4, r5, lr, r9
  adds r11, r11, r8
  smlal r2, r3, lr, r10
  smlal r4, r5, r6, r10
  bcc 2b
  ldr r12, [sp]
  separate r0, r1, r2, r3
  separate r4, r5, r6, r7 /* r6 and r7 hold no sum: their byte is overwritten by the next block */
  put_lane LOWER, \rectified, r0, r2, r4, r6
  put_lane UPPER, \rectified, r1, r3, r5, r7
  add r11, r11, #3
  ldr r0, [r12, #THREES]
  subs r0, r0, #1
  str r0, [r12, #THREES]
  bne.w 1b

3:
  ldr r0, [r12, #FOURS]
  cmp r0, #0
  beq.w 6f
4: /* the next four columns */
  ldrd r0, r1, [r12, #START]
  ldrd r2, r3, [r12, #START]
  ldrd r4, r5, [r12, #START]
  ldrd r6, r7, [r12, #START]
  ldr r12, [r12, #LIST]
  .balign 4
5:
  ldrd r8, r9, [r12, #16]!
  ldrb lr, [r11]
  ldrb r10, [r11, #1]
  smlal r0, r1, lr, r8
  ldrb lr, [r11, #2]
  smlal r2, r3, r10, r8
  smlal r0, r1, r10, r9
  ldr r10, [r12, #8]
  smlal r4, r5, lr, r8
  smlal r2, r3, lr, r9
  smlal r0, r1, lr, r10
  ldrb lr, [r11, #3]
  smlal r6, r7, lr, r8
  ldrb r8, [r11, #4]
  smlal r4, r5, lr, r9
  smlal r6, r7, r8, r9
  ldr r9, [r12, #12]
  smlal r2, r3, lr, r10
  ldrb lr, [r11, #5]
  adds r11, r11, r9
  smlal r4, r5, r8, r10
  smlal r6, r7, lr, r10
  bcc 5b
  ldr r12, [sp]
  put_four \rectified
  bne.w 4b
6:
  pop {r0, r4-r11, pc}
  .size \name, . - \name
  .endm

  pairs edgel3_pairs_rectified_m7, 1
  pairs edgel3_pairs_m7, 0

#endif
