"""Runs every kernel family on this machine's GPU and compares with torch: odd sizes, tile edges, types.

    python kernels/check/check_kernels.py [part of a test's name]
"""
import itertools, math, sys, time
import torch, torch.nn.functional as F
import device as D
from device import NAME, launch, i64, f32, i64s, i32s, bits, magic, shape, strides, dense, cdiv
from compile_all import pointwise_text

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
f16, bf16, f4, f8 = torch.float16, torch.bfloat16, torch.float32, torch.float64
TOL = {f16: 2e-3, bf16: 1.6e-2, f4: 2e-5, f8: 1e-12}
results, failures = {}, []
gen = torch.Generator(device="cuda")
EPI0 = (None, None, None, None, bytes(160))


def rand(*dims, dtype=f4, lo=-1.0, hi=1.0): return (torch.rand(*dims, generator=gen, device="cuda", dtype=f8) * (hi - lo) + lo).to(dtype)
def empty(*dims, dtype=f4): return torch.full(dims, 77, device="cuda", dtype=dtype)


def same(name, got, want, tol=0.0, scale=None):
    """tol is relative to |want|, or to `scale` (the size of what was summed) where given"""
    if D.collecting: return
    results[name] = results.get(name, 0) + 1
    want = want.reshape(got.shape)
    if tol == 0.0:
        ok = torch.equal(got, want.to(got.dtype)) if not got.is_floating_point() else bool(((got == want) | (got.isnan() & want.isnan())).all())
        worst = 0.0 if ok else (got.double() - want.double()).abs().max().item()
    else:
        g, w = got.double(), want.double()
        err = (g - w).abs() / ((w.abs() if scale is None else scale) + 1e-30)
        err = torch.where((g == w) | (g.isnan() & w.isnan()) | ((w == 0) & (g.abs() < 1e-30)), torch.zeros_like(err), err)
        worst = err.nan_to_num(nan=9e9).max().item()
        ok = worst <= tol
    if not ok: failures.append(f"{name}: error {worst:.3g} over {tol:.3g}, shape {tuple(got.shape)}, {(got.double() - want.double()).ne(0).sum().item()} differ")


# ---- pointwise -------------------------------------------------------------------------------------------------------
def flat(ins, outs, body, n, vec, mask=0):
    launch("pointwise.cu", dict(THREADS=256, VEC=vec, MODE=0, SCALAR_MASK=mask), (min(cdiv(n, 256 * vec), 1000),), 256,
           [*ins, *outs, i64(n)], pointwise_text([NAME[t.dtype] for t in ins], [NAME[t.dtype] for t in outs], body))


UNARY = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt,
         "reciprocal": torch.reciprocal, "abs": torch.abs, "neg": torch.neg, "floor": torch.floor, "ceil": torch.ceil, "round_even": torch.round, "sign": lambda x: torch.where(x.isnan(), x, torch.sign(x)),
         "erf": torch.erf, "gelu_erf": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "hard_swish": F.hardswish, "softplus": lambda x: x.clamp(min=0) + torch.log1p(torch.exp(-x.abs())),
         "softsign": F.softsign, "mish": F.mish, "sin": torch.sin, "cos": torch.cos, "tan": torch.tan, "asin": torch.asin, "acos": torch.acos, "atan": torch.atan,
         "sinh": torch.sinh, "cosh": torch.cosh, "asinh": torch.asinh, "acosh": torch.acosh, "atanh": torch.atanh, "square": torch.square}
ARGS = {"leaky_relu(a0, 0.1f)": lambda x: F.leaky_relu(x, 0.1), "clip(a0, -0.5f, 0.75f)": lambda x: x.clamp(-0.5, 0.75), "hard_sigmoid(a0, 0.2f, 0.5f)": lambda x: (0.2 * x + 0.5).clamp(0, 1),
        "elu(a0, 1.5f)": lambda x: F.elu(x, 1.5), "selu(a0, 1.67326319217681884765625f, 1.05070102214813232421875f)": F.selu, "celu(a0, 2.0f)": lambda x: F.celu(x, 2.0),
        "thresholded_relu(a0, 1.0f)": lambda x: torch.where(x > 1, x, 0), "shrink(a0, 0.25f, 0.5f)": lambda x: torch.where(x < -0.5, x + 0.25, torch.where(x > 0.5, x - 0.25, 0)), "quick_gelu(a0, 1.5f)": lambda x: x * torch.sigmoid(1.5 * x)}


def test_unary():
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-30, -1e-30, 80.0, -80.0, 0.5, 1.5, 2.5], device="cuda")
    x = torch.cat([rand(4001, lo=-8, hi=8), special])
    # Functions that cancel are bound by an error of the size of their argument.
    loose = {"hard_swish", "gelu_erf", "gelu_tanh", "erf", "sin", "cos", "tan", "mish", "silu", "log", "atanh", "asinh"}
    for name, ref in UNARY.items():
        y = empty(x.numel())
        flat([x], [y], f"r0 = op::{name}(a0);", x.numel(), 4)
        want = ref(x.double())
        same(f"unary {name}", y, want.float(), 2e-6, (want.abs() + 0.1 * x.double().abs().nan_to_num(0, 0, 0)) if name in loose else None)
        h, yh = x[:4001].half(), empty(4001, dtype=f16)
        flat([h], [yh], f"r0 = op::{name}(a0);", 4001, 8)
        same(f"unary f16 {name}", yh, ref(h.double()).half(), 2e-3, ref(h.double()).abs() + 1e-3)
    for text, ref in ARGS.items():
        y = empty(4001)
        flat([x[:4001]], [y], f"r0 = op::{text};", 4001, 4)
        same(f"unary {text}", y, ref(x[:4001].double()), 2e-6, ref(x[:4001].double()).abs() + 0.1)


def test_pointwise_flat():
    for n, vec, off in itertools.product((1, 7, 8, 4097, 100003), (1, 2, 8), (0, 1)):
        a, b, s = rand(n + 1, dtype=f16)[off:off + n], rand(n), rand(1, dtype=bf16)
        y, z = empty(n, dtype=f16), empty(n, dtype=torch.bool)
        flat([a, b, s], [y, z], "r0 = a0 * a2 + a1; r1 = op::lt(a0, a1);", n, vec, 4)
        same("flat", y, a.double() * s.double() + b.double(), 1e-3, 1.0)
        same("flat bool", z, a.float() < b)


def test_pointwise_strided():
    cases = [((5, 7, 11), [(5, 7, 11), (7, 1), (1,)], 1), ((3, 16, 8), [(3, 16, 8), (16, 1), (3, 1, 8)], 8), ((2, 3, 5, 7, 2, 3, 2, 3), [(2, 3, 5, 7, 2, 3, 2, 3), (7, 1, 1, 1, 3), (3, 1, 7, 2, 1, 1, 1)], 1), ((1000, 513), [(1000, 1), (513,), (1,)], 1)]
    for dims, ins, vec in cases:
        for index64 in (0, 1):
            ts = [rand(*s) for s in ins]
            ss = [list(t.expand(dims).stride()) for t in ts]
            mask = sum(1 << i for i, s in enumerate(ss) if s[-1] == 1)
            y, n = empty(*dims), math.prod(dims)
            launch("pointwise.cu", dict(THREADS=256, VEC=vec, MODE=1, RANK=len(dims), INDEX64=index64, INNER_MASK=mask), (min(cdiv(n, 256 * vec), 300),), 256,
                   [*ts, y, shape(dims), b"".join(strides(s) for s in ss)], pointwise_text(["float"] * 3, ["float"], "r0 = a0 * a1 - a2;"))
            same("strided", y, (ts[0].double() * ts[1].double() - ts[2].double()).expand(dims), 1e-6, 1.0)


def test_integers_and_casts():
    a = torch.randint(-100, 100, (5003,), device="cuda"); b = torch.randint(-9, 9, (5003,), device="cuda"); b[b == 0] = 3
    for dt in (torch.int32, torch.int64, torch.int8):
        x, w = a.to(dt), b.to(dt)
        for text, ref in {"div": torch.div(x, w, rounding_mode="trunc"), "mod": torch.remainder(x, w), "fmod": torch.fmod(x, w), "max": torch.maximum(x, w), "bit_xor": x ^ w, "add": x + w}.items():
            y = empty(5003, dtype=dt)
            flat([x, w], [y], f"r0 = op::{text}(a0, a1);", 5003, 4)
            same(f"integer {text}", y, ref)
    p, q = rand(5003, lo=0.1, hi=5), rand(5003, lo=-3, hi=3)
    for text, ref in {"pow": torch.pow(p.double(), q.double()), "fmod": torch.fmod(p.double(), q.double()), "min": torch.minimum(p, q)}.items():
        y = empty(5003)
        flat([p, q], [y], f"r0 = op::{text}(a0, a1);", 5003, 4)
        same(f"float {text}", y, ref, 3e-6)
    src = torch.cat([rand(999, lo=-300, hi=300), torch.tensor([1e20, -1e20, math.nan, math.inf, 0.0, 254.9, -128.9], device="cuda")])
    for dt in (torch.int8, torch.uint8, torch.int32, torch.int64):
        info = torch.iinfo(dt); d = src.double().nan_to_num(0, 2e19, -2e19)
        y = empty(src.numel(), dtype=dt)
        flat([src], [y], f"r0 = op::cast<{NAME[dt]}>(a0);", src.numel(), 4)
        want = torch.where(d >= info.max, info.max, torch.where(d <= info.min, info.min, d.trunc().clamp(-2e18, 2e18).long()))
        same(f"cast to {dt}", y, want.to(dt))
    y = empty(src.numel(), dtype=torch.bool); flat([src], [y], "r0 = op::cast<bool>(a0);", src.numel(), 4); same("cast bool", y, src != 0)
    for dt in (f16, bf16, f8):
        y = empty(src.numel(), dtype=dt); flat([src], [y], f"r0 = op::cast<Compute<{NAME[dt]}>::type>(a0);", src.numel(), 2); same("cast float", y, src.to(dt))


# ---- products --------------------------------------------------------------------------------------------------------
GELU_RESIDUAL = "#define N_EXTRA 2\n#define T_EXTRA0 {t}\n#define T_EXTRA1 float\nDEVICE ACC epilogue(ACC x, ACC e0, ACC e1) {{ return op::relu(x + e0) * e1; }}\n"


def gemm(kind, cfg, t, m, n, k, ta, tb, batch=(1, 1, 1), ba=None, bb=None, bias=0, rows=0, epi=0, alpha=1.0):
    ba, bb = ba or batch, bb or batch
    a, b = rand(*ba, *((k, m) if ta else (m, k)), dtype=t), rand(*bb, *((n, k) if tb else (k, n)), dtype=t)
    v, c = rand(m if rows else n, dtype=t), empty(*batch, m, n, dtype=t)
    res, row = rand(*batch, m, n, dtype=t), rand(batch[1], 1, m, 1)
    bs = lambda have, per: [0 if h == 1 else s for h, s in zip(have, [have[1] * have[2] * per, have[2] * per, per])]
    params = i64s(m, n, k, m if ta else k, k if tb else n, n, *batch, *bs(ba, m * k), *bs(bb, k * n), *bs(batch, m * n))
    es = [bs(batch, m * n) + [n, 1], [0, m, 0, 1, 0], [0] * 5, [0] * 5]
    d = dict(T_IN=NAME[t], T_OUT=NAME[t], T_BIAS=NAME[t], TRANS_A=ta, TRANS_B=tb, HAS_BIAS=bias, BIAS_ROWS=rows, EPILOGUE=epi, **cfg)
    grid = cdiv(m, cfg["BLOCK_M"]) * cdiv(n, cfg["BLOCK_N"]) * math.prod(batch)
    if kind == "gemm_mma_sm80.cu":
        A = cfg["BLOCK_K"] * (cfg["BLOCK_M"] + 8) if ta else cfg["BLOCK_M"] * (cfg["BLOCK_K"] + 8)
        B = cfg["BLOCK_N"] * (cfg["BLOCK_K"] + 8) if tb else cfg["BLOCK_K"] * (cfg["BLOCK_N"] + 8)
        block, smem = 32 * cfg["WARPS_M"] * cfg["WARPS_N"], 2 * cfg["STAGES"] * (A + B)
    else:
        block, smem = cfg["BLOCK_M"] // cfg["THREAD_M"] * (cfg["BLOCK_N"] // cfg["THREAD_N"]), 0
    extra = (res, row, None, None, i64s(*sum(es, []))) if epi else EPI0
    launch(kind, d, (grid,), block, [a, b, v if bias else None, c, params, f32(alpha), *extra], GELU_RESIDUAL.format(t=NAME[t]) if epi else "", smem)
    if D.collecting: return
    A, B = (x.double().transpose(-1, -2) if tr else x.double() for x, tr in ((a, ta), (b, tb)))
    want, size = alpha * (A @ B), A.abs() @ B.abs() + 1
    if bias: want = want + (v.double()[:, None] if rows else v.double())
    if epi: want = torch.relu(want + res.double()) * row.double()
    same(f"{kind} {NAME[t]}", c, want, TOL[t] if t in (f16, bf16) else TOL[t] / 10, want.abs().clamp(min=1) if t in (f16, bf16) else size)


def finish(part, y, dims, splits, bias=None, bias_dim=4, epi=0, extra=EPI0):
    d = dict(T_PART=NAME[part.dtype], T_OUT=NAME[y.dtype], T_BIAS=NAME[y.dtype], HAS_BIAS=int(bias is not None), BIAS_DIM=bias_dim, EPILOGUE=epi, THREADS=256, INDEX64=0)
    launch("split_finish.cu", d, (min(cdiv(y.numel(), 256), 500),), 256, [part, bias, y, shape(dims), D.C.c_int(splits), *extra], GELU_RESIDUAL.format(t=NAME[y.dtype]) if epi else "")


def test_gemm_split():
    for t, (m, n, k), batch, splits, tb in itertools.product((f4, f16), ((40, 72, 1000), (8, 264, 520)), ((1, 1, 1), (2, 1, 3)), (1, 3, 8), (0, 1)):
        a, b, v = rand(*batch, m, k, dtype=t), rand(*batch, *((n, k) if tb else (k, n)), dtype=t), rand(n, dtype=t)
        part, y = empty(splits, *batch, m, n), empty(*batch, m, n, dtype=t)
        st = lambda per: [0 if h == 1 else s for h, s in zip(batch, [batch[1] * batch[2] * per, batch[2] * per, per])]
        params = i64s(m, n, k, k, k if tb else n, n, *batch, *st(m * k), *st(k * n), *st(m * n))
        d = dict(T_IN=NAME[t], T_OUT="float", TRANS_A=0, TRANS_B=tb, HAS_BIAS=0, BIAS_ROWS=0, EPILOGUE=0, BLOCK_M=64, BLOCK_N=64)
        grid = (cdiv(m, 64) * cdiv(n, 64) * math.prod(batch), splits)
        args = [a, b, None, part, params, f32(1.0), *EPI0]
        if t == f16: launch("gemm_mma_sm80.cu", dict(d, BLOCK_K=32, WARPS_M=2, WARPS_N=2, STAGES=3, ALIGNED=1), grid, 128, args, "", 6 * (64 * 40 + (64 * 40 if tb else 32 * 72)))
        else: launch("gemm_simt.cu", dict(d, BLOCK_K=16, THREAD_M=4, THREAD_N=4, VEC=4), grid, 256, args)
        finish(part, y, (*batch, m, n), splits, v)
        A, B = a.double(), (b.double().transpose(-1, -2) if tb else b.double())
        same("gemm split", y, A @ B + v.double(), {f4: 2e-6, f16: 1e-3}[t], A.abs() @ B.abs() + 1)


def test_gemm_simt():
    tiles = [(64, 64, 16, 4, 4), (128, 128, 8, 8, 8), (16, 64, 16, 1, 4)]
    for (bm, bn, bk, tm, tn), t, (ta, tb) in itertools.product(tiles, (f4, f16, f8), ((0, 0), (0, 1), (1, 0), (1, 1))):
        if t == f8 and bm == 128: continue
        cfg = dict(BLOCK_M=bm, BLOCK_N=bn, BLOCK_K=bk, THREAD_M=tm, THREAD_N=tn)
        for m, n, k in ((1, 1, 1), (bm, bn, bk), (bm + 1, bn - 1, bk + 1), (133, 71, 97), (257, 130, 65)):
            gemm("gemm_simt.cu", dict(cfg, VEC=1), t, m, n, k, ta, tb, bias=1, rows=ta)
        if bm == 16: continue
        gemm("gemm_simt.cu", dict(cfg, VEC=2), t, 134, 72, 98, ta, tb, epi=1, alpha=0.5)
        gemm("gemm_simt.cu", dict(cfg, VEC=2), t, 34, 22, 18, ta, tb, batch=(2, 3, 4), ba=(2, 1, 4), bb=(1, 3, 1), epi=1, bias=1)


def test_gemm_mma():
    tiles = [(128, 128, 32, 2, 4, 4), (64, 64, 64, 2, 2, 3), (32, 32, 16, 2, 2, 2), (256, 128, 32, 4, 2, 3)]
    for (bm, bn, bk, wm, wn, st), t, (ta, tb) in itertools.product(tiles, (f16, bf16), ((0, 0), (0, 1), (1, 0), (1, 1))):
        cfg = dict(BLOCK_M=bm, BLOCK_N=bn, BLOCK_K=bk, WARPS_M=wm, WARPS_N=wn, STAGES=st)
        for m, n, k in ((8, 8, 8), (bm, bn, bk), (bm + 8, bn - 8, bk + 8), (520, 264, 136), (8, 1000, 504)):
            gemm("gemm_mma_sm80.cu", dict(cfg, ALIGNED=1), t, m, n, k, ta, tb)
        gemm("gemm_mma_sm80.cu", dict(cfg, ALIGNED=1), t, 40, 24, 72, ta, tb, batch=(2, 3, 4), ba=(2, 1, 4), bb=(1, 3, 1), epi=1, bias=1)
        if bm <= 64:
            for m, n, k in ((1, 1, 1), (bm + 1, bn - 1, bk + 1), (133, 71, 97)):
                gemm("gemm_mma_sm80.cu", dict(cfg, ALIGNED=0), t, m, n, k, ta, tb, bias=1, rows=1, alpha=0.25)


# ---- convolutions ----------------------------------------------------------------------------------------------------
CONVS = [  # n c h w k r s stride pad dil groups
    (1, 3, 17, 19, 5, 3, 3, (1, 1), (1, 1), (1, 1), 1), (2, 64, 14, 15, 72, 3, 3, (2, 1), (1, 0), (1, 1), 1), (3, 16, 9, 7, 40, 1, 1, (1, 1), (0, 0), (1, 1), 1),
    (1, 7, 30, 31, 64, 7, 7, (2, 2), (3, 3), (1, 1), 1), (2, 24, 12, 11, 36, 3, 5, (1, 2), (2, 4), (2, 3), 4), (1, 8, 1, 101, 33, 1, 3, (1, 2), (0, 1), (1, 1), 1),
    (1, 4, 3, 60, 8, 1, 33, (1, 1), (0, 16), (1, 1), 1), (2, 2, 40, 5, 8, 17, 3, (2, 1), (8, 1), (1, 1), 1), (1, 3, 20, 21, 8, 15, 16, (1, 1), (7, 8), (1, 1), 1),
    (1, 130, 5, 5, 130, 3, 3, (1, 1), (1, 1), (1, 1), 1), (4, 32, 8, 8, 64, 1, 1, (2, 2), (0, 0), (1, 1), 2)]
DEPTHWISE = [(2, 19, 15, 17, 19, 3, 3, (1, 1), (1, 1), (1, 1), 19), (1, 8, 14, 9, 24, 5, 5, (2, 2), (2, 2), (1, 1), 8), (3, 6, 11, 10, 6, 3, 3, (1, 2), (2, 2), (2, 2), 6)]


def out_size(i, f, s, p, d): return (i + 2 * p - d * (f - 1) - 1) // s + 1


def conv(kind, cfg, t, case, epi, bias=1):
    n, c, h, w, k, r, s, st, pd, dl, g = case
    p, q = out_size(h, r, st[0], pd[0], dl[0]), out_size(w, s, st[1], pd[1], dl[1])
    x, wt, v, y = rand(n, c, h, w, dtype=t), rand(k, c // g, r, s, dtype=t), rand(k, dtype=t), empty(n, k, p, q, dtype=t)
    res, row = rand(n, k, p, q, dtype=t), rand(n, k)
    cg, kg, crs = c // g, k // g, c // g * r * s
    generic = kind == "conv_direct.cu"
    d = dict(T_IN=NAME[t], T_OUT=NAME[t], T_BIAS=NAME[t], HAS_BIAS=bias, EPILOGUE=epi, **cfg)
    es = [[k * p * q, p * q, 1, 0, 0], [k, 1, 0, 0, 0], [0] * 5, [0] * 5]
    extra = (res, row, None, None, i64s(*sum(es, []))) if epi else EPI0
    smem = 0
    if generic:
        params = i64s(n, c, k, g, 1, h, w, 1, p, q, 1, r, s, 1, *st, 0, *pd, 1, *dl, c * h * w, k * p * q)
        grid, block = (cdiv(n * k * p * q, 128),), 128
    else:
        params = i32s(n, c, h, w, k, p, q, r, s, g, *st, *pd, *dl, cg, kg, c * h * w, k * p * q, p * q, crs, *magic(p * q), *magic(q), *magic(r * s), *magic(s))
        if kind == "conv_depthwise.cu":
            grid, block = (cdiv(p * cdiv(q, cfg["OUTPUTS"]), cfg["THREADS"]), min(n * k, 65535), cdiv(n * k, 65535)), cfg["THREADS"]
        else:
            grid = (cdiv(n * p * q, cfg["BLOCK_N"]), cdiv(kg, cfg["BLOCK_M"]), g)
            if "WARPS_M" in cfg:
                block, smem = 32 * cfg["WARPS_M"] * cfg["WARPS_N"], 4 * (cfg["BLOCK_M"] * (cfg["BLOCK_K"] + 8) + cfg["BLOCK_K"] * (cfg["BLOCK_N"] + 8))
                if cfg["ALIGNED"] and crs % 8: return
            else: block = cfg["BLOCK_M"] // cfg["THREAD_M"] * (cfg["BLOCK_N"] // cfg["THREAD_N"])
    launch(kind, d, grid, block, [x, wt, v if bias else None, y, params, *extra], GELU_RESIDUAL.format(t=NAME[t]) if epi else "", smem)
    if D.collecting: return
    want = F.conv2d(x.double(), wt.double(), v.double() if bias else None, st, pd, dl, g)
    if epi: want = torch.relu(want + res.double()) * row.double()[:, :, None, None]
    same(f"{kind} {NAME[t]}", y, want, TOL[t], want.abs().clamp(min=1) if t in (f16, bf16) else math.sqrt(crs))


def test_conv_simt():
    for case, t in itertools.product(CONVS + DEPTHWISE, (f4, f16, f8)):
        for bm, bn, bk, tm, tn in ((64, 64, 8, 4, 4), (128, 128, 8, 8, 8), (16, 64, 16, 2, 2)):
            if t == f8 and bm == 128: continue
            for known in (0, 1):
                conv("conv_igemm_simt.cu", dict(SUM_PART=128, BLOCK_M=bm, BLOCK_N=bn, BLOCK_K=bk, THREAD_M=tm, THREAD_N=tn, FILTER_H=case[5] * known, FILTER_W=case[6] * known), t, case, known)


def test_conv_mma():
    for case, t in itertools.product(CONVS, (f16, bf16)):
        for bm, bn, bk, wm, wn in ((64, 128, 32, 2, 4), (128, 128, 32, 2, 4), (32, 32, 16, 2, 2), (64, 64, 64, 2, 2)):
            for known, aligned in ((0, 1), (1, 0)):
                conv("conv_igemm_mma_sm80.cu", dict(BLOCK_M=bm, BLOCK_N=bn, BLOCK_K=bk, WARPS_M=wm, WARPS_N=wn, FILTER_H=case[5] * known, FILTER_W=case[6] * known, ALIGNED=aligned), t, case, known)


def conv_split(t, cfg, case, splits):
    n, c, h, w, k, r, s, st, pd, dl, g = case
    p, q = out_size(h, r, st[0], pd[0], dl[0]), out_size(w, s, st[1], pd[1], dl[1])
    x, wt, v = rand(n, c, h, w, dtype=t), rand(k, c // g, r, s, dtype=t), rand(k, dtype=t)
    part, y, res, row = empty(splits, n, k, p, q), empty(n, k, p, q, dtype=t), rand(n, k, p, q, dtype=t), rand(n, k)
    crs = c // g * r * s
    params = i32s(n, c, h, w, k, p, q, r, s, g, *st, *pd, *dl, c // g, k // g, c * h * w, k * p * q, p * q, crs, *magic(p * q), *magic(q), *magic(r * s), *magic(s))
    d = dict(T_IN=NAME[t], T_OUT="float", HAS_BIAS=0, EPILOGUE=0, FILTER_H=r, FILTER_W=s, **cfg)
    grid, args = (cdiv(n * p * q, cfg["BLOCK_N"]), cdiv(k // g, cfg["BLOCK_M"]), g * splits), [x, wt, None, part, params, *EPI0]
    if "WARPS_M" in cfg:
        launch("conv_igemm_mma_sm80.cu", dict(d, ALIGNED=int(crs % 8 == 0)), grid, 32 * cfg["WARPS_M"] * cfg["WARPS_N"], args, "", 4 * (cfg["BLOCK_M"] * (cfg["BLOCK_K"] + 8) + cfg["BLOCK_K"] * (cfg["BLOCK_N"] + 8)))
    else: launch("conv_igemm_simt.cu", d, grid, cfg["BLOCK_M"] // cfg["THREAD_M"] * (cfg["BLOCK_N"] // cfg["THREAD_N"]), args)
    finish(part, y, (n, k, p * q, 1, 1), splits, v, 1, 1, (res, row, None, None, i64s(k * p * q, p * q, 1, 0, 0, k, 1, 0, 0, 0, *[0] * 10)))
    if D.collecting: return
    want = torch.relu(F.conv2d(x.double(), wt.double(), v.double(), st, pd, dl, g) + res.double()) * row.double()[:, :, None, None]
    same("conv split", y, want, TOL[t], want.abs().clamp(min=1) if t == f16 else math.sqrt(crs))


def test_conv_split():
    for case, splits in itertools.product(CONVS, (1, 2, 5)):
        conv_split(f4, dict(SUM_PART=0, BLOCK_M=64, BLOCK_N=64, BLOCK_K=8, THREAD_M=4, THREAD_N=4), case, splits)
        conv_split(f16, dict(BLOCK_M=64, BLOCK_N=64, BLOCK_K=32, WARPS_M=2, WARPS_N=2), case, splits)


def test_conv_depthwise():
    for case, t, outputs, known in itertools.product(DEPTHWISE, (f4, f16, f8), (1, 4), (0, 1)):
        conv("conv_depthwise.cu", dict(THREADS=128, OUTPUTS=outputs, FILTER_H=case[5] * known, FILTER_W=case[6] * known), t, case, known)


def test_conv_direct():
    for case, t in itertools.product(CONVS + DEPTHWISE, (f4, bf16, f8)): conv("conv_direct.cu", dict(THREADS=128), t, case, 1)
    x, w = rand(2, 6, 5, 7, 8), rand(4, 3, 2, 3, 3)
    params = i64s(2, 6, 4, 2, 5, 7, 8, 2, 3, 8, 2, 3, 3, 2, 2, 1, 0, 0, 2, 1, 1, 2, 6 * 280, 4 * 48)
    y = empty(2, 4, 2, 3, 8)
    launch("conv_direct.cu", dict(T_IN="float", T_OUT="float", HAS_BIAS=0, THREADS=128, EPILOGUE=0), (cdiv(384, 128),), 128, [x, w, None, y, params, *EPI0])
    same("conv_direct 3d", y, F.conv3d(x.double(), w.double(), None, (2, 2, 1), (0, 0, 2), (1, 1, 2), 2), 1e-5, 10.0)


def test_conv_transpose():
    for t, (n, c, h, w, k, r, s, st, pd, op, dl, g) in itertools.product((f4, f16, f8), [(2, 6, 5, 7, 8, 3, 3, (2, 1), (1, 0), (1, 0), (1, 2), 2), (1, 4, 6, 6, 3, 4, 4, (2, 2), (1, 1), (0, 0), (1, 1), 1), (1, 3, 4, 9, 6, 2, 5, (3, 2), (0, 2), (2, 1), (2, 1), 3)]):
        x, wt, v = rand(n, c, h, w, dtype=t), rand(c, k // g, r, s, dtype=t), rand(k, dtype=t)
        want = F.conv_transpose2d(x.double(), wt.double(), v.double(), st, pd, op, g, dl)
        p, q = want.shape[2:]
        y = empty(n, k, p, q, dtype=t)
        params = i64s(n, c, k, g, 1, h, w, 1, p, q, 1, r, s, 1, *st, 0, *pd, 1, *dl, c * h * w, k * p * q)
        launch("conv_transpose.cu", dict(T_IN=NAME[t], T_OUT=NAME[t], T_BIAS=NAME[t], HAS_BIAS=1, THREADS=128, EPILOGUE=0), (cdiv(n * k * p * q, 128),), 128, [x, wt, v, y, params, *EPI0])
        same("conv_transpose", y, want, TOL[t], want.abs().clamp(min=1))


# ---- reductions ------------------------------------------------------------------------------------------------------
def reference_reduce(op, x, axes):
    if op in (10, 11): raise ValueError
    f = [lambda v: v.sum(axes), lambda v: v.mean(axes), lambda v: v.amax(axes), lambda v: v.amin(axes), None, lambda v: (v * v).sum(axes), lambda v: v.abs().sum(axes),
         lambda v: (v * v).sum(axes).sqrt(), lambda v: v.sum(axes).log(), lambda v: torch.logsumexp(v, axes)]
    if op == 4:
        for a in sorted(axes, reverse=True): x = x.prod(a)
        return x
    return f[op](x)


def test_reduce():
    cases = [((5, 1003), (1,)), ((5, 1003), (0,)), ((3, 7, 11, 13), (1, 3)), ((3, 7, 11, 13), (0, 2)), ((2, 64), (1,)), ((3, 4096), (1,)), ((1, 3001), (1,)), ((4, 6, 8), (1,))]
    for (dims, axes), op in itertools.product(cases, range(10)):
        for t in (f4, f16, bf16, f8, torch.int32, torch.int64):
            if op in (1, 7, 8, 9) and not t.is_floating_point: continue
            x = (rand(*dims, dtype=f8, lo=0.5 if op in (4, 8) else -2, hi=1.5 if op in (4, 8) else 2) if t.is_floating_point else torch.randint(1 if op == 4 else -9, 3 if op == 4 else 9, dims, device="cuda")).to(t)
            keep = [d for d in range(len(dims)) if d not in axes]; st = x.stride()
            od, rd = [dims[d] for d in keep] or [1], [dims[d] for d in axes]
            n_out, n_red = math.prod(od), math.prod(rd)
            inner = axes == (len(dims) - 1,)
            for lanes, vec in ((1, 1), (32, 1), (256, 1)) + (((32, 4), (256, 2)) if inner and n_red % 4 == 0 else ()):
                y = empty(*od, dtype=t)
                launch("reduce.cu", dict(T_IN=NAME[t], T_OUT=NAME[t], OP=op, LANES=lanes, THREADS=256, OUT_RANK=len(od), RED_RANK=len(rd), VEC=vec, INDEX64=int(lanes == 32)), (cdiv(n_out, 256 // lanes),), 256,
                       [x, y, shape(od), strides([st[d] for d in keep]), shape(rd), strides([st[d] for d in axes]), i64(n_out), i64(n_red)])
                if D.collecting: continue
                exact = op in (2, 3) or not t.is_floating_point
                want = reference_reduce(op, x.double() if t.is_floating_point else x.long(), axes)
                same(f"reduce {op} {NAME[t]}", y, want.to(t) if exact else want, 0.0 if exact else {f16: 1e-3, bf16: 8e-3, f4: 1e-4, f8: 1e-11}[t], None if exact else want.abs() + (1 if op in (0, 1) else 1e-3 if t == f16 else 0))
    for dims, axis in (((5, 1003), 1), ((1003, 5), 0), ((3, 40, 7), 1)):
        for t, op, last, lanes in itertools.product((f4, f16, torch.int32), (10, 11), (0, 1), (1, 32, 256)):
            x = torch.randint(-20, 20, dims, device="cuda").to(t)
            keep = [d for d in range(len(dims)) if d != axis]; od = [dims[d] for d in keep]
            y = empty(*od, dtype=torch.int64)
            launch("reduce.cu", dict(T_IN=NAME[t], T_OUT="i64", OP=op, LANES=lanes, THREADS=256, OUT_RANK=len(od), RED_RANK=1, VEC=1, INDEX64=0, SELECT_LAST=last), (cdiv(math.prod(od), 256 // lanes),), 256,
                   [x, y, shape(od), strides([x.stride()[d] for d in keep]), shape([dims[axis]]), strides([x.stride()[axis]]), i64(math.prod(od)), i64(dims[axis])])
            e = x.amax(axis, keepdim=True) if op == 10 else x.amin(axis, keepdim=True)
            at = torch.arange(dims[axis], device="cuda").reshape([-1 if d == axis else 1 for d in range(len(dims))])
            hit = torch.where(x == e, at, -1 if last else 10**6)
            same("arg", y, hit.amax(axis) if last else hit.amin(axis))


def test_softmax():
    for t, log in itertools.product((f4, f16, bf16, f8), (0, 1)):
        for rows, cols in ((1, 1), (7, 33), (130, 197), (5, 1000), (9, 1024), (3, 5003), (2, 40000)):
            x = rand(rows, cols, dtype=t, lo=-10, hi=10)
            if rows > 2: x[1, : cols // 2] = -math.inf
            want = (F.log_softmax if log else F.softmax)(x.double(), 1)
            tol, size = {f16: 1e-3, bf16: 8e-3, f4: 3e-6, f8: 1e-12}[t], want.abs().nan_to_num(1, 1, 1).clamp(max=1e30) + (1 if log else 1e-4 if t == f16 else 1e-6)
            vecs = (1, 4) if cols % 4 == 0 and t != f8 else (1,)
            for vec in vecs:
                if cols <= 1024:
                    y = empty(rows, cols, dtype=t)
                    launch("softmax.cu", dict(T_IN=NAME[t], T_OUT=NAME[t], LOG=log, MODE=0, THREADS=128, VEC=vec, LANES=32, HOLD=cdiv(cols, 32 * vec) * vec), (cdiv(rows, 4),), 128, [x, y, i64(rows), i64(cols), i64(1)])
                    same("softmax warp", y, want, tol, size)
                y = empty(rows, cols, dtype=t)
                launch("softmax.cu", dict(T_IN=NAME[t], T_OUT=NAME[t], LOG=log, MODE=1, THREADS=256, VEC=vec), (rows,), 256, [x, y, i64(rows), i64(cols), i64(1)])
                same("softmax block", y, want, tol, size)
        x = rand(3, 37, 50, dtype=t, lo=-10, hi=10); y = empty(3, 37, 50, dtype=t)
        want = (F.log_softmax if log else F.softmax)(x.double(), 1)
        launch("softmax.cu", dict(T_IN=NAME[t], T_OUT=NAME[t], LOG=log, MODE=2, THREADS=128, VEC=1), (cdiv(150, 128),), 128, [x, y, i64(150), i64(37), i64(50)])
        same("softmax strided", y, want, {f16: 1e-3, bf16: 8e-3, f4: 3e-6, f8: 1e-12}[t], want.abs() + (1 if log else 1e-4 if t == f16 else 1e-6))


# ---- movers ----------------------------------------------------------------------------------------------------------
UNITS = [("u8", torch.uint8), ("u16", torch.int16), ("u32", torch.int32), ("u64", torch.int64)]


def ints(*dims, dtype=torch.int32): return torch.randint(0, 120, dims, device="cuda").to(dtype)


def test_gather():
    for (u, t), (it, ix) in itertools.product(UNITS, ((torch.int32, "i32"), (torch.int64, "i64"))):
        for o, a, j, i in ((3, 7, 11, 5), (1, 100, 33, 1), (2, 5, 4, 1000)):
            x, y = ints(o, a, i, dtype=t), empty(o, j, i, dtype=t)
            idx = torch.randint(-a, a, (j,), device="cuda").to(it); idx[0] = a + 9; idx[-1] = -a - 9
            launch("gather.cu", dict(T_UNIT=u, T_INDEX=ix, THREADS=256), (cdiv(o * j * i, 256),), 256, [x, idx, y, i64(o), i64(a), i64(j), i64(i)])
            w = torch.where(idx < 0, idx + a, idx).clamp(0, a - 1).long()
            same("gather", y, x[:, w])


def test_strided_copy():
    for (u, t), index64 in itertools.product(UNITS, (0, 1)):
        x = ints(3, 50, 70, dtype=t); st = list(x.stride())
        views = [(x.permute(0, 2, 1), 0), (x.permute(2, 1, 0), 0), (x[:, 3:40:2, 5:], 3 * 70 + 5), (x[:1].expand(4, 50, 70), 0), (x.permute(1, 0, 2), 0)]
        for v, base in views:
            y = empty(*v.shape, dtype=t)
            for mode in (0, 1):
                d = v.shape; n = v.numel()
                grid = (cdiv(n, 256),) if mode == 0 else (cdiv(d[2], 32), cdiv(d[1], 32), 2)
                y.fill_(1)
                launch("strided_copy.cu", dict(T_UNIT=u, MODE=mode, RANK=3, THREADS=256, INDEX64=index64), grid, 256, [x, y, shape(d), strides(v.stride()), i64(base)])
                same(f"strided_copy {mode}", y, v.contiguous())
        y = empty(3, 50, 70, dtype=t)
        launch("strided_copy.cu", dict(T_UNIT=u, MODE=0, RANK=3, THREADS=256, INDEX64=index64), (9,), 256, [x, y, shape((3, 50, 70)), strides((st[0], -st[1], -1)), i64(49 * 70 + 69)])
        same("strided_copy flip", y, x.flip(1, 2))


def test_pad():
    for u, t in UNITS:
        x = ints(3, 5, 7, dtype=t)
        for mode, name in enumerate(("constant", "replicate", "reflect", "circular")):
            for before, after in (((0, 2, 3), (0, 1, 4)), ((0, -1, 2), (0, 3, -2)), ((0, 0, -2), (0, -1, -1)), ((0, 9, 13) if mode else (0, 9, 1), (0, 1, 1))):
                dims = [d + b + a for d, b, a in zip(x.shape, before, after)]
                y = empty(*dims, dtype=t)
                launch("pad.cu", dict(T_UNIT=u, MODE=mode, RANK=3, THREADS=256, INDEX64=0), (cdiv(y.numel(), 256),), 256, [x, y, shape(dims), i64s(*[v for part in (x.shape, before, after, x.stride()) for v in list(part) + [0] * 5]), i64(42)])
                if D.collecting: continue
                w = x.cpu()
                for d in range(3):
                    w = w.narrow(d, max(0, -before[d]), x.shape[d] - max(0, -before[d]) - max(0, -after[d])); n = w.shape[d]
                    pos = [i - max(0, before[d]) for i in range(dims[d])]
                    if mode == 0: m = [min(max(i, 0), n - 1) for i in pos]
                    elif mode == 1: m = [min(max(i, 0), n - 1) for i in pos]
                    elif mode == 3: m = [i % n for i in pos]
                    else: m = [(i % (2 * n - 2)) if n > 1 else 0 for i in pos]; m = [i if i < n else 2 * n - 2 - i for i in m]
                    w = w.index_select(d, torch.tensor(m))
                    if mode == 0:
                        mask = torch.tensor([0 <= i < n for i in pos]).reshape([-1 if e == d else 1 for e in range(3)])
                        w = torch.where(mask, w, torch.tensor(42, dtype=t))
                same(f"pad {name}", y, w.cuda())


def test_concat_fill():
    for u, t in UNITS:
        a, b = ints(5, 3, 7, dtype=t), ints(5, 4, 7, dtype=t); y = empty(5, 7, 7, dtype=t)
        launch("concat_rows.cu", dict(T_UNIT=u, THREADS=128), (2, 2), 128, [a, b] + [None] * 6 + [y, i64(5), i64(49), i64s(21, 28, *[0] * 6, 0, 21, *[0] * 6)])
        same("concat", y, torch.cat([a, b], 1))
        for n, off in ((1, 0), (1003, 0), (1003, 1)):
            z = empty(n + 1, dtype=t)
            launch("fill.cu", dict(T_UNIT=u, VEC=2, THREADS=128), (3,), 128, [z[off:], i64(n), i64(99)])
            w = torch.full_like(z, 77); w[off:off + n] = 99
            same("fill", z, w)


def test_pool():
    for t, (dims, win, st, pd, dl, ceil) in itertools.product((f4, f16, f8), [((2, 3, 13, 17), (3, 2), (2, 1), (1, 1), (1, 1), 0), ((1, 5, 9, 9), (3, 3), (2, 2), (1, 1), (1, 1), 1), ((1, 2, 12, 11), (2, 3), (1, 2), (0, 1), (2, 2), 0), ((1, 4, 10, 10), (3, 3), (3, 3), (0, 0), (1, 1), 1)]):
        x = rand(*dims, dtype=t); n, c, h, w = dims
        want, at = F.max_pool2d(x.double(), win, st, pd, dl, bool(ceil), return_indices=True)
        p, q = want.shape[2:]
        params = lambda include: i64s(n * c, 1, h, w, 1, p, q, 1, *win, 1, *st, 0, *pd, 0, *pd, 1, *dl, include)
        y, ix = empty(n, c, p, q, dtype=t), empty(n, c, p, q, dtype=torch.int64)
        launch("pool.cu", dict(T_IN=NAME[t], OP=0, HAS_INDEX=1, COLUMN_MAJOR=0, THREADS=256), (cdiv(y.numel(), 256),), 256, [x, y, ix, params(0), f32(0)])
        same("max pool", y, want.to(t))
        if not D.collecting: same("max pool index", x.flatten()[ix], y)
        if dl == (1, 1):
            for include in (0, 1):
                z = empty(n, c, p, q, dtype=t)
                launch("pool.cu", dict(T_IN=NAME[t], OP=1, HAS_INDEX=0, COLUMN_MAJOR=0, THREADS=256), (cdiv(y.numel(), 256),), 256, [x, z, None, params(include), f32(0)])
                same("average pool", z, F.avg_pool2d(x.double(), win, st, pd, bool(ceil), bool(include)), {f16: 1e-3, f4: 1e-6, f8: 1e-12}[t], 1.0)
            if pd == (0, 0):
                z = empty(n, c, p, q, dtype=t)
                launch("pool.cu", dict(T_IN=NAME[t], OP=2, HAS_INDEX=0, COLUMN_MAJOR=0, THREADS=256), (cdiv(y.numel(), 256),), 256, [x, z, None, params(0), f32(3)])
                if not D.collecting:
                    xp = F.pad(x.double().abs() ** 3, (0, 3, 0, 3)); same("lp pool", z, F.avg_pool2d(xp, win, st, 0)[:, :, :p, :q].mul(math.prod(win)) ** (1 / 3), {f16: 1e-3, f4: 3e-6, f8: 1e-6}[t], 1.0)


def test_resize():
    def run(x, out, mode, coord, rnd=0, scale=None, **kw):
        dims = x.shape[2:]; pad = [1] * (3 - len(dims)); t = x.dtype
        y = empty(*x.shape[:2], *out, dtype=t); sc = scale or [o / i for o, i in zip(out, dims)]
        params = i32s(*pad, *dims, *pad, *out, *[bits(1.0)] * len(pad), *[bits(v) for v in sc], *[0] * 3, *[bits(1.0)] * 3, bits(-0.75), bits(0.0))
        launch("resize.cu", dict(T_IN=NAME[t], MODE=mode, COORD=coord, ROUND=rnd, EXCLUDE_OUTSIDE=0, ACTIVE=len(dims), THREADS=256), (cdiv(y.numel(), 256),), 256, [x, y, i64(x.shape[0] * x.shape[1]), params])
        return y
    for t in (f4, f16, f8):
        tol = {f16: 2e-3, f4: 2e-5, f8: 2e-5}[t]
        for dims, out in (((5, 7), (10, 14)), ((5, 7), (13, 4)), ((8, 8), (3, 16))):
            x = rand(2, 3, *dims, dtype=t)
            same("resize linear", run(x, out, 1, 0), F.interpolate(x.double(), out, mode="bilinear"), tol, 1.0)
            same("resize linear corners", run(x, out, 1, 2), F.interpolate(x.double(), out, mode="bilinear", align_corners=True), tol, 1.0)
            same("resize cubic", run(x, out, 2, 0), F.interpolate(x.double(), out, mode="bicubic"), tol, 1.0)
            same("resize cubic corners", run(x, out, 2, 2), F.interpolate(x.double(), out, mode="bicubic", align_corners=True), tol, 1.0)
            same("resize nearest exact", run(x, out, 0, 0, 1), F.interpolate(x.double(), out, mode="nearest-exact"))
            same("resize nearest", run(x, out, 0, 3, 2), F.interpolate(x.double(), out, mode="nearest"))
        x = rand(2, 3, 4, 5, 6, dtype=t)
        same("resize trilinear", run(x, (7, 3, 11), 1, 0), F.interpolate(x.double(), (7, 3, 11), mode="trilinear"), tol, 1.0)
        x = rand(2, 3, 9, dtype=t)
        same("resize 1d", run(x, (20,), 1, 0), F.interpolate(x.double(), (20,), mode="linear"), tol, 1.0)


# ---- speed, for orientation ------------------------------------------------------------------------------------------
def seconds(run, n=20):
    for _ in range(3): run()
    a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    a.record()
    for _ in range(n): run()
    b.record(); torch.cuda.synchronize()
    return a.elapsed_time(b) / 1e3 / n


def speed():
    lines = []
    global same
    keep, same = same, lambda *a, **k: None
    real = D.launch
    def timed(what, work, call):
        mine = []
        def note(*a, **k):
            if D.collecting: return real(*a, **k)
            mine.append(seconds(lambda: real(*a, **k)))
        globals()["launch"] = note
        try: call()
        finally: globals()["launch"] = real
        if mine: lines.append(f"{what:60} {sum(mine) * 1e6:9.1f} us {work / sum(mine):.3g}")
    for cfg in (dict(BLOCK_M=128, BLOCK_N=128, BLOCK_K=32, WARPS_M=2, WARPS_N=4, STAGES=4), dict(BLOCK_M=256, BLOCK_N=128, BLOCK_K=32, WARPS_M=4, WARPS_N=2, STAGES=3), dict(BLOCK_M=128, BLOCK_N=128, BLOCK_K=64, WARPS_M=2, WARPS_N=2, STAGES=3)):
        for tb in (0, 1): timed(f"gemm mma 2048 TB={tb} {list(cfg.values())}", 2 * 2048**3, lambda: gemm("gemm_mma_sm80.cu", dict(cfg, ALIGNED=1), f16, 2048, 2048, 2048, 0, tb))
    for cfg in (dict(BLOCK_M=128, BLOCK_N=128, BLOCK_K=8, THREAD_M=8, THREAD_N=8, VEC=4), dict(BLOCK_M=64, BLOCK_N=64, BLOCK_K=16, THREAD_M=4, THREAD_N=4, VEC=4)):
        timed(f"gemm simt f32 1024 {list(cfg.values())}", 2 * 1024**3, lambda: gemm("gemm_simt.cu", cfg, f4, 1024, 1024, 1024, 0, 0))
    for case in ((8, 64, 56, 56, 64, 3, 3, (1, 1), (1, 1), (1, 1), 1), (8, 256, 14, 14, 256, 3, 3, (1, 1), (1, 1), (1, 1), 1), (1, 512, 7, 7, 512, 3, 3, (1, 1), (1, 1), (1, 1), 1), (8, 3, 224, 224, 64, 7, 7, (2, 2), (3, 3), (1, 1), 1)):
        n, c, h, w, k, r, s, st, pd, dl, g = case
        work = 2 * n * k * c * r * s * out_size(h, r, st[0], pd[0], 1) * out_size(w, s, st[1], pd[1], 1)
        for bm, bn, bk, wm, wn in ((64, 128, 32, 2, 4), (64, 64, 64, 2, 2), (64, 64, 32, 2, 2)):
            timed(f"conv mma {case[:7]} {bm}x{bn}x{bk}", work, lambda: conv("conv_igemm_mma_sm80.cu", dict(BLOCK_M=bm, BLOCK_N=bn, BLOCK_K=bk, WARPS_M=wm, WARPS_N=wn, FILTER_H=r, FILTER_W=s, ALIGNED=int(c * r * s % 8 == 0)), f16, case, 0))
        for splits in (4, 16):
            if n * h * w < 2000: timed(f"conv mma {case[:7]} 64x64x64 split {splits}", work, lambda: conv_split(f16, dict(BLOCK_M=64, BLOCK_N=64, BLOCK_K=64, WARPS_M=2, WARPS_N=2), case, splits))
        for bm, bn, bk, tm, tn in ((64, 64, 8, 4, 4), (64, 64, 16, 4, 4), (64, 128, 16, 4, 8), (64, 64, 16, 8, 4)):
            timed(f"conv simt {case[:7]} {bm}x{bn}x{bk} {tm}x{tn}", work, lambda: conv("conv_igemm_simt.cu", dict(SUM_PART=128, BLOCK_M=bm, BLOCK_N=bn, BLOCK_K=bk, THREAD_M=tm, THREAD_N=tn, FILTER_H=r, FILTER_W=s), f4, case, 0))
    timed("depthwise 8x144x56x56 (bytes/s)", 2 * 2 * 8 * 144 * 56 * 56, lambda: conv("conv_depthwise.cu", dict(THREADS=128, OUTPUTS=4, FILTER_H=3, FILTER_W=3), f16, (8, 144, 56, 56, 144, 3, 3, (1, 1), (1, 1), (1, 1), 144), 0))
    n = 1 << 26
    a = rand(n, dtype=f16); y = torch.empty_like(a)
    timed("pointwise flat f16 add 64M (bytes/s)", 6 * n, lambda: flat([a, a], [y], "r0 = a0 + a1;", n, 8))
    timed("pointwise strided f16 (bytes/s)", 4 * n, lambda: launch("pointwise.cu", dict(THREADS=256, VEC=1, MODE=1, RANK=3, INDEX64=0, INNER_MASK=0), (132 * 16,), 256, [a, a, y, shape((256, 512, 512)), strides((512 * 512, 512, 1)) + strides((0, 1, 0))], pointwise_text(["f16"] * 2, ["f16"], "r0 = a0 + a1;")))
    timed("transpose u16 8192x8192 (bytes/s)", 4 * n, lambda: launch("strided_copy.cu", dict(T_UNIT="u16", MODE=1, RANK=2, THREADS=256, INDEX64=0), (256, 256), 256, [a, y, shape((8192, 8192)), strides((1, 8192)), i64(0)]))
    timed("softmax f16 65536x1024 warp (bytes/s)", 4 * n, lambda: launch("softmax.cu", dict(T_IN="f16", T_OUT="f16", LOG=0, MODE=0, THREADS=128, VEC=8, LANES=32, HOLD=32), (16384,), 128, [a, y, i64(65536), i64(1024), i64(1)]))
    timed("reduce sum f16 65536x1024 (bytes/s)", 2 * n, lambda: launch("reduce.cu", dict(T_IN="f16", T_OUT="f16", OP=0, LANES=32, THREADS=256, OUT_RANK=1, RED_RANK=1, VEC=8, INDEX64=0), (8192,), 256, [a, y, shape((65536,)), strides((1024,)), shape((1024,)), strides((1,)), i64(65536), i64(1024)]))
    same = keep
    return lines


def main():
    want = sys.argv[1:]
    tests = [(k, v) for k, v in globals().items() if k.startswith("test_") and (not want or any(w in k for w in want))]
    start = time.time()
    D.collecting = True
    for _, t in tests: t()
    if not want: speed()
    D.collecting = False
    print(f"{len(D.wanted)} kernels wanted after {time.time() - start:.0f} s", flush=True)
    bad = D.compile_wanted()
    print(f"compiled after {time.time() - start:.0f} s, {len(bad)} failed", flush=True)
    for b in bad[:5]: print(b[:1500])
    for name, t in tests:
        gen.manual_seed(1); torch.manual_seed(1)
        try:
            t(); torch.cuda.synchronize()
        except Exception as e:
            failures.append(f"{name}: {type(e).__name__} {str(e)[:600]}")
        print(f"{name} done after {time.time() - start:.0f} s, {len(failures)} failures so far", flush=True)
    if not want:
        try: print("\n".join(speed()))
        except Exception as e: print("speed:", str(e)[:500])
    shown = {}
    for f in failures:
        k = f.split(":")[0]; shown[k] = shown.get(k, 0) + 1
        if shown[k] <= 3: print("FAILED", f[:700])
    print(f"{sum(results.values())} comparisons, {len(failures)} failures {shown}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
