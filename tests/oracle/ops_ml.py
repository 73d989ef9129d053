"""ai.onnx.ml on numbers: trees, linear models, support vector machines, tables, features."""

import numpy as np
from onnx import numpy_helper

from problem import F32, F64, I32, I64, Spec

OPS = {}
ML = "ai.onnx.ml"
MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
POST = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"]


def op(*names):
    def put(make):
        for name in names:
            OPS[name] = lambda r, name=name: make(r, name)
        return make

    return put


def floats(r, n, low=-1.0, high=1.0):
    return [float(v) for v in r.r.uniform(low, high, n)]


def grid(r, dtype, shape, missing=0.0):
    """Few distinct values, so that tests of equality hold now and then; NaN among them."""
    x = r.r.integers(-4, 5, shape) / (2 if dtype in (F32, F64) else 1)
    x = np.asarray(x).astype(dtype)
    if missing and dtype in (F32, F64):
        x[r.r.random(x.shape) < missing] = np.nan
    return x


def rows(r, n_features, dtype, missing=0.2):
    return lambda r: [grid(r, dtype, [r.pick(1, 2, 7, 40), n_features], missing)]


def forest(r, what, n_features, n_targets, dense, positive):
    """Attributes of versions 1 and 3; leaves have weights for all targets or for one."""
    modes = r.pick([MODES[:1], MODES[1:2], MODES, MODES[4:5]])
    a = {k: [] for k in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids", "missing_value_tracks_true")}
    w = {k: [] for k in ("treeids", "nodeids", "ids", "weights")}

    def grow(tree, depth, nodes):
        i = len(nodes)
        nodes.append(None)
        if depth == 0 or r.chance(0.15):
            nodes[i] = [i, 0, 0.0, "LEAF", 0, 0, 0]
            for target in range(n_targets) if dense else [tree % n_targets]:
                for k, v in zip(w, (tree, i, target, r.float(0, 0.3) if positive else r.float(-1, 1))):
                    w[k].append(v)
            return i
        yes, no = grow(tree, depth - 1, nodes), grow(tree, depth - 1, nodes)
        nodes[i] = [i, r.int(0, n_features - 1), r.pick(-1.0, -0.5, 0.0, 0.5, 1.0), r.pick(modes), yes, no, r.int(0, 1)]
        return i

    for tree in range(r.pick(1, 3, 10) if dense else n_targets * r.int(1, 3)):
        nodes = []
        grow(tree, r.int(1, 4), nodes)
        for n in nodes:
            for k, v in zip(a, [tree] + n):
                a[k].append(v)
    return {f"nodes_{k}": v for k, v in a.items()} | {f"{what}_{k}": v for k, v in w.items()}


def widen(attrs, keys):
    """Numbers as tensors of f64, as version 3 has them."""
    for k in keys:
        if k in attrs:
            attrs[k + "_as_tensor"] = numpy_helper.from_array(np.array(attrs.pop(k), np.float64), k)


@op("TreeEnsembleRegressor")
def tree_regressor(r, name):
    dtype, n, c = r.pick(F32, F32, F64), r.int(1, 5), r.pick(1, 1, 2, 5)
    attrs = forest(r, "target", n, c, r.chance(0.6), False)
    attrs |= {"n_targets": c, "aggregate_function": r.pick("SUM", "AVERAGE", "MIN", "MAX"), "post_transform": r.pick(POST)}
    if r.chance(0.4):
        attrs["base_values"] = floats(r, c)
    if dtype == F64:
        widen(attrs, ["nodes_values", "target_weights", "base_values"])
    return Spec(name, rows(r, n, dtype), attrs, 3, ML)


@op("TreeEnsembleClassifier")
def tree_classifier(r, name):
    dtype, n, c = r.pick(F32, F32, F64, I32, I64), r.int(1, 5), r.pick(1, 2, 2, 3, 5)
    one = c == 2 and r.chance(0.5)
    attrs = forest(r, "class", n, 1 if one else c, r.chance(0.6), r.chance(0.5))
    # With weights for both of two classes ONNX Runtime gives 0 and 1, whatever the labels are.
    labels = list(range(c)) if c <= 2 else [int(v) * 3 for v in r.r.permutation(c)]
    attrs |= {"classlabels_int64s": labels, "post_transform": r.pick(POST)}
    if r.chance(0.4):
        attrs["base_values"] = floats(r, c if c > 2 else 1)
    if dtype == F64:
        widen(attrs, ["nodes_values", "class_weights", "base_values"])
    return Spec(name, rows(r, n, dtype), attrs, 3, ML, n_out=2)


@op("TreeEnsemble")
def tree_ensemble(r, name):
    dtype, n, c = r.pick(F32, F64), r.int(1, 5), r.pick(1, 2, 5)
    allowed = r.pick([[0], list(range(6)), [0, 6], [6]])
    lists = {k: [] for k in ("nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids", "nodes_trueleafs", "nodes_falseleafs")}
    modes, splits, missing, weights, targets, sets, roots = [], [], [], [], [], [], []

    def grow(depth):
        i = len(modes)
        modes.append(r.pick(allowed))
        splits.append(r.pick(-1.0, -0.5, 0.0, 0.5, 1.0))
        missing.append(r.int(0, 1))
        for k, v in lists.items():
            v.append(r.int(0, n - 1) if k == "nodes_featureids" else 0)
        if modes[i] == 6:
            # ONNX Runtime takes whole numbers only, of x as well.
            sets.extend(list(r.r.choice([-1, 0, 1, 2, 3], r.int(1, 3), replace=False)) + [np.nan])
        for branch in ("true", "false"):
            if depth == 0 or r.chance(0.2):
                lists[f"nodes_{branch}nodeids"][i], lists[f"nodes_{branch}leafs"][i] = len(weights), 1
                weights.append(r.float(-1, 1))
                targets.append(r.int(0, c - 1))
            else:
                lists[f"nodes_{branch}nodeids"][i] = grow(depth - 1)
        return i

    for _ in range(r.pick(1, 3, 12)):
        roots.append(grow(r.int(0, 3)))
    tensor = lambda v, t: numpy_helper.from_array(np.array(v, t), "t")
    # Its numbers for the transforms are others in ONNX Runtime.
    attrs = lists | {"leaf_targetids": targets, "tree_roots": roots, "nodes_missing_value_tracks_true": missing, "n_targets": c,
                     "aggregate_function": r.int(0, 3), "nodes_modes": tensor(modes, np.uint8),
                     "nodes_splits": tensor(splits, dtype), "leaf_weights": tensor(weights, dtype)}
    if sets:
        attrs["membership_values"] = tensor(sets, dtype)
    draw = (lambda r: [np.floor(x) for x in rows(r, n, dtype)(r)]) if sets else rows(r, n, dtype)
    return Spec(name, draw, attrs, 5, ML)


@op("LinearRegressor")
def linear_regressor(r, name):
    n, c = r.int(1, 8), r.pick(1, 2, 5)
    attrs = {"coefficients": floats(r, n * c), "targets": c, "post_transform": r.pick(POST)}
    if r.chance(0.7):
        attrs["intercepts"] = floats(r, c)
    return Spec(name, rows(r, n, F32, 0), attrs, 1, ML)


@op("LinearClassifier")
def linear_classifier(r, name):
    n, c = r.int(1, 8), r.pick(1, 2, 5)
    attrs = {"coefficients": floats(r, n * c), "intercepts": floats(r, c), "classlabels_ints": [3, 1, 7, 2, 9][: max(c, 2)],
             "post_transform": r.pick(POST), "multi_class": r.int(0, 1)}
    return Spec(name, rows(r, n, r.pick(F32, F64, I32, I64), 0), attrs, 1, ML, n_out=2)


def machine(r):
    return {"kernel_type": r.pick("LINEAR", "POLY", "RBF", "SIGMOID"), "kernel_params": [0.3, 0.1, r.pick(2.0, 3.0)]}


@op("SVMRegressor")
def svm_regressor(r, name):
    n, s = r.int(1, 5), r.int(1, 8)
    attrs = machine(r) | {"coefficients": floats(r, s), "support_vectors": floats(r, s * n), "n_supports": s, "rho": floats(r, 1),
                          "one_class": int(r.chance(0.2))}
    return Spec(name, rows(r, n, F32, 0), attrs, 1, ML)


@op("SVMClassifier")
def svm_classifier(r, name):
    n, c = r.int(1, 5), r.pick(2, 3, 5)
    per = [r.int(1, 4) for _ in range(c)]
    s, pairs = sum(per), c * (c - 1) // 2
    attrs = machine(r) | {"coefficients": floats(r, s * (c - 1)), "support_vectors": floats(r, s * n), "vectors_per_class": per,
                          "rho": floats(r, pairs), "classlabels_ints": [3, 1, 7, 2, 9][:c], "post_transform": r.pick(POST)}
    if r.chance(0.6):
        attrs |= {"prob_a": floats(r, pairs, -2, -0.1), "prob_b": floats(r, pairs)}
    return Spec(name, rows(r, n, r.pick(F32, F64, I32, I64), 0), attrs, 1, ML, n_out=2)


@op("Scaler")
def scaler(r, name):
    n = r.int(1, 5)
    k = r.pick(1, n)
    return Spec(name, rows(r, n, r.pick(F32, F64, I32, I64), 0), {"offset": floats(r, k), "scale": floats(r, k)}, 1, ML)


@op("Normalizer")
def normalizer(r, name):
    return Spec(name, rows(r, r.int(1, 5), r.pick(F32, F64, I32, I64), 0), {"norm": r.pick("MAX", "L1", "L2")}, 1, ML)


@op("Imputer")
def imputer(r, name):
    n = r.int(1, 5)
    k = r.pick(1, n)
    if r.chance(0.5):
        return Spec(name, rows(r, n, F32), {"imputed_value_floats": floats(r, k), "replaced_value_float": r.pick(float("nan"), 0.5)}, 1, ML)
    attrs = {"imputed_value_int64s": [r.int(-5, 5) for _ in range(k)], "replaced_value_int64": 1}
    return Spec(name, rows(r, n, I64), attrs, 1, ML)


@op("Binarizer")
def binarizer(r, name):
    return Spec(name, rows(r, r.int(1, 5), F32, 0), {"threshold": r.pick(0.0, 0.5, -1.0)}, 1, ML)


@op("OneHotEncoder")
def one_hot(r, name):
    return Spec(name, rows(r, r.int(1, 5), r.pick(I64, F32, F64), 0), {"cats_int64s": [r.int(-4, 4) for _ in range(r.int(1, 6))]}, 1, ML)


@op("FeatureVectorizer")
def vectorizer(r, name):
    dtype, widths = r.pick(F32, F64, I32, I64), [r.int(1, 4) for _ in range(r.int(1, 3))]

    def draw(r):
        n = r.int(1, 5)
        return [grid(r, dtype, [n, w]) for w in widths]

    return Spec(name, draw, {"inputdimensions": [max(1, w + r.int(-1, 1)) for w in widths]}, 1, ML)


@op("LabelEncoder")
def label_encoder(r, name):
    keys, values, n = r.pick(I64, F32), r.pick(I64, F32), r.int(1, 7)
    kinds = {I64: "int64s", F32: "floats"}
    half = 2 if keys == F32 else 1
    k = [v / half if keys == F32 else int(v) for v in r.r.permutation(20)[:n] - 10]
    v = [r.int(-9, 9) if values == I64 else r.float(-9, 9) for _ in range(n)]
    attrs = {f"keys_{kinds[keys]}": k, f"values_{kinds[values]}": v, "default_int64" if values == I64 else "default_float": r.pick(7, -3)}
    if values == F32:
        attrs["default_float"] = float(attrs["default_float"]) / 2

    def draw(r):
        return [np.asarray(r.r.integers(-10, 10, r.shape(1, 3)) / half).astype(keys)]

    return Spec(name, draw, attrs, r.pick(2, 4), ML)
