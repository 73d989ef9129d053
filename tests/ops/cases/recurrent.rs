//! Recurrent layers: every kind, direction, layout, activation and optional operand.

use super::Case;
use crate::ops::steps::random;
use sinter::base::{DType, Tensor};
use sinter::ops::recurrent::{Recurrent, RecurrentDirection, RecurrentKind};

fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 4e-3,
        DType::BF16 => 3e-2,
        DType::F32 => 2e-5,
        _ => 1e-11,
    }
}

/// What a case varies.
#[derive(Clone)]
struct Setup {
    op: Recurrent,
    dtype: DType,
    seq: usize,
    batch: usize,
    hidden: usize,
    lengths: Option<Vec<i32>>,
    states: bool,
    peepholes: bool,
    bias: bool,
}

fn layer(kind: RecurrentKind, direction: RecurrentDirection) -> Recurrent {
    let n = kind.n_activations() * if direction == RecurrentDirection::Both { 2 } else { 1 };
    let names: &[&str] = match kind {
        RecurrentKind::Rnn => &["tanh"],
        RecurrentKind::Gru => &["sigmoid", "tanh"],
        RecurrentKind::Lstm => &["sigmoid", "tanh", "tanh"],
    };
    Recurrent {
        kind,
        direction,
        batch_first: false,
        activations: names.iter().cycle().take(n).map(|s| s.to_string()).collect(),
        alpha: vec![0.0; n],
        beta: vec![0.0; n],
        clip: None,
        coupled: false,
        reset_after: false,
    }
}

fn setup(kind: RecurrentKind, direction: RecurrentDirection) -> Setup {
    Setup {
        op: layer(kind, direction),
        dtype: DType::F32,
        seq: 5,
        batch: 3,
        hidden: 7,
        lengths: None,
        states: true,
        peepholes: false,
        bias: false,
    }
}

impl Setup {
    fn case(&self, name: &str) -> Case {
        let (d, h, n) = (self.op.n_directions(), self.hidden, self.op.kind.gates() * self.hidden);
        let tensor = |shape: &[usize], seed: u64| Some(random(self.dtype, shape, seed));
        let is_lstm = self.op.kind == RecurrentKind::Lstm;
        let (x, state) = match self.op.batch_first {
            true => ([self.batch, self.seq, d * n], [self.batch, d, h]),
            false => ([self.seq, self.batch, d * n], [d, self.batch, h]),
        };
        // Weights that keep the states from saturating.
        let r = random(DType::F32, &[d, h, n], 2).to_f32s();
        let scale = 1.0 / (h.max(1) as f32).sqrt();
        let r: Vec<f32> = r.iter().map(|v| v * scale).collect();
        let inputs = vec![
            tensor(&x, 1),
            Some(Tensor::from_slice(&[d, h, n], &r).cast(self.dtype)),
            if self.bias { tensor(&[d, h], 3) } else { None },
            self.lengths.as_ref().map(|l| Tensor::from_slice(&[l.len()], l)),
            if self.states { tensor(&state, 4) } else { None },
            if self.states && is_lstm { tensor(&state, 5) } else { None },
            if self.peepholes { tensor(&[d, 3 * h], 6) } else { None },
        ];
        let used = 1 + inputs.iter().rposition(|v| v.is_some()).unwrap_or(0);
        let name = format!("{name} {} {}", self.op.kind.name(), self.dtype);
        Case::new(name, self.op.clone(), inputs[..used].to_vec()).within(tolerance(self.dtype))
    }
}

const KINDS: [RecurrentKind; 3] = [RecurrentKind::Rnn, RecurrentKind::Gru, RecurrentKind::Lstm];

pub fn cases() -> Vec<Case> {
    use RecurrentDirection::{Both, Forward, Reverse};
    let mut out = Vec::new();
    for kind in KINDS {
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
            for direction in [Forward, Reverse, Both] {
                out.push(Setup { dtype, ..setup(kind, direction) }.case(direction.name()));
            }
            let mut s = Setup { dtype, lengths: Some(vec![0, 5, 2]), ..setup(kind, Both) };
            out.push(s.case("lengths"));
            s.op.batch_first = true;
            s.op.clip = Some(0.3);
            out.push(s.case("batch first, clipped, lengths"));
        }
        for (seq, batch, hidden) in [(0, 2, 4), (3, 0, 4), (3, 2, 0), (1, 1, 1), (4, 9, 33), (2, 1, 64), (3, 5, 130), (2, 2, 520)] {
            for direction in [Forward, Both] {
                let s = Setup { seq, batch, hidden, states: hidden != 33, ..setup(kind, direction) };
                out.push(s.case(&format!("{seq} x {batch} x {hidden} {}", direction.name())));
            }
        }
    }
    for bias in [false, true] {
        for (hidden, dtype) in [(7, DType::F32), (64, DType::F16), (520, DType::F32)] {
            let mut s = Setup { bias, hidden, dtype, lengths: Some(vec![4, 1, 5]), ..setup(RecurrentKind::Gru, Both) };
            s.op.reset_after = true;
            out.push(s.case(&format!("reset after the product, bias {bias}")));
        }
    }
    for (coupled, peepholes, clip) in [(true, false, None), (false, true, None), (true, true, Some(0.7)), (false, true, Some(0.5))] {
        for direction in [Forward, Both] {
            let mut s = Setup { peepholes, lengths: Some(vec![1, 5, 3]), ..setup(RecurrentKind::Lstm, direction) };
            (s.op.coupled, s.op.clip) = (coupled, clip);
            out.push(s.case(&format!("coupled {coupled}, peepholes {peepholes}, clip {clip:?}")));
        }
    }
    let names = [
        ("tanh", 0.0, 0.0),
        ("sigmoid", 0.0, 0.0),
        ("relu", 0.0, 0.0),
        ("affine", 0.5, 0.1),
        ("leakyrelu", 0.05, 0.0),
        ("thresholdedrelu", 0.2, 0.0),
        ("scaledtanh", 0.8, 1.3),
        ("hardsigmoid", 0.3, 0.4),
        ("elu", 0.7, 0.0),
        ("softsign", 0.0, 0.0),
        ("softplus", 0.0, 0.0),
    ];
    for kind in KINDS {
        for first in 0..names.len() {
            let mut s = setup(kind, Both);
            let n = s.op.activations.len();
            let f: Vec<_> = (0..n).map(|i| names[(first + 4 * i) % names.len()]).collect();
            s.op.activations = f.iter().map(|f| f.0.to_string()).collect();
            s.op.alpha = f.iter().map(|f| f.1).collect();
            s.op.beta = f.iter().map(|f| f.2).collect();
            s.seq = 3;
            out.push(s.case(&format!("activations from {}", names[first].0)));
        }
    }
    out
}
