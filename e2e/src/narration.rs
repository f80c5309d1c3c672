//! The progress messages of a long run: a line for each event, with the time since the start.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Returns the time since the first message of this process.
pub fn elapsed() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

/// Prints the title of a step.
pub fn title(text: &str) {
    println!("\n[{:7.2} s] == {text}", elapsed().as_secs_f64());
}

/// Prints one progress message.
pub fn say(text: impl AsRef<str>) {
    println!("[{:7.2} s] {}", elapsed().as_secs_f64(), text.as_ref());
}

/// Prints the output of a command unchanged, but indented.
pub fn show(output: &str) {
    for line in output.trim_end().lines() {
        println!("            | {line}");
    }
}
