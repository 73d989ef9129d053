"""Operators that move data or make it from shapes."""

import numpy as np

from problem import ANY, BOOL, F16, F32, F64, FLOATS, I32, I64, I8, INTS, NUMBERS, U8, Spec

OPS = {}
SIZES = [F32, F16, F64, I8, U8, I32, I64, BOOL]


def op(*names):
    def put(make):
        for name in names:
            OPS[name] = lambda r, name=name: make(r, name)
        return make

    return put


ints = lambda v: np.array(v, np.int64)


@op("Transpose")
def transpose(r, name):
    dtype, shape = r.pick(SIZES), r.shape(0, 5)
    attrs = {"perm": [int(i) for i in r.r.permutation(len(shape))]} if shape and r.chance(0.9) else {}
    return Spec(name, lambda r: [r.data(dtype, r.redraw(shape))], attrs)


@op("Reshape")
def reshape(r, name):
    dtype, shape = r.pick(SIZES), r.shape(0, 4)
    if r.chance(0.5) or 0 in shape:
        to = [int(np.prod(shape))] if 0 in shape else list(shape)
        r.r.shuffle(to)
        if to and 0 not in shape and r.chance(0.6):
            to[r.int(0, len(to) - 1)] = -1
        zero = {"allowzero": 1} if 0 in to else {}
        return Spec(name, lambda r: [r.data(dtype, shape), ints(to)], zero, 14, const=(1,), p_const=0.6)
    # Kept axes in front, the rest joined: serves every shape.
    keep = r.int(0, len(shape))
    to = [0] * keep + [-1]
    return Spec(name, lambda r: [r.data(dtype, r.redraw(shape)), ints(to)], {}, 14, const=(1,), p_const=0.8)


@op("Flatten")
def flatten(r, name):
    shape = r.shape(0, 4)
    return Spec(name, lambda r: [r.data(F32, r.redraw(shape))], {"axis": r.int(-len(shape), len(shape))}, 13)


@op("Squeeze", "Unsqueeze")
def squeeze(r, name):
    dtype, shape = r.pick(SIZES), r.shape(0, 3)
    n = r.int(1, 2)
    rank = len(shape) + n
    axes = sorted(int(a) for a in r.r.permutation(rank)[:n])
    wide = list(shape)
    for a in axes:
        wide.insert(a, 1)
    given = [a - rank if r.chance(0.4) else a for a in axes]
    source = wide if name == "Squeeze" else shape
    return Spec(name, lambda r: [r.data(dtype, source), ints(given)], {}, 13, const=(1,), p_const=0.7)


@op("Concat")
def concat(r, name):
    dtype, shape, n = r.pick(SIZES), r.shape(1, 4), r.int(1, 5)
    axis = r.axis(len(shape))

    def draw(r):
        base = r.redraw(shape)
        parts = []
        for _ in range(n):
            part = list(base)
            part[axis] = r.dim()
            parts.append(r.data(dtype, part))
        return parts

    return Spec(name, draw, {"axis": axis}, 13, const=(1,), p_const=0.2)


@op("Split")
def split(r, name):
    dtype, shape = r.pick(SIZES), r.shape(1, 4)
    axis = r.axis(len(shape))
    kind = r.pick("sizes", "num", "equal")
    n = r.int(1, 5)

    if kind == "sizes":
        parts = [r.int(0, 5) for _ in range(n)]

        def draw(r):
            full = r.redraw(shape)
            full[axis] = sum(parts)
            return [r.data(dtype, full), ints(parts)]

        return Spec(name, draw, {"axis": axis}, 18, n_out=n, const=(1,))

    def draw(r):
        full = r.redraw(shape)
        full[axis] = n * r.int(1, 6) if kind == "equal" else r.int(n * n, n * n + 20)
        return [r.data(dtype, full)]

    attrs = {"axis": axis} if kind == "equal" else {"axis": axis, "num_outputs": n}
    return Spec(name, draw, attrs, 13 if kind == "equal" else 18, n_out=n)


@op("Slice")
def slice_(r, name):
    dtype, shape = r.pick(SIZES), r.shape(1, 4)
    axes = r.axes(len(shape))
    far = r.pick(12, 40, 2**62)
    end = lambda: r.pick(r.int(-12, 12), r.int(-12, 12), far, -far)
    starts, ends = [end() for _ in axes], [end() for _ in axes]
    steps = [r.pick(1, 1, 1, 2, 3, -1, -2, 7) for _ in axes]
    with_steps = r.chance(0.6)
    if not with_steps and r.chance(0.3):
        axes = list(range(len(axes)))
        draw = lambda r: [r.data(dtype, r.redraw(shape)), ints(starts), ints(ends)]
    else:
        draw = lambda r: [r.data(dtype, r.redraw(shape)), ints(starts), ints(ends), ints(axes)] + ([ints(steps)] if with_steps else [])
    return Spec(name, draw, {}, 13, const=(1, 2, 3, 4), p_const=0.85)


@op("Pad")
def pad(r, name):
    dtype, shape = r.pick([F32, F32, F64, I32, I64, U8, F16, BOOL]), r.shape(1, 4, empty=0)
    mode = r.pick("constant", "constant", "edge", "reflect", "wrap")
    axes = r.axes(len(shape)) if r.chance(0.4) else None
    n = len(axes) if axes else len(shape)
    limit = 1 if mode in ("reflect", "wrap") else 5
    pads = [r.int(-1 if mode == "constant" else 0, limit) for _ in range(2 * n)]
    with_value = r.chance(0.6)

    def draw(r):
        x = r.data(dtype, [max(d, 3) for d in r.redraw(shape)])
        value = r.data(dtype, []) if with_value and mode == "constant" else None
        return [x, ints(pads), value] + ([ints(axes)] if axes else [])

    return Spec(name, draw, {"mode": mode}, 19, const=(1, 2, 3), p_const=0.8)


@op("Expand")
def expand(r, name):
    dtype, shape = r.pick(SIZES), r.shape(0, 4)
    to = r.broadcast(shape)
    source = r.broadcast(shape)
    return Spec(name, lambda r: [r.data(dtype, source), ints(to)], {}, 13, const=(1,), p_const=0.6)


@op("Tile")
def tile(r, name):
    dtype, shape = r.pick(SIZES), r.shape(1, 4)
    repeats = [r.int(0 if r.chance(0.05) else 1, 3) for _ in shape]
    return Spec(name, lambda r: [r.data(dtype, r.redraw(shape)), ints(repeats)], {}, 13, const=(1,), p_const=0.6)


@op("DepthToSpace", "SpaceToDepth")
def depth(r, name):
    dtype, b = r.pick([F32, F16, F64, U8]), r.int(1, 3)
    attrs = {"blocksize": b}
    if name == "DepthToSpace":
        attrs["mode"] = r.pick("DCR", "CRD")

    def draw(r):
        n, c, h, w = r.int(1, 3), r.int(1, 4), r.int(1, 5), r.int(1, 5)
        return [r.data(dtype, [n, c * b * b, h, w] if name == "DepthToSpace" else [n, c, h * b, w * b])]

    return Spec(name, draw, attrs, 13)


@op("Shape", "Size")
def shape_(r, name):
    shape = r.shape(0, 5)
    attrs = {}
    if name == "Shape" and r.chance(0.7):
        attrs = {"start": r.int(-6, 6), "end": r.int(-6, 6)}
    return Spec(name, lambda r: [r.data(F32, r.redraw(shape))], attrs, 15)


@op("ConstantOfShape")
def constant_of_shape(r, name):
    from onnx import numpy_helper
    dtype, shape = r.pick(SIZES), r.shape(0, 4)
    attrs = {"value": numpy_helper.from_array(r.data(dtype, [1]))} if r.chance(0.8) else {}
    return Spec(name, lambda r: [ints(shape)], attrs, 9, const=(0,), p_const=0)


@op("Range")
def range_(r, name):
    dtype = r.pick([F32, F64, I32, I64])
    step = r.pick(1, 2, 3, -1, -4)
    return Spec(name, lambda r: [np.array(v, dtype) for v in (r.int(-10, 10), r.int(-10, 30), step)], {}, 11, p_const=0)


@op("EyeLike")
def eye_like(r, name):
    from problem import onnx_type
    shape = [r.dim(), r.dim()]
    attrs = {"k": r.int(-4, 4)} if r.chance(0.7) else {}
    if r.chance(0.5):
        attrs["dtype"] = onnx_type(r.pick([F32, F64, I32, I64]))
    return Spec(name, lambda r: [r.data(r.pick([F32]), r.redraw(shape))], attrs, 9)


@op("Trilu")
def trilu(r, name):
    dtype, shape = r.pick([F32, F64, I64, BOOL, I32]), r.shape(2, 4)
    k = r.int(-8, 8) if r.chance(0.7) else None
    attrs = {"upper": r.int(0, 1)} if r.chance(0.8) else {}
    return Spec(name, lambda r: [r.data(dtype, r.redraw(shape))] + ([np.array(k, np.int64)] if k is not None else []), attrs, 14, const=(1,),
                p_const=0.6)


@op("ReverseSequence")
def reverse_sequence(r, name):
    dtype, rest = r.pick([F32, F64, I32, BOOL]), r.shape(0, 2, empty=0)
    batch_axis = r.int(0, 1)

    def draw(r):
        a, b = r.int(1, 9), r.int(1, 9)
        lengths = r.r.integers(1, (b if batch_axis == 0 else a) + 1, a if batch_axis == 0 else b)
        return [r.data(dtype, [a, b] + r.redraw(rest)), lengths.astype(np.int64)]

    return Spec(name, draw, {"batch_axis": batch_axis, "time_axis": 1 - batch_axis}, 10)


@op("CenterCropPad")
def center_crop_pad(r, name):
    dtype, shape = r.pick([F32, I32]), r.shape(1, 4, empty=0)
    axes = r.axes(len(shape)) if r.chance(0.6) else None
    to = [r.int(1, 9) for _ in (axes or shape)]
    return Spec(name, lambda r: [r.data(dtype, r.redraw(shape)), ints(to)], {"axes": axes} if axes else {}, 18, const=(1,), oracle="reference")


@op("Upsample")
def upsample(r, name):
    shape = r.shape(4, 4, empty=0)
    scales = [1.0, 1.0] + [r.pick(1.0, 2.0, 3.0) for _ in range(2)]
    return Spec(name, lambda r: [r.data(F32, r.redraw(shape)), np.array(scales, np.float32)], {"mode": r.pick("nearest", "linear")}, 9, const=(1,))


@op("Col2Im")
def col2im(r, name):
    kernel = [r.int(1, 3), r.int(1, 3)]
    attrs = {"strides": [r.int(1, 2), r.int(1, 2)], "pads": [r.int(0, 1) for _ in range(4)], "dilations": [r.int(1, 2), r.int(1, 2)]}
    image = [r.int(6, 12), r.int(6, 12)]
    n = [(image[i] + attrs["pads"][i] + attrs["pads"][2 + i] - attrs["dilations"][i] * (kernel[i] - 1) - 1) // attrs["strides"][i] + 1 for i in range(2)]
    draw = lambda r: [r.data(F32, [r.int(1, 3), r.int(1, 3) * kernel[0] * kernel[1], n[0] * n[1]]), ints(image), ints(kernel)]
    return Spec(name, draw, attrs, 18, const=(1, 2))
