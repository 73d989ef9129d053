#!/usr/bin/env python3
"""Exports networks of torchvision, timm and transformers with random weights, runs ONNX Runtime on them, and compares
Sinter's answers on the CPU and on a GPU.

    python3 tests/exports/export.py --sinterexec=target/release/sinterexec --out=DIR [--jobs=12] [--only=TEXT] [--device=cuda,cpu]

Needs torch, torchvision, timm, transformers, onnx and onnxruntime. Each network is exported, run and compared in a
process of its own; DIR gets one folder a network in the layout of ONNX's test data (weights are dropped afterwards) and
the table RESULTS.md. Rule: relative RMS error of every floating-point output at most 1e-4 (1e-2 with --fp16), other outputs
equal. Networks that end in discrete choices (detection) must agree in shape and in that measure too.
"""
import argparse, concurrent.futures as cf, json, os, re, shutil, subprocess, sys, time, traceback

VISION = dict(kind="torchvision", size=224)
MODELS = {
    # convolutional
    "resnet18": VISION, "resnet50": VISION, "wide_resnet50_2": VISION, "resnext50_32x4d": VISION, "vgg16_bn": VISION,
    "alexnet": VISION, "densenet121": VISION, "googlenet": VISION, "inception_v3": dict(VISION, size=299),
    "squeezenet1_1": VISION, "convnext_tiny": VISION, "regnet_y_400mf": VISION, "regnet_x_800mf": VISION,
    # mobile
    "mobilenet_v2": VISION, "mobilenet_v3_small": VISION, "mobilenet_v3_large": VISION, "shufflenet_v2_x1_0": VISION,
    "mnasnet1_0": VISION, "efficientnet_b0": VISION, "efficientnet_v2_s": VISION,
    # vision transformers
    "vit_b_16": VISION, "swin_t": VISION, "swin_v2_t": VISION, "maxvit_t": VISION,
    # detection, segmentation
    "fasterrcnn_mobilenet_v3_large_320_fpn": dict(kind="detection", size=320),
    "fasterrcnn_resnet50_fpn": dict(kind="detection", size=320),
    "retinanet_resnet50_fpn": dict(kind="detection", size=320),
    "ssdlite320_mobilenet_v3_large": dict(kind="detection", size=320),
    "ssd300_vgg16": dict(kind="detection", size=300),
    "fcos_resnet50_fpn": dict(kind="detection", size=320),
    "maskrcnn_resnet50_fpn": dict(kind="detection", size=320),
    "deeplabv3_mobilenet_v3_large": dict(kind="segmentation", size=224),
    "fcn_resnet50": dict(kind="segmentation", size=224),
    "lraspp_mobilenet_v3_large": dict(kind="segmentation", size=224),
    "raft_small": dict(kind="flow"),
    "r3d_18": dict(kind="video"),
}
for name in ["deit_tiny_patch16_224", "beit_base_patch16_224", "mixer_b16_224", "resmlp_12_224", "ghostnet_100",
             "efficientformer_l1", "levit_128", "poolformer_s12", "coat_lite_tiny", "hrnet_w18_small", "rexnet_100",
             "mobilevit_s", "repvgg_a0", "res2net50_26w_4s", "cspdarknet53", "nfnet_l0", "eca_nfnet_l0", "tf_mixnet_s"]:
    MODELS["timm/" + name] = dict(kind="timm", size=256 if name == "mobilevit_s" else 224)
for name in ["bert", "distilbert", "roberta", "albert", "electra", "mpnet", "deberta_v2", "gpt2", "gpt2_past", "opt", "llama",
             "qwen2", "gpt_neox", "t5_encoder", "t5_decoder", "bart", "whisper_encoder", "whisper_decoder", "wav2vec2",
             "hubert", "clip", "vit_hf", "segformer", "detr", "layoutlm", "squeezebert", "funnel"]:
    MODELS["transformers/" + name] = dict(kind="transformers")


def build(name):
    """(module, inputs as a tuple, input names, dynamic axes)."""
    import torch
    spec = MODELS[name]
    kind = spec["kind"]
    image = lambda n, s: torch.rand(n, 3, s, s)
    if kind == "torchvision":
        import torchvision
        kw = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        if name in ("googlenet", "inception_v3"):
            kw["aux_logits"] = True
        m = torchvision.models.get_model(name, weights=None, **kw)
        return m, (image(1, spec["size"]),), ["x"], {"x": {0: "batch"}} if name in ("resnet18", "mobilenet_v2", "vit_b_16") else None
    if kind == "detection":
        import torchvision
        kw = dict(weights=None, weights_backbone=None)
        if "rcnn" in name:
            kw.update(box_score_thresh=0.005, rpn_pre_nms_top_n_test=200, rpn_post_nms_top_n_test=50)
        else:
            kw.update(score_thresh=0.005, topk_candidates=50, detections_per_img=20)
        m = torchvision.models.get_model(name, **kw)
        return m, ([torch.rand(3, spec["size"], spec["size"])],), ["x"], None
    if kind == "segmentation":
        import torchvision
        class First(torch.nn.Module):
            def __init__(self, m):
                super().__init__()
                self.m = m
            def forward(self, x):
                return self.m(x)["out"]
        m = First(torchvision.models.get_model(name, weights=None, weights_backbone=None))
        return m, (image(1, spec["size"]),), ["x"], {"x": {0: "batch", 2: "height", 3: "width"}} if "fcn" in name else None
    if kind == "flow":
        import torchvision
        class Last(torch.nn.Module):
            def __init__(self, m):
                super().__init__()
                self.m = m
            def forward(self, a, b):
                return self.m(a, b, num_flow_updates=3)[-1]
        return Last(torchvision.models.get_model(name, weights=None)), (image(1, 128), image(1, 128)), ["a", "b"], None
    if kind == "video":
        import torchvision
        return torchvision.models.get_model(name, weights=None), (torch.rand(1, 3, 8, 64, 64),), ["x"], None
    if kind == "timm":
        import timm
        m = timm.create_model(name.split("/")[1], pretrained=False)
        return m, (image(1, spec["size"]),), ["x"], None
    return transformer(name.split("/")[1])


def transformer(name):
    import torch, transformers as tf

    class Pick(torch.nn.Module):
        """Calls with keywords and gives the tensors of the result."""
        def __init__(self, m, names, **kw):
            super().__init__()
            self.m, self.names, self.kw = m, names, kw
        def forward(self, *xs):
            out = self.m(**dict(zip(self.names, xs)), **self.kw)
            out = out.to_tuple() if hasattr(out, "to_tuple") else out
            return tuple(t for t in out if isinstance(t, torch.Tensor))

    ids = lambda v, n=17: torch.randint(3, v, (2, n))
    small = dict(hidden_size=96, num_hidden_layers=2, num_attention_heads=4, intermediate_size=192)
    dyn = lambda *names: {n: {0: "batch", 1: "tokens"} for n in names}
    mask = torch.ones(2, 17, dtype=torch.int64)
    mask[1, 11:] = 0
    nocache = dict(use_cache=False)
    text = lambda m, v, **kw: (Pick(m, ["input_ids", "attention_mask"], **kw), (ids(v), mask), ["input_ids", "attention_mask"],
                               dyn("input_ids", "attention_mask"))
    if name == "bert":
        return text(tf.BertForMaskedLM(tf.BertConfig(vocab_size=500, **small)), 500)
    if name == "distilbert":
        return text(tf.DistilBertModel(tf.DistilBertConfig(vocab_size=500, dim=96, n_layers=2, n_heads=4, hidden_dim=192)), 500)
    if name == "roberta":
        return text(tf.RobertaModel(tf.RobertaConfig(vocab_size=500, **small)), 500)
    if name == "albert":
        return text(tf.AlbertModel(tf.AlbertConfig(vocab_size=500, embedding_size=64, **small)), 500)
    if name == "electra":
        return text(tf.ElectraModel(tf.ElectraConfig(vocab_size=500, embedding_size=64, **small)), 500)
    if name == "mpnet":
        return text(tf.MPNetModel(tf.MPNetConfig(vocab_size=500, **small)), 500)
    if name == "deberta_v2":
        return text(tf.DebertaV2Model(tf.DebertaV2Config(vocab_size=500, relative_attention=True, pos_att_type=["p2c", "c2p"],
                                                         max_relative_positions=64, **small)), 500)
    if name == "layoutlm":
        m = tf.LayoutLMModel(tf.LayoutLMConfig(vocab_size=500, **small))
        return Pick(m, ["input_ids", "bbox"]), (ids(500), torch.randint(0, 1000, (2, 17, 4)).sort(-1).values), ["input_ids", "bbox"], None
    if name == "squeezebert":
        return text(tf.SqueezeBertModel(tf.SqueezeBertConfig(vocab_size=500, embedding_size=96, **small)), 500)
    if name == "funnel":
        return text(tf.FunnelModel(tf.FunnelConfig(vocab_size=500, block_sizes=[1, 1], d_model=96, n_head=4, d_head=24, d_inner=192)), 500)
    if name in ("gpt2", "gpt2_past"):
        m = tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=500, n_embd=96, n_layer=2, n_head=4, attn_implementation="eager"))
        if name == "gpt2":
            return text(m, 500, **nocache)

        class Past(torch.nn.Module):
            def __init__(self, m):
                super().__init__()
                self.m = m
            def forward(self, x, k0, v0, k1, v1):
                from transformers.cache_utils import DynamicCache
                cache = DynamicCache()
                for i, (k, v) in enumerate([(k0, v0), (k1, v1)]):
                    cache.update(k, v, i)
                out = self.m(input_ids=x, past_key_values=cache, use_cache=True)
                c = out.past_key_values
                layers = [(l.keys, l.values) for l in c.layers] if hasattr(c, "layers") else list(zip(c.key_cache, c.value_cache))
                return (out.logits, *[t for kv in layers for t in kv])
        names = ["x", "k0", "v0", "k1", "v1"]
        past = [torch.randn(2, 4, 9, 24) for _ in range(4)]
        axes = {n: {2: "past"} for n in names[1:]}
        return Past(m), (ids(500, 3), *past), names, axes
    if name == "opt":
        c = tf.OPTConfig(vocab_size=500, hidden_size=96, ffn_dim=192, num_hidden_layers=2, num_attention_heads=4,
                         word_embed_proj_dim=96, attn_implementation="eager")
        return text(tf.OPTForCausalLM(c), 500, **nocache)
    if name == "llama":
        c = tf.LlamaConfig(vocab_size=500, num_key_value_heads=2, attn_implementation="eager", **small)
        return text(tf.LlamaForCausalLM(c), 500, **nocache)
    if name == "qwen2":
        c = tf.Qwen2Config(vocab_size=500, num_key_value_heads=2, attn_implementation="eager", **small)
        return text(tf.Qwen2ForCausalLM(c), 500, **nocache)
    if name == "gpt_neox":
        return text(tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(vocab_size=500, attn_implementation="eager", **small)), 500, **nocache)
    t5 = lambda: tf.T5Config(vocab_size=500, d_model=96, d_kv=24, d_ff=192, num_layers=2, num_heads=4)
    if name == "t5_encoder":
        return text(tf.T5EncoderModel(t5()), 500)
    if name in ("t5_decoder", "bart"):
        if name == "bart":
            c = tf.BartConfig(vocab_size=500, d_model=96, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                              decoder_attention_heads=4, encoder_ffn_dim=192, decoder_ffn_dim=192, attn_implementation="eager")
            m = tf.BartModel(c)
        else:
            m = tf.T5ForConditionalGeneration(t5())
        names = ["input_ids", "attention_mask", "decoder_input_ids"]
        return Pick(m, names, **nocache), (ids(500), mask, ids(500, 5)), names, None
    if name.startswith("whisper"):
        c = tf.WhisperConfig(vocab_size=500, d_model=96, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                             decoder_attention_heads=4, encoder_ffn_dim=192, decoder_ffn_dim=192, max_source_positions=150,
                             pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, attn_implementation="eager")
        m = tf.WhisperModel(c)
        if name == "whisper_encoder":
            return Pick(m.encoder, ["input_features"]), (torch.randn(1, 80, 300),), ["input_features"], None
        names = ["input_features", "decoder_input_ids"]
        return Pick(m, names, **nocache), (torch.randn(1, 80, 300), ids(500, 6)[:1]), names, None
    if name in ("wav2vec2", "hubert"):
        kw = dict(conv_dim=(32, 32, 32), conv_stride=(5, 2, 2), conv_kernel=(10, 3, 2), num_feat_extract_layers=3, vocab_size=40,
                  num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, **small)
        m = tf.Wav2Vec2Model(tf.Wav2Vec2Config(**kw)) if name == "wav2vec2" else tf.HubertModel(tf.HubertConfig(**kw))
        return Pick(m, ["input_values"]), (torch.randn(2, 4000),), ["input_values"], None
    if name == "clip":
        c = tf.CLIPConfig(text_config=dict(vocab_size=500, eos_token_id=2, **small), vision_config=dict(image_size=64, patch_size=16, **small))
        names = ["input_ids", "pixel_values", "attention_mask"]
        return Pick(tf.CLIPModel(c), names), (ids(500), torch.randn(2, 3, 64, 64), mask), names, None
    if name == "vit_hf":
        return Pick(tf.ViTModel(tf.ViTConfig(image_size=64, **small)), ["pixel_values"]), (torch.randn(2, 3, 64, 64),), ["pixel_values"], None
    if name == "segformer":
        return Pick(tf.SegformerForSemanticSegmentation(tf.SegformerConfig()), ["pixel_values"]), (torch.randn(1, 3, 128, 128),), ["pixel_values"], None
    if name == "detr":
        c = tf.DetrConfig(use_pretrained_backbone=False, use_timm_backbone=False, backbone=None, backbone_config=tf.ResNetConfig(out_features=["stage4"]),
                          d_model=96, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
                          encoder_ffn_dim=192, decoder_ffn_dim=192, num_queries=20)
        return Pick(tf.DetrForObjectDetection(c), ["pixel_values"]), (torch.randn(1, 3, 160, 160),), ["pixel_values"], None
    raise KeyError(name)


def worker(name, folder):
    """Exports, runs the oracle, writes the test data."""
    import numpy, onnx, onnxruntime, torch
    from onnx import numpy_helper
    torch.manual_seed(1)
    torch.set_num_threads(2)
    model, inputs, names, axes = build(name)
    model.eval()
    os.makedirs(folder, exist_ok=True)
    path = f"{folder}/model.onnx"
    with torch.no_grad():
        torch.onnx.export(model, inputs, path, input_names=names, dynamic_axes=axes, opset_version=17, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    flat = [t for x in inputs for t in (x if isinstance(x, list) else [x])]
    feed = {i.name: t.numpy() for i, t in zip(session.get_inputs(), flat)}
    start = time.time()
    outputs = session.run(None, feed)
    took = time.time() - start
    data = f"{folder}/test_data_set_0"
    os.makedirs(data, exist_ok=True)
    for k, i in enumerate(session.get_inputs()):
        open(f"{data}/input_{k}.pb", "wb").write(numpy_helper.from_array(feed[i.name], i.name).SerializeToString())
    for k, (o, v) in enumerate(zip(session.get_outputs(), outputs)):
        open(f"{data}/output_{k}.pb", "wb").write(numpy_helper.from_array(v, o.name).SerializeToString())
    proto = onnx.load(path, load_external_data=False)
    ops = sorted({n.op_type for n in proto.graph.node})
    print(json.dumps(dict(nodes=len(proto.graph.node), ops=ops, ort_ms=took * 1e3, shapes=[list(v.shape) for v in outputs],
                          finite=bool(all(numpy.isfinite(v).all() for v in outputs if v.dtype.kind == "f")))))


def check(exe, folder, device, fp16, limit):
    args = [exe, f"--onnx={folder}/model.onnx", f"--testData={folder}", f"--device={device}", f"--rms={limit}"]
    args += ["--fp16"] if fp16 else []
    r = subprocess.run(args, capture_output=True, text=True, timeout=400)
    text = r.stdout + r.stderr
    lines = [l for l in text.splitlines() if re.search(r"\s(pass|FAIL)\b", l) or "[E]" in l]
    return r.returncode == 0, "\n".join(lines[-6:])


def one(name, a):
    folder = os.path.join(a.out, name.replace("/", "_"))
    row = dict(name=name)
    try:
        start = time.time()
        r = subprocess.run([sys.executable, __file__, "--worker", name, "--out", folder], capture_output=True, text=True, timeout=400)
        if r.returncode != 0:
            row["export"] = (r.stderr.strip().splitlines() or ["?"])[-1][:200]
            return row
        row.update(json.loads(r.stdout.strip().splitlines()[-1]), export="ok", export_s=time.time() - start)
        for device in a.device.split(","):
            row[device] = check(a.sinterexec, folder, device, False, 1e-4)
            if device == "cuda" and a.fp16:
                row["fp16"] = check(a.sinterexec, folder, device, True, 1e-2)
    except Exception as e:
        row.setdefault("export", "ok")
        row["error"] = f"{type(e).__name__}: {e}"[:300]
        traceback.print_exc()
    finally:
        if not a.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return row


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--worker"), p.add_argument("--out", required=True), p.add_argument("--sinterexec")
    p.add_argument("--jobs", type=int, default=12), p.add_argument("--only", default=""), p.add_argument("--device", default="cuda,cpu")
    p.add_argument("--fp16", action="store_true"), p.add_argument("--keep", action="store_true")
    a = p.parse_args()
    if a.worker:
        return worker(a.worker, a.out)
    os.makedirs(a.out, exist_ok=True)
    names = [n for n in MODELS if a.only in n]
    with cf.ThreadPoolExecutor(a.jobs) as pool:
        rows = list(pool.map(lambda n: one(n, a), names))
    devices = [d for d in a.device.split(",")] + (["fp16"] if a.fp16 else [])
    with open(f"{a.out}/RESULTS.md", "w") as f:
        f.write("| network | nodes | " + " | ".join(devices) + " |\n|---|---:|" + "---|" * len(devices) + "\n")
        for r in rows:
            cells = ["pass" if r.get(d, (False,))[0] else "FAIL" if d in r else "-" for d in devices]
            f.write(f"| {r['name']} | {r.get('nodes', '')} | " + " | ".join(cells) + " |\n")
    with open(f"{a.out}/details.txt", "w") as f:
        for r in rows:
            bad = r.get("export") != "ok" or "error" in r or any(not r.get(d, (False,))[0] for d in devices)
            f.write(("BAD " if bad else "ok  ") + json.dumps(r) + "\n")
    n_ok = sum(all(r.get(d, (False,))[0] for d in devices) for r in rows)
    print(open(f"{a.out}/RESULTS.md").read())
    print(f"{n_ok} of {len(rows)} networks agree on {', '.join(devices)}; exports that failed: "
          f"{[r['name'] for r in rows if r.get('export') != 'ok']}")


if __name__ == "__main__":
    main()
