/* Receives samples in the PDM library's interrupt and keeps them in a ring for the sketch. */
#include "edgel3_microphone.h"

#include "edgel3_board.h"

#if EDGEL3_BOARD_HAS_MICROPHONE

#include <Arduino.h>
#include <PDM.h>

namespace {

/* Size of the driver's buffer. It must be set before PDM.begin(): the drivers of Giga and Nicla take
 * the buffer's address in begin(), and then replace a buffer that is smaller than this one. */
constexpr int kDriverBufferBytes = 1024;
/* The first buffers are bad: discard at least so many, for at least this time. */
constexpr uint32_t kBadBuffers = 4;
constexpr uint32_t kBadMicroseconds = 100000;
/* Time over which the sample rate is measured, and longest wait for the result. */
constexpr uint32_t kMeasureMicroseconds = 400000;
constexpr uint32_t kPatienceMilliseconds = 1500;

/* Written in the interrupt only: the ring, its head, the lost samples and the measurement. */
volatile int16_t ring[kMicrophoneRingSamples];
volatile uint32_t head = 0;
volatile uint32_t lost = 0;
volatile uint32_t buffers = 0;
volatile uint32_t measured_samples = 0;
volatile uint32_t measured_us = 0;
/* Written in the main loop only. */
volatile uint32_t tail = 0;
volatile bool is_listening = false;
uint32_t lost_before = 0;
bool has_begun = false;
uint32_t rate_hz = 0;

/* Count the samples of a buffer, and the time since the bad buffers. */
void measure(uint32_t count) {
  static uint32_t first_us, start_us;
  if (buffers == 0) first_us = micros();
  if (buffers < kBadBuffers || start_us - first_us < kBadMicroseconds) {
    buffers = buffers + 1;
    start_us = micros();
  } else if (measured_us < kMeasureMicroseconds) {
    measured_samples = measured_samples + count;
    measured_us = micros() - start_us;
  }
}

/* Called in the interrupt. Reads everything: the library would deliver unread samples again. */
void receive() {
  static int16_t buffer[256];
  uint32_t count = 0;
  for (;;) {
    const int waiting = PDM.available();
    if (waiting <= 1) break;
    const int wanted = waiting < static_cast<int>(sizeof buffer) ? waiting : sizeof buffer;
    const int bytes = PDM.read(buffer, static_cast<size_t>(wanted));
    if (bytes <= 1) break;
    const uint32_t samples = static_cast<uint32_t>(bytes) / sizeof *buffer;
    count += samples;
    if (!is_listening) continue;
    for (uint32_t i = 0; i < samples; ++i) {
      if (head - tail == kMicrophoneRingSamples) {
        lost = lost + (samples - i);
        break;
      }
      ring[head % kMicrophoneRingSamples] = buffer[i];
      head = head + 1;
    }
  }
  measure(count);
}

}  // namespace

MicrophoneRate microphone_start(uint32_t sample_rate_hz, int gain) {
  if (!has_begun) {
    PDM.onReceive(receive);
    PDM.setBufferSize(kDriverBufferBytes);
    if (!PDM.begin(1, static_cast<int>(sample_rate_hz))) return {false, 0};
    if (gain != EDGEL3_BOARD_OWN_GAIN)
      PDM.setGain(gain); /* after begin(), which sets the default */
    has_begun = true;
  }
  const uint32_t start = millis();
  while (measured_us < kMeasureMicroseconds && millis() - start < kPatienceMilliseconds) {
  }
  if (measured_us > 0) {
    rate_hz = static_cast<uint32_t>(measured_samples * 1000000ull / measured_us);
  }
  const uint32_t tolerance_hz = sample_rate_hz * 3 / 100;
  if (rate_hz + tolerance_hz < sample_rate_hz || rate_hz > sample_rate_hz + tolerance_hz) {
    return {false, rate_hz};
  }
  tail = head;
  lost_before = lost;
  is_listening = true;
  return {true, rate_hz};
}

void microphone_stop() { is_listening = false; }

uint32_t microphone_read(int16_t *samples, uint32_t count) {
  uint32_t taken = 0;
  while (taken < count && tail != head) {
    samples[taken++] = ring[tail % kMicrophoneRingSamples];
    tail = tail + 1;
  }
  return taken;
}

bool microphone_has_samples() { return tail != head || lost != lost_before; }

uint32_t microphone_take_lost() {
  const uint32_t since = lost - lost_before;
  if (since == 0) return 0;
  const uint32_t waiting = head - tail;
  tail = tail + waiting;
  lost_before += since;
  return since + waiting;
}

#endif /* EDGEL3_BOARD_HAS_MICROPHONE */
