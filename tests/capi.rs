//! The C API as a C programmer meets it: the header, the exported symbols, the examples and misuse.
//!
//! Everything is compiled with the system's gcc and linked to the library of this very build, as shared object and as
//! archive; programs run under AddressSanitizer too. They run on the CPU.

mod capi {
    pub mod boundary;
    pub mod header;
    pub mod programs;
    pub mod sweep;
    pub mod tools;
}
