"""Compiles every kernel file with corner parameters for every architecture; prints registers and spills, fails on an error.

    python kernels/check/compile_all.py [part of a file name] [--arch sm_90a]
"""
import os, sys, time, concurrent.futures as cf
import nvrtc

ARCHS = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a"]
FLOATS = ["float", "f16", "bf16", "double"]
INTS = ["i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "bool"]
RELU = "#define N_EXTRA 0\nDEVICE ACC epilogue(ACC x) { return op::relu(x); }\n"
RESIDUAL = "#define N_EXTRA 2\n#define T_EXTRA0 f16\n#define T_EXTRA1 float\nDEVICE ACC epilogue(ACC x, ACC e0, ACC e1) { return op::gelu_erf(x + e0) * e1; }\n"


def pointwise_text(ins, outs, body):
    """what the generator writes for operand types and a body over a0.. and r0.."""
    lines = [f"#define N_IN {len(ins)}", f"#define N_OUT {len(outs)}"]
    lines += [f"#define T_IN{i} {t}" for i, t in enumerate(ins)] + [f"#define T_OUT{i} {t}" for i, t in enumerate(outs)]
    params = [f"Compute<{t}>::type a{i}" for i, t in enumerate(ins)] + [f"Compute<{t}>::type& r{i}" for i, t in enumerate(outs)]
    return "\n".join(lines) + f"\nDEVICE void body({', '.join(params)})\n{{\n    {body}\n}}\n"


UNARY = "relu sigmoid tanh exp expm1 log log1p sqrt rsqrt reciprocal abs neg floor ceil round_even sign erf gelu_erf gelu_tanh silu hard_swish softplus softsign mish sin cos tan asin acos atan sinh cosh asinh acosh atanh square".split()
WITH_ARGS = "leaky_relu(x, c) prelu(x, c) clip(x, -c, c) quick_gelu(x, c) swish(x, c) hard_sigmoid(x, c, c) elu(x, c) selu(x, c, c) celu(x, c) thresholded_relu(x, c) shrink(x, c, c) add(x, c) sub(x, c) mul(x, c) div(x, c) mod(x, c) fmod(x, c) pow(x, c) min(x, c) max(x, c) atan2(x, c)".split(") ")
BODY_FLOAT = ("auto x = a0; auto c = decltype(x)(0.5); auto s = x;\n" + "".join(f"    s = s + op::{u}(x);\n" for u in UNARY)
              + "".join(f"    s = s + op::{w.rstrip(')')});\n" for w in WITH_ARGS)
              + "    s = op::where(op::logical_or(op::is_nan(x), op::is_inf(x, true, false)), s, c);\n    r0 = s;")
BODY_INT = ("auto x = a0; auto c = decltype(x)(3); auto s = x;\n    "
            + " ".join(f"s = op::add(s, op::{o}(x, c));" for o in "sub mul div mod fmod min max pow bit_and bit_or bit_xor shift_left shift_right".split())
            + " s = op::where(op::lt(x, c), op::abs(op::bit_not(s)), op::relu(s)); r0 = op::sign(s);")


def cases():
    """(file, defines, generated, first architecture)"""
    pw = lambda g, **d: ("pointwise.cu", dict(THREADS=256, **d), g, 75)
    for t in FLOATS:
        yield pw(pointwise_text([t], [t], BODY_FLOAT), VEC=1, MODE=0, SCALAR_MASK=0)
    for t in INTS[:-1]:
        yield pw(pointwise_text([t], [t], BODY_INT), VEC=4, MODE=0, SCALAR_MASK=0)
    casts = [(a, b) for a in FLOATS + INTS for b in FLOATS + INTS]
    for at in range(0, len(casts), 4):
        four = casts[at:at + 4]
        text = pointwise_text([a for a, _ in four], [b for _, b in four], " ".join(f"r{i} = op::cast<Compute<{b}>::type>(a{i});" for i, (_, b) in enumerate(four)))
        if at % 5 == 0: yield pw(text, VEC=2, MODE=0, SCALAR_MASK=0)
    twelve = pointwise_text(["f16", "float", "i64"] * 4, ["f16", "bool", "double", "i32"], "r0 = a0 + a1 * a3 + a4 + a6 + a7 + a9 + a10; r1 = op::lt(a2, a5); r2 = (double)a0; r3 = op::cast<i32>(a8 + a11);")
    yield pw(twelve, VEC=4, MODE=0, SCALAR_MASK=5)
    for rank in (1, 4, 8):
        yield pw(twelve, VEC=1, MODE=1, RANK=rank, INDEX64=rank == 8 and 1 or 0, INNER_MASK=0)
    yield pw(twelve, VEC=8, MODE=1, RANK=3, INDEX64=0, INNER_MASK=0xF0F)
    yield pw(pointwise_text([], ["f16"], "r0 = 1.0f;"), VEC=8, MODE=0, SCALAR_MASK=0)

    for t in FLOATS:
        for ta, tb in ((0, 0), (0, 1), (1, 0), (1, 1)):
            d = dict(T_IN=t, T_OUT="float" if t == "f16" else t, T_BIAS=t, TRANS_A=ta, TRANS_B=tb, HAS_BIAS=1, BIAS_ROWS=ta)
            yield "gemm_simt.cu", dict(d, BLOCK_M=64, BLOCK_N=64, BLOCK_K=16, THREAD_M=4, THREAD_N=4, VEC=1 if ta else 4 if t != "double" else 2, EPILOGUE=tb), RELU, 75
    f = dict(T_IN="float", T_OUT="float", TRANS_A=0, TRANS_B=0, HAS_BIAS=0, BIAS_ROWS=0, EPILOGUE=0)
    for bm, bn, bk, tm, tn, v in ((128, 128, 8, 8, 8, 4), (128, 64, 16, 8, 4, 4), (32, 32, 32, 2, 4, 4), (16, 64, 16, 1, 4, 1), (16, 16, 16, 1, 1, 1)):
        yield "gemm_simt.cu", dict(f, BLOCK_M=bm, BLOCK_N=bn, BLOCK_K=bk, THREAD_M=tm, THREAD_N=tn, VEC=v), "", 75
    for t in ("f16", "bf16"):
        for ta, tb in ((0, 0), (0, 1), (1, 0), (1, 1)):
            d = dict(T_IN=t, T_OUT=t, T_BIAS=t, TRANS_A=ta, TRANS_B=tb, HAS_BIAS=1, BIAS_ROWS=0)
            yield "gemm_mma_sm80.cu", dict(d, BLOCK_M=128, BLOCK_N=128, BLOCK_K=32, WARPS_M=2, WARPS_N=4, STAGES=4, ALIGNED=1, EPILOGUE=1), RESIDUAL, 80
            yield "gemm_mma_sm80.cu", dict(d, BLOCK_M=32, BLOCK_N=32, BLOCK_K=16, WARPS_M=2, WARPS_N=2, STAGES=2, ALIGNED=0, EPILOGUE=0), "", 80
    for bm, bn, bk, wm, wn, st in ((256, 128, 32, 4, 2, 3), (128, 256, 32, 2, 4, 3), (64, 64, 64, 2, 2, 3), (64, 128, 64, 2, 2, 4)):
        yield "gemm_mma_sm80.cu", dict(T_IN="f16", T_OUT="f16", TRANS_A=0, TRANS_B=1, HAS_BIAS=0, BIAS_ROWS=0, BLOCK_M=bm, BLOCK_N=bn, BLOCK_K=bk, WARPS_M=wm, WARPS_N=wn, STAGES=st, ALIGNED=1, EPILOGUE=0), "", 80

    for t in FLOATS:
        for fh, fw in ((0, 0), (1, 1), (3, 3), (7, 7)):
            d = dict(T_IN=t, T_OUT=t, T_BIAS=t, HAS_BIAS=1, FILTER_H=fh, FILTER_W=fw, EPILOGUE=1)
            yield "conv_igemm_simt.cu", dict(d, BLOCK_M=64, BLOCK_N=64, BLOCK_K=8, THREAD_M=4, THREAD_N=4, SUM_PART=128), RELU, 75
            yield "conv_depthwise.cu", dict(d, THREADS=128, OUTPUTS=4 if fh != 7 else 1), RELU, 75
            if t in ("f16", "bf16"):
                yield "conv_igemm_mma_sm80.cu", dict(d, BLOCK_M=64, BLOCK_N=128, BLOCK_K=32, WARPS_M=2, WARPS_N=4, ALIGNED=1), RESIDUAL, 80
                yield "conv_igemm_mma_sm80.cu", dict(d, BLOCK_M=32, BLOCK_N=32, BLOCK_K=16, WARPS_M=2, WARPS_N=2, ALIGNED=0), RELU, 80
        for fl in ("conv_direct.cu", "conv_transpose.cu"):
            yield fl, dict(T_IN=t, T_OUT=t, T_BIAS=t, HAS_BIAS=1, THREADS=128, EPILOGUE=1), RELU, 75
    yield "conv_igemm_simt.cu", dict(T_IN="float", T_OUT="float", HAS_BIAS=0, FILTER_H=3, FILTER_W=3, EPILOGUE=0, BLOCK_M=128, BLOCK_N=128, BLOCK_K=8, THREAD_M=8, THREAD_N=8, SUM_PART=0), "", 75
    yield "conv_igemm_mma_sm80.cu", dict(T_IN="f16", T_OUT="f16", HAS_BIAS=0, FILTER_H=3, FILTER_W=3, EPILOGUE=0, BLOCK_M=128, BLOCK_N=128, BLOCK_K=32, WARPS_M=2, WARPS_N=4, ALIGNED=1), "", 80

    for t in FLOATS:
        yield "split_finish.cu", dict(T_PART="double" if t == "double" else "float", T_OUT=t, T_BIAS=t, HAS_BIAS=1, BIAS_DIM=1, EPILOGUE=1, THREADS=256, INDEX64=int(t == "f16")), RESIDUAL, 75

    for op in range(12):
        for i, t in enumerate(FLOATS + INTS[:-1]):
            if op in (7, 8, 9) and t not in FLOATS: continue
            lanes = (1, 32, 256)[(i + op) % 3]
            vec = 1 if lanes == 1 else 4 if t != "double" else 2
            yield "reduce.cu", dict(T_IN=t, T_OUT="i64" if op > 9 else t, OP=op, LANES=lanes, THREADS=256, OUT_RANK=1 + i % 4, RED_RANK=1 if vec > 1 else 1 + op % 3, VEC=vec, INDEX64=i % 2, SELECT_LAST=i % 2), "", 75
    for t in FLOATS:
        for log in (0, 1):
            for vec in (1, 2):
                yield "softmax.cu", dict(T_IN=t, T_OUT=t, LOG=log, MODE=0, THREADS=128, VEC=vec, LANES=(32, 8)[log], HOLD=32), "", 75
                yield "softmax.cu", dict(T_IN=t, T_OUT=t, LOG=log, MODE=1, THREADS=256, VEC=vec), "", 75
            yield "softmax.cu", dict(T_IN=t, T_OUT=t, LOG=log, MODE=2, THREADS=256, VEC=1), "", 75
    for u in ("u8", "u16", "u32", "u64", "uint4"):
        for ix in ("i32", "i64"):
            yield "gather.cu", dict(T_UNIT=u, T_INDEX=ix, THREADS=256), "", 75
        for rank in (1, 3, 8):
            yield "strided_copy.cu", dict(T_UNIT=u, MODE=0, RANK=rank, THREADS=256, INDEX64=rank % 2), "", 75
            if rank > 1: yield "strided_copy.cu", dict(T_UNIT=u, MODE=1, RANK=rank, THREADS=256, INDEX64=0), "", 75
        yield "concat_rows.cu", dict(T_UNIT=u, THREADS=256), "", 75
        if u != "uint4":
            for mode in range(4):
                yield "pad.cu", dict(T_UNIT=u, MODE=mode, RANK=(1, 4, 8)[mode % 3], THREADS=256, INDEX64=0), "", 75
            yield "fill.cu", dict(T_UNIT=u, VEC=1 if u == "u64" else 4, THREADS=256), "", 75
    for t in FLOATS:
        for op in range(3):
            yield "pool.cu", dict(T_IN=t, OP=op, HAS_INDEX=1 if op == 0 else 0, COLUMN_MAJOR=0, THREADS=256), "", 75
        for coord in range(6):
            for mode in range(3):
                yield "resize.cu", dict(T_IN=t, MODE=mode, COORD=coord, ROUND=coord % 4, EXCLUDE_OUTSIDE=coord % 2, ACTIVE=1 + (coord + mode) % 3, THREADS=256), "", 75
    for t in INTS[:-1]:
        yield "pool.cu", dict(T_IN=t, OP=0, HAS_INDEX=0, COLUMN_MAJOR=0, THREADS=256), "", 75
        yield "resize.cu", dict(T_IN=t, MODE=0, COORD=0, ROUND=0, ACTIVE=2, THREADS=256), "", 75


def main():
    args = sys.argv[1:]
    archs = [args.pop(args.index("--arch") + 1)] if "--arch" in args else ARCHS
    args = [a for a in args if a != "--arch"]
    want = [a for a in args if not a.startswith("--")]
    todo = [(f, d, g, a) for f, d, g, first in cases() for a in archs if int(a[3:].rstrip("a")) >= first and (not want or any(w in f for w in want))]
    bad, worst, warned, start = [], {}, set(), time.time()

    def job(c):
        try: return c, nvrtc.resources(nvrtc.compile(c[0], c[1], c[3], c[2])[1]), None
        except RuntimeError as e: return c, None, str(e)

    with cf.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (f, d, g, a), res, err in pool.map(job, todo):
            if err:
                bad.append(err)
                if len(bad) < 6: print("FAILED", err, flush=True)
                continue
            regs, spill, warns = res
            w = worst.setdefault(f, [0, 0, 0, None])
            w[0] += 1; w[1] = max(w[1], regs)
            if spill > w[2]: w[2], w[3] = spill, (a, d)
            for line in warns:
                if line not in warned and len(warned) < 20: print(f, line)
                warned.add(line)
    for f, (n, regs, spill, where) in sorted(worst.items()):
        print(f"{f:26} {n:4} compiled, at most {regs:3} registers, {spill} bytes spilled {where or ''}")
    print(f"{len(todo)} compiles, {len(bad)} failed, {time.time() - start:.0f} s")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
