"""The networks of bench.py: built from code, with random weights that give outputs worth comparing.

build(name, batch) gives a module in eval mode and its inputs. Batch norms hold the statistics of random images, so that
values neither vanish nor grow from layer to layer.
"""
import math

import torch
from torch import nn
import torch.nn.functional as F


class Cbs(nn.Module):
    """Convolution, batch norm, SiLU."""
    def __init__(self, c1, c2, k=1, s=1):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(c1, c2, k, s, k // 2, bias=False), nn.BatchNorm2d(c2, eps=1e-3)

    def forward(self, x):
        return F.silu(self.bn(self.conv(x)))


class Pair(nn.Module):
    def __init__(self, c, add):
        super().__init__()
        self.a, self.b, self.add = Cbs(c, c, 3), Cbs(c, c, 3), add

    def forward(self, x):
        y = self.b(self.a(x))
        return x + y if self.add else y


class C2f(nn.Module):
    def __init__(self, c1, c2, n, add):
        super().__init__()
        self.c = c2 // 2
        self.inner, self.outer = Cbs(c1, c2), Cbs((2 + n) * self.c, c2)
        self.pairs = nn.ModuleList(Pair(self.c, add) for _ in range(n))

    def forward(self, x):
        y = list(self.inner(x).split((self.c, self.c), 1))
        for p in self.pairs:
            y.append(p(y[-1]))
        return self.outer(torch.cat(y, 1))


class Sppf(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a, self.b = Cbs(c, c // 2), Cbs(c * 2, c)

    def forward(self, x):
        x = self.a(x)
        y = F.max_pool2d(x, 5, 1, 2)
        z = F.max_pool2d(y, 5, 1, 2)
        return self.b(torch.cat((x, y, z, F.max_pool2d(z, 5, 1, 2)), 1))


class Detector(nn.Module):
    """The shape of YOLOv8: backbone of C2f blocks, SPPF, two-way pyramid, decoupled heads, boxes from distributions."""
    def __init__(self, depth, width, size, classes=80, bins=16):
        super().__init__()
        c = [int(math.ceil(x * width / 8) * 8) for x in (64, 128, 256, 512, 1024)]
        n = [max(round(x * depth), 1) for x in (3, 6)]
        self.stem = Cbs(3, c[0], 3, 2)
        self.s1 = nn.Sequential(Cbs(c[0], c[1], 3, 2), C2f(c[1], c[1], n[0], True))
        self.s2 = nn.Sequential(Cbs(c[1], c[2], 3, 2), C2f(c[2], c[2], n[1], True))
        self.s3 = nn.Sequential(Cbs(c[2], c[3], 3, 2), C2f(c[3], c[3], n[1], True))
        self.s4 = nn.Sequential(Cbs(c[3], c[4], 3, 2), C2f(c[4], c[4], n[0], True), Sppf(c[4]))
        self.up1, self.up2 = C2f(c[4] + c[3], c[3], n[0], False), C2f(c[3] + c[2], c[2], n[0], False)
        self.d1, self.f1 = Cbs(c[2], c[2], 3, 2), C2f(c[3] + c[2], c[3], n[0], False)
        self.d2, self.f2 = Cbs(c[3], c[3], 3, 2), C2f(c[4] + c[3], c[4], n[0], False)
        cb, cc, self.bins = max(16, c[2] // 4, 4 * bins), max(c[2], min(classes, 100)), bins
        head = lambda ci, m, out: nn.Sequential(Cbs(ci, m, 3), Cbs(m, m, 3), nn.Conv2d(m, out, 1))
        self.boxes = nn.ModuleList(head(ci, cb, 4 * bins) for ci in c[2:])
        self.kinds = nn.ModuleList(head(ci, cc, classes) for ci in c[2:])
        points, strides = [], []
        for s in (8, 16, 32):
            at = torch.arange(size // s) + 0.5
            y, x = torch.meshgrid(at, at, indexing="ij")
            points.append(torch.stack((x, y)).view(2, -1))
            strides.append(torch.full((1, (size // s) ** 2), float(s)))
        self.register_buffer("points", torch.cat(points, 1)[None])
        self.register_buffer("strides", torch.cat(strides, 1)[None])
        self.register_buffer("ladder", torch.arange(bins, dtype=torch.float32).view(1, bins, 1, 1))

    def forward(self, x):
        p3 = self.s2(self.s1(self.stem(x)))
        p4 = self.s3(p3)
        p5 = self.s4(p4)
        up = lambda t: F.interpolate(t, scale_factor=2.0, mode="nearest")
        u4 = self.up1(torch.cat((up(p5), p4), 1))
        u3 = self.up2(torch.cat((up(u4), p3), 1))
        d4 = self.f1(torch.cat((self.d1(u3), u4), 1))
        d5 = self.f2(torch.cat((self.d2(d4), p5), 1))
        b = x.shape[0]
        box = torch.cat([h(t).reshape(b, 4 * self.bins, -1) for h, t in zip(self.boxes, (u3, d4, d5))], 2)
        kind = torch.cat([h(t).flatten(2) for h, t in zip(self.kinds, (u3, d4, d5))], 2)
        spread = box.view(b, 4, self.bins, -1).transpose(1, 2).softmax(1)
        near, far = (spread * self.ladder).sum(1).chunk(2, 1)
        low, high = self.points - near, self.points + far
        return torch.cat(((low + high) / 2 * self.strides, (high - low) * self.strides, kind.sigmoid()), 1)


class Unet(nn.Module):
    def __init__(self, base=32, depth=4):
        super().__init__()
        two = lambda a, b: nn.Sequential(nn.Conv2d(a, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
                                         nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        c = [base << i for i in range(depth + 1)]
        self.down = nn.ModuleList(two(a, b) for a, b in zip([3] + c[:-1], c))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in zip(c[:-1], c[1:]))
        self.up = nn.ModuleList(two(2 * a, a) for a in c[:-1])
        self.out = nn.Conv2d(base, 2, 1)

    def forward(self, x):
        kept = []
        for i, d in enumerate(self.down):
            x = d(F.max_pool2d(x, 2) if i else x)
            kept.append(x)
        kept.pop()
        for g, u in zip(reversed(self.grow), reversed(self.up)):
            x = u(torch.cat((g(x), kept.pop()), 1))
        return self.out(x)


class Out(nn.Module):
    """One entry of a module's result."""
    def __init__(self, m, key):
        super().__init__()
        self.m, self.key = m, key

    def forward(self, x):
        return self.m(x)[self.key]


class Encoder(nn.Module):
    """BERT without padding: embeddings and encoder alone, so that no mask is made while a graph is captured."""
    def __init__(self, m):
        super().__init__()
        self.m = m

    def forward(self, ids):
        return self.m.encoder(self.m.embeddings(input_ids=ids))[0]


class Distil(nn.Module):
    """DistilBERT the same way, from its layers."""
    def __init__(self, m):
        super().__init__()
        self.m = m

    def forward(self, ids):
        h = self.m.embeddings(ids)
        for layer in self.m.transformer.layer:
            h = layer(h, None)
            h = h[0] if isinstance(h, tuple) else h
        return h


class Decoder(nn.Module):
    """A GPT-2 of plain operations: all tokens at once, no cache."""
    def __init__(self, vocab=50257, d=768, layers=12, heads=12, tokens=128):
        super().__init__()
        self.heads = heads
        self.words, self.places = nn.Embedding(vocab, d), nn.Embedding(tokens, d)
        block = lambda: nn.ModuleDict(dict(n1=nn.LayerNorm(d), qkv=nn.Linear(d, 3 * d), out=nn.Linear(d, d),
                                           n2=nn.LayerNorm(d), up=nn.Linear(d, 4 * d), down=nn.Linear(4 * d, d)))
        self.blocks, self.norm = nn.ModuleList(block() for _ in range(layers)), nn.LayerNorm(d)

    def forward(self, ids):
        b, t = ids.shape
        x = self.words(ids) + self.places.weight[:t]
        for k in self.blocks:
            q, key, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in k.qkv(k.n1(x)).chunk(3, -1))
            y = F.scaled_dot_product_attention(q, key, v, is_causal=True)
            x = x + k.out(y.transpose(1, 2).reshape(b, t, -1))
            x = x + k.down(F.gelu(k.up(k.n2(x)), approximate="tanh"))
        return self.norm(x)


def make(name):
    """The module, and what its input is: ("image", size) or ("tokens", count)."""
    import torchvision.models as tv
    if name.startswith("bert"):
        import transformers as tf
        big = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
        config = tf.BertConfig(**(big if "large" in name else {}))
        config._attn_implementation = "eager"
        return Encoder(tf.BertModel(config, add_pooling_layer=False)), ("tokens", int(name.rsplit("-", 1)[1]))
    if name == "distilbert":
        import transformers as tf
        config = tf.DistilBertConfig()
        config._attn_implementation = "eager"
        return Distil(tf.DistilBertModel(config)), ("tokens", 128)
    if name == "clip_vision":
        import transformers as tf
        config = tf.CLIPVisionConfig()
        config._attn_implementation = "eager"
        return Out(tf.CLIPVisionModel(config), 0), ("image", 224)
    if name == "gpt2-like":
        return Decoder(), ("tokens", 128)
    if name.startswith("yolov8"):
        return Detector(1 / 3, 0.25 if name.startswith("yolov8n") else 0.5, 640), ("image", 640)
    if name == "unet-like":
        return Unet(), ("image", 256)
    if name.startswith("deeplab"):
        return Out(tv.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None), "out"), ("image", 512)
    if name == "fcn_resnet50":
        return Out(tv.segmentation.fcn_resnet50(weights=None, weights_backbone=None), "out"), ("image", 512)
    if name == "lraspp":
        return Out(tv.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None), "out"), ("image", 512)
    if name == "googlenet":
        return tv.googlenet(weights=None, aux_logits=False, init_weights=False), ("image", 224)
    if name == "inception_v3":
        return tv.inception_v3(weights=None, aux_logits=False, init_weights=False), ("image", 299)
    timm_names = {"vit_b_16": "vit_base_patch16_224", "ghostnet": "ghostnet_100", "mobilevit": "mobilevit_s",
                  "deit_small": "deit_small_patch16_224", "mixer_b16": "mixer_b16_224"}
    if name in timm_names:
        import timm
        return timm.create_model(timm_names[name], pretrained=False), ("image", 256 if name == "mobilevit" else 224)
    return tv.get_model(name, weights=None), ("image", 224)


def build(name, batch):
    torch.manual_seed(0)
    model, (kind, size) = make(name)
    model.eval()
    if kind == "image":
        calibrate(model, size)
        return model, torch.randn(batch, 3, size, size)
    return model, torch.randint(0, 30000, (batch, size))


@torch.no_grad()
def calibrate(model, size):
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return
    for m in norms:
        m.momentum = None
        m.train()
    size = min(size, 224) if not isinstance(model, Detector) else size
    model(torch.randn(2 if size > 300 else 4, 3, size, size))
    model.eval()


def use_fast_attention(model):
    """PyTorch's own fused attention, for the peer."""
    for m in model.modules():
        if hasattr(getattr(m, "config", None), "_attn_implementation"):
            m.config._attn_implementation = "sdpa"


class FusedResnet(nn.Module):
    """ResNet of bottlenecks with batch norm folded, on cuDNN's convolution + bias (+ residual) + ReLU."""
    def __init__(self, m):
        super().__init__()
        fold = lambda c, n: nn.utils.fusion.fuse_conv_bn_eval(c, n)
        self.stem, self.pool, self.fc = fold(m.conv1, m.bn1), m.maxpool, m.fc
        self.blocks = nn.ModuleList()
        for stage in (m.layer1, m.layer2, m.layer3, m.layer4):
            for b in stage:
                down = fold(b.downsample[0], b.downsample[1]) if b.downsample is not None else nn.Identity()
                self.blocks.append(nn.ModuleList([fold(b.conv1, b.bn1), fold(b.conv2, b.bn2), fold(b.conv3, b.bn3), down]))

    def forward(self, x):
        relu = lambda c, x: torch.cudnn_convolution_relu(x, c.weight, c.bias, c.stride, c.padding, c.dilation, c.groups)
        x = self.pool(relu(self.stem, x))
        for a, b, c, d in self.blocks:
            y = relu(b, relu(a, x))
            x = torch.cudnn_convolution_add_relu(y, c.weight, d(x), 1.0, c.bias, c.stride, c.padding, c.dilation, c.groups)
        return self.fc(x.mean((2, 3)))
