//! The block interpreter: a program, compiled to instructions over blocks of up to a thousand elements.
//!
//! Registers live in *slots*, blocks of the register's *block type*: f32 for the half types, bytes 0 and 1 for bool, the
//! type itself otherwise. Slots are shared by registers that do not live at the same time, so that a block's working set
//! stays in the first-level cache. Operands that lie in memory in their block type are read where they are; the last
//! result is written where it belongs, unless that is where one of its operands comes from (in-place use).
//!
//! An operand that is one number for the whole block stays one number; what is computed from numbers alone is computed
//! once a block. Half registers are not rounded between instructions, except by a `cast`, which a model wrote on purpose.

use super::{f32 as blocks_f32, typed};
use crate::base::DType;
use crate::base::small::CastMode;
use crate::base::tensor::{Number, Scalar, cast_slice};
use crate::device::cpu::{Isa, vec};
use crate::ops::pointwise::eval::{kept, round_to};
use crate::ops::pointwise::{Func, Instr, Program, Reg};
use crate::{dispatch, dispatch_plain};
use half::{bf16, f16};

/// Most slots of one program; more makes it fall back to the reference.
const MAX_SLOTS: usize = 64;
const MAX_INPUTS: usize = 64;

/// Where an operand is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loc {
    Input(u16),
    Slot(u16),
    Const(u16),
}

#[derive(Clone, Copy, Debug)]
enum Action {
    /// Half precision in memory to f32.
    Widen(DType),
    /// f32 to the nearest number of a half type.
    RoundHalf(DType),
    /// Between block types; the flag makes the result a bool.
    Cast { from: DType, to: DType, to_bool: bool },
    /// To an f32 that is then rounded to a half type: rounded to odd, so that the half is rounded once.
    CastOdd(DType),
    /// From or to a small type.
    CastSmall { from: DType, to: DType, mode: CastMode },
    Select(DType),
    Call { func: Func, t: DType, bools: bool, test: bool },
}

#[derive(Clone, Debug)]
struct Code {
    action: Action,
    args: Vec<Loc>,
    dst: u16,
}

/// A number for the whole block, or one element for each of the block's.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub ptr: *const u8,
    pub single: bool,
}

#[derive(Clone, Debug)]
struct Output {
    loc: Loc,
    /// Type in memory.
    dtype: DType,
    /// Type of the block.
    block: DType,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    code: Vec<Code>,
    outputs: Vec<Output>,
    consts: Vec<[u8; 8]>,
    n_slots: usize,
    /// Bytes of the widest register.
    width: usize,
    /// The output that the last instruction may write itself.
    direct: Option<usize>,
    n_inputs: usize,
}

/// The type that a register has in a block.
fn block_type(d: DType) -> DType {
    match d {
        DType::F16 | DType::BF16 => DType::F32,
        DType::Bool => DType::U8,
        d => d,
    }
}

/// How a conversion between block types is done.
fn cast_action(arg_type: DType, ins: &Instr) -> Action {
    let (from, to) = (block_type(arg_type), block_type(ins.dtype));
    match ins.dtype {
        DType::Bool => Action::Cast { from, to, to_bool: true },
        _ if from.is_small() || to.is_small() => {
            let code = if ins.func == Func::CastMode { ins.value as u8 } else { 0 };
            Action::CastSmall { from, to, mode: CastMode::from_code(code).unwrap_or_default() }
        }
        d if is_half(d) && (from == DType::F64 || from.is_int() && from.size() >= 4) => Action::CastOdd(from),
        _ => Action::Cast { from, to, to_bool: false },
    }
}

fn is_half(d: DType) -> bool {
    matches!(d, DType::F16 | DType::BF16)
}

/// Gives slots to registers while walking the program.
#[derive(Default)]
struct Slots {
    free: Vec<u16>,
    n: u16,
    /// Slots in use with the last instruction that reads them.
    held: Vec<(u16, usize)>,
}

impl Slots {
    fn take(&mut self, until: usize) -> u16 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.n += 1;
            self.n - 1
        });
        self.held.push((slot, until));
        slot
    }

    /// A further register is in this slot.
    fn extend(&mut self, slot: u16, until: usize) {
        self.held.iter_mut().filter(|(s, _)| *s == slot).for_each(|(_, end)| *end = until.max(*end));
    }

    /// Frees what nobody reads after instruction `i`.
    fn release(&mut self, i: usize) {
        let free = &mut self.free;
        self.held.retain(|(s, end)| {
            if *end <= i {
                free.push(*s);
            }
            *end > i
        });
    }
}

impl Blocks {
    /// `None` when the program needs too many slots. `wide`: half inputs and outputs are f32 in memory.
    pub fn new(p: &Program, wide: bool) -> Option<Blocks> {
        if p.inputs.len() > MAX_INPUTS {
            return None;
        }
        let n_in = p.n_inputs();
        let memory_type = |d: DType| if wide && is_half(d) { DType::F32 } else { d };
        // Index of the instruction that reads a register last; outputs are read after all.
        let mut last_use = vec![0usize; n_in + p.instrs.len()];
        for (i, ins) in p.instrs.iter().enumerate() {
            ins.args.iter().for_each(|r| last_use[*r as usize] = i);
        }
        let is_read: Vec<bool> = (0..last_use.len())
            .map(|r| p.instrs.iter().any(|i| i.args.contains(&(r as Reg))))
            .collect();
        p.outputs.iter().for_each(|r| last_use[*r as usize] = usize::MAX);

        let mut b = Blocks {
            code: vec![],
            outputs: vec![],
            consts: vec![],
            n_slots: 0,
            width: p.inputs.iter().chain(p.instrs.iter().map(|i| &i.dtype)).map(|d| block_type(*d).size()).max()?,
            direct: None,
            n_inputs: n_in,
        };
        let mut slots = Slots::default();
        let mut locs: Vec<Loc> = (0..n_in as u16).map(Loc::Input).collect();
        for (i, ins) in p.instrs.iter().enumerate() {
            let reg = n_in + i;
            if ins.func == Func::Const {
                locs.push(Loc::Const(b.consts.len() as u16));
                b.consts.push(const_bytes(ins.value, ins.dtype));
                continue;
            }
            for r in ins.args.iter().map(|r| *r as usize) {
                if r < n_in && is_half(memory_type(p.inputs[r])) && locs[r] == Loc::Input(r as u16) {
                    let slot = slots.take(last_use[r]);
                    b.code.push(Code { action: Action::Widen(p.inputs[r]), args: vec![locs[r]], dst: slot });
                    locs[r] = Loc::Slot(slot);
                }
            }
            let args: Vec<Loc> = ins.args.iter().map(|r| locs[*r as usize]).collect();
            let arg_type = p.dtype(*ins.args.last()?);
            let (from, to) = (block_type(arg_type), block_type(ins.dtype));
            let until = last_use[reg].max(i);
            let same_block = from == to && (ins.dtype != DType::Bool || arg_type == DType::Bool);
            if ins.func == Func::Cast && same_block && !(is_half(ins.dtype) && is_read[reg]) {
                if let Loc::Slot(s) = args[0] {
                    slots.extend(s, until);
                }
                locs.push(args[0]);
            } else {
                let action = match ins.func {
                    Func::Cast if same_block => Action::RoundHalf(ins.dtype),
                    Func::Cast | Func::CastMode => cast_action(arg_type, ins),
                    Func::Select => Action::Select(to),
                    func => {
                        let test = ins.dtype == DType::Bool && arg_type != DType::Bool;
                        Action::Call { func, t: from, bools: arg_type == DType::Bool, test }
                    }
                };
                let mut dst = slots.take(until);
                b.code.push(Code { action, args, dst });
                if matches!(action, Action::Cast { .. } | Action::CastOdd(_) | Action::CastSmall { .. }) && is_half(ins.dtype) && is_read[reg] {
                    let exact = dst;
                    dst = slots.take(until);
                    b.code.push(Code { action: Action::RoundHalf(ins.dtype), args: vec![Loc::Slot(exact)], dst });
                }
                locs.push(Loc::Slot(dst));
            }
            slots.release(i);
        }
        for r in &p.outputs {
            let d = p.dtype(*r);
            // An input that is passed on is copied as it lies in memory.
            let (loc, block) = match (*r as usize) < n_in {
                true => (Loc::Input(*r), memory_type(d)),
                false => (locs[*r as usize], block_type(d)),
            };
            b.outputs.push(Output { loc, dtype: memory_type(d), block });
        }
        b.n_slots = slots.n as usize;
        b.direct = b.direct_output();
        (b.n_slots <= MAX_SLOTS).then_some(b)
    }

    /// The output that is the last instruction's result, of its block type, when no output is a plain input.
    fn direct_output(&self) -> Option<usize> {
        let last = Loc::Slot(self.code.last()?.dst);
        let mut at = self.outputs.iter().enumerate().filter(|(_, o)| o.loc == last);
        let (k, o) = at.next()?;
        let fits = o.dtype == o.block || o.dtype == DType::Bool;
        let inputs = self.outputs.iter().any(|o| matches!(o.loc, Loc::Input(_)));
        (at.next().is_none() && fits && !inputs).then_some(k)
    }

    /// Scratch bytes of a block of `n` elements, a multiple of 64.
    pub fn scratch_bytes(&self, n: usize) -> usize {
        self.n_slots * self.slot_bytes(n)
    }

    fn slot_bytes(&self, n: usize) -> usize {
        (n * self.width).next_multiple_of(64)
    }

    /// Scratch bytes per element.
    pub fn bytes_per_element(&self) -> usize {
        self.n_slots.max(1) * self.width
    }

    /// Computes `n` elements; `capacity >= n` is what the scratch was sized for.
    ///
    /// # Safety
    /// Inputs are valid for `n` elements (1 when single) of the program's types, outputs for `n`, `scratch` for
    /// `scratch_bytes(capacity)`, aligned to 8. An output may be the very memory of an input, element for element.
    pub unsafe fn run(&self, isa: Isa, n: usize, capacity: usize, inputs: &[Operand], scratch: *mut u8, outputs: &[*mut u8]) {
        debug_assert!(inputs.len() == self.n_inputs && outputs.len() == self.outputs.len() && n <= capacity);
        let stride = self.slot_bytes(capacity);
        let mut single = [false; MAX_SLOTS];
        let operand = |loc: Loc, single: &[bool; MAX_SLOTS]| match loc {
            Loc::Input(i) => inputs[i as usize],
            // SAFETY: the slot lies in the scratch memory.
            Loc::Slot(s) => Operand { ptr: unsafe { scratch.add(s as usize * stride) }, single: single[s as usize] },
            Loc::Const(c) => Operand { ptr: self.consts[c as usize].as_ptr(), single: true },
        };
        let mut written = None;
        for (i, c) in self.code.iter().enumerate() {
            let mut args = [Operand { ptr: std::ptr::null(), single: true }; 3];
            let mut all_single = true;
            for (a, loc) in args.iter_mut().zip(&c.args) {
                *a = operand(*loc, &single);
                all_single &= a.single;
            }
            let args = &args[..c.args.len()];
            // SAFETY: the slot lies in the scratch memory.
            let mut dst = unsafe { scratch.add(c.dst as usize * stride) };
            if i + 1 == self.code.len() && !all_single {
                if let Some(k) = self.direct.filter(|k| args.iter().all(|a| a.ptr != outputs[*k] as *const u8)) {
                    dst = outputs[k];
                    written = Some(k);
                }
            }
            single[c.dst as usize] = all_single;
            // SAFETY: the destination is no operand; both are valid by the caller's promise.
            unsafe { exec(isa, c.action, dst, if all_single { 1 } else { n }, args) };
        }
        for (k, o) in self.outputs.iter().enumerate() {
            if written != Some(k) {
                // SAFETY: as above.
                unsafe { store(operand(o.loc, &single), o.block, o.dtype, n, outputs[k]) };
            }
        }
    }
}

fn const_bytes(value: f64, dtype: DType) -> [u8; 8] {
    let v = round_to(Number::Float(value), dtype);
    let mut bytes = [0; 8];
    dispatch!(block_type(dtype), T => {
        let v = kept::<T>(v);
        // SAFETY: copies the bytes of a plain number of at most 8 bytes.
        unsafe { std::ptr::copy_nonoverlapping((&raw const v).cast::<u8>(), bytes.as_mut_ptr(), size_of::<T>()) };
    });
    bytes
}

/// # Safety
/// `o.ptr` is valid for `n` elements of `T`, or for one when single.
unsafe fn slice<'a, T>(o: Operand, n: usize) -> &'a [T] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(o.ptr.cast(), if o.single { 1 } else { n }) }
}

/// # Safety
/// `p` is valid for `n` elements of `T` that nothing else refers to.
unsafe fn slice_mut<'a, T>(p: *mut u8, n: usize) -> &'a mut [T] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(p.cast(), n) }
}

/// # Safety
/// Operands are valid for `n` elements (1 when single) of the action's types, `dst` for `n`; they do not overlap.
unsafe fn exec(isa: Isa, action: Action, dst: *mut u8, n: usize, args: &[Operand]) {
    // SAFETY: slices as the caller promises; constants and slots are aligned for 8 bytes.
    unsafe {
        match action {
            Action::Widen(DType::F16) => vec::f16_to_f32(slice::<f16>(args[0], n), slice_mut(dst, n)),
            Action::Widen(_) => vec::bf16_to_f32(slice::<bf16>(args[0], n), slice_mut(dst, n)),
            Action::RoundHalf(d) => {
                let (x, y) = (slice::<f32>(args[0], n), slice_mut::<f32>(dst, n));
                for (y, x) in y.iter_mut().zip(x) {
                    *y = if d == DType::F16 { f16::from_f32(*x).to_f32() } else { bf16::from_f32(*x).to_f32() };
                }
            }
            Action::Cast { from, to: _, to_bool: true } => dispatch!(from, S => {
                for (y, x) in slice_mut::<u8>(dst, n).iter_mut().zip(slice::<S>(args[0], n)) {
                    *y = crate::base::tensor::convert::<S, bool>(*x) as u8;
                }
            }),
            // The common pairs have loops of their own, which become vector code.
            Action::Cast { from: DType::U8, to: DType::F32, .. } => {
                typed::map(slice_mut::<f32>(dst, n), slice::<u8>(args[0], n), |x| x as f32)
            }
            Action::Cast { from: DType::I8, to: DType::F32, .. } => {
                typed::map(slice_mut::<f32>(dst, n), slice::<i8>(args[0], n), |x| x as f32)
            }
            Action::Cast { from: DType::I32, to: DType::F32, .. } => {
                typed::map(slice_mut::<f32>(dst, n), slice::<i32>(args[0], n), |x| x as f32)
            }
            Action::Cast { from: DType::F32, to: DType::U8, .. } => {
                typed::map(slice_mut::<u8>(dst, n), slice::<f32>(args[0], n), |x| x as u8)
            }
            Action::Cast { from: DType::F32, to: DType::I8, .. } => {
                typed::map(slice_mut::<i8>(dst, n), slice::<f32>(args[0], n), |x| x as i8)
            }
            Action::Cast { from: DType::F32, to: DType::I32, .. } => {
                typed::map(slice_mut::<i32>(dst, n), slice::<f32>(args[0], n), |x| x as i32)
            }
            Action::Cast { from, to, .. } => {
                dispatch_plain!(from, S => dispatch_plain!(to, D => {
                    typed::cast::<S, D>(slice_mut(dst, n), slice(args[0], n))
                }, else {}), else {})
            }
            Action::CastOdd(from) => dispatch_plain!(from, S => {
                for (y, x) in slice_mut::<f32>(dst, n).iter_mut().zip(slice::<S>(args[0], n)) {
                    *y = x.to_number().to_f32_odd();
                }
            }, else {}),
            Action::CastSmall { from, to, mode } => cast_slice(from, args[0].ptr, to, dst, if args[0].single { 1 } else { n }, mode),
            Action::Select(DType::F32) => {
                blocks_f32::select(isa, slice_mut(dst, n), slice(args[0], n), slice(args[1], n), slice(args[2], n))
            }
            Action::Select(t) => match t.size() {
                1 => typed::select::<u8>(slice_mut(dst, n), slice(args[0], n), slice(args[1], n), slice(args[2], n)),
                2 => typed::select::<u16>(slice_mut(dst, n), slice(args[0], n), slice(args[1], n), slice(args[2], n)),
                4 => typed::select::<u32>(slice_mut(dst, n), slice(args[0], n), slice(args[1], n), slice(args[2], n)),
                _ => typed::select::<u64>(slice_mut(dst, n), slice(args[0], n), slice(args[1], n), slice(args[2], n)),
            },
            Action::Call { func, t, bools, test } => call(isa, func, t, bools, test, dst, n, args),
        }
    }
}

/// # Safety
/// As for `exec`.
#[allow(clippy::too_many_arguments)]
unsafe fn call(isa: Isa, func: Func, t: DType, bools: bool, test: bool, dst: *mut u8, n: usize, args: &[Operand]) {
    let a = args[0];
    let b = args.get(1).copied().unwrap_or(a);
    let c = args.get(2).copied().unwrap_or(b);
    macro_rules! typed {
        ($t:ty) => {
            if test {
                // SAFETY: the caller's promise.
                unsafe { <$t as typed::Block>::test(func, slice_mut(dst, n), slice(a, n), slice(b, n), slice(c, n)) }
            } else {
                // SAFETY: the caller's promise.
                unsafe { <$t as typed::Block>::call(func, slice_mut(dst, n), slice(a, n), slice(b, n), slice(c, n)) }
            }
        };
    }
    match t {
        // SAFETY (this arm and the next): the caller's promise.
        DType::F32 => unsafe {
            match (test, args.len()) {
                (true, _) => blocks_f32::test(isa, func, slice_mut(dst, n), slice(a, n), slice(b, n), slice(c, n)),
                (_, 1) => blocks_f32::unary(isa, func, slice_mut(dst, n), slice(a, n)),
                (_, 2) => blocks_f32::binary(isa, func, slice_mut(dst, n), slice(a, n), slice(b, n)),
                _ => blocks_f32::ternary(isa, func, slice_mut(dst, n), slice(a, n), slice(b, n), slice(c, n)),
            }
        },
        DType::U8 if bools => unsafe { typed::logic(func, slice_mut(dst, n), slice(a, n), slice(b, n)) },
        DType::F64 => typed!(f64),
        DType::I8 => typed!(i8),
        DType::U8 => typed!(u8),
        DType::I16 => typed!(i16),
        DType::U16 => typed!(u16),
        DType::I32 => typed!(i32),
        DType::U32 => typed!(u32),
        DType::I64 => typed!(i64),
        DType::U64 => typed!(u64),
        _ => unreachable!("no block type, or one that no function takes"),
    }
}

/// Brings a result to its place, as its type in memory.
///
/// # Safety
/// `o` is valid for `n` elements (1 when single) of the block type, `dst` for `n` of `dtype`; they are the same memory
/// or do not overlap.
unsafe fn store(o: Operand, block: DType, dtype: DType, n: usize, dst: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        if block == DType::F32 && is_half(dtype) {
            if o.single {
                let v = o.ptr.cast::<f32>().read();
                let bits = if dtype == DType::F16 { f16::from_f32(v).to_bits() } else { bf16::from_f32(v).to_bits() };
                slice_mut::<u16>(dst, n).fill(bits);
            } else if dtype == DType::F16 {
                vec::f32_to_f16(slice(o, n), slice_mut(dst, n));
            } else {
                vec::f32_to_bf16(slice(o, n), slice_mut(dst, n));
            }
            return;
        }
        match (o.single, dtype.size()) {
            (true, 1) => slice_mut::<u8>(dst, n).fill(o.ptr.read()),
            (true, 2) => slice_mut::<u16>(dst, n).fill(o.ptr.cast::<u16>().read()),
            (true, 4) => slice_mut::<u32>(dst, n).fill(o.ptr.cast::<u32>().read()),
            (true, _) => slice_mut::<u64>(dst, n).fill(o.ptr.cast::<u64>().read()),
            (false, size) => std::ptr::copy(o.ptr, dst, n * size),
        }
    }
}
