// recurrent.cu — the loop over time of RNN, GRU and LSTM layers:  h[t] = cell(x[t] + h[t-1] R, h[t-1], c[t-1])
// Args     x: T_IN [seq, batch, dirs, gates, hidden] by strides · r: T_IN [dirs, hidden, gates, hidden] · rbias: T_IN [dirs, hidden] or null ·
//          lengths: i32 [batch] or null · h0, c0: T_IN by strides or null · peepholes: T_IN [dirs, 3, hidden] or null · y, y_h, y_c: T_IN
//          (y_c null unless LSTM) · work: accumulator type, 5 states of [dirs, batch, hidden] (STEP): h twice, c, z, r*h ·
//          z: Sizes · f: Floats
// Params   T_IN {float,f16,bf16,double} · CELL {RNN 0, GRU 1, GRU_RESET_AFTER 2, LSTM 3, LSTM_COUPLED 4} · STEP {0: a block does all
//          units of its rows for all steps, 1: a launch is one step, a block does z.units units} · PHASE {0, 1}: with STEP, GRU:
//          gates z and r, then the rest (else 0) · NB {1,2,4,8} rows of the batch per block · VEC {1,2,4,8} columns per load ·
//          FUNC_F0 FUNC_G0 FUNC_H0 FUNC_F1 FUNC_G1 FUNC_H1: activations of both directions, the ACT_ numbers below · CLIP {0,1} · THREADS {64..1024}
// Requires hidden and z.units multiples of VEC, r aligned to VEC elements (host checks) · 1 <= z.splits <= hidden
// Launch   grid = (ceil(batch/NB), ceil(hidden/z.units), dirs) · block = THREADS · smem = accumulators of 3 states [NB, hidden] and
//          of the partial sums [z.splits, NB, gates, z.units]
// Numerics products and states in f32 (double for double) from the first step to the last; fixed order: deterministic
// Notes    y is 0 behind the end of a sequence; the last states of a sequence without steps are 0
#define CELL_RNN 0
#define CELL_GRU 1
#define CELL_GRU_RESET_AFTER 2
#define CELL_LSTM 3
#define CELL_LSTM_COUPLED 4
#define ACT_TANH 0
#define ACT_SIGMOID 1
#define ACT_RELU 2
#define ACT_AFFINE 3
#define ACT_LEAKY_RELU 4
#define ACT_THRESHOLDED_RELU 5
#define ACT_SCALED_TANH 6
#define ACT_HARD_SIGMOID 7
#define ACT_ELU 8
#define ACT_SOFTSIGN 9
#define ACT_SOFTPLUS 10
#if !defined(T_IN) || !defined(CELL) || !defined(STEP) || !defined(PHASE) || !defined(NB) || !defined(VEC) || !defined(THREADS)
#error "T_IN, CELL, STEP, PHASE, NB, VEC or THREADS is not defined"
#endif
#if !defined(FUNC_F0) || !defined(FUNC_G0) || !defined(FUNC_H0) || !defined(FUNC_F1) || !defined(FUNC_G1) || !defined(FUNC_H1) || !defined(CLIP)
#error "FUNC_F0, FUNC_G0, FUNC_H0, FUNC_F1, FUNC_G1, FUNC_H1 or CLIP is not defined"
#endif
#include "common/math.cuh"

#define IS_LSTM (CELL == CELL_LSTM || CELL == CELL_LSTM_COUPLED)
#define GATES (IS_LSTM ? 4 : CELL == CELL_RNN ? 1 : 3)
static_assert(PHASE == 0 || (STEP == 1 && CELL == CELL_GRU), "only a GRU has a second phase");

typedef Acc<T_IN>::type ACC;

struct Sizes
{
    i64 seq, batch, hidden, dirs;
    i64 x_t, x_b;            // strides of x along time and batch; directions follow each other
    i64 y_t, y_b, y_d;       // strides of y
    i64 s_b, s_d;            // strides of the states
    i64 reverse;             // bit d: direction d runs from the end
    i64 units, splits, step; // units per block, parts of the sum over k, which step (STEP)
};

struct Floats
{
    float alpha[6], beta[6]; // of FUNC_F0 FUNC_G0 FUNC_H0 FUNC_F1 FUNC_G1 FUNC_H1
    float clip;
};

template <int KIND> DEVICE ACC act(ACC x, ACC a, ACC b)
{
    if constexpr (KIND == ACT_TANH) return op::tanh(x);
    else if constexpr (KIND == ACT_SIGMOID) return op::sigmoid(x);
    else if constexpr (KIND == ACT_RELU) return op::relu(x);
    else if constexpr (KIND == ACT_AFFINE) return a * x + b;
    else if constexpr (KIND == ACT_LEAKY_RELU) return op::leaky_relu(x, a);
    else if constexpr (KIND == ACT_THRESHOLDED_RELU) return x >= a || x != x ? x : ACC(0);
    else if constexpr (KIND == ACT_SCALED_TANH) return a * op::tanh(b * x);
    else if constexpr (KIND == ACT_HARD_SIGMOID) return op::hard_sigmoid(x, a, b);
    else if constexpr (KIND == ACT_ELU) return op::elu(x, a);
    else if constexpr (KIND == ACT_SOFTSIGN) return op::softsign(x);
    else return op::softplus(x);
}

// The functions F, G, H of this block's direction; what goes into the gates' is clipped.
struct Functions
{
    const Floats& f;
    bool second;

    DEVICE ACC clip(ACC x) const
    {
#if CLIP
        return op::clip(x, ACC(-f.clip), ACC(f.clip));
#else
        return x;
#endif
    }
    template <int K0, int K1> DEVICE ACC apply(ACC x, int at) const
    {
        return second ? act<K1>(x, f.alpha[3 + at], f.beta[3 + at]) : act<K0>(x, f.alpha[at], f.beta[at]);
    }
    DEVICE ACC F(ACC x) const { return apply<FUNC_F0, FUNC_F1>(clip(x), 0); }
    DEVICE ACC G(ACC x) const { return apply<FUNC_G0, FUNC_G1>(clip(x), 1); }
    DEVICE ACC H(ACC x) const { return apply<FUNC_H0, FUNC_H1>(x, 2); }
};

// s_part[0][nb][gate][unit] = sum over k of s_v[nb][k] * r[k][gate][first + unit], for gates gate0 .. gate0 + n_gates.
DEVICE void product(const T_IN* r, const ACC* s_v, ACC* s_part, int gate0, int n_gates, i64 first, const Sizes& z)
{
    const int hidden = (int)z.hidden, units = (int)z.units, splits = (int)z.splits;
    const int left = hidden - (int)first < units ? hidden - (int)first : units;  // units of this block
    const int per_gate = units / VEC, groups = n_gates * per_gate;
    for (int item = threadIdx.x; item < groups * splits; item += THREADS) {
        const int group = item % groups, split = item / groups;
        const int gate = gate0 + group / per_gate, unit = group % per_gate * VEC;
        if (unit >= left) continue;
        ACC sum[NB][VEC];
#pragma unroll
        for (int n = 0; n < NB; n++)
#pragma unroll
            for (int v = 0; v < VEC; v++) sum[n][v] = 0;
        const int k0 = (int)((i64)split * hidden / splits), k1 = (int)((i64)(split + 1) * hidden / splits);
        const T_IN* g_r = r + ((i64)k0 * GATES + gate) * hidden + first + unit;
#pragma unroll 4
        for (int k = k0; k < k1; k++) {
            T_IN w[VEC];
            load_vec<VEC>(w, g_r);
            g_r += (i64)GATES * hidden;
#pragma unroll
            for (int n = 0; n < NB; n++) {
                const ACC h = s_v[n * hidden + k];
#pragma unroll
                for (int v = 0; v < VEC; v++) sum[n][v] += to_acc<ACC>(w[v]) * h;
            }
        }
#pragma unroll
        for (int n = 0; n < NB; n++)
#pragma unroll
            for (int v = 0; v < VEC; v++) s_part[((split * NB + n) * GATES + gate) * units + unit + v] = sum[n][v];
    }
    __syncthreads();  // orders the partial sums before they are added up
    const int row = n_gates * units;
    for (int item = threadIdx.x; item < NB * row; item += THREADS) {
        const int at = (item / row * GATES + gate0) * units + item % row;
        ACC sum = s_part[at];
        for (int s = 1; s < splits; s++) sum += s_part[s * NB * GATES * units + at];
        s_part[at] = sum;
    }
    __syncthreads();  // orders the sums before the cells read them
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, const T_IN* r, const T_IN* rbias, const i32* lengths, const T_IN* h0, const T_IN* c0, const T_IN* peepholes, T_IN* y, T_IN* y_h,
            T_IN* y_c, Acc<T_IN>::type* work, const Sizes z, const Floats f)
{
    griddepcontrol_wait();
    extern __shared__ double s_memory[];
    const int hidden = (int)z.hidden, units = (int)z.units;
    ACC* s_h = (ACC*)s_memory;          // [NB, hidden]
    ACC* s_c = s_h + NB * hidden;       // [NB, hidden]: c of an LSTM, z of a GRU
    ACC* s_rh = s_c + NB * hidden;      // [NB, hidden]: r * h of a GRU
    ACC* s_part = s_rh + NB * hidden;   // [splits, NB, GATES, units]
    const i64 first = (i64)blockIdx.y * units, b0 = (i64)blockIdx.x * NB;
    const int d = blockIdx.z;
    const int left = hidden - (int)first < units ? hidden - (int)first : units;
    const bool reverse = z.reverse >> d & 1;
    const Functions fn{f, d == 1};
    r += (i64)d * hidden * GATES * hidden;
    x += (i64)d * GATES * hidden;

    // Row n of this block: how many steps it has, or -1 outside of the batch.
    auto length_of = [&](int n) -> i64 {
        if (b0 + n >= z.batch) return -1;
        const i64 len = lengths ? (i64)lengths[b0 + n] : z.seq;
        return len < 0 ? 0 : len > z.seq ? z.seq : len;
    };
    auto initial = [&](const T_IN* from, int n, int j) -> ACC {
        return from && b0 + n < z.batch ? to_acc<ACC>(from[(b0 + n) * z.s_b + d * z.s_d + j]) : ACC(0);
    };
    auto state_at = [&](int n, int j) -> i64 { return (d * z.batch + b0 + n) * hidden + j; };

    const i64 begin = STEP ? z.step : 0, end = STEP ? z.step + 1 : z.seq;
#if STEP
    const i64 states = z.dirs * z.batch * hidden;  // accumulators of one state in `work`
    const ACC* g_h = work + (z.step & 1) * states;
    ACC* g_next = work + (~z.step & 1) * states;
    ACC *g_c = work + 2 * states, *g_z = work + 3 * states, *g_rh = work + 4 * states;
#endif
    for (int i = threadIdx.x; i < NB * hidden; i += THREADS) {
        const int n = i / hidden, j = i % hidden;
#if STEP
        const bool inside = b0 + n < z.batch;
        s_h[i] = z.step == 0 ? initial(h0, n, j) : inside ? g_h[state_at(n, j)] : ACC(0);
        if (PHASE == 1) s_rh[i] = inside ? g_rh[state_at(n, j)] : ACC(0);
        if (IS_LSTM) s_c[i] = z.step == 0 ? initial(c0, n, j) : inside ? g_c[state_at(n, j)] : ACC(0);
        if (PHASE == 1) s_c[i] = inside ? g_z[state_at(n, j)] : ACC(0);
#else
        s_h[i] = initial(h0, n, j);
        s_c[i] = initial(c0, n, j);
#endif
    }
    __syncthreads();  // orders the states before the products read them

    for (i64 s = begin; s < end; s++) {
#if CELL == CELL_GRU
        if (PHASE == 0) {
            product(r, s_h, s_part, 0, 2, first, z);
            for (int i = threadIdx.x; i < NB * left; i += THREADS) {
                const int n = i / left, u = i % left, j = (int)first + u;
                const i64 len = length_of(n);
                if (s >= len) continue;
                const T_IN* g_x = x + (reverse ? len - 1 - s : s) * z.x_t + (b0 + n) * z.x_b + j;
                const ACC* part = s_part + n * GATES * units + u;
                const ACC zg = fn.F(to_acc<ACC>(g_x[0]) + part[0]);
                const ACC rh = fn.F(to_acc<ACC>(g_x[hidden]) + part[units]) * s_h[n * hidden + j];
#if STEP
                g_z[state_at(n, j)] = zg;
                g_rh[state_at(n, j)] = rh;
#else
                s_c[n * hidden + j] = zg;
                s_rh[n * hidden + j] = rh;
#endif
            }
            if (STEP) return;
            __syncthreads();  // orders r * h before its product
        }
        product(r, s_rh, s_part, 2, 1, first, z);
#else
        product(r, s_h, s_part, 0, GATES, first, z);
#endif
        for (int i = threadIdx.x; i < NB * left; i += THREADS) {
            const int n = i / left, u = i % left, j = (int)first + u, at = n * hidden + j;
            const i64 len = length_of(n);
            if (len < 0) continue;
            ACC h = s_h[at];
            i64 t = s;
            if (s < len) {
                t = reverse ? len - 1 - s : s;
                const T_IN* g_x = x + t * z.x_t + (b0 + n) * z.x_b + j;
                const ACC* part = s_part + n * GATES * units + u;
#if CELL == CELL_RNN
                h = fn.F(to_acc<ACC>(g_x[0]) + part[0]);
#elif CELL == CELL_GRU
                const ACC zg = s_c[at];
                h = (ACC(1) - zg) * fn.G(to_acc<ACC>(g_x[2 * hidden]) + part[2 * units]) + zg * h;
#elif CELL == CELL_GRU_RESET_AFTER
                const ACC zg = fn.F(to_acc<ACC>(g_x[0]) + part[0]);
                const ACC rg = fn.F(to_acc<ACC>(g_x[hidden]) + part[units]);
                const ACC m = part[2 * units] + (rbias ? to_acc<ACC>(rbias[(i64)d * hidden + j]) : ACC(0));
                h = (ACC(1) - zg) * fn.G(to_acc<ACC>(g_x[2 * hidden]) + rg * m) + zg * h;
#else
                ACC c = s_c[at];
                const T_IN* p = peepholes ? peepholes + (i64)d * 3 * hidden + j : nullptr;
                ACC gi = to_acc<ACC>(g_x[0]) + part[0], go = to_acc<ACC>(g_x[hidden]) + part[units];
                ACC gf = to_acc<ACC>(g_x[2 * hidden]) + part[2 * units];
                const ACC gc = fn.G(to_acc<ACC>(g_x[3 * hidden]) + part[3 * units]);
                if (p) gi += to_acc<ACC>(p[0]) * c, gf += to_acc<ACC>(p[2 * hidden]) * c;
                gi = fn.F(gi);
                gf = CELL == CELL_LSTM_COUPLED ? ACC(1) - gi : fn.F(gf);
                c = gf * c + gi * gc;
                if (p) go += to_acc<ACC>(p[hidden]) * c;
                h = fn.F(go) * fn.H(c);
                s_c[at] = c;
#endif
            }
            y[t * z.y_t + (b0 + n) * z.y_b + d * z.y_d + j] = from_acc<T_IN>(s < len ? h : ACC(0));
#if STEP
            g_next[state_at(n, j)] = h;
            if (IS_LSTM) g_c[state_at(n, j)] = s_c[at];
#else
            s_h[at] = h;  // the products of this step have read it
#endif
            if (s == z.seq - 1) {
                const i64 to = (b0 + n) * z.s_b + d * z.s_d + j;
                y_h[to] = from_acc<T_IN>(len > 0 ? h : ACC(0));
                if (IS_LSTM) y_c[to] = from_acc<T_IN>(len > 0 ? s_c[at] : ACC(0));
            }
        }
        __syncthreads();  // orders the states of this step before the next one reads them
    }
}
