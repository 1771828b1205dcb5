/* A small Arduino core for the emulated Cortex-M7, on which test_sketch.py runs the sketch.
 *
 * Serial is UART 0. The microphone delivers noise at 8 kHz. Its interrupt is simulated: it occurs
 * when the sketch reads the clock or the serial port, late but never lost. The interrupts of the
 * processor, for a received byte and for every millisecond, are masked: they only end its sleep.
 */
#include <Arduino.h>
#include <PDM.h>

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

constexpr uintptr_t kNvicEnable = 0xe000e100u, kNvicClear = 0xe000e280u;
constexpr uintptr_t kSysTick = 0xe000e010u, kSysTickReload = 0xe000e014u, kIcsr = 0xe000ed04u;

/* Clear pending interrupts, which would end the next sleep at once. A waiting byte sets one again. */
void clear_pending() {
  uart().interrupts = 2;
  word(kNvicClear) = 1;
  word(kIcsr) = 1u << 25;
}

constexpr uint32_t kBufferSamples = 256;
constexpr uint32_t kBufferMicroseconds = kBufferSamples * 1000000u / 8000u;
void (*hear)() = nullptr;
bool is_heard = false;
bool in_interrupt = false;
uint32_t due_us = 0;
int16_t buffer[kBufferSamples];
size_t unread_bytes = 0;

uint32_t read_clock() {
  static uint32_t last, ticks, microseconds;
  const uint32_t now = board_ticks();
  ticks += now - last;
  last = now;
  microseconds += ticks / kTicksPerMicrosecond;
  ticks %= kTicksPerMicrosecond;
  return microseconds;
}

void interrupt() {
  static uint32_t noise = 1;
  while (is_heard && !in_interrupt && static_cast<int32_t>(read_clock() - due_us) >= 0) {
    for (int16_t &sample : buffer) {
      noise = noise * 1664525u + 1013904223u;
      sample = static_cast<int16_t>(static_cast<int32_t>(noise) >> 18);
    }
    unread_bytes = sizeof buffer;
    in_interrupt = true;
    hear();
    in_interrupt = false;
    due_us += kBufferMicroseconds;
  }
}

}  // namespace

PDMClass PDM;
int PDMClass::begin(int channels, int sample_rate) {
  is_heard = channels == 1 && sample_rate == 8000;
  due_us = read_clock() + kBufferMicroseconds;
  return is_heard;
}
void PDMClass::onReceive(void (*function)()) { hear = function; }
void PDMClass::setGain(int) {}
int PDMClass::available() { return static_cast<int>(unread_bytes); }
int PDMClass::read(void *to, size_t size) {
  if (size > unread_bytes) size = unread_bytes;
  const uint8_t *from = reinterpret_cast<const uint8_t *>(buffer) + sizeof buffer - unread_bytes;
  for (size_t i = 0; i < size; ++i) static_cast<uint8_t *>(to)[i] = from[i];
  unread_bytes -= size;
  return static_cast<int>(size);
}

SerialStub Serial;

void SerialStub::begin(unsigned long) {
  uart().divider = 16;
  uart().control = 1 | 2 | 8; /* enable writing, reading and the interrupt of reading */
  __asm__ volatile("cpsid i");
  word(kNvicEnable) = 1;
  word(kSysTickReload) = 1000 * kTicksPerMicrosecond - 1;
  word(kSysTick) = 7; /* count the processor's clock, with an interrupt */
}
int SerialStub::available() {
  clear_pending();
  interrupt();
  return uart().state >> 1 & 1;
}
int SerialStub::read() { return available() ? static_cast<int>(uart().data) : -1; }
/* Takes at most 64 bytes at a time, as a USB endpoint does, and none while the UART is sending. */
size_t SerialStub::write(const uint8_t *bytes, size_t count) {
  size_t written = 0;
  while (written < count && written < 64 && !(uart().state & 1)) uart().data = bytes[written++];
  return written;
}

uint32_t micros() {
  clear_pending();
  interrupt();
  return read_clock();
}
uint32_t millis() { return micros() / 1000; }

int main() {
  setup();
  for (;;) loop();
}
