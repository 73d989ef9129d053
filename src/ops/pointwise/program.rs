//! A small straight-line program over scalars: what a `Pointwise` node computes for each element, and what a `Conv` or
//! `MatMul` node applies to each result (its epilogue).
//!
//! Registers are numbered: first the inputs, then one per instruction. An instruction reads earlier registers only.
//! Each register has an element type; an instruction's arguments are of one type, but for `Select`'s condition (bool)
//! and the casts. Intermediate f16 and bf16 registers may be kept in f32 by a device.
//!
//! The text form is what attributes store: `f32,f32;add(0,1):f32;relu(2):f32;>3`.

use super::func::Func;
use crate::base::attrs::{AttrField, AttrValue};
use crate::base::small::CastMode;
use crate::base::{DType, Result};
use crate::{ensure, err};
use std::fmt;

/// Index of a register.
pub type Reg = u16;

/// One instruction; its result is the next register.
#[derive(Clone, Debug, PartialEq)]
pub struct Instr {
    pub func: Func,
    pub args: Vec<Reg>,
    /// Element type of the result.
    pub dtype: DType,
    /// The constant, for [`Func::Const`]; integers are exact up to 2^53. The mode's code for [`Func::CastMode`].
    pub value: f64,
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub inputs: Vec<DType>,
    pub instrs: Vec<Instr>,
    pub outputs: Vec<Reg>,
}

/// More instructions than this in one program are refused; fusion stops before.
pub const MAX_INSTRS: usize = 256;

impl Program {
    /// Returns its only input.
    pub fn identity(dtype: DType) -> Program {
        Program { inputs: vec![dtype], instrs: vec![], outputs: vec![0] }
    }

    /// One function of as many inputs as it has arguments.
    pub fn single(func: Func, inputs: &[DType]) -> Result<Program> {
        let mut p = Program { inputs: inputs.to_vec(), instrs: vec![], outputs: vec![] };
        let args: Vec<Reg> = (0..inputs.len() as Reg).collect();
        let r = p.push(func, &args)?;
        p.outputs = vec![r];
        Ok(p)
    }

    pub fn n_inputs(&self) -> usize {
        self.inputs.len()
    }

    pub fn dtype(&self, r: Reg) -> DType {
        let r = r as usize;
        if r < self.inputs.len() { self.inputs[r] } else { self.instrs[r - self.inputs.len()].dtype }
    }

    pub fn output_dtype(&self, i: usize) -> DType {
        self.dtype(self.outputs[i])
    }

    fn n_regs(&self) -> usize {
        self.inputs.len() + self.instrs.len()
    }

    /// Appends an instruction whose result type follows from its arguments.
    pub fn push(&mut self, func: Func, args: &[Reg]) -> Result<Reg> {
        let types: Vec<DType> = args.iter().map(|r| self.dtype(*r)).collect();
        let dtype = func.result(&types)?;
        self.push_typed(func, args, dtype, 0.0)
    }

    /// Appends a constant.
    pub fn push_const(&mut self, value: f64, dtype: DType) -> Result<Reg> {
        self.push_typed(Func::Const, &[], dtype, value)
    }

    /// Appends a conversion; nothing when the type is right already.
    pub fn push_cast(&mut self, r: Reg, to: DType) -> Result<Reg> {
        if self.dtype(r) == to { Ok(r) } else { self.push_typed(Func::Cast, &[r], to, 0.0) }
    }

    /// As [`Program::push_cast`], in a mode as far as the type looks at it.
    pub fn push_cast_mode(&mut self, r: Reg, to: DType, mode: CastMode) -> Result<Reg> {
        match mode.for_type(to).code() {
            0 => self.push_cast(r, to),
            _ if self.dtype(r) == to => Ok(r),
            code => self.push_typed(Func::CastMode, &[r], to, code as f64),
        }
    }

    fn push_typed(&mut self, func: Func, args: &[Reg], dtype: DType, value: f64) -> Result<Reg> {
        ensure!(self.instrs.len() < MAX_INSTRS, Unsupported, "a program has at most {MAX_INSTRS} instructions");
        let r = self.n_regs() as Reg;
        self.instrs.push(Instr { func, args: args.to_vec(), dtype, value });
        Ok(r)
    }

    /// Checks register numbers, types and sizes; programs read from bytes pass through here.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.inputs.is_empty() || !self.instrs.is_empty(), Parse, "a program computes nothing");
        ensure!(self.instrs.len() <= MAX_INSTRS && self.inputs.len() <= 64, Parse, "a program is too long");
        ensure!((1..=16).contains(&self.outputs.len()), Parse, "a program has {} outputs", self.outputs.len());
        for (i, ins) in self.instrs.iter().enumerate() {
            let at = self.inputs.len() + i;
            ensure!(ins.args.iter().all(|r| (*r as usize) < at), Parse, "instruction {i} reads a later register");
            let types: Vec<DType> = ins.args.iter().map(|r| self.dtype(*r)).collect();
            match ins.func {
                Func::Const => ensure!(types.is_empty(), Parse, "instruction {i}: a constant has no arguments"),
                Func::Cast => ensure!(types.len() == 1, Parse, "instruction {i}: cast has one argument"),
                Func::CastMode => {
                    let mode = CastMode::from_code(ins.value as u8);
                    ensure!(types.len() == 1 && mode.is_some(), Parse, "instruction {i}: cast_mode has an argument and a mode");
                }
                f => {
                    let t = f.result(&types)?;
                    ensure!(t == ins.dtype, Parse, "instruction {i}: {} gives {t}, not {}", f.name(), ins.dtype);
                }
            }
        }
        ensure!(self.outputs.iter().all(|r| (*r as usize) < self.n_regs()), Parse, "an output is no register");
        Ok(())
    }

    /// Inlines `inner`, whose output `out` feeds `self`'s input `at`. The inputs of the result are `inner`'s, then the
    /// others of `self` in order. Fails when the result is too long or the types differ.
    pub fn inline(&self, at: usize, inner: &Program, out: usize) -> Result<Program> {
        ensure!(inner.output_dtype(out) == self.inputs[at], Internal, "inlined programs disagree on a type");
        let mut p = Program { inputs: inner.inputs.clone(), instrs: vec![], outputs: vec![] };
        let rest: Vec<DType> = self.inputs.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, d)| *d).collect();
        p.inputs.extend(rest);
        let shift = (self.n_inputs() - 1) as Reg;
        let n_in = inner.n_inputs() as Reg;
        let map_inner = |r: Reg| if r < n_in { r } else { r + shift };
        for ins in &inner.instrs {
            let args: Vec<Reg> = ins.args.iter().map(|r| map_inner(*r)).collect();
            p.push_typed(ins.func, &args, ins.dtype, ins.value)?;
        }
        let joint = map_inner(inner.outputs[out]);
        let base = p.n_regs() as Reg;
        let map_outer = |r: Reg| {
            let r = r as usize;
            match r {
                _ if r >= self.n_inputs() => base + (r - self.n_inputs()) as Reg,
                _ if r == at => joint,
                _ => n_in + (r - (r > at) as usize) as Reg,
            }
        };
        for ins in &self.instrs {
            let args: Vec<Reg> = ins.args.iter().map(|r| map_outer(*r)).collect();
            p.push_typed(ins.func, &args, ins.dtype, ins.value)?;
        }
        p.outputs = self.outputs.iter().map(|r| map_outer(*r)).collect();
        Ok(p)
    }

    /// Reads input `i` as `dtype` and converts it to the type that it had.
    pub fn convert_input(&self, i: usize, dtype: DType) -> Result<Program> {
        let n_in = self.n_inputs() as Reg;
        let map = |r: Reg| match r {
            _ if r as usize == i => n_in,
            _ if r >= n_in => r + 1,
            _ => r,
        };
        let mut p = Program { inputs: self.inputs.clone(), instrs: vec![], outputs: vec![] };
        p.inputs[i] = dtype;
        p.push_typed(Func::Cast, &[i as Reg], self.inputs[i], 0.0)?;
        for ins in &self.instrs {
            let args: Vec<Reg> = ins.args.iter().map(|r| map(*r)).collect();
            p.push_typed(ins.func, &args, ins.dtype, ins.value)?;
        }
        p.outputs = self.outputs.iter().map(|r| map(*r)).collect();
        Ok(p)
    }

    /// Makes inputs `a` and `b` (a < b) one: readers of `b` read `a`, and `b` is dropped.
    pub fn merge_inputs(&self, a: usize, b: usize) -> Program {
        let map = |r: Reg| match (r as usize).cmp(&b) {
            std::cmp::Ordering::Less => r,
            std::cmp::Ordering::Equal => a as Reg,
            std::cmp::Ordering::Greater => r - 1,
        };
        let mut p = self.clone();
        p.inputs.remove(b);
        for ins in &mut p.instrs {
            ins.args.iter_mut().for_each(|r| *r = map(*r));
        }
        p.outputs.iter_mut().for_each(|r| *r = map(*r));
        p
    }

    /// Replaces input `i` by a constant of its type; the input is dropped.
    pub fn bind_const(&self, i: usize, value: f64) -> Result<Program> {
        let mut inner = Program { inputs: vec![], instrs: vec![], outputs: vec![0] };
        inner.push_const(value, self.inputs[i])?;
        self.inline(i, &inner, 0)
    }

    /// The only function, when the program is one call on its inputs in order.
    pub fn as_single(&self) -> Option<Func> {
        match self.instrs.as_slice() {
            [ins] if ins.args.iter().copied().eq(0..self.inputs.len() as Reg) && self.outputs == [self.inputs.len() as Reg] => {
                Some(ins.func)
            }
            _ => None,
        }
    }

    /// True when output 0 is input 0 unchanged.
    pub fn is_identity(&self) -> bool {
        self.inputs.len() == 1 && self.outputs == [0]
    }

    /// Names of the functions, for profiles: `mul+add+relu`.
    pub fn label(&self) -> String {
        let names: Vec<&str> =
            self.instrs.iter().filter(|i| i.func != Func::Const).map(|i| i.func.name()).collect();
        if names.is_empty() { "copy".into() } else { names.join("+") }
    }

    pub fn parse(text: &str) -> Result<Program> {
        let bad = |what: &str| err!(Parse, "program {text:?}: {what}");
        let mut parts: Vec<&str> = text.split(';').collect();
        let outs = parts.pop().and_then(|o| o.strip_prefix('>')).ok_or_else(|| bad("no outputs"))?;
        let ins = parts.first().copied().ok_or_else(|| bad("no inputs"))?;
        let mut p = Program { inputs: vec![], instrs: vec![], outputs: vec![] };
        for d in ins.split(',').filter(|d| !d.is_empty()) {
            p.inputs.push(DType::from_name(d).ok_or_else(|| bad("unknown element type"))?);
        }
        for part in &parts[1..] {
            let (call, dtype) = part.rsplit_once(':').ok_or_else(|| bad("an instruction has no type"))?;
            let dtype = DType::from_name(dtype).ok_or_else(|| bad("unknown element type"))?;
            let (name, args) = call.split_once('(').ok_or_else(|| bad("an instruction has no arguments"))?;
            let args = args.strip_suffix(')').ok_or_else(|| bad("an instruction has no closing bracket"))?;
            let func = Func::from_name(name).ok_or_else(|| bad(&format!("unknown function {name}")))?;
            let (regs, value) = if func == Func::Const {
                let bits = u64::from_str_radix(args, 16).map_err(|_| bad("a constant is not hexadecimal"))?;
                (vec![], f64::from_bits(bits))
            } else {
                let regs: std::result::Result<Vec<Reg>, _> = args.split(',').map(|a| a.parse()).collect();
                let mut regs = regs.map_err(|_| bad("an argument is not a register"))?;
                let mode = if func == Func::CastMode { regs.pop().unwrap_or(0).min(255) } else { 0 };
                (regs, mode as f64)
            };
            p.push_typed(func, &regs, dtype, value)?;
        }
        let outs: std::result::Result<Vec<Reg>, _> = outs.split(',').map(|a| a.parse()).collect();
        p.outputs = outs.map_err(|_| bad("an output is not a register"))?;
        p.check()?;
        Ok(p)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |v: Vec<String>| v.join(",");
        f.write_str(&join(self.inputs.iter().map(|d| d.to_string()).collect()))?;
        for ins in &self.instrs {
            let args = match ins.func {
                Func::Const => format!("{:x}", ins.value.to_bits()),
                Func::CastMode => format!("{},{}", ins.args[0], ins.value),
                _ => join(ins.args.iter().map(|r| r.to_string()).collect()),
            };
            write!(f, ";{}({args}):{}", ins.func.name(), ins.dtype)?;
        }
        write!(f, ";>{}", join(self.outputs.iter().map(|r| r.to_string()).collect()))
    }
}

impl AttrField for Program {
    fn to_attr(&self) -> Option<AttrValue> {
        Some(AttrValue::Str(self.to_string()))
    }
    fn from_attr(v: Option<&AttrValue>) -> Option<Self> {
        match v {
            Some(AttrValue::Str(s)) => Program::parse(s).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DType::F32;

    #[test]
    fn text_round_trips() {
        let mut p = Program::single(Func::Add, &[F32, F32]).unwrap();
        let c = p.push_const(0.1, F32).unwrap();
        let m = p.push(Func::Mul, &[2, c]).unwrap();
        p.outputs = vec![m];
        assert_eq!(Program::parse(&p.to_string()).unwrap(), p);
        let m = "f32;cast_mode(0,1):f8e5m2;>1";
        assert_eq!(Program::parse(m).unwrap().to_string(), m);
        assert!(Program::parse("f32;cast_mode(0,9):f8e5m2;>1").is_err());
        assert!(Program::parse("f32;add(0,5):f32;>1").is_err());
        assert!(Program::parse("f32;relu(0):i32;>1").is_err());
    }

    #[test]
    fn inline_puts_inner_inputs_first() {
        let outer = Program::single(Func::Sub, &[F32, F32]).unwrap();
        let inner = Program::single(Func::Mul, &[F32, F32]).unwrap();
        // outer(z, inner(x, y)) has inputs x, y, z.
        let p = outer.inline(1, &inner, 0).unwrap();
        assert_eq!(p.to_string(), "f32,f32,f32;mul(0,1):f32;sub(2,3):f32;>4");
        assert_eq!(p.merge_inputs(0, 2).to_string(), "f32,f32;mul(0,1):f32;sub(0,2):f32;>3");
        assert_eq!(p.bind_const(2, 1.0).unwrap().n_inputs(), 2);
        let read = p.convert_input(2, DType::F16).unwrap();
        assert_eq!(read.to_string(), "f32,f32,f16;cast(2):f32;mul(0,1):f32;sub(3,4):f32;>5");
    }
}
