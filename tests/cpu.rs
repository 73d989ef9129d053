//! The tests that need no GPU, in one binary: one module a subject, so that linking happens once.

mod models;
mod ops;
