//! Compiled kernels, kept by content: in memory, and in a folder on disk.
//!
//! The key is a hash of everything that decides the cubin: the source with its headers, the generated code, defines,
//! architecture, compiler version and compiler flags (those that the environment adds included). So nothing is ever
//! invalidated: what changed has another key. Entries on disk carry a checksum; a damaged one counts as absent and is
//! written anew. Files are written under another name and renamed, so readers and other processes see whole entries.
//! Entries are never deleted; the folder may be removed at any time.

use super::{nvrtc, source};
use crate::base::knobs::{self, Knob};
use crate::base::Result;
use crate::base::error::ResultExt;
use crate::ops::tactic::KernelSpec;
use crate::{err, internal, log_verbose, log_warn};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// A compiled kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cubin {
    /// Hash of all that went in.
    pub key: [u8; 16],
    /// Name of the kernel, such as `softmax_1f2e3d4c`.
    pub entry: String,
    pub bytes: Vec<u8>,
    /// Compiler output: warnings, registers, spills.
    pub log: String,
}

/// The architecture to compile for, from a compute capability (major * 10 + minor): 90 gives `sm_90a`, 86 gives `sm_86`.
///
/// From 9.0 on the variant with the architecture's own instructions is used; a kernel is compiled for the device anyway.
pub fn arch_of(sm: u32) -> String {
    if sm >= 90 { format!("sm_{sm}a") } else { format!("sm_{sm}") }
}

/// Compiles every kernel on `threads` threads (0: all cores), in the order of `specs`. The first failure by that order is
/// the error.
pub fn compile_all(specs: &[KernelSpec], arch: &str, threads: usize) -> Result<Vec<Arc<Cubin>>> {
    compile_each(specs, arch, threads).into_iter().collect()
}

/// As [`compile_all`], with a result for each kernel: one that does not compile leaves the others usable.
pub fn compile_each(specs: &[KernelSpec], arch: &str, threads: usize) -> Vec<Result<Arc<Cubin>>> {
    let slots: Vec<OnceLock<Result<Arc<Cubin>>>> = specs.iter().map(|_| OnceLock::new()).collect();
    compile_as_ready(specs, arch, threads, &|i, r| slots[i].set(r).is_ok());
    slots.into_iter().map(|s| s.into_inner().unwrap_or_else(|| Err(internal!("a kernel was not compiled")))).collect()
}

/// As [`compile_each`], but each result is handed over, with its number in `specs`, as soon as it is there: from any thread
/// and in any order, earlier ones first by and large. False stops the work.
pub fn compile_as_ready(
    specs: &[KernelSpec],
    arch: &str,
    threads: usize,
    ready: &(dyn Fn(usize, Result<Arc<Cubin>>) -> bool + Sync),
) {
    match nvrtc::version() {
        Ok(version) => {
            let folder = folder();
            let compiler = Compiler { arch, version, folder: folder.as_deref(), lookup: &source::lookup };
            compiler.compile(specs, threads, ready);
        }
        Err(e) => {
            (0..specs.len()).all(|i| ready(i, Err(e.clone())));
        }
    }
}

/// Options that the environment adds to every NVRTC compilation, silently; part of the key.
const APPENDED_FLAGS: Knob = Knob { name: "NVRTC_APPEND_FLAGS", doc: "" };
const XDG_CACHE_HOME: Knob = Knob { name: "XDG_CACHE_HOME", doc: "" };
const HOME: Knob = Knob { name: "HOME", doc: "" };

/// The cache folder, or nothing when it is switched off or there is no home.
pub fn folder() -> Option<PathBuf> {
    match knobs::CACHE_DIR.get().as_deref() {
        Some("off") => None,
        Some(folder) => Some(PathBuf::from(folder)),
        None => match XDG_CACHE_HOME.get() {
            Some(cache) => Some(Path::new(&cache).join("sinter")),
            None => HOME.get().map(|home| Path::new(&home).join(".cache/sinter")),
        },
    }
    .map(|base| base.join("kernels"))
}

/// Kernels of this process by key. Emptied when it holds more than [`MEMORY_BYTES`].
static MEMORY: Mutex<Option<(HashMap<[u8; 16], Arc<Cubin>>, usize)>> = Mutex::new(None);
const MEMORY_BYTES: usize = 256 << 20;

fn recall(key: &[u8; 16]) -> Option<Arc<Cubin>> {
    MEMORY.lock().as_ref().and_then(|(map, _)| map.get(key).cloned())
}

fn remember(cubin: &Arc<Cubin>) {
    let mut memory = MEMORY.lock();
    let (map, bytes) = memory.get_or_insert_default();
    if *bytes > MEMORY_BYTES {
        map.clear();
        *bytes = 0;
    }
    if map.insert(cubin.key, cubin.clone()).is_none() {
        *bytes += cubin.bytes.len() + cubin.log.len();
    }
}

struct Compiler<'a> {
    arch: &'a str,
    version: (i32, i32),
    folder: Option<&'a Path>,
    lookup: &'a (dyn Fn(&str) -> Option<&'static str> + Sync),
}

/// One kernel that is to be compiled.
struct Job<'a> {
    spec: &'a KernelSpec,
    unit: source::Unit,
    key: [u8; 16],
    entry: String,
}

impl Compiler<'_> {
    fn compile(&self, specs: &[KernelSpec], threads: usize, ready: &(dyn Fn(usize, Result<Arc<Cubin>>) -> bool + Sync)) {
        // Several specs may be the same kernel: one job for each key.
        let mut jobs: Vec<(Job, Vec<usize>)> = Vec::new();
        let mut by_key: HashMap<[u8; 16], usize> = HashMap::new();
        for (i, spec) in specs.iter().enumerate() {
            let job = match self.job(spec) {
                Ok(job) => job,
                Err(e) if ready(i, Err(e.clone())) => continue,
                Err(_) => return,
            };
            let at = *by_key.entry(job.key).or_insert_with(|| {
                jobs.push((job, Vec::new()));
                jobs.len() - 1
            });
            jobs[at].1.push(i);
        }
        self.run(&jobs, threads, ready);
    }

    fn job<'a>(&self, spec: &'a KernelSpec) -> Result<Job<'a>> {
        let unit = source::unit_from(&spec.file, &spec.generated, &|name| (self.lookup)(name))?;
        let mut hasher = Xxh3::new();
        let mut feed = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        feed(b"sinter kernel 1");
        feed(spec.file.as_bytes());
        feed(&unit.hash.to_le_bytes());
        for (name, value) in &spec.defines {
            feed(name.as_bytes());
            feed(value.as_bytes());
        }
        feed(self.arch.as_bytes());
        feed(format!("{}.{}", self.version.0, self.version.1).as_bytes());
        feed(nvrtc::flags(self.version).join(" ").as_bytes());
        feed(APPENDED_FLAGS.get().unwrap_or_default().as_bytes());
        let key = hasher.digest128().to_be_bytes();
        let stem: String = nvrtc::file_stem(&spec.file)
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        let entry = format!("{stem}_{}", &hex(&key)[..8]);
        Ok(Job { spec, unit, key, entry })
    }

    /// Works through the jobs on up to `threads` threads.
    fn run(
        &self,
        jobs: &[(Job, Vec<usize>)],
        threads: usize,
        ready: &(dyn Fn(usize, Result<Arc<Cubin>>) -> bool + Sync),
    ) {
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = if threads == 0 { cores() } else { threads }.min(jobs.len());
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let idx = next.fetch_add(1, Ordering::Relaxed);
                let Some((job, numbers)) = jobs.get(idx) else { return };
                let done = self.one(job);
                if !numbers.iter().all(|i| ready(*i, done.clone())) {
                    next.store(jobs.len(), Ordering::Relaxed);
                }
            }
        };
        let all_known = jobs.iter().all(|(job, _)| recall(&job.key).is_some());
        if all_known {
            work();
        } else {
            std::thread::scope(|scope| {
                for n in 0..threads {
                    let builder = std::thread::Builder::new().name(format!("sinter-nvrtc-{n}"));
                    let spawned = builder.stack_size(nvrtc::STACK_BYTES).spawn_scoped(scope, work);
                    if let Err(e) = spawned {
                        log_warn!("compiling kernels on {n} threads instead of {threads}: {e}");
                        break;
                    }
                }
            });
            work(); // What is left when not one thread could be started; else nothing.
        }
    }

    fn one(&self, job: &Job) -> Result<Arc<Cubin>> {
        if let Some(found) = recall(&job.key) {
            return Ok(found);
        }
        let path = self.folder.map(|f| f.join(format!("{}.cubin", hex(&job.key))));
        if let Some(found) = path.as_deref().and_then(|p| read_entry(p, &job.key)) {
            let found = Arc::new(found);
            remember(&found);
            return Ok(found);
        }
        let started = std::time::Instant::now();
        let mut defines = vec![("KERNEL_NAME".to_string(), job.entry.clone())];
        defines.extend(job.spec.defines.iter().cloned());
        let headers: Vec<(&str, &str)> = job.unit.headers.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
        let compiled = nvrtc::compile(&job.unit.text, &job.spec.file, &headers, &defines, self.arch)?;
        log_verbose!("compiled {} for {} in {} ms", job.entry, self.arch, started.elapsed().as_millis());
        let cubin =
            Arc::new(Cubin { key: job.key, entry: job.entry.clone(), bytes: compiled.cubin, log: compiled.log });
        remember(&cubin);
        if let Some(path) = path {
            static WARNED: AtomicBool = AtomicBool::new(false);
            if let Err(e) = write_entry(&path, &cubin) {
                if !WARNED.swap(true, Ordering::Relaxed) {
                    log_warn!("the kernel cache cannot be written ({e}); engines are built without it");
                }
            }
        }
        Ok(cubin)
    }
}

/// Lower-case hexadecimal digits of a key.
pub fn hex(key: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*key))
}

const MAGIC: &[u8; 8] = b"SNTRKRN1";

/// Layout of an entry: magic, key, lengths of entry name, log and cubin (u64 each), their bytes, xxh3-128 of all before.
fn encode(cubin: &Cubin) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + cubin.entry.len() + cubin.log.len() + cubin.bytes.len());
    out.extend(MAGIC);
    out.extend(cubin.key);
    let parts = [cubin.entry.as_bytes(), cubin.log.as_bytes(), &cubin.bytes];
    parts.iter().for_each(|p| out.extend((p.len() as u64).to_le_bytes()));
    parts.iter().for_each(|p| out.extend(*p));
    out.extend(xxh3_128(&out).to_le_bytes());
    out
}

/// `None` for anything that is not a whole entry of this key.
fn decode(bytes: &[u8], key: &[u8; 16]) -> Option<Cubin> {
    let (body, sum) = bytes.split_last_chunk::<16>()?;
    if xxh3_128(body) != u128::from_le_bytes(*sum) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?.strip_prefix(key)?;
    let mut lengths = [0usize; 3];
    for length in &mut lengths {
        let (bytes, after) = rest.split_first_chunk::<8>()?;
        *length = usize::try_from(u64::from_le_bytes(*bytes)).ok()?;
        rest = after;
    }
    let (entry, rest) = rest.split_at_checked(lengths[0])?;
    let (log, cubin) = rest.split_at_checked(lengths[1])?;
    if cubin.len() != lengths[2] {
        return None;
    }
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).ok();
    Some(Cubin { key: *key, entry: text(entry)?, bytes: cubin.to_vec(), log: text(log)? })
}

fn read_entry(path: &Path, key: &[u8; 16]) -> Option<Cubin> {
    let bytes = std::fs::read(path).ok()?;
    let found = decode(&bytes, key);
    if found.is_none() {
        log_warn!("kernel cache entry {} is damaged; the kernel is compiled again", path.display());
    }
    found
}

fn write_entry(path: &Path, cubin: &Cubin) -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().ok_or_else(|| err!(Io, "{} has no folder", path.display()))?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!(".{}.{}.{n}.tmp", hex(&cubin.key), std::process::id()));
    let written = std::fs::write(&temporary, encode(cubin)).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // Half a file under a temporary name harms nobody, but fills the disk; a failure to remove it changes nothing.
        let _: std::io::Result<()> = std::fs::remove_file(&temporary);
    }
    written.with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Cubin {
        Cubin { key: [7; 16], entry: "f_07070707".into(), bytes: vec![1, 2, 3, 4, 5], log: "fine\n".into() }
    }

    /// A fresh folder below the target's temporary folder.
    fn temp_folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("sinter-test-{}-{name}", std::process::id()));
        let _: std::io::Result<()> = std::fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn architectures() {
        let names: Vec<_> = [75, 80, 86, 89, 90, 100, 120].map(arch_of).to_vec();
        assert_eq!(names, ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"]);
    }

    #[test]
    fn an_entry_survives_a_round_trip_and_nothing_else_is_accepted() {
        let good = encode(&example());
        assert_eq!(decode(&good, &[7; 16]), Some(example()));
        assert_eq!(decode(&good, &[8; 16]), None, "another key");
        for cut in 0..good.len() {
            assert_eq!(decode(&good[..cut], &[7; 16]), None, "cut at {cut}");
        }
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            assert_eq!(decode(&bad, &[7; 16]), None, "flipped byte {i}");
        }
    }

    #[test]
    fn lengths_beyond_the_file_are_refused_even_with_a_right_checksum() {
        let mut bad = encode(&example());
        bad.truncate(bad.len() - 16);
        bad[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
        bad.extend(xxh3_128(&bad).to_le_bytes());
        assert_eq!(decode(&bad, &[7; 16]), None);
    }

    #[test]
    fn entries_are_written_whole_and_read_back() {
        let folder = temp_folder("entries");
        let path = folder.join("kernels/x.cubin");
        assert_eq!(read_entry(&path, &[7; 16]), None);
        write_entry(&path, &example()).unwrap();
        assert_eq!(read_entry(&path, &[7; 16]), Some(example()));
        let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file is left");
        std::fs::remove_dir_all(folder).unwrap();
    }

    const SCALE: &str = "#include \"generated.cuh\"\nextern \"C\" __global__ void KERNEL_NAME(float* x) { x[threadIdx.x] *= FACTOR; }\n";

    fn compile(compiler: &Compiler, specs: &[KernelSpec], threads: usize) -> Vec<Result<Arc<Cubin>>> {
        let slots: Vec<OnceLock<Result<Arc<Cubin>>>> = specs.iter().map(|_| OnceLock::new()).collect();
        compiler.compile(specs, threads, &|i, r| slots[i].set(r).is_ok());
        slots.into_iter().map(|s| s.into_inner().unwrap()).collect()
    }

    fn table(name: &str) -> Option<&'static str> {
        (name == "math/scale.cu").then_some(SCALE)
    }

    fn spec(factor: u32) -> KernelSpec {
        KernelSpec::new("math/scale.cu").define("FACTOR", factor)
    }

    #[test]
    fn the_key_sees_everything() {
        let key = |arch, version, spec: &KernelSpec| {
            Compiler { arch, version, folder: None, lookup: &table }.job(spec).unwrap().key
        };
        let base = key("sm_90a", (13, 0), &spec(2));
        assert_eq!(base, key("sm_90a", (13, 0), &spec(2)));
        let mut generated = spec(2);
        generated.generated = "// more".into();
        let others = [
            key("sm_80", (13, 0), &spec(2)),
            key("sm_90a", (13, 1), &spec(2)),
            key("sm_90a", (13, 0), &spec(3)),
            key("sm_90a", (13, 0), &generated),
        ];
        assert!(others.iter().all(|k| *k != base));
    }

    #[test]
    fn kernels_are_compiled_once_and_found_again() {
        if !nvrtc::tests::have_nvrtc() {
            return;
        }
        let folder = temp_folder("compile");
        let compiler =
            Compiler { arch: "sm_90a", version: nvrtc::version().unwrap(), folder: Some(&folder), lookup: &table };
        let specs = [spec(101), spec(102), spec(101), KernelSpec::new("no.cu")];
        let first = compile(&compiler, &specs, 2);
        let ok: Vec<_> = first[..3].iter().map(|r| r.as_ref().unwrap().clone()).collect();
        assert!(Arc::ptr_eq(&ok[0], &ok[2]), "the same spec is one kernel");
        assert_ne!(ok[0].key, ok[1].key);
        assert_eq!(ok[0].entry, format!("scale_{}", &hex(&ok[0].key)[..8]));
        assert!(ok[0].bytes.windows(ok[0].entry.len()).any(|w| w == ok[0].entry.as_bytes()));
        assert!(first[3].as_ref().unwrap_err().message.contains("no.cu"));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);

        // From disk, with the memory emptied; the second file is damaged and must be made again.
        *MEMORY.lock() = None;
        let damaged = folder.join(format!("{}.cubin", hex(&ok[1].key)));
        let mut bytes = std::fs::read(&damaged).unwrap();
        bytes[60] ^= 1;
        std::fs::write(&damaged, &bytes).unwrap();
        let again = compile(&compiler, &specs[..2], 1);
        assert_eq!(*again[0].as_ref().unwrap().as_ref(), *ok[0]);
        assert_eq!(again[1].as_ref().unwrap().bytes, ok[1].bytes);
        assert!(decode(&std::fs::read(&damaged).unwrap(), &ok[1].key).is_some(), "the entry was written anew");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn without_nvrtc_each_kernel_has_the_reason() {
        if nvrtc::is_present().is_ok() {
            return;
        }
        let e = compile_all(&[spec(1)], "sm_90a", 1).unwrap_err();
        assert!(e.message.contains("libnvrtc"), "{}", e.message);
    }
}
