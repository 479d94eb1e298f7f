//! The decision order again, written like the specification: loops over everything, nothing
//! shared with the evaluator but the types.

use serde_json::Value;

use crate::{
    Action, AgentPolicy, Argument, Arguments, Caller, Constraint, Effect, Family, HttpBlock,
    JsonType, LlmBlock, McpBlock, Mode, ObjectRef, Operation, Posture, Principal, Rule, Scalar,
    Settings, SpiffePattern, Token, WOULD_DENY_MAX, istio::Claims,
};

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) allowed: bool,
    pub(super) by: String,
    pub(super) would_deny: Vec<String>,
}

pub(super) struct Naive<'a> {
    pub(super) policies: &'a [AgentPolicy],
    pub(super) settings: &'a Settings,
}

/// `*` is any run of characters.
pub(crate) fn glob(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        ([p, pattern @ ..], [t, text @ ..]) => p == t && glob(pattern, text),
        _ => false,
    }
}

fn globs(pattern: &crate::Pattern, text: &str) -> bool {
    let pattern: Vec<char> = pattern.as_str().chars().collect();
    glob(&pattern, &text.chars().collect::<Vec<_>>())
}

impl Naive<'_> {
    pub(super) fn decide(
        &self,
        principal: &Principal,
        targets: &[ObjectRef],
        action: &Action<'_>,
        claims: Option<&Claims>,
    ) -> Answer {
        let family = action.family();
        if family != Family::Http && *principal == Principal::Anonymous {
            return Answer {
                allowed: false,
                by: "Identity no workload identity".into(),
                would_deny: vec![],
            };
        }
        let mut attached: Vec<&AgentPolicy> = self.policies.iter().collect();
        attached.sort_by_key(|policy| &policy.name);
        attached.retain(|policy| policy.targets.iter().any(|t| targets.contains(t)));

        let mut deny = None;
        let mut allow = None;
        let mut covered = false;
        let mut dry_deny = vec![];
        let mut dry_lapse = vec![];
        for policy in attached {
            let whole = format!("AgentPolicy {}", policy.name);
            let mut granted = false;
            for rule in &policy.rules {
                if !self.rule_matches(rule, policy.effect, (principal, claims), action) {
                    continue;
                }
                let name = format!("{whole} rule {}", rule.name);
                match (policy.mode, policy.effect) {
                    (Mode::Enforce, Effect::Deny) => deny = deny.or(Some(name)),
                    (Mode::Enforce, Effect::Allow) => allow = allow.or(Some(name)),
                    (Mode::DryRun, Effect::Deny) => dry_deny.push(name),
                    (Mode::DryRun, Effect::Allow) => granted = true,
                }
            }
            let speaks = policy.rules.is_empty()
                || policy.rules.iter().any(|rule| match family {
                    Family::Llm => !rule.llm.is_empty(),
                    Family::Mcp => !rule.mcp.is_empty(),
                    Family::Http => !rule.http.is_empty(),
                });
            if policy.effect == Effect::Allow && speaks {
                match policy.mode {
                    Mode::Enforce => covered = true,
                    Mode::DryRun if !granted => dry_lapse.push(whole),
                    Mode::DryRun => {}
                }
            }
        }

        let posture = self.settings.posture;
        let mut would_deny = vec![];
        let (allowed, by) = if let Some(rule) = deny {
            (false, rule)
        } else if let Some(rule) = allow {
            (true, rule)
        } else if posture == Posture::Observe {
            if covered {
                would_deny.push("Default no rule allows this".to_owned());
            } else if !self.graduated(principal, action) {
                would_deny.push("Posture Graduated".to_owned());
            }
            (true, "Posture Observe".into())
        } else if covered {
            (false, "Default no rule allows this".into())
        } else if posture == Posture::Strict {
            (false, "Posture Strict".into())
        } else {
            (
                self.graduated(principal, action),
                "Posture Graduated".into(),
            )
        };
        would_deny.extend(dry_deny);
        if allowed && by.starts_with("Posture") && !covered {
            would_deny.extend(dry_lapse);
        }
        would_deny.truncate(WOULD_DENY_MAX);
        Answer {
            allowed,
            by,
            would_deny,
        }
    }

    fn own_workload(&self, principal: &Principal) -> Option<(String, String)> {
        let id = principal.to_string();
        let parts: Vec<&str> = id.split('/').collect();
        match parts[..] {
            ["spiffe:", "", domain, "ns", namespace, "sa", account]
                if self.settings.trust_domains.iter().any(|d| **d == *domain) =>
            {
                Some((namespace.to_owned(), account.to_owned()))
            }
            _ => None,
        }
    }

    fn graduated(&self, principal: &Principal, action: &Action<'_>) -> bool {
        match action {
            Action::Http { external, .. } => !external,
            _ => self
                .own_workload(principal)
                .is_some_and(|(namespace, _)| namespace == *self.settings.namespace),
        }
    }

    fn caller_matches(
        &self,
        caller: &Caller,
        effect: Effect,
        (principal, claims): (&Principal, Option<&Claims>),
    ) -> bool {
        let id = principal.to_string();
        let own = self.own_workload(principal);
        let mut all = true;
        match &caller.spiffe {
            Some(SpiffePattern::Exact(exact)) => all &= id == exact.to_string(),
            Some(SpiffePattern::Prefix(prefix)) => all &= id.starts_with(prefix.as_str()),
            None => {}
        }
        if let Some((namespace, name)) = &caller.service_account {
            all &= own == Some((namespace.to_string(), name.to_string()));
        }
        if let Some(namespace) = &caller.namespace {
            all &= own.is_some_and(|(ns, _)| ns == **namespace);
        }
        if let Some(token) = &caller.jwt {
            all &= claims.is_some_and(|claims| has_token(token, claims, effect));
        }
        all
    }

    fn rule_matches(
        &self,
        rule: &Rule,
        effect: Effect,
        who: (&Principal, Option<&Claims>),
        action: &Action<'_>,
    ) -> bool {
        let from = match &rule.from {
            _ if *who.0 == Principal::Anonymous && effect == Effect::Allow => false,
            None => true,
            Some(from) => from.iter().any(|c| self.caller_matches(c, effect, who)),
        };
        from && (rule.llm.iter().any(|block| llm(block, effect, action))
            || rule.mcp.iter().any(|block| mcp(block, effect, action))
            || rule.http.iter().any(|block| http(block, effect, action)))
    }
}

fn has_token(token: &Token, claims: &Claims, effect: Effect) -> bool {
    if claims.0.get("iss") != Some(&Value::String(token.issuer.to_string())) {
        return false;
    }
    for rule in &token.claims {
        let pointer: String = rule.path.iter().map(|name| format!("/{name}")).collect();
        let whole = Value::Object(claims.0.clone());
        let matches = |text: &str| !text.is_empty() && rule.values.iter().any(|v| globs(v, text));
        let held = match whole.pointer(&pointer) {
            Some(Value::String(text)) if pointer == "/scope" => text.split(' ').any(matches),
            Some(Value::String(text)) => matches(text),
            Some(Value::Array(list)) => {
                let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                texts.iter().any(|text| matches(text))
                    || (effect == Effect::Deny && texts.len() < list.len())
            }
            Some(_) => effect == Effect::Deny,
            None => {
                // Nothing is there, or what leads to it is no object.
                let (outer, _) = pointer.rsplit_once('/').unwrap();
                let outer = whole.pointer(outer);
                effect == Effect::Deny && outer.is_some_and(|outer| !outer.is_object())
            }
        };
        if !held {
            return false;
        }
    }
    true
}

fn llm(block: &LlmBlock, effect: Effect, action: &Action<'_>) -> bool {
    match action {
        Action::Llm {
            provider,
            requested,
            upstream,
            operation,
            max_output_tokens,
        } => {
            if let Some(providers) = &block.providers
                && !providers.contains(provider)
            {
                return false;
            }
            if let Some(models) = &block.models {
                let upstream = models.iter().any(|m| globs(m, upstream));
                let requested = models.iter().any(|m| globs(m, requested));
                match effect {
                    Effect::Allow if !upstream => return false,
                    Effect::Deny if !upstream && !requested => return false,
                    _ => {}
                }
            }
            match (operation, effect) {
                (Some(operation), _) => {
                    if let Some(operations) = &block.operations
                        && !operations.contains(operation)
                    {
                        return false;
                    }
                    let Some(limit) = block.max_output_tokens else {
                        return true;
                    };
                    let writes = match operation {
                        Operation::Chat | Operation::Responses | Operation::Messages => {
                            max_output_tokens.unwrap_or(u64::MAX)
                        }
                        Operation::Embeddings | Operation::Models | Operation::CountTokens => 0,
                    };
                    match effect {
                        Effect::Allow => writes <= limit,
                        Effect::Deny => writes > limit,
                    }
                }
                (None, Effect::Allow) => block.operations.as_ref().is_none_or(|o| !o.is_empty()),
                (None, Effect::Deny) => {
                    let all = Operation::ALL.iter();
                    block.max_output_tokens.is_none()
                        && block
                            .operations
                            .as_ref()
                            .is_none_or(|listed| all.clone().all(|o| listed.contains(o)))
                }
            }
        }
        Action::LlmAny { provider } => {
            let provider = block
                .providers
                .as_ref()
                .is_none_or(|p| p.contains(provider));
            let models = match (&block.models, effect) {
                (None, _) => true,
                (Some(models), Effect::Allow) => !models.is_empty(),
                (Some(models), Effect::Deny) => models
                    .iter()
                    .any(|m| m.as_str().replace('*', "").is_empty()),
            };
            let operations = match (&block.operations, effect) {
                (None, _) => true,
                (Some(listed), Effect::Allow) => !listed.is_empty(),
                (Some(listed), Effect::Deny) => Operation::ALL.iter().all(|o| listed.contains(o)),
            };
            let bound = effect == Effect::Allow || block.max_output_tokens.is_none();
            provider && models && operations && bound
        }
        _ => false,
    }
}

fn mcp(block: &McpBlock, effect: Effect, action: &Action<'_>) -> bool {
    match action {
        Action::Mcp {
            server,
            method,
            name,
            arguments,
        } => {
            if !block.arguments.is_empty()
                && (*method != "tools/call"
                    || !block
                        .arguments
                        .iter()
                        .all(|a| argument(a, effect, arguments)))
            {
                return false;
            }
            if block.servers.as_ref().is_some_and(|s| !s.contains(server)) {
                return false;
            }
            let Some(methods) = &block.methods else {
                return true;
            };
            let lower = name.to_lowercase();
            let tricks = ["..", "%2f", "%2e", "%5c", "\\"];
            let suspect = method.starts_with("resources/")
                && (tricks.iter().any(|trick| lower.contains(trick))
                    || name.chars().any(char::is_control));
            for rule in methods {
                if !globs(&rule.method, method) {
                    continue;
                }
                let Some(params) = &rule.params else {
                    return true;
                };
                for param in params {
                    if effect == Effect::Allow && suspect && param.as_str().contains('*') {
                        continue;
                    }
                    if globs(param, name) {
                        return true;
                    }
                }
            }
            false
        }
        Action::McpSession { server, .. } => {
            if block.servers.as_ref().is_some_and(|s| !s.contains(server)) {
                return false;
            }
            if effect == Effect::Deny && !block.arguments.is_empty() {
                return false;
            }
            let Some(methods) = &block.methods else {
                return true;
            };
            let all = |p: &crate::Pattern| p.as_str().chars().all(|c| c == '*');
            match effect {
                Effect::Allow => methods
                    .iter()
                    .any(|rule| rule.params.as_ref().is_none_or(|p| !p.is_empty())),
                Effect::Deny => methods.iter().any(|rule| {
                    all(&rule.method) && rule.params.as_ref().is_none_or(|p| p.iter().any(all))
                }),
            }
        }
        _ => false,
    }
}

/// `Some(None)` is absent, `None` cannot be told.
type Place<'j> = Option<Option<&'j Value>>;

fn places<'j>(value: &'j Value, pointer: &[&str]) -> Vec<Place<'j>> {
    let [segment, rest @ ..] = pointer else {
        return vec![Some(Some(value))];
    };
    let inner = match (value, *segment) {
        (Value::Array(items), "*") if items.is_empty() => return vec![Some(None)],
        (Value::Array(items), "*") => {
            let all = items.iter().flat_map(|item| places(item, rest));
            return all.collect();
        }
        (_, "*") => return vec![None],
        (Value::Object(members), key) => {
            let alike = |other: &&String| *other != key && other.eq_ignore_ascii_case(key);
            if members.keys().any(|other| alike(&other)) {
                return vec![None];
            }
            members.get(key)
        }
        (Value::Array(items), index) => match index.parse::<usize>() {
            Ok(index) => items.get(index),
            Err(_) => return vec![None],
        },
        _ => return vec![None],
    };
    match inner {
        Some(inner) => places(inner, rest),
        None => vec![Some(None)],
    }
}

/// `None` is a wrong type.
fn constrained(constraint: &Constraint, value: &Value) -> Option<bool> {
    let same = |scalar: &Scalar| match (scalar, value) {
        (Scalar::Null, Value::Null) => Some(true),
        (Scalar::Bool(a), Value::Bool(b)) => Some(a == b),
        (Scalar::String(a), Value::String(b)) => Some(**a == **b),
        (Scalar::Number(a), Value::Number(b)) => {
            Some(a.to_string().parse::<f64>().unwrap() == b.as_f64().unwrap())
        }
        _ => None,
    };
    let within = |list: &[Scalar]| {
        let said: Vec<bool> = list.iter().filter_map(same).collect();
        (!said.is_empty()).then(|| said.contains(&true))
    };
    let mut answers = vec![];
    if let Some(list) = &constraint.one_of {
        answers.push(within(list));
    }
    if let Some(list) = &constraint.none_of {
        answers.push(within(list).map(|is| !is));
    }
    if let Some(pattern) = &constraint.pattern {
        answers.push(value.as_str().map(|text| match &*pattern.to_string() {
            "^a" => text.starts_with('a'),
            "b$" => text.ends_with('b'),
            "a" => text.contains('a'),
            other => panic!("{other}"),
        }));
    }
    let bound = |number: &crate::Number| number.to_string().parse::<f64>().unwrap();
    if let Some(min) = &constraint.min {
        answers.push(value.as_f64().map(|number| number >= bound(min)));
    }
    if let Some(max) = &constraint.max {
        answers.push(value.as_f64().map(|number| number <= bound(max)));
    }
    let length = match value {
        Value::String(text) => Some(text.chars().count() as u64),
        Value::Array(items) => Some(items.len() as u64),
        _ => None,
    };
    if let Some(min) = constraint.min_length {
        answers.push(length.map(|length| length >= min));
    }
    if let Some(max) = constraint.max_length {
        answers.push(length.map(|length| length <= max));
    }
    if let Some(is) = constraint.is {
        let is = match is {
            JsonType::String => value.is_string(),
            JsonType::Number => value.is_number(),
            JsonType::Integer => value.as_f64().is_some_and(|n| n.fract() == 0.0),
            JsonType::Boolean => value.is_boolean(),
            JsonType::Array => value.is_array(),
            JsonType::Object => value.is_object(),
            JsonType::Null => value.is_null(),
        };
        answers.push(match (is, answers.is_empty()) {
            (false, false) => None,
            (is, _) => Some(is),
        });
    }
    match () {
        () if answers.contains(&Some(false)) => Some(false),
        () if answers.contains(&None) => None,
        () => Some(true),
    }
}

fn argument(argument: &Argument, effect: Effect, given: &Arguments<'_>) -> bool {
    let allow = effect == Effect::Allow;
    let value: Value = match given {
        Arguments::Best => return allow,
        Arguments::Worst => return !allow,
        Arguments::Absent => return argument.constraint.optional,
        Arguments::Json(json) => serde_json::from_slice(json).unwrap(),
    };
    // Pointers of the laws have no escapes.
    let pointer = argument.pointer.to_string();
    let pointer: Vec<&str> = pointer.split('/').skip(1).collect();
    let holds = |place: &Place<'_>| match place {
        None => !allow,
        Some(None) => argument.constraint.optional,
        Some(Some(value)) => constrained(&argument.constraint, value).unwrap_or(!allow),
    };
    let places = match pointer.is_empty() || value.is_object() {
        true => places(&value, &pointer),
        // Arguments are an object (MCP, "Tools: Calling Tools").
        false => vec![None],
    };
    match allow {
        true => places.iter().all(holds),
        false => places.iter().any(holds),
    }
}

fn http(block: &HttpBlock, effect: Effect, action: &Action<'_>) -> bool {
    let Action::Http {
        method,
        host,
        path,
        port,
        ..
    } = action
    else {
        return false;
    };
    let plain = |text: &str| {
        let lower = text.to_lowercase();
        match lower.strip_suffix('.') {
            Some("") | None => lower.clone(),
            Some(bare) => bare.to_owned(),
        }
    };
    let methods = block.methods.as_ref().is_none_or(|methods| {
        methods.iter().any(|listed| match effect {
            Effect::Allow => listed == "*" || listed == method,
            Effect::Deny => listed == "*" || listed.to_lowercase() == method.to_lowercase(),
        })
    });
    let hosts = block.hosts.as_ref().is_none_or(|hosts| {
        hosts.iter().any(|listed| {
            let listed: crate::Pattern = plain(listed.as_str()).parse().unwrap();
            globs(&listed, &plain(host))
        })
    });
    let paths = block.paths.as_ref();
    let paths = paths.is_none_or(|paths| paths.iter().any(|listed| globs(listed, path)));
    let ports = block
        .ports
        .as_ref()
        .is_none_or(|ports| ports.contains(port));
    methods && hosts && paths && ports
}
