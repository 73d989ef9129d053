//! Pointers from C: handles, outputs, strings, arrays and options.
//!
//! A handle is the address of a slot: a magic word of its type, a count of users, and the object. Slots are never given
//! back to the allocator; a destroyed one keeps a word that says so and is used again only after [`QUARANTINE`] others.
//! So a destroyed handle and a handle of another type are recognized without reading freed memory. A pointer that was
//! never a handle is read (eight bytes) and nearly always recognized; that one case cannot be made safe.
//!
//! Users are counted so that breaking the thread rules is an error instead of a data race: [`shared`] fails while
//! someone has the handle exclusively, [`exclusive`] while anyone has it, and a callback cannot destroy or re-enter the
//! handle that is calling it. An exclusive use that ends by a panic poisons the handle: only destroying it still works.
//!
//! The functions here dereference what C passed and are not marked unsafe, to keep some hundred call sites readable;
//! they are private to `capi`, and every caller is an exported `unsafe extern "C"` function whose caller made the
//! promise.

use super::guard;
use crate::base::Result;
use crate::{bail, ensure, err};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};

/// Destroyed slots that wait before the oldest is used again.
const QUARANTINE: usize = 256;

/// An opaque C type and what lies behind it.
pub(super) trait Handle: Sized {
    /// Eight letters that mark a live slot of this type.
    const MAGIC: &'static [u8; 8];
    type Content: Send + 'static;
}

/// What a handle points to.
struct Slot {
    magic: AtomicU64,
    /// -1: one exclusive user; n: n shared users.
    users: AtomicI32,
    poisoned: AtomicBool,
    content: AtomicPtr<()>,
}

static FREE: Mutex<VecDeque<usize>> = Mutex::new(VecDeque::new());

fn magic<H: Handle>() -> u64 {
    u64::from_le_bytes(*H::MAGIC)
}

/// What a magic word says, for messages.
fn describe(word: u64) -> &'static str {
    const KINDS: &[(&[u8; 8], &str)] = &[
        (b"SntrMemo", "host memory"),
        (b"SntrDevi", "a device"),
        (b"SntrBuff", "a buffer"),
        (b"SntrProf", "a profile"),
        (b"SntrAttr", "an attribute list"),
        (b"SntrNetw", "a network"),
        (b"SntrConf", "a builder config"),
        (b"SntrBuil", "a builder"),
        (b"SntrRunt", "a runtime"),
        (b"SntrEngi", "an engine"),
        (b"SntrCont", "a context"),
    ];
    KINDS.iter().find(|(m, _)| u64::from_le_bytes(**m) == word).map_or("not a handle of this library", |(_, name)| name)
}

/// The slot behind a pointer, when it is live and of the type.
fn slot<'a, H: Handle>(p: *const H, arg: &str) -> Result<&'a Slot> {
    ensure!(!p.is_null(), InvalidArgument, "{arg} is NULL");
    let expected = describe(magic::<H>());
    ensure!(
        (p as usize).is_multiple_of(align_of::<Slot>()),
        InvalidArgument,
        "{arg}: expected {expected}, got no handle of this library"
    );
    // SAFETY: not null and aligned; slots are never freed, and anything else is the caller's broken promise.
    let word = unsafe { &*p.cast::<AtomicU64>() }.load(Ordering::Acquire);
    if word == !magic::<H>() {
        bail!(InvalidArgument, "{arg}: {expected} that was destroyed");
    }
    ensure!(word == magic::<H>(), InvalidArgument, "{arg}: expected {expected}, got {}", describe_any(word));
    // SAFETY: a live magic word stands at the start of a slot.
    Ok(unsafe { &*p.cast::<Slot>() })
}

fn describe_any(word: u64) -> String {
    let destroyed = describe(!word);
    if destroyed.starts_with("not") { describe(word).into() } else { format!("{destroyed} that was destroyed") }
}

/// Takes the slot for one user; `to` is the new count from the old one.
fn take_use<'a, H: Handle>(p: *const H, arg: &str, to: fn(i32) -> Option<i32>) -> Result<&'a Slot> {
    let s = slot(p, arg)?;
    let taken = s.users.fetch_update(Ordering::Acquire, Ordering::Relaxed, to);
    ensure!(
        taken.is_ok(),
        InvalidState,
        "{arg}: {} that another call is using; one call at a time may change it",
        describe(magic::<H>())
    );
    // It may have been destroyed between the two checks.
    if s.magic.load(Ordering::Acquire) != magic::<H>() {
        release(s);
        bail!(InvalidArgument, "{arg}: {} that was destroyed", describe(magic::<H>()));
    }
    Ok(s)
}

fn release(s: &Slot) {
    let _ = s.users.fetch_update(Ordering::Release, Ordering::Relaxed, |n| Some(if n < 0 { 0 } else { n - 1 }));
}

fn check_poison<H: Handle>(s: &Slot, arg: &str) -> Result<()> {
    if s.poisoned.load(Ordering::Relaxed) {
        release(s);
        bail!(InvalidState, "{arg}: an earlier call on this handle ended in a panic; it can only be destroyed");
    }
    Ok(())
}

/// Shared use of a handle.
pub(super) struct Shared<'a, H: Handle> {
    slot: &'a Slot,
    _of: PhantomData<H>,
}

/// Exclusive use of a handle.
pub(super) struct Exclusive<'a, H: Handle> {
    slot: &'a Slot,
    _of: PhantomData<H>,
}

/// The object behind a `const T*`.
pub(super) fn shared<'a, H: Handle>(p: *const H, arg: &str) -> Result<Shared<'a, H>>
where
    H::Content: Sync,
{
    let slot = take_use(p, arg, |n| (n >= 0).then(|| n + 1))?;
    check_poison::<H>(slot, arg)?;
    Ok(Shared { slot, _of: PhantomData })
}

/// As [`shared`], for an argument that may be NULL.
pub(super) fn shared_opt<'a, H: Handle>(p: *const H, arg: &str) -> Result<Option<Shared<'a, H>>>
where
    H::Content: Sync,
{
    if p.is_null() { Ok(None) } else { shared(p, arg).map(Some) }
}

/// The object behind a `T*`.
pub(super) fn exclusive<'a, H: Handle>(p: *mut H, arg: &str) -> Result<Exclusive<'a, H>> {
    let slot = take_use(p, arg, |n| (n == 0).then_some(-1))?;
    check_poison::<H>(slot, arg)?;
    let taken = Exclusive { slot, _of: PhantomData };
    guard::test_panic();
    Ok(taken)
}

impl<H: Handle> Deref for Shared<'_, H> {
    type Target = H::Content;
    fn deref(&self) -> &H::Content {
        // SAFETY: a live slot of type H points to its content; nobody has it exclusively while we are counted.
        unsafe { &*self.slot.content.load(Ordering::Relaxed).cast() }
    }
}

impl<H: Handle> Deref for Exclusive<'_, H> {
    type Target = H::Content;
    fn deref(&self) -> &H::Content {
        // SAFETY: as for `Shared`, and we are the only user.
        unsafe { &*self.slot.content.load(Ordering::Relaxed).cast() }
    }
}

impl<H: Handle> DerefMut for Exclusive<'_, H> {
    fn deref_mut(&mut self) -> &mut H::Content {
        // SAFETY: we are the only user.
        unsafe { &mut *self.slot.content.load(Ordering::Relaxed).cast() }
    }
}

impl<H: Handle> Drop for Shared<'_, H> {
    fn drop(&mut self) {
        release(self.slot);
    }
}

impl<H: Handle> Drop for Exclusive<'_, H> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.slot.poisoned.store(true, Ordering::Relaxed);
        }
        release(self.slot);
    }
}

/// Makes a handle.
fn create<H: Handle>(content: H::Content) -> *mut H {
    let content = Box::into_raw(Box::new(content)).cast::<()>();
    let mut free = FREE.lock();
    let old = if free.len() > QUARANTINE { free.pop_front() } else { None };
    drop(free);
    let s: &Slot = match old {
        // SAFETY: slots in the list are never freed and have no user.
        Some(p) => unsafe { &*(p as *const Slot) },
        None => Box::leak(Box::new(Slot {
            magic: AtomicU64::new(0),
            users: AtomicI32::new(0),
            poisoned: AtomicBool::new(false),
            content: AtomicPtr::default(),
        })),
    };
    s.content.store(content, Ordering::Relaxed);
    s.poisoned.store(false, Ordering::Relaxed);
    s.magic.store(magic::<H>(), Ordering::Release);
    std::ptr::from_ref(s).cast_mut().cast()
}

/// Destroys a handle; NULL is fine.
pub(super) fn destroy<H: Handle>(p: *mut H, arg: &str) -> Result<()> {
    if p.is_null() {
        return Ok(());
    }
    let s = take_use(p, arg, |n| (n == 0).then_some(-1))?;
    s.magic.store(!magic::<H>(), Ordering::Release);
    let content = s.content.swap(std::ptr::null_mut(), Ordering::Relaxed);
    release(s);
    FREE.lock().push_back(std::ptr::from_ref(s) as usize);
    // SAFETY: made by `create` for this type, taken out once. Dropped last: a panic in it leaves a destroyed handle.
    drop(unsafe { Box::from_raw(content.cast::<H::Content>()) });
    Ok(())
}

/// Where a new handle goes.
pub(super) struct OutHandle<H: Handle>(*mut *mut H);

/// Checks the place for a new handle and sets it to NULL.
pub(super) fn out_handle<H: Handle>(p: *mut *mut H, arg: &str) -> Result<OutHandle<H>> {
    out(p, arg)?.set(std::ptr::null_mut());
    Ok(OutHandle(p))
}

impl<H: Handle> OutHandle<H> {
    pub(super) fn give(self, content: H::Content) {
        // SAFETY: checked by `out_handle`; the caller's memory.
        unsafe { self.0.write(create(content)) }
    }
}

/// Where an output goes.
pub(super) struct Out<T>(*mut T);

/// Checks the place for an output.
pub(super) fn out<T>(p: *mut T, arg: &str) -> Result<Out<T>> {
    ensure!(!p.is_null(), InvalidArgument, "{arg} is NULL");
    ensure!((p as usize).is_multiple_of(align_of::<T>()), InvalidArgument, "{arg} is not aligned for its type");
    Ok(Out(p))
}

impl<T> Out<T> {
    pub(super) fn set(&self, value: T) {
        // SAFETY: not null and aligned; the caller's memory.
        unsafe { self.0.write(value) }
    }
}

/// A string that must be there.
pub(super) fn text<'a>(p: *const c_char, arg: &str) -> Result<&'a str> {
    ensure!(!p.is_null(), InvalidArgument, "{arg} is NULL");
    // SAFETY: the caller passes a string that ends in NUL and stays for the call.
    let s = unsafe { CStr::from_ptr(p) };
    s.to_str().map_err(|_| err!(InvalidArgument, "{arg} is not UTF-8: {:?}", s.to_string_lossy()))
}

/// A string; NULL is the empty one.
pub(super) fn text_or_empty<'a>(p: *const c_char, arg: &str) -> Result<&'a str> {
    if p.is_null() { Ok("") } else { text(p, arg) }
}

/// An array; NULL is fine when it has no elements.
pub(super) fn slice<'a, T>(p: *const T, n: usize, arg: &str) -> Result<&'a [T]> {
    if n == 0 {
        return Ok(&[]);
    }
    ensure!(!p.is_null(), InvalidArgument, "{arg} is NULL, with {n} elements");
    ensure!((p as usize).is_multiple_of(align_of::<T>()), InvalidArgument, "{arg} is not aligned for its type");
    let fits = n.checked_mul(size_of::<T>()).is_some_and(|b| b <= isize::MAX as usize);
    ensure!(fits, InvalidArgument, "{arg}: {n} elements are more than memory holds");
    // SAFETY: the caller passes n elements that stay for the call.
    Ok(unsafe { std::slice::from_raw_parts(p, n) })
}

/// Writes a list into (buffer, capacity, count): with a NULL buffer only the count.
pub(super) fn write_list<T: Copy>(
    buffer: *mut T,
    capacity: usize,
    count: *mut usize,
    list: &[T],
    arg: &str,
) -> Result<()> {
    let n = list.len();
    if !buffer.is_null() {
        ensure!(capacity >= n, InvalidArgument, "{arg} has room for {capacity}, {n} are needed");
        ensure!(
            (buffer as usize).is_multiple_of(align_of::<T>()),
            InvalidArgument,
            "{arg} is not aligned for its type"
        );
        // SAFETY: the caller's buffer holds `capacity` elements.
        unsafe { std::ptr::copy_nonoverlapping(list.as_ptr(), buffer, n) };
    } else {
        ensure!(capacity == 0, InvalidArgument, "{arg} is NULL, with a capacity of {capacity}");
        ensure!(!count.is_null(), InvalidArgument, "both {arg} and the place for its count are NULL");
    }
    if !count.is_null() {
        out(count, "the count")?.set(n);
    }
    Ok(())
}

/// Writes a string into (buffer, capacity, length): the capacity counts the final NUL, the length does not.
pub(super) fn write_text(buffer: *mut c_char, capacity: usize, length: *mut usize, s: &str, arg: &str) -> Result<()> {
    let mut bytes: Vec<c_char> = s.bytes().map(|b| if b == 0 { b'?' } else { b } as c_char).collect();
    bytes.push(0);
    write_list(buffer, capacity, length, &bytes, arg)?;
    if !length.is_null() {
        out(length, "the length")?.set(bytes.len() - 1);
    }
    Ok(())
}

/// A struct of the caller's whose first field is its size as the caller knows it.
///
/// # Safety
/// The type is `repr(C)`, starts with `struct_size: usize`, and all zeros is a value of it.
pub(super) unsafe trait Versioned: Copy {}

/// Options from the caller: missing fields at the end are zero; NULL is all zeros.
pub(super) fn options<T: Versioned>(p: *const T, arg: &str) -> Result<T> {
    // SAFETY: all zeros is a value (the trait's promise).
    let mut own: T = unsafe { std::mem::zeroed() };
    if p.is_null() {
        return Ok(own);
    }
    let size = struct_size(p, arg)?;
    let n = size.min(size_of::<T>());
    // SAFETY: the caller's struct has `size` bytes; ours has at least n.
    unsafe { std::ptr::copy_nonoverlapping(p.cast::<u8>(), std::ptr::from_mut(&mut own).cast::<u8>(), n) };
    if size > n {
        // SAFETY: the rest of the caller's struct.
        let rest = unsafe { std::slice::from_raw_parts(p.cast::<u8>().add(n), size - n) };
        let known = rest.iter().all(|b| *b == 0);
        ensure!(known, VersionMismatch, "{arg} has fields that this version does not know, and they are not zero");
    }
    Ok(own)
}

/// Gives a struct to the caller: as many bytes as both know.
pub(super) fn write_struct<T: Versioned>(p: *mut T, value: T, arg: &str) -> Result<()> {
    out(p, arg)?;
    let n = struct_size(p, arg)?.min(size_of::<T>()) - size_of::<usize>();
    let skip = size_of::<usize>();
    // SAFETY: the caller's struct has that many bytes; the size field stays the caller's.
    unsafe {
        std::ptr::copy_nonoverlapping(std::ptr::from_ref(&value).cast::<u8>().add(skip), p.cast::<u8>().add(skip), n)
    };
    Ok(())
}

fn struct_size<T: Versioned>(p: *const T, arg: &str) -> Result<usize> {
    ensure!((p as usize).is_multiple_of(align_of::<T>()), InvalidArgument, "{arg} is not aligned for its type");
    // SAFETY: not null (checked by the callers); the first field is the size.
    let size = unsafe { p.cast::<usize>().read() };
    let fine = (size_of::<usize>()..=1 << 16).contains(&size);
    ensure!(fine, InvalidArgument, "{arg}: struct_size is {size}; set it to sizeof the struct");
    Ok(size)
}
