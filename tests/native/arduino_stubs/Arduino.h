/* Declarations of what the sketches use of an Arduino core: tests compile them without one. They have
 * those habits of the real cores that a sketch must know. */
#ifndef ARDUINO_STUB_H_
#define ARDUINO_STUB_H_

#include <board.h>
#include <stddef.h>
#include <stdint.h>

#ifndef CORE_BOARD_H_
#error "a header of the sketch hides <board.h> of the core"
#endif

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
  /* On the Mbed cores: waits without limit while a host that has opened the port does not read, and
   * says that all was sent. */
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
