//! The corpus of decisions in `tests/authz`: every row by `explain`, and on the wire where it can
//! be said there, by both versions of HTTP.

mod corpus;
mod signer;
pub(crate) mod yaml;

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use waypoint_tests::client::{Client, Request};
use waypoint_tests::upstream::{Reply, Upstream};
use waypoint_tests::wait::soon;
use waypoint_tests::waypoint::{Setup, Waypoint, binary, http_route, service};

use crate::live_explain;
use corpus::{Corpus, Deviation, Expected, File, Row, Side};

/// Rows there are at least, and requests that are made of them: none is lost by accident.
const ROWS: usize = 851;
const REQUESTS: usize = 1_114;
/// Files at a time; each has a gateway of its own and one process of `explain`.
const AT_A_TIME: usize = 3;
/// What `explain` ends with when objects or the question are refused.
const REFUSED: i32 = 2;

#[tokio::test]
async fn rows_are_decided_as_documented() {
    let corpus = Corpus::read().unwrap();
    let rows: usize = corpus.files.iter().map(File::rows).sum();
    assert!(rows >= ROWS, "{rows} rows");
    let turns = Arc::new(Semaphore::new(AT_A_TIME));
    let deviations = Arc::new(corpus.deviations);
    let mut running = JoinSet::new();
    for file in corpus.files {
        let (turns, deviations) = (Arc::clone(&turns), Arc::clone(&deviations));
        running.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            run(file, &deviations).await
        });
    }
    let (mut wrong, mut requests, mut deviated) = (Vec::new(), 0, 0);
    while let Some(done) = running.join_next().await {
        let done = done.unwrap();
        wrong.extend(done.wrong);
        requests += done.requests;
        deviated += done.deviated;
    }
    wrong.sort();
    assert!(
        wrong.is_empty(),
        "{} of {rows} rows\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(requests >= REQUESTS, "{requests} requests");
    let known: usize = deviations.iter().map(|known| known.on.len()).sum();
    assert_eq!(
        deviated, known,
        "deviations that were met, and that are listed"
    );
}

/// What came of a file.
#[derive(Default)]
struct Done {
    wrong: Vec<String>,
    requests: usize,
    deviated: usize,
}

/// A gateway and who calls it.
struct Running {
    waypoint: Waypoint,
    callers: HashMap<String, Client>,
    objects: String,
    /// The keys of the tokens that rows bring.
    jwks: String,
}

impl Running {
    async fn start(objects: String, parameters: &str) -> Self {
        Self {
            waypoint: Setup::new(&objects).parameters(parameters).start().await,
            callers: HashMap::new(),
            objects,
            jwks: signer::jwks(),
        }
    }

    /// Has these objects in force.
    async fn load(&mut self, objects: String) {
        if objects != self.objects {
            self.waypoint.reload(&objects).await;
            self.objects = objects;
        }
    }

    fn caller(&mut self, row: &Row) -> Client {
        let Some(principal) = row.ask["principal"].as_str() else {
            return self.waypoint.anonymous();
        };
        let caller = self.callers.entry(principal.to_owned());
        let caller = caller.or_insert_with(|| self.waypoint.workload(principal));
        caller.clone()
    }

    /// Ports by the names of the listeners.
    fn ports(&self) -> [(&'static str, u16); 2] {
        let ports = &self.waypoint.ports;
        [("{mtls}", ports.mtls), ("{plain}", ports.plain)]
    }

    fn fill(&self, text: &str) -> String {
        let ports = self.ports().into_iter();
        let text = text.replace(corpus::JWKS, &self.jwks);
        ports.fold(text, |text, (name, port)| {
            text.replace(name, &port.to_string())
        })
    }

    /// The request of a row as `explain` takes it: with what the wire would add.
    fn asked(&self, row: &Row) -> Value {
        let mut ask = row.ask.clone();
        for (name, port) in self.ports() {
            if ask["port"] == name {
                ask["port"] = port.into();
            }
        }
        let [(_, mtls), (_, plain)] = self.ports();
        let port = if ask["principal"].is_null() {
            plain
        } else {
            mtls
        };
        if !row.is_tcp() {
            for (field, value) in [
                ("host", json!(corpus::HOST)),
                ("source_ip", json!("127.0.0.1")),
                ("port", json!(port)),
            ] {
                if ask.get(field).is_none() {
                    ask[field] = value;
                }
            }
        }
        ask
    }
}

async fn run(file: File, deviations: &[Deviation]) -> Done {
    let mut done = Done::default();
    let upstream = Upstream::always(Reply::whole(200, &[], "hello")).await;
    let base = [
        service("app", &upstream, "http"),
        http_route("app", "rules: [{backendRefs: [{name: app, port: 80}]}]"),
    ]
    .concat();
    let mut usual = Running::start(base.clone(), "").await;
    for group in &file.groups {
        let mut own = None;
        if !group.parameters.is_empty() {
            own = Some(Running::start(base.clone(), &group.parameters).await);
        }
        let running = own.as_mut().unwrap_or(&mut usual);
        let config = tempfile::tempdir().unwrap();
        let gateway = running.waypoint.config().join("gateway.yaml");
        std::fs::copy(gateway, config.path().join("gateway.yaml")).unwrap();
        for row in &group.rows {
            let objects = base.clone() + &running.fill(&group.objects(row));
            let known = |side| {
                let mut known = deviations.iter();
                known.find(|known| known.is_of(&file.name, &row.case, side))
            };
            let mut note = |side, expected: String, actual: String| {
                let place = format!("{}: {}: {} ({side:?})", file.name, group.about, row.case);
                match known(side) {
                    Some(known) if actual == expected => done.wrong.push(format!(
                        "{place}: is as documented now; strike it from the deviations: {}",
                        known.why
                    )),
                    Some(known) if known.is_observed(&actual) => done.deviated += 1,
                    _ if actual == expected => {}
                    _ => done.wrong.push(format!(
                        "{place}: expected {expected}, got {actual}: {}",
                        row.why
                    )),
                }
            };
            std::fs::write(config.path().join("objects.yaml"), &objects).unwrap();
            let said = explain(config.path(), &running.asked(row)).await;
            note(Side::Explain, row.expected(), said.of(row));
            if said.code != Some(REFUSED) && row.is_for_the_wire(group) {
                running.load(objects).await;
                for side in [Side::Http1, Side::Http2] {
                    // Where `explain` itself is known to be wrong there is nothing to compare with.
                    let is_known = known(Side::Explain).is_some();
                    let trace = (!is_known).then_some(&said.answer["trace"]);
                    let Some(said) = wire(running, row, side, trace).await else {
                        continue;
                    };
                    note(side, row.expected_on_the_wire(), said);
                    done.requests += 1;
                }
            }
        }
    }
    done
}

/// What `explain` said.
struct Said {
    code: Option<i32>,
    answer: Value,
    stderr: String,
}

async fn explain(config: &Path, ask: &Value) -> Said {
    let mut command = Command::new(binary());
    command.arg("explain").arg("--config").arg(config);
    command.args(["--request", "-", "--output", "json"]);
    command.env_clear().kill_on_drop(true);
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may end before it has read everything.
    let _ = stdin.write_all(ask.to_string().as_bytes()).await;
    drop(stdin);
    let output = soon("the end of explain", child.wait_with_output()).await;
    let output = output.unwrap();
    Said {
        code: output.status.code(),
        answer: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Said {
    /// The outcome in the corpus' words.
    fn of(&self, row: &Row) -> String {
        if self.code == Some(REFUSED) {
            let is_expected = row.expect == Expected::Refused && self.stderr.contains(&row.by);
            let why = if is_expected {
                &row.by
            } else {
                self.stderr.trim()
            };
            return format!("refused: {why}");
        }
        let decision = match (self.code, self.answer["decision"].as_str()) {
            (Some(0), Some("allow")) => "allow",
            (Some(3), Some("deny")) if self.answer["code"] == "bad_request" => {
                return "bad-request".into();
            }
            (Some(3), Some("deny")) => "deny",
            (code, _) => return format!("exit {code:?}: {}", self.stderr.trim()),
        };
        let mut by = named(&self.answer["by"]);
        // The defaults of our own kinds let pass what an ALLOW has let pass before.
        if decision == "allow" && by.starts_with("Posture") && row.by.starts_with(corpus::ISTIO) {
            by = self.allowed_by().unwrap_or(by);
        }
        outcome(decision, &by, &self.answer["would_deny"])
    }

    /// The first ALLOW rule in force that matched.
    fn allowed_by(&self) -> Option<String> {
        let mut trace = self.answer["trace"].as_array()?.iter();
        let found = trace.find(|entry| {
            entry["kind"] == corpus::ISTIO
                && entry["effect"] == "Allow"
                && entry["mode"] == "Enforce"
                && entry["outcome"] == "matched"
        })?;
        let (policy, rule) = (&found["policy"], &found["rule"]);
        Some(named(&json!({
            "kind": corpus::ISTIO,
            "namespace": policy["namespace"],
            "name": policy["name"],
            "rule": rule,
        })))
    }
}

/// Asks the running gateway; nothing comes of what our client of HTTP/2 cannot say. What it tells of
/// a decision afterwards must be what `explain` says.
async fn wire(
    running: &mut Running,
    row: &Row,
    side: Side,
    trace: Option<&Value>,
) -> Option<String> {
    let caller = running.caller(row);
    let text = |field: &str, default: &str| {
        let given = row.ask.get(field).and_then(Value::as_str);
        given.unwrap_or(default).to_owned()
    };
    let mut request = Request::new(&text("method", "GET"), &text("path", "/"));
    request.host = Some(text("host", corpus::HOST));
    for (name, values) in row.ask["headers"].as_object().into_iter().flatten() {
        let values = match values {
            Value::Array(values) => values.clone(),
            one => vec![one.clone()],
        };
        for value in &values {
            request = request.header(name, value.as_str().unwrap());
        }
    }
    if row.ask["jwt"].is_object() {
        request = request.header("authorization", &signer::bearer(&row.ask["jwt"]));
    }
    let answer = match side {
        Side::Http2 => {
            let target = format!("http://{}{}", text("host", corpus::HOST), request.target);
            let is_sayable = target.parse::<http::Uri>().is_ok() && !target.contains('#');
            if !is_sayable {
                return None;
            }
            match caller.connect_http2().await {
                Ok(mut connection) => connection.call(&request).await,
                Err(error) => Err(error),
            }
        }
        _ => caller.call(&request).await,
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Some(format!("no answer: {error:#}")),
    };
    if let (200 | 403, Some(trace)) = (answer.status, trace) {
        let told = live_explain::told(&running.waypoint, &answer).await;
        if let Some(other) = live_explain::differs(&told, trace) {
            return Some(format!("told afterwards: {other}"));
        }
    }
    Some(match (answer.status, &*answer.text()) {
        (200, _) => {
            let event = running.waypoint.event(&answer).await;
            match row.by.starts_with(corpus::ISTIO) {
                true => "allow".into(),
                false => outcome("allow", &named(&event["by"]), &event["would_deny"]),
            }
        }
        (403, "RBAC: access denied") => {
            let event = running.waypoint.event(&answer).await;
            outcome("deny", &named(&event["by"]), &event["would_deny"])
        }
        (400, _) => "bad-request".into(),
        (status, text) => format!("{status} {text}"),
    })
}

/// `kind namespace/name rule` of what decided.
fn named(by: &Value) -> String {
    let text = |field: &str| by[field].as_str().unwrap_or_default();
    let name = match text("namespace") {
        "" => text("name").to_owned(),
        namespace => format!("{namespace}/{}", text("name")),
    };
    let whole = format!("{} {name} {}", text("kind"), text("rule"));
    whole.trim_end().to_owned()
}

fn outcome(decision: &str, by: &str, would_deny: &Value) -> String {
    let would: Vec<String> = would_deny
        .as_array()
        .into_iter()
        .flatten()
        .map(named)
        .collect();
    corpus::outcome(decision, by, &would)
}
