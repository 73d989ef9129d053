#!/usr/bin/env python3
"""Trains the small digit classifier that the examples run, and writes it as ONNX.

    python3 train_digits.py        needs numpy, scikit-learn (data only), onnx, onnxruntime; under a minute

Writes beside itself:
    digits.onnx                            the network, float32, opset 17, dynamic batch
    digits_samples.bin                     ten held-out digits for programs without an image reader
    digits/test_data_set_0/input_0.pb      the same ten as one batch, in the layout of ONNX's own tests,
    digits/test_data_set_0/output_0.pb     with ONNX Runtime's answer

The network is written out in numpy, forward and backward, so that there is nothing to install but numpy.
Arrays are [batch, channels, height, width]. Everything random comes from SEED. README.md describes files and data.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent
SEED = 20260401
N_HELD_OUT = 450
EPOCHS = 60
BATCH = 64
PEAK_RATE = 4e-3
WEIGHT_DECAY = 1e-4
EPSILON = 1e-5  # of batch normalization


class Parameter:
    """A trained array with its gradient and the two moments that Adam keeps."""

    def __init__(self, value, decay=False):
        self.value = value.astype(np.float32)
        self.grad = np.zeros_like(self.value)
        self.mean = np.zeros_like(self.value)
        self.square = np.zeros_like(self.value)
        self.decay = decay


class Conv:
    """3x3 convolution, padding 1, no bias (a normalization follows)."""

    def __init__(self, c_in, c_out, rng):
        scale = np.sqrt(2.0 / (c_in * 9))
        self.weight = Parameter(rng.normal(0, scale, (c_out, c_in, 3, 3)), decay=True)
        self.parameters = [self.weight]

    def forward(self, x, train):
        n, c, h, w = x.shape
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))  # n c h w 3 3
        self.columns = np.ascontiguousarray(windows.transpose(0, 2, 3, 1, 4, 5)).reshape(n * h * w, c * 9)
        self.shape = x.shape
        out = self.columns @ self.weight.value.reshape(-1, c * 9).T
        return out.reshape(n, h, w, -1).transpose(0, 3, 1, 2)

    def backward(self, grad):
        n, c, h, w = self.shape
        rows = grad.transpose(0, 2, 3, 1).reshape(n * h * w, -1)
        self.weight.grad = (rows.T @ self.columns).reshape(self.weight.value.shape)
        columns = (rows @ self.weight.value.reshape(-1, c * 9)).reshape(n, h, w, c, 3, 3)
        padded = np.zeros((n, c, h + 2, w + 2), np.float32)
        for i in range(3):
            for j in range(3):
                padded[:, :, i : i + h, j : j + w] += columns[..., i, j].transpose(0, 3, 1, 2)
        return padded[:, :, 1:-1, 1:-1]


class BatchNorm:
    """Normalizes each channel over batch and space; keeps running statistics for inference."""

    def __init__(self, channels):
        self.scale = Parameter(np.ones((1, channels, 1, 1)))
        self.bias = Parameter(np.zeros((1, channels, 1, 1)))
        self.running_mean = np.zeros((1, channels, 1, 1), np.float32)
        self.running_var = np.ones((1, channels, 1, 1), np.float32)
        self.parameters = [self.scale, self.bias]

    def forward(self, x, train):
        mean, var = self.running_mean, self.running_var
        if train:
            mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
            self.running_mean = 0.95 * self.running_mean + 0.05 * mean
            self.running_var = 0.95 * self.running_var + 0.05 * var
        self.inverse = 1 / np.sqrt(var + EPSILON)
        self.normal = (x - mean) * self.inverse
        return self.normal * self.scale.value + self.bias.value

    def backward(self, grad):
        axes = (0, 2, 3)
        self.bias.grad = grad.sum(axes, keepdims=True)
        self.scale.grad = (grad * self.normal).sum(axes, keepdims=True)
        grad = grad * self.scale.value
        grad = grad - grad.mean(axes, keepdims=True) - self.normal * (grad * self.normal).mean(axes, keepdims=True)
        return grad * self.inverse


class Relu:
    parameters = []

    def forward(self, x, train):
        self.positive = x > 0
        return x * self.positive

    def backward(self, grad):
        return grad * self.positive


class MaxPool:
    """2x2, stride 2."""

    parameters = []

    def forward(self, x, train):
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // 2, 2, w // 2, 2)
        out = blocks.max((3, 5), keepdims=True)
        winners = blocks == out
        self.share = winners / winners.sum((3, 5), keepdims=True, dtype=np.float32)  # equal values share the gradient
        return out[:, :, :, 0, :, 0]

    def backward(self, grad):
        n, c, h, w = grad.shape
        return (self.share * grad[:, :, :, None, :, None]).reshape(n, c, 2 * h, 2 * w)


class Flatten:
    parameters = []

    def forward(self, x, train):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, grad):
        return grad.reshape(self.shape)


class Dense:
    def __init__(self, n_in, n_out, rng):
        self.weight = Parameter(rng.normal(0, np.sqrt(2.0 / n_in), (n_out, n_in)), decay=True)
        self.bias = Parameter(np.zeros(n_out))
        self.parameters = [self.weight, self.bias]

    def forward(self, x, train):
        self.x = x
        return x @ self.weight.value.T + self.bias.value

    def backward(self, grad):
        self.weight.grad = grad.T @ self.x
        self.bias.grad = grad.sum(0)
        return grad @ self.weight.value


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def network(rng):
    return [
        Conv(1, 16, rng), BatchNorm(16), Relu(),
        Conv(16, 32, rng), BatchNorm(32), Relu(), MaxPool(),
        Conv(32, 32, rng), BatchNorm(32), Relu(), MaxPool(),
        Flatten(), Dense(32 * 2 * 2, 64, rng), Relu(), Dense(64, 10, rng),
    ]  # fmt: skip


def forward(layers, x, train):
    for layer in layers:
        x = layer.forward(x, train)
    return x


def shifted(x, rng):
    """Moves each image by up to one pixel in both directions; what leaves the frame is lost."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    at = rng.integers(0, 3, (len(x), 2))
    return np.stack([p[:, i : i + 8, j : j + 8] for p, (i, j) in zip(padded, at)])


def adam(parameters, rate, step):
    for p in parameters:
        p.mean = 0.9 * p.mean + 0.1 * p.grad
        p.square = 0.999 * p.square + 0.001 * p.grad**2
        mean, square = p.mean / (1 - 0.9**step), p.square / (1 - 0.999**step)
        p.value -= (rate * mean / (np.sqrt(square) + 1e-8)).astype(np.float32)
        if p.decay:
            p.value -= np.float32(rate * WEIGHT_DECAY) * p.value


def train(x, y, rng):
    layers = network(rng)
    parameters = [p for layer in layers for p in layer.parameters]
    per_epoch = len(x) // BATCH
    total, step = EPOCHS * per_epoch, 0
    for epoch in range(EPOCHS):
        order, loss_sum = rng.permutation(len(x)), 0.0
        for b in range(per_epoch):
            pick = order[b * BATCH : (b + 1) * BATCH]
            probabilities = softmax(forward(layers, shifted(x[pick], rng), train=True))
            loss_sum -= np.log(probabilities[np.arange(BATCH), y[pick]] + 1e-12).mean()
            grad = probabilities.copy()
            grad[np.arange(BATCH), y[pick]] -= 1
            grad /= BATCH
            for layer in reversed(layers):
                grad = layer.backward(grad)
            step += 1
            rate = PEAK_RATE * min(step / (2 * per_epoch), 0.5 * (1 + np.cos(np.pi * step / total)))
            adam(parameters, rate, step)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3}: mean loss {loss_sum / per_epoch:.4f}")
    return layers


def export(layers, path):
    """Writes the layers as ONNX nodes. Training saw pixels divided by 16; that goes into the first weights."""
    nodes, weights, value, first = [], [], "image", True

    def constant(name, array):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    for i, layer in enumerate(layers):
        kind = type(layer).__name__
        name, out = f"{kind.lower()}{i}", "logits" if i == len(layers) - 1 else f"v{i}"
        if kind == "Conv":
            weight = layer.weight.value / (16 if first else 1)
            first = False
            inputs = [value, constant(f"{name}.weight", weight)]
            attributes = dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
            nodes.append(helper.make_node("Conv", inputs, [out], name, **attributes))
        elif kind == "BatchNorm":
            parts = dict(scale=layer.scale.value, bias=layer.bias.value, mean=layer.running_mean, var=layer.running_var)
            inputs = [value] + [constant(f"{name}.{part}", array.reshape(-1)) for part, array in parts.items()]
            nodes.append(helper.make_node("BatchNormalization", inputs, [out], name, epsilon=EPSILON))
        elif kind == "Relu":
            nodes.append(helper.make_node("Relu", [value], [out], name))
        elif kind == "MaxPool":
            nodes.append(helper.make_node("MaxPool", [value], [out], name, kernel_shape=[2, 2], strides=[2, 2]))
        elif kind == "Flatten":
            nodes.append(helper.make_node("Flatten", [value], [out], name, axis=1))
        elif kind == "Dense":
            inputs = [value, constant(f"{name}.weight", layer.weight.value), constant(f"{name}.bias", layer.bias.value)]
            nodes.append(helper.make_node("Gemm", inputs, [out], name, transB=1))
        value = out
    nodes.append(helper.make_node("Softmax", [value], ["probabilities"], "softmax", axis=1))

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(nodes, "digits", [image], [probabilities], weights)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, producer_name="train_digits.py", opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def save_tensor(path, name, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(numpy_helper.from_array(array, name).SerializeToString())


def main():
    rng = np.random.default_rng(SEED)
    digits = load_digits()
    pixels = digits.images[:, None].astype(np.float32)  # [1797, 1, 8, 8], whole numbers 0 to 16
    labels = digits.target
    order = rng.permutation(len(pixels))
    held_out, rest = order[:N_HELD_OUT], order[N_HELD_OUT:]

    layers = train(pixels[rest] / 16, labels[rest], rng)
    model_path = HERE / "digits.onnx"
    export(layers, model_path)

    session = onnxruntime.InferenceSession(model_path, providers=["CPUExecutionProvider"])
    run = lambda x: session.run(["probabilities"], {"image": x})[0]
    answer = run(pixels[held_out])
    expected = softmax(forward(layers, pixels[held_out] / 16, train=False))
    difference = np.abs(answer - expected).max()
    assert difference < 1e-5, f"ONNX Runtime and numpy differ by {difference}"
    right = answer.argmax(1) == labels[held_out]
    print(f"training images {len(rest)}, held-out images {len(held_out)}, correct {right.sum()}")
    print(f"held-out accuracy {100 * right.mean():.2f} %   (ONNX Runtime and numpy at most {difference:.1e} apart)")
    print(f"{model_path.name}: {model_path.stat().st_size} bytes")

    # The first held-out image of each class, in the order of the classes.
    samples = np.array([held_out[np.argmax(labels[held_out] == digit)] for digit in range(10)])
    batch = pixels[samples]
    answer = run(batch)
    assert (answer.argmax(1) == labels[samples]).all(), "a sample image is not recognized"
    records = [bytes(x.astype(np.uint8).reshape(-1)) + bytes([label]) for x, label in zip(batch, labels[samples])]
    (HERE / "digits_samples.bin").write_bytes(b"".join(records))
    save_tensor(HERE / "digits/test_data_set_0/input_0.pb", "image", batch)
    save_tensor(HERE / "digits/test_data_set_0/output_0.pb", "probabilities", answer)


if __name__ == "__main__":
    main()
