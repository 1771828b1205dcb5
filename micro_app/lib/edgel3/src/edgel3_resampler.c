/* The filter is a table of 32 phases; values between two phases are interpolated linearly. */
#include "edgel3_resampler.h"

#include <string.h>

#define HALF (EDGEL3_RESAMPLER_TAPS / 2u)
#define PHASES 32u
#define TABLE_BITS 14
/* Largest sum of the absolute values of one phase. With inputs of 16 bits, a sum fits in 32 bits. */
#define MAX_GAIN 39854

/* Right half of the filter: round(2^14 sinc(t) kaiser(t)) for t = 0, 1/32, ..., 16 inputs, where
 * kaiser is the Kaiser window of 32 inputs with beta = 7.
 */
static const int16_t table[HALF * PHASES + 1u] = {
    16384, 16357, 16278, 16146, 15963, 15729, 15446, 15115, 14739, 14320, 13859, 13360, 12826,
    12259, 11663, 11041, 10397, 9735,  9057,  8368,  7671,  6970,  6270,  5572,  4882,  4202,
    3536,  2888,  2259,  1653,  1073,  521,   0,     -489,  -944,  -1363, -1746, -2090, -2397,
    -2664, -2892, -3082, -3232, -3345, -3421, -3461, -3466, -3438, -3379, -3290, -3174, -3032,
    -2867, -2682, -2478, -2259, -2027, -1784, -1533, -1277, -1018, -758,  -501,  -247,  0,
    239,   467,   684,   887,   1075,  1246,  1401,  1537,  1654,  1752,  1830,  1888,  1927,
    1946,  1945,  1927,  1890,  1836,  1766,  1681,  1583,  1472,  1350,  1218,  1078,  931,
    780,   625,   468,   310,   154,   0,     -150,  -295,  -433,  -564,  -686,  -798,  -900,
    -991,  -1071, -1138, -1192, -1234, -1263, -1279, -1283, -1274, -1253, -1220, -1177, -1123,
    -1060, -988,  -908,  -821,  -728,  -631,  -529,  -425,  -319,  -212,  -105,  0,     103,
    203,   298,   389,   474,   552,   624,   688,   744,   791,   830,   861,   882,   894,
    898,   893,   879,   857,   827,   790,   747,   697,   641,   580,   515,   446,   375,
    301,   226,   150,   75,    0,     -73,   -144,  -212,  -277,  -338,  -394,  -445,  -491,
    -531,  -566,  -594,  -616,  -631,  -640,  -643,  -640,  -630,  -615,  -593,  -567,  -536,
    -500,  -460,  -417,  -370,  -321,  -269,  -216,  -162,  -108,  -54,   0,     53,    104,
    153,   199,   243,   283,   320,   353,   382,   407,   427,   443,   454,   461,   462,
    460,   453,   442,   427,   408,   385,   359,   330,   299,   266,   230,   193,   155,
    117,   78,    39,    0,     -38,   -74,   -109,  -143,  -174,  -203,  -229,  -253,  -273,
    -291,  -305,  -316,  -324,  -329,  -330,  -328,  -323,  -315,  -304,  -290,  -274,  -255,
    -235,  -213,  -189,  -163,  -137,  -110,  -83,   -55,   -27,   0,     27,    52,    77,
    101,   123,   143,   161,   178,   192,   204,   214,   222,   227,   230,   231,   230,
    226,   220,   212,   203,   191,   178,   164,   148,   131,   114,   95,    76,    57,
    38,    19,    0,     -18,   -36,   -53,   -69,   -85,   -98,   -111,  -122,  -132,  -140,
    -147,  -152,  -156,  -158,  -158,  -157,  -154,  -150,  -144,  -138,  -130,  -121,  -111,
    -100,  -89,   -77,   -64,   -52,   -39,   -26,   -13,   0,     12,    24,    36,    46,
    56,    66,    74,    81,    88,    93,    98,    101,   103,   104,   104,   103,   101,
    99,    95,    90,    85,    79,    72,    65,    58,    50,    42,    33,    25,    17,
    8,     0,     -8,    -16,   -23,   -30,   -36,   -42,   -47,   -52,   -56,   -59,   -62,
    -64,   -65,   -66,   -66,   -65,   -64,   -62,   -59,   -57,   -53,   -49,   -45,   -41,
    -36,   -31,   -26,   -21,   -15,   -10,   -5,    0,     5,     10,    14,    18,    22,
    25,    29,    31,    34,    36,    37,    38,    39,    39,    39,    39,    38,    37,
    35,    33,    31,    29,    26,    24,    21,    18,    15,    12,    9,     6,     3,
    0,     -3,    -5,    -8,    -10,   -12,   -14,   -16,   -17,   -19,   -20,   -21,   -21,
    -21,   -21,   -21,   -21,   -20,   -20,   -19,   -18,   -17,   -15,   -14,   -13,   -11,
    -9,    -8,    -6,    -5,    -3,    -1,    0,     1,     3,     4,     5,     6,     7,
    8,     9,     9,     10,    10,    10,    10,    10,    10,    10,    10,    9,     9,
    8,     8,     7,     6,     6,     5,     4,     4,     3,     2,     1,     1,     0,
    -1,    -1,    -2,    -2,    -3,    -3,    -3,    -4,    -4,    -4,    -4,    -4,    -4,
    -4,    -4,    -4,    -4,    -3,    -3,    -3,    -3,    -3,    -2,    -2,    -2,    -1,
    -1,    -1,    -1,    0,     0,     0};

void edgel3_resampler_begin(edgel3_resampler *resampler, uint32_t from_hz, uint32_t to_hz) {
  memset(resampler, 0, sizeof *resampler);
  resampler->step = (((uint64_t)from_hz << 32) + to_hz / 2u) / to_hz;
}

/* Compute the output at `position` (Q32) after inputs[HALF - 1]. */
static int16_t interpolate(const int16_t *inputs, uint32_t position) {
  const uint32_t phase = position >> 27;
  const int32_t weight = (int32_t)(position >> 12 & 0x7fffu); /* of the next phase, Q15 */
  const int16_t *before = table + phase;
  const int16_t *after = table + PHASES - phase;
  int32_t sum_at_phase = 0;
  int32_t sum_at_next = 0;
  for (uint32_t i = 0; i < HALF; ++i, before += PHASES, after += PHASES) {
    const int32_t earlier = inputs[HALF - 1u - i];
    const int32_t later = inputs[HALF + i];
    sum_at_phase += before[0] * earlier + after[0] * later;
    sum_at_next += before[1] * earlier + after[-1] * later;
  }
  const int64_t sum = (int64_t)sum_at_phase * (32768 - weight) + (int64_t)sum_at_next * weight;
  /* C leaves the shift of a negative number to the compiler: add an offset that makes it positive. */
  const int64_t unit = (int64_t)1 << (TABLE_BITS + 15);
  const uint64_t shifted = (uint64_t)(sum + unit / 2 + 2 * MAX_GAIN * unit) >> (TABLE_BITS + 15);
  const int32_t value = (int32_t)shifted - 2 * MAX_GAIN;
  if (value > INT16_MAX) return INT16_MAX;
  if (value < INT16_MIN) return INT16_MIN;
  return (int16_t)value;
}

uint32_t edgel3_resampler_run(edgel3_resampler *resampler, const int16_t *inputs, uint32_t count,
                              int16_t *outputs) {
  uint32_t written = 0;
  for (uint32_t i = 0; i < count; ++i) {
    resampler->line[resampler->next] = inputs[i];
    resampler->line[resampler->next + EDGEL3_RESAMPLER_TAPS] = inputs[i];
    resampler->next = (resampler->next + 1u) % EDGEL3_RESAMPLER_TAPS;
    for (; resampler->position < (uint64_t)1 << 32; resampler->position += resampler->step) {
      outputs[written++] =
          interpolate(resampler->line + resampler->next, (uint32_t)resampler->position);
    }
    resampler->position -= (uint64_t)1 << 32;
  }
  return written;
}
