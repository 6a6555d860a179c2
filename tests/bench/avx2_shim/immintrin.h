// Lets a program written for AVX-512 run on AVX2: each vector of 16 floats is two of 8. Only what kernel_limit.c uses.
#pragma once
#include_next <immintrin.h>

typedef struct { __m256 low, high; } shim_m512;
#define SHIM static inline __attribute__((always_inline))

SHIM shim_m512 shim_set1(float x) { return (shim_m512){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
SHIM shim_m512 shim_setzero(void) { return shim_set1(0); }
SHIM shim_m512 shim_load(const float *p) { return (shim_m512){_mm256_load_ps(p), _mm256_load_ps(p + 8)}; }
SHIM void shim_store(float *p, shim_m512 x) { _mm256_store_ps(p, x.low), _mm256_store_ps(p + 8, x.high); }
SHIM shim_m512 shim_fmadd(shim_m512 x, shim_m512 y, shim_m512 z) {
  return (shim_m512){_mm256_fmadd_ps(x.low, y.low, z.low), _mm256_fmadd_ps(x.high, y.high, z.high)};
}
SHIM shim_m512 shim_min(shim_m512 x, shim_m512 y) {
  return (shim_m512){_mm256_min_ps(x.low, y.low), _mm256_min_ps(x.high, y.high)};
}
SHIM shim_m512 shim_max(shim_m512 x, shim_m512 y) {
  return (shim_m512){_mm256_max_ps(x.low, y.low), _mm256_max_ps(x.high, y.high)};
}

#define __m512 shim_m512
#define _mm512_set1_ps shim_set1
#define _mm512_setzero_ps shim_setzero
#define _mm512_load_ps shim_load
#define _mm512_store_ps shim_store
#define _mm512_fmadd_ps shim_fmadd
#define _mm512_min_ps shim_min
#define _mm512_max_ps shim_max
