/* The portable Fourier transform: radix 4, with all twiddle factors from a table. It computes the
 * same bytes on every processor.
 */
#include "edgel3_fft.h"
/* must be the last include */
#include "edgel3_contraction.h"

typedef struct complex_value {
  float re;
  float im;
} complex_value;

static inline complex_value add(complex_value a, complex_value b) {
  const complex_value sum = {a.re + b.re, a.im + b.im};
  return sum;
}

static inline complex_value subtract(complex_value a, complex_value b) {
  const complex_value difference = {a.re - b.re, a.im - b.im};
  return difference;
}

static inline complex_value multiply(complex_value a, complex_value b) {
  const complex_value product = {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
  return product;
}

/* Twiddle factor exp(-2 pi i turn / (4 quarter)); turn is less than 3 quarter. */
static inline complex_value factor(const float *cosines, uint32_t quarter, uint32_t turn) {
  complex_value value;
  if (turn <= quarter) {
    value.re = cosines[turn];
    value.im = -cosines[quarter - turn];
  } else if (turn <= 2u * quarter) {
    value.re = -cosines[2u * quarter - turn];
    value.im = -cosines[turn - quarter];
  } else {
    value.re = -cosines[turn - 2u * quarter];
    value.im = cosines[3u * quarter - turn];
  }
  return value;
}

/* Move each value to the position whose index has the bits of its own in reverse order. */
static void reverse_order(complex_value *values, uint32_t points) {
  uint32_t reversed = 0;
  for (uint32_t i = 0; i < points; ++i) {
    if (i < reversed) {
      const complex_value value = values[i];
      values[i] = values[reversed];
      values[reversed] = value;
    }
    uint32_t bit = points >> 1;
    for (; reversed & bit; bit >>= 1) reversed ^= bit;
    reversed |= bit;
  }
}

/* Compute spectra of 2 points from pairs of values, in place. */
static void combine_pairs(complex_value *values, uint32_t points) {
  for (uint32_t i = 0; i < points; i += 2u) {
    const complex_value even = values[i];
    const complex_value odd = values[i + 1u];
    values[i] = add(even, odd);
    values[i + 1u] = subtract(even, odd);
  }
}

/* Radix-4 butterfly. The order is bit-reversed: the spectrum of the samples 4n + 2 comes before
 * that of the samples 4n + 1.
 */
static inline void combine_four(complex_value *value, uint32_t span, complex_value second,
                                complex_value first, complex_value third) {
  const complex_value even_sum = add(value[0], second);
  const complex_value even_difference = subtract(value[0], second);
  const complex_value odd_sum = add(first, third);
  const complex_value odd_difference = subtract(first, third);
  const complex_value turned = {odd_difference.im, -odd_difference.re};
  value[0] = add(even_sum, odd_sum);
  value[span] = add(even_difference, turned);
  value[2u * span] = subtract(even_sum, odd_sum);
  value[3u * span] = subtract(even_difference, turned);
}

/* Combine each four spectra of `span` points into one spectrum of 4 span points, in place. */
static void combine_fours(complex_value *values, uint32_t points, uint32_t span,
                          const float *cosines, uint32_t quarter) {
  const uint32_t step = quarter / span;
  for (complex_value *value = values; value < values + points; value += 4u * span) {
    combine_four(value, span, value[span], value[2u * span], value[3u * span]);
  }
  /* The loop inside ends at an address up to `span` values after the last one, which it only compares:
   * Frama-C's alarm about that is accepted. */
  for (uint32_t k = 1; k < span; ++k) {
    const complex_value once = factor(cosines, quarter, k * step);
    const complex_value twice = factor(cosines, quarter, 2u * k * step);
    const complex_value thrice = factor(cosines, quarter, 3u * k * step);
    for (complex_value *value = values + k; value < values + points; value += 4u * span) {
      combine_four(value, span, multiply(value[span], twice), multiply(value[2u * span], once),
                   multiply(value[3u * span], thrice));
    }
  }
}

static void transform(complex_value *values, uint32_t points, const float *cosines,
                      uint32_t quarter) {
  uint32_t span = 1;
  reverse_order(values, points);
  /* The mask contains all powers of four. Other powers of two need one radix-2 step first. */
  if ((points & 0x55555555u) == 0) {
    combine_pairs(values, points);
    span = 2;
  }
  for (; span < points; span *= 4u) combine_fours(values, points, span, cosines, quarter);
}

void edgel3_fft_real(float *data, uint32_t samples, const float *cosines) {
  const uint32_t points = samples / 2u;
  const uint32_t quarter = samples / 4u;
  complex_value *values = (complex_value *)(void *)data;
#ifdef EDGEL3_USE_CMSIS_DSP
  if (!edgel3_fft_cmsis(data, points))
#endif
    transform(values, points, cosines, quarter);
  /* The transform took even samples as real parts and odd samples as imaginary parts. Separate
   * their two spectra and combine them by a last radix-2 step. */
  values[points] = values[0];
  for (uint32_t k = 0; k <= quarter; ++k) {
    const complex_value a = values[k];
    const complex_value b = values[points - k];
    const complex_value even = {0.5f * (a.re + b.re), 0.5f * (a.im - b.im)};
    const complex_value odd = {0.5f * (a.im + b.im), 0.5f * (b.re - a.re)};
    const complex_value shifted = multiply(odd, factor(cosines, quarter, k));
    const complex_value mirrored = subtract(even, shifted);
    values[points - k].re = mirrored.re;
    values[points - k].im = -mirrored.im;
    values[k] = add(even, shifted);
  }
}
