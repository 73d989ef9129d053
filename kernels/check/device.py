"""Launches kernels on torch's current CUDA context, and packs arguments as the library does."""
import ctypes as C, struct, concurrent.futures as cf
import torch
import nvrtc

NAME = {torch.float32: "float", torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "double", torch.int8: "i8", torch.uint8: "u8",
        torch.int16: "i16", torch.int32: "i32", torch.int64: "i64", torch.bool: "bool"}
_cu = C.CDLL("libcuda.so.1")
collecting, wanted, cubins, functions = False, {}, {}, {}


def check(rc, what):
    if rc: raise RuntimeError(f"{what}: CUDA error {rc}")


def arch():
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}" + ("a" if major >= 9 else "")


def key(file, defines, generated): return file, tuple(defines.items()), generated


def compile_wanted(workers=16):
    """compiles what the collecting pass asked for; returns the failures"""
    def job(item):
        k, (file, defines, generated) = item
        try: return k, nvrtc.compile(file, defines, arch(), generated)[0]
        except RuntimeError as e: return k, str(e)
    bad = []
    with cf.ThreadPoolExecutor(workers) as pool:
        for k, r in pool.map(job, wanted.items()):
            if isinstance(r, str): bad.append(r)
            else: cubins[k] = r
    return bad


def _pack(a):
    if isinstance(a, bytes): return C.create_string_buffer(a, len(a))
    if a is None: return C.c_void_p(0)
    if isinstance(a, torch.Tensor): return C.c_void_p(a.data_ptr())
    return a


def launch(file, defines, grid, block, args, generated="", smem=0):
    """one launch; in the collecting pass only notes what must be compiled"""
    k = key(file, defines, generated)
    if collecting:
        wanted[k] = (file, defines, generated)
        return
    if k not in functions:
        if k not in cubins: raise RuntimeError("not compiled")
        mod, fn = C.c_void_p(), C.c_void_p()
        check(_cu.cuModuleLoadData(C.byref(mod), cubins[k]), file)
        check(_cu.cuModuleGetFunction(C.byref(fn), mod, b"kernel"), file)
        functions[k] = fn
    fn = functions[k]
    if smem > 48 * 1024: check(_cu.cuFuncSetAttribute(fn, 8, smem), "shared memory")
    packed = [_pack(a) for a in args]
    ptrs = (C.c_void_p * len(packed))(*[C.addressof(p) for p in packed])
    grid = tuple(grid) + (1,) * (3 - len(grid))
    stream = C.c_void_p(torch.cuda.current_stream().cuda_stream)
    check(_cu.cuLaunchKernel(fn, *[C.c_uint(g) for g in grid], block, 1, 1, smem, stream, ptrs, None), f"{file} {defines}")


def i64s(*v): return struct.pack(f"{len(v)}q", *v)
def i32s(*v): return struct.pack(f"{len(v)}I", *[x & 0xFFFFFFFF for x in v])
def i64(v): return C.c_longlong(v)
def f32(v): return C.c_float(v)
def bits(v): return struct.unpack("I", struct.pack("f", v))[0]


def magic(d):
    """(magic, shift) of common/index.cuh"""
    shift = (d - 1).bit_length()
    return (((1 << 32) * ((1 << shift) - d)) // d + 1) & 0xFFFFFFFF, shift


def shape(dims):
    pad = list(dims) + [1] * (8 - len(dims))
    m = [magic(d) for d in pad]
    return i32s(*pad, *[a for a, _ in m], *[b for _, b in m])


def strides(s): return i64s(*(list(s) + [0] * (8 - len(s))))
def dense(dims):
    r, n = [], 1
    for d in reversed(dims): r.insert(0, n); n *= d
    return r
def cdiv(a, b): return -(-a // b)
