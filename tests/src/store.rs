//! A real Valkey or Redis server of the test's own.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::ports;
use crate::wait::{soon, until};

/// The programs that can be such a server, the preferred first.
const PROGRAMS: [&str; 2] = ["valkey-server", "redis-server"];

/// A running server without persistence; dropping it ends the process.
#[derive(Debug)]
pub struct Store {
    child: Option<Child>,
    directory: TempDir,
    /// Where it listens, on the loopback address.
    pub port: u16,
    arguments: Vec<String>,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A status or a text.
    Text(String),
    /// An integer.
    Number(i64),
    /// Nothing is there.
    Nothing,
    /// Several answers.
    List(Vec<Reply>),
    /// An error, with its text.
    Error(String),
}

impl Reply {
    /// The number that it is, or that its text says.
    #[must_use]
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The texts of a list.
    #[must_use]
    pub fn texts(self) -> Vec<String> {
        match self {
            Self::List(list) => list.into_iter().flat_map(Self::texts).collect(),
            Self::Text(text) => vec![text],
            Self::Number(number) => vec![number.to_string()],
            Self::Nothing | Self::Error(_) => Vec::new(),
        }
    }
}

impl Store {
    /// Starts a server on a free port.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts a server with more arguments.
    ///
    /// # Panics
    /// When there is none, or it does not answer.
    pub async fn with(arguments: &[&str]) -> Self {
        let mut store = Self {
            child: None,
            directory: tempfile::tempdir().expect("a temporary directory"),
            port: ports::free(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
        };
        store.run().await;
        store
    }

    async fn run(&mut self) {
        let started = PROGRAMS.iter().find_map(|program| {
            let mut command = Command::new(program);
            command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
            command.args(["--save", "", "--appendonly", "no"]);
            command.args(&self.arguments);
            command.current_dir(self.directory.path());
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command.kill_on_drop(true).spawn().ok()
        });
        let missing =
            "neither valkey-server nor redis-server can be run; `make clients` installs it";
        self.child = Some(started.expect(missing));
        until("the store listens", || async {
            TcpStream::connect(self.address()).await.ok()
        })
        .await;
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Ends the process at once, with all its data.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.start_kill();
            let _ = soon("the end of the store", child.wait()).await;
        }
    }

    /// Starts it again, empty, on the same port.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.run().await;
    }

    /// Stops the process without ending it: it accepts connections and answers nothing.
    pub async fn pause(&self) {
        self.signal("STOP").await;
    }

    /// Lets it go on.
    pub async fn resume(&self) {
        self.signal("CONT").await;
    }

    async fn signal(&self, name: &str) {
        let id = self.child.as_ref().and_then(Child::id);
        let id = id.expect("the store runs").to_string();
        let mut kill = Command::new("kill");
        let sent = kill.args(["-s", name, &id]).status().await;
        assert!(sent.expect("kill can be run").success(), "{name}");
    }

    /// Forgets all data.
    pub async fn flush(&self) {
        self.ask(&["FLUSHALL"]).await;
    }

    /// Asks it one thing, on a connection of its own.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn ask(&self, words: &[&str]) -> Reply {
        let asked = async {
            let mut stream = TcpStream::connect(self.address()).await?;
            let mut question = format!("*{}\r\n", words.len());
            for word in words {
                question.push_str(&format!("${}\r\n{word}\r\n", word.len()));
            }
            stream.write_all(question.as_bytes()).await?;
            read(&mut BufReader::new(stream)).await
        };
        let answer: std::io::Result<Reply> = soon(words, asked).await;
        answer.expect("the store answers")
    }

    /// All its keys.
    pub async fn keys(&self) -> Vec<String> {
        let mut keys = self.ask(&["KEYS", "*"]).await.texts();
        keys.sort();
        keys
    }

    /// The fields and values of a hash.
    pub async fn hash(&self, key: &str) -> Vec<(String, String)> {
        let texts = self.ask(&["HGETALL", key]).await.texts();
        let pairs = texts.chunks_exact(2);
        pairs
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect()
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let line = line.trim_end();
    let bad = || std::io::Error::other("not an answer");
    let (kind, rest) = line.split_at_checked(1).ok_or_else(bad)?;
    let number = || rest.parse::<i64>().map_err(|_| bad());
    Ok(match kind {
        "+" => Reply::Text(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Number(number()?),
        "$" => match usize::try_from(number()?) {
            Err(_) => Reply::Nothing,
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                stream.read_exact(&mut bytes).await?;
                bytes.truncate(length);
                Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
        },
        "*" => match usize::try_from(number()?) {
            Err(_) => Reply::Nothing,
            Ok(length) => {
                let mut list = Vec::with_capacity(length);
                for _ in 0..length {
                    list.push(Box::pin(read(stream)).await?);
                }
                Reply::List(list)
            }
        },
        _ => return Err(bad()),
    })
}
