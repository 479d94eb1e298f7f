//! Plays the scenes, and compares what the gateway says with what it should say.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::client::{self, Agent, Reply, Session};
use super::scenes::{Ask, Expect, SCENES, Scene};
use super::setup::Setup;

/// What came of a scene.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) scene: &'static Scene,
    /// The gateway's audit event; null when there is none.
    pub(super) event: Value,
    /// What is not as expected.
    pub(super) problems: Vec<String>,
}

/// The agents, and their open MCP sessions.
pub(super) struct Cast {
    agents: HashMap<Option<&'static str>, Agent>,
    sessions: HashMap<(Option<&'static str>, &'static str), Session>,
    admin: SocketAddr,
}

impl Cast {
    pub(super) fn new(
        setup: &Setup,
        gateway: SocketAddr,
        admin: SocketAddr,
    ) -> anyhow::Result<Self> {
        let mut agents = HashMap::new();
        agents.insert(None, Agent::new(gateway, &setup.root_pem, None)?);
        for (name, identity) in &setup.identities {
            let agent = Agent::new(gateway, &setup.root_pem, Some(identity))?;
            agents.insert(Some(*name), agent);
        }
        Ok(Self {
            agents,
            sessions: HashMap::new(),
            admin,
        })
    }

    /// Plays all scenes, one after the other.
    pub(super) async fn play(mut self) -> Vec<Played> {
        let mut played = Vec::with_capacity(SCENES.len());
        for scene in SCENES {
            played.push(self.scene(scene).await);
        }
        played
    }

    async fn scene(&mut self, scene: &'static Scene) -> Played {
        let mut problems = Vec::new();
        let mut event = Value::Null;
        match self.ask(scene, &mut problems).await {
            Err(error) => problems.push(format!("{error:#}")),
            Ok(reply) => {
                if reply.status != scene.expect.status {
                    problems.push(differs("status", scene.expect.status, reply.status));
                }
                match reply.request_id() {
                    None => problems.push("the answer has no x-request-id".into()),
                    Some(id) => match client::audit(self.admin, id).await {
                        Ok(found) => event = found,
                        Err(error) => problems.push(format!("{error:#}")),
                    },
                }
            }
        }
        if !event.is_null() {
            compare(scene, &event, &mut problems);
        }
        Played {
            scene,
            event,
            problems,
        }
    }

    async fn ask(&mut self, scene: &Scene, problems: &mut Vec<String>) -> anyhow::Result<Reply> {
        let Some(agent) = self.agents.get(&scene.who) else {
            anyhow::bail!("nobody of this name");
        };
        let question = json!([{"role": "user", "content": "Please review the change in #42."}]);
        let is_allowed = scene.expect.decision == Some("allow");
        match scene.ask {
            Ask::Chat { model, stream } => {
                let body = json!({"model": model, "stream": stream, "messages": question});
                let path = "/ai-gateway/v1/chat/completions";
                let reply = agent.post(path, &[], &body).await?;
                if stream && is_allowed {
                    must_end(&reply, "data: [DONE]", problems);
                }
                Ok(reply)
            }
            Ask::Message {
                model,
                stream,
                max_tokens,
            } => {
                let body = json!({"model": model, "stream": stream, "max_tokens": max_tokens,
                    "messages": question});
                let version = [("anthropic-version", "2023-06-01")];
                let reply = agent
                    .post("/ai-gateway/v1/messages", &version, &body)
                    .await?;
                if stream && is_allowed {
                    must_end(&reply, "data: {\"type\":\"message_stop\"}", problems);
                }
                Ok(reply)
            }
            Ask::Get { host, path } => agent.get(host, path).await,
            Ask::ListTools { route, shown } => {
                let (reply, message) = self.mcp(scene.who, route, "tools/list", json!({})).await?;
                let tools = message
                    .as_ref()
                    .and_then(|m| m.pointer("/result/tools")?.as_array());
                let names: Vec<&str> = tools
                    .into_iter()
                    .flatten()
                    .filter_map(|tool| tool.get("name")?.as_str())
                    .collect();
                if names != shown {
                    problems.push(differs("tools", shown.join(" "), names.join(" ")));
                }
                Ok(reply)
            }
            Ask::CallTool { route, tool } => {
                let params = json!({"name": tool, "arguments": {"repo": "acme/shop"}});
                let (reply, message) = self.mcp(scene.who, route, "tools/call", params).await?;
                let done = message.is_some_and(|message| message.get("result").is_some());
                if done != is_allowed {
                    problems.push(differs("a result", is_allowed, done));
                }
                Ok(reply)
            }
        }
    }

    /// One request in the agent's session with a server, which is opened if need be. When it
    /// cannot be opened the refusal is the answer.
    async fn mcp(
        &mut self,
        who: Option<&'static str>,
        route: &'static str,
        method: &str,
        params: Value,
    ) -> anyhow::Result<(Reply, Option<Value>)> {
        let Some(agent) = self.agents.get(&who) else {
            anyhow::bail!("nobody of this name");
        };
        let path = format!("/mcp/{route}");
        let mut session = match self.sessions.remove(&(who, route)) {
            Some(session) => session,
            None => match Session::open(agent, &path).await? {
                Ok(session) => session,
                Err(refusal) => return Ok((refusal, None)),
            },
        };
        let answer = session.request(agent, &path, method, params).await;
        self.sessions.insert((who, route), session);
        answer
    }
}

/// A stream that just stops is not an answer.
fn must_end(reply: &Reply, with: &str, problems: &mut Vec<String>) {
    let body = String::from_utf8_lossy(&reply.body);
    if !body.trim_end().ends_with(with) {
        problems.push(format!("the stream does not end with {with}"));
    }
}

fn differs(what: &str, expected: impl std::fmt::Display, actual: impl std::fmt::Display) -> String {
    format!("{what}: expected {expected}, got {actual}")
}

/// The principal as the audit must have it.
fn principal(who: Option<&str>) -> String {
    who.map_or_else(|| "anonymous".into(), super::setup::spiffe)
}

fn compare(scene: &Scene, event: &Value, problems: &mut Vec<String>) {
    let Expect {
        decision,
        by,
        status,
        attempts,
        tokens,
        would_deny,
    } = scene.expect;
    let text = |field: &str| event.get(field).and_then(Value::as_str).unwrap_or_default();
    let would = event.pointer("/would_deny/0").map(rule).unwrap_or_default();
    let upstream = event.pointer("/tokens/source").and_then(Value::as_str) == Some("upstream");
    let number = |field: &str| event.get(field).and_then(Value::as_u64).unwrap_or_default();
    for (what, expected, actual) in [
        (
            "principal",
            principal(scene.who),
            text("principal").to_owned(),
        ),
        (
            "decision",
            decision.unwrap_or_default().into(),
            text("decision").to_owned(),
        ),
        (
            "rule",
            by.into(),
            event.get("by").map(rule).unwrap_or_default(),
        ),
        (
            "audited status",
            status.to_string(),
            number("status").to_string(),
        ),
        (
            "attempts",
            attempts.to_string(),
            number("attempts").to_string(),
        ),
        ("tokens counted", tokens.to_string(), upstream.to_string()),
        ("would be denied by", would_deny.into(), would),
    ] {
        if expected != actual {
            problems.push(differs(what, expected, actual));
        }
    }
}

/// The rule of a `by`, or the default that stands in for one.
pub(super) fn rule(by: &Value) -> String {
    let field = |name: &str| by.get(name).and_then(Value::as_str);
    field("rule")
        .or(field("name"))
        .unwrap_or_default()
        .to_owned()
}
