//! Where each value lives in the arena: values that are never alive together may share bytes.

/// Offsets are multiples of this: enough for any vector access and for cuBLASLt.
pub const ALIGN: usize = 256;

/// A value's lifetime in steps, both ends included, and its size.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    pub bytes: usize,
    pub first: usize,
    pub last: usize,
}

/// Offsets for the intervals and the arena's size. Largest first, each at the lowest place that is free for its whole
/// lifetime: the greedy-by-size rule (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
/// 2020), which stays within a few percent of the lower bound on networks.
pub fn assign_offsets(intervals: &[Interval]) -> (Vec<usize>, usize) {
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
            if other.last < want.first || want.last < other.first {
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
                Interval { bytes: next(5000) as usize, first, last: first + next(10) as usize }
            })
            .collect();
        let (off, total) = assign_offsets(&iv);
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
}
