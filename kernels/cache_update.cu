// cache_update.cu — rows written into a cache:  out[b, h, t] = past[b, h, t] before start[b], then new[b, h, t - start[b]]
// Args     past: T_UNIT [batch, heads, n_past, row] or null · fresh: T_UNIT, rows through strides · start: T_START [batch] or [1] ·
//          out: T_UNIT [batch, heads, n_out, row] · p: Update, by value; row counted in T_UNIT
// Params   T_UNIT {u8,u16,u32,u64,uint4}: what one thread moves (host takes the widest that divides a row) ·
//          T_START {i32,i64} · THREADS {128,256}
// Requires nothing more; out may be past
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
// Notes    rows behind the new ones are zeros
#if !defined(T_UNIT) || !defined(T_START) || !defined(THREADS)
#error "T_UNIT, T_START or THREADS is not defined"
#endif
#include "common/types.cuh"

struct Update
{
    i64 n, heads, n_past, n_new, n_out, row;
    i64 new_b, new_h, new_s;  // rows between batch entries, heads and places of the new part
    i64 one_start;            // one for all batch entries
};

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_UNIT* past, const T_UNIT* fresh, const T_START* start, T_UNIT* out, const Update p)
{
    griddepcontrol_wait();
    for (i64 i = (i64)blockIdx.x * THREADS + threadIdx.x; i < p.n; i += (i64)gridDim.x * THREADS) {
        const i64 c = i % p.row, t = i / p.row % p.n_out, u = i / p.row / p.n_out;
        const i64 b = u / p.heads, h = u % p.heads, at = t - (i64)start[p.one_start ? 0 : b];
        T_UNIT value = {};
        if (at < 0) {
            if (t < p.n_past) value = past[(u * p.n_past + t) * p.row + c];
        } else if (at < p.n_new) {
            value = fresh[(b * p.new_b + h * p.new_h + at * p.new_s) * p.row + c];
        }
        out[i] = value;
    }
}
