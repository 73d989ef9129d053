//! Plain data about a device: what tactics are chosen by, with no driver behind it.

use std::fmt;

/// Which machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    Cpu,
    /// CUDA device by ordinal.
    Cuda(i32),
    /// Records calls and computes nothing; runs the builder where there is no GPU.
    Null,
}

impl DeviceKind {
    /// `cpu`, `cuda` or `cuda:N`.
    pub fn parse(text: &str) -> Option<DeviceKind> {
        match text {
            "cpu" => Some(DeviceKind::Cpu),
            "cuda" => Some(DeviceKind::Cuda(0)),
            "null" => Some(DeviceKind::Null),
            _ => text.strip_prefix("cuda:")?.parse().ok().filter(|n| *n >= 0).map(DeviceKind::Cuda),
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceKind::Cpu => f.write_str("cpu"),
            DeviceKind::Cuda(n) => write!(f, "cuda:{n}"),
            DeviceKind::Null => f.write_str("null"),
        }
    }
}

/// Properties of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceProps {
    pub kind: DeviceKind,
    /// Name as the driver or the operating system gives it.
    pub name: String,
    /// CUDA compute capability as major * 10 + minor (90 for an H200); 0 on the CPU.
    pub sm: u32,
    /// Multiprocessors, or threads of the CPU device.
    pub n_sm: u32,
    pub max_threads_per_block: u32,
    /// Shared memory of a block, opt-in maximum, in bytes.
    pub max_smem_per_block: u32,
    pub max_grid: [u32; 3],
    pub l2_bytes: usize,
    pub memory_bytes: usize,
    /// Maximum clock in kHz; 0 when unknown.
    pub clock_khz: u32,
    /// 16 bytes that identify the physical device; zero on the CPU.
    pub uuid: [u8; 16],
    /// CUDA driver version as 1000 * major + 10 * minor; 0 on the CPU.
    pub driver_version: i32,
}

impl DeviceProps {
    pub fn is_cuda(&self) -> bool {
        self.sm > 0
    }

    /// An H200 without a driver: what tests and the null device plan for.
    pub fn example_h200() -> DeviceProps {
        DeviceProps {
            kind: DeviceKind::Null,
            name: "NVIDIA H200 (null device)".into(),
            sm: 90,
            n_sm: 132,
            max_threads_per_block: 1024,
            max_smem_per_block: 232_448,
            max_grid: [i32::MAX as u32, 65_535, 65_535],
            l2_bytes: 60 << 20,
            memory_bytes: 141 << 30,
            clock_khz: 1_980_000,
            uuid: [0; 16],
            driver_version: 13000,
        }
    }
}
