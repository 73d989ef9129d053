//! Cases of operators, one file a family, run by every runner: `cpu_cases.rs` (reference against CPU step, shapes with
//! symbols), `cuda_cases.rs` (programs and compilation, without a GPU) and `tests/gpu/cases.rs` (every tactic on a
//! device against the reference).
//!
//! A new family is its file with `pub fn cases() -> Vec<Case>` and a line below. Runners take odd and empty shapes,
//! several outputs and absent optional inputs; the reference itself is checked elsewhere, against ONNX.

use sinter::base::Tensor;
use sinter::ops::Op;

/// One node with its operands.
pub struct Case {
    pub name: String,
    pub op: Op,
    pub inputs: Vec<Option<Tensor>>,
    /// Largest error relative to the larger of 1 and the value; integers must be equal whatever it is.
    pub tolerance: f64,
    /// Inputs that count as constants of the network, beside those that the host reads.
    pub constants: Vec<usize>,
}

impl Case {
    /// A case whose results are exact.
    pub fn new(name: impl Into<String>, op: impl Into<Op>, inputs: Vec<Option<Tensor>>) -> Case {
        Case { name: name.into(), op: op.into(), inputs, tolerance: 0.0, constants: vec![] }
    }

    pub fn with_constant(mut self, input: usize) -> Case {
        self.constants.push(input);
        self
    }

    /// Inputs that are known when tactics are chosen.
    pub fn known(&self) -> Vec<usize> {
        self.op.def().host_inputs().into_iter().chain(self.constants.iter().copied()).collect()
    }

    pub fn within(mut self, tolerance: f64) -> Case {
        self.tolerance = tolerance;
        self
    }
}

/// A vector of 64-bit integers as an operand.
pub fn ints(v: &[i64]) -> Option<Tensor> {
    Some(Tensor::from_slice(&[v.len()], v))
}

macro_rules! families {
    ($($family:ident),* $(,)?) => {
        $(mod $family;)*
        /// All cases, by family.
        pub fn families() -> Vec<(&'static str, Vec<Case>)> {
            vec![$((stringify!($family), $family::cases())),*]
        }
    };
}

families! {
    attention,
    complex_mul,
    conv_nhwc,
    conv_wgmma,
    indexing,
    ml,
    movers,
    normalize,
    quantized,
    recurrent,
    products,
    reductions,
    resizes,
    signals,
    types,
    vision,
}

/// The cases of every family.
pub fn all() -> Vec<Case> {
    families().into_iter().flat_map(|(_, cases)| cases).collect()
}

/// Runs `check` on every case; an error or a panic is kept with the case's name, and all of them fail the test at the
/// end.
pub fn for_each<'a>(what: &str, cases: &'a [Case], mut check: impl FnMut(&'a Case) -> Result<(), String>) {
    let mut wrong = Vec::new();
    for c in cases {
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(c)));
        match checked {
            Ok(Ok(())) => {}
            Ok(Err(e)) => wrong.push(format!("{}: {}: {e}", c.op.name(), c.name)),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text");
                wrong.push(format!("{}: {}: {text}", c.op.name(), c.name));
            }
        }
    }
    const SHOWN: usize = 60;
    let more = wrong.len().saturating_sub(SHOWN);
    let text = wrong.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{what}: {} of {} cases are wrong:\n{text}\n({more} more)", wrong.len(), cases.len());
}
