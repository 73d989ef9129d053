"""Convolutions, pooling, normalizations, recurrent cells, attention, images, signals, losses."""

import numpy as np

from problem import BF16, BOOL, F16, F32, F64, FLOATS, I32, I64, I8, U8, Spec, differences, off_by_one, truncated

OPS = {}


def op(*names):
    def put(make):
        for name in names:
            OPS[name] = lambda r, name=name: make(r, name)
        return make

    return put


def window(r, n, attrs, pool=False):
    """Strides, dilations and pads of a window over n axes; returns the kernel."""
    kernel = [r.pick(1, 2, 3, 3, 5) for _ in range(n)]
    if r.chance(0.6):
        attrs["strides"] = [r.int(1, 3) for _ in range(n)]
    if r.chance(0.4):
        attrs["dilations"] = [r.int(1, 3) for _ in range(n)]
    kind = r.pick("pads", "pads", "none", "SAME_UPPER", "SAME_LOWER", "VALID")
    if kind == "pads":
        # Pooling: no window may lie in padding alone.
        attrs["pads"] = [r.int(0, (kernel[i % n] - 1) // (2 if pool else 1)) if kernel[i % n] > 1 else 0 for i in range(2 * n)]
    elif kind != "none" and "dilations" not in attrs:
        attrs["auto_pad"] = kind
    return kernel


def image(r, kernel, attrs):
    """Spatial sizes that the window fits into."""
    d = attrs.get("dilations", [1] * len(kernel))
    low = [d[i] * (k - 1) + 1 for i, k in enumerate(kernel)]
    return [r.int(l, l + r.pick(3, 9, 20)) for l in low]


@op("Conv")
def conv(r, name):
    dtype, n, attrs = r.pick([F32, F32, F32, F64, F16]), r.pick(1, 2, 2, 2, 3), {}
    kernel = window(r, n, attrs)
    group = r.pick(1, 1, 2, 3, "depthwise")
    cin, mult = r.pick(1, 2, 3, 8, 17), r.int(1, 5)
    if group == "depthwise":
        group, per = cin, 1
    else:
        per = cin
    if group > 1:
        attrs["group"] = group
    if r.chance(0.5):
        attrs["kernel_shape"] = kernel
    bias = r.chance(0.5)

    def draw(r):
        x = r.data(dtype, [r.int(1, 3), per * group] + image(r, kernel, attrs))
        return [x, weights] + ([b] if bias else [])

    weights = r.data(dtype, [mult * group, per] + kernel, -1, 1)
    b = r.data(dtype, [mult * group])
    return Spec(name, draw, attrs, 11, const=(1, 2), p_const=0.8, tol=4, oracle="f32")


@op("ConvTranspose")
def conv_transpose(r, name):
    dtype, n, attrs = r.pick([F32, F32, F64, F16]), r.pick(1, 2, 2, 3), {}
    kernel = window(r, n, attrs)
    # ONNX and ONNX Runtime differ in SAME_*: explicit pads only.
    attrs.pop("auto_pad", None)
    group, per, out = r.pick(1, 1, 2, 3), r.int(1, 6), r.int(1, 4)
    if group > 1:
        attrs["group"] = group
    if r.chance(0.3):
        s, d = attrs.get("strides", [1] * n), attrs.get("dilations", [1] * n)
        attrs["output_padding"] = [r.int(0, max(s[i], d[i]) - 1) for i in range(n)]
    weights, b = r.data(dtype, [per * group, out] + kernel, -1, 1), r.data(dtype, [out * group])
    bias = r.chance(0.5)

    def draw(r):
        return [r.data(dtype, [r.int(1, 3), per * group] + [r.int(3, 9) for _ in range(n)]), weights] + ([b] if bias else [])

    return Spec(name, draw, attrs, 11, const=(1, 2), p_const=0.8, tol=4, oracle="f32")


@op("MaxPool", "AveragePool", "LpPool")
def pool(r, name):
    n, attrs = r.pick(1, 2, 2, 3), {}
    dtype = r.pick([F32, F32, F64, F16] + ([U8, I8] if name == "MaxPool" else []))
    kernel = window(r, n, attrs, pool=True)
    attrs["kernel_shape"] = kernel
    # A step beyond the window would make SAME_* padding negative: ONNX Runtime refuses that for some pools and crops for others.
    if attrs.get("auto_pad", "").startswith("SAME") and any(s > k for s, k in zip(attrs.get("strides", []), kernel)):
        del attrs["auto_pad"]
    if "auto_pad" not in attrs and r.chance(0.4):
        attrs["ceil_mode"] = 1
    if name == "AveragePool" and r.chance(0.5):
        attrs["count_include_pad"] = 1
    if name == "LpPool":
        attrs["p"] = r.int(1, 3)
    two = name == "MaxPool" and r.chance(0.3)
    if two and r.chance(0.3):
        attrs["storage_order"] = 1
    low = 0.1 if name == "LpPool" else -4.0
    draw = lambda r: [r.data(dtype, [r.int(1, 3), r.int(1, 5)] + image(r, kernel, attrs), low, 4.0)]
    return Spec(name, draw, attrs, {"MaxPool": 12, "AveragePool": 19, "LpPool": 18}[name], n_out=2 if two else 1, tol=3,
                oracle="f32")


@op("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(r, name):
    dtype, n = r.pick([F32, F64, F16]), r.int(1, 3)
    draw = lambda r: [r.data(dtype, [r.int(1, 3), r.dim(0)] + [r.int(1, 9) for _ in range(n)])]
    return Spec(name, draw, {"p": r.int(1, 3)} if name == "GlobalLpPool" else {}, 2 if name == "GlobalLpPool" else 1, tol=3,
                oracle="ort only")


@op("MaxUnpool")
def max_unpool(r, name):
    def draw(r):
        n, c, h, w = r.int(1, 2), r.int(1, 3), r.int(1, 4), r.int(1, 4)
        y, x = np.meshgrid(np.arange(h) * 2, np.arange(w) * 2, indexing="ij")
        at = (y + r.r.integers(0, 2, [n, c, h, w])) * (2 * w) + x + r.r.integers(0, 2, [n, c, h, w])
        at = at + (np.arange(n * c).reshape(n, c, 1, 1) * (4 * h * w))
        return [r.data(F32, [n, c, h, w]), at.astype(np.int64)]

    return Spec(name, draw, {"kernel_shape": [2, 2], "strides": [2, 2]}, 11)


@op("BatchNormalization")
def batch_norm(r, name):
    dtype, rest, c = r.pick([F32, F64, F16]), r.shape(0, 3), r.dim(0)
    parts = [r.data(dtype, [c]) for _ in range(3)] + [r.data(dtype, [c], 0.1, 3)]
    attrs = {"epsilon": r.float(1e-5, 1e-2)} if r.chance(0.5) else {}
    return Spec(name, lambda r: [r.data(dtype, [r.int(1, 3), c] + r.redraw(rest))] + parts, attrs, 15, const=(1, 2, 3, 4), p_const=0.9, tol=4)


@op("InstanceNormalization")
def instance_norm(r, name):
    dtype, rank, c = r.pick([F32, F32, F64, F16]), r.int(1, 3), r.int(1, 6)
    parts = [r.data(dtype, [c]) for _ in range(2)]
    return Spec(name, lambda r: [r.data(dtype, [r.int(1, 3), c] + [r.int(2, 9) for _ in range(rank)])] + parts, {}, 6, const=(1, 2), tol=5)


@op("LayerNormalization", "RMSNormalization")
def layer_norm(r, name):
    dtype, shape = r.pick([F32, F32, F64, F16, BF16]), r.shape(1, 4, empty=0)
    axis = r.axis(len(shape))
    tail = shape[axis:] if axis >= 0 else shape[len(shape) + axis :]
    scale, bias = r.data(dtype, tail), r.data(dtype, tail)
    attrs = {"axis": axis, "epsilon": r.float(1e-5, 1e-3)}
    with_bias = name == "LayerNormalization" and r.chance(0.6)
    head = len(shape) - len(tail)
    n_out = r.int(1, 3) if name == "LayerNormalization" and dtype == F32 else 1

    def draw(r):
        x = r.data(dtype, r.redraw(shape[:head]) + tail)
        return [x, scale] + ([bias] if with_bias else [])

    return Spec(name, draw, attrs, 17 if name == "LayerNormalization" else 23, n_out=n_out, const=(1, 2), p_const=0.7, tol=5)


@op("GroupNormalization")
def group_norm(r, name):
    dtype, groups, per = r.pick([F32, F32, F16]), r.int(1, 4), r.int(1, 4)
    c, rank = groups * per, r.int(1, 3)
    parts = [r.data(dtype, [c]) for _ in range(2)]
    draw = lambda r: [r.data(dtype, [r.int(1, 3), c] + [r.int(2, 7) for _ in range(rank)])] + parts
    return Spec(name, draw, {"num_groups": groups}, 21, const=(1, 2), tol=5, oracle="reference")


@op("LpNormalization")
def lp_norm(r, name):
    dtype, shape = r.pick([F32, F64]), r.shape(1, 4, empty=0)
    return Spec(name, lambda r: [r.data(dtype, r.redraw(shape), 0.2, 4)], {"axis": r.axis(len(shape)), "p": r.int(1, 2)}, 1, tol=3)


@op("MeanVarianceNormalization")
def mvn(r, name):
    shape = r.shape(2, 4, empty=0)
    # Over one element the variance is 0, and its root decides everything.
    shape = [max(d, 3) for d in shape]
    axes = r.axes(len(shape)) if r.chance(0.7) or len(shape) < 4 else None
    return Spec(name, lambda r: [r.data(F32, r.redraw(shape))], {"axes": axes} if axes else {}, 13, tol=8, oracle="reference")


@op("LRN")
def lrn(r, name):
    shape = r.shape(3, 4, empty=0)
    attrs = {"size": r.pick(1, 3, 5), "alpha": r.float(1e-4, 0.5), "beta": r.float(0.3, 1), "bias": r.float(0.5, 2)}
    return Spec(name, lambda r: [r.data(F32, r.redraw(shape))], attrs, 13, tol=3)


@op("Dropout")
def dropout(r, name):
    dtype, shape = r.pick([F32, F16, F64]), r.shape(0, 4)
    return Spec(name, lambda r: [r.data(dtype, r.redraw(shape))], {}, 13, n_out=r.int(1, 2))


@op("Resize")
def resize(r, name):
    mode = r.pick("nearest", "linear", "cubic")
    dtype = r.pick([F32, F32, F32, U8] if mode != "cubic" else [F32])
    rank = 4 if mode == "cubic" else r.pick(3, 4, 4, 5) if mode == "nearest" else r.pick(4, 4, 3)
    coordinates = r.pick("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric")
    if mode == "nearest" and coordinates == "half_pixel_symmetric":
        coordinates = "half_pixel"  # its quotient puts whole positions a rounding error to either side
    attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attrs["nearest_mode"] = r.pick("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    if mode == "cubic" and r.chance(0.5):
        attrs["cubic_coeff_a"] = -0.5
        attrs["exclude_outside"] = r.int(0, 1)
    if mode != "nearest" and dtype == F32 and r.chance(0.2):
        attrs["antialias"] = 1
    by_sizes = r.chance(0.5)
    scale = [1.0, 1.0] + [r.pick(0.5, 2.0, 1.5, 3.0, 0.75, 1.0) for _ in range(rank - 2)]

    def draw(r):
        shape = [r.int(1, 2), r.int(1, 3)] + [r.int(4, 12) for _ in range(rank - 2)]
        x = r.data(dtype, shape)
        if by_sizes:
            return [x, None, None, np.array(shape[:2] + [r.int(2, 20) for _ in range(rank - 2)], np.int64)]
        return [x, None, np.array(scale, np.float32)]

    return Spec(name, draw, attrs, 19, const=(2, 3), p_const=0.7, tol=4, check=truncated if dtype == U8 else None)


@op("GridSample")
def grid_sample(r, name):
    mode = r.pick("linear", "nearest", "cubic")
    attrs = {"mode": mode, "padding_mode": r.pick("zeros", "border", "reflection"), "align_corners": r.int(0, 1)}

    def draw(r):
        n, c = r.int(1, 2), r.int(1, 3)
        x = r.data(F32, [n, c, r.int(2, 7), r.int(2, 7)])
        return [x, r.data(F32, [n, r.int(1, 6), r.int(1, 6), 2], -1.3, 1.3)]

    # onnx.reference takes another reading of borders beside cubics than ONNX Runtime.
    return Spec(name, draw, attrs, 20, tol=4, oracle="ort only")


@op("AffineGrid")
def affine_grid(r, name):
    n = r.int(2, 3)

    def draw(r):
        batch = r.int(1, 3)
        size = [batch, r.int(1, 3)] + [r.int(2, 6) for _ in range(n)]
        return [r.data(F32, [batch, n, n + 1]), np.array(size, np.int64)]

    return Spec(name, draw, {"align_corners": r.int(0, 1)}, 20, const=(1,), tol=3)


@op("RoiAlign")
def roi_align(r, name):
    attrs = {"mode": r.pick("avg", "max"), "output_height": r.int(1, 4), "output_width": r.int(1, 4), "sampling_ratio": r.int(1, 3),
             "spatial_scale": r.pick(1.0, 0.5), "coordinate_transformation_mode": r.pick("half_pixel", "output_half_pixel")}
    if attrs["mode"] == "max":
        attrs["sampling_ratio"] = r.int(1, 2)

    def draw(r):
        n, c, h, w, k = r.int(1, 2), r.int(1, 3), r.int(4, 9), r.int(4, 9), r.int(1, 4)
        a = r.r.random([k, 2]) * [w, h]
        b = a + r.r.random([k, 2]) * [w, h] + 0.5
        return [r.data(F32, [n, c, h, w]), np.concatenate([a, b], 1).astype(np.float32), r.r.integers(0, n, k).astype(np.int64)]

    # Of the two readings of `max`, ONNX Runtime's weights the samples before the maximum; the average is the same.
    if attrs["mode"] == "max":
        attrs["mode"] = "avg"
    return Spec(name, draw, attrs, 16, tol=4)


def cell(r, name, gates):
    layout = 0
    hidden, size = r.int(1, 6), r.int(1, 6)
    direction = r.pick("forward", "reverse", "bidirectional")
    d = 2 if direction == "bidirectional" else 1
    attrs = {"hidden_size": hidden, "direction": direction}
    if name == "GRU" and r.chance(0.6):
        attrs["linear_before_reset"] = r.int(0, 1)
    if name == "LSTM" and r.chance(0.2):
        attrs["input_forget"] = 1
    if r.chance(0.3):
        attrs["clip"] = r.float(0.5, 3)
    if r.chance(0.3):
        per = {"RNN": 1, "GRU": 2, "LSTM": 3}[name]
        attrs["activations"] = [r.pick("Tanh", "Sigmoid", "Relu") for _ in range(per * d)]
    w, rec = r.data(F32, [d, gates * hidden, size], -1, 1), r.data(F32, [d, gates * hidden, hidden], -1, 1)
    b = r.data(F32, [d, 2 * gates * hidden], -1, 1) if r.chance(0.7) else None
    p = r.data(F32, [d, 3 * hidden], -1, 1) if name == "LSTM" and r.chance(0.3) else None
    lengths, state = r.chance(0.4), r.chance(0.5)

    def draw(r):
        steps, batch = r.int(1, 6), r.int(1, 3)
        x = r.data(F32, [steps, batch, size], -2, 2)
        n = r.r.integers(1, steps + 1, batch).astype(np.int32) if lengths else None
        h = r.data(F32, [d, batch, hidden], -1, 1) if state else None
        operands = [x, w, rec, b, n, h]
        if name == "LSTM":
            operands += [r.data(F32, [d, batch, hidden], -1, 1) if state else None, p]
        while operands[-1] is None:
            operands.pop()
        return operands

    outputs = ["y0", "y1", "y2"][: 3 if name == "LSTM" else 2]
    return Spec(name, draw, attrs, 14, n_out=outputs, const=(1, 2, 3, 7), p_const=0.95, tol=5)


for cell_name, n_gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
    OPS[cell_name] = lambda r, name=cell_name, gates=n_gates: cell(r, name, gates)


@op("Attention")
def attention(r, name):
    dtype = r.pick([F32, F32, F16])
    kv, ratio, flat = r.int(1, 3), r.int(1, 3), r.chance(0.4)
    heads, e, v = kv * ratio, r.int(1, 9), r.int(1, 9)
    attrs = {"is_causal": r.int(0, 1)}
    if flat:
        attrs |= {"q_num_heads": heads, "kv_num_heads": kv}
    if r.chance(0.3):
        attrs["scale"] = r.float(0.1, 1)
    if r.chance(0.3):
        attrs["softcap"] = r.float(0.5, 5)
    mask = r.pick(None, None, "bool", "float")
    past = r.chance(0.3)

    def draw(r):
        b, q, k = r.int(1, 3), r.int(1, 7), r.int(1, 7)
        if attrs["is_causal"]:
            k = q
        before = r.int(1, 4) if past else 0
        shape = (lambda n, s, d: [b, s, n * d]) if flat else (lambda n, s, d: [b, n, s, d])
        operands = [r.data(dtype, shape(heads, q, e), -1, 1), r.data(dtype, shape(kv, k, e), -1, 1), r.data(dtype, shape(kv, k, v), -1, 1)]
        m = None
        if mask == "bool":
            m = r.data(BOOL, [q, k + before])
            m[:, 0] = True
        elif mask == "float":
            m = r.data(dtype, [q, k + before], -2, 2)
        operands.append(m)
        if past:
            operands += [r.data(dtype, [b, kv, before, e], -1, 1), r.data(dtype, [b, kv, before, v], -1, 1)]
        while operands[-1] is None:
            operands.pop()
        return operands

    def check(got, want, _):
        # Masks of -inf under a softcap are not numbers in onnx.reference.
        if any(np.isnan(np.asarray(w, np.float64)).any() for w in want):
            return []
        return [differences(g, np.asarray(w), 5) for g, w in zip(got, want)]

    return Spec(name, draw, attrs, 23, n_out=3 if past else 1, oracle="reference", check=check)


@op("RotaryEmbedding")
def rotary(r, name):
    heads, half, interleaved = r.int(1, 3), r.int(1, 4), r.int(0, 1)
    flat = r.chance(0.4)
    attrs = {"interleaved": interleaved}
    if flat:
        attrs["num_heads"] = heads
    by_position = r.chance(0.5)

    def draw(r):
        b, s = r.int(1, 3), r.int(1, 5)
        x = r.data(F32, [b, s, heads * 2 * half] if flat else [b, heads, s, 2 * half])
        if by_position:
            n = s + 3
            return [x, r.data(F32, [n, half], -1, 1), r.data(F32, [n, half], -1, 1), r.r.integers(0, n, [b, s]).astype(np.int64)]
        return [x, r.data(F32, [b, s, half], -1, 1), r.data(F32, [b, s, half], -1, 1)]

    return Spec(name, draw, attrs, 23, oracle="reference")


@op("DFT")
def dft(r, name):
    dtype, rank = r.pick([F32, F64]), r.int(1, 2)
    axis, inverse = r.int(1, rank), r.int(0, 1)
    complex_ = inverse or r.chance(0.4)
    attrs = {"inverse": inverse}
    if not complex_ and r.chance(0.5):
        attrs["onesided"] = 1
    length = r.int(2, 20) if r.chance(0.4) else None

    def draw(r):
        x = r.data(dtype, [r.int(1, 3)] + [r.int(2, 17) for _ in range(rank)] + [2 if complex_ else 1])
        return [x, np.array(length, np.int64) if length else None, np.array(axis, np.int64)]

    return Spec(name, draw, attrs, 20, const=(1, 2), p_const=0.9, tol=10, oracle="reference")


@op("STFT")
def stft(r, name):
    n, step = r.pick(4, 8, 7), r.int(1, 5)
    attrs = {"onesided": r.int(0, 1)}
    signal = lambda r: r.data(F32, [r.int(1, 3), r.int(n, n + 30), 1])
    draw = lambda r: [signal(r), np.array(step, np.int64), r.data(F32, [n], 0, 1)]
    return Spec(name, draw, attrs, 17, const=(1, 2), p_const=0.9, tol=10)


@op("HannWindow", "HammingWindow", "BlackmanWindow")
def windows(r, name):
    from problem import onnx_type
    attrs = {"periodic": r.int(0, 1), "output_datatype": onnx_type(r.pick([F32, F64]))}
    return Spec(name, lambda r: [np.array(r.int(2, 30), np.int64)], attrs, 17, p_const=0, tol=20)


@op("MelWeightMatrix")
def mel(r, name):
    draw = lambda r: [np.array(r.int(3, 12), np.int64), np.array(64, np.int64), np.array(16000, np.int64), np.array(20.0, np.float32),
                      np.array(7600.0, np.float32)]
    return Spec(name, draw, {}, 17, const=(1, 2, 3, 4), tol=3)


@op("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(r, name):
    dtype, rest, c = r.pick([F32, F32, F64]), r.shape(0, 2, empty=0), r.int(1, 7)
    attrs = {"reduction": r.pick("none", "sum", "mean")}
    ignore = r.chance(0.4)
    if ignore:
        attrs["ignore_index"] = r.pick(0, -1)
    weight = r.data(dtype, [c], 0.2, 2) if r.chance(0.5) else None

    def draw(r):
        n, d = r.int(2, 5), r.redraw(rest)
        target = r.r.integers(0, c, [n] + d)
        if ignore:
            target = np.where(r.r.random(target.shape) < 0.3, attrs["ignore_index"], target)
            target.reshape(-1)[0] = c - 1  # A mean over nothing is not a number.
        return [r.data(dtype, [n, c] + d), target.astype(np.int64)] + ([weight] if weight is not None else [])

    n_out = 2 if name.startswith("Softmax") and r.chance(0.3) else 1
    return Spec(name, draw, attrs, 13, n_out=n_out, const=(2,), tol=4)


@op("com.microsoft.Gelu", "com.microsoft.FastGelu", "com.microsoft.QuickGelu", "com.microsoft.BiasGelu")
def ms_gelu(r, name):
    shape, kind = r.shape(1, 3, empty=0), name.split(".")[-1]
    bias = kind == "BiasGelu" or (kind == "FastGelu" and r.chance(0.5))
    attrs = {"alpha": r.float(0.5, 2)} if kind == "QuickGelu" and r.chance(0.5) else {}
    b = r.data(F32, shape[-1:])
    return Spec(kind, lambda r: [r.data(F32, r.redraw(shape[:-1]) + shape[-1:])] + ([b] if bias else []), attrs, domain="com.microsoft",
                const=(1,), tol=3)


@op("com.microsoft.FusedMatMul")
def fused_matmul(r, name):
    attrs = {"alpha": r.float(0.3, 2), "transA": r.int(0, 1), "transB": r.int(0, 1)}
    batch = r.shape(0, 2, empty=0)

    def draw(r):
        m, k, n, b = r.int(1, 9), r.int(1, 9), r.int(1, 9), r.redraw(batch)
        return [r.data(F32, b + ([k, m] if attrs["transA"] else [m, k])), r.data(F32, b + ([n, k] if attrs["transB"] else [k, n]))]

    return Spec("FusedMatMul", draw, attrs, domain="com.microsoft", const=(1,), p_const=0.3, tol=4)


@op("com.microsoft.SkipLayerNormalization", "com.microsoft.SkipSimplifiedLayerNormalization")
def skip_norm(r, name):
    kind, h = name.split(".")[-1], r.int(2, 40)
    gamma, beta, bias = r.data(F32, [h]), r.data(F32, [h]), r.data(F32, [h])
    simple = "Simplified" in kind
    with_bias = r.chance(0.4)

    def draw(r):
        shape = [r.int(1, 3), r.int(1, 5), h]
        operands = [r.data(F32, shape), r.data(F32, shape), gamma] + ([] if simple else [beta])
        return operands + ([bias] if with_bias else [])

    n_out = ["y0", "", "", "y3"] if r.chance(0.5) else ["y0"]
    return Spec(kind, draw, {"epsilon": 1e-5}, domain="com.microsoft", n_out=n_out, const=(2, 3, 4), tol=5)
