// combine.cuh — how a scatter joins an update with what it finds, with and without atomics.
//
// COMBINE  define of the including file: 0 none (the update replaces) · 1 add · 2 mul · 3 max · 4 min. NaN wins in max and min.
// join(a, b)             the joined element; f16 and bf16 are computed in float and rounded once
// atomic_join(p, b)      *p = join(*p, b) as one step; 8 and 16 bit elements change the aligned word around them, which must lie
//                        in the same allocation
#pragma once
#include "common/math.cuh"
#include "common/types.cuh"

#ifndef COMBINE
#error "COMBINE is not defined"
#endif

template <class T> DEVICE T join(T a, T b)
{
#if COMBINE == 0
    return b;
#else
    typedef typename Compute<T>::type C;
    const C x = to_compute(a), y = to_compute(b);
#if COMBINE == 1
    return from_compute<T>(op::add(x, y));
#elif COMBINE == 2
    return from_compute<T>(op::mul(x, y));
#elif COMBINE == 3
    return from_compute<T>(op::max(x, y));
#else
    return from_compute<T>(op::min(x, y));
#endif
#endif
}

template <int BYTES> struct Word { typedef u32 type; };
template <> struct Word<8> { typedef u64 type; };

template <class T> DEVICE void atomic_join(T* p, T b)
{
#if COMBINE == 0
    *p = b;
#else
    typedef typename Word<sizeof(T)>::type W;
    constexpr int N = (int)(sizeof(W) / sizeof(T));
    W* word = (W*)((u64)p & ~(u64)(sizeof(W) - 1));
    const int lane = (int)(((u64)p & (u64)(sizeof(W) - 1)) / sizeof(T));
    union Bits
    {
        W w;
        T t[N];
    };
    Bits old, fresh;
    old.w = *(volatile W*)word;
    while (true) {
        fresh.w = old.w;
        fresh.t[lane] = join(old.t[lane], b);
        const W seen = atomicCAS(word, old.w, fresh.w);
        if (seen == old.w) return;
        old.w = seen;
    }
#endif
}
