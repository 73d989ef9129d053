"""Compiles a file of kernels/ with NVRTC, headers handed over from memory, as the library does. No GPU is needed."""
import ctypes as C, glob, os, re, sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_rtc = None


def _lib():
    global _rtc
    if _rtc is None:
        dirs = [os.environ["NVRTC_DIR"]] if "NVRTC_DIR" in os.environ else [d for p in sys.path for d in glob.glob(p + "/nvidia/*/lib")]
        d = next(d for d in dirs + ["/usr/local/cuda/lib64"] if glob.glob(d + "/libnvrtc.so.13"))
        for f in glob.glob(d + "/libnvrtc-builtins.so.13*"):
            C.CDLL(f, mode=C.RTLD_GLOBAL)  # NVRTC opens it by its bare name
        _rtc = C.CDLL(d + "/libnvrtc.so.13")
    return _rtc


def headers(generated):
    """name -> text of every header a kernel may include"""
    found = {"common/" + os.path.basename(f): open(f).read() for f in glob.glob(ROOT + "/common/*.cuh")}
    found["generated.cuh"] = generated
    return found


def compile(file, defines, arch, generated="", name="kernel"):
    """-> (cubin, log with ptxas' report)"""
    r, prog = _lib(), C.c_void_p()
    hs = headers(generated)
    names = (C.c_char_p * len(hs))(*[k.encode() for k in hs])
    texts = (C.c_char_p * len(hs))(*[v.encode() for v in hs.values()])
    src = open(os.path.join(ROOT, file)).read().encode()
    assert r.nvrtcCreateProgram(C.byref(prog), src, file.encode(), len(hs), texts, names) == 0
    opts = ["-diag-suppress=186", "-diag-suppress=550", f"-arch={arch}", "--std=c++17", "-default-device", "--ptxas-options=-v", f"-DKERNEL_NAME={name}"]
    opts += [f"-D{k}={v}" for k, v in defines.items()]
    arr = (C.c_char_p * len(opts))(*[o.encode() for o in opts])
    rc = r.nvrtcCompileProgram(prog, len(opts), arr)
    n = C.c_size_t()
    r.nvrtcGetProgramLogSize(prog, C.byref(n))
    buf = C.create_string_buffer(n.value + 1)
    r.nvrtcGetProgramLog(prog, buf)
    log = buf.value.decode()
    if rc:
        r.nvrtcDestroyProgram(C.byref(prog))
        raise RuntimeError(f"{file} {defines} {arch}:\n{log[:3000]}")
    r.nvrtcGetCUBINSize(prog, C.byref(n))
    cubin = C.create_string_buffer(n.value)
    r.nvrtcGetCUBIN(prog, cubin)
    r.nvrtcDestroyProgram(C.byref(prog))
    return cubin.raw, log


def resources(log):
    """registers, bytes spilled, warnings"""
    reg = re.search(r"Used (\d+) registers", log)
    spill = re.search(r"(\d+) bytes spill stores", log)
    return int(reg.group(1)) if reg else -1, int(spill.group(1)) if spill else 0, [l for l in log.splitlines() if "warning" in l]
