// ptx.cuh — every inline PTX instruction, one wrapper each, named as the instruction.
//
// Notes    Nothing else in kernels/ contains asm but common/ptx_sm90.cuh. Instructions that an architecture lacks are not declared there, so that
//          a use of one is a compile error and not a wrong result.
#pragma once

__device__ __forceinline__ float cvt_f32_f16(unsigned short bits)
{
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(bits));
    return r;
}

// Both halves of a word: no instruction is spent on taking it apart.
__device__ __forceinline__ void cvt_f32_f16(float& low, float& high, unsigned word)
{
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}" : "=f"(low), "=f"(high) : "r"(word));
}

__device__ __forceinline__ unsigned short cvt_rn_f16_f32(float x)
{
    unsigned short r;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
    return r;
}

__device__ __forceinline__ unsigned short cvt_rn_f16_f64(double x)
{
    unsigned short r;
    asm("cvt.rn.f16.f64 %0, %1;" : "=h"(r) : "d"(x));
    return r;
}

// 2^x to two units in the last place; subnormal results are 0.
__device__ __forceinline__ float ex2_approx_ftz_f32(float x)
{
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

// Within one unit of the last place; numbers that are not normal count as zero.
__device__ __forceinline__ float rcp_approx_ftz_f32(float x)
{
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ unsigned short cvt_rn_bf16_f32(float x)
{
    unsigned short r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
    return r;
}

// The larger of each half; NaN where one of both is.
__device__ __forceinline__ unsigned max_nan_f16x2(unsigned a, unsigned b)
{
    unsigned r;
    asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

__device__ __forceinline__ unsigned max_nan_bf16x2(unsigned a, unsigned b)
{
    unsigned r;
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

// 16 bytes from global to shared memory. The last 16 - n_bytes are zeros; with n_bytes 0, g is not read.
__device__ __forceinline__ void cp_async_16(unsigned s_addr, const void* g, unsigned n_bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(s_addr), "l"(g), "r"(n_bytes) : "memory");
}

// Two numbers in one word, the first one in the lower half.
__device__ __forceinline__ unsigned cvt_rn_f16x2_f32(float low, float high)
{
    unsigned r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

__device__ __forceinline__ unsigned cvt_rn_bf16x2_f32(float low, float high)
{
    unsigned r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

__device__ __forceinline__ void cp_async_commit_group()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// The same with 4, 8 or 16 bytes, kept in the first-level cache: for what neighbouring threads or later copies read again.
template <int BYTES> __device__ __forceinline__ void cp_async_ca(unsigned s_addr, const void* g, unsigned n_bytes)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(s_addr), "l"(g), "n"(BYTES), "r"(n_bytes) : "memory");
}

template <int PENDING>
__device__ __forceinline__ void cp_async_wait_group()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// d[16,8] += a[16,16] * b[16,8], a row-major fragments, b column-major fragments.
__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d[16,8] += a[16,8] * b[8,8]
__device__ __forceinline__ void mma_m16n8k8_f16(float (&d)[4], unsigned a0, unsigned a1, unsigned b0)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(b0));
}

__device__ __forceinline__ void mma_m16n8k8_bf16(float (&d)[4], unsigned a0, unsigned a1, unsigned b0)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(b0));
}
#endif

#if __CUDA_ARCH__ >= 800
// The larger one; NaN if one of them is.
__device__ __forceinline__ float max_nan_f32(float x, float y)
{
    float r;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(x), "f"(y));
    return r;
}
#endif

// Programmatic dependent launch. On sm_90 a kernel may start while the one before it still runs:
//   griddepcontrol_wait               returns when every kernel before this one has ended and its writes are visible
//   griddepcontrol_launch_dependents  lets the next kernel start as soon as each block has called it, or has ended; a hint
// Contract  A .cu file that names griddepcontrol_wait (the text, comments count: name it there when a header calls it) is
//           launched this way, so in every kernel compiled from it no thread reads what another kernel may write, or writes
//           global memory, before it has called griddepcontrol_wait or passed a barrier behind a thread that has; and each
//           block calls it before it ends. Before the wait: barriers and tensor maps set up, indices computed, and weights
//           read where the host knows that the operand is a constant of the engine (a define says so). No pointer is
//           __restrict__ and nothing is read by __ldg: the compiler would be free to read before the wait.
// Use       griddepcontrol_wait first thing, or after what was said, and no griddepcontrol_launch_dependents: each call costs
//           about 0.5 ns per block of the grid (4224 small blocks: 3.4 us, with it 5.6, on an H200), and blocks of the next
//           kernel that find room beside this one's lie unevenly over the multiprocessors. Without it the next kernel
//           starts as the last blocks end, which saves 0.2 us of 1 for small kernels and never lost. It pays in kernels of
//           a few hundred blocks at most whose successors load weights before they wait.
// Notes     Nothing on older architectures.
__device__ __forceinline__ void griddepcontrol_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void griddepcontrol_launch_dependents()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l%8 of matrix l/8.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], unsigned s_addr)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(s_addr) : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], unsigned s_addr)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(s_addr) : "memory");
}

// Four products of bytes added to c; the first word's bytes are signed or not, then the second's.
template <bool A_SIGNED, bool B_SIGNED> __device__ __forceinline__ int dp4a(unsigned a, unsigned b, int c)
{
    int d;
    if constexpr (A_SIGNED && B_SIGNED) asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    else if constexpr (A_SIGNED) asm("dp4a.s32.u32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    else if constexpr (B_SIGNED) asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    else asm("dp4a.u32.u32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}
