//! Which kernel for which node: candidates from the operators, compiled on all cores while the device times those that
//! are compiled already.
//!
//! Nodes with the same problem share one measurement, and a timing cache keeps measurements for the next build: what it
//! knows is neither compiled nor timed again. On the null device, at level 0, and where only one candidate is left, the
//! operator's own order decides.

pub mod cache;
pub mod enumerate;
pub mod measure;
pub mod operands;
pub mod rank;

use crate::base::dims::Bindings;
use crate::base::{Error, ErrorCode, Result};
use crate::device::DeviceRef;
use crate::device::cuda::kernel_cache;
use crate::engine::{BuildOptions, KernelImage, distinct_kernels};
use crate::network::Graph;
use crate::ops::{KernelSpec, Tactic};
use crate::runtime::kernels::LoadedKernels;
use crate::{ensure, err, internal, log_info, log_verbose, log_warn};
use cache::{Binding, Key, Timed, TimingCache, tactic_hash};
use enumerate::{Group, Groups};
use measure::{Outcome, Timer};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// Where times of earlier builds come from and go to.
#[derive(Clone, Debug, Default)]
pub enum CacheUse {
    /// A file beside the compiled kernels, unless caches on disk are off.
    #[default]
    File,
    /// Everything is timed anew, and nothing is kept.
    Off,
    /// The application's cache; a cache for something else is an error unless that is ignored.
    Given { cache: Arc<TimingCache>, ignore_mismatch: bool },
}

/// How a build goes about its choices. Not kept in the engine.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Factor of the turns that a candidate gets, at least 1.
    pub min_timing: u32,
    /// Turns whose median is a candidate's time, at least 1.
    pub avg_timing: u32,
    /// Threads that compile kernels; 0: as many as there are cores.
    pub max_threads: usize,
    pub cache: CacheUse,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { min_timing: 1, avg_timing: 4, max_threads: 0, cache: CacheUse::File }
    }
}

/// What is known about one choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Numbers of the nodes that it is for, in the order of `Graph::visit`.
    pub nodes: Vec<u32>,
    /// Milliseconds of each candidate that was timed, by name, the chosen one first.
    pub timed: Vec<(String, f32)>,
}

/// The tactic of each device node, and the kernels that they launch.
#[derive(Default)]
pub struct Choices {
    /// In the order of `Graph::visit`; `None` for nodes that need none.
    pub tactics: Vec<Option<Tactic>>,
    pub kernels: Vec<KernelImage>,
    /// Choices that rest on times.
    pub choices: Vec<Choice>,
}

/// Chooses a tactic for every node that runs on the device.
pub fn select(
    graph: &Graph,
    options: &BuildOptions,
    tuning: &Tuning,
    opt: &Bindings,
    device: &DeviceRef,
    progress: &mut dyn FnMut(&str, f32) -> bool,
) -> Result<Choices> {
    let start = Instant::now();
    let groups = enumerate::groups(graph, options, opt, device)?;
    let store = Store::open(tuning, options, device)?;
    let mut selector = Selector {
        device,
        options,
        tuning,
        images: HashMap::new(),
        failed: HashMap::new(),
        kernels: LoadedKernels::default(),
        n_timed: 0,
    };
    let mut states: Vec<State> =
        groups.list.iter().map(|g| State::of(g, &groups, &store, options, device)).collect::<Result<_>>()?;
    selector.run(&groups, &mut states, progress)?;
    let n_known = states.iter().filter(|s| s.from_cache).count();
    let mut out = Choices { tactics: vec![None; groups.n_nodes], ..Choices::default() };
    for (g, s) in groups.list.iter().zip(&states) {
        let chosen = &g.candidates[s.chosen];
        if !s.timed.is_empty() {
            if !s.from_cache {
                store.put(&groups.key(g), g, s);
            }
            let name = |(i, ms): &(usize, f32)| (g.candidates[*i].name.clone(), *ms);
            let nodes = g.nodes.iter().map(|n| *n as u32).collect();
            out.choices.push(Choice { nodes, timed: s.timed.iter().map(name).collect() });
            let (_, ms) = s.timed[0];
            let next = s.timed.get(1).map_or(String::new(), |(i, ms)| format!(", next {} {:.2} us", g.candidates[*i].name, ms * 1e3));
            let from = if s.from_cache { ", from the timing cache" } else { "" };
            log_info!(
                "{} {:?}, {} times: {} {:.2} us of {} candidates{next}{from}",
                g.node.op.name(),
                g.node.name,
                g.nodes.len(),
                chosen.name,
                ms * 1e3,
                g.candidates.len()
            );
        }
        for n in &g.nodes {
            out.tactics[*n] = Some(chosen.clone());
        }
    }
    for s in distinct_kernels(out.tactics.iter().flatten()) {
        let image = selector.images.get(&s).ok_or_else(|| internal!("kernel {} was not compiled", s.file))?;
        out.kernels.push(image.clone());
    }
    store.close();
    log_info!(
        "{} problems of {} nodes: {} timed, {n_known} known, {:.2} s",
        groups.list.len(),
        groups.n_nodes,
        selector.n_timed,
        start.elapsed().as_secs_f64()
    );
    Ok(out)
}

/// The timing cache of one build.
struct Store {
    cache: Option<Arc<TimingCache>>,
    file: Option<PathBuf>,
}

impl Store {
    fn open(tuning: &Tuning, options: &BuildOptions, device: &DeviceRef) -> Result<Store> {
        let binding = Binding::of(device.props());
        let none = Store { cache: None, file: None };
        if options.level == 0 {
            return Ok(none); // The first candidate, whatever was timed.
        }
        match &tuning.cache {
            CacheUse::Off => Ok(none),
            CacheUse::Given { cache, ignore_mismatch } => {
                cache.bind(&binding, *ignore_mismatch)?;
                Ok(Store { cache: Some(cache.clone()), file: None })
            }
            CacheUse::File if !matches!(device, DeviceRef::Cuda(_)) => Ok(none),
            CacheUse::File => {
                let Some(file) = TimingCache::default_file(&binding) else { return Ok(none) };
                let cache = match TimingCache::read_file(&file).and_then(|c| {
                    let c = c.unwrap_or_default();
                    c.bind(&binding, false).map(|()| c)
                }) {
                    Ok(cache) => cache,
                    Err(e) => {
                        log_warn!("{e}; everything is timed anew");
                        let c = TimingCache::new();
                        c.bind(&binding, false)?;
                        c
                    }
                };
                Ok(Store { cache: Some(Arc::new(cache)), file: Some(file) })
            }
        }
    }

    fn get(&self, key: &Key) -> Option<Vec<Timed>> {
        self.cache.as_ref()?.entry(key)
    }

    fn put(&self, key: &Key, g: &Group, s: &State) {
        if let Some(cache) = &self.cache {
            cache.set(key, s.timed.iter().map(|(i, ms)| Timed { tactic: tactic_hash(&g.candidates[*i]), ms: *ms }).collect());
        }
    }

    /// Keeps what was timed.
    fn close(self) {
        if let (Some(cache), Some(file)) = (&self.cache, &self.file) {
            if let Err(e) = cache.write_file(file) {
                log_warn!("times are not kept for the next build: {e}");
            }
        }
    }
}

/// How far one group is.
struct State {
    /// Index of the tactic, among the group's candidates.
    chosen: usize,
    /// Candidates to choose from; one alone is not timed.
    open: Vec<usize>,
    /// Candidates with their milliseconds, fastest first.
    timed: Vec<(usize, f32)>,
    from_cache: bool,
}

impl State {
    fn of(g: &Group, groups: &Groups, store: &Store, options: &BuildOptions, device: &DeviceRef) -> Result<State> {
        if let Some(list) = store.get(&groups.key(g)) {
            let hashes: Vec<u64> = g.candidates.iter().map(tactic_hash).collect();
            let at = |t: &Timed| hashes.iter().position(|h| *h == t.tactic).map(|i| (i, t.ms));
            // Without its choice an entry says nothing: the candidates were others.
            if let Some((chosen, _)) = at(&list[0]) {
                let timed = list.iter().filter_map(at).collect();
                return Ok(State { chosen, open: vec![chosen], timed, from_cache: true });
            }
        }
        let mut open: Vec<usize> = (0..g.candidates.len()).collect();
        if options.workspace < u64::MAX {
            let scratch = |i: &usize| {
                let t = &g.candidates[*i];
                let program = g.node.op.def().cuda_program(t, &g.problem, device.props());
                program.map_or(0, |p| p.workspace) // One that cannot be launched is found out later.
            };
            open.retain(|i| scratch(i) as u64 <= options.workspace);
            if open.is_empty() {
                let least = (0..g.candidates.len()).map(|i| scratch(&i)).min().unwrap_or(0);
                return Err(too_little_scratch(g, least, options.workspace));
            }
        }
        let timeable = matches!(device, DeviceRef::Cuda(_)) && options.level > 0 && can_be_timed(g);
        if !timeable {
            open.truncate(1);
        }
        Ok(State { chosen: open[0], open, timed: Vec::new(), from_cache: false })
    }
}

/// What the host reads at run time decides the launches of some nodes, so there is nothing to time before.
fn can_be_timed(g: &Group) -> bool {
    let def = g.node.op.def();
    let p = &g.problem;
    let unknown = def.host_inputs().into_iter().any(|i| p.input(i).is_some() && p.known(i).is_none());
    !(unknown || def.is_data_dependent() || p.outputs.iter().all(|o| o.numel() == 0))
}

struct Selector<'a> {
    device: &'a DeviceRef,
    options: &'a BuildOptions,
    tuning: &'a Tuning,
    images: HashMap<KernelSpec, KernelImage>,
    failed: HashMap<KernelSpec, Error>,
    /// Those of candidates that were timed.
    kernels: LoadedKernels,
    n_timed: usize,
}

type Ready = (usize, Result<KernelImage>);

impl<'a> Selector<'a> {
    fn run(&mut self, groups: &Groups, states: &mut [State], progress: &mut dyn FnMut(&str, f32) -> bool) -> Result<()> {
        let mut todo: Vec<usize> = (0..states.len()).collect();
        while !todo.is_empty() {
            let again = self.round(groups, states, &todo, progress)?;
            // The first candidate, or the one that a cache knows, may not compile: then the others are asked.
            for g in &again {
                let s = &mut states[*g];
                s.open = (0..groups.list[*g].candidates.len()).collect();
                (s.from_cache, s.timed) = (false, Vec::new());
            }
            todo = again;
        }
        Ok(())
    }

    /// Compiles what these groups may need, and decides each group when its kernels are there. Returns those that need
    /// more than they had asked for.
    fn round(
        &mut self,
        groups: &Groups,
        states: &mut [State],
        todo: &[usize],
        progress: &mut dyn FnMut(&str, f32) -> bool,
    ) -> Result<Vec<usize>> {
        let wanted = todo.iter().flat_map(|g| states[*g].open.iter().map(|i| &groups.list[*g].candidates[*i]));
        let mut specs = distinct_kernels(wanted);
        specs.retain(|s| !self.images.contains_key(s) && !self.failed.contains_key(s));
        ensure!(progress("choosing kernels", 0.2), Cancelled, "the build was cancelled");
        let (send, receive) = channel::<Ready>();
        let (device, threads) = (self.device, self.tuning.max_threads);
        std::thread::scope(|scope| {
            let specs = &specs;
            let compile = move || {
                let started = Instant::now();
                compile(specs, device, threads, &|i, r| send.send((i, r)).is_ok());
                log_info!("{} kernels compiled or found in {:.2} s", specs.len(), started.elapsed().as_secs_f64());
            };
            match device {
                DeviceRef::Cuda(_) if !specs.is_empty() => {
                    scope.spawn(compile);
                }
                _ => compile(),
            }
            // Leaving the scope early drops the receiver, which ends the compilation.
            self.decide_all(groups, states, todo, specs, receive, progress)
        })
    }

    fn decide_all(
        &mut self,
        groups: &Groups,
        states: &mut [State],
        todo: &[usize],
        specs: &[KernelSpec],
        receive: Receiver<Ready>,
        progress: &mut dyn FnMut(&str, f32) -> bool,
    ) -> Result<Vec<usize>> {
        let mut timer: Option<Timer<'a>> = None;
        let mut again = Vec::new();
        for (k, g) in todo.iter().enumerate() {
            let group = &groups.list[*g];
            let needed = states[*g].open.iter().flat_map(|i| &group.candidates[*i].kernels);
            for spec in needed {
                while !self.images.contains_key(spec) && !self.failed.contains_key(spec) {
                    let (i, image) = receive.recv().map_err(|_| internal!("kernel {} was not compiled", spec.file))?;
                    match image {
                        Ok(image) => drop(self.images.insert(specs[i].clone(), image)),
                        Err(e) => drop(self.failed.insert(specs[i].clone(), e)),
                    }
                }
            }
            let done = 0.2 + 0.8 * k as f32 / todo.len() as f32;
            ensure!(progress("choosing kernels", done), Cancelled, "the build was cancelled");
            if !self.decide(groups, group, &mut states[*g], &mut timer)? {
                again.push(*g);
            }
        }
        Ok(again)
    }

    /// Chooses for one group, whose kernels are compiled. False: all that were asked for failed, and there are others.
    fn decide(&mut self, groups: &Groups, g: &Group, s: &mut State, timer: &mut Option<Timer<'a>>) -> Result<bool> {
        let name = &g.node.name;
        let mut why = None;
        let asked = s.open.len();
        s.open.retain(|i| match g.candidates[*i].kernels.iter().find_map(|k| self.failed.get(k)) {
            None => true,
            Some(e) => {
                log_verbose!("tactic {} of {name:?} is left out: {e}", g.candidates[*i].name);
                why = Some(e.clone());
                false
            }
        });
        if s.open.is_empty() {
            if asked < g.candidates.len() {
                return Ok(false);
            }
            let e = why.unwrap_or_else(|| internal!("no candidates"));
            return Err(e.context(format!("no tactic of node {name:?} could be compiled")));
        }
        s.chosen = s.open[0];
        self.time(groups, g, s, timer)?;
        Ok(true)
    }

    /// Times the candidates, if there is a choice left and a device to time on.
    fn time(&mut self, groups: &Groups, g: &Group, s: &mut State, timer: &mut Option<Timer<'a>>) -> Result<()> {
        let DeviceRef::Cuda(cuda) = self.device else { return Ok(()) };
        if s.from_cache || s.open.len() < 2 || self.options.level == 0 || !can_be_timed(g) {
            return Ok(());
        }
        for spec in s.open.iter().flat_map(|i| &g.candidates[*i].kernels) {
            let image = self.images.get(spec).ok_or_else(|| internal!("kernel {} was not compiled", spec.file))?;
            self.kernels.add(self.device, image)?;
        }
        let timer = match timer {
            Some(t) => t,
            none => none.insert(Timer::new(cuda, self.tuning, self.options.level)?),
        };
        let candidates: Vec<&Tactic> = s.open.iter().map(|i| &g.candidates[*i]).collect();
        let limit = self.options.workspace;
        let out = match timer.time(&g.node, &g.problem, groups.cold_weights, &candidates, &self.kernels, limit) {
            Err(e) if e.code == ErrorCode::OutOfMemory => {
                log_warn!("{:?} is not timed, the operator's order decides: {e}", g.node.name);
                return Ok(());
            }
            out => out?,
        };
        self.n_timed += 1;
        let mut first_error = None;
        let mut least = None;
        for (i, o) in s.open.iter().zip(out) {
            match o {
                Outcome::Time(ms) => s.timed.push((*i, ms)),
                Outcome::TooMuchScratch(n) => least = Some(least.map_or(n, |m: usize| m.min(n))),
                Outcome::Failed(e) => drop(first_error.get_or_insert(e)),
            }
        }
        // Equal times keep the operator's order.
        s.timed.sort_by(|a, b| a.1.total_cmp(&b.1));
        match (s.timed.first(), least, first_error) {
            (Some((i, _)), _, _) => s.chosen = *i,
            (None, Some(n), _) => return Err(too_little_scratch(g, n, limit)),
            // Sizes that are not known yet were guessed, and the guess may be one that cannot be.
            (None, None, Some(e)) if e.code == ErrorCode::InvalidArgument => log_verbose!("{:?}: not timed: {e}", g.node.name),
            (None, None, Some(e)) => return Err(e),
            (None, None, None) => {}
        }
        Ok(())
    }
}

fn too_little_scratch(g: &Group, least: usize, limit: u64) -> Error {
    err!(
        InvalidConfig,
        "no tactic of node {:?} works with {limit} bytes of scratch: the least is {least} (memory pool limit: workspace)",
        g.node.name
    )
}

/// Compiles kernels and hands each over when it is there.
fn compile(specs: &[KernelSpec], device: &DeviceRef, threads: usize, ready: &(dyn Fn(usize, Result<KernelImage>) -> bool + Sync)) {
    if let DeviceRef::Null(_) = device {
        // Nothing is launched there; the images only carry the specs.
        specs.iter().enumerate().all(|(i, s)| ready(i, Ok(KernelImage::new(s, "null", Vec::new()))));
        return;
    }
    // One core goes on timing.
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = if threads == 0 { (cores - 1).max(1) } else { threads };
    kernel_cache::compile_as_ready(specs, &kernel_cache::arch_of(device.props().sm), threads, &|i, r| {
        ready(i, r.map(|c| KernelImage::new(&specs[i], &c.entry, c.bytes.clone())))
    });
}
