"""What a generator makes: a one-node model and operands for it; and how its results are compared."""

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper, numpy_helper

F32, F16, BF16, F64 = np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float64)
I8, U8, I16, U16 = (np.dtype(t) for t in (np.int8, np.uint8, np.int16, np.uint16))
I32, U32, I64, U64 = (np.dtype(t) for t in (np.int32, np.uint32, np.int64, np.uint64))
BOOL = np.dtype(np.bool_)
FLOATS = [F32, F32, F32, F16, BF16, F64]
SIGNED = [I8, I16, I32, I64]
INTS = SIGNED + [U8, U16, U32, U64]
NUMBERS = FLOATS + INTS
ANY = NUMBERS + [BOOL]

TOLERANCE = {F32: (1e-3, 2e-5), F16: (5e-3, 2e-3), BF16: (2e-2, 1e-2), F64: (1e-6, 1e-8)}


def is_float(dtype):
    return dtype.kind == "f" or (dtype.kind == "V" and dtype.name.startswith(("bfloat", "float")))


class Rng:
    """Random choices of one problem."""

    def __init__(self, seed):
        self.r = np.random.default_rng(seed)

    def int(self, low, high):
        """low to high, both included."""
        return int(self.r.integers(low, high + 1))

    def chance(self, p):
        return bool(self.r.random() < p)

    def pick(self, *options):
        options = options[0] if len(options) == 1 else options
        return options[self.int(0, len(options) - 1)]

    def float(self, low, high):
        return float(self.r.uniform(low, high))

    def dim(self, empty=0.04):
        """A size: mostly small and odd, sometimes 1, 0 or large."""
        if self.chance(empty):
            return 0
        return self.pick(1, 2, 3, 3, 4, 5, 7, 8, 9, 13, 16, 17, 33) if self.chance(0.9) else self.int(34, 130)

    def shape(self, low=0, high=4, empty=0.04, limit=20000):
        shape = [self.dim(empty) for _ in range(self.int(low, high))]
        while int(np.prod(shape)) > limit:
            shape[self.int(0, len(shape) - 1)] = self.int(1, 3)
        return shape

    def redraw(self, shape, fixed=()):
        """Another shape of the same rank; zeros, ones and the axes in `fixed` stay."""
        new = lambda d: d if self.chance(0.3) else self.pick(2, 3, 4, 5, 6, 8, 11, 19)
        return [d if d < 2 or i in fixed else new(d) for i, d in enumerate(shape)]

    def axis(self, rank):
        return self.int(-rank, rank - 1)

    def axes(self, rank, low=1):
        n = self.int(min(low, rank), rank)
        return [int(a) - (rank if self.chance(0.4) else 0) for a in self.r.permutation(rank)[:n]]

    def data(self, dtype, shape, low=-4.0, high=4.0):
        """Numbers of a type; floating-point ones lie in the range, integers in what fits the type around it."""
        dtype, shape = np.dtype(dtype), tuple(shape)
        if dtype == BOOL:
            return self.r.random(shape) < 0.5
        if is_float(dtype):
            return np.asarray(self.r.uniform(low, high, shape)).astype(dtype)
        low, high = (low * 5, high * 5) if (low, high) == (-4.0, 4.0) else (low, high)
        if dtype.kind == "u" or dtype.name.startswith("uint"):
            low = max(low, 0)
        return np.asarray(self.r.integers(int(low), int(high) + 1, shape)).astype(dtype)

    def broadcast(self, shape):
        """A shape that broadcasts to this one: axes that are 1, and leading ones that are missing."""
        out = [1 if self.chance(0.3) else d for d in shape]
        return out[self.int(0, len(out)) :] if self.chance(0.4) else out


class Spec:
    """One node, and how to draw operands for it.

    `draw(r)` returns a list of arrays (None: absent). It is called several times: ranks and types must stay the same,
    shapes may change. `const` lists operands that are constants of the model rather than inputs with the probability
    `p_const`; `always_const` those that have to be. `tol` multiplies tolerances. `oracle` names a preferred one:
    "reference", "reference only", "ort only", or "f32" (ONNX Runtime on f32, whatever the type).
    """

    def __init__(self, op, draw, attrs=None, opset=None, domain="", n_out=1, const=(), p_const=0.7, always_const=(), tol=1.0,
                 oracle=None, check=None):
        self.op, self.draw, self.attrs, self.domain, self.n_out = op, draw, dict(attrs or {}), domain, n_out
        self.opset, self.const, self.p_const, self.always_const = opset, tuple(const), p_const, tuple(always_const)
        self.tol, self.oracle, self.check = tol, oracle, check


def onnx_type(dtype):
    return helper.np_dtype_to_tensor_dtype(dtype)


class Model:
    """A spec with its operands drawn: a model with constants, and one or several sets of inputs."""

    def __init__(self, spec, r, dynamic, n_sets):
        draws = [spec.draw(r) for _ in range(n_sets if dynamic else 1)]
        first = draws[0]
        present = [i for i, x in enumerate(first) if x is not None]
        fixed = set(spec.always_const) | {i for i in spec.const if r.chance(spec.p_const)}
        fixed &= set(present)
        if len(fixed) == len(present) and present and 0 not in spec.always_const:
            fixed.discard(present[0])

        def fits(x):
            if [v is None for v in x] != [v is None for v in first]:
                return False
            same = all(x[i].dtype == first[i].dtype and x[i].ndim == first[i].ndim for i in present)
            return same and all(x[i].shape == first[i].shape and x[i].tobytes() == first[i].tobytes() for i in fixed)

        self.sets = [{f"x{i}": x[i] for i in present if i not in fixed} for x in draws if fits(x)]
        symbols = {}

        def dims(i):
            out = []
            for axis in range(first[i].ndim):
                sizes = tuple(s[f"x{i}"].shape[axis] for s in self.sets)
                # How long a vector of axes or sizes is decides ranks: that is fixed.
                settled = i in spec.const and len(set(sizes)) == 1
                if not dynamic or settled or sizes == (1,) * len(sizes):
                    out.append(sizes[0])
                else:
                    out.append(symbols.setdefault(sizes, f"d{len(symbols)}"))
            return out

        declared = [(f"x{i}", first[i].dtype, dims(i)) for i in present if i not in fixed]
        names = [f"x{i}" if x is not None else "" for i, x in enumerate(first)]
        while names and not names[-1]:
            names.pop()
        outputs = [f"y{i}" for i in range(spec.n_out)] if isinstance(spec.n_out, int) else list(spec.n_out)
        node = helper.make_node(spec.op, names, outputs, domain=spec.domain, **spec.attrs)
        values = [helper.make_tensor_value_info(o, TensorProto.UNDEFINED, None) for o in outputs if o]
        for v in values:
            v.ClearField("type")
        constants = [(f"x{i}", first[i]) for i in sorted(fixed)]
        opset = spec.opset or (1 if spec.domain else 21)
        imports = [helper.make_opsetid(spec.domain, opset)] if spec.domain == "" else [
            helper.make_opsetid("", 21), helper.make_opsetid(spec.domain, opset)]

        def proto(retype):
            inputs = [helper.make_tensor_value_info(n, onnx_type(retype(t)), d) for n, t, d in declared]
            tensors = [numpy_helper.from_array(np.ascontiguousarray(x.astype(retype(x.dtype))).reshape(x.shape), n) for n, x in constants]
            graph = helper.make_graph([node], spec.op, inputs, values, tensors)
            return helper.make_model(graph, opset_imports=imports, ir_version=10)

        self.proto = proto(lambda t: t)
        # The same in f32, for oracles that lack half types or sum in them.
        self.others = (F16, BF16, F64) if spec.oracle == "f32" else (F16, BF16)
        other = any(x is not None and x.dtype in self.others for x in first)
        self.wide = proto(lambda t: F32 if t in self.others else t) if other else None
        self.spec = spec
        self.text = self._text(first, fixed, dynamic, opset)

    def _text(self, first, fixed, dynamic, opset):
        def operand(i, x):
            if x is None:
                return "-"
            known = f"={x.reshape(-1).tolist()}" if i in fixed and x.size < 9 else "=const" if i in fixed else ""
            return f"{x.dtype.name}{list(x.shape)}{known}"

        short = lambda v: ".." if not isinstance(v, (int, float, str, list)) or (isinstance(v, list) and len(v) > 12) else v
        attrs = ", ".join(f"{k}={short(v)}" for k, v in self.spec.attrs.items())
        inputs = ", ".join(operand(i, x) for i, x in enumerate(first))
        return f"{self.spec.op}-{opset}({inputs}; {attrs}){' dynamic' if dynamic else ''}"


def as_float(x):
    return x.astype(np.float64)


def differences(got, want, tol, loose=None):
    """What is wrong with an output, or None. `loose`: tolerances of f64 where the oracle has less."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype.name}{list(got.shape)} instead of {want.dtype.name}{list(want.shape)}"
    if got.size == 0:
        return None
    if not is_float(got.dtype):
        bad = got.astype(np.int64) != want.astype(np.int64) if got.dtype.kind == "V" or got.dtype.name[-1] in "24" else got != want
        limit = 0
    else:
        rtol, atol = TOLERANCE.get(got.dtype, (1e-6, 1e-6))
        if loose and got.dtype == F64:
            rtol, atol = loose
        a, b = as_float(got), as_float(want)
        with np.errstate(all="ignore"):
            finite = b[np.isfinite(b)]
            scale = max(1.0, float(np.sqrt(np.mean(finite * finite)))) if finite.size else 1.0
            limit = tol * (atol * scale + rtol * np.abs(b))
            bad = ~((a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= limit))
    if not bad.any():
        return None
    at = tuple(int(i) for i in np.argwhere(bad)[0]) if bad.ndim else ()
    return f"{int(bad.sum())} of {bad.size} elements differ; {list(at)} is {got[at]}, expected {want[at]}"


def truncated(got, want, inputs):
    """An interpolated value that is whole but for rounding is cut off to either side: by one, at a quarter of the elements at most."""
    return off_by_one(got, want, inputs, 4)


def off_by_one(got, want, inputs, share=50):
    """A product that lies on a half rounds either way: few elements may differ by one."""
    out = []
    for g, w in zip(got, want):
        w = np.asarray(w)
        if g.shape != w.shape or g.dtype != w.dtype or is_float(g.dtype):
            out.append(differences(g, w, 2))
            continue
        d = np.abs(g.astype(np.int64) - w.astype(np.int64))
        few = (d > 0).sum() <= max(1, g.size // share)
        out.append(None if d.max(initial=0) <= 1 and few else differences(g, w, 1))
    return out
