//! Linear attention: a matrix a head that each place updates by its key and value, and that its query reads.
//!
//! With state S [key size, value size]: `S = exp(g) S` where there is a decay, then `S += k ⊗ u`, then `y = scale Sᵀ q`.
//! `u` is v, or `beta (v - Sᵀ k)` with the decayed S where there is a beta. Inputs: q [batch, length, q_heads * key size],
//! k [batch, length, kv_heads * key size], v [batch, length, kv_heads * value size], optional past state [batch, kv_heads,
//! key size, value size], optional decay g [batch, length, kv_heads or kv_heads * key size], optional beta [batch, length,
//! kv_heads or 1]. Outputs: y [batch, length, max(q_heads, kv_heads) * value size] and the state. Sums are in f32 at least.

mod causal_conv;
mod cpu;
mod cuda;
mod onnx;

use crate::base::{Dim, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::ops::{
    CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, TensorDesc,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// See the module's text.
    pub struct LinearAttention {
        pub q_heads: i64,
        pub kv_heads: i64,
        /// 0 is 1 / sqrt(key size).
        pub scale: f32,
    }
}

op_home!(LinearAttention, "LinearAttention", onnx::TABLE);

const PAST: usize = 3;
const DECAY: usize = 4;
const BETA: usize = 5;

/// A problem at concrete sizes.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub batch: usize,
    pub length: usize,
    pub q_heads: usize,
    pub kv_heads: usize,
    pub key: usize,
    pub value: usize,
    /// Numbers of decay a head: the key size, 1, or 0 without decay.
    pub decay: usize,
    /// Numbers of beta a place; 0 without.
    pub beta: usize,
}

impl Geometry {
    pub fn out_heads(&self) -> usize {
        self.q_heads.max(self.kv_heads)
    }
}

impl LinearAttention {
    pub fn geometry(&self, inputs: &[Option<TensorDesc>]) -> Result<Geometry> {
        let get = |i: usize| inputs.get(i).and_then(|d| d.as_ref());
        let (Some(q), Some(k), Some(v)) = (get(0), get(1), get(2)) else {
            return Err(err!(InvalidArgument, "linear attention needs q, k and v"));
        };
        let ([b, s, qw], [kb, ks, kw], [vb, vs, vw]) = (rank3(q)?, rank3(k)?, rank3(v)?);
        let (qh, kvh) = (self.q_heads.max(0) as usize, self.kv_heads.max(0) as usize);
        ensure!(qh > 0 && kvh > 0 && (qh % kvh == 0 || kvh % qh == 0), InvalidArgument, "{qh} heads share {kvh}");
        let fits = [kb, vb] == [b; 2] && [ks, vs] == [s; 2] && qw % qh == 0 && kw % kvh == 0 && vw % kvh == 0;
        ensure!(fits && qw / qh == kw / kvh, InvalidArgument, "operands {q}, {k} and {v} do not fit {qh} and {kvh} heads");
        let (key, value) = (kw / kvh, vw / kvh);
        if let Some(p) = get(PAST) {
            ensure!(p.dims == [b, kvh, key, value], InvalidArgument, "state {p}, expected [{b},{kvh},{key},{value}]");
        }
        let width = |i: usize| get(i).map(rank3).transpose();
        let decay = match width(DECAY)? {
            None => 0,
            Some(d) if d == [b, s, kvh] => 1,
            Some(d) if d == [b, s, kw] => key,
            Some(d) => return Err(err!(InvalidArgument, "decay {d:?} fits neither {kvh} heads nor {kw} keys")),
        };
        let beta = match width(BETA)? {
            None => 0,
            Some(d) if d == [b, s, kvh] || d == [b, s, 1] => d[2],
            Some(d) => return Err(err!(InvalidArgument, "beta {d:?} fits neither {kvh} heads nor 1")),
        };
        Ok(Geometry { batch: b, length: s, q_heads: qh, kv_heads: kvh, key, value, decay, beta })
    }

    pub fn scale_for(&self, key: usize) -> f64 {
        if self.scale == 0.0 { 1.0 / (key.max(1) as f64).sqrt() } else { self.scale as f64 }
    }
}

fn rank3(t: &TensorDesc) -> Result<[usize; 3]> {
    <[usize; 3]>::try_from(&t.dims[..]).map_err(|_| err!(InvalidArgument, "expected rank 3, got {t}"))
}

impl OpDef for LinearAttention {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(3, 6)?;
        let dtype = cx.float(0)?;
        for i in 0..6 {
            let Some(f) = cx.opt(i) else { continue };
            cx.float(i)?;
            ensure!(i == PAST || f.dtype == dtype, InvalidArgument, "input {i}: expected {dtype} as q is, got {f}");
            cx.rank(i, if i == PAST { 4 } else { 3 })?;
        }
        ensure!(self.q_heads > 0 && self.kv_heads > 0, InvalidArgument, "{} heads share {}", self.q_heads, self.kv_heads);
        // With all sizes as numbers they are checked in one place.
        let desc = |i: usize| match cx.opt(i) {
            None => Some(None),
            Some(f) => f.shape.concrete().map(|dims| Some(TensorDesc { dtype: f.dtype, dims })),
        };
        if let Some(inputs) = (0..6).map(desc).collect::<Option<Vec<_>>>() {
            self.geometry(&inputs)?;
        }
        let (q, v) = (cx.input(0)?, cx.input(2)?);
        let heads = |width: &Dim, n: i64| {
            width.floor_div(&Dim::from(n)).ok_or_else(|| err!(InvalidArgument, "{width} elements of {n} heads"))
        };
        let (key, value) = (heads(&q.shape[2], self.q_heads)?, heads(&v.shape[2], self.kv_heads)?);
        let (b, n_out) = (q.shape[0].clone(), Dim::from(self.q_heads.max(self.kv_heads)));
        let state = cx.opt(PAST).map_or(dtype, |f| f.dtype);
        Ok(vec![
            Fact::new(dtype, vec![b.clone(), q.shape[1].clone(), &n_out * &value]),
            Fact::new(state, vec![b, Dim::from(self.kv_heads), key, value]),
        ])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let desc = |t: &Tensor| TensorDesc { dtype: t.dtype(), dims: t.shape().to_vec() };
        let descs: Vec<Option<TensorDesc>> = (0..6).map(|i| cx.opt(i).map(desc)).collect();
        let g = self.geometry(&descs)?;
        let f64s = |i: usize| cx.opt(i).map(|t| t.to_f64s());
        let (q, k, v) = (cx.input(0)?.to_f64s(), cx.input(1)?.to_f64s(), cx.input(2)?.to_f64s());
        let (decay, beta) = (f64s(DECAY), f64s(BETA));
        let n_state = g.batch * g.kv_heads * g.key * g.value;
        let mut states = f64s(PAST).unwrap_or_else(|| vec![0.0; n_state]);
        let (mut y, mut state_out) = (cx.output(0)?, cx.output(1)?);
        let mut out = vec![0.0; y.numel()];
        let scale = self.scale_for(g.key);
        let n_out = g.out_heads();
        let (per_kv, per_q) = (n_out / g.kv_heads, n_out / g.q_heads);
        for unit in 0..g.batch * g.kv_heads {
            let (b, h) = (unit / g.kv_heads, unit % g.kv_heads);
            let state = &mut states[unit * g.key * g.value..(unit + 1) * g.key * g.value];
            for t in 0..g.length {
                let place = b * g.length + t;
                let k = &k[(place * g.kv_heads + h) * g.key..][..g.key];
                let v = &v[(place * g.kv_heads + h) * g.value..][..g.value];
                if let Some(decay) = &decay {
                    for i in 0..g.key {
                        let at = (place * g.kv_heads + h) * g.decay + if g.decay == 1 { 0 } else { i };
                        let factor = decay[at].exp();
                        state[i * g.value..(i + 1) * g.value].iter_mut().for_each(|s| *s *= factor);
                    }
                }
                for m in 0..g.value {
                    let mut u = v[m];
                    if let Some(beta) = &beta {
                        let read = (0..g.key).fold(0.0, |a, i| a + state[i * g.value + m] * k[i]);
                        u = beta[place * g.beta + if g.beta == 1 { 0 } else { h }] * (u - read);
                    }
                    for i in 0..g.key {
                        state[i * g.value + m] += k[i] * u;
                    }
                    for o in h * per_kv..(h + 1) * per_kv {
                        let q = &q[(place * g.q_heads + o / per_q) * g.key..][..g.key];
                        let sum = (0..g.key).fold(0.0, |a, i| a + state[i * g.value + m] * q[i]);
                        out[(place * n_out + o) * g.value + m] = scale * sum;
                    }
                }
            }
        }
        y = Tensor::from_slice(y.shape(), &out).cast(y.dtype());
        state_out = Tensor::from_slice(state_out.shape(), &states).cast(state_out.dtype());
        Ok(vec![y, state_out])
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::step(self, p)
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(p)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, _dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, p)
    }

    fn flops(&self, p: &Problem) -> f64 {
        self.geometry(&p.inputs).map_or(0.0, |g| {
            6.0 * (g.batch * g.length * g.out_heads()) as f64 * g.key as f64 * g.value as f64
        })
    }
}
