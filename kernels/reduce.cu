// reduce.cu — a reduction over any set of axes:  y[o] = post(combine over r of pre(x[o, r]))
// Args     x: T_IN · y: T_OUT, dense over the kept axes · out_shape: Shape of the kept axes, out_strides: Strides of x along them ·
//          red_shape: Shape of the reduced axes, red_strides: Strides of x along them (common/index.cuh) · n_out: i64,
//          n_red: i64 elements
// Params   T_IN any · T_OUT any (i64 for REDUCE_ARG_*) · OP: the REDUCE_ numbers below · LANES {1, 32, THREADS} threads that share
//          one output · THREADS {128,256,512} · OUT_RANK, RED_RANK {1..8} after merging axes · VEC {1,2,4,8,16} elements per
//          load · INDEX64 {0,1} · SELECT_LAST {0,1} for REDUCE_ARG_*: the last of equal elements instead of the first
// Requires VEC > 1: RED_RANK 1, LANES > 1, red_strides 1, n_red and out_strides multiples of VEC (host checks); the address is
//          looked at in the kernel · n_out < 2^31 * (THREADS/LANES)
// Launch   grid = ceil(n_out / (THREADS/LANES)) · block = THREADS · smem = 0
// Numerics accumulators float for f16, bf16, f32; double; 64-bit for integers (then wraps to T_OUT). Fixed order:
//          deterministic. Max, min: NaN propagates. Arg: a NaN counts as the extreme
// Notes    LANES 1 suits kept innermost axes (neighbours read neighbours), 32 and THREADS reduced innermost axes
#define REDUCE_SUM 0
#define REDUCE_MEAN 1
#define REDUCE_MAX 2
#define REDUCE_MIN 3
#define REDUCE_PROD 4
#define REDUCE_SUM_SQUARE 5
#define REDUCE_L1 6
#define REDUCE_L2 7
#define REDUCE_LOG_SUM 8
#define REDUCE_LOG_SUM_EXP 9
#define REDUCE_ARG_MAX 10
#define REDUCE_ARG_MIN 11
#if !defined(T_IN) || !defined(T_OUT) || !defined(OP)
#error "T_IN, T_OUT or OP is not defined"
#endif
#if !defined(LANES) || !defined(THREADS) || !defined(OUT_RANK) || !defined(RED_RANK) || !defined(VEC)
#error "LANES, THREADS, OUT_RANK, RED_RANK or VEC is not defined"
#endif
#define IS_ARG (OP == REDUCE_ARG_MAX || OP == REDUCE_ARG_MIN)
#if IS_ARG && !defined(SELECT_LAST)
#error "SELECT_LAST is not defined"
#endif
#include "common/index.cuh"
#include "common/math.cuh"

static_assert(LANES == 1 || LANES == 32 || LANES == THREADS, "an output belongs to a thread, a warp or a block");
static_assert(THREADS % 32 == 0 && THREADS <= 1024, "a block is whole warps, at most 32");
static_assert(VEC == 1 || (RED_RANK == 1 && LANES > 1), "vectors run along one contiguous reduced axis");

typedef Acc<T_IN>::type ACC;

// What roots and logarithms are computed in: integers in double, truncated and saturated at the end as a cast does.
template <bool IS_FLOAT> struct RealOf { typedef ACC type; };
template <> struct RealOf<false> { typedef double type; };
typedef RealOf<op::IsFloat<ACC>::value>::type REAL;
DEVICE T_OUT round_real(REAL x)
{
    if constexpr (op::IsFloat<ACC>::value) return from_acc<T_OUT>(x);
    else return op::cast<T_OUT>(x);
}

#if IS_ARG
// The best element so far and where it is; -1 before the first.
struct State
{
    Compute<T_IN>::type value;
    i64 at;
};
DEVICE State identity() { return State{0, -1}; }

DEVICE State combine(const State& a, const State& b)
{
    if (b.at < 0) return a;
    if (a.at < 0) return b;
    const bool nan_a = a.value != a.value, nan_b = b.value != b.value;
#if OP == REDUCE_ARG_MAX
    const bool better = b.value > a.value || (nan_b && !nan_a), equal = b.value == a.value || (nan_a && nan_b);
#else
    const bool better = b.value < a.value || (nan_b && !nan_a), equal = b.value == a.value || (nan_a && nan_b);
#endif
    return better || (equal && (SELECT_LAST ? b.at > a.at : b.at < a.at)) ? b : a;
}
DEVICE State lift(T_IN x, i64 at) { return State{to_compute(x), at}; }
DEVICE T_OUT finish(const State& s, i64) { return (T_OUT)s.at; }
DEVICE State shuffle(const State& s, int delta)
{
    return State{(Compute<T_IN>::type)__shfl_xor_sync(0xffffffffu, s.value, delta), __shfl_xor_sync(0xffffffffu, s.at, delta)};
}

#elif OP == REDUCE_LOG_SUM_EXP
// The maximum so far, and the sum of exp(x - maximum).
struct State
{
    REAL max, sum;
};
DEVICE State identity() { return State{(REAL)-INFINITY_F32, 0}; }
DEVICE State combine(const State& a, const State& b)
{
    const REAL m = op::max(a.max, b.max);
    if (m == (REAL)-INFINITY_F32 || m == (REAL)INFINITY_F32) return State{m, a.sum + b.sum};
    return State{m, a.sum * (REAL)op::exp(a.max - m) + b.sum * (REAL)op::exp(b.max - m)};
}
DEVICE State lift(T_IN x, i64) { return State{(REAL)to_acc<ACC>(x), 1}; }
DEVICE T_OUT finish(const State& s, i64)
{
    if (s.max == (REAL)-INFINITY_F32 || s.max == (REAL)INFINITY_F32) return round_real(s.max);
    return round_real(s.max + op::log(s.sum));
}
DEVICE State shuffle(const State& s, int delta)
{
    return State{__shfl_xor_sync(0xffffffffu, s.max, delta), __shfl_xor_sync(0xffffffffu, s.sum, delta)};
}

#else
#if OP == REDUCE_MAX || OP == REDUCE_MIN
typedef Compute<T_IN>::type State;  // the extreme of unsigned 64-bit integers does not fit a signed accumulator
template <class S> DEVICE S lowest()
{
    if constexpr (op::IsFloat<S>::value) return S(-INFINITY_F32);
    else return op::Limits<S>::LO;
}
template <class S> DEVICE S highest()
{
    if constexpr (op::IsFloat<S>::value) return S(INFINITY_F32);
    else return op::Limits<S>::HI;
}
#else
typedef ACC State;
#endif

DEVICE State identity()
{
#if OP == REDUCE_MAX
    return lowest<State>();
#elif OP == REDUCE_MIN
    return highest<State>();
#else
    return OP == REDUCE_PROD ? State(1) : State(0);
#endif
}

DEVICE State combine(State a, State b)
{
#if OP == REDUCE_MAX
    return op::max(a, b);
#elif OP == REDUCE_MIN
    return op::min(a, b);
#elif OP == REDUCE_PROD
    return a * b;
#else
    return a + b;
#endif
}

DEVICE State lift(T_IN x, i64)
{
#if OP == REDUCE_MAX || OP == REDUCE_MIN
    return to_compute(x);
#elif OP == REDUCE_SUM_SQUARE || OP == REDUCE_L2
    return to_acc<ACC>(x) * to_acc<ACC>(x);
#elif OP == REDUCE_L1
    return op::abs(to_acc<ACC>(x));
#else
    return to_acc<ACC>(x);
#endif
}

DEVICE T_OUT finish(State s, i64 n)
{
#if OP == REDUCE_MEAN
    return from_acc<T_OUT>(s / (ACC)n);
#elif OP == REDUCE_L2 || OP == REDUCE_LOG_SUM
    const REAL wide = (REAL)s;
    return round_real(OP == REDUCE_L2 ? op::sqrt(wide) : op::log(wide));
#else
    return from_acc<T_OUT>(s);
#endif
}
DEVICE State shuffle(State s, int delta) { return (State)__shfl_xor_sync(0xffffffffu, s, delta); }
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, T_OUT* y, const Shape out_shape, const Strides out_strides, const Shape red_shape,
            const Strides red_strides, const i64 n_out, const i64 n_red)
{
    griddepcontrol_wait();
    const i64 o = (i64)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
    const int lane = threadIdx.x % LANES;
    const bool inside = o < n_out;
    State state = identity();
    if (inside) {
        i32 coord[OUT_RANK];
        unravel<OUT_RANK>(coord, (Index)o, out_shape);
        const T_IN* g = x + offset_of<OUT_RANK>(coord, out_strides.s);
#if VEC > 1
        if (is_aligned<VEC>(g)) {
            for (i64 r = (i64)lane * VEC; r < n_red; r += LANES * VEC) {
                T_IN v[VEC];
                load_vec<VEC>(v, g + r);
#pragma unroll
                for (int i = 0; i < VEC; i++) state = combine(state, lift(v[i], r + i));
            }
        } else
#endif
        {
            for (i64 r = lane; r < n_red; r += LANES) {
                i64 at;
                if (RED_RANK == 1) {
                    at = r * red_strides.s[0];
                } else {
                    i32 red[RED_RANK];
                    unravel<RED_RANK>(red, (Index)r, red_shape);
                    at = offset_of<RED_RANK>(red, red_strides.s);
                }
                state = combine(state, lift(g[at], r));
            }
        }
    }
#if LANES > 1
#pragma unroll
    for (int delta = 16; delta > 0; delta >>= 1) state = combine(state, shuffle(state, delta));
#endif
#if LANES > 32
    __shared__ State s_warps[THREADS / 32];
    if (threadIdx.x % 32 == 0) s_warps[threadIdx.x / 32] = state;
    __syncthreads();  // orders the warps' results before thread 0 reads them
    if (threadIdx.x == 0) {
        for (int w = 1; w < THREADS / 32; w++) state = combine(state, s_warps[w]);
    }
#endif
    if (inside && lane == 0) y[o] = finish(state, n_red);
}
