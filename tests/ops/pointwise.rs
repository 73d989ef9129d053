//! Element-wise programs.

use sinter::base::DType;
use sinter::ops::pointwise::{Func, Program};

#[test]
fn a_program_survives_its_text_form() {
    let p = Program::single(Func::Clip, &[DType::F16; 3]).unwrap();
    assert_eq!(Program::parse(&p.to_string()).unwrap(), p);
}
