//! CUDA: `recurrent.cu`, with the whole loop in one block for each few rows and direction, or with a launch for each step
//! where one processor would read too many weights.

use super::*;
use crate::ops::tactic::{Arg, DeviceOp, KernelSpec, Launch, TacticSource, blocks, i64_struct};
use crate::ops::cuda_type;

const LOOP: i64 = 0;
const STEPS: i64 = 1;
/// Units of a block where a launch is one step.
const UNITS: usize = 8;
const STEP_THREADS: usize = 256;
/// Launches of one node, at most; longer sequences run in one launch where that fits.
const MAX_STEPS: usize = 8192;
/// Parts of a sum, at most.
const MAX_SPLITS: usize = 64;

/// What a tactic's parameters say: [mode, vec, threads of the loop, rows per block ..].
struct Choice<'a> {
    mode: i64,
    vec: usize,
    threads: usize,
    rows: &'a [i64],
}

impl Recurrent {
    fn cell(&self) -> i64 {
        match self.kind {
            RecurrentKind::Rnn => 0,
            RecurrentKind::Gru => 1 + self.reset_after as i64,
            RecurrentKind::Lstm => 3 + self.coupled as i64,
        }
    }

    /// Launches of one step.
    fn phases(&self) -> usize {
        if self.kind == RecurrentKind::Gru && !self.reset_after { 2 } else { 1 }
    }
}

fn acc_size(dtype: DType) -> usize {
    if dtype == DType::F64 { 8 } else { 4 }
}

/// Parts that the sum over k is cut into, so that all threads have some.
fn splits(s: &Sizes, units: usize, vec: usize, threads: usize) -> usize {
    let groups = s.gates * units / vec;
    (threads / groups.max(1)).clamp(1, s.hidden.clamp(1, MAX_SPLITS))
}

/// Shared memory of a block.
fn smem(s: &Sizes, units: usize, splits: usize, rows: usize, dtype: DType) -> usize {
    acc_size(dtype).saturating_mul(rows).saturating_mul(3 * s.hidden + splits * s.gates * units)
}

fn loop_smem(s: &Sizes, c: &Choice<'_>, rows: usize, dtype: DType) -> usize {
    smem(s, s.hidden, splits(s, s.hidden, c.vec, c.threads), rows, dtype)
}

/// The fewest rows per block that leave no more blocks than run at once.
fn best_rows(candidates: &[i64], rows: usize, per_row: usize, dev: &DeviceProps) -> usize {
    let fits = |nb: &&i64| rows.div_ceil(**nb as usize) * per_row <= dev.n_sm.max(1) as usize;
    candidates.iter().find(fits).or(candidates.last()).map_or(1, |nb| *nb as usize)
}

fn spec(op: &Recurrent, dtype: DType, step: i64, phase: usize, rows: i64, vec: usize, threads: usize) -> KernelSpec {
    let mut k = KernelSpec::new("recurrent.cu")
        .define("T_IN", cuda_type(dtype))
        .define("CELL", op.cell())
        .define("STEP", step)
        .define("PHASE", phase)
        .define("NB", rows)
        .define("VEC", vec)
        .define("THREADS", threads);
    let functions = op.functions().unwrap_or_default();
    for d in 0..2 {
        // With one direction, the other's functions are not used.
        let f = functions.get(d).or(functions.first());
        for (i, name) in ["F", "G", "H"].iter().enumerate() {
            k = k.define(&format!("FUNC_{name}{d}"), f.map_or(0, |f| f[i].kind as i64));
        }
    }
    k.define("CLIP", op.clip.is_some() as i64)
}

pub fn tactics(op: &Recurrent, p: &Problem, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
    let (Some(s), Some(x)) = (op.problem(p), p.input(X)) else { return vec![] };
    let widest = 16 / x.dtype.size();
    // Weights that are not constant may have another size at another time.
    let vec = if p.known(R).is_none() && opt.dynamic { 1 } else { [8, 4, 2, 1].into_iter().find(|v| *v <= widest && s.hidden % v == 0).unwrap_or(1) };
    let make = |mode: i64, threads: usize| -> Tactic {
        // Sums that a thread keeps in registers.
        let sums = if threads > 512 { 16 } else { 32 };
        let fitting: Vec<i64> = [1, 2, 4, 8].into_iter().filter(|nb| *nb as usize * vec <= sums).collect();
        let rows: Vec<i64> = match opt.dynamic {
            true => vec![1, fitting.iter().copied().find(|nb| *nb == 4).unwrap_or(2)],
            false if mode == LOOP => vec![best_rows(&fitting, s.batch, s.dirs, dev) as i64],
            false => vec![1, best_rows(&fitting, s.batch, s.dirs * s.hidden.div_ceil(2 * UNITS), dev) as i64],
        };
        let mut kernels: Vec<KernelSpec> = rows.iter().map(|nb| spec(op, x.dtype, LOOP, 0, *nb, vec, threads)).collect();
        if mode == STEPS {
            for nb in &rows {
                kernels.extend((0..op.phases()).map(|phase| spec(op, x.dtype, STEPS, phase, *nb, vec, STEP_THREADS)));
            }
        }
        let name = if mode == LOOP { format!("loop_t{threads}") } else { "steps".into() };
        let rows_name: Vec<String> = rows.iter().map(|r| r.to_string()).collect();
        Tactic {
            name: format!("{}/{name}_v{vec}_b{}_{}", op.kind.name(), rows_name.join("_"), x.dtype),
            source: TacticSource::Kernels,
            kernels,
            params: [mode, vec as i64, threads as i64].into_iter().chain(rows).collect(),
        }
    };
    // The loop's threads: enough to have a few multiply-adds each.
    let work = s.columns() * s.hidden / vec;
    let mut out = vec![make(LOOP, if work >= 512 * 16 { 512 } else { 128 })];
    if work >= 1024 * 16 {
        out.push(make(LOOP, 1024));
    }
    // A processor reads about 64 bytes a cycle from the second cache; a launch costs some 4000 cycles.
    let steps_first = s.columns() * s.hidden * x.dtype.size() > 256 << 10;
    out.retain(|t| choice(t).is_ok_and(|c| loop_smem(&s, &c, c.rows[0] as usize, x.dtype) <= dev.max_smem_per_block as usize));
    let steps = make(STEPS, 256);
    if steps_first || out.is_empty() {
        out.insert(0, steps);
    } else if s.hidden >= 64 {
        out.push(steps);
    }
    out
}

fn choice(tactic: &Tactic) -> Result<Choice<'_>> {
    let sound = |c: &Choice<'_>| {
        matches!(c.mode, LOOP | STEPS)
            && matches!(c.vec, 1 | 2 | 4 | 8)
            && (32..=1024).contains(&c.threads)
            && !c.rows.is_empty()
            && c.rows.iter().all(|r| (1..=8).contains(r))
    };
    match tactic.params.as_slice() {
        [mode, vec, threads, rows @ ..] => {
            let c = Choice { mode: *mode, vec: *vec as usize, threads: *threads as usize, rows };
            ensure!(sound(&c), CorruptData, "tactic {} has parameters out of range", tactic.name);
            Ok(c)
        }
        _ => Err(err!(CorruptData, "tactic {} has too few parameters", tactic.name)),
    }
}

pub fn program(op: &Recurrent, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let s = sizes_of(op, p)?;
    let dtype = p.outputs[0].dtype;
    let c = choice(tactic)?;
    ensure!(s.hidden % c.vec == 0, InvalidState, "tactic {} does not fit {} hidden units", tactic.name, s.hidden);
    if s.seq == 0 {
        // No steps: no last states.
        let fill = |i: usize| DeviceOp::Fill { dst: Arg::Out(i), value: 0, bytes: p.outputs[i].bytes() };
        let ops = (1..p.outputs.len()).filter(|i| p.outputs[*i].bytes() > 0).map(fill).collect();
        return Ok(StepProgram { ops, workspace: 0 });
    }
    if s.batch == 0 || s.hidden == 0 {
        return Ok(StepProgram::default());
    }
    let limit = dev.max_smem_per_block as usize;
    let fits_loop = loop_smem(&s, &c, 1, dtype) <= limit && c.rows[0] == 1
        || loop_smem(&s, &c, c.rows[0] as usize, dtype) <= limit;
    let in_steps = c.mode == STEPS && (s.seq <= MAX_STEPS || !fits_loop);
    let units = if in_steps { UNITS } else { s.hidden };
    let threads = if in_steps { STEP_THREADS } else { c.threads };
    let splits = splits(&s, units, c.vec, threads);
    let per_row = s.dirs * if in_steps { s.hidden.div_ceil(2 * UNITS) } else { 1 };
    let usable: Vec<i64> = c.rows.iter().copied().filter(|nb| smem(&s, units, splits, *nb as usize, dtype) <= limit).collect();
    ensure!(
        !usable.is_empty() && s.hidden <= i32::MAX as usize / 64,
        Unsupported,
        "{} hidden units do not fit the shared memory of the device",
        s.hidden
    );
    let rows = best_rows(&usable, s.batch, per_row, dev);
    let at = c.rows.iter().position(|r| *r as usize == rows).unwrap_or(0);
    let launch = |kernel: usize, step: usize| DeviceOp::Launch(Launch {
        kernel,
        grid: [blocks(s.batch, rows), blocks(s.hidden, units), s.dirs as u32],
        block: [threads as u32, 1, 1],
        smem: smem(&s, units, splits, rows, dtype) as u32,
        args: args(op, p, &s, [units, splits, step], in_steps),
    });
    let mut ops = Vec::new();
    if in_steps {
        let first = c.rows.len() + at * op.phases();
        for step in 0..s.seq {
            ops.extend((0..op.phases()).map(|phase| launch(first + phase, step)));
        }
    } else {
        ops.push(launch(at, 0));
    }
    let workspace = if in_steps { 5 * s.dirs * s.batch * s.hidden * acc_size(dtype) } else { 0 };
    Ok(StepProgram { ops, workspace })
}

/// The arguments in the kernel's order.
fn args(op: &Recurrent, p: &Problem, s: &Sizes, [units, splits, step]: [usize; 3], has_work: bool) -> Vec<Arg> {
    let input = |i: usize| if p.input(i).is_some() { Arg::In(i) } else { Arg::Null };
    let ([x_t, x_b], [y_t, y_b, y_d], [s_b, s_d]) = (s.x_strides(), s.y_strides(), s.state_strides());
    let reverse = (0..s.dirs).map(|d| (op.is_reverse(d) as usize) << d).sum();
    let sizes = [s.seq, s.batch, s.hidden, s.dirs, x_t, x_b, y_t, y_b, y_d, s_b, s_d, reverse, units, splits, step];
    let per = op.kind.n_activations();
    let mut floats = [0f32; 13];
    for (i, (a, b)) in op.alpha.iter().zip(&op.beta).enumerate() {
        let at = i / per * 3 + i % per;
        (floats[at], floats[6 + at]) = (*a, *b);
    }
    floats[12] = op.clip.unwrap_or(0.0);
    vec![
        Arg::In(X),
        Arg::In(R),
        input(BIAS),
        input(LENGTHS),
        input(H0),
        input(C0),
        input(PEEPHOLES),
        Arg::Out(0),
        Arg::Out(1),
        if p.outputs.len() > 2 { Arg::Out(2) } else { Arg::Null },
        if has_work { Arg::Work(0) } else { Arg::Null },
        i64_struct(sizes.map(|v| v as i64)),
        Arg::Bytes(floats.iter().flat_map(|v| v.to_ne_bytes()).collect()),
    ]
}
