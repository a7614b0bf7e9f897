//! The documents that are measured with: telemetry of about 200 bytes under keys of three patterns.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

/// The collection of all of them.
pub(crate) const COLLECTION: &str = "telemetry";
/// Keys of the hot set.
const HOT_KEYS: u64 = 1_000;
/// The first of the time-ordered keys, seconds since 1970.
const FIRST_SECOND: u64 = 1_388_534_400;

/// How keys follow each other: what the trees on the disk make of it differs most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// `2014-01-01T00:00:00Z`, one a second: always at the right edge.
    TimeOrdered,
    /// A thousand keys that are rewritten all the time.
    Hot,
    /// Sixteen hexadecimal digits, each key once.
    Random,
}

impl Pattern {
    pub(crate) const ALL: [Pattern; 3] = [Pattern::TimeOrdered, Pattern::Hot, Pattern::Random];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Pattern::TimeOrdered => "time-ordered keys",
            Pattern::Hot => "hot set of 1000 keys",
            Pattern::Random => "random keys",
        }
    }
    /// The key of the `n`th document.
    pub(crate) fn key(self, n: u64) -> String {
        match self {
            Pattern::TimeOrdered => moment(n),
            Pattern::Hot => format!("sensor-{:04}", scattered(n) % HOT_KEYS),
            Pattern::Random => format!("{:016x}", scattered(n)),
        }
    }
    /// Keys and documents of a range.
    pub(crate) fn documents(self, range: std::ops::Range<u64>) -> Vec<(String, String)> {
        range.map(|n| (self.key(n), document(n))).collect()
    }
    /// Documents of a range as the body of one bulk request.
    pub(crate) fn lines(self, range: std::ops::Range<u64>) -> Vec<u8> {
        let mut lines = String::new();
        for n in range {
            // Writing to a string does not fail.
            let _ = writeln!(lines, "{{\"key\":\"{}\",\"value\":{}}}", self.key(n), document(n));
        }
        lines.into_bytes()
    }
}

/// The `n`th document.
pub(crate) fn document(n: u64) -> String {
    let noise = scattered(n);
    let part = |shift: u64, span: u64| (noise >> shift) % span;
    format!(
        "{{\"date\":\"{}\",\"station\":\"sf-{:04}\",\"temp\":{}.{},\"humidity\":{}.{},\"pressure\":{},\"wind\":{{\"speed\":\
         {}.{},\"direction\":{}}},\"battery\":3.{:02},\"signal\":-{},\"status\":\"ok\",\"sequence\":{n}}}",
        moment(n),
        part(0, 400),
        35 + part(8, 50),
        part(14, 10),
        40 + part(18, 55),
        part(24, 10),
        990 + part(28, 45),
        part(34, 20),
        part(38, 10),
        part(42, 360),
        part(50, 100),
        50 + part(56, 45),
    )
}

fn moment(n: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(FIRST_SECOND + n)).to_string()
}

/// SplitMix64: spreads numbers over 64 bits, each to another.
fn scattered(n: u64) -> u64 {
    let mut mixed = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
