/* Inner loops for lists of taps and rows of words on ARMv7E-M, scheduled for the Cortex-M7.
 *
 * edgel3_words_m7.c explains the method and declares the routine. It follows the Arm procedure call
 * standard (AAPCS), preserves r4 to r11, changes the flags and uses no floating-point register.
 */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'

  .syntax unified
  .thumb
  .text

/* An edgel3_words, as offsets in bytes. */
#define LIST 0        /* list, then rounds */
#define START 8       /* start, 8 bytes */
#define MULTIPLIER 16 /* multiplier, then addend */
#define EXPONENT 24   /* exponent, then plain */
#define OUTPUT 32     /* output, then half */
#define HALF 36
#define FIRST 40      /* words of the block before those of four, 0 to 3 */
#define SKIPPED 44    /* pairs of taps that the first round of a loop leaves out, 0 to 3 */
#define ENTRY 48      /* scratch: address in the loop of the next block, then that block's offset */
#define ADVANCE 56    /* scratch: words of the current block */
#define CENTER 60
#define FOURS 64      /* blocks of four words */

/* A loop has four pairs of taps. Sizes of code in bytes: */
#define PAIR_BYTES 64
#define BLOCK_BYTES (4 * PAIR_BYTES + 16)
#define ONE_WORD_BYTES 12 /* of a tap in the loop of one word */
#define TWO_WORD_BYTES 20
#define MAX_FOURS 25 /* as in edgel3_words_m7.c */
#define END_WEIGHT 0x80000000 /* as in edgel3_words_m7.c */

  /* Multiply four words by the weight of a tap, and load the next tap and its first word.
   *
   * A Cortex-M7 issues a load together with a multiplication after it. LDRD is issued alone, and so
   * is a load that writes its address back.
   */
  .macro words_tap weight, next, offset, number
  ldr r12, [r10, #\offset + 4]
  smlal r0, r1, lr, \weight
  smlal r2, r3, r12, \weight
  ldrd lr, r12, [r10, #\offset + 8]
  ldrd \next, r10, [r8, #8 * (\number)]
  smlal r4, r5, lr, \weight
  ldr lr, [r10, #\offset]
  smlal r6, r7, r12, \weight
  .endm

  /* The end of a loop: go on with the next eight taps, unless the tap with this weight ends the list. */
  .macro repeat loop, weight
  add.w r8, r8, #8 * 8
  cmp.w \weight, #END_WEIGHT
  bne.w \loop
  .endm

  /* Find the address in r11 at which a loop starts that leaves out the r2 pairs of taps of SKIPPED. */
  .macro find_entry loop, tap_bytes
  adr.w r11, \loop
  movs r3, #2 * \tap_bytes
  mla r11, r2, r3, r11
  orr r11, r11, #1 /* selects the Thumb state */
  .endm

  /* The loop of a block of four words. The tap with the weight END_WEIGHT ends it. */
  .macro block offset
.Lblock\@:
  .set number, 0
  .rept 4
  words_tap r9, r11, \offset, number
  words_tap r11, r9, \offset, number + 1
  .set number, number + 2
  .endr
  repeat .Lblock\@, r9
  b.w .Ltail
  .if (. - .Lblock\@) != BLOCK_BYTES
  .error "a block must have BLOCK_BYTES of code: the entries are computed with that size"
  .endif
  .endm

  /* Separate the two lanes of a sum: twice the lower sum in \low, twice the upper one in \high. The
   * lower lane has 23 bits. If it is negative (bit 22), it has borrowed 1 from the upper lane, which
   * is added here.
   */
  .macro separate low, high
  lsl \high, \high, #10
  orr \high, \high, \low, lsr #22
  lsl \low, \low, #9
  asr \low, \low, #8
  add \high, \high, \low, lsr #31
  .endm

/* void edgel3_words_m7(edgel3_words *words)
 *
 * Compute one channel of an output row and requantize it: a block of FIRST words, then blocks of
 * four. A word holds two columns.
 *
 * Arguments: r0, the address of an edgel3_words, whose scratch fields, output and number of blocks
 * are changed. Result: none. Stack: 40 bytes.
 *
 * register  content
 * r0 to r7  sums of four words
 * r8        the next tap of the list
 * r9, r11   weights of two taps
 * r10       address of a tap
 * r12       a word; outside the loops, the edgel3_words
 * lr        a word
 *
 * buffer    access  size
 * list      read    an even number of taps, the tap with the weight END_WEIGHT, one tap more
 * taps      read    for each tap, the words of all blocks
 * output    write   words of four columns at any address, of both lanes; the words of the first
 *                   block and of its upper lane extend into those of the next block
 *
 * The loops enter at SKIPPED, so that the number of taps need not be a multiple of eight.
 */
  .balign 4
  .global edgel3_words_m7
  .type edgel3_words_m7, %function
  .thumb_func
edgel3_words_m7:
  push {r0, r4-r11, lr}
  mov r12, r0
  adr.w r1, .Lblocks
  ldr r2, [r12, #SKIPPED]
  movs r3, #PAIR_BYTES
  mla r1, r2, r3, r1
  orr r1, r1, #1 /* selects the Thumb state */
  movs r2, #0
  strd r1, r2, [r12, #ENTRY]
  movs r3, #4
  ldr r4, [r12, #FIRST]
  cmp r4, #0
  it ne
  movne r3, r4
  str r3, [r12, #ADVANCE]
  bne 0f
  ldr r0, [r12, #FOURS]
  ldrd r11, lr, [r12, #ENTRY]
  subs r0, r0, #1
  b.w 4f
0:
  ldrd r10, r8, [r12, #LIST]
  ldrd r0, r1, [r12, #START]
  ldr r2, [r12, #SKIPPED]
  cmp r4, #2
  beq.w 2f
  bhi.w 3f

1: /* a block of one word */
  find_entry .Lone, ONE_WORD_BYTES
  /* The loop may start at its first or third tap, with the tap before it left out. */
  ldrd r2, r3, [r10]
  mov r6, r2
  mov r7, r3
  movs r4, #0
  mov r9, r4
  bx r11

  .macro one_word weight, input, before, input_before, next, address, number
  ldrd \next, \address, [r8, #8 * (\number)]
  ldr.w \input, [\input, #-4]
  smlal r0, r1, \input_before, \before
  .endm
  .balign 4
.Lone:
  .set number, 0
  .rept 2
  one_word r2, r3, r9, r10, r4, r5, number
  one_word r4, r5, r2, r3, r6, r7, number + 1
  one_word r6, r7, r4, r5, r9, r10, number + 2
  one_word r9, r10, r6, r7, r2, r3, number + 3
  .set number, number + 4
  .endr
  .if (. - .Lone) != 8 * ONE_WORD_BYTES
  .error "the entry is computed with ONE_WORD_BYTES"
  .endif
  repeat .Lone, r2
  smlal r0, r1, r10, r9
  b.w .Ltail

2: /* a block of two words */
  find_entry .Ltwo, TWO_WORD_BYTES
  ldrd r2, r3, [r12, #START]
  ldrd r4, r5, [r10]
  ldr r6, [r5, #-8]
  bx r11

  .macro two_words weight, address, first, second, next, next_address, next_first, number
  ldrd \next, \next_address, [r8, #8 * (\number)]
  ldr.w \second, [\address, #-4]
  smlal r0, r1, \first, \weight
  ldr.w \next_first, [\next_address, #-8]
  smlal r2, r3, \second, \weight
  .endm
  .balign 4
.Ltwo:
  .set number, 0
  .rept 4
  two_words r4, r5, r6, r7, r9, r10, r11, number
  two_words r9, r10, r11, r12, r4, r5, r6, number + 1
  .set number, number + 2
  .endr
  .if (. - .Ltwo) != 8 * TWO_WORD_BYTES
  .error "the entry is computed with TWO_WORD_BYTES"
  .endif
  repeat .Ltwo, r4
  b.w .Ltail

3: /* a block of three words */
  ldrd r2, r3, [r12, #START]
  ldrd r4, r5, [r12, #START]
  ldrd r9, r10, [r10]
  ldr r8, [r12, #LIST]
  add r8, r8, #8
30:
  ldrd lr, r12, [r10, #-12]
  ldr r6, [r10, #-4]
  ldrd r11, r10, [r8], #8
  smlal r0, r1, lr, r9
  smlal r2, r3, r12, r9
  smlal r4, r5, r6, r9
  ldrd lr, r12, [r10, #-12]
  ldr r6, [r10, #-4]
  ldrd r9, r10, [r8], #8
  smlal r0, r1, lr, r11
  smlal r2, r3, r12, r11
  smlal r4, r5, r6, r11
  cmp r9, #END_WEIGHT
  bne 30b

.Ltail: /* requantize and store the sums of a block */
  ldr r12, [sp]
  ldrd r10, r11, [r12, #EXPONENT]
  cmp r11, #0
  beq.w 5f
  /* The instructions of `separate`, of the requantization as in edgel3_loops_m7.S and of the
   * stores, in the order that takes the fewest cycles.
   */
  lsl r1, r1, #10
  orr r1, r1, r0, lsr #22
  lsl r5, r5, #10
  lsl r3, r3, #10
  lsl r0, r0, #9
  orr r3, r3, r2, lsr #22
  lsl r2, r2, #9
  asr r2, r2, #8
  orr r5, r5, r4, lsr #22
  lsl r4, r4, #9
  asr r0, r0, #8
  asr r4, r4, #8
  ldr r11, [r12, #ADVANCE]
  add r3, r3, r2, lsr #31
  lsl r7, r7, #10
  ldrd r8, r9, [r12, #MULTIPLIER]
  add r1, r1, r0, lsr #31
  smmlar r3, r3, r8, r9
  orr r7, r7, r6, lsr #22
  lsl r6, r6, #9
  smmlar r0, r0, r8, r9
  add r5, r5, r4, lsr #31
  smmlar r2, r2, r8, r9
  asr r6, r6, #8
  asr r3, r3, r10
  usat r3, #8, r3
  smmlar r1, r1, r8, r9
  asr r2, r2, r10
  smmlar r4, r4, r8, r9
  asr r0, r0, r10
  smmlar r5, r5, r8, r9
  add r7, r7, r6, lsr #31
  asr r4, r4, r10
  smmlar r6, r6, r8, r9
  asr r1, r1, r10
  smmlar r7, r7, r8, r9
  usat r1, #8, r1
  asr r6, r6, r10
  usat r0, #8, r0
  asr r7, r7, r10
  usat r4, #8, r4
  asr r5, r5, r10
  usat r2, #8, r2
  usat r5, #8, r5
  usat r6, #8, r6
  usat r7, #8, r7
  ldrd r9, r8, [r12, #OUTPUT]
  orr r0, r0, r2, lsl #8
  mov r2, #4
  orr r5, r5, r7, lsl #8
  orr r4, r4, r6, lsl #8
  orr r1, r1, r3, lsl #8
  str r2, [r12, #ADVANCE]
  orr r1, r1, r5, lsl #16
  str r1, [r9, r8]
  orr r0, r0, r4, lsl #16
  str r0, [r9]
  add r9, r9, r11
  ldr r0, [r12, #FOURS]
  subs r0, r0, #1
  str r9, [r12, #OUTPUT]
  ldrd r11, lr, [r12, #ENTRY]
  blo.w 6f

4: /* begin a block of four words */
  str r0, [r12, #FOURS]
  add r0, r11, #BLOCK_BYTES
  add r1, lr, #16
  strd r0, r1, [r12, #ENTRY]
  ldrd r10, r8, [r12, #LIST]
  ldrd r0, r1, [r12, #START]
  ldrd r9, r10, [r10]
  ldrd r2, r3, [r12, #START]
  ldr lr, [r10, lr]
  ldrd r4, r5, [r12, #START]
  ldrd r6, r7, [r12, #START]
  bx r11

5: /* the output's zero is not stored as 0, or the sums are counted from a center */
  separate r0, r1
  separate r2, r3
  separate r4, r5
  separate r6, r7
  ldrd r8, r9, [r12, #MULTIPLIER]
  ldr r11, [r12, #CENTER]
  .irp value, r0, r1, r2, r3, r4, r5, r6, r7
  add \value, \value, r11
  .endr
  .irp value, r0, r1, r2, r3, r4, r5, r6, r7
  smmulr \value, \value, r8
  .endr
  .irp value, r0, r1, r2, r3, r4, r5, r6, r7
  add \value, \value, \value, asr #31
  add \value, \value, r9
  asr \value, \value, r10
  .endr
  .irp value, r0, r1, r2, r3, r4, r5, r6, r7
  usat \value, #8, \value
  .endr
  ldr r11, [r12, #ADVANCE]
  ldrd r9, r10, [r12, #OUTPUT]
  orr r0, r0, r2, lsl #8
  orr r1, r1, r3, lsl #8
  orr r0, r0, r4, lsl #16
  orr r1, r1, r5, lsl #16
  orr r0, r0, r6, lsl #24
  orr r1, r1, r7, lsl #24
  str r0, [r9]
  str r1, [r9, r10]
  movs r2, #4
  add r9, r9, r11
  str r9, [r12, #OUTPUT]
  str r2, [r12, #ADVANCE]
  ldr r0, [r12, #FOURS]
  ldrd r11, lr, [r12, #ENTRY]
  subs r0, r0, #1
  bhs.w 4b

6:
  pop {r0, r4-r11, pc}

  .balign 4
.Lblocks:
  .set offset, 0
  .rept MAX_FOURS
  block offset
  .set offset, offset + 16
  .endr
  .size edgel3_words_m7, . - edgel3_words_m7

#endif
