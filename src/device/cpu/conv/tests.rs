//! Convolution against a plain loop in f64.

use super::*;

/// Relative to the sum of magnitudes: sums of a few thousand f32 products in any order.
const SUM_TOLERANCE: f64 = 2e-6;

pub(crate) fn values(n: usize, seed: u32) -> Vec<f32> {
    let mut s = seed.wrapping_mul(2654435761).wrapping_add(12345);
    let mut next = move || {
        s = s.wrapping_mul(1664525).wrapping_add(1013904223);
        (s >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn naive(p: &ConvParams, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<(f64, f64)> {
    let (cg, og) = (p.c_in / p.groups, p.c_out / p.groups);
    let mut y = Vec::new();
    for n in 0..p.batch {
        for o in 0..p.c_out {
            for oy in 0..p.out_hw[0] {
                for ox in 0..p.out_hw[1] {
                    let mut sum = bias.map_or(0.0, |b| b[o] as f64);
                    let mut magnitude = sum.abs();
                    for c in 0..cg {
                        for ky in 0..p.kernel[0] {
                            for kx in 0..p.kernel[1] {
                                let iy = (oy * p.strides[0] + ky * p.dilations[0]) as isize - p.pads[0] as isize;
                                let ix = (ox * p.strides[1] + kx * p.dilations[1]) as isize - p.pads[1] as isize;
                                if iy < 0 || ix < 0 || iy >= p.in_hw[0] as isize || ix >= p.in_hw[1] as isize {
                                    continue;
                                }
                                let plane = n * p.c_in + (o / og) * cg + c;
                                let xi = (plane * p.in_hw[0] + iy as usize) * p.in_hw[1] + ix as usize;
                                let wi = ((o * cg + c) * p.kernel[0] + ky) * p.kernel[1] + kx;
                                let v = x[xi] as f64 * w[wi] as f64;
                                sum += v;
                                magnitude += v.abs();
                            }
                        }
                    }
                    y.push((sum, magnitude));
                }
            }
        }
    }
    y
}

/// Batch, channels in and out, groups, input, kernel, strides, pads (top, left, bottom, right), dilations.
struct Case(usize, [usize; 2], usize, [usize; 2], [usize; 2], [usize; 2], [usize; 4], [usize; 2]);

fn check(case: &Case) {
    let Case(batch, [c_in, c_out], groups, in_hw, kernel, strides, pads, dilations) = *case;
    let out = |i: usize| (in_hw[i] + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilations[i] - 1) / strides[i] + 1;
    let out_hw = [out(0), out(1)];
    let pads = [pads[0], pads[1]];
    let p = ConvParams { batch, c_in, c_out, groups, in_hw, out_hw, kernel, strides, pads, dilations };
    let x = values(batch * c_in * in_hw[0] * in_hw[1], 1);
    let w = values(c_out * c_in / groups * kernel[0] * kernel[1], 2);
    let b = values(c_out, 3);
    for bias in [None, Some(&b[..])] {
        let expected = naive(&p, &x, &w, bias);
        for isa in Isa::available() {
            let packed = ConvWeights::new_for(isa, &w, c_out, c_in / groups, groups, kernel);
            let mut y = vec![f32::NAN; expected.len()];
            conv2d(&p, &x, &packed, bias, &mut y, None);
            for (i, (got, (want, magnitude))) in y.iter().zip(&expected).enumerate() {
                let error = (*got as f64 - want).abs();
                assert!(error <= SUM_TOLERANCE * (magnitude + 1e-3), "{p:?} {isa:?} at {i}: expected {want}, got {got}");
            }
            // The epilogue sees every value of the right channel once.
            let plane = out_hw[0] * out_hw[1];
            let mut with_epilogue = vec![0.0; y.len()];
            let epilogue = |channel: usize, offset: usize, run: &mut [f32]| {
                assert!(offset / plane % c_out == channel && (offset + run.len() - 1) / plane % c_out == channel);
                run.iter_mut().for_each(|v| *v = *v * 2.0 + channel as f32);
            };
            conv2d(&p, &x, &packed, bias, &mut with_epilogue, Some(&epilogue));
            for (i, v) in with_epilogue.iter().enumerate() {
                assert_eq!(*v, y[i] * 2.0 + (i / plane % c_out) as f32, "{p:?} {isa:?} epilogue at {i}");
            }
        }
    }
}

#[test]
fn dense_odd_sizes_strides_dilations_and_asymmetric_pads() {
    let cases = [
        Case(1, [3, 5], 1, [7, 11], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
        Case(2, [4, 13], 1, [9, 70], [3, 5], [1, 1], [0, 2, 1, 1], [1, 1]),
        Case(1, [3, 33], 1, [17, 19], [3, 3], [2, 2], [0, 0, 1, 1], [1, 1]),
        Case(1, [3, 8], 1, [31, 37], [7, 7], [2, 2], [3, 3, 3, 3], [1, 1]),
        Case(1, [5, 9], 1, [15, 13], [3, 3], [1, 1], [2, 2, 2, 2], [2, 2]),
        Case(1, [5, 9], 1, [15, 13], [3, 2], [2, 3], [1, 0, 0, 2], [3, 2]),
        Case(1, [2, 7], 1, [20, 20], [3, 3], [4, 3], [1, 1, 0, 0], [2, 3]),
        Case(1, [17, 8], 1, [1, 900], [1, 3], [1, 1], [0, 1, 0, 1], [1, 1]),
        Case(1, [6, 10], 1, [5, 4], [5, 4], [1, 1], [0, 0, 0, 0], [1, 1]),
        Case(1, [2, 3], 1, [3, 3], [3, 3], [1, 1], [4, 4, 4, 4], [1, 1]),
        Case(1, [1, 6], 1, [12, 12], [5, 5], [1, 1], [2, 2, 2, 2], [1, 1]),
    ];
    cases.iter().for_each(check);
}

#[test]
fn pointwise_with_and_without_stride() {
    let cases = [
        Case(1, [19, 21], 1, [13, 29], [1, 1], [1, 1], [0; 4], [1, 1]),
        Case(3, [16, 8], 1, [1, 1], [1, 1], [1, 1], [0; 4], [1, 1]),
        Case(1, [8, 17], 1, [14, 15], [1, 1], [2, 2], [0; 4], [1, 1]),
        Case(1, [8, 17], 1, [6, 5], [1, 1], [1, 1], [1, 0, 0, 1], [1, 1]),
        Case(1, [600, 40], 1, [9, 9], [1, 1], [1, 1], [0; 4], [1, 1]),
    ];
    cases.iter().for_each(check);
}

#[test]
fn grouped_and_depthwise() {
    let cases = [
        Case(2, [8, 12], 4, [9, 10], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
        Case(1, [6, 6], 6, [13, 67], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
        Case(1, [5, 10], 5, [13, 14], [3, 3], [2, 2], [0, 1, 1, 0], [1, 1]),
        Case(2, [4, 4], 4, [15, 16], [5, 5], [1, 1], [2, 2, 2, 2], [1, 1]),
        Case(1, [4, 4], 4, [15, 16], [5, 5], [2, 2], [2, 2, 1, 1], [1, 1]),
        Case(1, [3, 3], 3, [20, 20], [3, 3], [1, 1], [6, 6, 6, 6], [6, 6]),
        Case(1, [3, 3], 3, [9, 50], [2, 7], [1, 3], [0, 3, 1, 3], [1, 2]),
        Case(1, [3, 12], 3, [8, 8], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
        Case(1, [2, 2], 2, [90, 90], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
    ];
    cases.iter().for_each(check);
}

#[test]
fn many_tasks_agree_with_one() {
    check(&Case(1, [32, 40], 1, [40, 41], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]));
    check(&Case(1, [96, 130], 1, [8, 7], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]));
}

#[test]
fn an_empty_batch_is_nothing_to_do() {
    let p = ConvParams {
        batch: 0,
        c_in: 2,
        c_out: 2,
        groups: 1,
        in_hw: [3, 3],
        out_hw: [3, 3],
        kernel: [1, 1],
        strides: [1, 1],
        pads: [0, 0],
        dilations: [1, 1],
    };
    let w = ConvWeights::new(&[1.0; 4], 2, 2, 1, [1, 1]);
    let mut y: Vec<f32> = Vec::new();
    conv2d(&p, &[], &w, None, &mut y, None);
    assert!(y.is_empty());
}
