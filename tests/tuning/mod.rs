//! The choice of kernels where nothing can be timed: on the null device, with times from a cache.

use sinter::autotune::cache::{Binding, Timed, TimingCache, tactic_hash};
use sinter::autotune::enumerate::{Groups, groups};
use sinter::autotune::{CacheUse, Tuning};
use sinter::base::{Attrs, DType, ErrorCode, Fact};
use sinter::builder::{self, BuilderConfig};
use sinter::device::{DeviceKind, DeviceRef};
use sinter::engine::{BuildOptions, EngineImage};
use sinter::network::Graph;
use sinter::network::layers::Network;
use sinter::onnx::importer::import_file;
use std::path::Path;
use std::sync::Arc;

fn null() -> DeviceRef {
    DeviceRef::open(DeviceKind::Null).unwrap()
}

fn digits() -> Graph {
    import_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples_c/models/digits.onnx")).unwrap()
}

fn config(cache: &Arc<TimingCache>, level: u8) -> BuilderConfig {
    BuilderConfig {
        options: BuildOptions { level, ..BuildOptions::default() },
        tuning: Tuning {
            cache: CacheUse::Given { cache: cache.clone(), ignore_mismatch: false },
            ..Tuning::default()
        },
        ..BuilderConfig::default()
    }
}

fn build(config: &BuilderConfig) -> EngineImage {
    builder::build(&digits(), config, &null(), &mut |_, _| true).unwrap()
}

/// What there is to choose in an engine.
fn groups_of(image: &EngineImage) -> Groups {
    let opt = image.profiles[0].bindings(&image.graph, 1).unwrap();
    let lowered = builder::lower(&image.graph, &image.options, null().props(), &opt).unwrap();
    groups(&lowered, &image.options, &opt, &null()).unwrap()
}

/// A cache that says of every problem that the operator's last candidate is the fastest.
fn contrary(image: &EngineImage) -> Arc<TimingCache> {
    let cache = TimingCache::new();
    let all = groups_of(image);
    assert!(all.list.iter().any(|g| g.candidates.len() > 1), "there is nothing to choose");
    for g in &all.list {
        for (i, t) in g.candidates.iter().enumerate() {
            cache.update(&all.key(g), Timed { tactic: tactic_hash(t), ms: 1.0 / (i + 1) as f32 }).unwrap();
        }
    }
    Arc::new(cache)
}

fn chosen(image: &EngineImage, node: usize) -> &str {
    &image.plan.as_ref().unwrap().tactics[node].as_ref().unwrap().name
}

#[test]
fn with_a_full_cache_two_builds_are_the_same_bytes_and_choose_what_it_says() {
    let first = build(&config(&Arc::new(TimingCache::new()), 3));
    let cache = contrary(&first);
    let before = cache.to_bytes();
    let (a, b) = (build(&config(&cache, 3)), build(&config(&cache, 3)));
    assert_eq!(a.to_bytes().unwrap(), b.to_bytes().unwrap());
    for g in &groups_of(&first).list {
        for n in &g.nodes {
            assert_eq!(chosen(&first, *n), g.candidates[0].name, "the operator's order, without times");
            assert_eq!(chosen(&a, *n), g.candidates.last().unwrap().name);
        }
    }
    // Nothing was measured: beside the binding the cache is as it was.
    let again = TimingCache::from_bytes(&before).unwrap();
    again.bind(&Binding::of(null().props()), false).unwrap();
    assert_eq!(cache.to_bytes(), again.to_bytes());
    // The times travel with the engine.
    let plan = a.plan.as_ref().unwrap();
    assert!(!plan.choices.is_empty());
    for c in &plan.choices {
        assert_eq!(c.timed[0].0, chosen(&a, c.nodes[0] as usize));
    }
    let bytes = a.to_bytes().unwrap();
    // SAFETY: the bytes outlive the image, which is used here only.
    let read = unsafe { EngineImage::from_bytes(&bytes, Arc::new(())).unwrap() };
    assert_eq!(read.plan.unwrap().choices, plan.choices);
    assert_eq!(read.options, a.options);
}

#[test]
fn level_0_takes_the_first_candidate_whatever_was_timed() {
    let first = build(&config(&Arc::new(TimingCache::new()), 0));
    let cache = contrary(&build(&config(&Arc::new(TimingCache::new()), 3)));
    let image = build(&config(&cache, 0));
    for g in &groups_of(&first).list {
        assert_eq!(g.candidates.len(), 1, "level 0 asks for one");
        assert_eq!(chosen(&image, g.nodes[0]), g.candidates[0].name);
    }
}

#[test]
fn entries_of_other_options_are_not_taken() {
    let cache = contrary(&build(&config(&Arc::new(TimingCache::new()), 3)));
    let image = build(&config(&cache, 4));
    for g in &groups_of(&image).list {
        assert_eq!(chosen(&image, g.nodes[0]), g.candidates[0].name);
    }
}

#[test]
fn a_cache_for_another_device_is_refused_unless_that_is_ignored() {
    let cache = contrary(&build(&config(&Arc::new(TimingCache::new()), 3)));
    let mut other = Binding::of(null().props());
    other.device = "another".into();
    cache.bind(&other, false).unwrap();
    let mut c = config(&cache, 3);
    let e = builder::build(&digits(), &c, &null(), &mut |_, _| true).unwrap_err();
    assert!(e.code == ErrorCode::VersionMismatch && e.message.contains("another"), "{e}");
    c.tuning.cache = CacheUse::Given { cache, ignore_mismatch: true };
    let image = build(&c);
    let all = groups_of(&image);
    let g = all.list.iter().find(|g| g.candidates.len() > 1).unwrap();
    assert_eq!(chosen(&image, g.nodes[0]), g.candidates.last().unwrap().name);
}

#[test]
fn scratch_is_limited() {
    // The determinant needs a copy of the matrices.
    let mut n = Network::new("n");
    let x = n.graph.add_input("x", Fact::new(DType::F32, &[4usize, 16, 16][..])).unwrap();
    let y = n.add("det", "Det", &[Some(x)], &Attrs::new()).unwrap();
    n.graph.add_output("y", y).unwrap();
    let with = |workspace: u64| {
        let options = BuildOptions { workspace, ..BuildOptions::default() };
        let config = BuilderConfig { options, ..BuilderConfig::default() };
        builder::build(&n.graph, &config, &null(), &mut |_, _| true)
    };
    let e = with(64).unwrap_err();
    assert!(e.code == ErrorCode::InvalidConfig && e.message.contains("64 bytes of scratch"), "{e}");
    let image = with(1 << 20).unwrap();
    assert_eq!(image.options.workspace, 1 << 20);
}

#[test]
fn weights_of_a_small_network_stay_in_the_cache() {
    assert!(!groups_of(&build(&config(&Arc::new(TimingCache::new()), 3))).cold_weights);
}
