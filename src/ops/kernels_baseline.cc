#define GOV_ISA baseline
#include "ops/kernels/simd_baseline.h"
// The instruction set's vectors first, then the kernels written on them.
#include "ops/kernels/table.h"
