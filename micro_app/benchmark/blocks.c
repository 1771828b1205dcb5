/* A plugin for QEMU: counts how often each basic block is executed, and its unaligned loads.
 *
 *   qemu-system-arm -plugin file=blocks.so,mark=ADDRESS,out=FILE ...
 *
 * ADDRESS, in hexadecimal digits, is that of a function of the firmware. Its calls divide the run
 * into sections. The plugin writes for each section one line for each block that was executed, then
 * a line "end":
 *
 *   address, executions and unaligned loads in decimal digits, then the code in hexadecimal digits
 *
 * cycles.py compiles this file and reads the lines. Debian's QEMU contains the plugin API but does
 * not ship its header, so the functions that are used are declared here.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define CODE_MAX_BYTES 2048u /* a block has at most 512 instructions */
#define TABLE_SIZE 65536u
#define NO_REGISTERS 0  /* a callback reads and writes no register */
#define ANY_ACCESS 3    /* a callback for loads and stores: QEMU 7.2 mistakes one for the other */
#define INLINE_ADD_64 0 /* an operation that adds to a number of 64 bits */

/* ---- QEMU's plugin API, version 1 ---- */

typedef uint64_t plugin_id;
typedef uint32_t memory_access;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

EXPORT int qemu_plugin_version = 1;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
                                           void (*callback)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block,
                                          void (*callback)(unsigned, void *), int flags,
                                          void *context);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, int operation,
                                              void *number, uint64_t value);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *instruction,
                                      void (*callback)(unsigned, memory_access, uint64_t, void *),
                                      int flags, int kind, void *context);
void qemu_plugin_register_atexit_cb(plugin_id id, void (*callback)(plugin_id, void *),
                                    void *context);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *instruction);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *instruction);
unsigned qemu_plugin_mem_size_shift(memory_access access);

/* ---- Blocks ---- */

typedef struct block {
  struct block *next; /* of those with the same place in the table */
  uint64_t address;
  uint64_t executions;
  uint64_t unaligned;
  size_t size;
  uint8_t code[CODE_MAX_BYTES];
} block;

static block *table[TABLE_SIZE];
static uint64_t mark;
static FILE *out;

/* Return the block with this address and code, a new one if there is none. QEMU may translate the
 * same code more than once.
 */
static block *find_block(uint64_t address, const uint8_t *code, size_t size) {
  block **slot = &table[(address >> 1) % TABLE_SIZE];
  for (block *found = *slot; found != NULL; found = found->next) {
    if (found->address == address && found->size == size && memcmp(found->code, code, size) == 0)
      return found;
  }
  block *made = calloc(1, sizeof *made);
  if (made == NULL) abort();
  made->next = *slot;
  made->address = address;
  made->size = size;
  memcpy(made->code, code, size);
  *slot = made;
  return made;
}

static void end_section(void) {
  for (size_t i = 0; i < TABLE_SIZE; ++i) {
    for (block *each = table[i]; each != NULL; each = each->next) {
      if (each->executions == 0) continue;
      fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 " ", each->address, each->executions,
              each->unaligned);
      for (size_t k = 0; k < each->size; ++k) fprintf(out, "%02x", each->code[k]);
      fputc('\n', out);
      each->executions = 0;
      each->unaligned = 0;
    }
  }
  fputs("end\n", out);
}

static void on_mark(unsigned processor, void *context) {
  (void)processor;
  (void)context;
  end_section();
}

static void on_load(unsigned processor, memory_access access, uint64_t address, void *context) {
  const uint64_t size = UINT64_C(1) << qemu_plugin_mem_size_shift(access);
  (void)processor;
  ((block *)context)->unaligned += (address & (size - 1u) & 3u) != 0;
}

/* Return whether an instruction may load from an unaligned address. LDM and LDRD may not, and a byte
 * is always aligned. The sizes and opcodes are those of the ARMv7-M architecture's encoding.
 */
static int may_be_unaligned(const uint8_t *code, size_t size) {
  const unsigned first = code[0] | (unsigned)code[1] << 8;
  if (size == 4u) return (first & 0xfe70u) == 0xf850u || (first & 0xfe70u) == 0xf830u;
  return (first & 0xfe00u) == 0x5800u || (first & 0xfa00u) == 0x5a00u ||
         (first & 0xf800u) == 0x6800u || (first & 0xf800u) == 0x8800u;
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *translated) {
  const uint64_t address = qemu_plugin_tb_vaddr(translated);
  const size_t count = qemu_plugin_tb_n_insns(translated);
  uint8_t code[CODE_MAX_BYTES];
  size_t size = 0;
  (void)id;
  for (size_t i = 0; i < count; ++i) {
    const struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(translated, i);
    const size_t bytes = qemu_plugin_insn_size(instruction);
    if (size + bytes > sizeof code) abort();
    memcpy(code + size, qemu_plugin_insn_data(instruction), bytes);
    size += bytes;
  }
  block *found = find_block(address, code, size);
  size = 0;
  for (size_t i = 0; i < count; ++i) {
    struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(translated, i);
    const size_t bytes = qemu_plugin_insn_size(instruction);
    if (may_be_unaligned(code + size, bytes)) {
      qemu_plugin_register_vcpu_mem_cb(instruction, on_load, NO_REGISTERS, ANY_ACCESS, found);
    }
    size += bytes;
  }
  if (address == mark) {
    qemu_plugin_register_vcpu_tb_exec_cb(translated, on_mark, NO_REGISTERS, NULL);
  }
  qemu_plugin_register_vcpu_tb_exec_inline(translated, INLINE_ADD_64, &found->executions, 1);
}

static void at_exit(plugin_id id, void *context) {
  (void)id;
  (void)context;
  end_section();
  fclose(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int count, char **arguments) {
  (void)info;
  for (int i = 0; i < count; ++i) {
    if (strncmp(arguments[i], "mark=", 5) == 0) mark = strtoull(arguments[i] + 5, NULL, 16);
    if (strncmp(arguments[i], "out=", 4) == 0) out = fopen(arguments[i] + 4, "w");
  }
  if (mark == 0 || out == NULL) {
    fprintf(stderr, "error: expected mark=ADDRESS and out=FILE, a file that can be written\n");
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_atexit_cb(id, at_exit, NULL);
  return 0;
}
