//! What every long answer waits for besides its own bytes.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use pingora_core::protocols::http::ServerSession;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use crate::ends::Ends;
use crate::exchange::{Answer, ExchangeError};
use crate::proxy::{Waypoint, gone};
use crate::serve::Phase;

/// What happened next on a stream.
#[derive(Debug)]
pub(super) enum Next {
    /// Bytes from the upstream.
    Chunk(Bytes),
    /// The upstream ended its body.
    End,
    /// The upstream failed.
    Failed(ExchangeError),
    /// The caller has gone.
    Gone,
    /// A new configuration is in force, or a token has ended: what was decided is asked again.
    Again,
    /// The gateway ends its streams.
    ShuttingDown,
}

/// Waits on one upstream answer, the caller, the configuration, the end of the caller's tokens,
/// shutdown and silence at once.
pub(super) struct Waiter {
    generation: watch::Receiver<u64>,
    phase: watch::Receiver<Phase>,
    idle: Duration,
    silent_since: Instant,
    ends: Ends,
    /// For silence and for the end of a token.
    alarm: Pin<Box<Sleep>>,
}

impl Waiter {
    /// `since` is the generation that the request was decided by: a newer one is heard at once.
    pub(super) fn new(waypoint: &Waypoint, since: u64, idle: Duration, ends: Ends) -> Self {
        let now = Instant::now();
        let mut generation = waypoint.generation.clone();
        if *generation.borrow_and_update() != since {
            generation.mark_changed();
        }
        let mut waiter = Self {
            generation,
            phase: waypoint.phase.clone(),
            idle,
            silent_since: now,
            ends,
            alarm: Box::pin(tokio::time::sleep_until(now + idle)),
        };
        if waiter.ends.next().is_some() {
            waiter.set_alarm();
        }
        waiter
    }

    fn set_alarm(&mut self) {
        let silent = self.silent_since + self.idle;
        let next = self.ends.next().map_or(silent, |end| end.min(silent));
        self.alarm.as_mut().reset(next);
    }

    /// Whether the configuration changed since this was last asked.
    pub(super) fn take_generation(&mut self) -> bool {
        let changed = self.generation.has_changed().unwrap_or(false);
        self.generation.mark_unchanged();
        changed
    }

    /// The next thing that happens.
    pub(super) async fn next(&mut self, session: &mut ServerSession, answer: &mut Answer) -> Next {
        if self.take_generation() || self.ends.take() {
            return Next::Again;
        }
        loop {
            tokio::select! {
                biased;
                chunk = answer.chunk() => {
                    // The timer is moved only when it rings, not with every chunk.
                    self.silent_since = Instant::now();
                    return match chunk {
                        Ok(Some(bytes)) => Next::Chunk(bytes),
                        Ok(None) => Next::End,
                        Err(error) => Next::Failed(error),
                    };
                }
                () = gone(session) => return Next::Gone,
                changed = self.generation.changed() => {
                    if changed.is_ok() {
                        return Next::Again;
                    }
                    // The sender is gone only while the process ends.
                    return Next::ShuttingDown;
                }
                _ = self.phase.wait_for(|phase| *phase == Phase::Ending) => {
                    return Next::ShuttingDown;
                }
                () = self.alarm.as_mut() => {}
            }
            let has_ended = self.ends.take();
            if !has_ended && Instant::now() >= self.silent_since + self.idle {
                return Next::Failed(ExchangeError::Idle);
            }
            self.set_alarm();
            if has_ended {
                return Next::Again;
            }
        }
    }
}

/// Writes whole events in one go; false when the caller has gone.
pub(super) async fn write(session: &mut ServerSession, out: &mut Vec<Bytes>) -> bool {
    let all = match &mut out[..] {
        [] => return true,
        [one] => std::mem::take(one),
        many => Bytes::from(many.concat()),
    };
    out.clear();
    session.write_response_body(all, false).await.is_ok()
}
