//! Epilogues on the CPU: the program runs over each finished run of the f32 result while it is in cache.
//!
//! A run is a contiguous piece of the output. It is cut where an operand stops being contiguous or repeated: the output's
//! dimensions are joined as far as every operand goes along, and inside the innermost joined dimension each operand
//! has stride 1 or 0. A program that rows cannot run (other types than f32 at its ends) is a step of its own after the
//! core, which then writes its result into scratch memory.

use crate::base::{DType, Result};
use crate::ops::pointwise::{Pointwise, Program, RowOperand, RowProgram};
use crate::ops::{CpuArgs, CpuStep, OpDef, PackCache, Problem, TensorDesc};

/// Operands that a program can have at most.
const MAX_OPERANDS: usize = 63;

enum Kind {
    None,
    Rows(RowProgram),
    /// The program as a step over the whole result.
    Staged(Box<dyn CpuStep>),
}

/// The epilogue of one node at concrete shapes; also says where the core writes its f32 result.
pub struct CpuEpilogue {
    kind: Kind,
    label: String,
    n_operands: usize,
    /// Joined output dimensions, outermost first; at least one.
    dims: Vec<usize>,
    /// For each operand the elements between neighbours of each joined dimension; 0 repeats.
    strides: Vec<Vec<usize>>,
    numel: usize,
    first: usize,
}

impl CpuEpilogue {
    /// For a node with an f32 result whose epilogue operands start at input `first`; `None` when nothing here can run
    /// the program.
    pub fn new(
        epilogue: Option<&Program>,
        p: &Problem,
        first: usize,
        pack: &dyn PackCache,
    ) -> Result<Option<CpuEpilogue>> {
        let Some(out) = p.outputs.first() else { return Ok(None) };
        let mut e = CpuEpilogue {
            kind: Kind::None,
            label: String::new(),
            n_operands: 0,
            dims: vec![out.numel()],
            strides: Vec::new(),
            numel: out.numel(),
            first,
        };
        let Some(program) = epilogue else { return Ok((out.dtype == DType::F32).then_some(e)) };
        e.label = format!("_{}", program.label());
        e.n_operands = program.n_inputs().saturating_sub(1);
        let mut operands = Vec::new();
        for i in 0..e.n_operands {
            let Some(d) = p.input(first + i) else { return Ok(None) };
            operands.push(d);
        }
        let all_f32 = out.dtype == DType::F32 && operands.iter().all(|d| d.dtype == DType::F32);
        if let (true, Some(rows)) = (all_f32 && e.n_operands <= MAX_OPERANDS, RowProgram::new(program)) {
            let shapes: Vec<&[usize]> = operands.iter().map(|d| d.dims.as_slice()).collect();
            (e.dims, e.strides) = join(&out.dims, &shapes);
            e.kind = Kind::Rows(rows);
            return Ok(Some(e));
        }
        let result = TensorDesc { dtype: DType::F32, dims: out.dims.clone() };
        let mut known = vec![None];
        known.extend((0..e.n_operands).map(|i| p.known(first + i).cloned()));
        let staged = Problem {
            inputs: std::iter::once(Some(result)).chain(operands.into_iter().cloned().map(Some)).collect(),
            outputs: vec![out.clone()],
            known,
        };
        let step = Pointwise { program: program.clone() }.cpu(&staged, pack)?;
        Ok(step.filter(|_| e.n_operands <= MAX_OPERANDS).map(|step| CpuEpilogue { kind: Kind::Staged(step), ..e }))
    }

    /// The core has runs to hand to [`BoundEpilogue::apply`].
    pub fn has_rows(&self) -> bool {
        matches!(self.kind, Kind::Rows(_))
    }

    /// `_add+relu`, or nothing.
    pub fn suffix(&self) -> &str {
        &self.label
    }

    /// Bytes of the staged result, a multiple of 64.
    fn staged_bytes(&self) -> usize {
        (self.numel * size_of::<f32>()).next_multiple_of(64)
    }

    /// Scratch bytes of the epilogue, which stand at the begin of the step's workspace.
    pub fn workspace(&self) -> usize {
        match &self.kind {
            Kind::Staged(step) => self.staged_bytes() + step.workspace(),
            _ => 0,
        }
    }

    /// Where the core writes its result: the output itself, or scratch memory before a staged program.
    ///
    /// # Safety
    /// The arguments are those of a step that was made with this epilogue, and nothing else refers to that memory.
    pub unsafe fn result<'a>(&self, args: &CpuArgs<'a>) -> &'a mut [f32] {
        if self.numel == 0 {
            return &mut [];
        }
        let address = if matches!(self.kind, Kind::Staged(_)) { args.work } else { args.outputs[0] };
        // SAFETY: the caller's promise; both hold `numel` floats.
        unsafe { std::slice::from_raw_parts_mut(address.cast(), self.numel) }
    }

    /// Takes the addresses of the operands.
    ///
    /// # Safety
    /// The arguments are those of a step that was made with this epilogue, and stay valid while the result is used.
    pub unsafe fn bind<'a>(&'a self, args: &CpuArgs<'a>) -> BoundEpilogue<'a> {
        BoundEpilogue { epilogue: self, operands: args.inputs.get(self.first..).unwrap_or(&[]) }
    }

    /// Runs a staged program, after the core; nothing in the other cases.
    ///
    /// # Safety
    /// The arguments are those of a step that was made with this epilogue.
    pub unsafe fn finish(&self, args: &CpuArgs<'_>) {
        let Kind::Staged(step) = &self.kind else { return };
        if self.numel == 0 {
            return;
        }
        let mut inputs = [std::ptr::null(); MAX_OPERANDS + 1];
        inputs[0] = args.work as *const u8;
        for (to, from) in inputs[1..].iter_mut().zip(args.inputs.get(self.first..).unwrap_or(&[])) {
            *to = *from;
        }
        let inputs = &inputs[..1 + self.n_operands];
        // SAFETY: the result and the inner step's scratch follow each other in the workspace; the rest is the caller's.
        unsafe {
            let work = args.work.add(self.staged_bytes());
            step.run(&CpuArgs { inputs, outputs: &args.outputs[..1], work });
        }
    }
}

/// An epilogue with the addresses of one run of its step.
#[derive(Clone, Copy)]
pub struct BoundEpilogue<'a> {
    epilogue: &'a CpuEpilogue,
    operands: &'a [*const u8],
}

// SAFETY: the operands are only read.
unsafe impl Sync for BoundEpilogue<'_> {}
// SAFETY: as above.
unsafe impl Send for BoundEpilogue<'_> {}

impl BoundEpilogue<'_> {
    /// Finishes the values that stand at `offset ..` of the flat output. Each element is finished once. Allocates
    /// nothing; any thread.
    pub fn apply(&self, offset: usize, values: &mut [f32]) {
        let e = self.epilogue;
        let Kind::Rows(rows) = &e.kind else { return };
        if e.n_operands == 0 {
            return rows.apply(values, &[]);
        }
        let inner = e.dims[e.dims.len() - 1];
        let mut done = 0;
        while done < values.len() {
            let at = offset + done;
            let n = (inner - at % inner).min(values.len() - done);
            let mut operands = [RowOperand::Scalar(0.0); MAX_OPERANDS];
            for (i, operand) in operands[..e.n_operands].iter_mut().enumerate() {
                let (element, is_row) = e.element(i, at);
                // SAFETY: the operand has an element for each output element along its own dimensions, and `n` more
                // elements lie in the same innermost joined dimension.
                unsafe {
                    let p = self.operands[i].cast::<f32>().add(element);
                    *operand =
                        if is_row { RowOperand::Row(std::slice::from_raw_parts(p, n)) } else { RowOperand::Scalar(*p) };
                }
            }
            rows.apply(&mut values[done..done + n], &operands[..e.n_operands]);
            done += n;
        }
    }
}

impl CpuEpilogue {
    /// The element of operand `i` for the flat output position, and whether neighbours read neighbours.
    fn element(&self, i: usize, mut at: usize) -> (usize, bool) {
        let strides = &self.strides[i];
        let mut element = 0;
        for (d, s) in self.dims.iter().zip(strides).rev() {
            element += at % d * s;
            at /= d;
        }
        (element, strides[strides.len() - 1] != 0)
    }
}

/// Joins neighbouring output dimensions along which every operand is contiguous, or every operand that is not is
/// repeated in both. Gives the joined dimensions and each operand's strides, in elements.
fn join(out: &[usize], shapes: &[&[usize]]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut dims: Vec<usize> = vec![1];
    let mut strides: Vec<Vec<usize>> = vec![vec![0]; shapes.len()];
    let mut next = vec![1; shapes.len()];
    // From the innermost dimension outward; `dims` and `strides` are reversed until the end.
    for d in (0..out.len()).rev() {
        if out[d] == 1 {
            continue;
        }
        let here: Vec<usize> = shapes
            .iter()
            .zip(&mut next)
            .map(|(s, next)| {
                let size = (d + s.len()).checked_sub(out.len()).map_or(1, |i| s[i]);
                let stride = if size == 1 { 0 } else { *next };
                *next *= size;
                stride
            })
            .collect();
        let top = dims.len() - 1;
        let joins = dims[top] == 1 || here.iter().zip(&strides).all(|(h, s)| *h == s[top] * dims[top]);
        if joins && dims[top] > 1 {
            dims[top] *= out[d];
        } else if joins {
            dims[top] = out[d];
            strides.iter_mut().zip(&here).for_each(|(s, h)| s[top] = *h);
        } else {
            dims.push(out[d]);
            strides.iter_mut().zip(&here).for_each(|(s, h)| s.push(*h));
        }
    }
    dims.reverse();
    strides.iter_mut().for_each(|s| s.reverse());
    (dims, strides)
}
