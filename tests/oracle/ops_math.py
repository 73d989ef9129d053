"""Element-wise operators, reductions, products, scans."""

import numpy as np

from problem import (ANY, BF16, BOOL, F16, F32, F64, FLOATS, I8, I16, I32, I64, INTS, NUMBERS, SIGNED, U8, U16, U32, U64, Spec,
                     is_float)

OPS = {}
# What ONNX Runtime computes; others go to onnx.reference.
WIDE = [F32, F32, F64, I32, I64]


def op(*names):
    def put(make):
        for name in names:
            OPS[name] = lambda r, name=name: make(r, name)
        return make

    return put


def unary(name, types=FLOATS, low=-4.0, high=4.0, attrs=None, tol=1.0, opset=None):
    def make(r):
        dtype, shape = r.pick(types), r.shape()
        return Spec(name, lambda r: [r.data(dtype, r.redraw(shape), low, high)], attrs(r) if attrs else {}, opset, tol=tol)

    OPS[name] = make


for name in ["Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Mish", "Relu", "Round", "Sigmoid", "Sin", "Softplus", "Softsign",
             "Tanh", "Asinh", "Atan", "Sinh", "Cosh"]:
    unary(name, opset=22 if name in ("HardSwish", "Mish", "Softplus", "Softsign", "Asinh", "Atan", "Cos", "Sin", "Round", "Sinh", "Cosh") else None)
unary("Tan", low=-1.4, high=1.4)
for name in ["Acos", "Asin", "Atanh"]:
    unary(name, low=-0.99, high=0.99)
unary("Acosh", low=1.0, high=8.0)
for name in ["Log", "Sqrt"]:
    unary(name, low=0.01, high=9.0)
unary("Reciprocal", low=0.2, high=5.0)
unary("Abs", NUMBERS)
unary("Neg", FLOATS + SIGNED)
unary("Sign", NUMBERS)
unary("Not", [BOOL])
unary("Identity", ANY)
unary("BitwiseNot", INTS)
alpha = lambda low, high: lambda r: {"alpha": r.float(low, high)} if r.chance(0.7) else {}
unary("Elu", attrs=alpha(0.1, 3), opset=22)
unary("Celu", [F32], attrs=alpha(0.1, 3))
unary("LeakyRelu", attrs=alpha(-0.5, 1.5))
# The threshold is cast to x's type by definition, so it is one that every type holds: comparing with it has no rounding.
unary("ThresholdedRelu", attrs=lambda r: {"alpha": r.int(-8, 16) / 8} if r.chance(0.7) else {}, opset=22)
unary("Selu", attrs=lambda r: {"alpha": r.float(0.5, 2), "gamma": r.float(0.5, 2)} if r.chance(0.5) else {}, opset=22)
unary("HardSigmoid", attrs=lambda r: {"alpha": r.float(0.1, 0.5), "beta": r.float(0.1, 0.9)} if r.chance(0.5) else {}, opset=22)
unary("Shrink", attrs=lambda r: {"bias": r.float(-0.5, 0.5), "lambd": r.float(0.1, 1.0)} if r.chance(0.7) else {})
unary("Gelu", attrs=lambda r: {"approximate": r.pick("none", "tanh")}, opset=20)
unary("Swish", [F32, F16, F64], attrs=alpha(0.2, 2), opset=24)


def special(name):
    """Infinities, NaN and zeros of both signs."""
    def make(r):
        dtype, shape = r.pick([F32, F16, F64]), r.shape()
        attrs = {"detect_positive": r.int(0, 1), "detect_negative": r.int(0, 1)} if name == "IsInf" and r.chance(0.7) else {}

        def draw(r):
            x = r.data(dtype, r.redraw(shape))
            x[r.r.random(x.shape) < 0.3] = np.inf
            x[r.r.random(x.shape) < 0.2] = -np.inf
            x[r.r.random(x.shape) < 0.2] = np.nan
            return [x]

        return Spec(name, draw, attrs, 20)

    OPS[name] = make


special("IsNaN")
special("IsInf")


def pair(r, types, high=None, nonzero=False):
    """Operands of a binary operator with numpy's broadcasting."""
    dtype, shape = r.pick(types), r.shape()
    a, b = (r.broadcast(shape), shape) if r.chance(0.5) else (shape, r.broadcast(shape))

    def draw(r):
        sizes = r.redraw(shape) if 0 not in shape else shape
        cut = lambda s: [1 if d == 1 else n for d, n in zip(s, sizes[len(sizes) - len(s) :])]
        x, y = r.data(dtype, cut(a)), r.data(dtype, cut(b))
        if nonzero:
            y = np.where(y == 0, np.ones_like(y), y)
            if is_float(dtype):
                y = np.where(np.abs(y.astype(np.float64)) < 0.2, np.ones_like(y), y)
        return [x, y]

    return dtype, draw


@op("Add", "Sub", "Mul")
def arithmetic(r, name):
    _, draw = pair(r, NUMBERS)
    return Spec(name, draw, const=(1,), p_const=0.3)


@op("Div")
def div(r, name):
    _, draw = pair(r, NUMBERS, nonzero=True)
    return Spec(name, draw, const=(1,), p_const=0.3)


@op("Mod")
def mod(r, name):
    dtype, draw = pair(r, [F32, F64, F16] + INTS, nonzero=True)
    # Near a multiple of the divisor a rounding decides between 0 and the divisor: these are numbers of few bits.
    fmod = 1 if is_float(dtype) else r.int(0, 1)
    coarse = lambda x: (np.round(x * 4) / 4).astype(x.dtype) if is_float(dtype) else x
    return Spec(name, lambda r: [coarse(v) if i == 0 else np.where(coarse(v) == 0, np.ones_like(v), coarse(v)) for i, v in enumerate(draw(r))],
                {"fmod": fmod})


@op("Pow")
def power(r, name):
    base, exponent = r.pick(FLOATS + [I32, I64]), r.pick([F32, F64, I32, I64, F32])
    if base == BF16:
        exponent = BF16
    shape = r.shape()
    other = r.broadcast(shape)
    kind = r.pick("any", "square", "half", "cube")

    def draw(r):
        sizes = r.redraw(shape) if 0 not in shape else shape
        cut = [1 if d == 1 else n for d, n in zip(other, sizes[len(sizes) - len(other) :])]
        y = r.data(exponent, cut, -2, 3) if is_float(exponent) else r.data(exponent, cut, 0, 3)
        if kind != "any":
            y = np.full(cut, {"square": 2, "half": 0.5, "cube": 3}[kind]).astype(exponent)
        return [r.data(base, sizes, 0.2, 3) if is_float(base) else r.data(base, sizes, 1, 5), y]

    return Spec(name, draw, const=(1,), p_const=0.5, tol=3)


@op("PRelu")
def prelu(r, name):
    dtype, shape = r.pick([F32, F16, F64, BF16, I32, I64]), r.shape(1)
    slope = r.broadcast(shape)

    def draw(r):
        sizes = r.redraw(shape) if 0 not in shape else shape
        return [r.data(dtype, sizes), r.data(dtype, [1 if d == 1 else n for d, n in zip(slope, sizes[len(sizes) - len(slope) :])])]

    return Spec(name, draw, const=(1,))


@op("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")
def compare(r, name):
    dtype, draw = pair(r, NUMBERS + ([BOOL] if name == "Equal" else []))

    def equal_often(r):
        x, y = draw(r)
        if r.chance(0.5) and x.shape == y.shape and x.ndim:
            y = np.where(r.r.random(x.shape) < 0.5, x, y)
        return [x, y]

    return Spec(name, equal_often, opset=19)


@op("And", "Or", "Xor")
def logic(r, name):
    return Spec(name, pair(r, [BOOL])[1])


@op("BitwiseAnd", "BitwiseOr", "BitwiseXor")
def bits(r, name):
    return Spec(name, pair(r, INTS)[1], opset=18)


@op("BitShift")
def shift(r, name):
    dtype, draw = pair(r, [U8, U16, U32, U64])
    return Spec(name, lambda r: [v % 8 if i else v for i, v in enumerate(draw(r))], {"direction": r.pick("LEFT", "RIGHT")}, 11)


@op("Max", "Min", "Sum", "Mean")
def variadic(r, name):
    dtype = r.pick(NUMBERS if name in ("Max", "Min") else FLOATS)
    shape, n = r.shape(), r.int(1, 5)
    parts = [r.broadcast(shape) if r.chance(0.5) else shape for _ in range(n)]

    def draw(r):
        sizes = r.redraw(shape) if 0 not in shape else shape
        return [r.data(dtype, [1 if d == 1 else s for d, s in zip(p, sizes[len(sizes) - len(p) :])]) for p in parts]

    return Spec(name, draw, const=(1, 2), p_const=0.2, opset=13)


@op("Clip")
def clip(r, name):
    dtype, shape = r.pick(NUMBERS), r.shape()
    low, high = r.chance(0.7), r.chance(0.7)

    def draw(r):
        bounds = sorted([r.data(dtype, []), r.data(dtype, [])], key=float)
        return [r.data(dtype, r.redraw(shape)), bounds[0] if low else None, bounds[1] if high else None]

    return Spec(name, draw, const=(1, 2))


@op("Where")
def where(r, name):
    dtype, shape = r.pick(ANY), r.shape()
    parts = [r.broadcast(shape) for _ in range(2)] + [shape]
    r.r.shuffle(parts)

    def draw(r):
        sizes = r.redraw(shape) if 0 not in shape else shape
        cut = lambda p: [1 if d == 1 else s for d, s in zip(p, sizes[len(sizes) - len(p) :])]
        return [r.data(BOOL, cut(parts[0])), r.data(dtype, cut(parts[1])), r.data(dtype, cut(parts[2]))]

    return Spec(name, draw, const=(1, 2), p_const=0.2)


@op("Cast", "CastLike")
def cast(r, name):
    a, b, shape = r.pick(ANY), r.pick(ANY), r.shape()
    from problem import onnx_type

    def draw(r):
        # In the range of every type, so that nothing is left to the platform.
        x = r.data(a, r.redraw(shape), 0, 100) if b.kind in "ub" or a.kind == "u" else r.data(a, r.redraw(shape), -100, 100)
        return [x] if name == "Cast" else [x, np.zeros([1], b)]

    return Spec(name, draw, {"to": onnx_type(b)} if name == "Cast" else {}, 19)


REDUCTIONS = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare", "ReduceL1", "ReduceL2",
              "ReduceLogSum", "ReduceLogSumExp"]


@op(*REDUCTIONS)
def reduce(r, name):
    types = [F32, F32, F64, I32, I64, F16, BF16]
    if name in ("ReduceMax", "ReduceMin"):
        types = types + [I8, U8, BOOL]
    if name in ("ReduceLogSum", "ReduceLogSumExp", "ReduceL2", "ReduceMean"):
        types = [F32, F32, F64, F16, BF16]
    dtype, shape = r.pick(types), r.shape(0, 5, empty=0.02)
    given = r.chance(0.85)
    axes = r.axes(len(shape), low=0) if shape else []
    low, high = (0.3, 1.6) if name in ("ReduceProd", "ReduceLogSum") else (-4.0, 4.0)
    attrs = {"keepdims": r.int(0, 1)} if r.chance(0.7) else {}
    if r.chance(0.3):
        attrs["noop_with_empty_axes"] = r.int(0, 1)
    fixed = [i for i, d in enumerate(shape) if d == 0]

    def draw(r):
        x = r.data(dtype, r.redraw(shape, fixed), low, high) if dtype != BOOL else r.data(BOOL, r.redraw(shape, fixed))
        if name == "ReduceProd" and not is_float(dtype):
            x = (x % 3).astype(dtype)
        return [x, np.array(axes, np.int64)] if given else [x]

    # ONNX Runtime gives other shapes than ONNX for empty inputs; onnx.reference widens u32.
    return Spec(name, draw, attrs, 20, const=(1,), p_const=0.8, tol=3, oracle="reference" if 0 in shape else None)


@op("ArgMax", "ArgMin")
def arg(r, name):
    dtype, shape = r.pick([F32, F64, I32, I8, U8, F16, I64]), r.shape(1, 4, empty=0)
    attrs = {"axis": r.axis(len(shape)), "keepdims": r.int(0, 1), "select_last_index": r.int(0, 1)}

    def draw(r):
        x = r.data(dtype, r.redraw(shape))
        return [np.round(x).astype(dtype) if r.chance(0.6) else x]  # with equal elements

    return Spec(name, draw, attrs, 13)


@op("CumSum", "CumProd")
def scan(r, name):
    dtype, shape = r.pick([F32, F64, I32, I64, F16]), r.shape(1, 4)
    axis = r.axis(len(shape))
    draw = lambda r: [r.data(dtype, r.redraw(shape), -1.5, 1.5), np.array(axis, r.pick([np.int64, np.int32]))]
    return Spec(name, draw, {"exclusive": r.int(0, 1), "reverse": r.int(0, 1)}, 14 if name == "CumSum" else 26, const=(1,), tol=3)


@op("Softmax", "LogSoftmax", "Hardmax")
def softmax(r, name):
    dtype, shape = r.pick(FLOATS), r.shape(1, 4, empty=0.02)
    attrs = {"axis": r.axis(len(shape))} if r.chance(0.8) else {}
    opset = r.pick(13, 13, 11)
    if opset == 11:
        attrs = {"axis": r.int(0, len(shape) - 1)}
    # onnx.reference has the later meaning of the axis only.
    return Spec(name, lambda r: [r.data(dtype, r.redraw(shape))], attrs, opset, oracle="f32" if opset == 11 else None)


@op("MatMul")
def matmul(r, name):
    dtype = r.pick([F32, F32, F32, F16, BF16, F64, I32, I64, U32])
    batch = [r.dim() for _ in range(r.int(0, 2))]
    a, b = r.broadcast(batch), r.broadcast(batch)
    if r.chance(0.5):
        a = batch
    vector_a, vector_b = r.chance(0.1), r.chance(0.1)

    def draw(r):
        m, k, n = r.dim(), r.dim(0.02 if 0 not in batch else 0), r.dim()
        sizes = r.redraw(batch)
        cut = lambda s: [1 if d == 1 else v for d, v in zip(s, sizes[len(sizes) - len(s) :])]
        x = r.data(dtype, [k] if vector_a else cut(a) + [m, k])
        return [x, r.data(dtype, [k] if vector_b else cut(b) + [k, n])]

    return Spec(name, draw, const=(1,), p_const=0.5, tol=4)


@op("Gemm")
def gemm(r, name):
    dtype = r.pick([F32, F32, F32, F64, F16])
    attrs = {"transA": r.int(0, 1), "transB": r.int(0, 1)}
    if r.chance(0.5):
        attrs |= {"alpha": r.float(-2, 2), "beta": r.float(-2, 2)}
    c = r.pick(None, "n", "mn", "m1", "1", "scalar", "1n")

    def draw(r):
        m, k, n = r.dim(0), r.dim(0), r.dim(0)  # Over nothing ONNX Runtime forgets beta.
        x = r.data(dtype, [k, m] if attrs["transA"] else [m, k])
        y = r.data(dtype, [n, k] if attrs["transB"] else [k, n])
        shapes = {"n": [n], "mn": [m, n], "m1": [m, 1], "1": [1], "scalar": [], "1n": [1, n]}
        return [x, y] + ([r.data(dtype, shapes[c])] if c else [])

    return Spec(name, draw, attrs, 13, const=(1, 2), p_const=0.6, tol=4)


@op("Einsum")
def einsum(r, name):
    dtype = r.pick([F32, F64])
    equation, *parts = r.pick([
        ("ij,jk->ik", "ij", "jk"), ("bij,bjk->bik", "bij", "bjk"), ("ij->ji", "ij"), ("ii->i", "ii"), ("ij->", "ij"),
        ("bhid,bhjd->bhij", "bhid", "bhjd"), ("i,j->ij", "i", "j"), ("ij,ij->i", "ij", "ij"), ("...ij,...jk->...ik", "bij", "bjk"),
        ("ijk,k->ij", "ijk", "k"), ("bhwc,hkc->bhwk", "bhwc", "hkc"), ("ij,jk", "ij", "jk"), ("ijj->i", "ijj"), ("i,i->", "i", "i"),
    ])

    def draw(r):
        sizes = {c: r.int(1, 9) for p in parts for c in p}
        return [r.data(dtype, [sizes[c] for c in p]) for p in parts]

    return Spec(name, draw, {"equation": equation}, 12, tol=4)


@op("Det")
def det(r, name):
    dtype, batch, n = r.pick([F32, F64]), r.shape(0, 2, empty=0), r.int(1, 5)
    return Spec(name, lambda r: [r.data(dtype, r.redraw(batch) + [n, n])], tol=20)
