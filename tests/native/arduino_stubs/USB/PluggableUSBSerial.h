/* Declarations of what the sketch uses of the USB port of the Mbed cores. */
#ifndef PLUGGABLE_USB_SERIAL_STUB_H_
#define PLUGGABLE_USB_SERIAL_STUB_H_

#include <stdint.h>

class USBSerialStub {
 public:
  /* Takes what there is room for: nothing while the host does not read. */
  void send_nb(uint8_t *bytes, uint32_t count, uint32_t *taken, bool now);
};
extern USBSerialStub _SerialUSB;

#endif /* PLUGGABLE_USB_SERIAL_STUB_H_ */
