//! Weights that gather the bins of a spectrum into bands of the mel scale, and the windows that frames of a signal are
//! multiplied with (Hann, Hamming, Blackman), which are made of other operators.
//!
//! Inputs: num_mel_bins, dft_length, sample_rate (integers), lower_edge_hertz, upper_edge_hertz (floats), one element each,
//! all read by the host. Output: [dft_length / 2 + 1, num_mel_bins] of `dtype`. The matrix is small and made once: it is
//! computed on the host.

mod windows;

use crate::base::{DType, Dim, Fact, Result, Shape, Tensor};
use crate::network::ValueId;
use crate::ops::dft::one_side;
use crate::ops::{EvalCx, ImportCx, InferCx, OnnxOp, OpDef, fresh_dim, onnx};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// Weights from bins of a spectrum to bands of the mel scale. Inputs: see the module's text (all host).
    pub struct MelWeights {
        pub dtype: DType,
    }
}

op_home!(MelWeights, "MelWeights", TABLE);

const TABLE: &[OnnxOp] = &[
    onnx("MelWeightMatrix", 17, import),
    onnx("HannWindow", 17, windows::hann),
    onnx("HammingWindow", 17, windows::hamming),
    onnx("BlackmanWindow", 17, windows::blackman),
];

/// Rows and columns at most.
const MAX_SIZE: i64 = 1 << 24;

/// The type that an `output_datatype` attribute names.
fn output_type(cx: &ImportCx<'_>) -> Result<DType> {
    let code = cx.int("output_datatype", 1)?;
    let dtype = match code {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        16 => DType::BF16,
        _ => return Err(err!(Unsupported, "attribute output_datatype: {code} is no number type")),
    };
    Ok(dtype)
}

/// Rows, columns and elements of the matrix.
fn matrix(bands: i64, length: i64, rate: i64, lower: f64, upper: f64) -> Result<Vec<f64>> {
    let rows = (length / 2 + 1) as usize;
    let cols = bands as usize;
    ensure!(rate >= 1, InvalidArgument, "a sample rate of {rate}");
    let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let (low, high) = (mel(lower), mel(upper));
    let step = (high - low) / (bands + 2) as f64;
    let bin = |i: usize| {
        let hertz = 700.0 * (10f64.powf((i as f64 * step + low) / 2595.0) - 1.0);
        ((length + 1) as f64 * hertz / rate as f64).floor()
    };
    let mut out = vec![0.0; rows * cols];
    for band in 0..cols {
        let [left, center, right] = [bin(band), bin(band + 1), bin(band + 2)];
        ensure!(
            left >= 0.0 && left <= center && center < rows as f64 && right <= rows as f64,
            InvalidArgument,
            "band {band} from bin {left} to {right} lies outside of the {rows} bins of the spectrum"
        );
        let [left, center, right] = [left, center, right].map(|v| v as usize);
        if left == center {
            out[center * cols + band] = 1.0;
        }
        for bin in left..center + usize::from(left < center) {
            out[bin * cols + band] = (bin - left) as f64 / (center - left) as f64;
        }
        for bin in center..right {
            out[bin * cols + band] = (right - bin) as f64 / (right - center) as f64;
        }
    }
    Ok(out)
}

impl OpDef for MelWeights {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(5, 5)?;
        for i in 0..5 {
            let f = cx.input(i)?;
            let kind = if i < 3 { f.dtype.is_int() } else { f.dtype.is_float() };
            ensure!(
                kind && f.shape.numel().as_const().is_none_or(|n| n == 1),
                InvalidArgument,
                "input {i}: expected one {}, got {f}",
                if i < 3 { "integer" } else { "floating-point number" }
            );
        }
        let first = |i: usize| Ok::<_, crate::base::Error>(cx.dims(i)?.and_then(|d| d.first().cloned()));
        let bands = first(0)?.unwrap_or_else(|| fresh_dim("mel"));
        let rows = first(1)?.map_or_else(|| fresh_dim("mel"), |n| one_side(&n));
        let fits = |d: &Dim, least: i64| d.as_const().is_none_or(|d| (least..=MAX_SIZE).contains(&d));
        ensure!(fits(&bands, 0) && fits(&rows, 1), InvalidArgument, "a matrix of {rows} by {bands}");
        Ok(vec![Fact::new(self.dtype, Shape(vec![rows, bands]))])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let out = cx.output(0)?;
        let int = |i: usize| Ok::<_, crate::base::Error>(cx.ints(i)?.first().copied().unwrap_or(0));
        let float = |i: usize| Ok::<_, crate::base::Error>(cx.input(i)?.scalar_f64().unwrap_or(0.0));
        let v = matrix(int(0)?, int(1)?, int(2)?, float(3)?, float(4)?)?;
        Ok(vec![Tensor::from_slice(out.shape(), &v).cast(self.dtype)])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![0, 1, 2, 3, 4]
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.input(3)?, cx.input(4)?];
    let dtype = output_type(cx)?;
    Ok(vec![cx.add(MelWeights { dtype }, &inputs)?])
}
