//! How far a build is: a bar on a terminal, one plain line a stage elsewhere.

use crate::console::{self, info};
use std::time::{Duration, Instant};

const WIDTH: usize = 30;

/// Receives the builder's progress calls.
pub struct Progress {
    start: Instant,
    bar: bool,
    last_stage: String,
    last_drawn: Option<Instant>,
}

impl Progress {
    pub fn new() -> Progress {
        Progress { start: Instant::now(), bar: console::stderr_is_terminal(), last_stage: String::new(), last_drawn: None }
    }

    /// A stage has begun or moved on; `done` is 0 to 1.
    pub fn step(&mut self, stage: &str, done: f32) {
        let new_stage = stage != self.last_stage;
        if new_stage {
            self.last_stage = stage.to_string();
        }
        let percent = (done.clamp(0.0, 1.0) * 100.0).round() as usize;
        if !self.bar {
            if new_stage {
                info!("  {percent:3} %  {stage}");
            }
            return;
        }
        // A terminal is slow; the eye is slower.
        let fresh = self.last_drawn.is_some_and(|t| t.elapsed() < Duration::from_millis(50));
        if new_stage || !fresh {
            let full = percent * WIDTH / 100;
            let bar = format!("{}{}", "█".repeat(full), "░".repeat(WIDTH - full));
            let seconds = self.start.elapsed().as_secs_f32();
            let text = format!("Building {bar} {percent:3} %  {seconds:5.1} s  {stage}");
            // A line that wraps could not be wiped.
            let fits: String = text.chars().take(console::stderr_columns() - 1).collect();
            console::draw_bar(&fits);
            self.last_drawn = Some(Instant::now());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.bar {
            console::wipe_bar();
        }
    }
}
