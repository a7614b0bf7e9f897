//! A time of day in answers: milliseconds since 1970, written as RFC 3339 in UTC.

use crate::time::Millis;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

/// Last millisecond of the year 9999: RFC 3339 has no way to write a later one.
const LAST_MS: Millis = 253_402_300_799_999;

/// Milliseconds since 1970, shown as `2026-01-15T10:20:30.123Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub Millis);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = UNIX_EPOCH + Duration::from_millis(self.0.min(LAST_MS));
        humantime::format_rfc3339_millis(at).fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let at = humantime::parse_rfc3339(&text).map_err(D::Error::custom)?;
        let since = at.duration_since(UNIX_EPOCH).map_err(D::Error::custom)?;
        Ok(Timestamp(since.as_millis() as Millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_time_is_written_with_milliseconds_and_read_back() {
        let at = Timestamp(1_768_472_430_123);
        assert_eq!(at.to_string(), "2026-01-15T10:20:30.123Z");
        let json = serde_json::to_string(&at).unwrap();
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), at);
    }

    #[test]
    fn a_time_beyond_the_year_9999_is_written_as_its_end() {
        assert_eq!(Timestamp(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
