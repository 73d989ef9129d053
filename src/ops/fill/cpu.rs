//! CPU step: the value over and over.

use super::Fill;
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::transpose::cpu::TASK_BYTES;
use crate::ops::{CpuArgs, CpuStep, Problem};

struct FillStep {
    element: Vec<u8>,
    bytes: usize,
}

impl CpuStep for FillStep {
    fn name(&self) -> String {
        "fill".into()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        if self.bytes == 0 {
            return;
        }
        let y = SharedMut(args.outputs[0], self.bytes);
        for_each_task(self.bytes.div_ceil(TASK_BYTES), |task| {
            let at = task * TASK_BYTES;
            // SAFETY: each task has bytes of its own, whole elements since sizes are powers of two.
            let part = unsafe { y.slice(at, TASK_BYTES.min(self.bytes - at)) };
            match self.element.as_slice() {
                [b] => part.fill(*b),
                element => part.chunks_exact_mut(element.len()).for_each(|c| c.copy_from_slice(element)),
            }
        });
    }
}

pub fn step(op: &Fill, p: &Problem) -> Option<Box<dyn CpuStep>> {
    Some(Box::new(FillStep { element: op.value.bytes().to_vec(), bytes: p.outputs[0].bytes() }))
}
