/* Declarations of what the sketches use of an Arduino core: tests compile them without one. */
#ifndef ARDUINO_STUB_H_
#define ARDUINO_STUB_H_

#include <stddef.h>
#include <stdint.h>

#ifdef ARDUINO_TEENSY41
#define DMAMEM __attribute__((section(".dmabuffers"), used))
#endif

uint32_t micros();
uint32_t millis();

class SerialStub {
 public:
  void begin(unsigned long baud);
  int available();
  int read();
  size_t write(const uint8_t *bytes, size_t count);
  size_t print(const char *text);
  size_t println(const char *text);
  size_t println(unsigned long value);
  size_t println(unsigned value);
  size_t println(int value);
  explicit operator bool() const;
};
extern SerialStub Serial;

void setup();
void loop();

#endif /* ARDUINO_STUB_H_ */
