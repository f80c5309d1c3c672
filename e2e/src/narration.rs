//! What a long run prints while it works: a line for each thing done or seen, with the time since the start.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Time since the first line of this process.
pub fn elapsed() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

/// Prints the title of a step.
pub fn title(text: &str) {
    println!("\n[{:7.2} s] == {text}", elapsed().as_secs_f64());
}

/// Prints one thing that was done or seen.
pub fn say(text: impl AsRef<str>) {
    println!("[{:7.2} s] {}", elapsed().as_secs_f64(), text.as_ref());
}

/// Prints the output of a command as it came, indented.
pub fn show(output: &str) {
    for line in output.trim_end().lines() {
        println!("            | {line}");
    }
}
