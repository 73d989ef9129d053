//! Optimization profiles: the range of shapes that an engine is built for.

use crate::base::dims::Bindings;
use crate::base::{Result, Shape};
use crate::network::Graph;
use crate::{bail, ensure, err};
use std::collections::BTreeMap;

/// No upper bound was given for a dimension.
pub const UNBOUNDED: i64 = i64::MAX;

/// Smallest, typical and largest shape of one input. The builder times kernels at `opt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub min: Vec<i64>,
    pub opt: Vec<i64>,
    pub max: Vec<i64>,
}

/// A range for every input, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    pub inputs: BTreeMap<String, Range>,
}

impl Profile {
    /// Fills in static inputs and checks that the ranges fit the graph: known names, equal ranks, min <= opt <= max,
    /// fixed dimensions kept, one value per symbol.
    ///
    /// A dynamic input without a range gets an open one (0 to unbounded, typically 1) and is named in the result.
    pub fn complete(&self, graph: &Graph) -> Result<(Profile, Vec<String>)> {
        for name in self.inputs.keys() {
            ensure!(
                graph.input(name).is_some(),
                InvalidConfig,
                "the profile names input {name:?}; the network's inputs are {}",
                input_names(graph)
            );
        }
        let mut out = Profile::default();
        let mut open = Vec::new();
        for p in graph.inputs() {
            let shape = &graph.fact(p.value).shape;
            let range = match self.inputs.get(&p.name) {
                Some(r) => r.clone(),
                None => {
                    if !shape.is_concrete() {
                        open.push(p.name.clone());
                    }
                    let fill = |v: i64| shape.iter().map(|d| d.as_const().unwrap_or(v)).collect::<Vec<_>>();
                    Range { min: fill(0), opt: fill(1), max: fill(UNBOUNDED) }
                }
            };
            check_range(&p.name, shape, &range)?;
            out.inputs.insert(p.name.clone(), range);
        }
        // An open input follows the symbols that other inputs bind.
        for which in 0..3 {
            let mut b = Bindings::new();
            for p in graph.inputs().iter().filter(|p| !open.contains(&p.name)) {
                bind_shape(&p.name, &graph.fact(p.value).shape, out.inputs[&p.name].get(which), &mut b)
                    .map_err(|e| e.context(format!("profile {}", ["min", "opt", "max"][which])))?;
            }
            for name in &open {
                let v = graph.input(name).ok_or_else(|| err!(Internal, "input {name:?} vanished"))?;
                let range = out.inputs.get_mut(name).ok_or_else(|| err!(Internal, "range of {name:?} vanished"))?;
                let dims = range.get_mut(which);
                for (d, s) in dims.iter_mut().zip(graph.fact(v).shape.iter()) {
                    if let Some(v) = s.bind(&b).as_const() {
                        *d = v;
                    }
                }
            }
        }
        Ok((out, open))
    }

    /// Values of the symbols at min (0), opt (1) or max (2).
    pub fn bindings(&self, graph: &Graph, which: usize) -> Result<Bindings> {
        let mut b = Bindings::new();
        for p in graph.inputs() {
            let r = self.inputs.get(&p.name).ok_or_else(|| err!(Internal, "profile lacks {:?}", p.name))?;
            bind_shape(&p.name, &graph.fact(p.value).shape, r.get(which), &mut b)?;
        }
        Ok(b)
    }

    /// Fails, naming the axis and the range, when a shape lies outside.
    pub fn check(&self, name: &str, dims: &[i64]) -> Result<()> {
        let Some(r) = self.inputs.get(name) else { return Ok(()) };
        for (i, d) in dims.iter().enumerate() {
            ensure!(
                r.min[i] <= *d && *d <= r.max[i],
                InvalidArgument,
                "input {name:?}: dimension {i} is {d}, outside of the profile's range {} to {}",
                r.min[i],
                if r.max[i] == UNBOUNDED { "any".into() } else { r.max[i].to_string() }
            );
        }
        Ok(())
    }

    /// True when every range has an upper end.
    pub fn is_bounded(&self) -> bool {
        self.inputs.values().all(|r| r.max.iter().all(|d| *d != UNBOUNDED))
    }
}

impl Range {
    /// A single shape.
    pub fn fixed(dims: &[i64]) -> Range {
        Range { min: dims.to_vec(), opt: dims.to_vec(), max: dims.to_vec() }
    }

    pub fn get(&self, which: usize) -> &Vec<i64> {
        [&self.min, &self.opt, &self.max][which]
    }

    fn get_mut(&mut self, which: usize) -> &mut Vec<i64> {
        match which {
            0 => &mut self.min,
            1 => &mut self.opt,
            _ => &mut self.max,
        }
    }
}

fn input_names(graph: &Graph) -> String {
    graph.inputs().iter().map(|p| format!("{:?}", p.name)).collect::<Vec<_>>().join(", ")
}

fn check_range(name: &str, shape: &Shape, r: &Range) -> Result<()> {
    for (which, dims) in [("min", &r.min), ("opt", &r.opt), ("max", &r.max)] {
        ensure!(
            dims.len() == shape.rank(),
            InvalidConfig,
            "profile of input {name:?}: {which} has rank {}, the input is {shape}",
            dims.len()
        );
    }
    for (i, d) in shape.iter().enumerate() {
        let (a, b, c) = (r.min[i], r.opt[i], r.max[i]);
        ensure!(
            0 <= a && a <= b && b <= c,
            InvalidConfig,
            "profile of input {name:?}: dimension {i} has min {a}, opt {b}, max {c}; expected 0 <= min <= opt <= max"
        );
        if let Some(d) = d.as_const() {
            ensure!(
                a == d && c == d,
                InvalidConfig,
                "profile of input {name:?}: dimension {i} is fixed to {d}, the range is {a} to {c}"
            );
        }
    }
    Ok(())
}

/// Binds the symbols of an input's declared shape to the dimensions that were given.
pub fn bind_shape(name: &str, declared: &Shape, dims: &[i64], b: &mut Bindings) -> Result<()> {
    ensure!(
        dims.len() == declared.rank(),
        InvalidArgument,
        "input {name:?}: expected {declared} of rank {}, got {dims:?}",
        declared.rank()
    );
    for (i, (d, v)) in declared.iter().zip(dims).enumerate() {
        ensure!(*v >= 0, InvalidArgument, "input {name:?}: dimension {i} is {v}");
        if let Some(c) = d.as_const() {
            ensure!(c == *v, InvalidArgument, "input {name:?}: dimension {i} must be {c}, got {v} (declared {declared})");
        } else if let Some(s) = d.as_sym() {
            if let Some(old) = b.insert(s.clone(), *v)
                && old != *v
            {
                bail!(
                    InvalidArgument,
                    "input {name:?}: dimension {i} ({s}) is {v}, but another input gives {s} = {old}"
                );
            }
        }
    }
    Ok(())
}
