/* Declarations of what the sketch uses of the Arduino PDM library, so that tests can compile it. */
#ifndef PDM_STUB_H_
#define PDM_STUB_H_

#include <stddef.h>

class PDMClass {
 public:
  int begin(int channels, int sample_rate);
  void end();
  int available();
  int read(void *buffer, size_t size);
  void onReceive(void (*function)());
  void setGain(int gain);
  void setBufferSize(int bytes);
};
extern PDMClass PDM;

#endif /* PDM_STUB_H_ */
