//! Waiting for conditions, never for time.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long anything may take that is expected to happen. Generous, because it is only ever
/// reached by a test that fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition is looked at that cannot tell by itself when it changed.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `look` gives a value.
///
/// # Panics
/// At the deadline, naming what did not happen.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "did not happen: {what}");
        sleep(LOOK).await;
    }
}

/// The value of a future that must resolve before the deadline.
///
/// # Panics
/// At the deadline, naming what did not happen.
pub async fn soon<T>(what: impl Debug, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen: {what:?}"),
    }
}
