/* CMSIS-DSP's complex transform. Not arm_rfft_fast_f32, which is the same one with a step behind it
 * that needs a second buffer.
 */
#include "edgel3_fft.h"

#ifdef EDGEL3_USE_CMSIS_DSP

#include <arm_const_structs.h>
#include <arm_math.h>
#include <stddef.h>

/* Only these lengths: each brings tables of its own into the flash. */
static const arm_cfft_instance_f32 *find_instance(uint32_t points) {
  if (points == 1024u) return &arm_cfft_sR_f32_len1024;
  if (points == 512u) return &arm_cfft_sR_f32_len512;
  return NULL;
}

int edgel3_fft_cmsis(float *data, uint32_t points) {
  const arm_cfft_instance_f32 *instance = find_instance(points);
  if (instance == NULL) return 0;
  arm_cfft_f32(instance, data, 0, 1);
  return 1;
}

#endif /* EDGEL3_USE_CMSIS_DSP */
