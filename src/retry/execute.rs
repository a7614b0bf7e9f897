//! Carrying a policy out on the shell's timers. Decides nothing but "again" or "no more".

use super::RetryPolicy;
use crate::Error;
use std::format;
use std::future::Future;
use std::string::String;
use std::time::Duration;

impl RetryPolicy {
    /// Runs `operation` until it succeeds, fails for a reason that no repetition heals, or the attempts are used up.
    ///
    /// [`Error::Network`] and [`Error::Timeout`] are tried again; what timed out may have happened, so the operation
    /// must be one that may happen twice. `name` stands in every warning and in the last error. Dropping the future
    /// cancels it, also in the middle of a delay.
    ///
    /// # Errors
    /// The last attempt's error, with the name and the number of attempts in front.
    pub async fn execute<T, F, Fut>(&self, name: &str, operation: F) -> Result<T, Error>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        // Without the system's generator the delays have no jitter, which is no reason to fail.
        self.execute_with(name, operation, || getrandom::u64().unwrap_or(u64::MAX)).await
    }

    /// As [`RetryPolicy::execute`], with the jitter's randomness passed in.
    ///
    /// # Errors
    /// As there.
    pub async fn execute_with<T, F, Fut>(
        &self,
        name: &str,
        mut operation: F,
        mut random: impl FnMut() -> u64,
    ) -> Result<T, Error>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        let mut attempt = 1;
        loop {
            let error = match operation().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let delay = if is_transient(&error) { self.next_delay(attempt, random()) } else { None };
            let Some(delay_ms) = delay else {
                return Err(named(name, attempt, error));
            };
            let max_attempts = self.max_attempts;
            defmt_or_log::warn!(
                "operation=\"{}\" attempt={} max_attempts={} delay_ms={} error=\"{}\"",
                name,
                attempt,
                max_attempts,
                delay_ms,
                error
            );
            smol::Timer::after(Duration::from_millis(delay_ms)).await;
            attempt += 1;
        }
    }
}

fn is_transient(error: &Error) -> bool {
    matches!(error, Error::Network { .. } | Error::Timeout { .. })
}

/// The same error with the name in front; other kinds than the two that carry a free text keep it as their cause.
fn named(name: &str, attempts: u32, error: Error) -> Error {
    let tries = if attempts == 1 { "1 attempt" } else { &format!("{attempts} attempts") };
    let say = |message: String| format!("{name}, {tries}: {message}");
    match error {
        Error::Network { message, source } => Error::Network { message: say(message), source },
        Error::Timeout { operation, after_ms } => Error::Timeout { operation: say(operation), after_ms },
        Error::Persistence { kind, message, source } => Error::Persistence { kind, message: say(message), source },
        Error::DatabaseCorruption { message, source } => Error::DatabaseCorruption { message: say(message), source },
        Error::Sync { message, source } => Error::Sync { message: say(message), source },
        Error::TokenExpired { message } => Error::TokenExpired { message: say(message) },
        Error::Configuration { message } => Error::Configuration { message: say(message) },
        Error::Request { kind, message } => Error::Request { kind, message: say(message) },
        plain @ (Error::DocumentNotFound { .. } | Error::Concurrency { .. }) => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::{block_on, poll_once};
    use std::boxed::Box;
    use std::cell::Cell;

    fn unreachable() -> Error {
        Error::network("10.0.7.2:5000 refuses", Box::<dyn std::error::Error + Send + Sync>::from("refused"))
    }

    #[test]
    fn what_heals_is_tried_until_it_does() {
        let calls = Cell::new(0);
        let operation = || async {
            calls.set(calls.get() + 1);
            if calls.get() < 3 { Err(unreachable()) } else { Ok(calls.get()) }
        };
        let policy = RetryPolicy::new(5, 1);
        assert_eq!(block_on(policy.execute("TCP Connect", operation)).expect("the third succeeds"), 3);
    }

    #[test]
    fn the_last_error_has_the_name_the_attempts_and_its_cause() {
        let calls = Cell::new(0);
        let operation = || async {
            calls.set(calls.get() + 1);
            Err::<(), _>(unreachable())
        };
        let error = block_on(RetryPolicy::new(3, 1).execute("TCP Connect", operation)).expect_err("never heals");
        assert_eq!(calls.get(), 3);
        assert_eq!(format!("{error}"), "TCP Connect, 3 attempts: 10.0.7.2:5000 refuses");
        assert_eq!(error.code(), "NETWORK_ERROR");
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn a_timeout_is_tried_again_and_a_full_disk_is_not() {
        let calls = Cell::new(0);
        let timeout = || async {
            calls.set(calls.get() + 1);
            Err::<(), _>(Error::Timeout { operation: "put".into(), after_ms: 5 })
        };
        let error = block_on(RetryPolicy::new(2, 1).execute("Flush", timeout)).expect_err("never answers");
        assert!(calls.get() == 2 && format!("{error}").starts_with("Flush, 2 attempts: put"));
        calls.set(0);
        let refused = || async {
            calls.set(calls.get() + 1);
            Err::<(), _>(Error::persistence("no space", None))
        };
        let error = block_on(RetryPolicy::new(9, 1).execute("Flush", refused)).expect_err("not transient");
        assert!(calls.get() == 1 && format!("{error}").contains("Flush, 1 attempt: no space"));
    }

    #[test]
    fn dropping_it_in_a_delay_cancels_it() {
        let calls = Cell::new(0);
        let operation = || async {
            calls.set(calls.get() + 1);
            Err::<(), _>(unreachable())
        };
        let policy = RetryPolicy::new(5, 60_000);
        let mut running = Box::pin(policy.execute_with("TCP Connect", operation, || u64::MAX));
        assert!(block_on(poll_once(&mut running)).is_none());
        drop(running);
        assert_eq!(calls.get(), 1);
    }
}
