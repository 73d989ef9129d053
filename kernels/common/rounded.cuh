// rounded.cuh — arithmetic whose every step rounds: no product is fused into a sum, so that coordinates fall as on the host.
//
// mul_rn add_rn sub_rn div_rn   float and double
// within(x, lo, hi)             clamps; NaN becomes lo
#pragma once
#include "common/types.cuh"

DEVICE float mul_rn(float a, float b) { return __fmul_rn(a, b); }
DEVICE double mul_rn(double a, double b) { return __dmul_rn(a, b); }
DEVICE float add_rn(float a, float b) { return __fadd_rn(a, b); }
DEVICE double add_rn(double a, double b) { return __dadd_rn(a, b); }
DEVICE float sub_rn(float a, float b) { return __fadd_rn(a, -b); }
DEVICE double sub_rn(double a, double b) { return __dadd_rn(a, -b); }
DEVICE float div_rn(float a, float b) { return __fdiv_rn(a, b); }
DEVICE double div_rn(double a, double b) { return __ddiv_rn(a, b); }
template <class T> DEVICE T within(T x, T lo, T hi) { return x > hi ? hi : x >= lo ? x : lo; }
