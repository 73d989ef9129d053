//! The cheapest way to cut a directed graph in two: maximum flow by blocking flows (Dinic).

use std::collections::VecDeque;

/// More than any sum of costs.
pub const INFINITE: u64 = 1 << 60;

/// The side that the cut keeps.
pub const SOURCE: usize = 0;
/// The other side.
pub const SINK: usize = 1;

struct Edge {
    to: usize,
    room: u64,
}

/// Costs between places. Edge i and edge i ^ 1 are the two directions of one.
pub struct MinCut {
    edges: Vec<Edge>,
    from: Vec<Vec<usize>>,
}

impl MinCut {
    pub fn new() -> MinCut {
        MinCut { edges: Vec::new(), from: vec![Vec::new(), Vec::new()] }
    }

    /// A new place.
    pub fn place(&mut self) -> usize {
        self.from.push(Vec::new());
        self.from.len() - 1
    }

    /// `cost` is paid when `a` is on the source's side and `b` is not.
    pub fn edge(&mut self, a: usize, b: usize, cost: u64) {
        if a == b || cost == 0 {
            return;
        }
        self.from[a].push(self.edges.len());
        self.edges.push(Edge { to: b, room: cost });
        self.from[b].push(self.edges.len());
        self.edges.push(Edge { to: a, room: 0 });
    }

    /// Steps from the source to each place; `None` where no room leads.
    fn levels(&self) -> Vec<Option<u32>> {
        let mut level = vec![None; self.from.len()];
        level[SOURCE] = Some(0);
        let mut queue = VecDeque::from([SOURCE]);
        while let Some(v) = queue.pop_front() {
            for e in self.from[v].iter().map(|e| &self.edges[*e]) {
                if e.room > 0 && level[e.to].is_none() {
                    level[e.to] = level[v].map(|l: u32| l + 1);
                    queue.push_back(e.to);
                }
            }
        }
        level
    }

    /// Fills every shortest way.
    fn block(&mut self, level: &[Option<u32>]) {
        let mut next = vec![0; self.from.len()];
        let mut path: Vec<usize> = Vec::new();
        loop {
            let at = path.last().map_or(SOURCE, |e| self.edges[*e].to);
            if at == SINK {
                let flow = path.iter().map(|e| self.edges[*e].room).min().unwrap_or(0);
                for e in &path {
                    self.edges[*e].room -= flow;
                    self.edges[*e ^ 1].room += flow;
                }
                // Back to where the first full edge begins.
                let full = path.iter().position(|e| self.edges[*e].room == 0).unwrap_or(0);
                path.truncate(full);
                continue;
            }
            let Some(e) = self.from[at].get(next[at]).copied() else {
                // A dead end: the edge that led here is not tried again.
                let Some(e) = path.pop() else { return };
                next[self.edges[e ^ 1].to] += 1;
                continue;
            };
            let (to, room) = (self.edges[e].to, self.edges[e].room);
            if room > 0 && level[to].is_some() && level[to] == level[at].map(|l| l + 1) {
                path.push(e);
            } else {
                next[at] += 1;
            }
        }
    }

    /// For each place whether it stays with the source; of several cheapest cuts the one that keeps the fewest.
    pub fn cut(mut self) -> Vec<bool> {
        loop {
            let level = self.levels();
            if level[SINK].is_none() {
                return level.iter().map(|l| l.is_some()).collect();
            }
            self.block(&level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries every cut.
    fn cheapest(n: usize, edges: &[(usize, usize, u64)]) -> u64 {
        (0..1u32 << (n - 2))
            .map(|set| {
                let kept = |v: usize| v == SOURCE || (v > SINK && set >> (v - 2) & 1 == 1);
                edges.iter().filter(|(a, b, _)| kept(*a) && !kept(*b)).map(|e| e.2).sum()
            })
            .min()
            .unwrap()
    }

    #[test]
    fn random_cuts_are_the_cheapest() {
        let mut state = 5u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        for _ in 0..300 {
            let n = 3 + below(6) as usize;
            let edges: Vec<(usize, usize, u64)> = (0..2 + below(20))
                .map(|_| (below(n as u64) as usize, below(n as u64) as usize, 1 + below(9)))
                .filter(|(a, b, _)| a != b)
                .collect();
            let mut m = MinCut::new();
            (2..n).for_each(|_| _ = m.place());
            edges.iter().for_each(|(a, b, c)| m.edge(*a, *b, *c));
            let kept = m.cut();
            let cost: u64 = edges.iter().filter(|(a, b, _)| kept[*a] && !kept[*b]).map(|e| e.2).sum();
            assert_eq!(cost, cheapest(n, &edges), "{edges:?}");
        }
    }
}
