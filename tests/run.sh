#!/usr/bin/env bash
# Sets up what the tests can use and runs all of them. Needs Rust and a C compiler; everything else is optional:
# - NVRTC (to compile every kernel without a GPU) is installed from PyPI into target/ when pip is there;
# - SINTER_TEST_MODELS names a folder of real networks with recorded outputs.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${SINTER_NVRTC_PATH:-}" ] && ! ldconfig -p 2>/dev/null | grep -q 'libnvrtc\.so\.13'; then
  tools=target/test-tools
  lib=$tools/nvidia/cu13/lib/libnvrtc.so.13
  if [ ! -f "$lib" ] && command -v python3 >/dev/null; then
    python3 -m pip install -q --no-deps --target "$tools" nvidia-cuda-nvrtc==13.0.88 \
      || echo "NVRTC could not be installed; tests that compile kernels will skip"
  fi
  [ -f "$lib" ] && export SINTER_NVRTC_PATH="$PWD/$lib"
fi

cargo build --release
exec cargo test --release "$@"
