//! Greedy selection of boxes: of those that overlap too much the one with the highest score stays. Inputs: boxes
//! [batch, n, 4], scores [batch, classes, n], and optionally, one element each: the most boxes of a class (i64; 0 without),
//! the overlap (intersection over union) above which a box is dropped (0 without), the score that a box must exceed.
//!
//! The result lists (batch, class, box) as i64 [count, 3]: by batch and class, best score first; of equal scores the lower
//! index first. A box is two opposite corners y1, x1, y2, x2 in any order, or centre x, y, width, height. NaN scores are
//! never selected where a score is given and last without. The count depends on the data.

mod cuda;

use crate::base::tensor::Number;
use crate::base::{DType, Dim, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::device::cpu::{SharedMut, for_each_task};
use crate::network::ValueId;
use crate::ops::topk::order_key;
use crate::ops::{EvalCx, ImportCx, InferCx, OpDef, Problem, StepProgram, Tactic, TacticOptions, fresh_dim, onnx};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// Greedy selection of boxes. Inputs: boxes, scores, optional most boxes of a class, overlap and score.
    pub struct NonMaxSuppression {
        /// Boxes are centre, width and height.
        pub center: bool,
    }
}

op_home!(NonMaxSuppression, "NonMaxSuppression", &[onnx("NonMaxSuppression", 10, import)]);

/// The corners of a box: lower and upper of the first and of the second axis, in the order x, y.
fn corners(b: &[f32], center: bool) -> [f32; 4] {
    if center {
        let (w, h) = (b[2] / 2.0, b[3] / 2.0);
        [b[0] - w, b[0] + w, b[1] - h, b[1] + h]
    } else {
        [b[1].min(b[3]), b[1].max(b[3]), b[0].min(b[2]), b[0].max(b[2])]
    }
}

/// Whether two boxes overlap by more than `limit`. Boxes without an area overlap with nothing.
fn overlap(a: [f32; 4], b: [f32; 4], limit: f32) -> bool {
    let width = a[1].min(b[1]) - a[0].max(b[0]);
    let height = a[3].min(b[3]) - a[2].max(b[2]);
    if !(width > 0.0 && height > 0.0) {
        return false;
    }
    let common = width * height;
    let areas = [(a[1] - a[0]) * (a[3] - a[2]), (b[1] - b[0]) * (b[3] - b[2])];
    let union = areas[0] + areas[1] - common;
    common > 0.0 && areas[0] > 0.0 && areas[1] > 0.0 && union > 0.0 && common / union > limit
}

impl OpDef for NonMaxSuppression {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 5)?;
        let (boxes, scores) = (cx.input(0)?, cx.input(1)?);
        ensure!(
            boxes.dtype == DType::F32 && scores.dtype == DType::F32,
            Unsupported,
            "boxes and scores must be f32, got {} and {}",
            boxes.dtype,
            scores.dtype
        );
        cx.rank(0, 3)?;
        cx.rank(1, 3)?;
        let clash = |a: &Dim, b: &Dim| matches!((a.as_const(), b.as_const()), (Some(a), Some(b)) if a != b);
        ensure!(
            !clash(&boxes.shape[0], &scores.shape[0])
                && !clash(&boxes.shape[1], &scores.shape[2])
                && !clash(&boxes.shape[2], &Dim::from(4)),
            InvalidArgument,
            "boxes {boxes} do not fit scores {scores}"
        );
        for (i, want) in [(2, DType::I64), (3, DType::F32), (4, DType::F32)] {
            let Some(f) = cx.opt(i) else { continue };
            let one = f.shape.numel().as_const().is_none_or(|n| n == 1);
            ensure!(f.dtype == want && one, InvalidArgument, "input {i}: expected one {want}, got {f}");
        }
        Ok(vec![Fact::new(DType::I64, vec![fresh_dim("selected"), Dim::from(3)])])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (boxes, scores) = (cx.input(0)?, cx.input(1)?);
        let [batch, n, _] = *boxes.shape() else { return Err(crate::err!(InvalidArgument, "expected rank 3")) };
        let classes = scores.shape()[1];
        let most = cx.opt(2).map_or(0, |t| t.to_i64s()[0]).max(0) as usize;
        let limit = cx.opt(3).map_or(0.0, |t| t.to_f32s()[0]);
        let least = cx.opt(4).map(|t| t.to_f32s()[0]);
        let (boxes, scores) = (boxes.slice::<f32>(), scores.slice::<f32>());
        let corners: Vec<[f32; 4]> = boxes.chunks_exact(4).map(|b| corners(b, self.center)).collect();
        let select = |row: usize| {
            let (b, scores) = (row / classes, &scores[row * n..(row + 1) * n]);
            let corners = &corners[b * n..(b + 1) * n];
            let key = |j: &usize| order_key(Number::Float(scores[*j] as f64)).map_or((1, 0), |k| (0, !k));
            let mut order: Vec<usize> = (0..n).filter(|j| least.is_none_or(|s| scores[*j] > s)).collect();
            order.sort_by_key(key);
            let mut kept: Vec<usize> = Vec::new();
            for j in order {
                if kept.len() >= most {
                    break;
                }
                if !kept.iter().any(|k| overlap(corners[*k], corners[j], limit)) {
                    kept.push(j);
                }
            }
            kept
        };
        let mut rows: Vec<Vec<usize>> = vec![Vec::new(); batch * classes];
        let shared = SharedMut::new(&mut rows);
        // SAFETY: each task has a row of its own.
        for_each_task(batch * classes, |row| unsafe { shared.slice(row, 1)[0] = select(row) });
        let out: Vec<i64> = rows
            .iter()
            .enumerate()
            .flat_map(|(row, kept)| kept.iter().flat_map(move |j| [row / classes, row % classes, *j].map(|v| v as i64)))
            .collect();
        Ok(vec![Tensor::from_slice(&[out.len() / 3, 3], &out)])
    }

    fn is_data_dependent(&self) -> bool {
        true
    }

    fn count_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::count_program(tactic, p, dev)
    }

    fn counted_shapes(&self, _p: &Problem, counts: &[i64]) -> Result<Vec<Vec<usize>>> {
        Ok(vec![vec![counts.first().map_or(0, |n| *n as usize), 3]])
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(tactic, p, dev)
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let center = cx.flag("center_point_box", false)?;
    let mut inputs = vec![Some(cx.input(0)?), Some(cx.input(1)?), cx.opt(2), cx.opt(3), cx.opt(4)];
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    Ok(vec![cx.add_opt(NonMaxSuppression { center }, &inputs)?])
}
