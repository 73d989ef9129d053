// linear_attention.cu — linear attention:  S = exp(g) S + k (x) u,  y = scale S^T q,  u = v or beta (v - S^T k)
// Args     q, k, v: T_X [batch, length, heads * size] · past: T_STATE [batch, kv_heads, key, value] or null · decay, beta: T_X
//          or null · y: T_X [batch, length, out_heads * value] · state: T_STATE as past · work: T_ACC [columns, key] ·
//          p: Linear, by value · scale: T_ACC
// Params   T_X, T_STATE {float,f16,bf16,double} · T_ACC {float,double} · WARPS {4}
// Requires nothing more; any sizes
// Launch   grid = ceil(batch * kv_heads * value / WARPS) · block = 32 * WARPS · smem = 0
// Numerics states and sums in T_ACC
// Notes    a column of the state depends on no other one: a warp keeps one in `work`, each lane its own keys of it
#if !defined(T_X) || !defined(T_STATE) || !defined(T_ACC) || !defined(WARPS)
#error "T_X, T_STATE, T_ACC or WARPS is not defined"
#endif
#include "common/math.cuh"
#include "common/reduce.cuh"

struct Linear
{
    i64 columns, length, q_heads, kv_heads, key, value;
    i64 decay, beta;      // numbers a head and numbers a place; 0 is none
    i64 per_kv, per_q;    // heads of the output that share one of k and v, and one of q
};

extern "C" __global__ void __launch_bounds__(32 * WARPS)
KERNEL_NAME(const T_X* q, const T_X* k, const T_X* v, const T_STATE* past, const T_X* decay, const T_X* beta, T_X* y,
            T_STATE* state, T_ACC* work, const Linear p, const T_ACC scale)
{
    griddepcontrol_wait();
    const int lane = threadIdx.x % 32;
    const i64 column = (i64)blockIdx.x * WARPS + threadIdx.x / 32;
    if (column >= p.columns) return;
    const i64 m = column % p.value, unit = column / p.value, h = unit % p.kv_heads, b = unit / p.kv_heads;
    T_ACC* s = work + column * p.key;
    for (i64 i = lane; i < p.key; i += 32) s[i] = past ? to_acc<T_ACC>(past[(unit * p.key + i) * p.value + m]) : (T_ACC)0;
    for (i64 t = 0; t < p.length; t++) {
        const i64 place = b * p.length + t, head = place * p.kv_heads + h;
        const T_X* kt = k + head * p.key;
        T_ACC read = 0;
        for (i64 i = lane; i < p.key; i += 32) {
            if (p.decay) s[i] *= op::exp(to_acc<T_ACC>(decay[head * p.decay + (p.decay == 1 ? 0 : i)]));
            if (p.beta) read += s[i] * to_acc<T_ACC>(kt[i]);
        }
        T_ACC u = to_acc<T_ACC>(v[head * p.value + m]);
        if (p.beta) u = to_acc<T_ACC>(beta[place * p.beta + (p.beta == 1 ? 0 : h)]) * (u - warp_combine(read, Sum()));
        for (i64 i = lane; i < p.key; i += 32) s[i] += to_acc<T_ACC>(kt[i]) * u;
        for (i64 o = h * p.per_kv; o < (h + 1) * p.per_kv; o++) {
            const T_X* qt = q + (place * p.q_heads + o / p.per_q) * p.key;
            T_ACC sum = 0;
            for (i64 i = lane; i < p.key; i += 32) sum += to_acc<T_ACC>(qt[i]) * s[i];
            sum = warp_combine(sum, Sum());
            if (lane == 0) y[(place * p.kv_heads * p.per_kv + o) * p.value + m] = from_acc<T_X>(scale * sum);
        }
    }
    for (i64 i = lane; i < p.key; i += 32) state[(unit * p.key + i) * p.value + m] = from_acc<T_STATE>(s[i]);
}
