#!/usr/bin/env python3
"""Random legal one-node models, run by Sinter and by an oracle.

For every operator of the tables in `ops_*.py` it writes models with random attributes, types and shapes (odd, empty,
broadcast; negative axes and steps), runs them by ONNX Runtime with its optimizations off, or by onnx.reference where
that has no kernel, and by Sinter through the C interface; then it compares. A mismatch is printed with its model in
words, and written as a folder that `sinterexec --onnx=DIR/model.onnx --testData=DIR` repeats.

Needs Python 3.10, and from PyPI: numpy, onnx==1.22.0, onnxruntime>=1.23, ml_dtypes. Not part of `tests/run.sh`.

    cargo build --release
    python3 tests/oracle/run.py --lib target/release/libsinter.so                    # every operator, 200 problems each
    python3 tests/oracle/run.py --lib ... --device cuda --sets 16                    # few kernels, many shapes
    python3 tests/oracle/run.py --lib ... --ops Conv,Pad --seed 7 --problems 1000
    python3 tests/oracle/run.py --lib ... --seeds tests/oracle/seeds.txt             # the committed set

A problem is one run. A model with symbolic dimensions is run with `--sets` sets of shapes, so that one build (and, on
CUDA, one compilation) serves many problems. `seeds.txt` names single models, `OPERATOR INDEX SEED`: those that once
were wrong.
"""

import argparse
import collections
import multiprocessing
import os
import pathlib
import sys
import time
import traceback
import zlib

os.environ.setdefault("ORT_DISABLE_ALL_LOGS", "1")
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy as np
import onnxruntime as ort
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

import engine as sinter
import ops_index, ops_math, ops_ml, ops_nn, ops_quant, ops_shape
from problem import Model, Rng, differences

OPS = {}
for module in (ops_math, ops_shape, ops_index, ops_nn, ops_quant, ops_ml):
    for name, make in module.OPS.items():
        assert name not in OPS, name
        OPS[name] = make

ort.set_default_logger_severity(4)
NATIVE = {"float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"}

# ONNX Runtime 1.31 leaves the results of a product over an empty axis unset, and ends the process for blocks of nothing.
NOT_EMPTY = {"MatMul", "QuantizeLinear"}


class OrtOracle:
    def __init__(self, model, is_wide):
        self.is_wide = is_wide
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        types = {t.type for t in self.session.get_outputs()} | {t.type for t in self.session.get_inputs()}
        if any("bfloat16" in t or "float8" in t or "int4" in t or "int2" in t or "float4" in t for t in types):
            raise NotImplementedError("numpy has no such type")
        self.op = model.graph.node[0].op_type

    def run(self, inputs):
        if self.op in NOT_EMPTY and any(x.size == 0 for x in inputs.values()):
            raise NotImplementedError(f"{self.op} of nothing")
        return self.session.run(None, inputs)


class ReferenceOracle:
    def __init__(self, model, is_wide):
        self.is_wide = is_wide
        self.evaluator = ReferenceEvaluator(model)
        self.op = model.graph.node[0].op_type

    def run(self, inputs):
        with np.errstate(all="ignore"):
            outputs = [np.asarray(y) for y in self.evaluator.run(None, inputs)]
        if self.op == "ReduceSumSquare":
            # Its sum of no int32 is an int64; the standard says that the type stays.
            outputs = [y.astype(next(iter(inputs.values())).dtype) for y in outputs]
        return outputs


def oracles(model):
    """Those that take the model, the preferred one first."""
    order = [OrtOracle, ReferenceOracle]
    if model.spec.oracle == "reference":
        order.reverse()
    if model.spec.oracle == "reference only":
        order = [ReferenceOracle]
    if model.spec.oracle in ("ort only", "f32"):
        order = [OrtOracle]
    for kind in order:
        # Sums of half types are compared with sums in f32, rounded once.
        protos = [model.proto] if model.wide is None else [model.wide] if kind is ReferenceOracle else [model.wide, model.proto]
        for proto in protos:
            try:
                yield kind.__name__, kind(proto, proto is model.wide)
            except Exception:
                continue


def widened(inputs, others):
    return {n: x.astype(np.float32) if x.dtype in others else x for n, x in inputs.items()}


def narrowed(got, want, others):
    """What an oracle gave in f32 for a result of another type."""
    pairs = zip(got, (np.asarray(w) for w in want))
    return [w.astype(g.dtype) if g.dtype in others and w.dtype == np.float32 else w for g, w in pairs]


def looser(model, oracle):
    """Tolerances of f64 results by what the oracle computes with."""
    if model.spec.oracle == "f32":
        return (1e-3, 1e-5)
    return (1e-5, 1e-6) if oracle == "ReferenceOracle" else None


def answers(model):
    """Outputs for each set of inputs, None where no oracle computes them."""
    if callable(model.spec.oracle):
        return [model.spec.oracle(list(s.values())) for s in model.sets], "own"
    best, name = [None] * len(model.sets), "none"
    for name, oracle in oracles(model):
        for i, inputs in enumerate(model.sets):
            if best[i] is None:
                try:
                    best[i] = oracle.run(widened(inputs, model.others) if model.wide is not None and oracle.is_wide else inputs)
                except Exception:
                    pass
        if all(b is not None for b in best):
            break
    return best, name


def write(folder, model, inputs, want):
    """A folder as `sinterexec --testData` reads it."""
    data = folder / "test_data_set_0"
    data.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.proto.SerializeToString())
    for kind, tensors in (("input", list(inputs.values())), ("output", want)):
        for i, t in enumerate(tensors):
            t = np.asarray(t)
            (data / f"{kind}_{i}.pb").write_bytes(numpy_helper.from_array(np.ascontiguousarray(t).reshape(t.shape)).SerializeToString())


def check(library, op, index, seed, options):
    """Runs one model. Returns (problems, refused by the oracle, list of faults); a fault is (kind, text)."""
    r = Rng([seed, zlib.crc32(op.encode()), index])
    spec = OPS[op](r)
    dynamic = r.chance(0.85 if options.device != "cpu" else 0.5)
    model = Model(spec, r, dynamic, options.sets)
    want, oracle = answers(model)
    n_refused = sum(w is None for w in want)
    if n_refused == len(want):
        return 0, n_refused, []
    where = f"{model.text}  [{op} {index} {seed}, {oracle}]"
    faults = []
    try:
        engine = sinter.Engine(library, model.proto.SerializeToString())
    except sinter.Refused as e:
        return len(want) - n_refused, n_refused, [("refused", f"{where}: {e}")]
    try:
        for inputs, expected in zip(model.sets, want):
            if expected is None:
                continue
            shapes = ", ".join(str(list(x.shape)) for x in inputs.values())
            try:
                got = engine.run(inputs)
                expected = narrowed(got, expected, model.others) if model.wide is not None else expected
            except sinter.Refused as e:
                faults.append(("error", f"{where} at {shapes}: {e}"))
                continue
            compare = spec.check or (lambda got, want, _: [differences(g, np.asarray(w), spec.tol, looser(model, oracle)) for g, w in zip(got, want)])
            wrong = [(i, d) for i, d in enumerate(compare(got, expected, inputs)) if d]
            if wrong:
                i, d = wrong[0]
                folder = pathlib.Path(options.out) / f"{op}_{index}_{seed}"
                write(folder, model, inputs, expected)
                faults.append(("wrong", f"{where} at {shapes}: output {i}: {d}; repeat with {folder}"))
    finally:
        engine.close()
    return len(want) - n_refused, n_refused, faults


def work(options, jobs, pipe):
    """Runs models in a process of its own: a crash costs one model, and is a fault."""
    library = sinter.Library(options.lib, options.device)
    for op, index, seed in jobs:
        pipe.send(("start", op, index, seed))
        try:
            pipe.send(("done", op, *check(library, op, index, seed, options)))
        except Exception:
            text = traceback.format_exc(limit=-4)
            pipe.send(("done", op, 0, 0, [("generator", f"[{op} {index} {seed}]: {text}")]))
    pipe.send(("end",))


class Row:
    def __init__(self):
        self.n = self.n_refused = 0
        self.faults = collections.defaultdict(list)


def run_jobs(options, jobs, rows):
    context = multiprocessing.get_context("fork")
    while jobs:
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(options, jobs, theirs), daemon=True)
        process.start()
        theirs.close()
        done, started, ended = 0, None, False
        try:
            while True:
                if not mine.poll(options.limit):
                    process.kill()
                    break
                message = mine.recv()
                if message[0] == "start":
                    started = message[1:]
                elif message[0] == "end":
                    ended = True
                    break
                else:
                    done, started = done + 1, None
                    _, op, n, n_refused, faults = message
                    row = rows[op]
                    row.n, row.n_refused = row.n + n, row.n_refused + n_refused
                    for kind, text in faults:
                        row.faults[kind].append(text)
        except EOFError:
            pass
        process.join()
        if ended:
            return
        op, index, seed = started or jobs[min(done, len(jobs) - 1)]
        rows[op].faults["crash"].append(f"[{op} {index} {seed}]: the process ended with {process.exitcode} or took {options.limit} s")
        jobs = jobs[done + 1 :]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lib", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ops", default="")
    parser.add_argument("--problems", type=int, default=200, help="for each operator")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", help="a file of models to run instead")
    parser.add_argument("--sets", type=int, default=4, help="sets of shapes for each model with symbolic dimensions")
    parser.add_argument("--out", default="target/oracle", help="folder for models that are wrong")
    parser.add_argument("--show", type=int, default=3, help="faults printed for each operator and kind")
    parser.add_argument("--limit", type=float, default=120, help="seconds for one model")
    options = parser.parse_args()
    options.lib = os.path.abspath(options.lib)
    if options.seeds:
        lines = [l.split() for l in open(options.seeds) if l.strip() and not l.startswith("#")]
        jobs = [(op, int(index), int(seed)) for op, index, seed in lines]
    else:
        names = options.ops.split(",") if options.ops else sorted(OPS)
        # A model counts 1 or `sets` problems; half of them have symbols.
        per_model = (1 + options.sets) / 2 if options.device == "cpu" else 0.85 * options.sets
        jobs = [(op, i, options.seed) for op in names for i in range(max(1, round(options.problems / per_model)))]
    rows = collections.defaultdict(Row)
    start = time.time()
    run_jobs(options, jobs, rows)
    seconds = time.time() - start
    kinds = ["refused", "error", "wrong", "crash", "generator"]
    for op, row in sorted(rows.items()):
        for kind in kinds:
            for text in row.faults[kind][: options.show]:
                print(f"{kind}: {text}")
    print(f"\n{'operator':<32} {'run':>6} {'oracle refuses':>15} " + " ".join(f"{k:>9}" for k in kinds))
    for op, row in sorted(rows.items()):
        print(f"{op:<32} {row.n:>6} {row.n_refused:>15} " + " ".join(f"{len(row.faults[k]) or '':>9}" for k in kinds))
    total = sum(r.n for r in rows.values())
    n_faults = sum(len(f) for r in rows.values() for f in r.faults.values())
    print(f"\n{total} problems in {seconds:.1f} s ({total / max(seconds, 1e-9):.0f} a second), {n_faults} faults")
    sys.exit(1 if n_faults else 0)


if __name__ == "__main__":
    main()
