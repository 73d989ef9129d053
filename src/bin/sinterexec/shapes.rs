//! Shape options: their text, the profile that a build gets from them, and the shapes that an inference runs with.
//!
//! trtexec's rules: a missing one of min, opt and max follows the others; `--shapes` alone fixes all three; a dynamic
//! input without any becomes 1 in each dynamic dimension, with a warning. With test data and no shape options the profile spans
//! all data sets.

use crate::console::warning;
use crate::options::{Options, unquote};
use sinter::base::Result;
use sinter::base::dims::Bindings;
use sinter::network::Graph;
use sinter::plan::profile::{UNBOUNDED, bind_shape};
use sinter::plan::{Profile, Range};
use sinter::{bail, ensure, err};
use std::collections::BTreeMap;

/// Shape of each input, by name.
pub type Shapes = BTreeMap<String, Vec<i64>>;

/// `1x3x8x8` for people.
pub fn text(dims: &[i64]) -> String {
    if dims.is_empty() {
        return "scalar".into();
    }
    let one = |d: &i64| if *d == UNBOUNDED { "any".to_string() } else { d.to_string() };
    dims.iter().map(one).collect::<Vec<_>>().join("x")
}

/// Reads `NAME:DIMS,...` for the inputs of a graph.
pub fn parse(option: &str, spec: &str, graph: &Graph) -> Result<Shapes> {
    let mut out = Shapes::new();
    for part in spec.split(',') {
        // Names may hold colons; dimensions do not.
        let Some((name, dims)) = part.rsplit_once(':') else {
            bail!(InvalidArgument, "option {option}: expected NAME:DIMS such as image:1x3x224x224, got {part:?}");
        };
        let name = unquote(name);
        let dims: Vec<i64> = match dims {
            "" | "scalar" => Vec::new(),
            _ => dims
                .split('x')
                .map(|d| d.parse().ok().filter(|d| *d >= 0))
                .collect::<Option<_>>()
                .ok_or_else(|| err!(InvalidArgument, "option {option}: {dims:?} is no shape; expected numbers with x between"))?,
        };
        let inputs = graph.inputs().iter().map(|p| &p.name);
        let found: Vec<&String> = inputs.filter(|n| matches(name, n)).collect();
        if found.is_empty() {
            let all: Vec<String> = graph.inputs().iter().map(|p| format!("{:?}", p.name)).collect();
            bail!(InvalidArgument, "option {option}: no input is named {name:?}; the inputs are {}", all.join(", "));
        }
        for n in found {
            out.insert(n.clone(), dims.clone());
        }
    }
    Ok(out)
}

/// One `*` in the pattern stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((a, b)) => name.len() >= a.len() + b.len() && name.starts_with(a) && name.ends_with(b),
    }
}

/// The profile to build with; `data` are the input shapes of each data set.
pub fn profile(o: &Options, graph: &Graph, data: &[Shapes]) -> Result<Profile> {
    let read = |option: &str, spec: &Option<String>| spec.as_ref().map(|s| parse(option, s, graph)).transpose();
    let min = read("--minShapes", &o.min_shapes)?;
    let opt = read("--optShapes", &o.opt_shapes)?;
    let max = read("--maxShapes", &o.max_shapes)?;
    let one = read("--shapes", &o.shapes)?;
    let ranged = min.is_some() || opt.is_some() || max.is_some();
    let mut given: BTreeMap<String, Range> = BTreeMap::new();
    if ranged {
        let at = |s: &Option<Shapes>, name: &str| s.as_ref().and_then(|s| s.get(name)).cloned();
        for p in graph.inputs() {
            let (a, b, c) = (at(&min, &p.name), at(&opt, &p.name), at(&max, &p.name));
            let Some(some) = b.clone().or(c.clone()).or(a.clone()) else { continue };
            let opt = some;
            let min = a.clone().unwrap_or_else(|| if b.is_some() { opt.clone() } else { c.clone().unwrap_or(opt.clone()) });
            let max = c.unwrap_or_else(|| if b.is_some() { opt.clone() } else { a.unwrap_or(opt.clone()) });
            given.insert(p.name.clone(), Range { min, opt, max });
        }
    } else if let Some(one) = one {
        given.extend(one.into_iter().map(|(n, d)| (n, Range::fixed(&d))));
    } else {
        given = span(data, graph)?;
    }
    fill_dynamic(graph, &mut given)?;
    Ok(Profile { inputs: given })
}

/// The range that covers all data sets; typical is the first.
fn span(data: &[Shapes], graph: &Graph) -> Result<BTreeMap<String, Range>> {
    let mut out: BTreeMap<String, Range> = BTreeMap::new();
    for (name, dims) in data.iter().flatten() {
        let Some(v) = graph.input(name) else { continue };
        let declared = &graph.fact(v).shape;
        ensure!(
            declared.rank() == dims.len(),
            InvalidArgument,
            "test data: input {name:?} has shape {}, the network declares {declared}",
            text(dims)
        );
        let r = out.entry(name.clone()).or_insert_with(|| Range::fixed(dims));
        for (i, d) in dims.iter().enumerate() {
            r.min[i] = r.min[i].min(*d);
            r.max[i] = r.max[i].max(*d);
        }
    }
    Ok(out)
}

/// Ranges for dynamic inputs that have none: what other inputs say of their symbols, else 1.
fn fill_dynamic(graph: &Graph, given: &mut BTreeMap<String, Range>) -> Result<()> {
    let mut bound = [Bindings::new(), Bindings::new(), Bindings::new()];
    for p in graph.inputs() {
        let Some(r) = given.get(&p.name) else { continue };
        for (which, b) in bound.iter_mut().enumerate() {
            bind_shape(&p.name, &graph.fact(p.value).shape, r.get(which), b)?;
        }
    }
    let mut hint = false;
    for p in graph.inputs() {
        let shape = &graph.fact(p.value).shape;
        if shape.is_concrete() || given.contains_key(&p.name) {
            continue;
        }
        let mut guessed = false;
        let [min, opt, max] = [0, 1, 2].map(|which| {
            let known = shape.bind(&bound[which]);
            guessed |= !known.is_concrete();
            known.iter().map(|d| d.as_const().unwrap_or(1)).collect::<Vec<i64>>()
        });
        if guessed {
            warning!("Input {} {shape} is dynamic and no shape was given: it is set to {}", p.name, text(&opt));
            hint = true;
        }
        given.insert(p.name.clone(), Range { min, opt, max });
    }
    if hint {
        warning!("Give --shapes, or --minShapes, --optShapes and --maxShapes, to build for others.");
    }
    Ok(())
}

/// The shapes to run with: `--shapes`, else the profile's typical ones.
pub fn for_inference(o: &Options, graph: &Graph, profile: &Profile) -> Result<Shapes> {
    let mut asked = match &o.shapes {
        Some(spec) => parse("--shapes", spec, graph)?,
        None => Shapes::new(),
    };
    for p in graph.inputs() {
        if asked.contains_key(&p.name) {
            continue;
        }
        let range = profile.inputs.get(&p.name);
        let dims = range.map(|r| r.opt.clone()).ok_or_else(|| err!(Internal, "the profile lacks {:?}", p.name))?;
        if range.is_some_and(|r| r.max.contains(&UNBOUNDED)) {
            warning!("Input {} takes any shape and none was given: it runs as {}. Give --shapes.", p.name, text(&dims));
        }
        asked.insert(p.name.clone(), dims);
    }
    Ok(asked)
}
