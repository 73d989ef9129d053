//! The CPU step against the reference, and epilogues of rows.

use super::{Random, eval};
use sinter::base::small::CastMode;
use sinter::base::{DType, Tensor};
use sinter::ops::pointwise::{Func, Pointwise, Program, RowOperand, RowProgram};
use sinter::ops::{CpuArgs, OpDef, PackCache, Packed, Problem, TensorDesc};

struct NoPack;
impl PackCache for NoPack {
    fn get_or_pack(&self, _slot: &str, make: &mut dyn FnMut() -> Packed) -> Packed {
        make()
    }
}

fn desc(t: &Tensor) -> TensorDesc {
    TensorDesc { dtype: t.dtype(), dims: t.shape().to_vec() }
}

/// Runs the step, with output 0 over input `over` when given.
fn run(program: &Program, inputs: &[&Tensor], shape: &[usize], over: Option<usize>) -> Vec<Tensor> {
    let mut outputs: Vec<Tensor> =
        (0..program.outputs.len()).map(|i| Tensor::zeros(program.output_dtype(i), shape)).collect();
    let problem = Problem {
        inputs: inputs.iter().map(|t| Some(desc(t))).collect(),
        outputs: outputs.iter().map(desc).collect(),
        known: vec![None; inputs.len()],
    };
    let op = Pointwise { program: program.clone() };
    let step = op.cpu(&problem, &NoPack).unwrap().expect("the program has a CPU step");
    if let Some(i) = over {
        assert!(op.in_place(i));
        outputs[0].bytes_mut().copy_from_slice(inputs[i].bytes());
    }
    let mut work = Tensor::zeros(DType::U8, &[step.workspace()]);
    let mut ins: Vec<*const u8> = inputs.iter().map(|t| t.bytes().as_ptr()).collect();
    let outs: Vec<*mut u8> = outputs.iter_mut().map(|t| t.bytes_mut().as_mut_ptr()).collect();
    if let Some(i) = over {
        ins[i] = outs[0];
    }
    // SAFETY: the addresses belong to tensors of the problem's shapes.
    unsafe { step.run(&CpuArgs { inputs: &ins, outputs: &outs, work: work.bytes_mut().as_mut_ptr() }) };
    outputs
}

/// Class `program`: 2e-5 relative to the larger of the value and 1 for f32 (a few roundings and functions within 2.5 ulp,
/// magnified by the program), one or two units of the half types, exact for the others.
fn assert_same(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!((got.dtype(), got.shape()), (want.dtype(), want.shape()), "{what}");
    let rel = match got.dtype() {
        DType::F32 => 2e-5,
        DType::F64 => 1e-12,
        DType::F16 => 3e-3,
        DType::BF16 => 2e-2,
        _ => return assert!(got.same(want), "{what}: expected {want:?}, got {got:?}"),
    };
    for (i, (g, w)) in got.to_f64s().iter().zip(want.to_f64s()).enumerate() {
        let fine = *g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= rel * w.abs().max(1.0);
        assert!(fine, "{what} element {i}: expected {w}, got {g}");
    }
}

fn check(what: &str, program: &Program, inputs: &[&Tensor], shape: &[usize]) {
    let want = eval(program, inputs);
    for (g, w) in run(program, inputs, shape, None).iter().zip(&want) {
        assert_same(what, g, w);
    }
}

#[test]
fn every_function_on_every_type_that_it_takes() {
    let mut random = Random(1);
    for func in Func::ALL.iter().filter(|f| f.arity() > 0 && **f != Func::Cast) {
        for dtype in DType::ALL {
            let mut types = vec![dtype; func.arity()];
            if *func == Func::Select {
                types[0] = DType::Bool;
            }
            let Ok(program) = Program::single(*func, &types) else { continue };
            // Full operands, then numbers for all but the first.
            for scalars in [false, true] {
                let tensors: Vec<Tensor> = types
                    .iter()
                    .enumerate()
                    .map(|(i, t)| random.tensor(*t, if scalars && i > 0 { &[] } else { &[1037] }))
                    .collect();
                let refs: Vec<&Tensor> = tensors.iter().collect();
                check(&format!("{} {dtype} {scalars}", func.name()), &program, &refs, &[1037]);
            }
        }
    }
}

#[test]
fn every_cast() {
    let mut random = Random(2);
    for from in DType::ALL {
        for to in DType::ALL {
            let mut p = Program { inputs: vec![from], instrs: vec![], outputs: vec![] };
            let r = p.push_cast(0, to).unwrap();
            p.outputs = vec![r];
            let t = random.tensor(from, &[177]);
            check(&format!("{from} to {to}"), &p, &[&t], &[177]);
            for mode in (1..6).filter_map(CastMode::from_code).filter(|m| *m == m.for_type(to)) {
                let mut p = Program { inputs: vec![from], instrs: vec![], outputs: vec![] };
                let r = p.push_cast_mode(0, to, mode).unwrap();
                p.outputs = vec![r];
                check(&format!("{from} to {to} {mode:?}"), &p, &[&t], &[177]);
            }
        }
    }
}

#[test]
fn every_broadcast_of_small_shapes() {
    let p = Program::parse("f32,f32,f32;mul(0,1):f32;add(3,2):f32;>4").unwrap();
    let mut random = Random(3);
    // Each input keeps or drops each dimension; short and long rows.
    for shape in [[2usize, 3, 5], [3, 2, 300], [1, 4, 1025], [5, 1, 7]] {
        for masks in 0..64usize {
            let dims = |m: usize| -> Vec<usize> { (0..3).map(|d| if m >> d & 1 == 1 { shape[d] } else { 1 }).collect() };
            let a = random.tensor(DType::F32, &shape);
            let b = random.tensor(DType::F32, &dims(masks & 7));
            let c = random.tensor(DType::F32, &dims(masks >> 3)[1..]);
            check(&format!("{shape:?} {masks:06b}"), &p, &[&a, &b, &c], &shape);
        }
    }
}

#[test]
fn no_operand_needs_to_be_full() {
    let p = Program::parse("f32,f32;sub(0,1):f32;>2").unwrap();
    let mut random = Random(4);
    for (a, b) in [(vec![7, 1], vec![1, 9]), (vec![300, 1], vec![1, 400]), (vec![], vec![5]), (vec![], vec![]), (vec![1, 1], vec![1])] {
        let (x, y) = (random.tensor(DType::F32, &a), random.tensor(DType::F32, &b));
        let shape = eval(&p, &[&x, &y])[0].shape().to_vec();
        check(&format!("{a:?} {b:?}"), &p, &[&x, &y], &shape);
    }
}

#[test]
fn empty_and_odd_sizes() {
    let p = Program::parse("f32,f32;add(0,1):f32;relu(2):f32;>3").unwrap();
    let mut random = Random(5);
    for n in [0usize, 1, 2, 15, 16, 17, 1023, 1024, 1025, 5000] {
        let (x, y) = (random.tensor(DType::F32, &[n]), random.tensor(DType::F32, &[n]));
        check(&format!("{n} elements"), &p, &[&x, &y], &[n]);
    }
    let (x, y) = (random.tensor(DType::F32, &[0, 4]), random.tensor(DType::F32, &[3, 1, 1]));
    check("an empty dimension", &p, &[&x, &y], &[3, 0, 4]);
}

#[test]
fn large_tensors_are_split_over_tasks() {
    let p = Program::parse("f32,f32,f32;mul(0,1):f32;add(3,2):f32;silu(4):f32;>5").unwrap();
    let mut random = Random(6);
    for shape in [[4usize, 64, 49], [2, 8, 9000], [1, 1, 200_001]] {
        let x = random.tensor(DType::F32, &shape);
        let s = random.tensor(DType::F32, &[shape[1], 1]);
        let b = random.tensor(DType::F32, &[shape[2]]);
        check(&format!("{shape:?}"), &p, &[&x, &s, &b], &shape);
    }
}

#[test]
fn in_place_use() {
    let mut random = Random(7);
    let (x, y) = (random.tensor(DType::F32, &[3000]), random.tensor(DType::F32, &[3000]));
    // The second program reads the overwritten operand last.
    for text in ["f32,f32;add(0,1):f32;>2", "f32,f32;relu(1):f32;mul(2,0):f32;sub(3,0):f32;>4", "f32,f32;relu(0):f32;>2,1"] {
        let p = Program::parse(text).unwrap();
        let want = eval(&p, &[&x, &y]);
        for over in [0, 1] {
            if p.outputs.len() == 2 && over == 1 {
                continue;
            }
            for (g, w) in run(&p, &[&x, &y], &[3000], Some(over)).iter().zip(&want) {
                assert_same(&format!("{text} over {over}"), g, w);
            }
        }
    }
}

#[test]
fn inputs_constants_and_casts_may_be_outputs() {
    let mut random = Random(8);
    let x = random.tensor(DType::F16, &[100]);
    let half = 0.5f64.to_bits();
    for text in [
        "f16;>0".to_string(),
        "f16;cast(0):f32;>1,0".to_string(),
        format!("f16;const({half:x}):f16;>1,0"),
        format!("f16;const({half:x}):f32;cast(0):f32;add(1,2):f32;cast(3):f16;>4,3,1,2"),
    ] {
        check(&text, &Program::parse(&text).unwrap(), &[&x], &[100]);
    }
}

/// A program of random functions; later instructions prefer recent registers.
fn random_program(random: &mut Random, inputs: &[DType], n: usize) -> Program {
    let mut p = Program { inputs: inputs.to_vec(), instrs: vec![], outputs: vec![] };
    let mut regs: Vec<u16> = (0..inputs.len() as u16).collect();
    // Functions that neither blow up small differences nor leave the domain of the next one.
    const FUNCS: &[Func] = &[
        Func::Add, Func::Sub, Func::Max, Func::Min, Func::Neg, Func::Abs, Func::Relu, Func::Sigmoid, Func::Tanh,
        Func::Erf, Func::HardSwish, Func::Softsign, Func::Silu, Func::Clip, Func::Less, Func::And, Func::Not, Func::Select,
        Func::Mul, Func::BitXor,
    ];
    while p.instrs.len() < n {
        let func = FUNCS[random.below(FUNCS.len())];
        let args: Vec<u16> = (0..func.arity())
            .map(|_| regs[regs.len() - 1 - random.below(regs.len().min(6))])
            .collect();
        if let Ok(mut r) = p.push(func, &args) {
            if func == Func::Mul && p.dtype(r).is_float() {
                r = p.push(Func::Tanh, &[r]).unwrap();
            }
            regs.push(r);
        } else if random.below(4) == 0 {
            let to = [DType::F32, DType::I32][random.below(2)];
            let r = regs[random.below(regs.len())];
            if p.dtype(r) == DType::Bool {
                regs.push(p.push_cast(r, to).unwrap());
            }
        }
    }
    let last = inputs.len() as u16 + p.instrs.len() as u16 - 1;
    p.outputs = vec![last, last - 1];
    p
}

#[test]
fn random_programs() {
    let mut random = Random(9);
    for round in 0..200 {
        let types = [DType::F32, DType::F32, [DType::F32, DType::I32, DType::F16, DType::I64, DType::Bool, DType::U8][round % 6]];
        let n = 1 + round % 24;
        let p = random_program(&mut random, &types, n);
        let shapes: [&[usize]; 4] = [&[6, 50], &[50], &[6, 1], &[]];
        let x = random.tensor(types[0], &[6, 50]);
        let (sy, sz) = (shapes[random.below(4)], shapes[random.below(4)]);
        let y = random.tensor(types[1], sy);
        let z = random.tensor(types[2], sz);
        // A comparison of values that differ by a rounding may go either way: such programs are compared on f64 copies
        // of themselves elsewhere, here they only must run when they contain one.
        let decides = p.instrs.iter().any(|i| i.func == Func::Less);
        let got = run(&p, &[&x, &y, &z], &[6, 50], None);
        if !decides {
            for (g, w) in got.iter().zip(&eval(&p, &[&x, &y, &z])) {
                assert_same(&format!("round {round}: {p}"), g, w);
            }
        }
    }
}

#[test]
fn a_program_with_too_many_live_registers_falls_back() {
    let mut p = Program { inputs: vec![DType::F32], instrs: vec![], outputs: vec![] };
    let many: Vec<u16> = (0..80).map(|_| p.push(Func::Exp, &[0]).unwrap()).collect();
    let mut sum = 0;
    for r in many {
        sum = p.push(Func::Add, &[sum, r]).unwrap();
    }
    p.outputs = vec![sum];
    let d = TensorDesc { dtype: DType::F32, dims: vec![4] };
    let problem = Problem { inputs: vec![Some(d.clone())], outputs: vec![d], known: vec![None] };
    assert!(Pointwise { program: p }.cpu(&problem, &NoPack).unwrap().is_none());
}

#[test]
fn rows_of_epilogues() {
    let mut random = Random(10);
    let texts = [
        "f32;relu(0):f32;>1",
        "f32,f32,f32;mul(0,1):f32;add(3,2):f32;silu(4):f32;>5",
        "f16,f16,f16;add(0,1):f16;less(3,2):bool;select(4,0,3):f16;>5",
        "f32,f32,f32;>1",
    ];
    for text in texts {
        let p = Program::parse(text).unwrap();
        let row_program = RowProgram::new(&p).unwrap();
        for n in [1usize, 7, 64, 1000, 2500] {
            let x = random.tensor(DType::F32, &[n]);
            let e = random.tensor(DType::F32, &[n]);
            let mut row = x.to_f32s();
            let extra = e.to_f32s();
            let all = [RowOperand::Row(&extra), RowOperand::Scalar(0.5)];
            row_program.apply(&mut row, &all[..p.n_inputs() - 1]);
            // The reference on a wide copy of the program: rows are f32 whatever the types.
            let wide = Program::parse(&text.replace("f16", "f32")).unwrap();
            let half = Tensor::scalar(0.5f32);
            let refs = [&x, &e, &half];
            let want = eval(&wide, &refs[..p.n_inputs()]).remove(0);
            assert_same(&format!("{text} row of {n}"), &Tensor::from_slice(&[n], &row), &want);
        }
    }
    assert!(RowProgram::new(&Program::single(Func::Add, &[DType::I32; 2]).unwrap()).is_none());
}
