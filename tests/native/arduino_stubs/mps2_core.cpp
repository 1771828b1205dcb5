/* A small Arduino core for the emulated Cortex-M7, on which test_sketch_emulated.py runs the sketch.
 *
 * Serial is UART 0. The microphone delivers noise; SysTick is its interrupt. Asked for 8 kHz, it runs
 * at 8197 Hz, as real ones run at other rates than those asked for. No other interrupt occurs while
 * the sketch waits, not even every millisecond.
 *
 * Bytes arrive at the worst moment: right after the second time that a pass of loop() finds none.
 * Serial.available() requests their interrupt (PendSV) after it has counted. A sketch that sleeps
 * because of that count has lost its wake-up: a pending interrupt ends WFI, one that was handled
 * before does not.
 */
#include <Arduino.h>
#include <PDM.h>
#include <USB/PluggableUSBSerial.h>

extern "C" {
#include "../../../micro_app/boards/mps2_an500/board.h"
int main();
}

namespace {

constexpr uint32_t kTicksPerMicrosecond = 25;

struct Uart {
  volatile uint32_t data;
  volatile uint32_t state;
  volatile uint32_t control;
  volatile uint32_t interrupts;
  volatile uint32_t divider;
};

Uart &uart() { return *reinterpret_cast<Uart *>(0x40004000u); }

volatile uint32_t &word(uintptr_t address) {
  return *reinterpret_cast<volatile uint32_t *>(address);
}

constexpr uintptr_t kNvicEnable = 0xe000e100u, kInterruptControl = 0xe000ed04u;
constexpr uint32_t kSetPendSv = 1u << 28;
constexpr uintptr_t kSysTick = 0xe000e010u, kSysTickReload = 0xe000e014u, kVtor = 0xe000ed08u;
constexpr uint32_t kPendSvVector = 14, kSysTickVector = 15, kSerialVector = 16, kVectors = 17;

/* Bytes that the UART received. The sketch reads those before `arrived`. */
volatile uint8_t received[256];
volatile uint32_t received_head = 0, arrived = 0, received_tail = 0;
uint32_t empty_checks = 0; /* in this pass of loop() */

void arrive() { arrived = received_head; }

void receive_byte() {
  if (received_head - received_tail == sizeof received) board_exit(1);
  uart().interrupts = 2;
  received[received_head % sizeof received] = static_cast<uint8_t>(uart().data);
  received_head = received_head + 1;
}

constexpr uint32_t kSampleMicroseconds = 122;
constexpr size_t kMaxBufferBytes = 1024;
size_t buffer_bytes = 512;
void (*hear)() = nullptr;
int16_t buffer[kMaxBufferBytes / sizeof(int16_t)];
size_t unread_bytes = 0;
uint32_t period_us = 0, due_us = 0;

/* Deliver a buffer if one is due. The interrupt occurs four times for each buffer, because QEMU's
 * clock may skip some while the processor sleeps: buffers are late then, but none is lost. */
void record() {
  static uint32_t noise = 1;
  if (static_cast<int32_t>(micros() - due_us) < 0) return;
  due_us += period_us;
  for (size_t i = 0; i < buffer_bytes / sizeof *buffer; ++i) {
    noise = noise * 1664525u + 1013904223u;
    buffer[i] = static_cast<int16_t>(static_cast<int32_t>(noise) >> 18);
  }
  unread_bytes = buffer_bytes;
  hear();
}

alignas(256) void (*vectors[kVectors])();

/* Take handlers of our own; those of board.c report a fault. */
void take_vectors() {
  for (uint32_t i = 0; i < kPendSvVector; ++i) {
    vectors[i] = reinterpret_cast<void (*)()>(word(4 * i));
  }
  vectors[kPendSvVector] = arrive;
  vectors[kSysTickVector] = record;
  vectors[kSerialVector] = receive_byte;
  word(kVtor) = reinterpret_cast<uintptr_t>(vectors);
}

}  // namespace

PDMClass PDM;
int PDMClass::begin(int channels, int sample_rate) {
  if (channels != 1 || sample_rate != 8000) return 0;
  period_us = buffer_bytes / sizeof *buffer * kSampleMicroseconds;
  due_us = micros() + period_us;
  word(kSysTickReload) = period_us / 4 * kTicksPerMicrosecond - 1;
  word(kSysTick) = 7; /* count the processor's clock, with an interrupt */
  return 1;
}
void PDMClass::onReceive(void (*function)()) { hear = function; }
void PDMClass::setGain(int) {}
void PDMClass::setBufferSize(int bytes) { buffer_bytes = static_cast<size_t>(bytes); }
int PDMClass::available() { return static_cast<int>(unread_bytes); }
int PDMClass::read(void *to, size_t size) {
  if (size > unread_bytes) size = unread_bytes;
  const uint8_t *from = reinterpret_cast<const uint8_t *>(buffer) + buffer_bytes - unread_bytes;
  for (size_t i = 0; i < size; ++i) static_cast<uint8_t *>(to)[i] = from[i];
  unread_bytes -= size;
  return static_cast<int>(size);
}

SerialStub Serial;
USBSerialStub _SerialUSB;

void SerialStub::begin(unsigned long) {
  take_vectors();
  uart().divider = 16;
  uart().control = 1 | 2 | 8; /* enable writing, reading and the interrupt of reading */
  word(kNvicEnable) = 1;
}
int SerialStub::available() {
  const uint32_t counted = arrived - received_tail;
  if (counted == 0 && ++empty_checks == 2 && arrived != received_head) {
    word(kInterruptControl) = kSetPendSv;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
  }
  return static_cast<int>(counted);
}
int SerialStub::read() {
  if (arrived == received_tail) return -1;
  const uint8_t byte = received[received_tail % sizeof received];
  received_tail = received_tail + 1;
  return byte;
}
/* Takes at most 64 bytes at a time, as a USB endpoint does, and none while the UART is sending. */
void USBSerialStub::send_nb(uint8_t *bytes, uint32_t count, uint32_t *taken, bool) {
  *taken = 0;
  while (*taken < count && *taken < 64 && !(uart().state & 1)) uart().data = bytes[(*taken)++];
}
size_t SerialStub::write(const uint8_t *bytes, size_t count) {
  uint32_t taken;
  _SerialUSB.send_nb(const_cast<uint8_t *>(bytes), count, &taken, true);
  return taken;
}

/* The interrupts read the clock too. */
uint32_t micros() {
  static uint32_t last, ticks, microseconds;
  uint32_t were_masked;
  __asm__ volatile("mrs %0, primask\n\tcpsid i" : "=r"(were_masked)::"memory");
  const uint32_t now = board_ticks();
  ticks += now - last;
  last = now;
  microseconds += ticks / kTicksPerMicrosecond;
  ticks %= kTicksPerMicrosecond;
  const uint32_t result = microseconds;
  __asm__ volatile("msr primask, %0" ::"r"(were_masked) : "memory");
  return result;
}
uint32_t millis() { return micros() / 1000; }

int main() {
  setup();
  for (;;) {
    empty_checks = 0;
    loop();
  }
}
