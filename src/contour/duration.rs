//! Durations as Contour parses them: Go's `time.ParseDuration` (Go 1.25, `src/time/format.go`), and the two words that mean
//! "no limit" (Contour v1.33, `internal/timeout/timeout.go`). The patterns in Contour's CRDs accept texts that Go refuses, for example
//! `s` and `.s`. In some fields such a text makes Contour exit at its start.

use std::time::Duration;

/// Parses a timeout as Contour's `timeout.Parse` does. `None` means no limit (`infinity`, `infinite`). Zero means Envoy's default; an
/// empty text also yields zero. An error describes the problem and quotes the text.
///
/// A negative Go duration is an error: Contour passes it on, and Envoy refuses the listener or route that has one.
pub fn parse(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "" => Ok(Some(Duration::ZERO)),
        "infinity" | "infinite" => Ok(None),
        _ => parse_finite(text)
            .map(Some)
            .map_err(|problem| format!("{problem}, or infinity")),
    }
}

/// Parses a duration of a field for which Contour calls `time.ParseDuration` directly (`connectTimeout`). `infinity` and an empty text are
/// errors. An error describes the problem and quotes the text.
pub fn parse_finite(text: &str) -> Result<Duration, String> {
    match nanoseconds(text) {
        Some((Sign::Negative, amount)) if amount > 0 => {
            Err(format!("{text:?} is negative; it must be a duration such as 30s"))
        }
        Some((_, amount)) => Ok(Duration::from_nanos(amount)),
        None => Err(format!("{text:?} is not a Go duration, such as 1h30m, 1.5s or 500ms")),
    }
}

#[derive(Clone, Copy)]
enum Sign {
    Positive,
    Negative,
}

/// Parses a duration with Go's algorithm, including its rounding and its limit of 2^63-1 nanoseconds. Returns None if Go refuses the text.
fn nanoseconds(text: &str) -> Option<(Sign, u64)> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (Sign::Negative, rest),
        None => (Sign::Positive, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some((sign, 0));
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let unit = unit(&after[..end])?;
        let whole = if whole.is_empty() {
            0
        } else {
            whole.parse::<u64>().ok().filter(|whole| *whole <= LIMIT)?
        };
        let part = whole
            .checked_mul(unit)
            .filter(|part| *part <= LIMIT)?
            .checked_add(scaled(fraction, unit))?;
        total = total.checked_add(part).filter(|total| *total <= LIMIT)?;
        rest = &after[end..];
    }
    // Go also accepts -2^63, which is an error here in any case because it is negative.
    (total < LIMIT || matches!(sign, Sign::Negative)).then_some((sign, total))
}

/// Go adds unsigned 64-bit numbers and compares the sum with 2^63.
const LIMIT: u64 = 1 << 63;

/// Returns a fraction of a unit in nanoseconds. Digits that do not fit into 64 bits are ignored, and the result is rounded down.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)] // Go converts in the same way
fn scaled(digits: &str, unit: u64) -> u64 {
    let mut value = 0_u64;
    let mut scale = 1.0_f64;
    for digit in digits.bytes().map(|byte| u64::from(byte - b'0')) {
        let Some(next) = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(digit))
            .filter(|next| *next < LIMIT)
        else {
            break;
        };
        value = next;
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as u64
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit(name: &str) -> Option<u64> {
    Some(match name {
        "ns" => 1,
        // The micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{parse, parse_finite};
    use std::time::Duration;

    #[test]
    fn parsers_accept_what_go_accepts_with_the_same_value() {
        let table = [
            ("0", 0),
            ("+0", 0),
            ("-0", 0),
            ("0s", 0),
            ("-0s", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1µs", 1_000),
            ("1μs", 1_000),
            ("1us", 1_000),
            ("10ms", 10_000_000),
            ("3ns", 3),
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("0.9223372036854775807s", 922_337_203),
            ("1m1m", 120_000_000_000),
            ("9223372036854775807ns", 9_223_372_036_854_775_807),
            ("0.100000000000000000000h", 360_000_000_000),
        ];
        for (text, nanoseconds) in table {
            assert_eq!(parse(text), Ok(Some(Duration::from_nanos(nanoseconds))), "{text}");
            assert_eq!(parse_finite(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn parsers_refuse_what_go_refuses_and_the_crd_accepts() {
        let table = [
            "s",
            ".s",
            ".",
            "-",
            "+",
            "1",
            "5 minutes",
            "5S",
            "1x",
            " 1s",
            "1s ",
            "--1s",
            "+-1s",
            "1e3s",
            "1d",
            "1.5",
            "1..5s",
            "9223372036854775808ns",
            "9223372036854775807ns1ns",
            "3000000h",
            "99999999999999999999s",
            "Infinity",
            "ms",
            "1h.m",
            "١s",
        ];
        for text in table {
            assert!(
                parse(text).is_err_and(|problem| problem.contains(&format!("{text:?}"))),
                "{text}"
            );
            assert!(parse_finite(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parsers_refuse_negative_durations_as_envoy_does() {
        assert!(parse("-1s").unwrap_err().contains("negative"));
        assert!(parse_finite("-1ns").is_err());
        assert!(parse_finite("-9223372036854775808ns").is_err());
    }

    #[test]
    fn infinity_and_empty_text_are_timeouts_but_not_durations() {
        assert_eq!(parse("infinity"), Ok(None));
        assert_eq!(parse("infinite"), Ok(None));
        assert_eq!(parse(""), Ok(Some(Duration::ZERO)));
        for text in ["infinity", "infinite", ""] {
            assert!(parse_finite(text).is_err(), "{text}");
        }
    }
}
