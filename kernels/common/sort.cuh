// sort.cuh — what is sorted: items of an order-preserving key and an index, so that every item differs and ties go to the lower
// index.
//
// order_key(x)   an unsigned number of x's width that grows with x; -0 and 0 are equal
// Key<T>::type   its type, u32 (also for narrower elements) or u64
// WIDE           define of the including file: 0 = keys of 32 bits, an item is one u64 · 1 = keys of 64 bits, an item is two u64
// Item           make_item(key, index) · index_of(item) · key_of(item) · before(a, b) · LAST: behind every item
// sort_step(s, i, size, stride)   one exchange of a bitonic sort of items or of anything with `before`
#pragma once
#include "common/types.cuh"

#ifndef WIDE
#error "WIDE (0: 32-bit keys, 1: 64-bit keys) is not defined"
#endif

template <int BYTES> struct KeyOf { typedef u32 type; };
template <> struct KeyOf<8> { typedef u64 type; };
template <class T> struct Key { typedef typename KeyOf<sizeof(T)>::type type; };

DEVICE u32 float_key(u32 bits, u32 sign) { return (bits & ~sign) == 0 ? sign : bits & sign ? ~bits & (2 * sign - 1) : bits | sign; }
DEVICE u32 order_key(float x) { return float_key(__float_as_uint(x), 0x80000000u); }
DEVICE u32 order_key(f16 x) { return float_key(x.bits, 0x8000u); }
DEVICE u32 order_key(bf16 x) { return float_key(x.bits, 0x8000u); }
DEVICE u64 order_key(double x)
{
    const u64 bits = (u64)__double_as_longlong(x), sign = (u64)1 << 63;
    return (bits & ~sign) == 0 ? sign : bits & sign ? ~bits : bits | sign;
}
DEVICE u32 order_key(bool x) { return x; }
DEVICE u32 order_key(u8 x) { return x; }
DEVICE u32 order_key(u16 x) { return x; }
DEVICE u32 order_key(u32 x) { return x; }
DEVICE u64 order_key(u64 x) { return x; }
DEVICE u32 order_key(i8 x) { return (u32)(u8)x ^ 0x80u; }
DEVICE u32 order_key(i16 x) { return (u32)(u16)x ^ 0x8000u; }
DEVICE u32 order_key(i32 x) { return (u32)x ^ 0x80000000u; }
DEVICE u64 order_key(i64 x) { return (u64)x ^ (u64)1 << 63; }

#if WIDE
struct Item
{
    u64 key, index;
};
DEVICE Item make_item(u64 key, u32 index) { return Item{key, index}; }
DEVICE u32 index_of(const Item& a) { return (u32)a.index; }
DEVICE u64 key_of(const Item& a) { return a.key; }
DEVICE bool before(const Item& a, const Item& b) { return a.key < b.key || (a.key == b.key && a.index < b.index); }
#define LAST (Item{~(u64)0, ~(u64)0})
#else
typedef u64 Item;
DEVICE Item make_item(u32 key, u32 index) { return (u64)key << 32 | index; }
DEVICE u32 index_of(Item a) { return (u32)a; }
DEVICE u32 key_of(Item a) { return (u32)(a >> 32); }
DEVICE bool before(Item a, Item b) { return a < b; }
#define LAST (~(u64)0)
#endif

// Exchange i (of n/2) of the step (size, stride) over a power of two of items.
template <class S> DEVICE void sort_step(S* s, i64 i, i64 size, i64 stride)
{
    const i64 a = 2 * i - (i & (stride - 1)), b = a + stride;
    const bool up = (a & size) == 0;
    const S x = s[a], y = s[b];
    if (before(y, x) == up) {
        s[a] = y;
        s[b] = x;
    }
}

// Sorts n items, a power of two, by one block; begins and ends with a barrier.
template <int THREADS_, class S> DEVICE void block_sort(S* s, i64 n)
{
    __syncthreads();  // orders the items before they are exchanged
    for (i64 size = 2; size <= n; size <<= 1)
        for (i64 stride = size / 2; stride > 0; stride >>= 1) {
            for (i64 i = threadIdx.x; i < n / 2; i += THREADS_) sort_step(s, i, size, stride);
            __syncthreads();  // orders one step before the next
        }
}
