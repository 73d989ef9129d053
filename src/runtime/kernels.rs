//! The compiled kernels of an engine, loaded on its device.

use crate::base::{Result, knobs};
use crate::device::DeviceRef;
use crate::device::cuda::{Function, Module, Start};
use crate::engine::{DevicePlan, KernelImage};
use crate::internal;
use crate::ops::{KernelSpec, Tactic};
use std::collections::HashMap;

/// Functions by what they were compiled from. The modules stay loaded as long as this lives.
#[derive(Default)]
pub struct LoadedKernels {
    functions: HashMap<KernelSpec, Function>,
    _modules: Vec<Module>,
}

impl LoadedKernels {
    /// Loads the kernels of a plan; nothing without one.
    pub fn load(device: &DeviceRef, plan: Option<&DevicePlan>) -> Result<LoadedKernels> {
        Self::load_images(device, plan.map_or(&[], |p| &p.kernels))
    }

    pub fn load_images(device: &DeviceRef, images: &[KernelImage]) -> Result<LoadedKernels> {
        let mut loaded = LoadedKernels::default();
        images.iter().try_for_each(|k| loaded.add(device, k))?;
        Ok(loaded)
    }

    /// Loads one kernel more, unless it is there.
    pub fn add(&mut self, device: &DeviceRef, k: &KernelImage) -> Result<()> {
        let DeviceRef::Cuda(cuda) = device else { return Ok(()) };
        if self.functions.contains_key(&k.spec) {
            return Ok(());
        }
        let module = Module::load(cuda, &k.cubin)?;
        let start = match knobs::OVERLAP.get().as_deref() {
            Some("off") => Start::AfterAll,
            _ if !k.waits || device.props().sm < 90 => Start::AfterAll,
            Some("begun") => Start::WhenBegun,
            _ => Start::WhenAllowed,
        };
        self.functions.insert(k.spec.clone(), module.function(&k.entry)?.starting(start));
        self._modules.push(module);
        Ok(())
    }

    /// The function of a tactic's kernel.
    pub fn function(&self, tactic: &Tactic, kernel: usize) -> Result<Function> {
        let spec = tactic.kernels.get(kernel).ok_or_else(|| internal!("tactic {} has no kernel {kernel}", tactic.name))?;
        let f = self.functions.get(spec);
        f.copied().ok_or_else(|| internal!("kernel {} of tactic {} is not loaded", spec.file, tactic.name))
    }
}
