// transpose_tiles.cu — the last two axes change places:  y[b, j, i] = x[offset + b*batch_step + i*pitch + j]
// Args     x: T_UNIT · y: T_UNIT [batch, cols, rows], dense · params: TransposeParams, a 64-bit struct of 12: batch, rows, cols,
//          batch_step, pitch, offset (of x, in units), tile_rows, tile_cols, vec_in, vec_out, flat_in, flat_out
// Params   T_UNIT {u8,u16,u32,u64} · THREADS {256}
// Requires tile_rows and tile_cols multiples of 4 with tile_rows*tile_cols = 4096; rows and cols below 2^30. The host checks:
//          vec_in, vec_out {1, VEC/2, VEC} with VEC = 16/sizeof(T_UNIT) divide pitch, batch_step, offset and tile_cols; rows and tile_rows ·
//          flat_in {0,1}: cols <= tile_cols, pitch = cols, and the pieces of x that tiles read begin at multiples of 16 bytes ·
//          flat_out {0,1}: rows <= tile_rows, the same for y. x and y are aligned to what is read and written at once
// Launch   grid = batch * ceil(rows/tile_rows) * ceil(cols/tile_cols), at most 2^31-1 · block = THREADS · smem = 0 (static)
// Numerics exact
// Notes    a tile goes through shared memory, whose rows are one unit longer than tile_cols: reads and writes of 16 bytes
//          along either axis then meet different banks. Where an axis fits one tile, tiles are pieces of memory without gaps
//          and move as such, so that 3 channels or 7x7 pixels cost no more than their bytes
#if !defined(T_UNIT) || !defined(THREADS)
#error "T_UNIT or THREADS is not defined"
#endif
#include "common/types.cuh"

struct TransposeParams
{
    i64 batch, rows, cols, batch_step, pitch, offset, tile_rows, tile_cols, vec_in, vec_out, flat_in, flat_out;
};

#define VEC (16 / (i32)sizeof(T_UNIT))
#define ELEMENTS 4096

// Rows of a tile, N units at once.
template <u32 N>
DEVICE void read_rows(T_UNIT* tile, const T_UNIT* g, i64 pitch, u32 tile_cols, u32 n_rows, u32 n_cols)
{
    const u32 pieces = tile_cols / N;
    for (u32 e = threadIdx.x; e < ELEMENTS / N; e += THREADS) {
        const u32 r = e / pieces, c = (e - r * pieces) * N;
        if (r >= n_rows || c >= n_cols) continue;
        const T_UNIT* from = g + r * pitch + c;
        T_UNIT* to = tile + r * (tile_cols + 1) + c;
        if (c + N <= n_cols) {
            T_UNIT v[N];
            load_vec<N>(v, from);
#pragma unroll
            for (u32 i = 0; i < N; i++) to[i] = v[i];
        } else {
            for (u32 i = 0; i < n_cols - c; i++) to[i] = from[i];
        }
    }
}

// Columns of a tile, N units at once: they are whole vectors, so one that begins inside ends inside.
template <u32 N>
DEVICE void write_columns(T_UNIT* g, const T_UNIT* tile, u32 rows, u32 tile_rows, u32 step, u32 n_rows, u32 n_cols)
{
    const u32 pieces = tile_rows / N;
    for (u32 e = threadIdx.x; e < ELEMENTS / N; e += THREADS) {
        const u32 c = e / pieces, r = (e - c * pieces) * N;
        if (c >= n_cols || r >= n_rows) continue;
        T_UNIT v[N];
#pragma unroll
        for (u32 i = 0; i < N; i++) v[i] = tile[(r + i) * step + c];
        store_vec<N>(g + (i64)c * rows + r, v);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_UNIT* x, T_UNIT* y, const TransposeParams params)
{
    griddepcontrol_wait();
    __shared__ T_UNIT tile[ELEMENTS + ELEMENTS / 4];
    const u32 rows = (u32)params.rows, cols = (u32)params.cols;
    const u32 tile_rows = (u32)params.tile_rows, tile_cols = (u32)params.tile_cols, step = tile_cols + 1;
    const u32 across = (cols + tile_cols - 1) / tile_cols, down = (rows + tile_rows - 1) / tile_rows;
    const u32 block = blockIdx.x, band = block / across, image = band / down;
    const u32 c0 = (block - band * across) * tile_cols, r0 = (band - image * down) * tile_rows;
    const u32 n_rows = rows - r0 < tile_rows ? rows - r0 : tile_rows, n_cols = cols - c0 < tile_cols ? cols - c0 : tile_cols;

    const T_UNIT* g_x = x + params.offset + image * params.batch_step + r0 * params.pitch + c0;
    if (params.flat_in) {
        const u32 n = n_rows * n_cols;
        for (u32 e = threadIdx.x * VEC; e < n; e += THREADS * VEC) {
            T_UNIT v[VEC];
            if (e + VEC <= n) load_vec<VEC>(v, g_x + e);
            else {
#pragma unroll
                for (u32 i = 0; i < VEC; i++)
                    if (e + i < n) v[i] = g_x[e + i];
            }
            u32 r = e / n_cols, c = e - r * n_cols;
#pragma unroll
            for (u32 i = 0; i < VEC; i++) {
                if (e + i < n) tile[r * step + c] = v[i];
                if (++c == n_cols) c = 0, r++;
            }
        }
    } else if (params.vec_in == VEC) {
        read_rows<VEC>(tile, g_x, params.pitch, tile_cols, n_rows, n_cols);
    } else if (VEC > 2 && params.vec_in == VEC / 2) {
        read_rows<(VEC > 2 ? VEC / 2 : 1)>(tile, g_x, params.pitch, tile_cols, n_rows, n_cols);
    } else {
        read_rows<1>(tile, g_x, params.pitch, tile_cols, n_rows, n_cols);
    }
    __syncthreads();

    T_UNIT* g_y = y + ((i64)image * cols + c0) * rows + r0;
    if (params.flat_out) {
        const u32 n = n_rows * n_cols;
        for (u32 e = threadIdx.x * VEC; e < n; e += THREADS * VEC) {
            u32 c = e / n_rows, r = e - c * n_rows;
            T_UNIT v[VEC];
#pragma unroll
            for (u32 i = 0; i < VEC; i++) {
                if (e + i < n) v[i] = tile[r * step + c];
                if (++r == n_rows) r = 0, c++;
            }
            if (e + VEC <= n) store_vec<VEC>(g_y + e, v);
            else {
#pragma unroll
                for (u32 i = 0; i < VEC; i++)
                    if (e + i < n) g_y[e + i] = v[i];
            }
        }
    } else if (params.vec_out == VEC) {
        write_columns<VEC>(g_y, tile, rows, tile_rows, step, n_rows, n_cols);
    } else if (VEC > 2 && params.vec_out == VEC / 2) {
        write_columns<(VEC > 2 ? VEC / 2 : 1)>(g_y, tile, rows, tile_rows, step, n_rows, n_cols);
    } else {
        write_columns<1>(g_y, tile, rows, tile_rows, step, n_rows, n_cols);
    }
}
