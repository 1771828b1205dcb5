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

  /* Requantize the sums of a lane in four registers, and store the outputs as a word. The steps are
   * those of `requantize` in edgel3_loops_m7.S. r12: the edgel3_pairs, r11: the input.
   */
  .macro put_lane half, rectified, first, second, third, fourth
  ldrd r8, r9, [r12, #\half]
  ldrd r10, lr, [r12, #\half + 8]
  .if \rectified
  .irp value, \first, \second, \third, \fourth
  smmlar \value, \value, r8, r9
  .endr
  .else
  .irp value, \first, \second, \third, \fourth
  smmulr \value, \value, r8
  .endr
  .irp value, \first, \second, \third, \fourth
  add \value, \value, \value, asr #31
  add \value, \value, r9
  .endr
  .endif
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
  separate r0, r1, r2, r3
  separate r4, r5, r6, r7
  put_lane LOWER, \rectified, r0, r2, r4, r6
  put_lane UPPER, \rectified, r1, r3, r5, r7
  adds r11, r11, #4
  ldr r0, [r12, #FOURS]
  subs r0, r0, #1
  str r0, [r12, #FOURS]
  bne.w 4b
6:
  pop {r0, r4-r11, pc}
  .size \name, . - \name
  .endm

  pairs edgel3_pairs_rectified_m7, 1
  pairs edgel3_pairs_m7, 0

#endif
