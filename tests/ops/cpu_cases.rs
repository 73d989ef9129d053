//! Every shared case without a device: the reference, the CPU step against it, and the shape rule over symbols.

use super::cases::{self, Case};
use super::steps::{Packs, assert_close, cpu, eval, infer};
use sinter::base::dims::Bindings;
use sinter::base::{Dim, Fact, Shape};
use sinter::ops::InferCx;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Families of which every case has a CPU step of its own.
const STEPPED: &[&str] = &["movers", "reductions", "resizes"];

#[test]
fn the_reference_gives_what_the_shape_rule_says() {
    cases::for_each("reference", &cases::all(), |c| {
        let facts = infer(&c.op, &c.inputs).map_err(|e| e.to_string())?;
        let out = eval(&c.op, &c.inputs).map_err(|e| e.to_string())?;
        assert_eq!(out.len(), facts.len(), "outputs");
        for (t, f) in out.iter().zip(&facts) {
            assert_eq!(t.dtype(), f.dtype);
            assert_eq!(t.rank(), f.shape.rank());
            for (n, d) in t.shape().iter().zip(f.shape.iter()) {
                assert!(d.as_const().is_none_or(|d| d == *n as i64), "shape {:?}, inferred {}", t.shape(), f.shape);
            }
        }
        Ok(())
    });
}

/// Indices of the operands that are there.
fn present(c: &Case) -> Vec<usize> {
    (0..c.inputs.len()).filter(|i| c.inputs[*i].is_some()).collect()
}

#[test]
fn cpu_steps_agree_with_the_reference() {
    let mut lacking: BTreeMap<&str, usize> = BTreeMap::new();
    for (family, list) in cases::families() {
        let mut n_without = 0;
        cases::for_each(family, &list, |c| {
            if infer(&c.op, &c.inputs).map_err(|e| e.to_string())?.iter().any(|f| !f.shape.is_concrete()) {
                return Ok(()); // Its shape depends on the data, so there is no step.
            }
            let want = eval(&c.op, &c.inputs).map_err(|e| e.to_string())?;
            // Operands known as a build knows them: what decides shapes, or all of them as constants.
            for known in [c.op.def().host_inputs(), present(c)] {
                let Some(got) = cpu(&c.op, &c.inputs, &known, &Packs::default()).map_err(|e| e.to_string())? else {
                    n_without += 1;
                    *lacking.entry(c.op.name()).or_default() += 1;
                    break;
                };
                assert_eq!(got.len(), want.len(), "outputs");
                for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                    assert_close(&format!("output {i}, known {known:?}"), g, w, c.tolerance);
                }
            }
            Ok(())
        });
        assert!(n_without == 0 || !STEPPED.contains(&family), "{n_without} cases of {family} have no CPU step");
    }
    for (op, n) in lacking {
        eprintln!("{op}: the CPU runs the reference in {n} cases");
    }
}

/// The fact of an operand with a symbol for every dimension above 1 and nothing known of its elements.
fn blurred(f: &Fact, bindings: &mut Bindings) -> Fact {
    let dims: Vec<Dim> = f
        .shape
        .iter()
        .map(|d| match d.as_const() {
            Some(n) if n != 1 => {
                let name = format!("n{n}");
                bindings.insert(name.as_str().into(), n);
                Dim::sym(&name)
            }
            _ => d.clone(),
        })
        .collect();
    Fact::new(f.dtype, dims)
}

/// True when the shape is one that the other may become; unknown symbols may become anything.
fn may_be(symbolic: &Shape, bindings: &Bindings, concrete: &Shape) -> bool {
    let bound = symbolic.bind(bindings);
    bound.rank() == concrete.rank()
        && bound.iter().zip(concrete.iter()).all(|(a, b)| match (a.as_const(), b.as_const()) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        })
}

/// Slices whose constant bounds lie outside of the axis: over symbols they are taken to lie inside (`slice/range.rs`).
const OUTSIDE: &[&str] = &["slice [-3, 10]:", "slice [3]:[1]:"];

#[test]
fn shapes_over_symbols_become_the_shapes_of_the_numbers() {
    let mut refused: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    cases::for_each("symbols", &cases::all(), |c| {
        if OUTSIDE.iter().any(|o| c.name.starts_with(o)) {
            return Ok(());
        }
        let want = infer(&c.op, &c.inputs).map_err(|e| e.to_string())?;
        let host = c.op.def().host_inputs();
        for host_known in [true, false] {
            let mut bindings = Bindings::new();
            let facts: Vec<Option<Fact>> = c
                .inputs
                .iter()
                .enumerate()
                .map(|(i, t)| {
                    let f = Fact::of_const(Arc::new(t.clone()?));
                    Some(match host.contains(&i) {
                        true if host_known => f,
                        // How many elements there are is fixed in most models even where their values are not.
                        true => Fact::new(f.dtype, f.shape),
                        false => blurred(&f, &mut bindings),
                    })
                })
                .collect();
            let refs: Vec<Option<&Fact>> = facts.iter().map(|f| f.as_ref()).collect();
            match c.op.def().infer(&InferCx::new(&refs)) {
                Err(e) => refused.entry(c.op.name()).or_insert((0, format!("{}: {e}", c.name))).0 += 1,
                Ok(got) => {
                    assert_eq!(got.len(), want.len(), "outputs");
                    for (g, w) in got.iter().zip(&want) {
                        assert_eq!(g.dtype, w.dtype);
                        assert!(may_be(&g.shape, &bindings, &w.shape), "{} over symbols, {} over numbers", g.shape, w.shape);
                    }
                }
            }
        }
        Ok(())
    });
    for (op, (n, first)) in refused {
        eprintln!("{op} refuses symbols in {n} cases, such as {first}");
    }
}
