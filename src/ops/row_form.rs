//! How threads share the rows of a row kernel (`normalize.cu`, `softmax.cu`): which forms suit a problem, and which of a
//! tactic's forms takes rows of some length.

use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::Tactic;
use crate::{ensure, err};

/// One form of a row kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowForm {
    /// Threads of a row: a part of a warp, or all of a block.
    pub lanes: usize,
    pub threads: usize,
    /// Elements that a thread holds in registers; 0 reads the row again instead.
    pub hold: usize,
    /// Elements of one access.
    pub vec: usize,
}

/// Numbers of a form in a tactic's parameters.
const N_PARAMS: usize = 4;
/// Threads of a block in which several rows share.
const SHARED_THREADS: usize = 128;
/// Forms offered at most.
const MAX_FORMS: usize = 6;
/// For rows of any length where others may come.
const WARP: RowForm = RowForm { lanes: 32, threads: SHARED_THREADS, hold: 16, vec: 1 };
const LONG: RowForm = RowForm { lanes: 512, threads: 512, hold: 0, vec: 1 };

impl RowForm {
    /// Forms for `rows` rows of `cols` elements of `size` bytes, best guess first.
    ///
    /// A thread that holds more asks for more at once, which many rows need to fill the memory's pipe; few rows are
    /// better spread over all multiprocessors.
    pub fn ranked(rows: usize, cols: usize, size: usize, dev: &DeviceProps) -> Vec<RowForm> {
        let widest = (16 / size.max(1)).clamp(1, 8);
        let vec = (0..4).map(|k| widest >> k).find(|v| *v > 0 && cols % v == 0).unwrap_or(1);
        let vectors = cols.max(1).div_ceil(vec);
        let spread = (dev.n_sm as usize).max(1) * 1024;
        let ideal = (rows.saturating_mul(vectors) / spread).clamp(1, 3) as f64;
        let mut scored: Vec<(f64, RowForm)> = Vec::new();
        for lanes in [4, 8, 16, 32, 64, 128, 256, 512, 1024] {
            let threads = if lanes <= 32 { SHARED_THREADS } else { lanes };
            let chunks = vectors.div_ceil(lanes);
            let hold = chunks * vec;
            let most = if lanes > 512 { 16 } else { 32 };
            if hold > most || threads > dev.max_threads_per_block as usize {
                continue;
            }
            // Threads without an element cost as much as others.
            let waste = (lanes * chunks) as f64 / vectors as f64;
            let barrier = if lanes > 32 { 0.2 } else { 0.0 };
            scored.push(((chunks as f64 / ideal).log2().abs() + waste.log2() + barrier, RowForm { lanes, threads, hold, vec }));
        }
        scored.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut forms: Vec<RowForm> = scored.into_iter().map(|(_, f)| f).take(MAX_FORMS - 2).collect();
        // A block that reads the row twice, the second time from the cache.
        if vectors > 256 {
            let mut long = [LONG, RowForm { lanes: 1024, threads: 1024, ..LONG }];
            long.sort_by_key(|f| f.threads != 1024 || vectors < 4096 || rows >= 4 * dev.n_sm as usize);
            forms.extend(long.iter().map(|f| RowForm { vec, ..*f }));
        }
        forms
    }

    /// The best form and those that together take rows of every length.
    pub fn for_any(best: &[RowForm]) -> Vec<RowForm> {
        let mut forms: Vec<RowForm> = best.iter().take(1).copied().collect();
        for f in [WARP, LONG] {
            if !forms.contains(&f) {
                forms.push(f);
            }
        }
        forms
    }

    /// As a part of a tactic's name.
    pub fn name(&self) -> String {
        format!("{}x{}_hold{}_v{}", self.threads / self.lanes, self.lanes, self.hold, self.vec)
    }

    /// As numbers of a tactic.
    pub fn params(&self) -> [i64; N_PARAMS] {
        [self.lanes, self.threads, self.hold, self.vec].map(|v| v as i64)
    }

    /// Index and form of the first of a tactic's forms that takes rows of `cols` elements. Parameters may come from
    /// anywhere.
    pub fn choose(tactic: &Tactic, params: &[i64], cols: usize) -> Result<(usize, RowForm)> {
        let form = |k: &[i64]| {
            let f = [k[0], k[1], k[2], k[3]].map(|v| usize::try_from(v).unwrap_or(usize::MAX));
            RowForm { lanes: f[0], threads: f[1], hold: f[2], vec: f[3] }
        };
        let forms: Vec<RowForm> = params.chunks_exact(N_PARAMS).map(form).collect();
        let sound = forms.iter().all(RowForm::is_sound) && forms.len() == tactic.kernels.len();
        ensure!(sound, CorruptData, "tactic {} has parameters out of range", tactic.name);
        let at = forms.iter().position(|f| f.fits(cols));
        let at = at.ok_or_else(|| err!(InvalidState, "tactic {} does not fit rows of {cols}", tactic.name))?;
        Ok((at, forms[at]))
    }

    fn fits(&self, cols: usize) -> bool {
        cols % self.vec == 0 && (self.hold == 0 || cols <= self.lanes * self.hold)
    }

    fn is_sound(&self) -> bool {
        (matches!(self.lanes, 4 | 8 | 16 | 32) || self.lanes == self.threads)
            && (32..=1024).contains(&self.threads)
            && self.threads % 32 == 0
            && matches!(self.vec, 1 | 2 | 4 | 8)
            && self.hold <= 64
            && self.hold % self.vec == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_form_and_few_rows_are_spread() {
        let dev = DeviceProps::example_h200();
        for cols in [1, 7, 8, 96, 197, 768, 1000, 1024, 2048, 5000, 50257, 1 << 20] {
            for rows in [1, 128, 12288, 400_000] {
                let forms = RowForm::ranked(rows, cols, 2, &dev);
                assert!(!forms.is_empty() && forms.iter().all(|f| f.is_sound() && f.fits(cols)), "{rows}x{cols}: {forms:?}");
            }
        }
        let one_vector = RowForm::ranked(128, 768, 2, &dev)[0];
        assert_eq!((one_vector.lanes, one_vector.hold, one_vector.vec), (128, 8, 8));
        assert!(RowForm::ranked(100_000, 768, 2, &dev)[0].lanes <= 32);
    }
}
