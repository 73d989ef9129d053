//! Whole networks on the GPU.

use crate::{gpu, have_nvrtc, models};
use sinter::device::DeviceRef;

fn check(fp16: bool) {
    let Some(gpu) = gpu() else { return };
    if have_nvrtc() {
        models::check_all(&DeviceRef::Cuda(gpu.device.clone()), fp16);
    }
}

#[test]
fn every_model_agrees_with_its_recorded_outputs_in_f32() {
    check(false);
}

#[test]
fn every_model_agrees_with_its_recorded_outputs_in_f16() {
    check(true);
}

#[test]
fn shapes_that_follow_from_data_are_right() {
    let Some(gpu) = gpu() else { return };
    if have_nvrtc() {
        crate::dynamic::check_all(&DeviceRef::Cuda(gpu.device.clone()));
    }
}
