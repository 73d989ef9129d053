//! The tests that need no GPU, in one binary: one module a subject, so that linking happens once.

mod dynamic;
mod models;
mod ops;
mod passes;
mod tuning;

#[test]
fn every_model_agrees_with_its_recorded_outputs_on_the_cpu() {
    models::check_all(&sinter::device::DeviceRef::open(sinter::device::DeviceKind::Cpu).unwrap(), false);
}

#[test]
fn shapes_that_follow_from_data_are_right_on_the_cpu() {
    dynamic::check_all(&sinter::device::DeviceRef::open(sinter::device::DeviceKind::Cpu).unwrap());
}
