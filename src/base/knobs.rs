//! Every `SINTER_*` environment variable, declared once. No other file reads the environment.

/// One environment variable.
pub struct Knob {
    pub name: &'static str,
    pub doc: &'static str,
}

impl Knob {
    /// The value, read anew at each call; empty counts as unset.
    pub fn get(&self) -> Option<String> {
        std::env::var(self.name).ok().filter(|v| !v.is_empty())
    }

    /// True for 1, true, yes, on.
    pub fn is_on(&self) -> bool {
        matches!(self.get().as_deref(), Some("1" | "true" | "yes" | "on"))
    }
}

macro_rules! knobs {
    ($($(#[doc = $doc:literal])+ $id:ident = $name:literal;)*) => {
        $($(#[doc = $doc])+ pub const $id: Knob = Knob { name: $name, doc: concat!($($doc),+) };)*
        /// All knobs, for `sinterexec --help` and the documentation.
        pub const ALL: &[&Knob] = &[$(&$id),*];
    };
}

knobs! {
    /// Severity threshold of the default logger: internal_error, error, warning, info, verbose.
    LOG = "SINTER_LOG";
    /// Comma-separated stages to print while building: network, passes, lowered, plan; `all` for each.
    DUMP = "SINTER_DUMP";
    /// Folder that dumps are written to instead of standard error.
    DUMP_DIR = "SINTER_DUMP_DIR";
    /// Folder of the compiled-kernel cache; default: `$XDG_CACHE_HOME/sinter` or `~/.cache/sinter`. `off` disables it.
    CACHE_DIR = "SINTER_CACHE_DIR";
    /// `off`: builds neither read nor write the times of earlier builds in the cache folder.
    TIMING_CACHE = "SINTER_TIMING_CACHE";
    /// Folder that receives generated kernel sources, logs and cubins.
    DUMP_KERNELS = "SINTER_DUMP_KERNELS";
    /// Verify the graph after every patch in release builds too.
    VERIFY = "SINTER_VERIFY";
    /// Threads of the CPU device; default: the cores that the process may use.
    CPU_THREADS = "SINTER_CPU_THREADS";
    /// Full path of libcuda or its folder, tried before the loader's own search; `off` hides it.
    CUDA_PATH = "SINTER_LIBCUDA_PATH";
    /// Full path of libnvrtc or its folder, tried before the loader's own search; `off` hides it.
    NVRTC_PATH = "SINTER_NVRTC_PATH";
    /// Full path of libcublasLt or its folder, tried before the loader's own search; `off` hides it.
    CUBLASLT_PATH = "SINTER_CUBLASLT_PATH";
    /// `off`: contexts launch their steps one by one instead of as CUDA graphs.
    REPLAY = "SINTER_REPLAY";
    /// Steps that a CUDA graph runs beside another at most, where that pays; default 3, 0: in a row.
    AUX_STREAMS = "SINTER_AUX_STREAMS";
    /// When a kernel that waits by itself is launched: `off` when the one before it has ended, `begun` when all of its
    /// blocks have begun; default: when each has ended, or has allowed it.
    OVERLAP = "SINTER_OVERLAP";
    /// Comma-separated passes to leave out, for finding the one that is wrong.
    SKIP_PASSES = "SINTER_SKIP_PASSES";
    /// Tests: folder of models with recorded outputs.
    TEST_MODELS = "SINTER_TEST_MODELS";
    /// Tests: `all` compiles every kernel of every case instead of a sample.
    TEST_KERNELS = "SINTER_TEST_KERNELS";
    /// Tests: take the models or ONNX cases whose name holds this text.
    TEST_ONLY = "SINTER_TEST_ONLY";
    /// Tests: the device of the ONNX conformance run: cpu (default) or cuda.
    TEST_DEVICE = "SINTER_TEST_DEVICE";
    /// Tests: the folder `onnx/backend/test/data` of the Python package onnx 1.22.0, or a copy of it.
    ONNX_DATA = "SINTER_ONNX_DATA";
    /// Tests: make a missing CUDA device a failure instead of a skip.
    REQUIRE_GPU = "SINTER_REQUIRE_GPU";
    /// Tests: the C function that panics once it has its handle.
    TEST_PANIC = "SINTER_TEST_PANIC";
    /// Tests: mutated files of each kind to try; default 3000.
    FUZZ_CASES = "SINTER_FUZZ_CASES";
    /// Tests: the first seed of mutated files, to repeat a reported case.
    FUZZ_SEED = "SINTER_FUZZ_SEED";
}
