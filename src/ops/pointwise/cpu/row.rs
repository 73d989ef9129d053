//! Epilogues on the CPU: a program applied to rows of f32 results while they are in cache.

use super::block::{Blocks, Operand};
use crate::base::DType;
use crate::device::cpu::Isa;
use crate::ops::pointwise::Program;
use std::mem::MaybeUninit;

/// Bytes of scratch on the stack.
const SCRATCH: usize = 16 << 10;
const MAX_CHUNK: usize = 1024;

/// A further operand of an epilogue for one row.
#[derive(Clone, Copy, Debug)]
pub enum RowOperand<'a> {
    /// One number for each element of the row.
    Row(&'a [f32]),
    Scalar(f32),
}

/// A program whose inputs and only output are floating-point, compiled for rows of f32: input 0 and the output are the
/// row itself, inputs 1.. are [`RowOperand`]s. Operands and results of a half type are f32 here; who stores them rounds.
#[derive(Clone, Debug)]
pub struct RowProgram {
    blocks: Blocks,
    isa: Isa,
    chunk: usize,
    n_extras: usize,
}

#[repr(C, align(64))]
struct Scratch(MaybeUninit<[u8; SCRATCH]>);

impl RowProgram {
    /// `None` when the program is not of this kind (an f64 or integer operand) or too large; intermediate integers and
    /// bools are fine.
    pub fn new(program: &Program) -> Option<RowProgram> {
        let narrow = |d: DType| matches!(d, DType::F32 | DType::F16 | DType::BF16);
        let fits = program.outputs.len() == 1
            && !program.inputs.is_empty()
            && narrow(program.output_dtype(0))
            && program.inputs.iter().all(|d| narrow(*d));
        if !fits {
            return None;
        }
        let blocks = Blocks::new(program, true)?;
        let chunk = (SCRATCH / blocks.bytes_per_element()).min(MAX_CHUNK) & !15;
        let n_extras = program.n_inputs() - 1;
        (chunk > 0).then(|| RowProgram { blocks, isa: Isa::detect(), chunk, n_extras })
    }

    /// Replaces the row by the program's result. Allocates nothing; any thread. Panics when the operands are not as
    /// many as the program's further inputs, or a slice is not of the row's length.
    pub fn apply(&self, row: &mut [f32], extras: &[RowOperand<'_>]) {
        assert_eq!(extras.len(), self.n_extras, "epilogue operands");
        for e in extras {
            assert!(!matches!(e, RowOperand::Row(r) if r.len() != row.len()), "an epilogue operand has another length than the row");
        }
        let mut scratch = Scratch(MaybeUninit::uninit());
        let mut operands = [Operand { ptr: std::ptr::null(), single: true }; 64];
        let mut start = 0;
        for piece in row.chunks_mut(self.chunk) {
            let row_ptr = piece.as_mut_ptr().cast::<u8>();
            operands[0] = Operand { ptr: row_ptr, single: false };
            for (o, e) in operands[1..].iter_mut().zip(extras) {
                *o = match e {
                    RowOperand::Row(r) => Operand { ptr: r[start..].as_ptr().cast(), single: false },
                    RowOperand::Scalar(v) => Operand { ptr: (v as *const f32).cast(), single: true },
                };
            }
            // SAFETY: operands have the piece's length; the scratch holds `chunk` elements of each slot, since slots are
            // multiples of 64 bytes when the chunk is one of 16 elements; the output is input 0's memory.
            unsafe {
                let scratch = scratch.0.as_mut_ptr().cast::<u8>();
                self.blocks.run(self.isa, piece.len(), self.chunk, &operands[..1 + extras.len()], scratch, &[row_ptr]);
            }
            start += piece.len();
        }
    }
}
