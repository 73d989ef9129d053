//! The driver: verification, bisection, knobs, reports.

use super::*;
use sinter::base::{ErrorCode, Result};
use sinter::network::{NodeId, Patch};
use sinter::passes::{EliminateDead, MergeDuplicates, NodePass, PassCx, portable_passes, run_portable, run_target};

/// Claims that every `Relu` is the identity; wrong on purpose in what its patch is made of.
struct BreakGraph;

impl Pass for BreakGraph {
    fn name(&self) -> &'static str {
        "break_graph"
    }

    fn run(&self, g: &mut Graph, cx: &PassCx<'_>) -> Result<usize> {
        let n = g.order()?[0];
        let out = g.node(n).outputs[0];
        let mut patch = cx.patch(g, &g.node(n).name.clone());
        // The new node reads what is computed from its own result: a cycle.
        let last = g.output("y").unwrap();
        let new = patch.add(g, "wrong", Pointwise { program: Program::single(Func::Neg, &[DType::F32])? }.into(), &[last])?;
        patch.shunt(out, new);
        cx.apply(g, patch)?;
        Ok(1)
    }
}

fn two_relus() -> Graph {
    let mut b = Build::new();
    let x = b.x(&[4]);
    let r = b.pw("relu", Func::Relu, &[x]);
    let y = b.pw("tanh", Func::Tanh, &[r]);
    b.out(y)
}

#[test]
fn a_wrong_patch_is_named_with_its_pass() {
    let mut g = two_relus();
    let list: Vec<Box<dyn Pass>> = vec![Box::new(BreakGraph)];
    let options = PassOptions { verify: true, ..PassOptions::default() };
    let e = run_list(&mut g, &list, &options, 1).unwrap_err();
    assert_eq!(e.code, ErrorCode::Internal);
    assert!(e.to_string().starts_with("after patch break_graph@relu (#1): invariant 5"), "{e}");
}

/// Never stops of its own accord.
struct Restless;

impl NodePass for Restless {
    fn name(&self) -> &'static str {
        "restless"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        let mut patch = cx.patch(g, &node.name);
        let new = patch.add_node(g, &node.name, node.op.clone(), &node.inputs)?;
        patch.shunt(node.outputs[0], new[0]);
        Ok(Some(patch))
    }
}

#[test]
fn a_pass_without_end_is_an_error_and_stop_after_bounds_it() {
    let list: Vec<Box<dyn Pass>> = vec![Box::new(Restless)];
    let e = run_list(&mut two_relus(), &list, &PassOptions::default(), 1).unwrap_err();
    assert!(e.to_string().contains("pass restless comes to no end"), "{e}");
    let options = PassOptions { stop_after: Some(3), ..PassOptions::default() };
    let report = run_list(&mut two_relus(), &list, &options, 4).unwrap();
    assert_eq!(report.n_patches(), 3);
}

fn twins() -> Graph {
    let mut b = Build::new();
    let x = b.x(&[4]);
    let (p, q) = (b.pw("a", Func::Tanh, &[x]), b.pw("b", Func::Tanh, &[x]));
    let y = b.pw("sum", Func::Add, &[p, q]);
    b.out(y)
}

#[test]
fn equal_nodes_and_equal_constants_merge() {
    let g = run1(&twins(), MergeDuplicates);
    assert_eq!(names(&g), ["a", "sum"]);
    let mut b = Build::new();
    let x = b.x(&[2, 3]);
    let (c, d) = (b.k(Tensor::from_slice(&[3], &[1f32, 2.0, 3.0])), b.k(Tensor::from_slice(&[3], &[1f32, 2.0, 3.0])));
    let p = b.pw("p", Func::Add, &[x, c]);
    let q = b.pw("q", Func::Add, &[x, d]);
    let y = b.pw("y", Func::Mul, &[p, q]);
    assert_eq!(names(&run1(&b.out(y), MergeDuplicates)), ["p", "y"]);
}

#[test]
fn random_nodes_of_equal_form_that_are_outputs_stay_two() {
    let mut b = Build::new();
    let x = b.x(&[4]);
    let (p, q) = (b.pw("a", Func::Tanh, &[x]), b.pw("b", Func::Tanh, &[x]));
    b.g.add_output("p", p).unwrap();
    let g = run1(&b.out(q), MergeDuplicates);
    assert_eq!(g.n_nodes(), 2);
}

#[test]
fn dead_nodes_go() {
    let mut b = Build::new();
    let x = b.x(&[4]);
    let y = b.pw("used", Func::Tanh, &[x]);
    let d = b.pw("unused", Func::Relu, &[x]);
    b.pw("unused_too", Func::Relu, &[d]);
    let g = run1(&b.out(y), EliminateDead);
    assert_eq!(names(&g), ["used"]);
}

#[test]
fn skipped_passes_do_nothing_and_the_report_says_so() {
    let mut g = twins();
    let options = PassOptions { skip: vec!["merge_duplicates".into()], ..PassOptions::default() };
    let report = run_portable(&mut g, &options).unwrap();
    assert_eq!(g.n_nodes(), 3);
    let text = report.to_string();
    let line = text.lines().find(|l| l.contains("merge_duplicates")).unwrap();
    assert!(line.ends_with("skipped"), "{text}");
    assert!(text.starts_with("3 nodes before, 3 after"), "{text}");
}

/// Merges exactly when SINTER_SKIP_PASSES does not forbid it; the next test runs it with the variable set.
#[test]
fn skip_passes_knob() {
    let skip = sinter::base::knobs::SKIP_PASSES.get().is_some_and(|s| s.contains("merge_duplicates"));
    let mut g = twins();
    run_portable(&mut g, &PassOptions::default()).unwrap();
    assert_eq!(g.n_nodes(), if skip { 3 } else { 2 });
}

#[test]
fn the_knob_is_read() {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["passes::driver::skip_passes_knob", "--exact"])
        .env("SINTER_SKIP_PASSES", "fold_pads, merge_duplicates")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn names_of_passes_are_unique() {
    let names: Vec<&str> = portable_passes().iter().map(|p| p.name()).collect();
    let unique: std::collections::HashSet<&&str> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
}

#[test]
fn ten_thousand_nodes_take_seconds_not_minutes() {
    let mut b = Build::new();
    let x = b.x(&[4]);
    let y = b.x(&[4]);
    let mut v = x;
    for i in 0..10_000 {
        let f = [Func::Tanh, Func::Add, Func::Sin, Func::Max][i % 4];
        v = if f.arity() == 2 { b.pw("binary", f, &[v, y]) } else { b.pw("unary", f, &[v]) };
    }
    b.g.add_output("y", v).unwrap();
    let mut g = b.g;
    let start = std::time::Instant::now();
    let options = PassOptions::new(Target::Cpu);
    run_portable(&mut g, &options).unwrap();
    let report = run_target(&mut g, &options).unwrap();
    assert!(g.n_nodes() < 500, "{report}");
    // Quadratic work would be minutes here, in any build.
    assert!(start.elapsed().as_secs() < 60, "{report}");
}
