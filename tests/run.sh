#!/usr/bin/env bash
# Sets up what the tests can use and runs all of them. Needs Rust and a C compiler; everything else is optional:
# - NVRTC (to compile every kernel without a GPU) is installed from PyPI into target/ when pip is there;
# - ONNX's backend test data (node cases and small networks) come with the Python package onnx, installed likewise;
# - SINTER_TEST_MODELS names a folder of real networks with recorded outputs.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=target/test-tools
if [ -z "${SINTER_NVRTC_PATH:-}" ] && ! ldconfig -p 2>/dev/null | grep -q 'libnvrtc\.so\.13'; then
  lib=$tools/nvidia/cu13/lib/libnvrtc.so.13
  if [ ! -f "$lib" ] && command -v python3 >/dev/null; then
    python3 -m pip install -q --no-deps --target "$tools" nvidia-cuda-nvrtc==13.0.88 \
      || echo "NVRTC could not be installed; tests that compile kernels will skip"
  fi
  [ -f "$lib" ] && export SINTER_NVRTC_PATH="$PWD/$lib"
fi

# Later packages do not carry the node cases any more.
if [ -z "${SINTER_ONNX_DATA:-}" ]; then
  data=$tools/onnx/backend/test/data
  if [ ! -d "$data/node" ] && command -v python3 >/dev/null; then
    python3 -m pip install -q --no-deps --target "$tools" onnx==1.22.0 \
      || echo "the ONNX test data could not be installed; tests of ONNX's own cases will skip"
  fi
  [ -d "$data/node" ] && export SINTER_ONNX_DATA="$PWD/$data"
fi

cargo build --release
exec cargo test --release "$@"
