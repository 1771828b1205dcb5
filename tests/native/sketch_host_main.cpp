/* Runs the sketch on the host, for test_sketch_serial.py, with a host that does not always read.
 *
 * Argument: a frame, in hexadecimal digits. The sketch receives it twice. The host takes the first
 * ten bytes of the answer and then nothing. It takes everything of the second answer. The program
 * prints the milliseconds that the sketch spent on the first frame, then what the host took.
 *
 * While the host does not read, the functions of the port do what those of the core do:
 * Serial.write() of the Mbed cores never returns, that of Teensy's core waits for 120 ms, and
 * send_nb() of the Mbed cores takes nothing. The time advances with each query of the clock.
 */
#include <Arduino.h>
#include <PDM.h>
#include <USB/PluggableUSBSerial.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace {

uint64_t now_us = 0;
const char *frame = "";
uint32_t room = 0;

uint32_t take(const uint8_t *bytes, uint32_t count) {
  if (count > room) count = room;
  for (uint32_t i = 0; i < count; ++i) printf("%02x", bytes[i]);
  room -= count;
  return count;
}

void serve(const char *digits, uint32_t host_takes) {
  frame = digits;
  room = host_takes;
  while (*frame != 0) loop();
}

}  // namespace

uint32_t micros() {
  now_us += 10;
  return static_cast<uint32_t>(now_us);
}
uint32_t millis() { return micros() / 1000; }

SerialStub Serial;
void SerialStub::begin(unsigned long) {}
int SerialStub::available() { return static_cast<int>(strlen(frame) / 2); }
int SerialStub::read() {
  unsigned byte = 0;
  if (sscanf(frame, "%2x", &byte) != 1) return -1;
  frame += 2;
  return static_cast<int>(byte);
}
size_t SerialStub::write(const uint8_t *bytes, size_t count) {
  const uint32_t taken = take(bytes, static_cast<uint32_t>(count));
  if (taken == count) return count;
#ifdef ARDUINO_ARCH_MBED
  fputs("Serial.write() waits for ever\n", stderr);
  exit(1);
#endif
  now_us += 120000;
  return taken;
}

USBSerialStub _SerialUSB;
void USBSerialStub::send_nb(uint8_t *bytes, uint32_t count, uint32_t *taken, bool) {
  *taken = take(bytes, count);
}

PDMClass PDM;
int PDMClass::begin(int, int) { return 0; }
void PDMClass::onReceive(void (*)()) {}
void PDMClass::setGain(int) {}
void PDMClass::setBufferSize(int) {}
int PDMClass::available() { return 0; }
int PDMClass::read(void *, size_t) { return 0; }

int main(int, char **arguments) {
  setup();
  const uint32_t start = millis();
  serve(arguments[1], 10);
  const uint32_t spent = millis() - start;
  serve(arguments[1], UINT32_MAX);
  printf(" %u\n", spent);
  return 0;
}
