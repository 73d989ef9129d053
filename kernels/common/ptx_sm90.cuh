// ptx_sm90.cuh — inline PTX of sm_90a: barriers and tensor copies in shared memory, wgmma. One wrapper each, named as the
// instruction.
//
// Notes    As common/ptx.cuh, which it belongs to. s_ addresses are of shared memory (shared_address), maps lie among the
//          kernel's arguments (__grid_constant__).
#pragma once
#include "common/types.cuh"

#if !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#error "wgmma needs sm_90a"
#endif

// CUtensorMap
struct __align__(64) TensorMap
{
    u8 bytes[128];
};

DEVICE void mbarrier_init(u32 s_bar, u32 count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(s_bar), "r"(count));
}

DEVICE void mbarrier_arrive_expect_tx(u32 s_bar, u32 bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(s_bar), "r"(bytes) : "memory");
}

DEVICE void mbarrier_arrive(u32 s_bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(s_bar) : "memory");
}

// The barrier at the same place of another block of the cluster. Relaxed: nothing is published by it.
DEVICE void mbarrier_arrive_remote(u32 s_bar, u32 rank)
{
    asm volatile("{.reg .b32 r; mapa.shared::cluster.u32 r, %0, %1; mbarrier.arrive.shared::cluster.b64 _, [r];}" ::"r"(s_bar), "r"(rank) : "memory");
}

// Waits until the phase of this parity has completed.
DEVICE void mbarrier_wait_parity(u32 s_bar, u32 parity)
{
    u32 done;
    do {
        asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                     : "=r"(done) : "r"(s_bar), "r"(parity) : "memory");
    } while (!done);
}

// The same, for what other blocks of the cluster wrote.
DEVICE void mbarrier_wait_parity_cluster(u32 s_bar, u32 parity)
{
    u32 done;
    do {
        asm volatile("{.reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                     : "=r"(done) : "r"(s_bar), "r"(parity) : "memory");
    } while (!done);
}

DEVICE void fence_mbarrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

DEVICE void prefetch_tensormap(const TensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

// A box at (x, y) to shared memory; its bytes complete the barrier.
DEVICE void cp_async_bulk_tensor_2d_load(u32 s_dst, const TensorMap* map, u32 s_bar, i32 x, i32 y)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                 ::"r"(s_dst), "l"(map), "r"(s_bar), "r"(x), "r"(y) : "memory");
}

// To the same place of every block of the cluster whose bit is set in mask; completes the barrier of each.
DEVICE void cp_async_bulk_tensor_2d_load_multicast(u32 s_dst, const TensorMap* map, u32 s_bar, i32 x, i32 y, u16 mask)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;"
                 ::"r"(s_dst), "l"(map), "r"(s_bar), "r"(x), "r"(y), "h"(mask) : "memory");
}

DEVICE void cp_async_bulk_tensor_3d_load(u32 s_dst, const TensorMap* map, u32 s_bar, i32 x, i32 y, i32 z)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
                 ::"r"(s_dst), "l"(map), "r"(s_bar), "r"(x), "r"(y), "r"(z) : "memory");
}

DEVICE void cp_async_bulk_tensor_3d_load_multicast(u32 s_dst, const TensorMap* map, u32 s_bar, i32 x, i32 y, i32 z, u16 mask)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;"
                 ::"r"(s_dst), "l"(map), "r"(s_bar), "r"(x), "r"(y), "r"(z), "h"(mask) : "memory");
}

// Pixels of an im2col map [n,h,w,c] from (n, h, w) on, each shifted by (shift_h, shift_w), and their channels from c on.
DEVICE void cp_async_bulk_tensor_im2col_load(u32 s_dst, const TensorMap* map, u32 s_bar, i32 c, i32 w, i32 h, i32 n, u16 shift_w, u16 shift_h)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};"
                 ::"r"(s_dst), "l"(map), "r"(s_bar), "r"(c), "r"(w), "r"(h), "r"(n), "h"(shift_w), "h"(shift_h) : "memory");
}

DEVICE void cp_async_bulk_tensor_4d_load(u32 s_dst, const TensorMap* map, u32 s_bar, i32 x, i32 y, i32 z, i32 w)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
                 ::"r"(s_dst), "l"(map), "r"(s_bar), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
}

DEVICE void cp_async_bulk_tensor_4d_store(const TensorMap* map, u32 s_src, i32 x, i32 y, i32 z, i32 w)
{
    asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];"
                 ::"l"(map), "r"(s_src), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
}

DEVICE void cp_async_bulk_tensor_3d_store(const TensorMap* map, u32 s_src, i32 x, i32 y, i32 z)
{
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];"
                 ::"l"(map), "r"(s_src), "r"(x), "r"(y), "r"(z) : "memory");
}

DEVICE void cp_async_bulk_tensor_2d_store(const TensorMap* map, u32 s_src, i32 x, i32 y)
{
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];"
                 ::"l"(map), "r"(s_src), "r"(x), "r"(y) : "memory");
}

DEVICE void cp_async_bulk_commit_group() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Until at most PENDING groups still read shared memory.
template <int PENDING> DEVICE void cp_async_bulk_wait_group_read()
{
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory");
}

// Until at most PENDING groups are not in memory.
template <int PENDING> DEVICE void cp_async_bulk_wait_group()
{
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(PENDING) : "memory");
}

DEVICE void bar_arrive(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
DEVICE void bar_sync(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

// Blocks of a cluster. The relaxed arrive publishes nothing and costs no fence of memory.
DEVICE u32 cluster_ctarank()
{
    u32 r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
DEVICE void barrier_cluster_arrive_relaxed() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
DEVICE void barrier_cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
DEVICE u32 mapa(u32 s_addr, u32 rank)
{
    u32 r;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(s_addr), "r"(rank));
    return r;
}
// To another block of the cluster; the bytes complete the barrier there. Both addresses come from mapa.
DEVICE void st_async_v4(u32 addr, u32 bar, float x0, float x1, float x2, float x3)
{
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%2, %3, %4, %5}, [%1];"
                 ::"r"(addr), "r"(bar), "f"(x0), "f"(x1), "f"(x2), "f"(x3) : "memory");
}
DEVICE float4 ld_shared_v4(u32 s_addr)
{
    float4 v;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(s_addr) : "memory");
    return v;
}
DEVICE float2 ld_shared_v2(u32 s_addr)
{
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(s_addr) : "memory");
    return v;
}
DEVICE void st_shared_v2(u32 s_addr, float x0, float x1)
{
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(s_addr), "f"(x0), "f"(x1) : "memory");
}

// A warpgroup gives registers back, or takes them: REGS a thread from here on.
template <int REGS> DEVICE void setmaxnreg_dec() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGS)); }
template <int REGS> DEVICE void setmaxnreg_inc() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGS)); }

DEVICE void stmatrix_x4(u32 s_addr, u32 r0, u32 r1, u32 r2, u32 r3)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                 ::"r"(s_addr), "r"(r0), "r"(r1), "r"(r2), "r"(r3) : "memory");
}

// Two numbers in one word, the first one in the lower half.
DEVICE u32 cvt_rn_x2(Tag<f16>, float x0, float x1)
{
    u32 r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(x1), "f"(x0));
    return r;
}
DEVICE u32 cvt_rn_x2(Tag<bf16>, float x0, float x1)
{
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(x1), "f"(x0));
    return r;
}

DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit_group() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> DEVICE void wgmma_wait_group() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory"); }
// The compiler must not read an accumulator before the wait above.
DEVICE void wgmma_settle(float& d) { asm volatile("" : "+f"(d)::"memory"); }

// wgmma_m64<A_BY_M, B_BY_N>(Tag<T>, d, a, b, accumulate): d[64,N] = (accumulate ? d : 0) + a[64,32 bytes of k] b[.., N] for a
// warpgroup, N twice the size of d. a and b are descriptors of shared memory; A_BY_M 1: a lies with neighbours along m, 0:
// along k; B_BY_N likewise along n. float: as TF32, both along k.
#define OUT4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define OUT16(i) OUT4(i), OUT4(i + 4), OUT4(i + 8), OUT4(i + 12)
#define OUT32 OUT16(0)
#define OUT64 OUT32, OUT16(16)
#define OUT96 OUT64, OUT16(32)
#define OUT128 OUT96, OUT16(48)
#define OUT192 OUT128, OUT16(64), OUT16(80)
#define OUT256 OUT192, OUT16(96), OUT16(112)
#define REGS32 \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define REGS64 REGS32 \
    ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define REGS96 REGS64 \
    ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define REGS128 REGS96 \
    ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define REGS192 REGS128 \
    ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79" \
    ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define REGS256 REGS192 \
    ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111" \
    ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define WGMMA(N, TYPE, A, B, P, S, T)                                                                                  \
    template <int A_BY_M, int B_BY_N> DEVICE void wgmma_m64(Tag<TYPE>, float (&d)[N / 2], u64 a, u64 b, int accumulate)    \
    {                                                                                                                    \
        asm volatile("{.reg .pred p; setp.ne.b32 p, %" #P ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #TYPE     \
                     "." #TYPE " {" REGS##N "}, %" #A ", %" #B ", p, 1, 1, %" #S ", %" #T ";}"                             \
                     : OUT##N : "l"(a), "l"(b), "r"(accumulate), "n"(A_BY_M), "n"(B_BY_N));                               \
    }
#define WGMMA_TF32(N, A, B, P)                                                                                         \
    template <int A_BY_M, int B_BY_N> DEVICE void wgmma_m64(Tag<float>, float (&d)[N / 2], u64 a, u64 b, int accumulate)   \
    {                                                                                                                    \
        static_assert(!A_BY_M && !B_BY_N, "TF32 operands lie along k");                                                  \
        asm volatile("{.reg .pred p; setp.ne.b32 p, %" #P ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k8.f32.tf32.tf32"   \
                     " {" REGS##N "}, %" #A ", %" #B ", p, 1, 1;}"                                                        \
                     : OUT##N : "l"(a), "l"(b), "r"(accumulate));                                                         \
    }
WGMMA(32, f16, 16, 17, 18, 19, 20)
WGMMA(32, bf16, 16, 17, 18, 19, 20)
WGMMA_TF32(32, 16, 17, 18)
WGMMA(64, f16, 32, 33, 34, 35, 36)
WGMMA(64, bf16, 32, 33, 34, 35, 36)
WGMMA_TF32(64, 32, 33, 34)
WGMMA(96, f16, 48, 49, 50, 51, 52)
WGMMA(96, bf16, 48, 49, 50, 51, 52)
WGMMA_TF32(96, 48, 49, 50)
WGMMA(128, f16, 64, 65, 66, 67, 68)
WGMMA(128, bf16, 64, 65, 66, 67, 68)
WGMMA_TF32(128, 64, 65, 66)
WGMMA(192, f16, 96, 97, 98, 99, 100)
WGMMA(192, bf16, 96, 97, 98, 99, 100)
WGMMA_TF32(192, 96, 97, 98)
WGMMA(256, f16, 128, 129, 130, 131, 132)
WGMMA(256, bf16, 128, 129, 130, 131, 132)
WGMMA_TF32(256, 128, 129, 130)

// wgmma_m64_rs<B_BY_N>: as wgmma_m64 with a in registers, a fragment of mma.m16n8k16 in each warp.
#define WGMMA_RS(N, TYPE, A0, A1, A2, A3, B, P, T)                                                                     \
    template <int B_BY_N> DEVICE void wgmma_m64_rs(Tag<TYPE>, float (&d)[N / 2], const u32 (&a)[4], u64 b, int accumulate) \
    {                                                                                                                    \
        asm volatile("{.reg .pred p; setp.ne.b32 p, %" #P ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #TYPE     \
                     "." #TYPE " {" REGS##N "}, {%" #A0 ",%" #A1 ",%" #A2 ",%" #A3 "}, %" #B ", p, 1, 1, %" #T ";}"        \
                     : OUT##N : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(B_BY_N));         \
    }
WGMMA_RS(64, f16, 32, 33, 34, 35, 36, 37, 38)
WGMMA_RS(64, bf16, 32, 33, 34, 35, 36, 37, 38)
WGMMA_RS(128, f16, 64, 65, 66, 67, 68, 69, 70)
WGMMA_RS(128, bf16, 64, 65, 66, 67, 68, 69, 70)
