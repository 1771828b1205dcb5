/* Inner loops for ARMv7E-M, scheduled for the Cortex-M7.
 *
 * edgel3_kernels_m7.c explains the method and declares the four routines:
 *
 *   edgel3_sweep_rectified_m7, edgel3_sweep_m7          compute one channel of an output row
 *   edgel3_expand_gap16_m7, edgel3_expand_gap12_m7      expand one part of a list of taps
 *
 * edgel3_kernels.c contains the same computations in C; both give the same bytes. All routines
 * follow the Arm procedure call standard (AAPCS), preserve r4 to r11, change the flags and use no
 * floating-point register. They read and write words
 * at any address, which LDR and STR of ARMv7E-M allow.
 */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'

/* A group is three taps over four columns: one LDM and 15 instructions, 64 bytes of code. A loop
 * has 16 groups. Its first iteration starts inside it, so that the number of groups need not be a
 * multiple.
 */
#define UNROLL 16
#define GROUP_BYTES_LOG2 6

  .syntax unified
  .thumb
  .text

/* Stack frame of a sweep, as offsets from sp. The inner loops leave no register free, so everything
 * else is in memory. From the bottom: local variables, 9 saved registers, and the part of the
 * argument (an edgel3_sweep) that the caller did not pass in r0 to r3.
 */
#define NEGATIVES_FIRST 0 /* address of the code for the first one or two taps, or of a group */
#define NEGATIVE_GROUPS 4 /* address of the first group in the loop */
#define POSITIVES_FIRST 8
#define POSITIVE_GROUPS 12
#define LIST 16
#define LOCAL_BYTES 20
#define ARGUMENTS (LOCAL_BYTES + 9 * 4)
#define POSITIVES (ARGUMENTS + 0)   /* edgel3_sweep.list_positives */
#define END (ARGUMENTS + 4)         /* list_end */
#define START (ARGUMENTS + 8)       /* start, 8 bytes */
#define MULTIPLIER (ARGUMENTS + 16) /* multiplier, then addend */
#define EXPONENT (ARGUMENTS + 24)   /* exponent */
#define OUTPUT (ARGUMENTS + 28)     /* output, then ring_end */

  /* Add the products of one tap over four columns to the sums. \input is the tap's offset. */
  .macro tap weight, input
  ldr \input, [r5, \input]
  and lr, r6, \input
  umlal r0, r1, lr, \weight
  and \input, r6, \input, ror #16
  umlal r2, r3, \input, \weight
  .endm

  /* The body of a loop. A Cortex-M7 issues two instructions in a cycle if the second needs no result
   * of the first. It needs a loaded word, and the result of an AND, a cycle later. The three taps
   * are therefore interleaved.
   */
  .macro groups
  .rept UNROLL
  ldmia r4!, {r7-r12}
  ldr r8, [r5, r8]
  ldr r10, [r5, r10]
  and lr, r6, r8
  ldr r12, [r5, r12]
  and r8, r6, r8, ror #16
  umlal r0, r1, lr, r7
  and lr, r6, r10
  umlal r2, r3, r8, r7
  and r10, r6, r10, ror #16
  umlal r0, r1, lr, r9
  and lr, r6, r12
  umlal r2, r3, r10, r9
  and r12, r6, r12, ror #16
  umlal r0, r1, lr, r11
  umlal r2, r3, r12, r11
  .endr
  .endm

  /* Find where a loop starts for \taps taps, and store both addresses in the frame. Bit 0 of an
   * address selects the Thumb state. \groups: the address inside the loop at \top. \first: that of
   * \one or \two if one or two taps make no group; otherwise the same as \groups. Changes r5, r6,
   * r7 and the flags.
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

  /* Add a tap that makes no group, then go to the address stored at \then. */
  .macro one_tap then
  ldrd r11, r12, [r4], #8
  tap r11, r12
  ldr pc, [sp, #\then]
  .endm

  /* Add two taps that make no group, then go to the address stored at \then. */
  .macro two_taps then
  ldmia r4!, {r9-r12}
  tap r9, r10
  tap r11, r12
  ldr pc, [sp, #\then]
  .endm

  /* Extract twice the sums of two columns from the two lanes of \high:\low. The lower lane has 24
   * bits. If it is negative (bit 23), it has borrowed 1 from the upper lane, which is added here.
   */
  .macro split lower, upper, low, high
  lsl \lower, \low, #8
  asr \lower, \lower, #7
  lsl \upper, \high, #9
  orr \upper, \upper, \low, lsr #23
  add \upper, \upper, \lower, lsr #31
  .endm

  /* Requantize \value, which is twice a sum; r0: multiplier, r1: addend, r2: exponent. The steps
   * are gemmlowp's doubling high multiplication and its division by 2^exponent, which rounds halves
   * away from zero. The addend is half of the divisor plus the zero point times the divisor. The
   * rectified form rounds negative values differently, which does not matter: USAT makes all of
   * them 0.
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

/* void edgel3_sweep_rectified_m7(edgel3_sweep sweep)
 * void edgel3_sweep_m7(edgel3_sweep sweep)
 *
 * Compute one channel of an output row and requantize it, four columns at a time. The two routines
 * differ in `requantize` only; edgel3_sweep_rectified_m7 requires an output whose zero is stored as
 * 0.
 *
 * Arguments: an edgel3_sweep by value, its first four words in r0 to r3 and the rest on the stack.
 * Result: none. Stack: 56 bytes below the argument (20 of local variables, 36 of saved registers).
 *
 * register  in/out  content
 * r0        in      negatives, the number of taps; then the lower word of the sums of columns 0 and
 *                   3; at the end of a word, the multiplier
 * r1        in      positives, the number of taps; then the upper word of the sums of columns 0 and
 *                   3; at the end of a word, the addend
 * r2        in      ring; then the lower word of the sums of columns 2 and 1; at the end, the
 *                   exponent
 * r3        in      list; then the upper word of the sums of columns 2 and 1
 * r4                the next tap of the list
 * r5                ring plus the current column
 * r6                mask 0xff0000ff, which keeps the first and the last byte of a word
 * r7 to r12         weight and offset of three taps; each offset's register then holds the inputs;
 *                   at the end of a word, the outputs of columns 0, 3, 2 and 1 in r7, r8, r9 and
 *                   r10
 * lr                factor of columns 0 and 3; the end of a part of the list
 *
 * buffer    access  size
 * list      read    8 * (negatives + positives) bytes, aligned to 4
 * ring      read    for every tap, from its offset, the columns rounded up to a multiple of 4, in
 *                   bytes
 * output    write   the columns rounded up to a multiple of 4, in bytes, at any address
 *
 * There is at least one column. Every offset is less than EDGEL3_RING_MAX_BYTES.
 */
  .macro sweep name, rectified
  .balign 4
  .global \name
  .type \name, %function
  .thumb_func
\name:
  push {r4-r11, lr}
  sub sp, sp, #LOCAL_BYTES
  find_entries r0, 1f, 3f, 4f, NEGATIVES_FIRST, NEGATIVE_GROUPS
  find_entries r1, 2f, 5f, 6f, POSITIVES_FIRST, POSITIVE_GROUPS
  str r3, [sp, #LIST]
  mov r5, r2
  movw r6, #0x00ff
  movt r6, #0xff00

0: /* the next four columns */
  ldr r4, [sp, #LIST]
  ldrd r0, r1, [sp, #START]
  ldrd r2, r3, [sp, #START]
  ldr pc, [sp, #NEGATIVES_FIRST]
  .balign 4
1:
  groups
  .if (. - 1b) != (UNROLL << GROUP_BYTES_LOG2)
  .error "a group of taps must have 64 bytes of code: find_entries computes with that size"
  .endif
  ldr lr, [sp, #POSITIVES]
  cmp r4, lr
  bne.w 1b
  /* The sums are n - bias - 1, n for the negative taps. Their complement is bias - n. */
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

/* edgel3_tap *edgel3_expand_gap16_m7(const uint8_t *taps, uint32_t count, const uint16_t *offsets,
 *                                    edgel3_tap *end)
 * edgel3_tap *edgel3_expand_gap12_m7(const uint8_t *taps, uint32_t count, const uint16_t *offsets,
 *                                    edgel3_tap *end)
 *
 * Expand one part of a list, negative or positive taps (edgel3_packed.h describes both formats),
 * and skip the taps whose input row is zero. edgel3_expand_gap12_m7 requires an even count.
 *
 * Result: the end of the list after the appended taps, in r0. Stack: 16 bytes of saved registers.
 *
 * register  in/out  content
 * r0        in/out  taps, the address of the packed taps; out: the new end of the list
 * r1        in      count, the number of packed taps; then the number of pairs that are left
 * r2        in      offsets, by tap number
 * r3        in      end of the list
 * r4                number of the current tap
 * r5                one packed tap, or two
 * r6                magnitude of the weight; a gap
 * r7                offset of the tap's input
 * r12               EDGEL3_ROW_IS_ZERO
 *
 * buffer    access  size
 * taps      read    gap16: 2 * count bytes; gap12: 3 * count / 2 bytes and one more
 * offsets   read    uint16 [edgel3_taps_per_channel], aligned to 2
 * end       write   8 * (count + 1) bytes, aligned to 4: the tap after the last one may be written
 *                   too
 */

  /* Append the tap of number r4 and magnitude r6; keep it only if its input row is not zero. */
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
2: /* the next two taps, 4 bytes */
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
2: /* the next two taps, 3 bytes */
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
