#!/usr/bin/env python3
"""Speed on a GPU: networks in f16, f32 and TF32, Sinter beside PyTorch, in one run on one machine.

    python3 benches/gpu/bench.py --sinterexec=target/release/sinterexec --out=DIR [--only=REGEX] [--seconds=0.25]
                                 [--layers] [--warm=REGEX] [--first=REGEX] [--others] [--batch=N] [--list]

Networks are exported with random weights by processes on the CPU; meanwhile the GPU times PyTorch: the whole model in one
CUDA graph, f16 and channels last for images (`eager`), for ResNet-50 also with batch norm folded and cuDNN's fused
convolutions (`fused`). Then sinterexec builds the network, checks the outputs against PyTorch's f32 ones (relative RMS) and
times it. At the end some are built with empty caches, and again. Both sides' figure is GPU time of one inference: events around many
launches, one after the other, on resident random inputs. --others takes further networks and only compares.
DIR gets RESULTS.md and results.json. Needs torch, torchvision, timm, transformers and onnx. A row is NETWORK/BATCH/TYPE.
"""
import argparse, json, math, multiprocessing, os, re, shutil, subprocess, sys, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# Network, batch, type: goal in ms, and recorded figures of peers that take too long to prepare, in ms.
ROWS = {
    ("bert-large-384", 32, "f16"): (13.5, 26.0), ("bert-large-384", 1, "f16"): (0.70, 1.86),
    ("resnet50", 1, "f16"): (0.14, 0.450), ("resnet50", 8, "f16"): (0.28, None),
    ("resnet50", 32, "f16"): (0.80, None), ("resnet50", 128, "f16"): (2.5, 4.72),
    ("bert-base-128", 1, "f16"): (0.22, None),
    ("vit_b_16", 1, "f16"): (0.23, 0.62), ("vit_b_16", 32, "f16"): (2.1, 3.35),
    ("mobilenet_v3_large", 1, "f16"): (0.12, 0.300), ("mobilenet_v3_large", 128, "f16"): (0.95, None),
    ("efficientnet_b0", 1, "f16"): (0.16, None), ("efficientnet_b0", 128, "f16"): (1.5, None),
    ("deeplabv3_resnet50", 1, "f16"): (0.9, None),
    ("yolov8n", 1, "f16"): (0.16, None), ("yolov8s", 8, "f16"): (0.65, None),
    ("resnet50", 1, "f32"): (None, None), ("resnet50", 32, "f32"): (None, None), ("resnet50", 32, "tf32"): (None, None),
    ("bert-base-128", 1, "f32"): (None, None), ("bert-base-128", 1, "tf32"): (None, None),
}
OTHERS = ["regnet_y_400mf", "resnext50_32x4d", "densenet121", "shufflenet_v2_x1_0", "mnasnet1_0", "squeezenet1_1", "googlenet",
          "inception_v3", "vgg16", "alexnet", "convnext_tiny", "swin_t", "maxvit_t", "wide_resnet50_2", "efficientnet_v2_s",
          "ghostnet", "mobilevit", "deit_small", "mixer_b16", "unet-like", "fcn_resnet50", "lraspp", "distilbert",
          "gpt2-like", "clip_vision"]
FLAGS = {"f16": ["--fp16"], "f32": [], "tf32": ["--tf32"]}


def text(row):
    return f"{row[0]}/{row[1]}/{row[2]}"


def export(job):
    """In a process of its own, without the GPU: the ONNX file, the input and the module."""
    (name, batch), folder = job
    start = time.time()
    try:
        import warnings
        warnings.filterwarnings("ignore")
        import torch, onnx
        from onnx import numpy_helper
        import networks
        torch.set_num_threads(2)
        os.makedirs(f"{folder}/data", exist_ok=True)
        model, x = networks.build(name, batch)
        # Tracing runs the network: a large batch is written into the file of a small one.
        small = 2 if batch > 8 else batch
        free = {"dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}} if small < batch else {}
        with torch.no_grad():
            torch.onnx.export(model, (x[:small],), f"{folder}/model.onnx", input_names=["x"], output_names=["y"],
                              opset_version=17, dynamo=False, **free)
        if free:
            file = onnx.load(f"{folder}/model.onnx")
            for t in (file.graph.input[0], file.graph.output[0]):
                t.type.tensor_type.shape.dim[0].dim_value = batch
            onnx.save(file, f"{folder}/model.onnx")
        torch.save((model, x), f"{folder}/model.pt")
        onnx.save_tensor(numpy_helper.from_array(x.numpy(), "x"), f"{folder}/data/input_0.pb")
        return (name, batch), time.time() - start, None
    except Exception as e:
        return (name, batch), time.time() - start, f"export: {type(e).__name__}: {e}"[:300]


def launches_ms(run, seconds):
    """GPU time of one of many launches, one after the other."""
    import torch
    def many(n):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        for _ in range(n):
            run()
        b.record(), b.synchronize()
        return a.elapsed_time(b) / n
    once = many(5)
    n = max(5, min(3000, int(seconds * 1e3 / 3 / max(once, 1e-3))))
    return sorted(many(n) for _ in range(3))[1]


def graph_of(model, x):
    import torch
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            model(x)
    torch.cuda.synchronize()
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        y = model(x)
    return g, y


def rms(y, want):
    y, want = y.double(), want.double()
    return float(((y - want).square().sum() / want.square().sum()).sqrt())


def peers(name, batch, types, folder, seconds):
    """Times of PyTorch by type and way, the relative RMS of its f16, and the reference output as a file."""
    import copy, torch, onnx
    import networks
    from onnx import numpy_helper
    out = {}
    model, x = torch.load(f"{folder}/model.pt", weights_only=False)
    model, x = model.cuda().eval(), x.cuda()
    fast = lambda on: setattr(torch.backends.cuda.matmul, "allow_tf32", on) or setattr(torch.backends.cudnn, "allow_tf32", on)
    with torch.no_grad():
        fast(False)
        want = model(x).float()
        onnx.save_tensor(numpy_helper.from_array(want.cpu().numpy(), "y"), f"{folder}/data/output_0.pb")
        out["scale"] = float(want.std())
        networks.use_fast_attention(model)
        torch.backends.cudnn.benchmark = True
        image = x.dim() == 4
        if image:
            model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
        ways = [(t, "eager", model) for t in ("f32", "tf32") if t in types]
        if "f16" in types:
            half = copy.deepcopy(model).half()
            ways.append(("f16", "eager", half))
            if name == "resnet50":
                ways.append(("f16", "fused", networks.FusedResnet(copy.deepcopy(model)).half().to(memory_format=torch.channels_last)))
        for kind, way, m in ways:
            fast(kind == "tf32")
            try:
                xs = x.half() if kind == "f16" and x.is_floating_point() else x
                g, y = graph_of(m, xs)
                out[f"{kind} {way}"] = launches_ms(g.replay, seconds)
                out[f"{kind} {way} rms"] = rms(y, want)
                del g, y
            except Exception as e:
                out[f"{kind} {way} note"] = f"{type(e).__name__}: {e}".splitlines()[0][:160]
        fast(False)
    os.remove(f"{folder}/model.pt")
    del model, ways
    torch.cuda.empty_cache()
    return out


def number(pattern, text, scale=1.0):
    found = re.findall(pattern, text)
    return float(found[-1]) * scale if found else None


def sinter(row, folder, a):
    name, batch, kind = row
    engine = f"{folder}/engine-{kind}"
    common = [a.sinterexec, "--device=cuda", f"--testData={folder}/data", "--rms=1e30", "--noDataTransfers", "--warmUp=50",
              f"--duration={a.seconds}", "--iterations=20"]
    call = lambda args, env=None: subprocess.run(args, capture_output=True, text=True, timeout=300, env=env)
    more = [f"--exportProfile={folder}/profile.json", f"--exportLayerInfo={folder}/layers.json"] if a.layers else []
    start = time.time()
    r = call(common + [f"--onnx={folder}/model.onnx", f"--saveEngine={engine}"] + FLAGS[kind] + more)
    log = r.stdout + r.stderr
    out = dict(
        built=number(r"Engine built in ([\d.]+)", log), gpu=number(r"GPU Compute Time:.*?median = ([\d.e+-]+) ms", log),
        back=number(r"Back to Back:.*?GPU = ([\d.e+-]+) ms", log), enqueue=number(r"Enqueue Time:.*?median = ([\d.e+-]+) ms", log, 1e3),
        rms=number(r"\n\s+y\s+f32\s+\S+\s+\S+\s+\S+\s+(\S+)", log))
    open(f"{a.out}/{text(row).replace('/', '_')}.log", "w").write(log)
    if out["gpu"] is None:
        why = [l for l in log.splitlines() if "[E]" in l] or log.splitlines()[-3:]
        out["note"] = " ".join(why)[-200:]
        return out
    out["ms"] = out["back"] or out["gpu"]
    out["file_mb"] = os.path.getsize(engine) / 1e6
    if a.layers:
        out["layers"] = slowest(folder)
    out["seconds"] = time.time() - start
    if re.search(a.first, text(row)):
        r = call([a.sinterexec, "--device=cuda", f"--loadEngine={engine}", "--noDataTransfers", "--warmUp=0", "--duration=0", "--iterations=2"])
        out["first"] = number(r"First result after ([\d.]+) s", r.stdout) or number(r"Engine deserialized in ([\d.]+)", r.stdout)
    os.remove(engine)
    return out


def builds(row, folder, a):
    """Seconds of a build with empty caches, and of the same again."""
    cache = f"{a.out}/cache-empty"
    shutil.rmtree(cache, ignore_errors=True)
    env = dict(os.environ, SINTER_CACHE_DIR=cache)
    args = [a.sinterexec, "--device=cuda", f"--onnx={folder}/model.onnx", "--skipInference"] + FLAGS[row[2]]
    runs = [subprocess.run(args, capture_output=True, text=True, timeout=300, env=env).stdout for _ in range(2)]
    return [number(r"Engine built in ([\d.]+)", r) for r in runs]


def slowest(folder, n=12):
    """The layers that take longest: name, share, microseconds, tactic."""
    times = json.load(open(f"{folder}/profile.json"))[1:]
    info = json.load(open(f"{folder}/layers.json"))["Layers"]
    tuned = lambda l: f"tuned {l['TimeUs']:.1f} us of {len(l['Candidates'])}, " if "TimeUs" in l else ""
    tactic = {l["Name"]: f"{tuned(l)}{l['LayerType']} {l['Tactic']} {' '.join(t['Dimensions'] for t in l['Outputs'])}" for l in info}
    tuned_sum = sum(l.get("TimeUs", 0) for l in info)
    times.sort(key=lambda t: -t["medianMs"])
    lines = [f"      {t['medianMs'] * 1e3:9.1f} us {t['percentage']:5.1f}%  {t['name'][:44]:44} {tactic.get(t['name'], '')[:140]}" for t in times[:n]]
    whole = sum(t["medianMs"] for t in times)
    return [f"      {len(times)} layers, {whole * 1e3:.0f} us when each is timed alone, {tuned_sum:.0f} us by the builder's times"] + lines


HEAD = ["network", "batch", "type", "Sinter ms", "goal ms", "goal/ours", "eager ms", "fused ms", "compile ms (recorded)", "best peer/ours",
        "enqueue us", "build s, empty caches", "again", "first result s", "engine MB", "rel RMS", "rel RMS of PyTorch"]


def cells(row, p, s, a):
    name, batch, kind = row
    f = lambda v, form="{:.3f}": "-" if v is None else form.format(v)
    goal, compiled = ROWS.get(row, (None, None))
    eager, fused, ms = p.get(f"{kind} eager"), p.get(f"{kind} fused"), s.get("ms")
    best = min([v for v in (eager, fused, compiled) if v], default=None)
    ratio = best / ms if best and ms else None
    s["ratio"], s["to_goal"] = ratio, goal / ms if goal and ms else None
    return [name, str(batch), kind, f(ms) if ms else s.get("note", "-"), f(goal), f(s["to_goal"], "{:.2f}"), f(eager) if eager else p.get(f"{kind} eager note", "-"),
            f(fused) if fused else p.get(f"{kind} fused note", "-"), f(compiled), f(ratio, "{:.2f}"), f(s.get("enqueue"), "{:.1f}"),
            f(s.get("cold"), "{:.1f}"), f(s.get("warm"), "{:.2f}"), f(s.get("first"), "{:.2f}"), f(s.get("file_mb"), "{:.1f}"),
            f(s.get("rms"), "{:.1e}"), f(p.get(f"{kind} eager rms"), "{:.1e}")]


def mean(values):
    values = [v for v in values if v]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else float("nan")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sinterexec"), p.add_argument("--out", default="bench-out")
    p.add_argument("--only", default="", help="rows whose NETWORK/BATCH/TYPE this regular expression finds")
    p.add_argument("--warm", default="^resnet50/1/f16|^bert-base-128/1/f16", help="rows whose builds are timed at the end")
    p.add_argument("--first", default="^(resnet50|vit_b_16|bert-large-384)/1/f16", help="rows whose engine is loaded to see the first result")
    p.add_argument("--seconds", type=float, default=0.25), p.add_argument("--workers", type=int, default=8)
    p.add_argument("--layers", action="store_true"), p.add_argument("--others", action="store_true")
    p.add_argument("--batch", type=int, default=8, help="of --others"), p.add_argument("--list", action="store_true")
    p.add_argument("--limit", type=float, default=1e9, help="seconds after which no row is begun")
    p.add_argument("--keep-cache", action="store_true", help="use the caches of the user instead of empty ones")
    a = p.parse_args()
    rows = [(n, a.batch, "f16") for n in OTHERS] if a.others else list(ROWS)
    rows = [r for r in rows if re.search(a.only, text(r))]
    if a.list or not a.sinterexec:
        return print("\n".join(map(text, rows)))
    begin = time.time()
    os.makedirs(a.out, exist_ok=True)
    a.out = os.path.abspath(a.out)
    if not a.keep_cache:
        shutil.rmtree(f"{a.out}/cache", ignore_errors=True)
        os.environ["SINTER_CACHE_DIR"] = f"{a.out}/cache"
    os.environ.setdefault("SINTER_LOG", "info")  # the choice of kernels, in each row's log
    wanted = {}
    for n, b, t in rows:
        wanted.setdefault((n, b), []).append(t)
    folder = lambda key: f"{a.out}/{key[0]}_{key[1]}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # for the processes that export
    pool = multiprocessing.get_context("spawn").Pool(min(a.workers, len(wanted)))
    jobs = pool.imap_unordered(export, [(k, folder(k)) for k in wanted])
    os.environ.pop("CUDA_VISIBLE_DEVICES") if visible is None else os.environ.update(CUDA_VISIBLE_DEVICES=visible)
    import torch
    lines, results = ["| " + " | ".join(HEAD) + " |", "|---" * 3 + "|---:" * (len(HEAD) - 3) + "|"], {}
    print("\n".join(lines), flush=True)
    done = lambda: time.time() - begin
    for key, seconds, error in jobs:
        if done() > a.limit:
            break
        p = dict()
        try:
            start = time.time()
            if error is None:
                p = peers(*key, wanted[key], folder(key), a.seconds)
                print(f"# {key}: export {seconds:.1f} s, PyTorch {time.time() - start:.1f} s, spread of outputs {p['scale']:.2g}, after {done():.0f} s", flush=True)
        except Exception as e:
            print(f"# {key}: PyTorch: {type(e).__name__}: {e}"[:300], flush=True)
        for kind in wanted[key]:
            row = (*key, kind)
            try:
                s = dict(note=error) if error else dict(note="left out: no time") if done() > a.limit else sinter(row, folder(key), a)
            except Exception as e:
                s = dict(note=f"{type(e).__name__}: {e}"[:200])
            results[row] = (p, s)
            print("| " + " | ".join(cells(row, p, s, a)) + " |", *s.get("layers", []), sep="\n", flush=True)
        if not any(re.search(a.warm, text((*key, t))) for t in wanted[key]):
            shutil.rmtree(folder(key), ignore_errors=True)
    pool.terminate(), pool.join()
    for row in rows:
        results.setdefault(row, ({}, dict(note="left out: no time")))
    # With nothing else running on the processor.
    for row in [r for r in rows if re.search(a.warm, text(r)) and results[r][1].get("ms") and done() < a.limit]:
        results[row][1]["cold"], results[row][1]["warm"] = builds(row, folder(row[:2]), a)
    lines += ["| " + " | ".join(cells(r, *results[r], a)) + " |" for r in rows]
    print(f"# {torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}\n" + "\n".join(lines), flush=True)
    results = [dict(row=text(r), peer=results[r][0], sinter=results[r][1]) for r in rows]
    halves = [r["sinter"] for r in results if r["row"].endswith("f16")]
    lines += ["", f"Geometric mean over f16 rows: best peer / Sinter {mean([s.get('ratio') for s in halves]):.2f}, goal / Sinter "
              f"{mean([s.get('to_goal') for s in halves]):.2f}; {sum('ms' in s for s in halves)} of {len(halves)} rows ran; {time.time() - begin:.0f} s in all."]
    print("\n".join(lines[-2:]), flush=True)
    open(f"{a.out}/RESULTS.md", "w").write("\n".join(lines) + "\n")
    json.dump(results, open(f"{a.out}/results.json", "w"), indent=1)
    for key in wanted:
        shutil.rmtree(folder(key), ignore_errors=True)


if __name__ == "__main__":
    main()
