//! The files of `tests/authz`, read.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::yaml;

/// The kind of Istio's policies, as `explain` and audit events name it.
pub(super) const ISTIO: &str = "AuthorizationPolicy";
/// The host of a row that names none.
pub(super) const HOST: &str = "app.example.com";
/// Stands in objects for the keys of the tokens that rows bring.
pub(super) const JWKS: &str = "{jwks}";
/// The trust domain of a mesh that names none.
const DOMAIN: &str = "cluster.local";
const DEVIATIONS: &str = "deviations.yaml";

/// All rows.
#[derive(Debug)]
pub(super) struct Corpus {
    pub(super) files: Vec<File>,
    pub(super) deviations: Vec<Deviation>,
}

/// One subject.
#[derive(Debug)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) groups: Vec<Group>,
}

/// Objects, and what is decided with them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) about: String,
    /// The mesh configuration, in the ConfigMap `istio` of `istio-system`.
    #[serde(default)]
    mesh: Option<Map<String, Value>>,
    /// More fields of `WaypointParameters.spec`.
    #[serde(default)]
    pub(super) parameters: String,
    objects: String,
    pub(super) rows: Vec<Row>,
}

/// One request and what must come of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) case: String,
    #[serde(default)]
    pub(super) ask: Value,
    pub(super) expect: Expected,
    /// What decides; of refused objects a part of the message.
    #[serde(default)]
    pub(super) by: String,
    /// The documented rule.
    pub(super) why: String,
    /// Policies on trial that would deny it.
    #[serde(default)]
    would_deny: Vec<String>,
    /// Stands in the objects for `{with}`.
    #[serde(default)]
    with: Option<String>,
    /// Why the row cannot be asked on the wire although its fields could.
    #[serde(default)]
    not_on_the_wire: Option<String>,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Expected {
    Allow,
    Deny,
    /// The request is refused before any policy is asked.
    BadRequest,
    /// The objects are.
    Refused,
}

/// Where a row is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Side {
    Explain,
    /// The wire, by HTTP/1.1.
    Http1,
    /// The wire, by HTTP/2.
    Http2,
}

/// A row that is known to be decided otherwise than documented.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deviation {
    file: String,
    case: String,
    pub(super) on: Vec<Side>,
    /// What comes of it; `refused` for objects that are, with whatever message.
    observed: String,
    /// Why it is so.
    pub(super) why: String,
}

impl Deviation {
    pub(super) fn is_of(&self, file: &str, case: &str, side: Side) -> bool {
        self.file == file && self.case == case && self.on.contains(&side)
    }

    pub(super) fn is_observed(&self, actual: &str) -> bool {
        match self.observed.as_str() {
            "refused" => actual.starts_with("refused: "),
            observed => observed == actual,
        }
    }
}

impl Corpus {
    pub(super) fn read() -> anyhow::Result<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("authz");
        let mut corpus = Self {
            files: Vec::new(),
            deviations: Vec::new(),
        };
        for entry in fs::read_dir(&directory).context("no corpus")? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.context("a name is text")?.to_owned();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let value = yaml::read(&fs::read_to_string(&path)?);
            let value = value.with_context(|| name.clone())?;
            if name == DEVIATIONS {
                corpus.deviations = serde_json::from_value(value).context(name)?;
                continue;
            }
            let groups = serde_json::from_value(value).with_context(|| name.clone())?;
            corpus.files.push(File { name, groups });
        }
        corpus.check()?;
        Ok(corpus)
    }

    /// Whether every row can be told from all others, and says what it is there for.
    fn check(&self) -> anyhow::Result<()> {
        let mut cases = HashSet::new();
        for file in &self.files {
            for row in file.groups.iter().flat_map(|group| &group.rows) {
                let place = format!("{}: {}", file.name, row.case);
                anyhow::ensure!(!row.why.is_empty(), "{place}: no reason");
                let names_who = row.by.is_empty() == (row.expect == Expected::BadRequest);
                anyhow::ensure!(names_who, "{place}: `by` and `expect` do not fit");
                anyhow::ensure!(cases.insert((&file.name, &row.case)), "{place}: twice");
            }
        }
        for known in &self.deviations {
            let row = (&known.file, &known.case);
            anyhow::ensure!(cases.contains(&row), "{row:?} deviates and is no row");
        }
        Ok(())
    }
}

impl File {
    pub(super) fn rows(&self) -> usize {
        self.groups.iter().map(|group| group.rows.len()).sum()
    }
}

impl Group {
    /// The objects a row is decided with.
    pub(super) fn objects(&self, row: &Row) -> String {
        let mut objects = match &row.with {
            Some(with) => self.objects.replace("{with}", with),
            None => self.objects.clone(),
        };
        if let Some(mesh) = &self.mesh {
            // JSON is YAML, and quoted JSON is a text of it.
            let mesh = Value::String(Value::Object(mesh.clone()).to_string());
            objects.push_str(&format!(
                "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata: {{mesh: {mesh}}}\n"
            ));
        }
        objects
    }

    /// Whether listeners accept certificates of a trust domain.
    fn knows(&self, domain: &str) -> bool {
        let mesh = |key: &str| self.mesh.as_ref().and_then(|mesh| mesh.get(key));
        let own = mesh("trustDomain").and_then(Value::as_str);
        let mut aliases = mesh("trustDomainAliases")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        own.unwrap_or(DOMAIN) == domain || aliases.any(|alias| alias == domain)
    }
}

impl Row {
    pub(super) fn is_tcp(&self) -> bool {
        self.ask["protocol"] == "tcp"
    }

    /// Whether a caller of the gateway can bring all of it about.
    pub(super) fn is_for_the_wire(&self, group: &Group) -> bool {
        let ask = self.ask.as_object();
        let is_said = |(field, value): (&String, &Value)| match field.as_str() {
            "principal" => value.as_str().is_none_or(|text| {
                let rest = text.strip_prefix("spiffe://").unwrap_or_default();
                group.knows(rest.split('/').next().unwrap_or_default())
            }),
            "method" | "path" | "host" | "headers" => true,
            "port" => value.is_string(),
            "jwt" => group.objects.contains(JWKS),
            "protocol" => value == "http",
            "source_ip" => value == "127.0.0.1",
            "remote_ip" => self.ask["headers"].get("x-forwarded-for").is_some(),
            _ => false,
        };
        self.not_on_the_wire.is_none()
            && self.expect != Expected::Refused
            && ask.is_none_or(|ask| ask.iter().all(is_said))
    }

    pub(super) fn expected(&self) -> String {
        match self.expect {
            Expected::Allow => outcome("allow", &self.by, &self.would_deny),
            Expected::Deny => outcome("deny", &self.by, &self.would_deny),
            Expected::BadRequest => "bad-request".into(),
            Expected::Refused => format!("refused: {}", self.by),
        }
    }

    pub(super) fn expected_on_the_wire(&self) -> String {
        match self.expect {
            // Audit events of what is allowed name what let it pass last.
            Expected::Allow if self.by.starts_with(ISTIO) => "allow".into(),
            _ => self.expected(),
        }
    }
}

/// An outcome in words.
pub(super) fn outcome(decision: &str, by: &str, would_deny: &[String]) -> String {
    let mut text = format!("{decision} by {by}");
    for would in would_deny {
        text.push_str(&format!(", would deny: {would}"));
    }
    text
}
