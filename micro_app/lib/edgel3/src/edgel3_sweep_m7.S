/* One channel's list of taps over a row, on a Cortex-M7 (edgel3_kernels_m7.c tells the idea).
 *
 * void edgel3_sweep_m7(const edgel3_sweep *sweep): see there for the struct's fields.
 *
 * A group of three taps is one LDM and 15 instructions, 64 bytes of code; the loops are unrolled and
 * entered where the number of groups that are left over says.
 */
#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__)

#define UNROLL 16
#define GROUP_BYTES_LOG2 6

/* The frame: a copy of the struct, for no register is free to point to it. */
#define LIST 0
#define POSITIVES 4
#define END 8
#define NEGATIVE_ENTRY 12
#define POSITIVE_ENTRY 16
#define LANES_END 20
#define BIAS 24
#define LANES 32
#define FRAME_BYTES 40

  .syntax unified
  .thumb
  .text

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

  /* \entry = where to enter the loop at \top for \groups groups, with the bit that says Thumb */
  .macro entry_of entry, top, groups
  adr \entry, \top
  and \groups, \groups, #UNROLL - 1
  rsb \groups, \groups, #UNROLL
  add \entry, \entry, \groups, lsl #GROUP_BYTES_LOG2
  orr \entry, \entry, #1
  .endm

  .balign 4
  .global edgel3_sweep_m7
  .type edgel3_sweep_m7, %function
  .thumb_func
edgel3_sweep_m7:
  push {r4-r11, lr}
  sub sp, sp, #FRAME_BYTES
  /* list, positives, end, negative groups, positive groups, ring, lanes, end of lanes, bias */
  ldmia r0!, {r1-r8}
  ldrd r10, r11, [r0]
  str r1, [sp, #LIST]
  str r2, [sp, #POSITIVES]
  str r3, [sp, #END]
  entry_of r9, 1f, r4
  str r9, [sp, #NEGATIVE_ENTRY]
  entry_of r9, 2f, r5
  str r9, [sp, #POSITIVE_ENTRY]
  str r8, [sp, #LANES_END]
  strd r10, r11, [sp, #BIAS]
  str r7, [sp, #LANES]
  mov r5, r6
  movw r6, #0x00ff
  movt r6, #0xff00

0: /* four columns */
  ldr r4, [sp, #LIST]
  movs r0, #0
  movs r1, #0
  movs r2, #0
  movs r3, #0
  ldr pc, [sp, #NEGATIVE_ENTRY]
  .balign 4
1:
  groups
  .if (. - 1b) != (UNROLL << GROUP_BYTES_LOG2)
  .error "a group of taps has another size than the loop's entry is computed with"
  .endif
  ldr lr, [sp, #POSITIVES]
  cmp r4, lr
  bne 1b
  ldrd r7, r8, [sp, #BIAS]
  subs r0, r7, r0
  sbc r1, r8, r1
  subs r2, r7, r2
  sbc r3, r8, r3
  ldr pc, [sp, #POSITIVE_ENTRY]
  .balign 4
2:
  groups
  ldr lr, [sp, #END]
  cmp r4, lr
  bne 2b
  ldr r7, [sp, #LANES]
  ldr r8, [sp, #LANES_END]
  adds r5, r5, #4
  stmia r7!, {r0-r3}
  str r7, [sp, #LANES]
  cmp r7, r8
  bne 0b

  add sp, sp, #FRAME_BYTES
  pop {r4-r11, pc}
  .size edgel3_sweep_m7, . - edgel3_sweep_m7

#endif
