// tuple.cuh — index tuples of GatherND and ScatterND, and the slice of a dense tensor that each names.
//
// Tuple    64-bit struct of 20: size[8], stride[8] of the indexed axes · k (indices of a tuple) · per_batch (tuples of one
//          batch) · batch (units between batches of the tensor) · inner (units of a slice).
#pragma once
#include "common/types.cuh"

struct Tuple
{
    i64 size[8], stride[8];
    i64 k, per_batch, batch, inner;
};

// Where the slice of tuple `row` begins. A negative index counts from the end; `inside` tells whether all were in range, and
// those that were not are clamped.
template <class T> DEVICE i64 slice_of(const T* index, i64 row, const Tuple& t, bool& inside)
{
    i64 offset = row / t.per_batch * t.batch;
    inside = true;
    for (i64 j = 0; j < t.k; j++) {
        i64 i = (i64)index[row * t.k + j];
        i += i < 0 ? t.size[j] : 0;
        const i64 c = i < 0 ? 0 : i >= t.size[j] ? t.size[j] - 1 : i;
        inside = inside && c == i;
        offset += c * t.stride[j];
    }
    return offset;
}
