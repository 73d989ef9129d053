"""Quantization."""

import numpy as np

from problem import F16, F32, I16, I32, I8, U16, U8, Spec, off_by_one

OPS = {}


def op(*names):
    def put(make):
        for name in names:
            OPS[name] = lambda r, name=name: make(r, name)
        return make

    return put


def full(r, dtype, shape):
    info = np.iinfo(dtype)
    return r.r.integers(info.min, info.max + 1, shape).astype(dtype)


def scale(r, shape=()):
    return np.asarray(r.r.uniform(0.01, 0.2, shape)).astype(np.float32)


@op("QuantizeLinear", "DequantizeLinear")
def linear(r, name):
    q = r.pick([U8, I8, U8, I8, U16, I16] + ([I32] if name == "DequantizeLinear" else []))
    shape = r.shape(1, 4, empty=0.02)
    kind = r.pick("tensor", "axis", "blocked")
    axis = r.axis(len(shape))
    if kind != "tensor" and shape[axis] == 0:
        kind = "tensor"
    block = r.int(2, 4)
    attrs = {} if kind == "tensor" else {"axis": axis}
    if kind == "blocked":
        shape[axis] = block * r.int(1, 4)
        attrs["block_size"] = block
    # An even count of elements on halves would differ by the rounding of one division: see the check.
    s_shape = [] if kind == "tensor" else [shape[axis]]
    if kind == "blocked":
        s_shape = list(shape)
        s_shape[axis] //= block
    zero = None if r.chance(0.3) and q in (U8, I32) else np.zeros(s_shape, q) if q == I32 else full(r, q, s_shape)
    s = scale(r, s_shape)

    def draw(r):
        size = shape if kind == "blocked" else r.redraw(shape, () if kind == "tensor" else (axis % len(shape),))
        x = r.data(F32, size, -30, 30) if name == "QuantizeLinear" else full(r, q, size)
        return [x, s] + ([zero] if zero is not None else [])

    return Spec(name, draw, attrs, 21, const=(1, 2), p_const=0.8, check=off_by_one if name == "QuantizeLinear" else None)


@op("DynamicQuantizeLinear")
def dynamic(r, name):
    shape = r.shape(1, 4, empty=0)
    low = r.pick(-4.0, 0.5, -9.0)
    return Spec(name, lambda r: [r.data(F32, r.redraw(shape), low, low + 7)], {}, 11, n_out=3, check=off_by_one)


@op("MatMulInteger")
def matmul_integer(r, name):
    a, b, batch = r.pick([U8, I8]), r.pick([U8, I8]), r.shape(0, 2, empty=0)
    kb = r.chance(0.4)
    za = full(r, a, []) if r.chance(0.6) else None

    def draw(r):
        m, k, n, size = r.int(1, 9), r.int(1, 20), nn, r.redraw(batch)
        operands = [full(r, a, size + [m, k]), full(r, b, [k, n]), za, zb]
        while operands[-1] is None:
            operands.pop()
        return operands

    nn = r.int(1, 9)
    zb = full(r, b, [nn] if kb else []) if r.chance(0.6) else None
    return Spec(name, draw, {}, 10, const=(1, 2, 3), p_const=0.7)


@op("ConvInteger")
def conv_integer(r, name):
    group, per, out = r.pick(1, 1, 2), r.int(1, 4), r.int(1, 4)
    w = full(r, r.pick([U8]), [out * group, per, 3, 2])
    zx = full(r, U8, []) if r.chance(0.6) else None
    zw = full(r, U8, []) if zx is not None and r.chance(0.6) else None
    attrs = {"pads": [r.int(0, 1) for _ in range(4)], "strides": [r.int(1, 2), r.int(1, 2)], "group": group}

    def draw(r):
        operands = [full(r, U8, [r.int(1, 2), per * group, r.int(4, 9), r.int(4, 9)]), w, zx, zw]
        while operands[-1] is None:
            operands.pop()
        return operands

    return Spec(name, draw, attrs, 10, const=(1, 2, 3), p_const=0.9)


@op("QLinearMatMul")
def qlinear_matmul(r, name):
    a, b, batch = r.pick([U8, I8]), r.pick([U8, I8]), r.shape(0, 2, empty=0)
    y = a
    k, n = r.int(1, 20), r.int(1, 9)
    constants = [scale(r), full(r, a, []), full(r, b, [k, n]), scale(r), full(r, b, []), scale(r) * 10, full(r, y, [])]
    return Spec(name, lambda r: [full(r, a, r.redraw(batch) + [r.int(1, 9), k])] + constants, {}, 10, const=range(1, 8), p_const=0.95,
                check=off_by_one)


@op("QLinearConv")
def qlinear_conv(r, name):
    a, b = r.pick([(U8, U8), (U8, I8), (I8, I8)])
    group, per, out = r.pick(1, 1, 2, 4), r.int(1, 4), r.int(1, 4)
    m = out * group
    per_channel = r.chance(0.5)
    w = full(r, b, [m, per, 3, 2])
    zero = np.zeros([m], b) if per_channel else full(r, b, []) if b == U8 else np.zeros([], b)
    constants = [scale(r), full(r, a, []), w, scale(r, [m] if per_channel else []), zero, scale(r) * 10, full(r, a, [])]
    if r.chance(0.5):
        constants.append(r.r.integers(-500, 500, m).astype(np.int32))
    attrs = {"pads": [r.int(0, 1) for _ in range(4)], "strides": [r.int(1, 2), r.int(1, 2)], "group": group}
    draw = lambda r: [full(r, a, [r.int(1, 2), per * group, r.int(4, 9), r.int(4, 9)])] + constants
    return Spec(name, draw, attrs, 10, const=range(1, 9), p_const=1.0, always_const=(3,), check=off_by_one)


@op("com.microsoft.QLinearAdd", "com.microsoft.QLinearMul")
def qlinear_binary(r, name):
    q, shape = r.pick([U8, I8]), r.shape(1, 4, empty=0)
    other = r.broadcast(shape)
    parts = [scale(r), full(r, q, []), scale(r), full(r, q, []), scale(r) * (2 if name.endswith("Add") else 20), full(r, q, [])]

    def draw(r):
        return [full(r, q, shape), parts[0], parts[1], full(r, q, other), parts[2], parts[3], parts[4], parts[5]]

    return Spec(name.split(".")[-1], draw, {}, domain="com.microsoft", const=(1, 2, 4, 5, 6, 7), p_const=1.0, check=off_by_one)


@op("com.microsoft.QLinearSigmoid", "com.microsoft.QLinearLeakyRelu")
def qlinear_unary(r, name):
    q, shape = r.pick([U8, I8]), r.shape(1, 4, empty=0)
    parts = [scale(r), full(r, q, []), scale(r) / (10 if name.endswith("Sigmoid") else 1), full(r, q, [])]
    attrs = {"alpha": 0.1} if name.endswith("LeakyRelu") else {}
    return Spec(name.split(".")[-1], lambda r: [full(r, q, r.redraw(shape))] + parts, attrs, domain="com.microsoft", const=(1, 2, 3, 4), p_const=1.0,
                check=off_by_one)


@op("com.microsoft.QLinearGlobalAveragePool")
def qlinear_pool(r, name):
    q, last = r.pick([U8, I8]), r.int(0, 1)
    parts = [scale(r), full(r, q, []), scale(r), full(r, q, [])]
    draw = lambda r: [full(r, q, [r.int(1, 2), r.int(1, 5), r.int(1, 6), r.int(1, 6)])] + parts
    return Spec("QLinearGlobalAveragePool", draw, {"channels_last": last}, domain="com.microsoft", const=(1, 2, 3, 4), p_const=1.0, check=off_by_one)


@op("com.microsoft.DynamicQuantizeMatMul")
def dynamic_matmul(r, name):
    b, k, n = r.pick([U8, I8]), r.int(1, 20), r.int(1, 9)
    w, s, z = full(r, b, [k, n]), scale(r), full(r, b, []) if r.chance(0.6) else None
    bias = r.data(F32, [n]) if r.chance(0.5) else None

    def draw(r):
        operands = [r.data(F32, [r.int(1, 3), r.int(1, 5), k]), w, s, z, bias]
        while operands[-1] is None:
            operands.pop()
        return operands

    return Spec("DynamicQuantizeMatMul", draw, {}, domain="com.microsoft", const=(1, 2, 3, 4), p_const=1.0, tol=20)
