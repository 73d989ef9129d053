//! CUDA: `normalize.cu`. A warp holds a short row in registers, a block a longer one, and a block reads a very long row
//! three times.

use super::{BIAS, Normalize, SCALE, SKIP, SKIP_BIAS};
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, blocks};
use crate::{ensure, err};

/// One form of the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Form {
    /// Threads of a row: 32, or all of a block.
    lanes: usize,
    threads: usize,
    /// Elements that a thread holds; 0 reads the row again instead.
    hold: usize,
    vec: usize,
}

/// Elements that a thread holds at most.
const MAX_HOLD: usize = 32;
const WARP: Form = Form { lanes: 32, threads: 128, hold: 16, vec: 1 };
const LONG: Form = Form { lanes: 512, threads: 512, hold: 0, vec: 1 };

impl Form {
    /// The best guess for rows of this length.
    fn of(cols: usize, size: usize) -> Form {
        let widest = (16 / size).clamp(1, 8);
        let vec = (0..4).map(|k| widest >> k).find(|v| *v > 0 && cols % v == 0).unwrap_or(1);
        let hold = |lanes: usize| cols.max(1).div_ceil(lanes * vec) * vec;
        match () {
            _ if hold(32) <= MAX_HOLD => Form { lanes: 32, threads: 128, hold: hold(32), vec },
            _ if hold(256) <= MAX_HOLD => Form { lanes: 256, threads: 256, hold: hold(256), vec },
            _ => Form { vec, ..LONG },
        }
    }

    fn fits(&self, cols: usize) -> bool {
        cols % self.vec == 0 && (self.hold == 0 || cols <= self.lanes * self.hold)
    }

    fn is_sound(&self) -> bool {
        (self.lanes == 32 || self.lanes == self.threads)
            && (32..=1024).contains(&self.threads)
            && self.threads % 32 == 0
            && matches!(self.vec, 1 | 2 | 4 | 8)
    }
}

fn spec(op: &Normalize, p: &Problem, f: &Form) -> Option<KernelSpec> {
    let x = p.input(0)?.dtype;
    let param = p.input(SCALE).or(p.input(BIAS)).map_or(x, |d| d.dtype);
    Some(
        KernelSpec::new("normalize.cu")
            .define_type("T_X", x)
            .define_type("T_PARAM", param)
            .define_type("T_Y", p.outputs.first()?.dtype)
            .define("CENTERED", op.centered as i64)
            .define("LANES", f.lanes)
            .define("THREADS", f.threads)
            .define("HOLD", f.hold)
            .define("VEC", f.vec),
    )
}

fn tactic(op: &Normalize, p: &Problem, forms: &[Form]) -> Option<Tactic> {
    let x = p.input(0)?;
    let names: Vec<String> =
        forms.iter().map(|f| format!("{}x{}_hold{}_v{}", f.threads / f.lanes, f.lanes, f.hold, f.vec)).collect();
    Some(Tactic {
        name: format!("normalize/{}_{}", names.join("_"), x.dtype),
        source: TacticSource::Kernels,
        kernels: forms.iter().map(|f| spec(op, p, f)).collect::<Option<_>>()?,
        params: forms.iter().flat_map(|f| [f.lanes, f.threads, f.hold, f.vec].map(|v| v as i64)).collect(),
    })
}

pub(super) fn tactics(op: &Normalize, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
    let Some(x) = p.input(0) else { return vec![] };
    let Ok(g) = op.geometry(&x.dims) else { return vec![] };
    let best = Form::of(g.cols, x.dtype.size());
    let lists: Vec<Vec<Form>> = match opt.dynamic {
        // Rows of other lengths take the first form that fits them.
        true => vec![[best, WARP, LONG].into_iter().fold(vec![], |mut v, f| {
            if !v.contains(&f) {
                v.push(f);
            }
            v
        })],
        false if best.lanes == 32 && g.cols > 512 => vec![vec![best], vec![Form::of_block(g.cols, best.vec)]],
        false if best.hold > 0 && best.lanes > 32 => vec![vec![best], vec![Form { vec: best.vec, ..LONG }]],
        false => vec![vec![best]],
    };
    lists.iter().filter_map(|forms| tactic(op, p, forms)).collect()
}

impl Form {
    /// A block of 128 threads for a row that a warp would hold too.
    fn of_block(cols: usize, vec: usize) -> Form {
        Form { lanes: 128, threads: 128, hold: cols.max(1).div_ceil(128 * vec) * vec, vec }
    }
}

pub(super) fn program(op: &Normalize, tactic: &Tactic, p: &Problem, _dev: &DeviceProps) -> Result<StepProgram> {
    let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
    let g = op.geometry(&x.dims)?;
    if g.rows == 0 || (g.cols == 0 && !op.stats) {
        return Ok(StepProgram::default());
    }
    let forms: Vec<Form> = tactic
        .params
        .chunks_exact(4)
        .map(|k| Form { lanes: k[0] as usize, threads: k[1] as usize, hold: k[2] as usize, vec: k[3] as usize })
        .collect();
    ensure!(forms.iter().all(Form::is_sound), CorruptData, "tactic {} has parameters out of range", tactic.name);
    let at = forms.iter().position(|f| f.fits(g.cols));
    let at = at.ok_or_else(|| err!(InvalidState, "tactic {} does not fit {x}", tactic.name))?;
    let f = forms[at];
    let grid = g.rows.div_ceil(f.threads / f.lanes);
    ensure!(
        grid <= i32::MAX as usize && g.cols <= i32::MAX as usize,
        Unsupported,
        "normalization of {} rows of {} is more than one launch takes",
        g.rows,
        g.cols
    );
    let operand = |i: usize| if p.input(i).is_some() { Arg::In(i) } else { Arg::Null };
    let output = |there: bool, i: usize| if there { Arg::Out(i) } else { Arg::Null };
    Ok(StepProgram::one(Launch {
        kernel: at,
        grid: [blocks(grid, 1), 1, 1],
        block: [f.threads as u32, 1, 1],
        smem: 0,
        args: vec![
            Arg::In(0),
            operand(SCALE),
            operand(BIAS),
            operand(SKIP),
            operand(SKIP_BIAS),
            Arg::Out(0),
            output(op.stats, 1),
            output(op.stats, 2),
            output(op.sum, 1 + 2 * op.stats as usize),
            Arg::I64(g.rows as i64),
            Arg::I32(g.cols as i32),
            Arg::I32(g.run as i32),
            Arg::I64(g.period as i64),
            Arg::I64(g.step as i64),
            Arg::F32(op.epsilon),
        ],
    }))
}
