#!/usr/bin/env python3
"""Speed on a GPU: the reference networks in f16, Sinter beside PyTorch in a CUDA graph, in one run on one machine.

    python3 benches/gpu/bench.py --sinterexec=target/release/sinterexec --out=DIR [--only=TEXT] [--seconds=1]

Exports each network with random weights, lets sinterexec build an engine with --fp16 and time it, and times the same
network in PyTorch: eager f16 (channels last for images) recorded as one CUDA graph. Both run on resident random inputs;
times are medians of GPU time in milliseconds. The error is Sinter's f16 output against PyTorch's f32 output as relative RMS.
DIR gets RESULTS.md with the table. Needs torch, torchvision, timm, transformers and onnx.
"""
import argparse, os, re, subprocess, time

ROWS = [("resnet50", b) for b in (1, 8, 32, 128)] + [
    ("bert-base-128", 1), ("bert-large-384", 1), ("bert-large-384", 32), ("vit_b_16", 1), ("vit_b_16", 32),
    ("mobilenet_v3_large", 1), ("mobilenet_v3_large", 128), ("efficientnet_b0", 1), ("efficientnet_b0", 128),
    ("deeplabv3_resnet50-512", 1)]


def build(name, batch):
    import torch
    if name.startswith("bert"):
        import transformers as tf
        large = "large" in name
        tokens = int(name.rsplit("-", 1)[1])
        c = tf.BertConfig(attn_implementation="eager", **(dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
                                                                 intermediate_size=4096) if large else {}))

        class Plain(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.m = tf.BertModel(c, add_pooling_layer=False)

            def forward(self, ids):
                return self.m(ids).last_hidden_state
        return Plain(), (torch.randint(0, 30000, (batch, tokens)),)
    if name.startswith("deeplab"):
        import torchvision

        class Out(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.m = torchvision.models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None)

            def forward(self, x):
                return self.m(x)["out"]
        return Out(), (torch.rand(batch, 3, 512, 512),)
    if name == "vit_b_16":
        import timm
        return timm.create_model("vit_base_patch16_224", pretrained=False), (torch.rand(batch, 3, 224, 224),)
    import torchvision
    return torchvision.models.get_model(name, weights=None), (torch.rand(batch, 3, 224, 224),)


def torch_ms(model, inputs, seconds):
    import torch
    half = model.half().cuda()
    xs = [x.cuda().half() if x.is_floating_point() else x.cuda() for x in inputs]
    if xs[0].dim() == 4:
        half = half.to(memory_format=torch.channels_last)
        xs = [x.contiguous(memory_format=torch.channels_last) for x in xs]
    with torch.no_grad():
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                half(*xs)
        torch.cuda.synchronize()
        g = torch.cuda.CUDAGraph()
        with torch.cuda.graph(g):
            half(*xs)
    times = []
    end = time.time() + seconds
    while time.time() < end or len(times) < 10:
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record(), g.replay(), b.record(), b.synchronize()
        times.append(a.elapsed_time(b))
    return sorted(times)[len(times) // 2]


def row(name, batch, a):
    import numpy as np, torch
    torch.manual_seed(0)
    model, inputs = build(name, batch)
    model.eval()
    folder = os.path.join(a.out, f"{name}_{batch}")
    os.makedirs(folder, exist_ok=True)
    path = f"{folder}/model.onnx"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        torch.onnx.export(model, inputs, path, input_names=["x"], opset_version=17, dynamo=False)
        want = model.cuda()(*[x.cuda() for x in inputs]).float().cpu().numpy()
    raw = inputs[0].numpy()
    raw.tofile(f"{folder}/x.bin")
    peer = torch_ms(model, inputs, a.seconds)
    del model
    torch.cuda.empty_cache()
    args = [a.sinterexec, f"--onnx={path}", "--device=cuda", "--fp16", f"--loadInputs=x:{folder}/x.bin", "--noDataTransfers",
            f"--duration={a.seconds}", "--warmUp=200", f"--saveEngine={folder}/engine"]
    start = time.time()
    r = subprocess.run(args + ["--exportOutput=" + f"{folder}/out.json"], capture_output=True, text=True, timeout=500)
    text = r.stdout + r.stderr
    if r.returncode != 0:
        return dict(name=name, batch=batch, peer=peer, note=(re.findall(r"\[E\].*", text) or ["?"])[-1][:160])
    gpu = re.search(r"GPU Compute Time:.*?median = ([\d.]+) ms", text)
    enqueue = re.search(r"Enqueue Time:.*?median = ([\d.]+) ms", text)
    built = re.search(r"Engine built in ([\d.]+)", text)
    error = rms(f"{folder}/out.json", want)
    for f in os.listdir(folder):
        os.remove(f"{folder}/{f}")
    return dict(name=name, batch=batch, peer=peer, ours=float(gpu[1]) if gpu else None, enqueue=float(enqueue[1]) if enqueue else None,
                built=float(built[1]) if built else None, error=error, wall=time.time() - start)


def rms(path, want):
    import json, numpy as np
    try:
        out = np.array(json.load(open(path))[0]["values"], dtype=np.float64).reshape(want.shape)
        return float(np.sqrt(((out - want) ** 2).sum() / (want.astype(np.float64) ** 2).sum()))
    except Exception as e:
        return f"{type(e).__name__}"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--sinterexec", required=True), p.add_argument("--out", required=True)
    p.add_argument("--only", default=""), p.add_argument("--seconds", type=float, default=1.0)
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    lines = ["| network | batch | PyTorch f16 graph, ms | Sinter --fp16, ms | ratio | enqueue, ms | build, s | rel RMS |", "|---|---:|---:|---:|---:|---:|---:|---:|"]
    for name, batch in ROWS:
        if a.only not in f"{name}/{batch}":
            continue
        try:
            r = row(name, batch, a)
        except Exception as e:
            r = dict(name=name, batch=batch, note=f"{type(e).__name__}: {e}"[:200])
        if r.get("ours"):
            error = r["error"] if isinstance(r["error"], str) else f"{r['error']:.1e}"
            lines.append(f"| {name} | {batch} | {r['peer']:.3f} | {r['ours']:.3f} | {r['peer'] / r['ours']:.2f} | {r['enqueue']:.4f} | {r['built']:.1f} | {error} |")
        else:
            lines.append(f"| {name} | {batch} | {r.get('peer', 0):.3f} | - | - | - | - | {r.get('note')} |")
        print(lines[-1], flush=True)
        open(f"{a.out}/RESULTS.md", "w").write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
