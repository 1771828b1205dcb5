/* The complex Fourier transform of CMSIS-DSP. CMSIS-DSP's real transform, arm_rfft_fast_f32, adds a
 * last step to it that needs a second buffer; edgel3_fft_real does that step in place.
 */
#include "edgel3_fft.h"

#ifdef EDGEL3_USE_CMSIS_DSP

#include <arm_const_structs.h>
#include <arm_math.h>
#include <stddef.h>

/* Only these lengths, because each has tables of its own in the flash. */
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
