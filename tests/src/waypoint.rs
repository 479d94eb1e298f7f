//! The built gateway as a process, with a configuration of its own.

mod metrics;
mod objects;

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

pub use metrics::Metrics;
pub use objects::{
    Backend, Ports, agent, http_route, mcp_proxy, object, provider, provider_at, roots, route,
    secret, service, usage_limit,
};

use crate::certificates::{Authority, Identity};
use crate::client::{Answer, Client, Request};
use crate::wait::{DEADLINE, soon, until};

/// The trust domain of a waypoint under test.
pub const DOMAIN: &str = "cluster.local";
/// Who callers of the `dev` listener are.
pub const DEVELOPER: &str = "spiffe://cluster.local/ns/agents/sa/dev";
/// Who the waypoint is in the mesh.
pub const WAYPOINT: &str = "spiffe://cluster.local/ns/agents/sa/wp";
/// A workload of the waypoint's namespace.
pub const ANN: &str = "spiffe://cluster.local/ns/agents/sa/ann";
/// Another one.
pub const BOB: &str = "spiffe://cluster.local/ns/agents/sa/bob";

/// What to run; [`Setup::start`] does.
#[derive(Debug, Default)]
pub struct Setup {
    objects: String,
    parameters: String,
    limits: String,
    environment: Vec<(String, String)>,
    files: Vec<(String, String)>,
    whole: Option<Whole>,
    hbone: bool,
}

/// A configuration that is not the usual one.
#[derive(Debug)]
pub struct Whole {
    /// Where its listeners listen.
    pub ports: Ports,
    /// Signs the certificates of its callers.
    pub authority: Authority,
    /// Its files: names and texts.
    pub files: Vec<(String, String)>,
    /// Which Gateway to be, as `namespace/name`, when there are several.
    pub gateway: Option<String>,
}

impl Setup {
    /// The Gateway `agents/wp` with its listeners, in the default posture, and these objects.
    #[must_use]
    pub fn new(objects: &str) -> Self {
        Self {
            objects: objects.into(),
            ..Self::default()
        }
    }

    /// A configuration of its own. Its audit events go to `{dir}/audit.jsonl`.
    #[must_use]
    pub fn whole(whole: Whole) -> Self {
        Self {
            whole: Some(whole),
            ..Self::default()
        }
    }

    /// Adds fields of `WaypointParameters.spec`, as YAML without indentation.
    #[must_use]
    pub fn parameters(mut self, yaml: &str) -> Self {
        self.parameters.push_str(yaml);
        self.parameters.push('\n');
        self
    }

    /// Adds fields of `WaypointParameters.spec.limits`.
    #[must_use]
    pub fn limits(mut self, yaml: &str) -> Self {
        if !yaml.is_empty() {
            self.limits.push_str(yaml);
            self.limits.push('\n');
        }
        self
    }

    /// Adds an HBONE listener `mesh`, and the certificate of [`WAYPOINT`] that it needs.
    #[must_use]
    pub fn hbone(mut self) -> Self {
        self.hbone = true;
        self
    }

    /// Adds a variable of the gateway's environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Adds a file beside the configuration, which `{dir}` in the objects stands for.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.into(), text.into()));
        self
    }

    /// Writes everything and starts the gateway; it is ready when this returns.
    ///
    /// # Panics
    /// When it does not become ready, with what it said.
    pub async fn start(self) -> Waypoint {
        let mut waypoint = self.spawn();
        if let Err(error) = waypoint.ready().await {
            // What it said last may still be on its way.
            if waypoint.has_ended() {
                waypoint.ended().await;
            }
            panic!("{error:#}\n{}", waypoint.stderr());
        }
        waypoint
    }

    /// Writes everything and starts the gateway, which may well end at once.
    ///
    /// # Panics
    /// When the files cannot be written or the binary is not there.
    #[must_use]
    pub fn spawn(self) -> Waypoint {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = directory.path().join("config");
        std::fs::create_dir(&config).expect("a directory");
        for (name, text) in &self.files {
            std::fs::write(directory.path().join(name), text).expect("a file");
        }
        if let Some(whole) = self.whole {
            let waypoint = Waypoint {
                run: Run::none(),
                config,
                directory,
                authority: whole.authority,
                ports: whole.ports,
            };
            for (name, text) in &whole.files {
                waypoint.write(name, text);
            }
            let gateway = whole.gateway.iter();
            let more: Vec<String> = gateway
                .flat_map(|gateway| ["--gateway".to_owned(), gateway.clone()])
                .collect();
            let run = Run::start(&waypoint.config, &waypoint.ports, &more, &self.environment);
            return Waypoint { run, ..waypoint };
        }
        let authority = Authority::new();
        let ports = Ports::take();
        let identity = self.hbone.then(|| directory.path().to_path_buf());
        if identity.is_some() {
            write_identity(directory.path(), &authority, &authority.waypoint(WAYPOINT));
        }
        let base = objects::base(&objects::Base {
            identity: identity.as_deref(),
            ports: &ports,
            authority: &authority,
            server: &authority.server(),
            audit: &directory.path().join("audit.jsonl"),
            parameters: &self.parameters,
            limits: &self.limits,
        });
        std::fs::write(config.join("gateway.yaml"), base).expect("a file");
        let waypoint = Waypoint {
            run: Run::none(),
            config,
            directory,
            authority,
            ports,
        };
        waypoint.write("objects.yaml", &self.objects);
        let run = Run::start(&waypoint.config, &waypoint.ports, &[], &self.environment);
        Waypoint { run, ..waypoint }
    }
}

/// Writes the files of a waypoint's certificate, one after the other, each whole.
///
/// # Panics
/// When one cannot be written.
pub fn write_identity(directory: &Path, roots: &Authority, identity: &Identity) {
    for (name, text) in [
        ("tls.crt", &identity.certificate_pem),
        ("tls.key", &identity.key_pem),
        ("root.crt", &roots.pem),
    ] {
        let new = directory.join(format!("new-{name}"));
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, directory.join(name)).expect("a file");
    }
}

/// The process and what it said.
#[derive(Debug)]
struct Run {
    child: Option<Child>,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Run {
    fn none() -> Self {
        Self {
            child: None,
            stdout: Arc::default(),
            stderr: Arc::default(),
            readers: Vec::new(),
        }
    }

    fn start(
        config: &Path,
        ports: &Ports,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Self {
        let mut command = Command::new(binary());
        command.arg("run").arg("--config").arg(config);
        command.args(arguments);
        for (option, port) in [
            ("--admin-address", ports.admin),
            ("--metrics-address", ports.metrics),
            ("--ready-address", ports.ready),
        ] {
            command.arg(option).arg(format!("127.0.0.1:{port}"));
        }
        command.env_clear().envs(environment.iter().cloned());
        command.env("RUST_BACKTRACE", "1").kill_on_drop(true);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the gateway can be started");
        let mut run = Self::none();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            let keep = (Arc::clone(&run.stdout), Arc::clone(&run.stderr));
            run.readers.push(tokio::spawn(collect(stdout, keep.0)));
            run.readers.push(tokio::spawn(collect(stderr, keep.1)));
        }
        run.child = Some(child);
        run
    }
}

async fn collect(mut from: impl tokio::io::AsyncRead + Unpin, to: Arc<Mutex<Vec<u8>>>) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(read) = from.read(&mut piece).await {
        if read == 0 {
            return;
        }
        let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
        to.extend_from_slice(&piece[..read]);
    }
}

/// The binary of the same build as the tests.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn binary() -> PathBuf {
    let tests = std::env::current_exe().expect("the tests are a file");
    // target/PROFILE/deps/main-HASH → target/PROFILE/kgateway-waypoint
    let profile = tests.parent().and_then(Path::parent);
    let binary = profile
        .map(|profile| profile.join("kgateway-waypoint"))
        .expect("the tests are in target/PROFILE/deps");
    assert!(
        binary.exists(),
        "{} is not there; run `cargo build -p kgateway-waypoint`",
        binary.display()
    );
    binary
}

/// A running gateway; dropping it ends the process.
#[derive(Debug)]
pub struct Waypoint {
    run: Run,
    config: PathBuf,
    directory: TempDir,
    /// Signs the certificates of its callers.
    pub authority: Authority,
    /// Where it listens.
    pub ports: Ports,
}

impl Waypoint {
    async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while tokio::time::Instant::now() < deadline {
            if let Some(child) = &mut self.run.child
                && let Some(status) = child.try_wait()?
            {
                bail!("the gateway ended: {status}");
            }
            if self
                .readiness()
                .await
                .is_ok_and(|(status, _)| status == 200)
            {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        bail!("the gateway did not become ready")
    }

    fn has_ended(&mut self) -> bool {
        let child = self.run.child.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// Status of the readiness port and the generation in force.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn readiness(&self) -> anyhow::Result<(u16, u64)> {
        let answer = get(self.ports.ready, "/healthz/ready").await?;
        let generation = answer.json()["generation"].as_u64();
        Ok((answer.status, generation.context("no generation")?))
    }

    /// The generation in force.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn generation(&self) -> u64 {
        self.readiness().await.expect("readiness is answered").1
    }

    /// A file beside the configuration.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The directory of the configuration.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Writes a file of the configuration, whole or not at all.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        let text = text.replace("{dir}", &self.directory.path().display().to_string());
        let new = self.path(&format!("new-{name}"));
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, self.config.join(name)).expect("a file");
    }

    /// Changes the objects and waits until a new generation is in force.
    pub async fn reload(&self, objects: &str) {
        let before = self.generation().await;
        self.write("objects.yaml", objects);
        self.generation_after(before).await;
    }

    /// Replaces text of the Gateway and its parameters and waits until that is in force.
    ///
    /// # Panics
    /// When there is no such text.
    pub async fn edit_base(&self, from: &str, to: &str) {
        let base = std::fs::read_to_string(self.config.join("gateway.yaml")).expect("a file");
        assert!(base.contains(from), "no {from:?} in {base}");
        let before = self.generation().await;
        self.write("gateway.yaml", &base.replace(from, to));
        self.generation_after(before).await;
    }

    /// Waits until a generation after this one is in force.
    pub async fn generation_after(&self, before: u64) {
        until("a new generation", || async {
            (self.generation().await > before).then_some(())
        })
        .await;
    }

    /// The metrics as they are now.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn metrics(&self) -> Metrics {
        let answer = get(self.ports.metrics, "/metrics").await;
        Metrics::new(answer.expect("metrics are answered").text())
    }

    /// Waits until a sample, summed over all others of its name with these labels, reaches a value.
    pub async fn metric_reaches(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        until(&format!("{name}{labels:?} >= {value}"), || async {
            (self.metrics().await.sum(name, labels) >= value).then_some(())
        })
        .await;
    }

    /// Runs another command of the binary on the configuration, with this on its standard input:
    /// how it exits, and what it says.
    ///
    /// # Panics
    /// When it cannot be run to its end.
    pub async fn command(&self, arguments: &[&str], input: &str) -> (Option<i32>, String) {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--config").arg(&self.config);
        command.env_clear().kill_on_drop(true);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the command can be started");
        if let Some(mut stdin) = child.stdin.take() {
            // It may end before it has read everything.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = soon("the end of a command", child.wait_with_output()).await;
        let output = output.expect("the command ends");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into())
    }

    /// The last decisions, oldest first.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn decisions(&self) -> Vec<Value> {
        let answer = get(self.ports.admin, "/decisions").await;
        let events = answer.expect("decisions are answered").json();
        events.as_array().cloned().unwrap_or_default()
    }

    /// A page of the admin port.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn admin(&self, path: &str) -> Answer {
        get(self.ports.admin, path)
            .await
            .expect("admin is answered")
    }

    /// The audit events so far.
    ///
    /// # Panics
    /// When a line is no JSON.
    #[must_use]
    pub fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("audit.jsonl")).unwrap_or_default();
        // A line that is still being written has no end yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).expect("an audit line is JSON"))
            .collect()
    }

    /// The audit event of an answer, by its `x-request-id`.
    ///
    /// # Panics
    /// When the answer has no id, or the event does not come.
    pub async fn event(&self, answer: &Answer) -> Value {
        let id = answer.header("x-request-id").expect("an answer has an id");
        self.event_where(&format!("request {id}"), |event| event["request_id"] == id)
            .await
    }

    /// The first audit event of a kind.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn event_where(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(&format!("an audit event: {what}"), || async {
            self.audit().into_iter().find(|event| is_it(event))
        })
        .await
    }

    /// What it said on standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        let said = self.run.stderr.lock();
        String::from_utf8_lossy(&said.unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// What it said on standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        let said = self.run.stdout.lock();
        String::from_utf8_lossy(&said.unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Callers of the listener with a developer identity.
    #[must_use]
    pub fn developer(&self) -> Client {
        Client::plain(self.ports.dev)
    }

    /// Callers of the plain listener, who have no identity.
    #[must_use]
    pub fn anonymous(&self) -> Client {
        Client::plain(self.ports.plain)
    }

    /// A workload at the listener that requires certificates.
    #[must_use]
    pub fn workload(&self, spiffe: &str) -> Client {
        self.with(&self.authority.agent(spiffe))
    }

    /// A caller with a certificate at the listener that requires one.
    #[must_use]
    pub fn with(&self, identity: &Identity) -> Client {
        Client::tls(self.ports.mtls, &self.authority, Some(identity))
    }

    /// The process id.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        let child = self.run.child.as_ref();
        child.and_then(Child::id).expect("the gateway runs")
    }

    /// The most memory it has held so far, in bytes.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("the gateway runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.expect("Linux tells it") * 1024
    }

    /// Waits until the process has been told to end and says so.
    pub async fn draining(&self) {
        until("readiness is taken back", || async {
            let (status, _) = self.readiness().await.ok()?;
            (status == 503).then_some(())
        })
        .await;
    }

    /// Asks it to end, as an orchestrator does.
    ///
    /// # Panics
    /// When it has ended already.
    pub async fn terminate(&self) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(sent.is_ok_and(|status| status.success()), "no such process");
    }

    /// Waits for its end; everything it said has been read then.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = self.run.child.as_mut().expect("it was started");
        let status = soon("the end of the gateway", child.wait()).await;
        for reader in self.run.readers.drain(..) {
            let _ = soon("the end of its output", reader).await;
        }
        status.expect("a child can be waited for")
    }
}

async fn get(port: u16, path: &str) -> anyhow::Result<Answer> {
    Client::plain(port).call(&Request::new("GET", path)).await
}
