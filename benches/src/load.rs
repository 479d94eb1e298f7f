//! The load generator: as fast as it is answered, at a fixed rate, or many idle streams.

use std::cell::Cell;
use std::future::Future;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::case::{Case, EVENTS, PACE, Unit};
use crate::http1::Reader;
use crate::process::{cpu_time, pause};
use crate::traffic;

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a saturating load found in its window.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Saturated {
    /// Answers, or events of streams.
    pub units: u64,
    /// Length of the window, in seconds.
    pub seconds: f64,
    /// CPU time of the watched process, in seconds.
    pub cpu: f64,
}

/// Latencies from the intended send time, in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Latency {
    /// Half were faster.
    pub p50: f64,
    /// All but one in a hundred were faster.
    pub p99: f64,
    /// How many were measured.
    pub answers: u64,
}

fn local<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, work)
}

/// One connection to what is measured.
struct Caller {
    stream: TcpStream,
    reader: Reader,
    request: Vec<u8>,
}

impl Caller {
    /// Connects, opens a session where the case needs one, and looks at one answer closely.
    async fn connect(target: SocketAddr, case: Case, filtered: bool) -> Result<Self> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        let mut caller = Self {
            stream,
            reader: Reader::default(),
            request: Vec::new(),
        };
        let mut session = None;
        if matches!(case, Case::ToolsCall | Case::ToolsList) {
            caller.request = traffic::initialize_request();
            caller.call(|_| ()).await?;
            session = caller.reader.header("mcp-session-id").map(str::to_owned);
        }
        caller.request = traffic::request(case, session.as_deref());
        let mut events = 0;
        caller.call(|new| events += new).await?;
        examine(case, filtered, events, caller.reader.raw_body())?;
        Ok(caller)
    }

    /// One request to the end of its answer.
    async fn call(&mut self, mut seen: impl FnMut(usize)) -> Result<()> {
        self.reader.clear();
        self.stream.write_all(&self.request).await?;
        loop {
            let read = self.stream.read_buf(self.reader.space()).await?;
            ensure!(read > 0, "closed inside an answer");
            let whole = self.reader.is_whole()?;
            seen(self.reader.new_events());
            if whole {
                return self.reader.check();
            }
        }
    }
}

/// Whether an answer is what the case is about.
fn examine(case: Case, filtered: bool, events: usize, body: &[u8]) -> Result<()> {
    let count = |text: &str| memmem::find_iter(body, text).count();
    let (what, expected, found) = match case {
        Case::Chat1k | Case::Chat64k => ("usage", 1, count("\"total_tokens\":416")),
        Case::Sse | Case::SseBurst => ("events", EVENTS, events),
        Case::ToolsCall => ("results", 1, count("\"isError\":false")),
        Case::ToolsList if filtered => {
            ("tools", traffic::TOOLS_PERMITTED, count("\"inputSchema\""))
        }
        Case::ToolsList => ("tools", traffic::TOOLS, count("\"inputSchema\"")),
    };
    if found != expected {
        let text = String::from_utf8_lossy(&body[..body.len().min(2000)]);
        bail!(
            "{}: {found} {what} instead of {expected} in: {text}",
            case.name()
        );
    }
    Ok(())
}

/// Calls on all connections as fast as answers come, and counts in a window what came and what
/// CPU time `watch` used.
///
/// # Errors
/// A refusal, a broken answer, or an answer that is late.
pub fn saturate(
    target: SocketAddr,
    case: Case,
    connections: usize,
    filtered: bool,
    window: Duration,
    watch: u32,
) -> Result<Saturated> {
    let units = Rc::new(Cell::new(0u64));
    let work = {
        let units = Rc::clone(&units);
        async move {
            let mut callers = Vec::new();
            for place in 0..connections {
                let units = Rc::clone(&units);
                callers.push(tokio::task::spawn_local(async move {
                    if case == Case::Sse {
                        // Else all streams would tick at once.
                        let apart = PACE * u32::try_from(EVENTS)? / u32::try_from(connections)?;
                        tokio::time::sleep(apart * u32::try_from(place)?).await;
                    }
                    let mut caller = Caller::connect(target, case, filtered).await?;
                    let by_event = case.unit() == Unit::Event;
                    loop {
                        let called = caller.call(|events| {
                            if by_event {
                                units.set(units.get() + events as u64);
                            }
                        });
                        tokio::time::timeout(PATIENCE, called)
                            .await
                            .context("no answer")??;
                        if !by_event {
                            units.set(units.get() + 1);
                        }
                    }
                    #[expect(unreachable_code, reason = "gives the block its type")]
                    anyhow::Ok(())
                }));
            }
            let failed = async {
                for caller in callers {
                    caller.await??;
                }
                bail!("there are no callers")
            };
            let measured = async {
                let warm_up = match case {
                    Case::Sse => PACE * u32::try_from(2 * EVENTS + EVENTS / 2)?,
                    _ => Duration::from_millis(500),
                };
                tokio::time::sleep(warm_up).await;
                let (start, cpu, before) = (Instant::now(), cpu_time(watch)?, units.get());
                tokio::time::sleep(window).await;
                Ok(Saturated {
                    units: units.get() - before,
                    cpu: (cpu_time(watch)? - cpu).as_secs_f64(),
                    seconds: start.elapsed().as_secs_f64(),
                })
            };
            tokio::select! {
                measured = measured => measured,
                failed = failed => failed,
            }
        }
    };
    local(work)
}

/// Calls at `rate` a second whatever the answers do, and measures each from when it should have
/// been sent: to the end of the answer, or to the first event of a paced stream.
///
/// Blocking threads, since the runtime's timer has a resolution of a millisecond.
///
/// # Errors
/// A refusal, or a broken answer.
pub fn at_rate(
    target: SocketAddr,
    case: Case,
    rate: f64,
    filtered: bool,
    window: Duration,
) -> Result<Latency> {
    let callers = match case {
        Case::Sse => 64,
        _ => 16,
    };
    let mut connected = Vec::new();
    for _ in 0..callers {
        let caller = local(async move {
            let caller = Caller::connect(target, case, filtered).await?;
            Ok((caller.stream.into_std()?, caller.reader, caller.request))
        })?;
        caller.0.set_nonblocking(false)?;
        caller.0.set_read_timeout(Some(PATIENCE))?;
        connected.push(caller);
    }
    let next = AtomicU64::new(0);
    let start = Instant::now() + Duration::from_millis(50);
    let until = start + window;
    let mut latencies = std::thread::scope(|scope| -> Result<Vec<f64>> {
        let threads: Vec<_> = connected
            .into_iter()
            .map(|(stream, reader, request)| {
                let next = &next;
                scope.spawn(move || {
                    keep_rate(stream, reader, &request, case, rate, start, until, next)
                })
            })
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(latencies) => all.extend(latencies?),
                Err(_) => bail!("a caller panicked"),
            }
        }
        Ok(all)
    })?;
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (latencies.len() as f64 * share) as usize;
        latencies.get(place).copied().unwrap_or(f64::NAN)
    };
    Ok(Latency {
        p50: at(0.5),
        p99: at(0.99),
        answers: latencies.len() as u64,
    })
}

#[expect(clippy::too_many_arguments, reason = "the body of one thread")]
fn keep_rate(
    mut stream: std::net::TcpStream,
    mut reader: Reader,
    request: &[u8],
    case: Case,
    rate: f64,
    start: Instant,
    until: Instant,
    next: &AtomicU64,
) -> Result<Vec<f64>> {
    let mut latencies = Vec::new();
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let turn = next.fetch_add(1, Ordering::Relaxed);
        let intended = start + Duration::from_secs_f64(turn as f64 / rate);
        if intended >= until {
            return Ok(latencies);
        }
        if let Some(early) = intended.checked_duration_since(Instant::now()) {
            pause(early);
        }
        reader.clear();
        stream.write_all(request)?;
        let mut first_event = None;
        loop {
            let read = stream.read(&mut buffer)?;
            ensure!(read > 0, "closed inside an answer");
            reader.space().extend_from_slice(&buffer[..read]);
            let whole = reader.is_whole()?;
            if case == Case::Sse && first_event.is_none() && reader.new_events() > 0 {
                first_event = Some(intended.elapsed());
            }
            if whole {
                break;
            }
        }
        let latency = first_event.unwrap_or_else(|| intended.elapsed());
        reader.check()?;
        // What the first tenth measures is caches and pools.
        if intended.duration_since(start) * 10 > until.duration_since(start) {
            latencies.push(latency.as_secs_f64() * 1e6);
        }
    }
}

/// Opens `streams` streams, reads the first event of each, says so on standard output, and holds
/// them until killed.
///
/// # Errors
/// A refusal, or an answer that is late.
pub fn hold(target: SocketAddr, streams: usize) -> Result<()> {
    local(async move {
        let mut held = Vec::new();
        let request: Rc<[u8]> = traffic::idle_request().into();
        // In batches, so that no accept queue overflows.
        while held.len() < streams {
            let mut batch = Vec::new();
            for _ in held.len()..streams.min(held.len() + 100) {
                let request = Rc::clone(&request);
                batch.push(tokio::task::spawn_local(async move {
                    let opened = open_idle(target, &request);
                    tokio::time::timeout(PATIENCE, opened)
                        .await
                        .context("no first event")?
                }));
            }
            for stream in batch {
                held.push(stream.await??);
            }
        }
        println!("{}", held.len());
        std::future::pending::<()>().await;
        Ok(())
    })
}

async fn open_idle(target: SocketAddr, request: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(request).await?;
    let mut reader = Reader::default();
    loop {
        let read = stream.read_buf(reader.space()).await?;
        ensure!(read > 0, "closed inside an answer");
        ensure!(!reader.is_whole()?, "the answer ended");
        if reader.new_events() > 0 {
            reader.check()?;
            return Ok(stream);
        }
    }
}
