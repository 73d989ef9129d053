//! What tuning has measured, kept for the next build: the tactics of each problem with their times, fastest first.
//!
//! Times hold for one device, driver and library: a cache is bound to them by the first build that uses it, and is refused
//! elsewhere. With an entry for every problem a build times nothing and chooses the same again.
//!
//! In bytes: magic, binding, entries sorted by key, and XXH3-128 of all before. Bytes are not trusted.

use crate::base::Result;
use crate::base::error::ResultExt;
use crate::device::DeviceProps;
use crate::device::cuda::{kernel_cache, source};
use crate::engine::codec::{Reader, Writer};
use crate::ops::Tactic;
use crate::{bail, ensure, err};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Hash of a problem and of the options that decide its candidates.
pub type Key = [u8; 16];

/// A tactic and its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timed {
    /// [`tactic_hash`] of the tactic.
    pub tactic: u64,
    /// Milliseconds; finite and not negative.
    pub ms: f32,
}

/// What times hold for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub device: String,
    pub sm: u32,
    pub n_sm: u32,
    pub driver: i32,
    /// Packed version of this library.
    pub library: u32,
    /// Hash of the kernels' sources.
    pub kernels: u64,
}

impl Binding {
    /// This library on this device.
    pub fn of(props: &DeviceProps) -> Binding {
        static KERNELS: OnceLock<u64> = OnceLock::new();
        let kernels = *KERNELS.get_or_init(|| {
            let mut h = Xxh3::new();
            for (name, text) in source::files() {
                for part in [name, text] {
                    h.update(&(part.len() as u64).to_le_bytes());
                    h.update(part.as_bytes());
                }
            }
            h.digest()
        });
        Binding {
            device: props.name.clone(),
            sm: props.sm,
            n_sm: props.n_sm,
            driver: props.driver_version,
            library: crate::VERSION_PACKED,
            kernels,
        }
    }

    fn write(&self, w: &mut Writer) {
        w.str(&self.device);
        w.u32(self.sm);
        w.u32(self.n_sm);
        w.u32(self.driver as u32);
        w.u32(self.library);
        w.u64(self.kernels);
    }
}

impl std::fmt::Display for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (driver, library) = (self.driver, crate::version_text(self.library));
        write!(
            f,
            "{} (sm_{}, {} multiprocessors), driver {}.{}, Sinter {library} with kernels {:016x}",
            self.device,
            self.sm,
            self.n_sm,
            driver / 1000,
            driver % 1000 / 10,
            self.kernels
        )
    }
}

/// Which entry stays when two caches know one problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The one that is there.
    Keep,
    /// The one that comes.
    Replace,
    /// The one whose first tactic is faster.
    Faster,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Content {
    binding: Option<Binding>,
    entries: BTreeMap<Key, Vec<Timed>>,
}

/// See the module's text. Shared between builds; every method takes a lock for its own duration.
#[derive(Debug, Default)]
pub struct TimingCache {
    content: Mutex<Content>,
}

const MAGIC: &[u8; 8] = b"SNTRTIM1";

impl TimingCache {
    /// Empty and not bound to a device yet.
    pub fn new() -> TimingCache {
        TimingCache::default()
    }

    /// Reads what [`Self::to_bytes`] wrote. No bytes at all are an empty cache.
    pub fn from_bytes(bytes: &[u8]) -> Result<TimingCache> {
        if bytes.is_empty() {
            return Ok(TimingCache::new());
        }
        let (body, sum) = bytes.split_last_chunk::<16>().ok_or_else(|| err!(CorruptData, "a timing cache of {} bytes", bytes.len()))?;
        let Some(rest) = body.strip_prefix(MAGIC) else { bail!(Parse, "these bytes are no timing cache of Sinter") };
        ensure!(xxh3_128(body) == u128::from_le_bytes(*sum), CorruptData, "damaged timing cache: the checksum is wrong");
        let mut r = Reader::new(rest, "timing cache");
        let binding = match r.bool()? {
            false => None,
            true => Some(Binding {
                device: r.str()?,
                sm: r.u32()?,
                n_sm: r.u32()?,
                driver: r.u32()? as i32,
                library: r.u32()?,
                kernels: r.u64()?,
            }),
        };
        let mut entries = BTreeMap::new();
        for _ in 0..r.len(20)? {
            let mut key = Key::default();
            key.copy_from_slice(r.take(16)?);
            let list = (0..r.len(12)?).map(|_| Ok(Timed { tactic: r.u64()?, ms: f32::from_bits(r.u32()?) }));
            let list: Vec<Timed> = list.collect::<Result<_>>()?;
            let sane = !list.is_empty() && list.iter().all(|t| is_time(t.ms));
            ensure!(sane, CorruptData, "timing cache: an entry without a time");
            entries.insert(key, list);
        }
        r.end()?;
        Ok(TimingCache { content: Mutex::new(Content { binding, entries }) })
    }

    /// The same content gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let c = self.content.lock();
        let mut w = Writer { bytes: MAGIC.to_vec() };
        w.u8(c.binding.is_some() as u8);
        if let Some(b) = &c.binding {
            b.write(&mut w);
        }
        w.len(c.entries.len());
        for (key, list) in &c.entries {
            w.bytes.extend(key);
            w.len(list.len());
            for t in list {
                w.u64(t.tactic);
                w.u32(t.ms.to_bits());
            }
        }
        let sum = xxh3_128(&w.bytes).to_le_bytes();
        w.bytes.extend(sum);
        w.bytes
    }

    /// What the times hold for; `None` until the first build.
    pub fn binding(&self) -> Option<Binding> {
        self.content.lock().binding.clone()
    }

    /// Binds an unbound cache. A cache that is bound to something else is an error, unless that is to be ignored: then its
    /// times are believed all the same.
    pub fn bind(&self, to: &Binding, ignore_mismatch: bool) -> Result<()> {
        let mut c = self.content.lock();
        match &c.binding {
            None => c.binding = Some(to.clone()),
            Some(b) if b == to || ignore_mismatch => {}
            Some(b) => bail!(VersionMismatch, "the timing cache was made for {b}; this is {to}"),
        }
        Ok(())
    }

    /// Number of problems.
    pub fn len(&self) -> usize {
        self.content.lock().entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All keys, sorted.
    pub fn keys(&self) -> Vec<Key> {
        self.content.lock().entries.keys().copied().collect()
    }

    /// The tactic that builds will choose for a problem.
    pub fn query(&self, key: &Key) -> Option<Timed> {
        self.content.lock().entries.get(key).and_then(|l| l.first().copied())
    }

    /// Everything that was timed for a problem, the choice first.
    pub fn entry(&self, key: &Key) -> Option<Vec<Timed>> {
        self.content.lock().entries.get(key).cloned()
    }

    /// Makes a tactic the choice for a problem; what else was timed stays behind it. A time that is not a number deletes
    /// the entry. False when there was nothing to delete.
    pub fn update(&self, key: &Key, value: Timed) -> Result<bool> {
        let mut c = self.content.lock();
        if value.ms.is_nan() {
            return Ok(c.entries.remove(key).is_some());
        }
        ensure!(is_time(value.ms), InvalidArgument, "{} ms is no time of a tactic", value.ms);
        let list = c.entries.entry(*key).or_default();
        list.retain(|t| t.tactic != value.tactic);
        list.insert(0, value);
        Ok(true)
    }

    /// Replaces an entry; the choice comes first.
    pub(crate) fn set(&self, key: &Key, list: Vec<Timed>) {
        if !list.is_empty() && list.iter().all(|t| is_time(t.ms)) {
            self.content.lock().entries.insert(*key, list);
        }
    }

    /// Takes over the entries of another cache; how many were new or changed.
    pub fn combine(&self, other: &TimingCache, conflict: Conflict, ignore_mismatch: bool) -> Result<usize> {
        // A copy first: two caches may be combined with each other, or one with itself, from two threads.
        let theirs = other.content.lock().clone();
        if let Some(b) = &theirs.binding {
            self.bind(b, ignore_mismatch)?;
        }
        let mut c = self.content.lock();
        let mut n = 0;
        for (key, list) in theirs.entries {
            let take = match (c.entries.get(&key), conflict) {
                (None, _) | (_, Conflict::Replace) => true,
                (_, Conflict::Keep) => false,
                (Some(ours), Conflict::Faster) => list[0].ms < ours[0].ms,
            };
            if take && c.entries.get(&key) != Some(&list) {
                c.entries.insert(key, list);
                n += 1;
            }
        }
        Ok(n)
    }

    /// Forgets everything, the binding too.
    pub fn reset(&self) {
        *self.content.lock() = Content::default();
    }

    /// Reads a file; `None` when there is none.
    pub fn read_file(path: &Path) -> Result<Option<TimingCache>> {
        match std::fs::read(path) {
            Ok(bytes) => TimingCache::from_bytes(&bytes).map(Some).with_context(|| format!("timing cache {}", path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(crate::base::Error::from(e).context(format!("timing cache {}", path.display()))),
        }
    }

    /// Writes a file as a whole, with what another process put there meanwhile.
    pub fn write_file(&self, path: &Path) -> Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let merged = TimingCache { content: Mutex::new(self.content.lock().clone()) };
        if let Ok(Some(there)) = TimingCache::read_file(path) {
            // One for another device is replaced.
            let _: Result<usize> = merged.combine(&there, Conflict::Keep, false);
        }
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.{}.part", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let part = path.with_file_name(name);
        let done = std::fs::write(&part, merged.to_bytes()).and_then(|()| std::fs::rename(&part, path));
        if done.is_err() {
            let _: std::io::Result<()> = std::fs::remove_file(&part);
        }
        done.with_context(|| format!("writing timing cache {}", path.display()))
    }

    /// The file that builds use unless they are given a cache: one for each binding, beside the compiled kernels. `None`
    /// when caches on disk are off.
    pub fn default_file(binding: &Binding) -> Option<PathBuf> {
        if crate::base::knobs::TIMING_CACHE.get().as_deref() == Some("off") {
            return None;
        }
        let mut w = Writer::default();
        binding.write(&mut w);
        let name = format!("{}.timing", kernel_cache::hex(&xxh3_128(&w.bytes).to_be_bytes()));
        Some(kernel_cache::folder()?.parent()?.join("timing").join(name))
    }
}

fn is_time(ms: f32) -> bool {
    ms.is_finite() && ms >= 0.0
}

/// Hash of everything that makes a tactic what it is, but for the text of its kernels.
pub fn tactic_hash(t: &Tactic) -> u64 {
    let mut h = Xxh3::new();
    let mut feed = |s: &str| {
        h.update(&(s.len() as u64).to_le_bytes());
        h.update(s.as_bytes());
    };
    feed(&t.name);
    feed(t.source.name());
    for k in &t.kernels {
        feed(&k.file);
        k.defines.iter().for_each(|(n, v)| [n, v].into_iter().for_each(|s| feed(s)));
        feed(&k.generated);
    }
    t.params.iter().for_each(|p| feed(&p.to_string()));
    h.digest()
}

/// The key of a problem that is written out as text.
pub fn key_of_text(text: &str) -> Key {
    xxh3_128(text.as_bytes()).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(device: &str) -> Binding {
        Binding { device: device.into(), sm: 90, n_sm: 132, driver: 13000, library: 1, kernels: 7 }
    }

    fn timed(tactic: u64, ms: f32) -> Timed {
        Timed { tactic, ms }
    }

    fn example() -> TimingCache {
        let c = TimingCache::new();
        c.bind(&binding("A"), false).unwrap();
        c.set(&[1; 16], vec![timed(10, 0.5), timed(11, 0.75)]);
        c.set(&[2; 16], vec![timed(20, 0.25)]);
        c
    }

    #[test]
    fn bytes_hold_everything_and_nothing_damaged_is_read() {
        let c = example();
        let bytes = c.to_bytes();
        let read = TimingCache::from_bytes(&bytes).unwrap();
        assert_eq!(*read.content.lock(), *c.content.lock());
        assert_eq!(read.to_bytes(), bytes);
        assert!(TimingCache::from_bytes(&[]).unwrap().is_empty());
        for cut in 1..bytes.len() {
            assert!(TimingCache::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 4;
            assert!(TimingCache::from_bytes(&bad).is_err(), "flipped byte {i}");
        }
    }

    #[test]
    fn counts_beyond_the_bytes_are_refused_even_with_a_right_checksum() {
        let bytes = example().to_bytes();
        for at in 8..bytes.len() - 20 {
            let mut bad = bytes[..bytes.len() - 16].to_vec();
            bad[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            let sum = xxh3_128(&bad).to_le_bytes();
            bad.extend(sum);
            // It may still be read where the bytes are a hash; it must not fail otherwise than with an error.
            let _: Result<TimingCache> = TimingCache::from_bytes(&bad);
        }
        let mut bad = bytes[..8].to_vec();
        bad.push(0);
        bad.extend(u32::MAX.to_le_bytes());
        let sum = xxh3_128(&bad).to_le_bytes();
        bad.extend(sum);
        assert!(TimingCache::from_bytes(&bad).unwrap_err().message.contains("does not fit"));
    }

    #[test]
    fn times_hold_for_one_device() {
        let c = example();
        c.bind(&binding("A"), false).unwrap();
        let e = c.bind(&binding("B"), false).unwrap_err();
        assert_eq!(e.code, crate::base::ErrorCode::VersionMismatch);
        c.bind(&binding("B"), true).unwrap();
        assert_eq!(c.binding().unwrap().device, "A", "ignoring a mismatch changes nothing");
        c.reset();
        assert!(c.is_empty() && c.binding().is_none());
        c.bind(&binding("B"), false).unwrap();
    }

    #[test]
    fn entries_are_edited() {
        let c = example();
        assert_eq!(c.query(&[1; 16]), Some(timed(10, 0.5)));
        assert!(c.update(&[1; 16], timed(11, 0.4)).unwrap());
        assert_eq!(c.entry(&[1; 16]).unwrap(), [timed(11, 0.4), timed(10, 0.5)]);
        assert!(c.update(&[3; 16], timed(30, 1.0)).unwrap());
        assert_eq!(c.keys(), [[1; 16], [2; 16], [3; 16]]);
        assert!(c.update(&[3; 16], timed(0, f32::NAN)).unwrap());
        assert!(!c.update(&[3; 16], timed(0, f32::NAN)).unwrap(), "nothing is left to delete");
        assert_eq!(c.query(&[3; 16]), None);
        assert!(c.update(&[1; 16], timed(1, -1.0)).is_err() && c.update(&[1; 16], timed(1, f32::INFINITY)).is_err());
    }

    #[test]
    fn caches_are_combined_by_a_policy() {
        let other = TimingCache::new();
        other.set(&[1; 16], vec![timed(12, 0.6)]);
        other.set(&[2; 16], vec![timed(22, 0.2)]);
        other.set(&[4; 16], vec![timed(40, 1.0)]);
        let first = |conflict| {
            let c = example();
            let n = c.combine(&other, conflict, false).unwrap();
            (n, [1, 2, 4].map(|k| c.query(&[k; 16]).unwrap().tactic))
        };
        assert_eq!(first(Conflict::Keep), (1, [10, 20, 40]));
        assert_eq!(first(Conflict::Replace), (3, [12, 22, 40]));
        assert_eq!(first(Conflict::Faster), (2, [10, 22, 40]));
        other.bind(&binding("B"), false).unwrap();
        assert!(example().combine(&other, Conflict::Keep, false).is_err());
        assert_eq!(example().combine(&other, Conflict::Keep, true).unwrap(), 1);
        let c = example();
        assert_eq!(c.combine(&c, Conflict::Replace, false).unwrap(), 0, "with itself");
    }

    #[test]
    fn files_are_merged() {
        let folder = std::env::temp_dir().join(format!("sinter-test-{}-timing", std::process::id()));
        let path = folder.join("x.timing");
        assert!(TimingCache::read_file(&path).unwrap().is_none());
        example().write_file(&path).unwrap();
        let more = TimingCache::new();
        more.set(&[1; 16], vec![timed(12, 0.6)]);
        more.set(&[9; 16], vec![timed(90, 0.6)]);
        more.write_file(&path).unwrap();
        let read = TimingCache::read_file(&path).unwrap().unwrap();
        assert_eq!([1, 2, 9].map(|k| read.query(&[k; 16]).unwrap().tactic), [12, 20, 90]);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "no other file is left");
        std::fs::write(&path, b"SNTRTIM1 and more").unwrap();
        assert!(TimingCache::read_file(&path).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
