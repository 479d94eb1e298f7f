//! A server of ours behind the gateway: it answers from a script and keeps what it received.

mod http2;
mod reply;
mod serve;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use reply::{Reply, Step};

use crate::certificates::Identity;
use crate::wait::soon;

/// What a server speaks on its connections.
#[derive(Debug, Clone)]
pub enum Speaks {
    /// HTTP/1.1 on plain TCP.
    Http1,
    /// HTTP/2 on plain TCP, by prior knowledge.
    Http2,
    /// Either by TLS, as the handshake decides.
    Tls(Arc<ServerConfig>),
}

impl Speaks {
    /// TLS with this certificate; `protocols` are offered by ALPN, best first.
    #[must_use]
    pub fn tls(identity: &Identity, protocols: &[&str]) -> Self {
        Self::Tls(identity.server(protocols))
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// How many came before it.
    pub number: usize,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    /// The name its TLS handshake asked for.
    pub server_name: Option<String>,
    /// The head as it was sent, up to and with the empty line; one of HTTP/2 is written like one of
    /// HTTP/1.1, with `:authority` among the fields.
    pub head: String,
    /// The body without framing.
    pub body: Vec<u8>,
}

impl Seen {
    /// The method.
    #[must_use]
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The request target.
    #[must_use]
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// Every value of a field; the name in lower case.
    pub fn fields<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.head.lines().skip(1).filter_map(move |line| {
            // The name of a pseudo-field begins with a colon.
            let colon = 1 + line.get(1..)?.find(':')?;
            let (held, value) = (&line[..colon], &line[colon + 1..]);
            held.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The first value of a field.
    #[must_use]
    pub fn header<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.fields(name).next()
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What a script is: from a request to what is answered.
type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

/// Holds answers back until a test says so.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::channel(false).0)
    }

    /// Lets everything pass, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        // The sender is `self`, so this cannot fail.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// What a server knows about its past.
#[derive(Debug, Default)]
struct Past {
    requests: Vec<Seen>,
    connections: usize,
    /// The names that TLS handshakes asked for, also of those that failed.
    server_names: Vec<Option<String>>,
    /// TLS handshakes that failed.
    refused: usize,
    /// Answers whose reader closed before they had ended.
    abandoned: usize,
}

/// A running server.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens, on loopback.
    pub address: SocketAddr,
    past: watch::Sender<Past>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Upstream {
    /// Starts a server that answers every request as `script` says.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        Self::speaking(Speaks::Http1, script).await
    }

    /// The same, speaking something else than plain HTTP/1.1.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn speaking(
        speaks: Speaks,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Arc<Self> {
        let listener = loop {
            // A port that was free a moment ago may be somebody's by now.
            let address = (Ipv4Addr::LOCALHOST, crate::ports::free());
            if let Ok(listener) = TcpListener::bind(address).await {
                break listener;
            }
        };
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let past = watch::channel(Past::default()).0;
        let script: Arc<Script> = Arc::new(script);
        let task = tokio::spawn(serve::accept(listener, speaks, script, past.clone()));
        Arc::new(Self {
            address,
            past,
            task: Mutex::new(Some(task)),
        })
    }

    /// A server that always gives the same answer.
    pub async fn always(reply: Reply) -> Arc<Self> {
        Self::start(move |_| reply.clone()).await
    }

    /// A server that gives these answers in turn, and the last one from then on.
    ///
    /// # Panics
    /// When there are none.
    pub async fn in_turn(replies: Vec<Reply>) -> Arc<Self> {
        assert!(!replies.is_empty(), "a script has answers");
        Self::start(move |seen| replies[seen.number.min(replies.len() - 1)].clone()).await
    }

    /// Closes the listening socket; connections that are open go on.
    pub fn stop(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }

    /// `http://address`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything received so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.past.borrow().requests.clone()
    }

    /// The only request so far.
    ///
    /// # Panics
    /// When there were none or several.
    #[must_use]
    pub fn only(&self) -> Seen {
        let past = self.past.borrow();
        match past.requests.as_slice() {
            [one] => one.clone(),
            several => panic!("{} requests: {several:#?}", several.len()),
        }
    }

    /// The last request so far.
    ///
    /// # Panics
    /// When there were none.
    #[must_use]
    pub fn last(&self) -> Seen {
        let past = self.past.borrow();
        past.requests.last().expect("a request came").clone()
    }

    /// How many connections were opened.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.past.borrow().connections
    }

    /// The names that TLS handshakes asked for, in order, also those of handshakes that failed.
    #[must_use]
    pub fn server_names(&self) -> Vec<Option<String>> {
        self.past.borrow().server_names.clone()
    }

    /// Waits until so many TLS handshakes have failed.
    pub async fn refused(&self, count: usize) {
        let mut past = self.past.subscribe();
        let what = format!("{count} failed handshakes at {}", self.address);
        let _ = soon(what, past.wait_for(|past| past.refused >= count)).await;
    }

    /// Waits until so many requests have come.
    pub async fn requests(&self, count: usize) -> Vec<Seen> {
        let mut past = self.past.subscribe();
        let what = format!("{count} requests at {}", self.address);
        let _ = soon(what, past.wait_for(|past| past.requests.len() >= count)).await;
        self.seen()
    }

    /// Waits until so many answers were given up by their reader before they had ended.
    pub async fn abandoned(&self, count: usize) {
        let mut past = self.past.subscribe();
        let what = format!("{count} answers given up at {}", self.address);
        let _ = soon(what, past.wait_for(|past| past.abandoned >= count)).await;
    }
}
