//! Counts n-grams of a vocabulary in sequences of integers. Inputs: x [n] or [batch, n] (i32 or i64); the n-grams one
//! behind the other (i64); one row [begin, length, column] for each n-gram (i64); a weight for each (f32).
//!
//! An n-gram is looked for with 0 to `max_skip` elements left out between two of its own. `Tf` gives counts, `Idf` the
//! weight where it occurs, `TfIdf` both multiplied.

use crate::base::{DType, Dim, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::gather_elements::check_indices;
use crate::ops::transpose::cuda::{THREADS, grid_1d};
use crate::ops::{
    Arg, DeviceOp, EvalCx, ImportCx, InferCx, KernelSpec, Launch, OpDef, Problem, StepProgram, Tactic, TacticOptions,
    TacticSource, onnx,
};
use crate::{attr_enum, ensure, err, op_home, op_struct};

attr_enum! {
    /// What is made of a count.
    pub enum TfIdfMode { Tf = "TF", Idf = "IDF", TfIdf = "TFIDF" }
}

op_struct! {
    /// Counts n-grams of a vocabulary. Inputs: x, n-grams, rows of begin, length and column, weights.
    pub struct TfIdf {
        pub mode: TfIdfMode,
        pub max_skip: i64,
        pub columns: i64,
    }
}

op_home!(TfIdf, "TfIdf", &[onnx("TfIdfVectorizer", 9, import)]);

impl TfIdf {
    /// How often the n-gram occurs in the sequence.
    fn count(&self, row: &[i64], gram: &[i64]) -> u64 {
        // Skips do not change a single element.
        let skips = if gram.len() == 1 { 0 } else { self.max_skip as usize };
        let mut count = 0;
        for step in 1..=skips + 1 {
            let reach = (gram.len() - 1).saturating_mul(step);
            if reach >= row.len() {
                break;
            }
            for start in 0..row.len() - reach {
                count += gram.iter().enumerate().all(|(k, g)| row[start + k * step] == *g) as u64;
            }
        }
        count
    }

    fn value(&self, count: u64, weight: f32) -> f32 {
        match self.mode {
            TfIdfMode::Tf => count as f32,
            TfIdfMode::Idf if count > 0 => weight,
            TfIdfMode::Idf => 0.0,
            TfIdfMode::TfIdf => count as f32 * weight,
        }
    }
}

impl OpDef for TfIdf {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(4, 4)?;
        check_indices(cx, 0)?;
        let x = cx.input(0)?;
        ensure!(matches!(x.rank(), 1 | 2), InvalidArgument, "expected a sequence or a batch of them, got {x}");
        ensure!((0..1 << 31).contains(&self.columns), InvalidArgument, "{} columns", self.columns);
        ensure!((0..1 << 31).contains(&self.max_skip), InvalidArgument, "a skip of {}", self.max_skip);
        let (pool, grams, weights) = (cx.input(1)?, cx.input(2)?, cx.input(3)?);
        let typed = pool.dtype == DType::I64 && grams.dtype == DType::I64 && weights.dtype == DType::F32;
        let shaped = pool.rank() == 1 && grams.rank() == 2 && weights.rank() == 1;
        ensure!(typed && shaped, InvalidArgument, "the vocabulary is {pool}, {grams} and {weights}");
        // Kernels trust these numbers.
        let (Some(rows), Some(n)) = (grams.as_const(), pool.shape[0].as_const()) else {
            return Err(err!(Unsupported, "the vocabulary must be constant"));
        };
        ensure!(grams.shape[1].is(3) && weights.shape[0] == grams.shape[0], InvalidArgument, "rows of {grams}");
        for row in rows.slice::<i64>().chunks_exact(3) {
            let fits = row[0] >= 0 && row[1] >= 1 && row[0].checked_add(row[1]).is_some_and(|end| end <= n);
            ensure!(fits && (0..self.columns).contains(&row[2]), InvalidArgument, "an n-gram with {row:?}");
        }
        let mut shape = x.shape[..x.rank() - 1].to_vec();
        shape.push(Dim::from(self.columns));
        Ok(vec![Fact::new(DType::F32, shape)])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let mut out = cx.output(0)?;
        let (v, pool, grams, weights) = (x.to_i64s(), cx.ints(1)?, cx.ints(2)?, cx.input(3)?.to_f32s());
        let n = x.shape().last().copied().unwrap_or(0);
        let columns = self.columns as usize;
        for (b, y) in out.slice_mut::<f32>().chunks_exact_mut(columns.max(1)).enumerate() {
            for (g, weight) in grams.chunks_exact(3).zip(&weights) {
                let gram = &pool[g[0] as usize..(g[0] + g[1]) as usize];
                y[g[2] as usize] = self.value(self.count(&v[b * n..(b + 1) * n], gram), *weight);
            }
        }
        Ok(vec![out])
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        let Some(x) = p.input(0) else { return vec![] };
        let kernel = KernelSpec::new("tfidf.cu")
            .define_type("T_DATA", x.dtype)
            .define("MODE", TfIdfMode::ALL.iter().position(|m| *m == self.mode).unwrap_or(0))
            .define("THREADS", THREADS);
        let name = format!("tfidf/{}_{}", self.mode.name(), x.dtype);
        vec![Tactic { name, source: TacticSource::Kernels, kernels: vec![kernel], params: vec![] }]
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let (Some(x), Some(grams)) = (p.input(0), p.input(2)) else {
            return Err(err!(InvalidArgument, "an operand is missing"));
        };
        let out = &p.outputs[0];
        if out.numel() == 0 {
            return Ok(StepProgram::default());
        }
        let mut ops = vec![DeviceOp::Fill { dst: Arg::Out(0), value: 0, bytes: out.bytes() }];
        let (length, n_grams) = (x.dims.last().copied().unwrap_or(0), grams.dims[0]);
        let n = out.numel() / self.columns as usize * n_grams;
        if n > 0 {
            let mut args = vec![Arg::In(0), Arg::In(1), Arg::In(2), Arg::In(3), Arg::Out(0)];
            args.extend([length as i64, n_grams as i64, self.columns, self.max_skip, n as i64].map(Arg::I64));
            let grid = grid_1d(n, THREADS, dev);
            ops.push(DeviceOp::Launch(Launch { kernel: 0, grid, block: [THREADS as u32, 1, 1], smem: 0, args }));
        }
        Ok(StepProgram { ops, workspace: 0 })
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    ensure!(cx.attrs.strings("pool_strings")?.is_none(), Unsupported, "strings are not supported");
    let need = |v: Option<Vec<i64>>, name: &str| v.ok_or_else(|| err!(InvalidArgument, "attribute {name} is missing"));
    let pool = need(cx.ints("pool_int64s")?, "pool_int64s")?;
    let starts = need(cx.ints("ngram_counts")?, "ngram_counts")?;
    let columns = need(cx.ints("ngram_indexes")?, "ngram_indexes")?;
    let weights = cx.attrs.floats("weights")?;
    let (min, max) = (cx.int("min_gram_length", 1)?, cx.int("max_gram_length", 1)?);
    let max_skip = cx.int("max_skip_count", 0)?;
    let mode = cx.string("mode", "TF")?;
    let mode = TfIdfMode::from_name(&mode)
        .ok_or_else(|| err!(InvalidArgument, "attribute mode: expected TF, IDF or TFIDF, got {mode:?}"))?;
    let mut grams: Vec<i64> = Vec::new();
    let mut kept: Vec<f32> = Vec::new();
    let mut n = 0;
    for (i, start) in starts.iter().enumerate() {
        let (length, end) = (i as i64 + 1, starts.get(i + 1).copied().unwrap_or(pool.len() as i64));
        let fits = *start >= 0 && *start <= end && end <= pool.len() as i64 && (end - start) % length == 0;
        ensure!(fits, InvalidArgument, "attribute ngram_counts: {starts:?} for {} elements", pool.len());
        for begin in (*start..end).step_by(length as usize) {
            let column = *columns.get(n).ok_or_else(|| err!(InvalidArgument, "attribute ngram_indexes is too short"))?;
            if (min..=max).contains(&length) {
                grams.extend([begin, length, column]);
                kept.push(weights.as_ref().map_or(1.0, |w| w.get(n).copied().unwrap_or(1.0)));
            }
            n += 1;
        }
    }
    let width = columns.iter().max().map_or(0, |m| m.saturating_add(1));
    let pool = cx.constant(Tensor::from_slice(&[pool.len()], &pool));
    let rows = cx.constant(Tensor::from_slice(&[kept.len(), 3], &grams));
    let weights = cx.constant(Tensor::from_slice(&[kept.len()], &kept));
    Ok(vec![cx.add(TfIdf { mode, max_skip, columns: width }, &[x, pool, rows, weights])?])
}
