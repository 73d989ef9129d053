// nms.cu — greedy selection of boxes, one block for each batch and class
// Args     boxes: float [batch, n, 4] · scores: float [rows, n] · most: i64 [1] or null (0) · overlap: float [1] or null (0) ·
//          least: float [1] or null (every score) · items: Item [rows, pad] · dropped: u32 [rows, ceil(n/32)] · selected: i32
//          [rows, n] · counts: i64 [rows], how many were selected · classes, n, pad: i64 · phases: i64, sum of 1 fill the items,
//          2 sort them, 4 select
// Params   CENTER {0: y1 x1 y2 x2, 1: centre x y, width, height} · THREADS
// Requires pad a power of two, at least n; between 1 and 4, when 2 is left out, the items are sorted by sort_step.cu (WIDE 0)
// Launch   grid = rows · block = THREADS · smem = 0
// Numerics f32 without contraction: the comparisons are those of the reference
// Notes    candidates come best score first, ties by index; each that is left is selected, and all threads together drop the
//          later ones that overlap with it
#if !defined(CENTER) || !defined(THREADS)
#error "CENTER or THREADS is not defined"
#endif
#define WIDE 0
#include "common/sort.cuh"

struct Box { float x0, x1, y0, y1, area; };

DEVICE Box box_at(const float4* boxes, i64 at)
{
    const float4 b = boxes[at];
    Box r;
#if CENTER
    const float w = __fdiv_rn(b.z, 2.0f), h = __fdiv_rn(b.w, 2.0f);
    r.x0 = __fsub_rn(b.x, w), r.x1 = __fadd_rn(b.x, w), r.y0 = __fsub_rn(b.y, h), r.y1 = __fadd_rn(b.y, h);
#else
    r.x0 = fminf(b.y, b.w), r.x1 = fmaxf(b.y, b.w), r.y0 = fminf(b.x, b.z), r.y1 = fmaxf(b.x, b.z);
#endif
    r.area = __fmul_rn(__fsub_rn(r.x1, r.x0), __fsub_rn(r.y1, r.y0));
    return r;
}

DEVICE bool overlaps(const Box& a, const Box& b, float limit)
{
    const float w = __fsub_rn(fminf(a.x1, b.x1), fmaxf(a.x0, b.x0)), h = __fsub_rn(fminf(a.y1, b.y1), fmaxf(a.y0, b.y0));
    if (!(w > 0.0f && h > 0.0f)) return false;
    const float common = __fmul_rn(w, h), all = __fsub_rn(__fadd_rn(a.area, b.area), common);
    return common > 0.0f && a.area > 0.0f && b.area > 0.0f && all > 0.0f && __fdiv_rn(common, all) > limit;
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const float* boxes, const float* scores, const i64* most, const float* overlap, const float* least, void* items, u32* dropped, i32* selected, i64* counts, const i64 classes, const i64 n, const i64 pad, const i64 phases)
{
    griddepcontrol_wait();
    const i64 row = blockIdx.x, words = (n + 31) / 32;
    Item* item = (Item*)items + row * pad;
    if (phases & 1)
        for (i64 j = threadIdx.x; j < pad; j += THREADS) {
            const float score = j < n ? scores[row * n + j] : 0.0f;
            const bool in = j < n && (!least || score > *least);
            // A NaN is the last candidate; LAST has an index that no candidate has.
            item[j] = in ? make_item(score != score ? ~0u : ~order_key(score), (u32)j) : LAST;
        }
    if (phases & 2) block_sort<THREADS>(item, pad);
    if (!(phases & 4)) return;
    const float4* box = (const float4*)boxes + row / classes * n;
    const i64 limit = most ? *most : 0;
    const float iou = overlap ? *overlap : 0.0f;
    u32* gone = dropped + row * words;
    for (i64 w = threadIdx.x; w < words; w += THREADS) gone[w] = 0;
    __syncthreads();  // orders the zeros before the marks
    i64 found = 0;
    for (i64 i = 0; i < n && found < limit; i++) {
        // The same for all threads: the marks were ordered by the barrier below.
        const Item best = item[i];
        if (best == LAST) break;
        const u32 mask = gone[i / 32];
        if (mask >> (i % 32) & 1u) continue;
        if (threadIdx.x == 0) selected[row * n + found] = (i32)index_of(best);
        found++;
        if (found >= limit) break;
        const Box a = box_at(box, index_of(best));
        __syncthreads();  // orders the reads of the marks before they change
        for (i64 w = (i + 1) / 32 + threadIdx.x / 32; w < words; w += THREADS / 32) {
            const i64 j = w * 32 + threadIdx.x % 32;
            const Item other = j < n ? item[j] : LAST;
            const bool drop = j > i && other != LAST && overlaps(a, box_at(box, index_of(other)), iou);
            const u32 bits = __ballot_sync(0xffffffffu, drop);
            if (threadIdx.x % 32 == 0 && bits) gone[w] |= bits;
        }
        __syncthreads();  // orders the marks before they are read
    }
    if (threadIdx.x == 0) counts[row] = found;
}
