//! The equations as they are written, in f64.

use super::activation::Activation;
use super::*;

/// Everything that one direction of one row needs, in f64.
struct Run<'a> {
    op: &'a Recurrent,
    f: [Activation; 3],
    hidden: usize,
    /// Recurrent weights [hidden, gates * hidden].
    r: &'a [f64],
    bias: Option<&'a [f64]>,
    peepholes: Option<&'a [f64]>,
}

impl Run<'_> {
    fn clip(&self, v: f64) -> f64 {
        self.op.clip.map_or(v, |c| v.max(-c as f64).min(c as f64))
    }

    /// v R for one column.
    fn product(&self, v: &[f64], column: usize) -> f64 {
        let n = self.op.kind.gates() * self.hidden;
        v.iter().enumerate().map(|(k, v)| v * self.r[k * n + column]).sum()
    }

    /// One step from the projections `x` [gates * hidden].
    fn step(&self, x: &[f64], h: &mut Vec<f64>, c: &mut [f64]) {
        let n = self.hidden;
        let [f, g, act_h] = self.f;
        let gate = |k: usize, j: usize| x[k * n + j] + self.product(h, k * n + j);
        let peephole = |k: usize, j: usize| self.peepholes.map_or(0.0, |p| p[k * n + j]);
        *h = match self.op.kind {
            RecurrentKind::Rnn => (0..n).map(|j| f.eval(self.clip(gate(0, j)))).collect(),
            RecurrentKind::Gru => {
                let z: Vec<f64> = (0..n).map(|j| f.eval(self.clip(gate(0, j)))).collect();
                let r: Vec<f64> = (0..n).map(|j| f.eval(self.clip(gate(1, j)))).collect();
                let rh: Vec<f64> = r.iter().zip(&*h).map(|(r, h)| r * h).collect();
                let new = |j: usize| match self.op.reset_after {
                    true => x[2 * n + j] + r[j] * (self.product(h, 2 * n + j) + self.bias.map_or(0.0, |b| b[j])),
                    false => x[2 * n + j] + self.product(&rh, 2 * n + j),
                };
                (0..n).map(|j| (1.0 - z[j]) * g.eval(self.clip(new(j))) + z[j] * h[j]).collect()
            }
            RecurrentKind::Lstm => (0..n)
                .map(|j| {
                    let i = f.eval(self.clip(gate(0, j) + peephole(0, j) * c[j]));
                    let keep = match self.op.coupled {
                        true => 1.0 - i,
                        false => f.eval(self.clip(gate(2, j) + peephole(2, j) * c[j])),
                    };
                    c[j] = keep * c[j] + i * g.eval(self.clip(gate(3, j)));
                    let o = f.eval(self.clip(gate(1, j) + peephole(1, j) * c[j]));
                    o * act_h.eval(c[j])
                })
                .collect(),
        };
    }
}

pub fn eval(op: &Recurrent, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
    let (x, r) = (cx.input(X)?, cx.input(R)?);
    let s = op.sizes(x.shape(), r.shape());
    let (n, columns) = (s.hidden, s.columns());
    let functions = op.functions()?;
    let numbers = |i: usize| cx.opt(i).map(|t| t.to_f64s());
    let (bias, h0, c0, peepholes) = (numbers(BIAS), numbers(H0), numbers(C0), numbers(PEEPHOLES));
    let lengths = cx.opt(LENGTHS).map(|t| t.to_i64s());
    if let Some(bad) = lengths.iter().flatten().find(|l| !(0..=s.seq as i64).contains(*l)) {
        return Err(err!(InvalidArgument, "a sequence has the length {bad}, which is outside of [0, {}]", s.seq));
    }
    let (x, r) = (x.to_f64s(), r.to_f64s());
    let (mut y, mut y_h) = (vec![0.0; s.seq * s.dirs * s.batch * n], vec![0.0; s.dirs * s.batch * n]);
    let mut y_c = y_h.clone();
    let ([x_t, x_b], [y_t, y_b, y_d], [s_b, s_d]) = (s.x_strides(), s.y_strides(), s.state_strides());
    for d in 0..s.dirs {
        let run = Run {
            op,
            f: functions[d],
            hidden: n,
            r: &r[d * n * columns..][..n * columns],
            bias: bias.as_ref().map(|b| &b[d * n..][..n]),
            peepholes: peepholes.as_ref().map(|p| &p[d * 3 * n..][..3 * n]),
        };
        for b in 0..s.batch {
            let at = b * s_b + d * s_d;
            let state = |from: &Option<Vec<f64>>| from.as_ref().map_or(vec![0.0; n], |v| v[at..at + n].to_vec());
            let (mut h, mut c) = (state(&h0), state(&c0));
            let len = lengths.as_ref().map_or(s.seq, |l| l[b] as usize);
            for step in 0..len {
                let t = if op.is_reverse(d) { len - 1 - step } else { step };
                run.step(&x[t * x_t + b * x_b + d * columns..][..columns], &mut h, &mut c);
                y[t * y_t + b * y_b + d * y_d..][..n].copy_from_slice(&h);
            }
            if len > 0 {
                y_h[at..at + n].copy_from_slice(&h);
                y_c[at..at + n].copy_from_slice(&c);
            }
        }
    }
    let mut out = Vec::new();
    for (i, v) in [y, y_h, y_c].iter().take(cx.outputs.len()).enumerate() {
        let t = cx.output(i)?;
        out.push(Tensor::from_slice(t.shape(), v).cast(t.dtype()));
    }
    Ok(out)
}
