#pragma once
// swiglu in registers, forward and backward, with accurate exponentials.

#include "ops/cuda/support.cuh"

namespace gov::ops::cuda {

struct SwigluSlopes {
  float value, gate, up;  // a, da/dgate, da/dup
};

// Where a clamp holds, its derivative is 0; at the limit itself it does not hold. NaN stays NaN.
__device__ inline SwigluSlopes swiglu_slopes(float gate, float up, float alpha, float limit) {
  const float g = gate > limit ? limit : gate, u = up > limit ? limit : up < -limit ? -limit : up;
  const float s = 1.f / (1.f + expf(-alpha * g));
  const float gs = g * s;  // far below, s is 0 and so is gs
  SwigluSlopes y;
  y.value = (u + 1.f) * gs;
  y.gate = gate > limit ? 0.f : (u + 1.f) * fmaf(alpha * gs, 1.f - s, s);
  y.up = up > limit || up < -limit ? 0.f : gs;
  return y;
}

}  // namespace gov::ops::cuda
