/* Runs the sketch's edgel3_microphone.cpp on the host, for test_microphone.py, with a simulated clock and PDM
 * library. The time advances with each query of the clock. The library uses its buffer as the
 * drivers of Giga and Nicla do: begin() takes the address of a buffer, and then replaces a buffer
 * that is too small. AddressSanitizer reports a sketch that lets it.
 *
 * Arguments: true sample rate in Hz, number of samples to read, microseconds for which the reader
 * sleeps after half of them. The program prints the measured rate, whether it is usable, the number
 * of lost samples, and the samples. The value of each sample is its index since the microphone
 * started.
 */
#include <Arduino.h>
#include <PDM.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgel3_microphone.h"

namespace {

constexpr uint32_t kBufferSamples = 512;
uint64_t now_us = 0;
uint64_t next_us = 0;
double period_us = 0;
double begun_us = -1;
uint32_t delivered = 0;
constexpr int kNeededBytes = 1024;
int size_bytes = 512;
int16_t *owned = static_cast<int16_t *>(calloc(1, static_cast<size_t>(size_bytes)));
int16_t *buffer = nullptr; /* where the driver writes */
int unread_bytes = 0;
void (*callback)() = nullptr;
bool in_interrupt = false;

void advance(uint32_t by_us) {
  now_us += by_us;
  while (callback != nullptr && begun_us >= 0 && !in_interrupt && now_us >= next_us) {
    const uint64_t later_us = now_us;
    now_us = next_us; /* the interrupt occurs when the buffer is full */
    for (uint32_t i = 0; i < kBufferSamples; ++i) buffer[i] = static_cast<int16_t>(delivered++);
    unread_bytes = kNeededBytes;
    in_interrupt = true;
    callback();
    in_interrupt = false;
    now_us = later_us;
    next_us = static_cast<uint64_t>(begun_us + period_us * (delivered + kBufferSamples));
  }
}

}  // namespace

PDMClass PDM;
int PDMClass::begin(int channels, int) {
  begun_us = static_cast<double>(now_us);
  next_us = static_cast<uint64_t>(begun_us + period_us * kBufferSamples);
  buffer = owned;
  if (size_bytes < kNeededBytes) setBufferSize(kNeededBytes);
  return channels == 1;
}
void PDMClass::setBufferSize(int bytes) {
  free(owned);
  size_bytes = bytes;
  owned = static_cast<int16_t *>(calloc(1, static_cast<size_t>(bytes)));
}
void PDMClass::end() { abort(); }
int PDMClass::available() { return unread_bytes; }
int PDMClass::read(void *to, size_t size) {
  const int bytes =
      size < static_cast<size_t>(unread_bytes) ? static_cast<int>(size) : unread_bytes;
  memcpy(to, owned + (kNeededBytes - unread_bytes) / 2, static_cast<size_t>(bytes));
  unread_bytes -= bytes;
  return bytes;
}
void PDMClass::onReceive(void (*function)()) { callback = function; }
void PDMClass::setGain(int) {}

uint32_t micros() {
  advance(in_interrupt ? 0 : 1);
  return static_cast<uint32_t>(now_us);
}
uint32_t millis() { return micros() / 1000; }

int main(int, char **arguments) {
  const double rate_hz = atof(arguments[1]);
  const uint32_t wanted = static_cast<uint32_t>(atoi(arguments[2]));
  const uint32_t sleep_us = static_cast<uint32_t>(atoi(arguments[3]));
  period_us = 1e6 / rate_hz;
  const MicrophoneRate rate = microphone_start(48000, 18);
  printf("%u %d", rate.measured_hz, rate.is_usable);
  if (!rate.is_usable) return 0;
  static int16_t samples[1 << 20];
  uint32_t count = 0;
  uint32_t lost = 0;
  bool has_slept = false;
  while (count < wanted) {
    const uint32_t missed = microphone_take_lost();
    lost += missed;
    if (missed == 0) count += microphone_read(samples + count, wanted - count);
    if (!has_slept && count >= wanted / 2) {
      has_slept = true;
      advance(sleep_us);
    }
    advance(10);
  }
  microphone_stop();
  printf(" %u", lost);
  for (uint32_t i = 0; i < count; ++i) printf(" %d", samples[i]);
  return 0;
}
