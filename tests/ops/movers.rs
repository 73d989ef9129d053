//! CPU steps and CUDA programs of the data movers, reductions, softmax and resize over the shared cases.

use super::mover_cases::{Case, movers, reductions, resizes};
use super::steps::{Packs, assert_close, cpu, eval, problem};
use sinter::device::DeviceProps;
use sinter::ops::{Arg, DeviceOp, KernelSpec, TacticOptions};

fn all_known(c: &Case) -> Vec<usize> {
    c.op.def().host_inputs()
}

fn check_cpu_steps(cases: Vec<Case>, min_steps: usize) {
    let mut n_steps = 0;
    for c in &cases {
        let want = eval(&c.op, &c.inputs).unwrap_or_else(|e| panic!("{}: {e}", c.name));
        let known = all_known(c);
        if let Some(got) = cpu(&c.op, &c.inputs, &known, &Packs::default()).unwrap_or_else(|e| panic!("{}: {e}", c.name)) {
            n_steps += 1;
            assert_close(&c.name, &got[0], &want[0], c.tolerance);
        }
    }
    assert!(n_steps >= min_steps, "only {n_steps} of {} cases have a CPU step", cases.len());
}

#[test]
fn cpu_steps_move_what_the_reference_moves() {
    let cases = movers();
    let n = cases.len();
    check_cpu_steps(cases, n);
}

#[test]
fn cpu_steps_reduce_as_the_reference() {
    let cases = reductions();
    let n = cases.len();
    check_cpu_steps(cases, n);
}

#[test]
fn cpu_steps_resize_as_the_reference() {
    let cases = resizes();
    let n = cases.len();
    check_cpu_steps(cases, n);
}

/// Every tactic of a case launches something sensible, for fixed and for dynamic shapes; returns all kernels.
fn check_tactics(cases: Vec<Case>, may_refuse: fn(&Case) -> bool) -> Vec<KernelSpec> {
    let dev = DeviceProps::example_h200();
    let mut kernels: Vec<KernelSpec> = Vec::new();
    for c in &cases {
        let p = problem(&c.op, &c.inputs, &all_known(c)).unwrap_or_else(|e| panic!("{}: {e}", c.name));
        if p.outputs[0].numel() == 0 || p.input(0).is_none_or(|x| x.numel() == 0) && c.op.name() != "Fill" {
            continue;
        }
        for dynamic in [false, true] {
            let opt = TacticOptions { dynamic, ..TacticOptions::default() };
            let tactics = c.op.def().cuda_tactics(&p, &dev, &opt);
            assert!(!tactics.is_empty() || may_refuse(c), "{}: no tactic (dynamic {dynamic})", c.name);
            for t in tactics {
                let program = c.op.def().cuda_program(&t, &p, &dev).unwrap_or_else(|e| panic!("{}: {}: {e}", c.name, t.name));
                assert!(!program.ops.is_empty(), "{}: {} does nothing", c.name, t.name);
                for op in &program.ops {
                    let DeviceOp::Launch(l) = op else { continue };
                    assert!(l.kernel < t.kernels.len(), "{}: {}", c.name, t.name);
                    assert!(l.grid.iter().all(|g| *g >= 1) && l.grid[1] <= 65_535 && l.grid[2] <= 65_535, "{}: {:?}", c.name, l.grid);
                    assert!(l.block.iter().product::<u32>() <= 1024);
                    assert!(l.args.contains(&Arg::Out(0)), "{}: {} writes nothing", c.name, t.name);
                }
                kernels.extend(t.kernels);
            }
        }
    }
    kernels.sort_by_key(|k| format!("{k:?}"));
    kernels.dedup();
    kernels
}

fn all_kernels() -> Vec<KernelSpec> {
    let mut kernels = check_tactics(movers(), |_| false);
    kernels.extend(check_tactics(reductions(), |_| false));
    kernels.extend(check_tactics(resizes(), |c| c.name.contains("TfHalfPixelForNn") || c.name.contains("antialias true")));
    kernels
}

#[test]
fn every_case_has_a_cuda_program() {
    let kernels = all_kernels();
    for file in ["strided_copy", "concat_copy", "gather", "pad", "reduce", "softmax", "resize", "fill"] {
        assert!(kernels.iter().any(|k| k.file == format!("{file}.cu")), "no case uses {file}.cu");
    }
    for k in &kernels {
        let mut names: Vec<&str> = k.defines.iter().map(|(n, _)| n.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), k.defines.len(), "a define stands twice in {k:?}");
    }
}

/// Compiles one kernel of every file, mode and rank class for an H200; needs NVRTC, no GPU.
#[test]
fn kernels_compile() {
    if let Err(e) = sinter::device::cuda::nvrtc::is_present() {
        eprintln!("SKIPPED: kernels_compile: {e}");
        return;
    }
    let mut seen = std::collections::HashSet::new();
    let mut kernels = all_kernels();
    // What a define means shows with one type of each kind.
    kernels.retain(|k| {
        let of = |name: &str| k.defines.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
        let kind = match k.file.as_str() {
            "reduce.cu" => format!("{} {} {}", of("OP"), of("LANES"), ["f16", "u8", "i64"].contains(&of("T_IN"))),
            "resize.cu" => format!("{} {} {}", of("MODE"), of("COORD"), of("ROUND")),
            "softmax.cu" => format!("{} {} {}", of("MODE"), of("T_IN"), of("LOG")),
            _ => format!("{} {} {}", of("MODE"), of("T_UNIT"), of("RANK") == "3"),
        };
        seen.insert((k.file.clone(), kind))
    });
    let results = sinter::device::cuda::kernel_cache::compile_each(&kernels, "sm_90a", 0);
    for (k, r) in kernels.iter().zip(results) {
        if let Err(e) = r {
            panic!("{k:?}: {e}");
        }
    }
}
