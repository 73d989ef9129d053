//! Steps side by side: which steps of a plan need not follow each other, and when it pays to let them.
//!
//! Steps are dealt to a few lanes in their order, each to where it can start first; a lane runs its steps one behind the
//! other. The time of a step is guessed from how much of the device it fills, since the point is only to tell small steps,
//! which leave most of the device idle, from large ones, beside which nothing else fits.

/// Lanes at most, the first one included.
pub const MAX_LANES: usize = 4;

/// A step that fills this much of the device runs alone.
const ALONE: f32 = 0.7;
/// Microseconds that a small step takes in a row of steps, roughly.
const STEP_US: f32 = 2.0;
/// Microseconds from the end of a step to the start of one in another lane.
const CROSSING_US: f32 = 1.3;
/// The share of the time in a row that lanes must save.
const LEAST_GAIN: f32 = 0.05;

/// Which steps each step must follow. The last row stands for the end, behind all steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// The steps that come directly before, fewest first: none of them is before another.
    pub after: Vec<Vec<usize>>,
    /// For each step a bit for every step before it.
    before: Vec<Vec<u64>>,
}

impl Lanes {
    /// Lanes for steps that need what `needs` says, each an index of an earlier step, and fill `fill` of the device (1:
    /// all of it once); nothing when a row is as good.
    pub fn new(needs: &[Vec<usize>], fill: &[f32], max_lanes: usize) -> Option<Lanes> {
        if max_lanes < 2 || needs.iter().enumerate().all(|(i, n)| i == 0 || n.contains(&(i - 1))) {
            return None;
        }
        let (lane_of, us) = deal(needs, fill, max_lanes);
        let in_a_row: f32 = fill.iter().map(|f| time(*f)).sum();
        (us <= in_a_row * (1.0 - LEAST_GAIN)).then(|| Lanes::of(needs, &lane_of))
    }

    /// Lanes as dealt.
    fn of(needs: &[Vec<usize>], lane_of: &[usize]) -> Lanes {
        let n = needs.len();
        let words = (n + 1).div_ceil(64);
        let mut lanes = Lanes { after: Vec::with_capacity(n + 1), before: Vec::with_capacity(n + 1) };
        let mut last: Vec<Option<usize>> = vec![None; lane_of.iter().max().map_or(0, |m| m + 1)];
        for i in 0..=n {
            let mut direct: Vec<usize> = match i < n {
                true => needs[i].iter().copied().chain(last[lane_of[i]].replace(i)).collect(),
                false => last.iter().flatten().copied().collect(),
            };
            direct.sort_unstable();
            direct.dedup();
            let mut before = vec![0u64; words];
            for &p in &direct {
                before[p / 64] |= 1 << (p % 64);
                before.iter_mut().zip(&lanes.before[p]).for_each(|(b, p)| *b |= p);
            }
            let all = direct.clone();
            direct.retain(|&p| all.iter().all(|&q| q == p || !lanes.is_before(p, q)));
            lanes.after.push(direct);
            lanes.before.push(before);
        }
        lanes
    }

    /// Whether step `a` is over when step `b` starts.
    pub fn is_before(&self, a: usize, b: usize) -> bool {
        self.before[b][a / 64] >> (a % 64) & 1 == 1
    }
}

fn time(fill: f32) -> f32 {
    STEP_US * fill.max(1.0)
}

/// The lane of each step, and when the last one is done.
fn deal(needs: &[Vec<usize>], fill: &[f32], max_lanes: usize) -> (Vec<usize>, f32) {
    let n = needs.len();
    let (mut lane_of, mut done) = (vec![0usize; n], vec![0f32; n]);
    // When each lane is free.
    let mut free: Vec<f32> = vec![0.0; max_lanes];
    for i in 0..n {
        let ready = |lane: usize, lane_of: &[usize], done: &[f32]| {
            let crossing = |p: usize| if lane_of[p] == lane { 0.0 } else { CROSSING_US };
            needs[i].iter().map(|&p| done[p] + crossing(p)).fold(0.0, f32::max)
        };
        // The lane of the operand that comes last is left for another only if that is worth a second crossing.
        let home = needs[i].iter().copied().max_by(|a, b| done[*a].total_cmp(&done[*b])).map_or(0, |p| lane_of[p]);
        let alone = fill[i] >= ALONE;
        let (mut lane, mut start) = (home, free[home].max(ready(home, &lane_of, &done)));
        for other in (0..max_lanes).filter(|l| *l != home && !alone) {
            let at = free[other].max(ready(other, &lane_of, &done));
            if at + CROSSING_US < start {
                (lane, start) = (other, at);
            }
        }
        if alone {
            start = free.iter().copied().fold(start, f32::max);
        }
        lane_of[i] = lane;
        done[i] = start + time(fill[i]);
        free[lane] = done[i];
        if alone {
            free.fill(done[i]);
        }
    }
    (lane_of, free.into_iter().fold(0.0, f32::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step, `n_branches` rows of `length` steps behind it, and one step behind all.
    fn branches(n_branches: usize, length: usize) -> Vec<Vec<usize>> {
        let mut needs = vec![vec![]];
        let mut ends = Vec::new();
        for _ in 0..n_branches {
            for k in 0..length {
                let before = if k == 0 { 0 } else { needs.len() - 1 };
                needs.push(vec![before]);
            }
            ends.push(needs.len() - 1);
        }
        needs.push(ends);
        needs
    }

    #[test]
    fn small_branches_run_side_by_side_and_large_ones_in_a_row() {
        let needs = branches(3, 4);
        let n = needs.len();
        let lanes = Lanes::new(&needs, &vec![0.2; n], MAX_LANES).unwrap();
        assert!(!lanes.is_before(1, 5) && !lanes.is_before(5, 1) && lanes.is_before(1, 4) && lanes.is_before(0, 5));
        assert_eq!(lanes.after[n - 1], [4, 8, 12]);
        assert_eq!(lanes.after[n], [n - 1]);
        assert!((0..n).all(|i| lanes.is_before(i, n)));
        assert_eq!(Lanes::new(&needs, &vec![0.9; n], MAX_LANES), None, "nothing fits beside these");
        assert_eq!(Lanes::new(&needs, &vec![0.2; n], 1), None);
        assert_eq!(Lanes::new(&branches(1, 9), &[0.1; 11], MAX_LANES), None, "there is nothing beside a row");
        assert_eq!(Lanes::new(&branches(2, 1), &[0.1; 4], MAX_LANES), None, "one short step is not worth two crossings");
        assert_eq!(Lanes::new(&[], &[], MAX_LANES), None);
    }

    #[test]
    fn every_need_is_kept_whatever_the_lanes() {
        let mut x = 7u64;
        let mut next = |n: usize| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 33) as usize % n
        };
        for _ in 0..50 {
            let n = 1 + next(150);
            let needs: Vec<Vec<usize>> = (0..n)
                .map(|i| {
                    let mut p: Vec<usize> = (0..next(4)).filter(|_| i > 0).map(|_| i - 1 - next(i.min(9))).collect();
                    p.sort_unstable();
                    p.dedup();
                    p
                })
                .collect();
            let lane_of: Vec<usize> = (0..n).map(|_| next(4)).collect();
            let lanes = Lanes::of(&needs, &lane_of);
            // By walking back along the direct steps alone.
            for i in 0..n {
                let mut seen = vec![false; n];
                let mut todo = lanes.after[i].clone();
                while let Some(p) = todo.pop() {
                    if !std::mem::replace(&mut seen[p], true) {
                        todo.extend(&lanes.after[p]);
                    }
                }
                assert!(needs[i].iter().all(|p| seen[*p]));
                assert!((0..i).filter(|p| lane_of[*p] == lane_of[i]).all(|p| seen[p]));
                assert!((0..n).all(|p| seen[p] == lanes.is_before(p, i)));
            }
        }
    }
}
