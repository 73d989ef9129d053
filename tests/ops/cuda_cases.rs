//! Every shared case for CUDA devices, without one: tactics, what their launches say, and that their kernels compile
//! and take those arguments.

use super::cases::{self, Case};
use super::cubin::{argument_bytes, parameter_bytes};
use super::steps::{eval, infer, problem_of_outputs};
use sinter::device::DeviceProps;
use sinter::device::cuda::kernel_cache::{arch_of, compile_each};
use sinter::device::cuda::nvrtc;
use sinter::ops::{Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// Families of which every case has a CUDA tactic, but for what is named.
const COVERED: &[(&str, &[&str])] =
    &[("conv_nhwc", &[]), ("movers", &[]), ("quantized", &[]), ("reductions", &[]), ("resizes", &[]), ("indexing", &[]), ("vision", &[])];

fn device(sm: u32) -> DeviceProps {
    let h200 = DeviceProps::example_h200();
    match sm {
        90 => h200,
        _ => DeviceProps { name: format!("sm_{sm}"), sm, n_sm: 40, max_smem_per_block: 65_536, ..h200 },
    }
}

/// The problem of a case, with its shape operands known; `None` where there is nothing to compute. Output shapes are those
/// of the reference, so that operators whose shapes depend on the data are served too.
fn problem_of(c: &Case) -> Result<Option<Problem>, String> {
    let p = problem_of_outputs(c, &eval(&c.op, &c.inputs).map_err(|e| e.to_string())?);
    Ok(p.outputs.iter().any(|d| d.numel() > 0).then_some(p))
}

/// The same before the counting program ran: dimensions that are not known are 0.
fn uncounted(c: &Case, p: &Problem) -> Result<Problem, String> {
    let facts = infer(&c.op, &c.inputs).map_err(|e| e.to_string())?;
    let mut p = p.clone();
    for (d, f) in p.outputs.iter_mut().zip(facts) {
        d.dims = f.shape.iter().map(|d| d.as_const().unwrap_or(0) as usize).collect();
    }
    Ok(p)
}

/// Types of the parameters of a kernel file by its text; empty when it has several forms or is put together by macros.
fn signature(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels").join(file);
    // A test binary that was carried elsewhere has no sources: the sizes in the cubin remain.
    let Ok(text) = std::fs::read_to_string(path) else { return vec![] };
    let entries: Vec<&str> = text.split("KERNEL_NAME(").skip(1).collect();
    let [entry] = entries.as_slice() else { return vec![] };
    let list = entry.split(')').next().unwrap_or_default();
    if list.contains(['(', '#', '/']) {
        return vec![];
    }
    let word = |p: &str| Some(p.replace("const ", "").replace("__restrict__", "").trim().rsplit_once([' ', '*'])?.0.trim().to_string());
    let pointer = |p: &str| if p.contains('*') { Some("*".to_string()) } else { word(p) };
    list.split(',').map(pointer).collect::<Option<Vec<_>>>().unwrap_or_default()
}

fn check_launch(l: &Launch, t: &Tactic, p: &Problem, dev: &DeviceProps, workspace: usize) {
    let spec = t.kernels.get(l.kernel).unwrap_or_else(|| panic!("{}: kernel {} is missing", t.name, l.kernel));
    for i in 0..3 {
        assert!((1..=dev.max_grid[i]).contains(&l.grid[i]), "{}: grid {:?}", t.name, l.grid);
        assert!(l.block[i] >= 1, "{}: block {:?}", t.name, l.block);
    }
    let threads: u32 = l.block.iter().product();
    assert!(threads <= dev.max_threads_per_block, "{}: {threads} threads", t.name);
    assert!(l.smem <= dev.max_smem_per_block, "{}: {} bytes of shared memory", t.name, l.smem);
    for a in &l.args {
        match a.address() {
            Arg::In(i) => assert!(p.input(*i).is_some(), "{}: input {i} is absent", t.name),
            Arg::Out(i) => assert!(*i < p.outputs.len(), "{}: output {i}", t.name),
            Arg::Work(at) => assert!(*at < workspace, "{}: workspace {at} of {workspace}", t.name),
            _ => {}
        }
    }
    let want = signature(&spec.file);
    if want.is_empty() {
        return;
    }
    assert_eq!(l.args.len(), want.len(), "{}: arguments of {}: {:?}, parameters {want:?}", t.name, spec.file, l.args);
    for (i, (a, w)) in l.args.iter().zip(&want).enumerate() {
        let is_address = matches!(a, Arg::In(_) | Arg::Out(_) | Arg::Work(_) | Arg::Count(_) | Arg::Null);
        let fine = match w.as_str() {
            "*" => is_address,
            "i32" | "int" | "u32" => matches!(a, Arg::I32(_)),
            "i64" | "u64" => matches!(a, Arg::I64(_)),
            "float" => matches!(a, Arg::F32(_)),
            "double" => matches!(a, Arg::F64(_)),
            _ => !is_address, // A struct, or a type by define: its size is compared with the cubin.
        };
        assert!(fine, "{}: argument {i} of {} is {w}, got {a:?}", t.name, spec.file);
    }
}

/// A kernel with the sizes of the arguments that one launch gives it.
type Use = (KernelSpec, Vec<usize>);

/// Checks the tactics of a case on a device; returns their kernels, or nothing when there is no tactic.
fn check_case(c: &Case, dev: &DeviceProps) -> Result<Option<Vec<Use>>, String> {
    let Some(p) = problem_of(c)? else { return Ok(Some(vec![])) };
    let mut kernels: Vec<Use> = Vec::new();
    for dynamic in [false, true] {
        let tactics = c.op.def().cuda_tactics(&p, dev, &TacticOptions { dynamic, ..TacticOptions::default() });
        if tactics.is_empty() {
            return Ok(None);
        }
        let names: HashSet<&str> = tactics.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names.len(), tactics.len(), "two tactics of one name: {names:?}");
        for t in &tactics {
            let mut check = |program: &StepProgram, p: &Problem, workspace: usize| {
                assert!(!program.ops.is_empty(), "{}: does nothing", t.name);
                for op in &program.ops {
                    let DeviceOp::Launch(l) = op else { continue };
                    check_launch(l, t, p, dev, workspace);
                    kernels.push((t.kernels[l.kernel].clone(), l.args.iter().map(argument_bytes).collect()));
                }
            };
            let program = c.op.def().cuda_program(t, &p, dev).map_err(|e| format!("{}: {e}", t.name))?;
            // The scratch of both phases is the larger one.
            let mut workspace = program.workspace;
            if c.op.def().is_data_dependent() {
                let p = uncounted(c, &p)?;
                let counting = c.op.def().count_program(t, &p, dev).map_err(|e| format!("{}: {e}", t.name))?;
                workspace = workspace.max(counting.workspace);
                check(&counting, &p, workspace);
                let counted = |op: &DeviceOp, k| matches!(op, DeviceOp::Launch(l) if l.args.iter().any(|a| *a.address() == Arg::Count(k)));
                for k in 0..c.op.def().n_counts() {
                    // A kernel may write several numbers from the first one's address on.
                    assert!(counting.ops.iter().any(|op| counted(op, k) || counted(op, 0)), "{}: count {k}", t.name);
                }
            }
            check(&program, &p, workspace);
            let written = |i: usize| program.ops.iter().any(|op| match op {
                DeviceOp::Launch(l) => l.args.iter().any(|a| *a.address() == Arg::Out(i)),
                DeviceOp::Gemm(g) => g.d == Arg::Out(i),
                DeviceOp::Copy { dst, .. } | DeviceOp::Fill { dst, .. } => *dst == Arg::Out(i),
            });
            for (i, d) in p.outputs.iter().enumerate() {
                assert!(d.numel() == 0 || written(i), "{}: nothing writes output {i}", t.name);
            }
        }
        kernels.sort_by_cached_key(|k| format!("{k:?}"));
        kernels.dedup();
    }
    Ok(Some(kernels))
}

/// The kernels of all cases on a device.
fn kernels_of(dev: &DeviceProps, report: bool) -> Vec<Use> {
    let mut all: HashSet<Use> = HashSet::new();
    for (family, list) in cases::families() {
        let mut fallbacks = Vec::new();
        cases::for_each(&format!("{family} on sm_{}", dev.sm), &list, |c| {
            match check_case(c, dev)? {
                Some(kernels) => all.extend(kernels),
                None => fallbacks.push(format!("{}: {}", c.op.name(), c.name)),
            }
            Ok(())
        });
        if report {
            for f in &fallbacks {
                eprintln!("host fallback: {f}");
            }
        }
        if let Some((_, but)) = COVERED.iter().find(|(f, _)| *f == family) {
            fallbacks.retain(|f| !but.iter().any(|b| f.contains(b)));
            assert!(fallbacks.is_empty(), "no CUDA tactic: {fallbacks:?}");
        }
    }
    let mut all: Vec<Use> = all.into_iter().collect();
    all.sort_by_cached_key(|k| format!("{k:?}"));
    all
}

#[test]
fn every_case_has_programs_that_hold_the_limits() {
    for sm in [75, 90] {
        let kernels = kernels_of(&device(sm), sm == 90);
        for (k, _) in &kernels {
            let names: HashSet<&str> = k.defines.iter().map(|(n, _)| n.as_str()).collect();
            assert_eq!(names.len(), k.defines.len(), "a define stands twice in {k:?}");
        }
    }
}

/// So few of the kernels that each value of each define of each file is seen; `all` takes every one.
fn sample(kernels: Vec<Use>, all: bool) -> Vec<Use> {
    let mut seen = HashSet::new();
    let mut files: HashMap<String, usize> = HashMap::new();
    kernels
        .into_iter()
        .filter(|(k, _)| {
            // Of generated code the first few: what it can say is tested by the operator that generates it.
            let n = files.entry(k.file.clone()).or_default();
            *n += 1;
            let fresh: Vec<_> = k.defines.iter().filter(|d| seen.insert((k.file.clone(), (*d).clone()))).collect();
            all || !fresh.is_empty() || *n == 1
        })
        .collect()
}

/// Needs NVRTC, no GPU. `SINTER_TEST_KERNELS=all` compiles every kernel of every case instead of a sample.
#[test]
fn kernels_compile_and_take_what_launches_give() {
    if let Err(e) = nvrtc::is_present() {
        eprintln!("SKIPPED: kernels of the shared cases are not compiled: {e}");
        return;
    }
    let all = sinter::base::knobs::TEST_KERNELS.get().as_deref() == Some("all");
    let mut wrong: BTreeMap<String, usize> = BTreeMap::new();
    for sm in [75, 80, 90] {
        let uses = sample(kernels_of(&device(sm), false), all);
        let specs: Vec<KernelSpec> = uses.iter().map(|(k, _)| k.clone()).collect();
        eprintln!("sm_{sm}: {} kernels", specs.len());
        for ((spec, args), compiled) in uses.iter().zip(compile_each(&specs, &arch_of(sm), 0)) {
            let text = match compiled {
                Err(e) => format!("{e}"),
                Ok(cubin) => {
                    let want = parameter_bytes(&cubin.bytes, &cubin.entry);
                    if want == *args {
                        continue;
                    }
                    format!("parameters of {want:?} bytes are given {args:?}")
                }
            };
            // One error usually breaks many kernels of a file: the first of each text is enough.
            let text: String = text.chars().take(1500).collect();
            *wrong.entry(format!("{} on sm_{sm}: {text}\n  {:?}", spec.file, spec.defines)).or_default() += 1;
        }
    }
    let text = wrong.keys().take(12).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} kernels are wrong:\n{text}", wrong.len());
}
