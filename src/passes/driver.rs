//! Runs an ordered list of passes, each to a fix-point, and checks the graph on the way.
//!
//! A pass looks at one node at a time and answers with a patch, with nothing, or with the reason why it refuses. The
//! driver walks the nodes in order, offers the nodes of each applied patch again at once, and repeats the walk until it
//! changes nothing. A refusal is an error of code Unsupported, InvalidArgument, InvalidState or OutOfMemory: it is
//! logged and the graph stays as it was. Any other error ends the build.
//!
//! Invariant kept by every pass: a graph output that has a node of its own keeps one (a plan writes it to the user's
//! memory), so no output becomes another output, a graph input or a constant.

use crate::base::error::ResultExt;
use crate::base::{ErrorCode, Result, knobs};
use crate::internal;
use crate::network::{Graph, NodeId, Patch, ValueId};
use crate::passes::{PassOptions, Target};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

/// Walks of one pass over the graph before the driver gives up on its fix-point.
const MAX_WALKS: usize = 16;

/// Bytes of constants that the portable run may compute, besides 16 times those that it began with: weights that are
/// stored in eight bits unfold to f32 in a few steps, and nothing honest needs more.
const FOLDED_BYTES: usize = 32 << 20;

/// Node visits that verification after each patch may cost in one run; beyond it, each pass is verified once.
const VERIFY_BUDGET: usize = 2_000_000;

/// One rewriting of the graph.
pub trait Pass {
    /// `verb_noun`, as in logs and `SINTER_SKIP_PASSES`.
    fn name(&self) -> &'static str;

    /// Applies the pass everywhere, once; returns how many patches that took.
    fn run(&self, g: &mut Graph, cx: &PassCx<'_>) -> Result<usize>;

    /// True for a pass whose own result must not be offered to it again: one walk in the whole run.
    fn runs_once(&self) -> bool {
        false
    }
}

/// A pass that decides node by node.
pub trait NodePass {
    fn name(&self) -> &'static str;

    /// The edit at `n`; `None` when the pass has no business there; an error when it has and cannot.
    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>>;
}

impl<P: NodePass> Pass for P {
    fn name(&self) -> &'static str {
        NodePass::name(self)
    }

    fn run(&self, g: &mut Graph, cx: &PassCx<'_>) -> Result<usize> {
        let mut n_patches = 0;
        let bound = 1000 + 50 * g.n_nodes();
        let mut work = g.order()?;
        work.reverse();
        while let Some(n) = work.pop() {
            let Some(node) = g.get_node(n) else { continue };
            let patch = match self.rewrite(g, cx, n) {
                Ok(Some(patch)) => patch,
                Ok(None) => continue,
                Err(e) if is_refusal(e.code) => {
                    cx.refuse(&node.name, &e.to_string());
                    continue;
                }
                Err(e) => return Err(e.context(format!("pass {} at {:?}", cx.pass, node.name))),
            };
            let new_nodes = patch.new_nodes();
            if !cx.apply(g, patch)? {
                break;
            }
            n_patches += 1;
            if n_patches > bound {
                return Err(internal!("pass {} comes to no end", cx.pass));
            }
            work.extend(new_nodes.rev());
        }
        Ok(n_patches)
    }
}

pub(super) fn is_refusal(code: ErrorCode) -> bool {
    use ErrorCode::*;
    matches!(code, Unsupported | InvalidArgument | InvalidState | OutOfMemory)
}

/// What a pass is given besides the graph.
pub struct PassCx<'a> {
    pub options: &'a PassOptions,
    pass: &'static str,
    counters: &'a Counters,
}

/// State of one run of a list.
#[derive(Default)]
struct Counters {
    n_patches: Cell<usize>,
    n_refusals: Cell<usize>,
    n_verified_nodes: Cell<usize>,
    /// Bytes of constants that passes may still compute.
    foldable_bytes: Cell<usize>,
    /// Refusals that were logged: walks are repeated, messages are not.
    refused: RefCell<HashSet<String>>,
}

impl PassCx<'_> {
    /// A patch named after this pass.
    pub fn patch(&self, g: &Graph, at: &str) -> Patch {
        Patch::new(g, self.pass, at)
    }

    /// Applies a patch and verifies the graph; false, without applying, when `stop_after` patches were made.
    pub fn apply(&self, g: &mut Graph, patch: Patch) -> Result<bool> {
        if self.is_stopped() {
            return Ok(false);
        }
        let c = self.counters;
        let name = patch.name.clone();
        let where_ = || format!("after patch {name} (#{})", c.n_patches.get() + 1);
        g.apply(patch).with_context(where_)?;
        let cost = c.n_verified_nodes.get() + g.n_nodes();
        if self.options.verify() && (cost < VERIFY_BUDGET || knobs::VERIFY.is_on()) {
            c.n_verified_nodes.set(cost);
            g.verify().with_context(where_)?;
        }
        c.n_patches.set(c.n_patches.get() + 1);
        Ok(true)
    }

    /// True when the run has made as many patches as it may.
    pub fn is_stopped(&self) -> bool {
        self.options.stop_after.is_some_and(|n| self.counters.n_patches.get() >= n)
    }

    /// Takes bytes for a constant that a pass wants to compute; false when the run's share is used up.
    pub fn take_folded(&self, bytes: usize) -> bool {
        let left = self.counters.foldable_bytes.get().checked_sub(bytes);
        self.counters.foldable_bytes.set(left.unwrap_or(self.counters.foldable_bytes.get()));
        left.is_some()
    }

    /// Says, once, why nothing was done at a node.
    pub fn refuse(&self, node: &str, reason: &str) {
        let text = format!("{}: refused at node {node:?}: {reason}", self.pass);
        if self.counters.refused.borrow_mut().insert(text.clone()) {
            self.counters.n_refusals.set(self.counters.n_refusals.get() + 1);
            crate::log_verbose!("{text}");
        }
    }
}

/// What one pass did over a run.
#[derive(Clone, Debug)]
pub struct PassReport {
    pub name: &'static str,
    pub n_patches: usize,
    pub n_refusals: usize,
    pub time: Duration,
    pub skipped: bool,
}

/// What a run did; `Display` prints it as a table.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub passes: Vec<PassReport>,
    pub n_nodes_before: usize,
    pub n_nodes_after: usize,
    /// Refusals with node and reason, sorted.
    pub refusals: Vec<String>,
}

impl Report {
    pub fn n_patches(&self) -> usize {
        self.passes.iter().map(|p| p.n_patches).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} nodes before, {} after", self.n_nodes_before, self.n_nodes_after)?;
        writeln!(f, "  {:<28} {:>8} {:>8} {:>10}", "pass", "patches", "refused", "ms")?;
        for p in &self.passes {
            let ms = p.time.as_secs_f64() * 1e3;
            let note = if p.skipped { "  skipped" } else { "" };
            writeln!(f, "  {:<28} {:>8} {:>8} {:>10.2}{note}", p.name, p.n_patches, p.n_refusals, ms)?;
        }
        Ok(())
    }
}

/// Runs `list` in order, each pass to its fix-point, and the whole list again, up to `rounds` times, while it changes
/// something.
pub fn run_list(g: &mut Graph, list: &[Box<dyn Pass>], options: &PassOptions, rounds: usize) -> Result<Report> {
    let counters = Counters::default();
    let read = |v: &ValueId| !g.value(*v).consumers.is_empty();
    let given: usize = g.value_ids().filter(read).filter_map(|v| g.as_const(v)).map(|t| t.bytes().len()).sum();
    counters.foldable_bytes.set(match options.target {
        Target::Portable => FOLDED_BYTES.saturating_add(given.saturating_mul(16)),
        // The portable run has folded before; what a device needs is other layouts of what is there.
        _ => (FOLDED_BYTES / 4).saturating_add(given),
    });
    let skip = options.skipped();
    let mut report = Report { n_nodes_before: g.n_nodes(), ..Report::default() };
    for p in list {
        let skipped = skip.iter().any(|s| s == p.name());
        let (n_patches, n_refusals, time) = (0, 0, Duration::ZERO);
        report.passes.push(PassReport { name: p.name(), n_patches, n_refusals, time, skipped });
    }
    for round in 0..rounds {
        let before = counters.n_patches.get();
        for (pass, entry) in list.iter().zip(&mut report.passes).filter(|(_, e)| !e.skipped) {
            if round > 0 && pass.runs_once() {
                continue;
            }
            let start = Instant::now();
            let refused_before = counters.n_refusals.get();
            let cx = PassCx { options, pass: pass.name(), counters: &counters };
            let n_patches = run_pass(g, pass.as_ref(), &cx)?;
            entry.n_patches += n_patches;
            entry.n_refusals += counters.n_refusals.get() - refused_before;
            entry.time += start.elapsed();
        }
        if counters.n_patches.get() == before {
            break;
        }
    }
    report.n_nodes_after = g.n_nodes();
    report.refusals = counters.refused.into_inner().into_iter().collect();
    report.refusals.sort();
    for p in report.passes.iter().filter(|p| p.n_patches > 0) {
        crate::log_info!("pass {}: {} patches, {} refused", p.name, p.n_patches, p.n_refusals);
    }
    crate::log_verbose!("passes on graph {:?}: {report}", g.name);
    Ok(report)
}

fn run_pass(g: &mut Graph, pass: &dyn Pass, cx: &PassCx<'_>) -> Result<usize> {
    let mut total = 0;
    for _ in 0..MAX_WALKS {
        if cx.is_stopped() {
            break;
        }
        let n = pass.run(g, cx)?;
        total += n;
        if n == 0 || pass.runs_once() {
            break;
        }
    }
    if total > 0 && cx.options.verify() {
        g.verify().with_context(|| format!("after pass {}", pass.name()))?;
    }
    Ok(total)
}
