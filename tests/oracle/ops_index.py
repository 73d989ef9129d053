"""Operators that read or write by index, sort and select."""

import numpy as np

from problem import ANY, BOOL, F16, F32, F64, I32, I64, I8, NUMBERS, U8, Spec

OPS = {}
SIZES = [F32, F16, F64, I8, U8, I32, I64, BOOL]


def op(*names):
    def put(make):
        for name in names:
            OPS[name] = lambda r, name=name: make(r, name)
        return make

    return put


def indices(r, size, shape, dtype=np.int64):
    """Indices into an axis, negative ones too."""
    return r.r.integers(-size, size, shape).astype(dtype) if size else np.zeros(shape, dtype)


@op("Gather")
def gather(r, name):
    dtype, index, shape = r.pick(SIZES), r.pick([np.int64, np.int32]), r.shape(1, 4, empty=0)
    axis, of = r.axis(len(shape)), r.shape(0, 2)
    attrs = {"axis": axis} if axis or r.chance(0.5) else {}

    def draw(r):
        full = r.redraw(shape)
        return [r.data(dtype, full), indices(r, full[axis], r.redraw(of) if 0 not in of else of, index)]

    return Spec(name, draw, attrs, 13, const=(0, 1), p_const=0.3)


@op("GatherElements")
def gather_elements(r, name):
    dtype, index, shape = r.pick(SIZES), r.pick([np.int64, np.int32]), r.shape(1, 4, empty=0)
    axis = r.axis(len(shape))

    def draw(r):
        full = r.redraw(shape)
        of = [r.int(1, d) for d in full]
        of[axis] = r.dim()
        return [r.data(dtype, full), indices(r, full[axis], of, index)]

    return Spec(name, draw, {"axis": axis}, 13, const=(1,), p_const=0.2)


@op("GatherND")
def gather_nd(r, name):
    dtype, rank = r.pick(SIZES), r.int(1, 4)
    batch = r.int(0, min(2, rank - 1))
    k = r.int(1, rank - batch)
    of_rank = r.int(0, 2)

    def draw(r):
        full = [r.int(1, 6) for _ in range(rank)]
        of = full[:batch] + [r.int(1, 5) for _ in range(of_rank)]
        parts = [indices(r, full[batch + i], of) for i in range(k)]
        return [r.data(dtype, full), np.stack(parts, -1).astype(np.int64)]

    return Spec(name, draw, {"batch_dims": batch}, 13, const=(1,), p_const=0.2)


@op("ScatterElements", "Scatter")
def scatter_elements(r, name):
    dtype, index, shape = r.pick([F32, F32, F64, I32, I64, F16, BOOL, U8]), r.pick([np.int64, np.int32]), r.shape(1, 4, empty=0)
    axis = r.axis(len(shape))
    reduction = r.pick("none", "add", "mul", "max", "min") if dtype != BOOL and name == "ScatterElements" else "none"

    def draw(r):
        full = r.redraw(shape)
        of = [r.int(1, d) for d in full]
        n = full[axis]
        # Without a reduction an element must not be written twice.
        if reduction == "none":
            rows = [r.r.permutation(n)[: of[axis]] for _ in range(int(np.prod(of)) // of[axis])]
            at = np.array(rows).reshape([d for i, d in enumerate(of) if i != axis % len(of)] + [of[axis]])
            at = np.moveaxis(at, -1, axis)
            at = np.where(r.r.random(at.shape) < 0.3, at - n, at).astype(index)
        else:
            at = indices(r, n, of, index)
        return [r.data(dtype, full), at, r.data(dtype, of)]

    attrs = {"axis": axis} if name == "Scatter" else {"axis": axis, "reduction": reduction}
    return Spec(name, draw, attrs, 10 if name == "Scatter" else 18, const=(1,), p_const=0.2)


@op("ScatterND")
def scatter_nd(r, name):
    dtype, rank = r.pick([F32, F32, F64, I32, I64, F16, BOOL]), r.int(1, 4)
    k, of_rank = r.int(1, rank), r.int(0, 2)
    reduction = r.pick("none", "add", "mul", "max", "min") if dtype != BOOL else "none"

    def draw(r):
        full = [r.int(2, 6) for _ in range(rank)]
        of = [r.int(1, 4) for _ in range(of_rank)]
        n, room = int(np.prod(of)), int(np.prod(full[:k]))
        if reduction == "none":
            if n > room:
                of, n = [min(d, 1) for d in of], 1
            flat = r.r.permutation(room)[:n]
        else:
            flat = r.r.integers(0, room, n)
        at = np.stack(np.unravel_index(flat, full[:k]), -1).reshape(of + [k]).astype(np.int64)
        return [r.data(dtype, full), at, r.data(dtype, of + full[k:])]

    return Spec(name, draw, {"reduction": reduction}, 18, const=(1,), p_const=0.2)


@op("TopK")
def topk(r, name):
    dtype, shape = r.pick([F32, F64, I32, I64]), r.shape(1, 3, empty=0)
    axis = r.axis(len(shape))
    k = r.int(1, 3) if r.chance(0.5) else 1
    attrs = {"axis": axis, "largest": r.int(0, 1)}

    def draw(r):
        full = [max(d, 1) for d in r.redraw(shape)]
        full[axis] = max(full[axis], k)
        x = r.data(dtype, full)
        return [np.round(x).astype(dtype) if r.chance(0.4) else x, np.array([k], np.int64)]

    return Spec(name, draw, attrs, 11, n_out=2, const=(1,), p_const=0.7)


@op("OneHot")
def one_hot(r, name):
    index, value, shape = r.pick([I64, I32, F32]), r.pick([F32, I32, I64, F64]), r.shape(0, 3)
    depth = r.int(1, 9)

    def draw(r):
        at = r.r.integers(-depth, depth, r.redraw(shape)).astype(index)
        return [at, np.array(depth, r.pick([np.int64])), np.array([0, 3], value)]

    # onnx.reference wraps indices beyond the depth, ONNX and ONNX Runtime do not.
    return Spec(name, draw, {"axis": r.int(-len(shape) - 1, len(shape))}, 11, const=(1, 2), p_const=0.7)


@op("NonZero")
def non_zero(r, name):
    dtype, shape = r.pick([F32, BOOL, I64, I32, U8]), r.shape(1, 4)

    def draw(r):
        x = r.data(dtype, r.redraw(shape))
        return [x if dtype == BOOL else np.where(r.r.random(x.shape) < 0.5, np.zeros_like(x), x)]

    return Spec(name, draw, {}, 13)


@op("Compress")
def compress(r, name):
    dtype, shape = r.pick(SIZES), r.shape(1, 3, empty=0)
    axis = r.axis(len(shape)) if r.chance(0.7) else None

    def draw(r):
        full = r.redraw(shape)
        n = full[axis] if axis is not None else int(np.prod(full))
        return [r.data(dtype, full), r.data(BOOL, [r.int(1, n)])]

    return Spec(name, draw, {} if axis is None else {"axis": axis}, 11)


@op("Unique")
def unique(r, name):
    dtype, shape = r.pick([F32, I64, I8, F64]), r.shape(1, 3, empty=0)
    axis = r.axis(len(shape)) if r.chance(0.5) else None
    attrs = {"sorted": r.int(0, 1)}
    if axis is not None:
        attrs["axis"] = axis
    return Spec(name, lambda r: [np.round(r.data(dtype, r.redraw(shape), -2, 2)).astype(dtype)], attrs, 11, n_out=4)


@op("NonMaxSuppression")
def nms(r, name):
    attrs = {"center_point_box": r.int(0, 1)}
    limits = [np.array([r.int(0, 5)], np.int64), np.array([r.float(0, 0.8)], np.float32), np.array([r.float(0, 0.6)], np.float32)]
    limits = limits[: r.int(0, 3)]

    def draw(r):
        batch, classes, n = r.int(1, 3), r.int(1, 3), r.int(1, 20)
        a, b = r.r.random([batch, n, 2]), r.r.random([batch, n, 2])
        boxes = np.concatenate([a, b], -1) if attrs["center_point_box"] else np.concatenate([np.minimum(a, b), np.maximum(a, b)], -1)
        return [boxes.astype(np.float32), r.r.random([batch, classes, n]).astype(np.float32)] + limits

    return Spec(name, draw, attrs, 11, const=(2, 3, 4), p_const=0.7)


@op("TensorScatter")
def tensor_scatter(r, name):
    mode = r.pick("linear", "circular")

    def draw(r):
        b, h, s, d = r.int(1, 3), r.int(1, 3), r.int(4, 9), r.int(1, 5)
        n = r.int(1, 3)
        at = r.r.integers(0, s - n + 1 if mode == "linear" else s, b).astype(np.int64)
        return [r.data(F32, [b, h, s, d]), r.data(F32, [b, h, n, d]), at]

    return Spec(name, draw, {"mode": mode}, 24, oracle="reference")


@op("ArrayFeatureExtractor")
def array_feature_extractor(r, name):
    n = r.int(2, 9)
    draw = lambda r: [r.data(F32, [r.int(1, 4), n]), r.r.integers(0, n, [r.int(1, 4)]).astype(np.int64)]
    return Spec(name, draw, {}, 1, domain="ai.onnx.ml")
