/* The Arduino sketch of a node: turns sound from the microphone or the host into embeddings and
 * scores.
 *
 * The host communicates over the serial port, by the protocol of edgel3_wire.h. All memory is
 * static. If it exceeds the board's budget (edgel3_board.h), the sketch does not compile.
 *
 * `edgel3-tflm export-app` writes this sketch with library and model in src/edgel3. Without it,
 * install the library and copy edgel3_packed_model.{c,h} and edgel3_model_frontend.{c,h} of a
 * deployment into this folder. That works with PlatformIO only, because the Arduino IDE does not
 * let a library include files from the sketch's folder.
 */
#include <Arduino.h>
#include <string.h>

#ifdef ARDUINO_ARCH_MBED
#include <USB/PluggableUSBSerial.h>
#endif

#include "edgel3_board.h"
#include "edgel3_microphone.h"
#include "edgel3_sleep.h"

constexpr uint32_t kMicrophoneBytes = EDGEL3_BOARD_HAS_MICROPHONE ? kMicrophoneRingBytes : 0;
#define EDGEL3_NODE_RAM_BUDGET_BYTES (EDGEL3_BOARD_RAM_BUDGET_BYTES - kMicrophoneBytes)
#if !EDGEL3_BOARD_HAS_MICROPHONE
#define EDGEL3_NODE_OPENS_EARS 0
#endif
#ifdef EDGEL3_BOARD_EARS_BUDGET_BYTES
#define EDGEL3_NODE_EARS_BUDGET_BYTES EDGEL3_BOARD_EARS_BUDGET_BYTES
#endif
#if __has_include("src/edgel3/edgel3_node_model.h")
#include "src/edgel3/edgel3_node_model.h"
#include "src/edgel3/edgel3_resampler.h"
#else
#include <edgel3_node_model.h>
#include <edgel3_resampler.h>
#endif

/* Baud rate of the serial port. Boards with USB of their own ignore it. */
#ifndef EDGEL3_BAUD
#define EDGEL3_BAUD 115200
#endif

/* Size of each part in bytes. */
constexpr uint32_t kArenaBytes = EDGEL3_NODE_ARENA_BYTES;
constexpr uint32_t kWindowBytes = EDGEL3_NODE_WINDOW_BYTES;
constexpr uint32_t kEarsBytes = EDGEL3_NODE_EARS_BYTES;
constexpr uint32_t kRamBytes = EDGEL3_NODE_RAM_BYTES + kMicrophoneBytes;
constexpr uint32_t kModelBytes = EDGEL3_NODE_NETWORK_BYTES;
static_assert(kRamBytes <= EDGEL3_BOARD_RAM_BUDGET_BYTES,
              "the node needs more RAM than the board's budget");
static_assert(kModelBytes <= EDGEL3_BOARD_FLASH_BUDGET_BYTES,
              "the model needs more flash than the board's budget");

alignas(32) static uint8_t arena[kArenaBytes];
alignas(32) static uint8_t window[kWindowBytes];
EDGEL3_BOARD_EARS alignas(32) static uint8_t ears[kEarsBytes];
#ifdef EDGEL3_BOARD_MODEL_BUDGET_BYTES
/* A copy of the model in RAM, which is faster than flash. If it does not fit, the model stays there. */
constexpr bool kCopiesModel = kModelBytes <= EDGEL3_BOARD_MODEL_BUDGET_BYTES;
EDGEL3_BOARD_MODEL alignas(32) static uint8_t model_copy[kCopiesModel ? kModelBytes : 1];
#endif
static edgel3_node node;
static char board_name[96] = EDGEL3_BOARD;

/* Whether ticks are cycles; otherwise they are microseconds. The cycle counter wraps around after
 * 8.9 s at 480 MHz, which is longer than a window takes. Its registers are the same on every
 * Cortex-M7. */
static bool counts_cycles = false;

static uint32_t read_ticks(void *) {
#ifdef __ARM_ARCH_7EM__
  if (counts_cycles) return *reinterpret_cast<volatile uint32_t *>(0xe0001004u); /* DWT_CYCCNT */
#endif
  return micros();
}

static void start_cycles() {
#ifdef __ARM_ARCH_7EM__
  *reinterpret_cast<volatile uint32_t *>(0xe000edfcu) |= 1u << 24;   /* DEMCR: trace */
  *reinterpret_cast<volatile uint32_t *>(0xe0001fb0u) = 0xc5acce55u; /* DWT_LAR: unlock */
  *reinterpret_cast<volatile uint32_t *>(0xe0001000u) |= 1u;         /* DWT_CTRL: count */
  counts_cycles = true;
#endif
}

/* Measure the frequency of the ticks in Hz against the core's clock, to the nearest MHz. */
static uint32_t measure_ticks_per_second() {
  constexpr uint32_t kMicroseconds = 20000;
  const uint32_t from = micros();
  const uint32_t ticks = read_ticks(nullptr);
  while (micros() - from < kMicroseconds) {
  }
  const uint32_t megahertz = (read_ticks(nullptr) - ticks + kMicroseconds / 2) / kMicroseconds;
  if (megahertz > 1) return megahertz * 1000000u;
  counts_cycles = false; /* the counter stands still, perhaps because of a debugger */
  return 1000000u;
}

static uint32_t read_milliseconds(void *) { return millis(); }

/* Give bytes to the serial port, and return how many it took.
 *
 * Serial.write() of the Mbed cores waits until the host reads, without limit, as long as a program
 * has the port open; then it says that all was sent. The function that it calls does not wait. */
static uint32_t write_some(const uint8_t *bytes, uint32_t count) {
#ifdef ARDUINO_ARCH_MBED
  uint32_t written = 0;
  _SerialUSB.send_nb(const_cast<uint8_t *>(bytes), count, &written, true);
  return written;
#else
  return static_cast<uint32_t>(Serial.write(bytes, count));
#endif
}

/* Send bytes. Return false if the host takes none for two seconds. */
static bool write_bytes(const uint8_t *bytes, uint32_t count) {
  constexpr uint32_t kPatienceMilliseconds = 2000;
  uint32_t last = millis();
  while (count > 0) {
    const uint32_t written = write_some(bytes, count);
    if (written > 0) last = millis();
    if (millis() - last > kPatienceMilliseconds) return false;
    bytes += written;
    count -= written;
  }
  return true;
}

/* Send a frame. After an incomplete frame, send a zero byte first: it ends that frame, so that this
 * one is not lost with it. */
static void write_frame(void *, const uint8_t *bytes, uint32_t count) {
  static bool was_cut = false;
  const uint8_t end = 0;
  if (was_cut && !write_bytes(&end, 1)) return;
  was_cut = !write_bytes(bytes, count);
}

#if EDGEL3_BOARD_HAS_MICROPHONE
/* Corrects the microphone's rate, which is 1.6 % too high on Giga and Nicla. */
static edgel3_resampler resampler;
static uint32_t microphone_hz = 0;

/* Append text to the board's name, and return its new length. */
static uint32_t put_text(uint32_t length, const char *text) {
  while (*text != 0 && length + 1 < sizeof board_name) board_name[length++] = *text++;
  return length;
}

/* Append a number to the board's name, and return its new length. */
static uint32_t put_number(uint32_t length, uint32_t number) {
  char digits[11] = {};
  char *first = digits + sizeof digits - 1;
  do {
    *--first = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number > 0);
  return put_text(length, first);
}

/* Turn the microphone on or off, and put the measured sample rate into the board's name, which INFO
 * returns. */
static int listen_to_microphone(void *, int on) {
  if (!on) {
    microphone_stop();
    return 1;
  }
  const MicrophoneRate rate =
      microphone_start(EDGEL3_MODEL_SAMPLE_RATE_HZ, EDGEL3_BOARD_GAIN(EDGEL3_MODEL_SAMPLE_RATE_HZ));
  microphone_hz = rate.measured_hz;
  edgel3_resampler_begin(&resampler, microphone_hz, EDGEL3_MODEL_SAMPLE_RATE_HZ);
  uint32_t length = put_text(0, EDGEL3_BOARD);
  length = put_text(length, rate.is_usable ? ", microphone on at " : ", microphone refused at ");
  length = put_number(length, rate.measured_hz);
  board_name[put_text(length, " Hz")] = 0;
  return rate.is_usable;
}

/* Pass samples or losses from the microphone to the node. Return whether there were any. The node
 * takes all samples before it runs the network, so that calls meanwhile may use the same buffers. */
static bool hear() {
  constexpr uint32_t kSamples = 128;
  static int16_t heard[kSamples];
  static int16_t samples[EDGEL3_RESAMPLER_OUTPUTS(kSamples)];
  const uint32_t lost = microphone_take_lost();
  if (lost > 0) {
    const uint64_t missed = static_cast<uint64_t>(lost) * EDGEL3_MODEL_SAMPLE_RATE_HZ;
    edgel3_node_miss(&node, static_cast<uint32_t>(missed / microphone_hz));
    edgel3_resampler_begin(&resampler, microphone_hz, EDGEL3_MODEL_SAMPLE_RATE_HZ);
    return true;
  }
  const uint32_t count = microphone_read(heard, kSamples);
  if (count == 0) return false;
  edgel3_node_hear(&node, samples, edgel3_resampler_run(&resampler, heard, count, samples));
  return true;
}

/* Called between the rows of the network. */
static void hear_all(void *) {
  while (hear()) {
  }
}
#else
static int (*const listen_to_microphone)(void *, int) = nullptr;
static void (*const hear_all)(void *) = nullptr;
static bool hear() { return false; }
#endif

static bool has_work() {
  return Serial.available() > 0 || (EDGEL3_BOARD_HAS_MICROPHONE && microphone_has_samples());
}

void setup() {
  Serial.begin(EDGEL3_BAUD);
  start_cycles();
  static edgel3_node_model model = EDGEL3_NODE_MODEL(arena, window, ears);
#ifdef EDGEL3_BOARD_MODEL_BUDGET_BYTES
  if (kCopiesModel) {
    memcpy(model_copy, model.network, sizeof model_copy);
    model.network = model_copy;
  }
#endif
  const edgel3_node_port port = {
      /*board=*/board_name,
      /*context=*/nullptr,
      /*write=*/write_frame,
      /*ticks=*/read_ticks,
      /*ticks_per_second=*/measure_ticks_per_second(),
      /*milliseconds=*/read_milliseconds,
      /*listen=*/listen_to_microphone,
      /*hear=*/hear_all,
  };
  edgel3_node_open(&node, &model, &port);
}

void loop() {
  uint8_t bytes[64];
  uint32_t count = 0;
  while (count < sizeof bytes && Serial.available() > 0) {
    bytes[count++] = static_cast<uint8_t>(Serial.read());
  }
  if (count > 0) edgel3_node_receive(&node, bytes, count);
  if (!hear() && count == 0) sleep_unless(has_work);
}
