//! Rewriting: from the network as described to a graph of fewer, larger nodes that a device runs well.
//!
//! Two lists. The *portable* one is right for every device and keeps numbers to rounding: its result is what an engine
//! carries to be planned again elsewhere. The *target* one chooses precision and fuses for one device. Each entry of a
//! list says why it stands where it stands. Any subset of either gives the same numbers (a target's precision aside):
//! a pass never relies on another having run.
//!
//! Passes know the graph and the operators' attributes; they never ask a driver and never time anything.

pub mod driver;

mod absorb_transposes;
mod attention_terms;
mod axes;
mod cancel_transposes;
mod channels_last;
mod eliminate_dead;
mod fold_constants;
mod fold_into_attention;
mod fold_pads;
mod fold_scale_into_weights;
mod fuse_epilogue;
mod fuse_pointwise;
mod fuse_skip_norm;
mod half_plan;
mod lower_precision;
mod merge_duplicates;
mod merge_siblings;
mod normal_form;
mod promote_half;
mod query;
mod recognize_activations;
mod recognize_attention;
mod recognize_norms;
mod recognize_reductions;
mod refresh_facts;
mod retype;
mod simplify_pointwise;
mod simplify_shapes;
mod turn_weights;

pub use absorb_transposes::AbsorbTransposes;
pub use cancel_transposes::CancelTransposes;
pub use channels_last::ChannelsLast;
pub use driver::{NodePass, Pass, PassCx, PassReport, Report, run_list};
pub use eliminate_dead::EliminateDead;
pub use fold_constants::FoldConstants;
pub use fold_pads::FoldPads;
pub use fold_scale_into_weights::{FoldScaleAfter, FoldScaleBefore, FoldScaleIntoAlpha};
pub use fuse_epilogue::FuseEpilogue;
pub use fuse_pointwise::FusePointwise;
pub use fuse_skip_norm::FuseSkipNorm;
pub use lower_precision::LowerPrecision;
pub use merge_duplicates::MergeDuplicates;
pub use merge_siblings::MergeSiblings;
pub use promote_half::PromoteHalf;
pub use recognize_activations::RecognizeActivations;
pub use recognize_attention::RecognizeAttention;
pub use recognize_norms::RecognizeNorms;
pub use recognize_reductions::RecognizeReductions;
pub use refresh_facts::RefreshFacts;
pub use simplify_pointwise::SimplifyPointwise;
pub use simplify_shapes::SimplifyShapes;
pub use turn_weights::TurnWeights;

use crate::base::{Result, knobs};
use crate::network::Graph;

/// What the graph is rewritten for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// No device yet: `run_target` only fuses.
    #[default]
    Portable,
    Cpu,
    /// `sm` is the compute capability as in `sm_90`: 90.
    Cuda {
        sm: u32,
    },
}

/// What the builder asks of the passes.
#[derive(Clone, Debug, Default)]
pub struct PassOptions {
    pub target: Target,
    /// An f32 network may be computed in f16 where that is safe (Cuda only).
    pub fp16: bool,
    /// Names of passes to leave out, besides those of `SINTER_SKIP_PASSES`.
    pub skip: Vec<String>,
    /// Stop after this many patches of one list: bisecting on it finds the patch that is wrong.
    pub stop_after: Option<usize>,
    /// Verify after each patch in release builds too (as `SINTER_VERIFY` does).
    pub verify: bool,
}

impl PassOptions {
    pub fn new(target: Target) -> PassOptions {
        PassOptions { target, ..PassOptions::default() }
    }

    pub(crate) fn verify(&self) -> bool {
        cfg!(debug_assertions) || self.verify || knobs::VERIFY.is_on()
    }

    pub(crate) fn skipped(&self) -> Vec<String> {
        let env = knobs::SKIP_PASSES.get().unwrap_or_default();
        let env = env.split(',').map(|s| s.trim().to_string()).filter(|s| !s.is_empty());
        self.skip.iter().cloned().chain(env).collect()
    }
}

/// The portable list.
pub fn portable_passes() -> Vec<Box<dyn Pass>> {
    vec![
        // First, so that nothing below spends time on what nobody reads.
        Box::new(EliminateDead),
        // Shapes first become known, then constants: everything below asks for both.
        Box::new(RefreshFacts),
        Box::new(FoldConstants),
        Box::new(SimplifyShapes),
        // Before any pattern is looked for: equal operands must be one value to be recognized as equal.
        Box::new(MergeDuplicates),
        // While scores and weights are still made of the nodes that the model has, and before factors and transposes move.
        Box::new(RecognizeAttention),
        // Directly behind it: the products are still as they were exported, and factors of q are in the scale already.
        Box::new(MergeSiblings),
        // Single functions and whole activations, while the nodes are still one function each.
        Box::new(SimplifyPointwise),
        Box::new(RecognizeActivations),
        // While means, squares and roots are nodes of their own; normalizations first, as they read sums of squares.
        Box::new(RecognizeNorms),
        Box::new(RecognizeReductions),
        // Before transposes move: one that is pushed between a scale and its product would hide the scale.
        Box::new(FoldScaleIntoAlpha),
        // Chains of layout changes cancel before weights are folded: a batch normalization may stand behind one.
        Box::new(CancelTransposes),
        // Padding goes into windows before scales do: a shift in front of a window depends on its padding.
        Box::new(FoldPads),
        Box::new(FoldScaleAfter),
        Box::new(FoldScaleBefore),
        // After cancelling: a transpose that found its inverse is better than one inside a product.
        Box::new(AbsorbTransposes),
    ]
}

/// The list for a target.
pub fn target_passes(options: &PassOptions) -> Vec<Box<dyn Pass>> {
    let mut list: Vec<Box<dyn Pass>> = Vec::new();
    // Precision first: its casts are then fused like any other element-wise node.
    match options.target {
        Target::Cpu => list.push(Box::new(PromoteHalf)),
        Target::Cuda { .. } if options.fp16 => list.push(Box::new(LowerPrecision)),
        _ => {}
    }
    // Constants that were converted fold; casts that were inserted twice merge.
    list.push(Box::new(FoldConstants));
    list.push(Box::new(MergeDuplicates));
    list.push(Box::new(SimplifyPointwise));
    if matches!(options.target, Target::Cuda { .. }) {
        // After the precision, which decides which convolutions it is for; before fusion, which would hide what stands
        // between them, and which then fuses in the order that they have.
        list.push(Box::new(ChannelsLast));
        // Reshapes that it put beside others.
        list.push(Box::new(SimplifyShapes));
    }
    // Epilogues before plain fusion: a producer's own chain must not be swallowed by another reader's program.
    list.push(Box::new(FuseEpilogue));
    if matches!(options.target, Target::Cuda { .. }) {
        // The sums that no product has taken, before they are fused with what is around them.
        list.push(Box::new(FuseSkipNorm));
    }
    list.push(Box::new(FusePointwise));
    // After every pass that looks for products: constants change their order and nothing else does.
    list.push(Box::new(TurnWeights));
    // Chains that plain fusion made one node of can now be an epilogue; the next round of the list does that.
    list.push(Box::new(EliminateDead));
    list
}

/// Rewrites for every device.
pub fn run_portable(g: &mut Graph, options: &PassOptions) -> Result<Report> {
    run_all(g, &portable_passes(), options)
}

/// Rewrites for `options.target`; run after [`run_portable`] or alone.
pub fn run_target(g: &mut Graph, options: &PassOptions) -> Result<Report> {
    run_all(g, &target_passes(options), options)
}

/// The graphs inside of nodes first: what is found out about them helps outside.
fn run_all(g: &mut Graph, list: &[Box<dyn Pass>], options: &PassOptions) -> Result<Report> {
    g.map_bodies(&mut |body| run_list(body, list, options, 4).map(drop))?;
    run_list(g, list, options, 4)
}
