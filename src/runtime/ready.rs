//! Steps made ready at concrete shapes: of a whole plan, or of a stage.

use super::exec::StepExec;
use crate::base::Result;
use crate::base::error::ResultExt;
use crate::device::{Buffer, DeviceRef};
use crate::engine::Engine;
use crate::internal;
use crate::ops::Problem;
use crate::plan::shapes::Prepared;
use crate::plan::{Plan, ShapePlan, StepKind};

/// A shape plan with its steps, ready to run.
pub(super) struct Ready {
    pub shape: ShapePlan,
    /// One for each of `shape.steps`.
    pub exec: Vec<StepExec>,
    /// Host values that device steps read.
    pub uploads: Option<Buffer>,
}

impl Ready {
    /// `specialize` makes the shape plan; it calls back for each device step and is told its scratch bytes.
    pub fn new(
        engine: &Engine,
        plan: &Plan,
        specialize: impl FnOnce(&mut dyn FnMut(usize, &Problem) -> Result<Prepared>) -> Result<ShapePlan>,
    ) -> Result<Ready> {
        let mut exec = Vec::new();
        let shape = specialize(&mut |s, problem| {
            let step = &plan.steps[s];
            let StepKind::Device(tactic) = &step.kind else { return Err(internal!("step {s} runs on no device")) };
            let node = plan.graph.node(step.node);
            let packs = engine.pack_cache(plan, step.node);
            let e = StepExec::new(&engine.device, node, tactic.as_ref(), problem, &engine.kernels, &packs)
                .with_context(|| format!("{} {:?}", node.op.name(), node.name))?;
            let on_gpu = matches!(engine.device, DeviceRef::Cuda(_));
            let fill = on_gpu.then(|| e.fill(engine.device.props())).flatten();
            let prepared = Prepared { work_bytes: e.workspace(), fill };
            exec.push(e);
            Ok(prepared)
        })?;
        let uploads = match shape.upload_bytes {
            0 => None,
            n => {
                let b = Buffer::new(&engine.device, n)?;
                // SAFETY: offsets and sizes are those that the block was sized for.
                unsafe { engine.device.upload(shape.uploads.iter().map(|(at, t)| (b.ptr() + *at as u64, t.bytes())))? };
                Some(b)
            }
        };
        Ok(Ready { shape, exec, uploads })
    }
}
