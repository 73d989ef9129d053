//! The same operator on another element type.
//!
//! Works on attributes, so it holds for every operator: a type, a tensor and a program are the only attributes that
//! name element types.

use crate::base::attrs::AttrValue;
use crate::base::{DType, Result};
use crate::ops::Op;
use crate::ops::pointwise::Program;
use std::sync::Arc;

/// The operator with `map` applied to every element type that it names.
pub fn retyped(op: &Op, map: &dyn Fn(DType) -> DType) -> Result<Op> {
    let mut attrs = op.attrs();
    for (name, value) in &mut attrs.0 {
        match value {
            AttrValue::DType(d) => *d = map(*d),
            AttrValue::Tensor(t) if map(t.dtype()) != t.dtype() => *t = Arc::new(t.cast(map(t.dtype()))),
            AttrValue::Str(s) if name == "program" || name == "epilogue" => {
                *s = retyped_program(&Program::parse(s)?, map).to_string();
            }
            _ => {}
        }
    }
    Op::from_attrs(op.id(), &attrs)
}

/// The program with `map` applied to every register's type.
pub fn retyped_program(p: &Program, map: &dyn Fn(DType) -> DType) -> Program {
    let mut p = p.clone();
    p.inputs.iter_mut().for_each(|d| *d = map(*d));
    p.instrs.iter_mut().for_each(|i| i.dtype = map(i.dtype));
    p
}
