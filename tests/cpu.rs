//! The tests that need no GPU, in one binary: one module a subject, so that linking happens once.

mod models;
mod ops;
mod passes;

#[test]
fn every_model_agrees_with_its_recorded_outputs_on_the_cpu() {
    models::check_all(&sinter::device::DeviceRef::open(sinter::device::DeviceKind::Cpu).unwrap(), false);
}
