//! Where each value lives in the arena: values that are never alive together may share bytes.

use super::lanes::Lanes;

/// Offsets are multiples of this: enough for any vector access and for cuBLASLt.
pub const ALIGN: usize = 256;

/// A value's lifetime in steps, both ends included, and its size.
#[derive(Clone, Debug)]
pub struct Interval {
    pub bytes: usize,
    pub first: usize,
    pub last: usize,
    /// The steps that write or read it.
    pub steps: Vec<usize>,
}

impl Interval {
    /// Of a value that these steps, in order, touch.
    pub fn new(bytes: usize, steps: &[usize]) -> Interval {
        let end = |s: Option<&usize>| s.copied().unwrap_or(0);
        Interval { bytes, first: end(steps.first()), last: end(steps.last()), steps: steps.to_vec() }
    }

    /// The same memory is touched by more steps.
    pub fn extend(&mut self, steps: &[usize]) {
        self.steps.extend(steps);
        self.first = self.steps.iter().copied().fold(self.first, usize::min);
        self.last = self.steps.iter().copied().fold(self.last, usize::max);
    }

    /// Whether one is over before the other begins.
    fn is_apart(&self, other: &Interval, lanes: Option<&Lanes>) -> bool {
        let in_order = self.last < other.first || other.last < self.first;
        match lanes {
            None => in_order,
            Some(lanes) => {
                let over = |a: &Interval, b: &Interval| a.steps.iter().all(|x| b.steps.iter().all(|y| lanes.is_before(*x, *y)));
                in_order && (over(self, other) || over(other, self))
            }
        }
    }
}

/// Offsets for the intervals and the arena's size. With lanes, two share bytes only if every step of the one is over when
/// any of the other starts. Largest first, each at the lowest place that is free for its whole
/// lifetime: the greedy-by-size rule (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
/// 2020), which stays within a few percent of the lower bound on networks.
pub fn assign_offsets(intervals: &[Interval], lanes: Option<&Lanes>) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(intervals[i].bytes), intervals[i].first, i));
    let mut offsets = vec![0; intervals.len()];
    // Placed intervals, sorted by offset.
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0;
    for i in order {
        let want = &intervals[i];
        let size = want.bytes.next_multiple_of(ALIGN);
        if size == 0 {
            continue;
        }
        let mut at = 0;
        for &p in &placed {
            let other = &intervals[p];
            if other.is_apart(want, lanes) {
                continue;
            }
            if offsets[p] >= at + size {
                break;
            }
            at = at.max(offsets[p] + other.bytes.next_multiple_of(ALIGN));
        }
        offsets[i] = at;
        total = total.max(at + size);
        let pos = placed.partition_point(|&p| offsets[p] <= at);
        placed.insert(pos, i);
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_lifetimes_never_share_bytes() {
        // A fixed pseudo-random set; the check is exhaustive over pairs.
        let mut x = 12345u64;
        let mut next = |n: u64| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 33) % n
        };
        let iv: Vec<Interval> = (0..300)
            .map(|_| {
                let first = next(100) as usize;
                let (bytes, last) = (next(5000) as usize, first + next(10) as usize);
                Interval { bytes, first, last, steps: (first..=last).collect() }
            })
            .collect();
        let (off, total) = assign_offsets(&iv, None);
        for i in 0..iv.len() {
            assert!(off[i] % ALIGN == 0 && off[i] + iv[i].bytes <= total);
            for j in 0..i {
                let alive = iv[i].first <= iv[j].last && iv[j].first <= iv[i].last;
                let apart = off[i] + iv[i].bytes <= off[j] || off[j] + iv[j].bytes <= off[i];
                assert!(!alive || apart || iv[i].bytes == 0 || iv[j].bytes == 0, "{i} and {j} overlap");
            }
        }
        let peak = (0..120)
            .map(|t| iv.iter().filter(|v| v.first <= t && t <= v.last).map(|v| v.bytes.next_multiple_of(ALIGN)).sum())
            .max()
            .unwrap_or(0usize);
        assert!(total <= peak * 3 / 2, "{total} bytes where {peak} are alive at once");
    }

    #[test]
    fn values_of_lanes_side_by_side_share_nothing() {
        // 0, then 1 2 3 beside 4 5 6, then 7; a value from each step to the next of its lane.
        let needs = [vec![], vec![0], vec![1], vec![2], vec![0], vec![4], vec![5], vec![3, 6]];
        let lanes = Lanes::new(&needs, &[0.1; 8], 2).unwrap();
        let iv: Vec<Interval> = [[0, 1], [1, 2], [2, 3], [3, 7], [4, 5], [5, 6], [6, 7]]
            .map(|[first, last]| Interval { bytes: 1000, first, last, steps: vec![first, last] })
            .to_vec();
        let (row, in_a_row) = assign_offsets(&iv, None);
        let (off, total) = assign_offsets(&iv, Some(&lanes));
        assert!(row[1] == row[4] || row[2] == row[5] || in_a_row < total, "in a row the two branches share bytes");
        for (a, b) in [(1, 4), (1, 5), (1, 6), (2, 4), (2, 5), (2, 6), (3, 4), (3, 5), (3, 6), (0, 4)] {
            assert_ne!(off[a], off[b], "{a} and {b}");
        }
        assert!(off[1] == off[3] || off[0] == off[2], "within a lane bytes are used again");
    }
}
