#define GOV_ISA avx2
#include "ops/kernels/simd_avx2.h"
// The instruction set's vectors first, then the kernels written on them.
#include "ops/kernels/table.h"
