// topk.cu — the k best elements of each row, best first; of equal ones the lower index
// Args     x: T_DATA [outer, length, inner] · items: Item [rows, pad], used where SHARED is 0 · y: T_DATA [outer, k, inner] · index:
//          i64, as y · length, inner, k, pad: i64 · direct: i64, 1 = all elements of a row fit in pad and are sorted
// Params   T_DATA {any element type} · WIDE (common/sort.cuh) · LARGEST {0,1} · SHARED {1: sorted here, in pad items of dynamic
//          shared memory; 0: the k best are left in `items`, in no order, for sort_step.cu and topk_write.cu} · THREADS {32,256,1024}
// Requires k >= 1, length < 2^32 - 1, pad a power of two that is at least k (direct: length)
// Launch   grid = rows · block = THREADS · smem = SHARED ? pad * sizeof(Item) : 0
// Numerics exact; NaN is behind every number in either direction
// Notes    the key of the k-th element is found digit by digit (radix select), then all up to it are collected
#if !defined(T_DATA) || !defined(LARGEST) || !defined(SHARED) || !defined(THREADS)
#error "T_DATA, LARGEST, SHARED or THREADS is not defined"
#endif
#include "common/scan.cuh"
#include "common/sort.cuh"

typedef Key<T_DATA>::type K;
constexpr int BITS = 8 * (int)sizeof(T_DATA);

// Small keys are better.
DEVICE K rank_key(T_DATA x)
{
    const auto c = to_compute(x);
    if (c != c) return (K)~(K)0 >> (8 * (int)sizeof(K) - BITS);
    const K key = order_key(x);
    return LARGEST ? (K)(~key & ((K)~(K)0 >> (8 * (int)sizeof(K) - BITS))) : key;
}

struct Plus { DEVICE u32 operator()(u32 a, u32 b) const { return a + b; } };

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_DATA* x, void* items, T_DATA* y, i64* index, const i64 length, const i64 inner, const i64 k, const i64 pad, const i64 direct)
{
    griddepcontrol_wait();
    extern __shared__ uint4 s_memory[];
    __shared__ u32 s_bins[256];
    __shared__ u32 s_scratch[THREADS / 32];
    __shared__ u32 s_digit, s_below, s_taken;
    const i64 row = blockIdx.x, o = row / inner, base = o * length * inner + (row - o * inner);
    Item* out = SHARED ? (Item*)s_memory : (Item*)items + row * pad;
    if (direct) {
        for (i64 j = threadIdx.x; j < pad; j += THREADS)
            out[j] = j < length ? make_item(rank_key(x[base + j * inner]), (u32)j) : LAST;
    } else {
        K prefix = 0, mask = 0;
        u32 need = (u32)k;
        for (int shift = BITS - 8; shift >= 0; shift -= 8) {
            for (int b = threadIdx.x; b < 256; b += THREADS) s_bins[b] = 0;
            __syncthreads();  // orders the zeros before the counts
            for (i64 j = threadIdx.x; j < length; j += THREADS) {
                const K key = rank_key(x[base + j * inner]);
                if ((key & mask) == prefix) atomicAdd(&s_bins[(u32)(key >> shift) & 255u], 1u);
            }
            __syncthreads();  // orders the counts before they are read
            if (threadIdx.x < 32) {
                u32 sum = 0;
                for (int b = 0; b < 8; b++) sum += s_bins[threadIdx.x * 8 + b];
                u32 upto = sum;
                for (int delta = 1; delta < 32; delta <<= 1) {
                    const u32 before_it = __shfl_up_sync(0xffffffffu, upto, delta);
                    if ((int)threadIdx.x >= delta) upto += before_it;
                }
                if (upto >= need && upto - sum < need) {
                    u32 below = upto - sum;
                    int b = threadIdx.x * 8;
                    while (below + s_bins[b] < need) below += s_bins[b++];
                    s_digit = b;
                    s_below = below;
                }
            }
            __syncthreads();  // orders the digit before all read it
            prefix |= (K)s_digit << shift;
            mask |= (K)255 << shift;
            need -= s_below;
        }
        // All keys below the prefix, and the first `need` that equal it.
        if (threadIdx.x == 0) s_taken = 0;
        u32 equal_before = 0;
        for (i64 first = 0; first < length; first += THREADS) {
            const i64 j = first + threadIdx.x;
            const K key = j < length ? rank_key(x[base + j * inner]) : 0;
            const bool equal = j < length && key == prefix;
            u32 total;
            const u32 rank = equal_before + block_scan<THREADS>((u32)equal, 0u, Plus(), s_scratch, total);
            if (j < length && (key < prefix || (equal && rank <= need)))
                out[atomicAdd(&s_taken, 1u)] = make_item(key, (u32)j);
            equal_before += total;
        }
        for (i64 j = k + threadIdx.x; j < pad; j += THREADS) out[j] = LAST;
    }
#if SHARED
    block_sort<THREADS>(out, pad);
    for (i64 j = threadIdx.x; j < k; j += THREADS) {
        const i64 from = index_of(out[j]), to = (o * k + j) * inner + (row - o * inner);
        y[to] = x[base + from * inner];
        index[to] = from;
    }
#endif
}
