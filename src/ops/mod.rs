//! Operators, one home each, and the table of all of them.
//!
//! Adding an operator: its file, one line in `define_ops!` with the next free id, its kernel file, its case file. The
//! id and the name are stored in engines and are never used again for something else.

pub mod compose;
pub mod def;
pub mod epilogue;
pub mod limits;
pub mod ml;
pub mod in_f32;
pub mod per_output;
pub mod sequence;
pub mod requant;
pub mod row_form;
pub mod tactic;
pub mod window;

// One home per operator, in the order of the table.

pub use def::{
    AttrSource, Body, EvalCx, HalfRole, ImportCx, ImportValue, InferCx, Subgraphs, OnnxOp, OpDef, OpHome, StructuralOp, TacticOptions, fresh_dim, onnx,
    structural,
};
pub use tactic::*;

use crate::base::{Attrs, Result};

/// Declares `enum Op` with conversion from each operator's struct, and the tables by id and by ONNX name.
macro_rules! define_ops {
    ($($id:literal => $m:ident :: $t:ident),* $(,)?) => {
        $(pub mod $m;)*

        /// Any operator.
        #[derive(Clone, Debug)]
        pub enum Op { $($t($m::$t)),* }

        $(impl From<$m::$t> for Op { fn from(op: $m::$t) -> Op { Op::$t(op) } })*

        impl Op {
            /// What it does.
            pub fn def(&self) -> &dyn OpDef { match self { $(Op::$t(op) => op),* } }
            /// Number stored in engines.
            pub fn id(&self) -> u16 { match self { $(Op::$t(_) => $id),* } }
            /// Name in dumps.
            pub fn name(&self) -> &'static str { match self { $(Op::$t(_) => <$m::$t as OpHome>::NAME),* } }
            pub fn attrs(&self) -> Attrs { match self { $(Op::$t(op) => op.attrs()),* } }
            /// The operator with this stored number and attributes.
            pub fn from_attrs(id: u16, attrs: &Attrs) -> Result<Op> {
                match id {
                    $($id => <$m::$t as OpHome>::from_attrs(attrs).map(Op::$t),)*
                    _ => Err($crate::err!(VersionMismatch, "operator id {id} is not known to this version")),
                }
            }
        }

        /// Id and name of every operator.
        pub const OPS: &[(u16, &str)] = &[$(($id, <$m::$t as OpHome>::NAME)),*];

        /// Every ONNX importer.
        pub fn onnx_table() -> impl Iterator<Item = &'static OnnxOp> {
            let tables: &[&'static [OnnxOp]] = &[$(<$m::$t as OpHome>::ONNX),*];
            let tables: Vec<&'static [OnnxOp]> = tables.to_vec();
            tables.into_iter().flatten().chain(ml::TABLE)
        }

        /// The same with the name of the operator in whose home each importer is.
        pub fn onnx_homes() -> impl Iterator<Item = (&'static str, &'static OnnxOp)> {
            let tables: Vec<(&'static str, &'static [OnnxOp])> =
                vec![$((<$m::$t as OpHome>::NAME, <$m::$t as OpHome>::ONNX)),*];
            let homes = tables.into_iter().flat_map(|(home, table)| table.iter().map(move |o| (home, o)));
            homes.chain(ml::TABLE.iter().map(|o| ("ml", o)))
        }
    };
}

define_ops! {
    1 => pointwise::Pointwise,
    2 => conv::Conv,
    3 => conv_transpose::ConvTranspose,
    4 => matmul::MatMul,
    5 => pool::Pool,
    6 => reduce::Reduce,
    7 => softmax::Softmax,
    8 => reshape::Reshape,
    9 => transpose::Transpose,
    10 => slice::Slice,
    11 => concat::Concat,
    12 => gather::Gather,
    13 => pad::Pad,
    14 => expand::Expand,
    15 => resize::Resize,
    16 => shape::Shape,
    17 => fill::Fill,
    18 => depth_to_space::DepthToSpace,
    19 => tile::Tile,
    20 => range::Range,
    21 => branch::If,
    22 => loop_op::Loop,
    23 => scan::Scan,
    24 => complex_mul::ComplexMul,
    25 => assume::Assume,
    30 => bit_cast::BitCast,
    35 => qmatmul::QMatMul,
    36 => qconv::QConv,
    37 => matmul_nbits::MatMulNBits,
    40 => gather_elements::GatherElements,
    41 => gather_nd::GatherND,
    42 => scatter_elements::ScatterElements,
    43 => scatter_nd::ScatterND,
    44 => tensor_scatter::TensorScatter,
    45 => trilu::Trilu,
    46 => reverse_sequence::ReverseSequence,
    47 => cumulate::Cumulate,
    48 => topk::TopK,
    49 => nonzero::NonZero,
    50 => unique::Unique,
    51 => non_max_suppression::NonMaxSuppression,
    52 => det::Det,
    53 => random::Random,
    54 => tfidf::TfIdf,
    60 => normalize::Normalize,
    61 => inverse::Inverse,
    70 => attention::Attention,
    71 => rotary::Rotary,
    72 => cache_update::CacheUpdate,
    73 => linear_attention::LinearAttention,
    80 => grid_sample::GridSample,
    81 => affine_grid::AffineGrid,
    82 => roi_align::RoiAlign,
    83 => roi_pool::MaxRoiPool,
    84 => deform_columns::DeformColumns,
    85 => col2im::Col2Im,
    86 => max_unpool::MaxUnpool,
    87 => dft::Dft,
    88 => stft::Stft,
    89 => mel_weights::MelWeights,
    100 => recurrent::Recurrent,
    101 => tree_ensemble::TreeEnsemble,
    102 => svm_kernel::SvmKernel,
    103 => svm_probability::SvmProbability,
    104 => label_encoder::LabelEncoder,
}

/// The importer for an ONNX operator at an opset: the newest that is not newer than the model.
pub fn find_onnx(domain: &str, name: &str, opset: i64) -> Option<&'static OnnxOp> {
    onnx_table().filter(|o| o.domain == domain && o.name == name && o.since <= opset).max_by_key(|o| o.since)
}

/// The operators of ONNX that carry graphs or work on sequences and optionals.
pub fn structural_table() -> impl Iterator<Item = &'static StructuralOp> {
    let tables: [&'static [StructuralOp]; 4] =
        [branch::STRUCTURAL, loop_op::STRUCTURAL, scan::STRUCTURAL, sequence::STRUCTURAL];
    tables.into_iter().flatten()
}

/// As [`find_onnx`], for structural operators.
pub fn find_structural(domain: &str, name: &str, opset: i64) -> Option<&'static StructuralOp> {
    structural_table().filter(|o| o.domain == domain && o.name == name && o.since <= opset).max_by_key(|o| o.since)
}
