//! Foreign clients and servers: other people's SDKs as processes, one JSON line per answer.
//!
//! The scripts are in `tests/clients`; `make clients` installs what they need. A process never
//! outlives the value that stands for it: it is killed on drop, and the servers also end when
//! their standard input closes.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a server may take to announce its address.
const START: Duration = Duration::from_secs(60);
/// How long one scenario may take; longer than the scripts' own deadline of 20 s.
const SCENARIO: Duration = Duration::from_secs(60);

/// A client script; each speaks through the SDK it is named after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sdk {
    /// PyPI `openai`; the base URL ends in `/v1`.
    OpenAiPython,
    /// PyPI `anthropic`; the base URL has no `/v1`.
    AnthropicPython,
    /// PyPI `mcp`, both eras (`--mode auto|legacy|2026-07-28`); the URL is the endpoint.
    McpPython,
    /// npm `openai`; the base URL ends in `/v1`.
    OpenAiNode,
    /// npm `@anthropic-ai/sdk`; the base URL has no `/v1`.
    AnthropicNode,
    /// npm `@modelcontextprotocol/sdk`, legacy era; the URL is the endpoint.
    McpNode,
}

/// A server script that answers behind the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upstream {
    /// npm `@copilotkit/aimock`: OpenAI and Anthropic shapes, answers from `fixtures/llm.json`.
    Aimock,
    /// npm `@modelcontextprotocol/server-everything`: legacy era, at `/mcp`.
    Everything,
    /// A server on PyPI `mcp` that speaks both eras, at `/mcp`.
    TwoEras,
}

/// Who the client is: PEM files, as an agent in the mesh would mount them.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The roots the client trusts.
    pub roots: PathBuf,
    /// The client's certificate chain.
    pub certificate: PathBuf,
    /// The client's private key.
    pub private_key: PathBuf,
}

/// What one scenario reported; `facts` holds what is particular to it.
#[derive(Debug, Clone, Deserialize)]
pub struct Outcome {
    /// The name that was asked for.
    pub scenario: String,
    /// Whether the SDK's call returned instead of raising.
    pub ok: bool,
    /// The SDK's own exception class, such as `PermissionDeniedError`.
    pub error_class: Option<String>,
    /// That class and what it derives from, most particular first.
    pub error_bases: Vec<String>,
    /// The HTTP status as the exception carries it, or that of a `raw_*` scenario.
    pub status: Option<u16>,
    /// The error's `code`: a string for LLM clients, a JSON-RPC number for MCP clients.
    pub code: Option<Value>,
    /// The error's `type`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The exception's text.
    pub message: Option<String>,
    /// How many HTTP requests the SDK really sent, retries included.
    pub requests: usize,
    /// The status of each answer, in order of arrival.
    pub statuses: Vec<u16>,
    /// Chosen headers of the last answer.
    pub headers: Map<String, Value>,
    /// Everything else the scenario found: `text`, `usage`, `names`, ….
    #[serde(flatten)]
    pub facts: Map<String, Value>,
}

impl Outcome {
    /// A fact by name; `null` when the scenario did not report it.
    pub fn fact(&self, name: &str) -> &Value {
        self.facts.get(name).unwrap_or(&Value::Null)
    }

    /// The `text` fact, empty when absent.
    pub fn text(&self) -> &str {
        self.fact("text").as_str().unwrap_or_default()
    }

    /// The names of a list scenario (`names`, or `models` for the LLM clients).
    pub fn names(&self) -> Vec<&str> {
        let list = self.facts.get("names").or_else(|| self.facts.get("models"));
        let items = list.and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).collect()
    }
}

impl Sdk {
    /// Runs `scenarios` one after the other in one process; `options` are the script's own.
    ///
    /// # Errors
    /// When the script is not installed, fails to report every scenario, or passes the deadline.
    /// A refused call is no error: it is an [`Outcome`] that is not `ok`.
    pub async fn run(
        self,
        url: &str,
        credentials: Option<&Credentials>,
        options: &[&str],
        scenarios: &[&str],
    ) -> anyhow::Result<Vec<Outcome>> {
        let mut command = self.command()?;
        command.args(["--url", url]);
        if let Some(credentials) = credentials {
            command.arg("--ca").arg(&credentials.roots);
            command.arg("--cert").arg(&credentials.certificate);
            command.arg("--key").arg(&credentials.private_key);
        }
        command.args(options).args(scenarios).stdin(Stdio::null());
        let deadline = SCENARIO * u32::try_from(scenarios.len())?;
        let output = timeout(deadline, command.output())
            .await
            .with_context(|| format!("{self:?} {scenarios:?} passed its deadline"))??;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{self:?} {scenarios:?}: {}\n{stderr}",
            output.status
        );
        let outcomes: Vec<Outcome> = output
            .stdout
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).context("a line that is no outcome"))
            .collect::<anyhow::Result<_>>()?;
        ensure!(
            outcomes.len() == scenarios.len(),
            "{self:?} {scenarios:?}: {} reported\n{stderr}",
            outcomes.len()
        );
        Ok(outcomes)
    }

    /// [`Sdk::run`] for a single scenario.
    ///
    /// # Errors
    /// As [`Sdk::run`].
    pub async fn scenario(
        self,
        url: &str,
        credentials: Option<&Credentials>,
        options: &[&str],
        scenario: &str,
    ) -> anyhow::Result<Outcome> {
        let outcomes = self.run(url, credentials, options, &[scenario]).await?;
        outcomes.into_iter().next().context("no outcome")
    }

    fn command(self) -> anyhow::Result<Command> {
        match self {
            Self::OpenAiPython => script("python", "openai_client.py"),
            Self::AnthropicPython => script("python", "anthropic_client.py"),
            Self::McpPython => script("python", "mcp_client.py"),
            Self::OpenAiNode => script("node", "openai_client.mjs"),
            Self::AnthropicNode => script("node", "anthropic_client.mjs"),
            Self::McpNode => script("node", "mcp_client.mjs"),
        }
    }
}

/// A running [`Upstream`]; dropping it ends the process.
#[derive(Debug)]
pub struct Running {
    /// Where it listens, on loopback.
    pub address: SocketAddr,
    // Held for its pipes: the server ends when its standard input closes.
    _child: Child,
}

impl Upstream {
    /// Starts the server on a free port and waits for its address; `options` are the script's own.
    ///
    /// # Errors
    /// When the script is not installed or does not announce an address in time.
    pub async fn start(self, options: &[&str]) -> anyhow::Result<Running> {
        let mut command = match self {
            Self::Aimock => script("node", "aimock.mjs"),
            Self::Everything => script("node", "everything.mjs"),
            Self::TwoEras => script("python", "mcp_server.py"),
        }?;
        command.args(options).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(START, lines.next_line())
            .await
            .with_context(|| format!("{self:?} did not start in time"))??;
        let Some(line) = line else {
            bail!("{self:?} ended before it listened: {}", child.wait().await?);
        };
        let announced: Value = serde_json::from_str(&line)?;
        let address = announced["listening"].as_str().context("no address")?;
        Ok(Running {
            address: address.parse()?,
            _child: child,
        })
    }
}

/// A command for `tests/clients/<language>/<name>`, which dies with its handle.
fn script(language: &str, name: &str) -> anyhow::Result<Command> {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let interpreter = clients.join("python/.venv/bin").join(language);
    let installed = clients.join("node/node_modules/.installed");
    if !interpreter.exists() || (language == "node" && !installed.exists()) {
        bail!("the foreign clients are not installed; run `make clients`");
    }
    let mut command = Command::new(interpreter);
    command
        .arg(clients.join(language).join(name))
        .kill_on_drop(true);
    // Only what an interpreter needs: no proxies, keys or base URLs of the developer's shell.
    command.env_clear();
    for (key, value) in std::env::vars_os() {
        if ["PATH", "HOME", "LANG", "TMPDIR"]
            .iter()
            .any(|kept| key == OsStr::new(kept))
        {
            command.env(key, value);
        }
    }
    command.env("PYTHONWARNINGS", "ignore");
    Ok(command)
}
