//! Operators: one home each.
pub mod tactic;
