#define GOV_ISA avx512
#include "ops/kernels/simd_avx512.h"
// The instruction set's vectors first, then the kernels written on them.
#include "ops/kernels/table.h"
