// slices.cuh — comparison of slices x[:, j, :] of a tensor [outer, n, inner], element by element.
//
// compare(a, b)   negative, zero or positive; positions at or beyond n are behind all others
// before(a, b)    order of the slices, ties by position
#pragma once
#include "common/sort.cuh"

template <class T> struct Slices
{
    const T* x;
    i64 outer, n, inner;

    DEVICE static typename Key<T>::type key(T v)
    {
        const auto c = to_compute(v);
        return c != c ? ~(typename Key<T>::type)0 : order_key(v);
    }

    DEVICE int compare(i64 a, i64 b) const
    {
        for (i64 o = 0; o < outer; o++)
            for (i64 i = 0; i < inner; i++) {
                const auto p = key(x[(o * n + a) * inner + i]), q = key(x[(o * n + b) * inner + i]);
                if (p != q) return p < q ? -1 : 1;
            }
        return 0;
    }

    DEVICE bool before(i64 a, i64 b) const
    {
        if (a >= n || b >= n) return a < b;
        const int c = compare(a, b);
        return c < 0 || (c == 0 && a < b);
    }

    DEVICE void sort_step(i32* order, i64 i, i64 size, i64 stride) const
    {
        const i64 a = 2 * i - (i & (stride - 1)), b = a + stride;
        const i32 p = order[a], q = order[b];
        if (before(q, p) == ((a & size) == 0)) {
            order[a] = q;
            order[b] = p;
        }
    }
};
