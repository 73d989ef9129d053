//! A batch of discrete Fourier transforms at concrete sizes: where samples are read, how the length is split into
//! stages, and the reference computation in f64.
//!
//! Stages are Stockham's: a stage of radix r joins r transforms of length l into one of length l*r and leaves them in
//! order. With `n = r1 * r2 * ..` a result costs `r1 + r2 + ..` products; a length without factors is one plain sum.

use crate::base::{Result, Tensor};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::err;

/// Sizes, strides in input elements, and conventions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transform {
    /// Batches and frames of each: their numbers and the input elements between two.
    pub outer: [usize; 2],
    pub outer_stride: [usize; 2],
    /// Neighbouring transforms, one sample apart.
    pub inner: usize,
    /// Input elements between two samples of a transform.
    pub step: usize,
    /// Samples have an imaginary part.
    pub complex: bool,
    /// Samples that exist; the others are zero.
    pub available: usize,
    /// Length of a transform.
    pub n: usize,
    /// Results that are kept of each.
    pub kept: usize,
    pub inverse: bool,
    /// Samples are the first half of a spectrum whose transform is real, and the result is real.
    pub half_spectrum: bool,
}

/// Radices up to this are made of smaller primes.
pub const CPU_RADIX: usize = 8;

impl Transform {
    pub fn count(&self) -> usize {
        self.outer[0] * self.outer[1] * self.inner
    }

    /// Radices of the stages, first to last; their product is the length.
    pub fn radices(n: usize, limit: usize) -> Vec<usize> {
        let (mut rest, mut out, mut current) = (n, Vec::new(), 1);
        let mut p = 2;
        while rest > 1 {
            if p * p > rest {
                p = rest;
            }
            if rest % p != 0 {
                p += 1;
                continue;
            }
            rest /= p;
            if current > 1 && current * p > limit {
                out.push(std::mem::replace(&mut current, 1));
            }
            current *= p;
        }
        out.push(current);
        out
    }

    /// Input element of sample `t` relative to the transform's first, and whether it is conjugated; `None` is zero.
    fn sample(&self, t: usize) -> Option<(usize, bool)> {
        let mirrored = self.half_spectrum && t > self.n / 2;
        let from = if mirrored { self.n - t } else { t };
        (from < self.available).then_some((from, mirrored))
    }

    /// Where the samples of transform `i` begin.
    fn begin(&self, i: usize) -> usize {
        let (o, inner) = (i / self.inner, i % self.inner);
        let parts = if self.complex { 2 } else { 1 };
        o / self.outer[1] * self.outer_stride[0] + o % self.outer[1] * self.outer_stride[1] + inner * parts
    }

    /// Numbers of one result.
    pub fn parts_out(&self) -> usize {
        if self.half_spectrum { 1 } else { 2 }
    }

    /// The reference. `window` multiplies the samples.
    pub fn eval(&self, x: &[f64], window: Option<&[f64]>) -> Result<Vec<f64>> {
        let (n, parts) = (self.n, self.parts_out());
        let size = self.count().checked_mul(self.kept * parts);
        let size = size.ok_or_else(|| err!(OutOfMemory, "{} transforms of {n}", self.count()))?;
        let mut out = vec![0.0; size];
        let radices = Self::radices(n, CPU_RADIX);
        let sign = if self.inverse { 1.0 } else { -1.0 };
        let table: Vec<[f64; 2]> = (0..n)
            .map(|t| {
                let (s, c) = (std::f64::consts::TAU * t as f64 / n as f64).sin_cos();
                [c, sign * s]
            })
            .collect();
        let scale = if self.inverse { 1.0 / n as f64 } else { 1.0 };
        let y = SharedMut::new(&mut out);
        for_each_task(self.count(), |i| {
            let begin = self.begin(i);
            let load = |t: usize| match self.sample(t) {
                None => [0.0; 2],
                Some((from, conjugated)) => {
                    let w = window.map_or(1.0, |w| w[from]);
                    let at = begin + from * self.step;
                    let im = if self.complex { x[at + 1] } else { 0.0 };
                    [w * x[at], if conjugated { -w * im } else { w * im }]
                }
            };
            let mut a: Vec<[f64; 2]> = (0..n).map(load).collect();
            let mut b = vec![[0.0; 2]; n];
            let mut l = 1;
            for r in &radices {
                stage(&a, &mut b, &table, l, *r);
                std::mem::swap(&mut a, &mut b);
                l *= r;
            }
            let (o, inner) = (i / self.inner, i % self.inner);
            for (k, v) in a[..self.kept].iter().enumerate() {
                let at = ((o * self.kept + k) * self.inner + inner) * parts;
                // SAFETY: each task has the results of a transform of its own.
                let to = unsafe { y.slice(at, parts) };
                to.iter_mut().zip(v).for_each(|(t, v)| *t = v * scale);
            }
        });
        Ok(out)
    }

    /// Rounds the results to the type of the samples.
    pub fn tensor(&self, x: &Tensor, window: Option<&Tensor>, shape: &[usize]) -> Result<Tensor> {
        let window = window.map(|w| w.to_f64s());
        let out = self.eval(&x.to_f64s(), window.as_deref())?;
        Ok(Tensor::from_slice(shape, &out).cast(x.dtype()))
    }
}

/// Joins transforms of length `l` into ones of length `l * r`.
fn stage(a: &[[f64; 2]], b: &mut [[f64; 2]], table: &[[f64; 2]], l: usize, r: usize) {
    let n = a.len();
    let (long, apart) = (l * r, n / (l * r));
    for (o, to) in b.iter_mut().enumerate() {
        let (s, k) = (o / long, o % long);
        let (mut re, mut im, mut turn) = (0.0, 0.0, 0);
        for j in 0..r {
            let [c, d] = table[turn * apart];
            let [x, y] = a[(s + apart * j) * l + k % l];
            re += x * c - y * d;
            im += x * d + y * c;
            turn += k;
            turn -= if turn >= long { long } else { 0 };
        }
        *to = [re, im];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn radices_multiply_to_the_length() {
        for n in 1..700 {
            let r = Transform::radices(n, 32);
            assert_eq!(r.iter().product::<usize>(), n, "{n}: {r:?}");
        }
        assert_eq!(Transform::radices(400, 32), [16, 25]);
        assert_eq!(Transform::radices(1024, 32), [32, 32]);
        assert_eq!(Transform::radices(97, 32), [97]);
    }

    #[test]
    fn stages_agree_with_the_plain_sum() {
        for n in [1usize, 2, 7, 12, 45, 64, 97, 360] {
            let x: Vec<f64> = (0..2 * n).map(|i| ((i * 7919) % 101) as f64 / 50.0 - 1.0).collect();
            let t = Transform {
                outer: [1, 1],
                outer_stride: [2 * n, 0],
                inner: 1,
                step: 2,
                complex: true,
                available: n,
                n,
                kept: n,
                inverse: false,
                half_spectrum: false,
            };
            let got = t.eval(&x, None).unwrap();
            for k in 0..n {
                let (mut re, mut im) = (0.0, 0.0);
                for i in 0..n {
                    let (s, c) = (-std::f64::consts::TAU * ((i * k) % n) as f64 / n as f64).sin_cos();
                    re += x[2 * i] * c - x[2 * i + 1] * s;
                    im += x[2 * i] * s + x[2 * i + 1] * c;
                }
                assert!((re - got[2 * k]).abs() < 1e-9 && (im - got[2 * k + 1]).abs() < 1e-9, "{n} at {k}");
            }
        }
    }
}
