// tree_ensemble.cu — decision trees:  y[row, target] = aggregate over trees of the target's weight in the leaf that the row ends in
// Args     x: T_IN [rows, features] · nodes: i32 [n_nodes, 4] (feature, mode, next where the test holds, next where not; a leaf: first
//          weight, MODE_LEAF, number of weights, 0) · splits: T_IN [n_nodes] · targets: i32 [n_weights] · weights: T_IN [n_weights] ·
//          roots: i32 [n_trees] · y: T_IN [rows, n_targets] · leaves: i32 [rows, n_trees] scratch (null for MODE 2) · then the sizes, i64
// Params   T_IN {float,double} · MODE {0: a thread finds the leaf of a row in a tree, 1: a warp aggregates a target of a row, 2: a thread
//          does both for a row} · AGGREGATE {SUM 0, AVERAGE 1, MIN 2, MAX 3} · THREADS {128,256}
// Requires nothing: a walk that leaves the tables or goes back gives nothing
// Launch   grid = min(ceil(work/THREADS), some multiple of the processors; the kernel strides), work = rows*n_trees, 32*rows*n_targets
//          or rows · block = THREADS · smem = 0
// Numerics sums in double (MODE 2: of T_IN), fixed order: deterministic
// Notes    weights of a leaf are in the order of their targets; a target without weights is 0
#if !defined(T_IN) || !defined(MODE) || !defined(AGGREGATE) || !defined(THREADS)
#error "T_IN, MODE, AGGREGATE or THREADS is not defined"
#endif
#include "common/reduce.cuh"

#define MODE_LEAF 7
#define MODE_MISSING 8
#define AGGREGATE_SUM 0
#define AGGREGATE_AVERAGE 1
#define AGGREGATE_MIN 2
#define AGGREGATE_MAX 3

struct Aggregate
{
    DEVICE static double start()
    {
        return AGGREGATE == AGGREGATE_MIN ? (double)INFINITY_F32 : AGGREGATE == AGGREGATE_MAX ? -(double)INFINITY_F32 : 0.0;
    }
    DEVICE double operator()(double a, double b) const
    {
        if (AGGREGATE == AGGREGATE_MIN) return b < a ? b : a;
        if (AGGREGATE == AGGREGATE_MAX) return b > a ? b : a;
        return a + b;
    }
    DEVICE static double finish(double v, i64 n_trees)
    {
        if (AGGREGATE == AGGREGATE_AVERAGE) return v / (double)n_trees;
        return AGGREGATE >= AGGREGATE_MIN && v == start() ? 0.0 : v;
    }
};

// The leaf that a row ends in, or -1.
DEVICE i32 walk(const T_IN* x, i64 features, const i32* nodes, const T_IN* splits, i64 n_nodes, i32 at)
{
    for (;;) {
        if (at < 0 || at >= n_nodes) return -1;
        const int4 node = ((const int4*)nodes)[at];
        const i32 mode = node.y & 7;
        if (mode == MODE_LEAF) return at;
        if (node.x < 0 || node.x >= features) return -1;
        const T_IN v = x[node.x], split = splits[at];
        bool holds = mode == 0 ? v <= split : mode == 1 ? v < split : mode == 2 ? v >= split : mode == 3 ? v > split
                   : mode == 4 ? v == split : v != split;
        holds = holds || ((node.y & MODE_MISSING) && v != v);
        const i32 next = holds ? node.z : node.w;
        if (next <= at) return -1;
        at = next;
    }
}

// First weight and number of weights of a leaf.
DEVICE int2 weights_of(const i32* nodes, i32 leaf, i64 n_weights)
{
    if (leaf < 0) return int2{0, 0};
    const int4 node = ((const int4*)nodes)[leaf];
    if (node.x < 0 || node.z < 0 || (i64)node.x + node.z > n_weights) return int2{0, 0};
    return int2{node.x, node.z};
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, const i32* nodes, const T_IN* splits, const i32* targets, const T_IN* weights, const i32* roots, T_IN* y,
            i32* leaves, const i64 rows, const i64 features, const i64 n_trees, const i64 n_targets, const i64 n_nodes,
            const i64 n_weights)
{
    griddepcontrol_wait();
    const i64 thread = (i64)blockIdx.x * THREADS + threadIdx.x, stride = (i64)gridDim.x * THREADS;
#if MODE == 0
    for (i64 at = thread; at < rows * n_trees; at += stride) {
        const i64 row = at / n_trees;
        leaves[at] = walk(x + row * features, features, nodes, splits, n_nodes, roots[at % n_trees]);
    }
#elif MODE == 1
    const Aggregate aggregate;
    const int lane = threadIdx.x % 32;
    for (i64 at = thread / 32; at < rows * n_targets; at += stride / 32) {
        const i64 row = at / n_targets;
        const i32 target = (i32)(at % n_targets);
        double sum = Aggregate::start();
        for (i64 tree = lane; tree < n_trees; tree += 32) {
            const int2 w = weights_of(nodes, leaves[row * n_trees + tree], n_weights);
            if (w.y == 0) continue;
            // Where the target would stand if the leaf had a weight for each one from its first on.
            const i64 guess = (i64)target - targets[w.x];
            if (guess < 0) continue;
            for (i32 i = guess < w.y ? (i32)guess : w.y - 1; i >= 0 && targets[w.x + i] >= target; i--)
                if (targets[w.x + i] == target) sum = aggregate(sum, (double)weights[w.x + i]);
        }
        sum = warp_combine(sum, aggregate);
        if (lane == 0) y[at] = (T_IN)Aggregate::finish(sum, n_trees);
    }
#else
    const Aggregate aggregate;
    for (i64 row = thread; row < rows; row += stride) {
        T_IN* g_y = y + row * n_targets;
        for (i64 t = 0; t < n_targets; t++) g_y[t] = (T_IN)Aggregate::start();
        for (i64 tree = 0; tree < n_trees; tree++) {
            const int2 w = weights_of(nodes, walk(x + row * features, features, nodes, splits, n_nodes, roots[tree]), n_weights);
            for (i32 i = w.x; i < w.x + w.y; i++) {
                const i32 target = targets[i];
                if (target >= 0 && target < n_targets) g_y[target] = (T_IN)aggregate((double)g_y[target], (double)weights[i]);
            }
        }
        for (i64 t = 0; t < n_targets; t++) g_y[t] = (T_IN)Aggregate::finish((double)g_y[t], n_trees);
    }
#endif
}
