//! The first field of each rule that failed, in words.

use std::{borrow::Cow, fmt, sync::Arc};

use crate::{
    Action, AgentPolicy, Constraint, Effect, Family, HttpBlock, LlmBlock, McpBlock, Names,
    Operation, Outcome, ProviderId, Rule, ServerId, TraceEntry,
    istio::Claims,
    matching::{Asked, Field, Who},
};

#[cfg(test)]
mod tests;

/// The most entries of a list, and characters of a name, that an explanation shows.
const LIST_MAX: usize = 8;
const NAME_MAX_CHARS: usize = 200;

/// What each rule of `policy` thinks of the action.
pub(crate) fn trace<'q>(
    policy: &AgentPolicy,
    (who, claims): (Option<&Who<'q>>, Option<&Claims>),
    asked: &Asked<'q>,
    names: &dyn Names,
) -> Vec<TraceEntry> {
    let entry = |rule: Arc<str>, outcome| TraceEntry {
        kind: crate::Kind::AgentPolicy,
        policy: policy.name.clone(),
        rule,
        effect: policy.effect.into(),
        mode: policy.mode,
        outcome,
    };
    if policy.rules.is_empty() {
        let actual = match policy.effect {
            Effect::Allow => "none: the policy covers everything and grants nothing",
            Effect::Deny => "none: the policy denies nothing",
        };
        return vec![entry("".into(), not_matched("rules", "a rule", actual))];
    }
    let explain = Explain {
        effect: policy.effect,
        who,
        claims,
        asked,
        names,
    };
    let rules = policy.rules.iter();
    rules
        .map(|rule| entry(rule.name.clone(), explain.rule(rule)))
        .collect()
}

fn not_matched(
    field: impl Into<String>,
    expected: impl Into<String>,
    actual: impl Into<String>,
) -> Outcome {
    Outcome::NotMatched {
        field: field.into(),
        expected: expected.into(),
        actual: actual.into(),
    }
}

struct Explain<'a, 'q> {
    effect: Effect,
    who: Option<&'a Who<'q>>,
    claims: Option<&'a Claims>,
    asked: &'a Asked<'q>,
    names: &'a dyn Names,
}

impl Explain<'_, '_> {
    fn rule(&self, rule: &Rule) -> Outcome {
        let (who, claims) = (self.who, self.claims);
        let matches = |caller: &crate::Caller| caller.matches(who, claims, self.effect);
        let is_meant = rule
            .from
            .as_ref()
            .is_none_or(|from| from.iter().any(matches));
        // No Allow is about somebody without an identity.
        if !is_meant || (who.is_none() && self.effect == Effect::Allow) {
            let mut callers = rule.from.iter().flatten().enumerate();
            let lacking = callers.find_map(|(index, caller)| {
                let token = caller.jwt.as_ref().filter(|_| caller.has_identity(who))?;
                (!is_meant).then_some((index, token))
            });
            if let Some((index, token)) = lacking {
                let field = format!("from[{index}].jwt");
                return not_matched(field, token.to_string(), token.actual(claims));
            }
            let expected = match &rule.from {
                None => "anyone with an identity".to_owned(),
                Some(from) => list(from),
            };
            let actual = self.who.map_or("anonymous", |who| who.id.as_str());
            return not_matched("from", expected, actual);
        }
        match self.asked.action.family() {
            Family::Llm => self.blocks(rule, &rule.llm, |block| {
                block.failed(block.models.as_deref(), self.effect, self.asked)
            }),
            Family::Mcp => self.blocks(rule, &rule.mcp, |block| {
                block.failed(block.methods.as_deref(), None, self.effect, self.asked)
            }),
            Family::Http => self.blocks(rule, &rule.http, |block| {
                let (hosts, paths) = (block.hosts.as_deref(), block.paths.as_deref());
                block.failed(hosts, paths, self.effect, self.asked)
            }),
        }
    }

    /// Tells of the block that got furthest; of equals, the first.
    fn blocks<B: Block>(
        &self,
        rule: &Rule,
        blocks: &[B],
        failed: impl Fn(&B) -> Option<Field>,
    ) -> Outcome {
        let family = self.asked.action.family();
        let mut furthest: Option<(Field, usize, &B)> = None;
        for (index, block) in blocks.iter().enumerate() {
            let Some(field) = failed(block) else {
                return Outcome::Matched;
            };
            if furthest.is_none_or(|(best, _, _)| field > best) {
                furthest = Some((field, index, block));
            }
        }
        let Some((field, index, block)) = furthest else {
            let families = [
                (Family::Llm, !rule.llm.is_empty()),
                (Family::Mcp, !rule.mcp.is_empty()),
                (Family::Http, !rule.http.is_empty()),
            ];
            let written = families.iter().filter(|(_, is)| *is).map(|(f, _)| f);
            let expected = match families.iter().any(|(_, is)| *is) {
                true => list(written),
                false => "nothing (the rule has no blocks)".to_owned(),
            };
            return not_matched("action", expected, family.as_str());
        };
        let at = format!("{family}[{index}].{}", block.field_name(field));
        let expected = block.expected(field, self);
        let actual = block.actual(field, self);
        not_matched(at, expected, actual.unwrap_or_else(|| self.actual(field)))
    }

    /// What the action has where a rule has `field`.
    fn actual(&self, field: Field) -> String {
        match self.asked.action {
            Action::Llm {
                provider,
                requested,
                upstream,
                operation,
                max_output_tokens,
            } => match field {
                Field::Models if requested == upstream || self.effect == Effect::Allow => {
                    quoted(upstream)
                }
                Field::Models => format!("{} for {}", quoted(upstream), quoted(requested)),
                Field::Operations => operation.map_or("any operation", Operation::as_str).into(),
                Field::MaxOutputTokens => match max_output_tokens {
                    Some(bound) => format!("at most {bound}"),
                    None => "no bound".into(),
                },
                _ => self.names.provider(provider).into_owned(),
            },
            Action::LlmAny { provider } => match field {
                Field::Models => "any model".into(),
                Field::Operations => "any operation".into(),
                Field::MaxOutputTokens => "any bound".into(),
                _ => self.names.provider(provider).into_owned(),
            },
            Action::Mcp {
                server,
                method,
                name,
                arguments: _,
            } => match field {
                Field::Methods => quoted(method),
                Field::Params(_) => quoted(name),
                _ => self.names.server(server).into_owned(),
            },
            Action::McpSession { server, .. } => match field {
                Field::Methods | Field::Params(_) => "the session as a whole".into(),
                _ => self.names.server(server).into_owned(),
            },
            Action::Http {
                method,
                host,
                path,
                port,
                external: _,
            } => match field {
                Field::Paths => quoted(path),
                Field::Ports => port.to_string(),
                Field::HttpMethods => quoted(method),
                _ => quoted(host),
            },
        }
    }
}

/// What a block of some family asks for in one field.
trait Block {
    fn expected(&self, field: Field, explain: &Explain<'_, '_>) -> String;

    /// What the action has, where only the block knows where to look.
    fn actual(&self, _: Field, _: &Explain<'_, '_>) -> Option<String> {
        None
    }

    fn field_name(&self, field: Field) -> Cow<'static, str> {
        field_name(field)
    }
}

impl Block for LlmBlock {
    fn expected(&self, field: Field, explain: &Explain<'_, '_>) -> String {
        let names = |id: &ProviderId| explain.names.provider(*id).into_owned();
        match (field, self.max_output_tokens) {
            (Field::Models, _) => list(self.models.iter().flatten()),
            (Field::Operations, _) => list(self.operations.iter().flatten()),
            (Field::MaxOutputTokens, Some(limit)) => match explain.effect {
                Effect::Allow => format!("a bound of at most {limit}"),
                Effect::Deny => format!("more than {limit}"),
            },
            _ => list(self.providers.iter().flatten().map(names)),
        }
    }
}

impl Block for McpBlock {
    fn expected(&self, field: Field, explain: &Explain<'_, '_>) -> String {
        let names = |id: &ServerId| explain.names.server(*id).into_owned();
        let mut methods = self.methods.iter().flatten();
        match field {
            Field::Methods => {
                let expected = list(methods.map(|rule| &rule.method));
                match (explain.asked.action, explain.effect) {
                    (Action::McpSession { .. }, Effect::Deny) => format!("only {expected}"),
                    _ => expected,
                }
            }
            Field::Params(index) => {
                let params = methods.nth(index).and_then(|rule| rule.params.as_ref());
                let expected = list(params.into_iter().flatten());
                match explain.effect {
                    Effect::Allow if explain.asked.is_evasive() => format!(
                        "{expected}, where * does not stand for '..', '\\', escapes of '.', '/' \
                         or '\\', or control characters"
                    ),
                    _ => expected,
                }
            }
            Field::Arguments(index) => self.arguments.get(index).map_or_else(
                || "nothing".into(),
                |argument| expected_argument(&argument.constraint),
            ),
            _ => list(self.servers.iter().flatten().map(names)),
        }
    }

    fn actual(&self, field: Field, explain: &Explain<'_, '_>) -> Option<String> {
        let Field::Arguments(index) = field else {
            return None;
        };
        let argument = self.arguments.get(index)?;
        Some(explain.asked.arguments.actual(argument, explain.effect))
    }

    fn field_name(&self, field: Field) -> Cow<'static, str> {
        match field {
            Field::Arguments(index) => match self.arguments.get(index) {
                Some(argument) => format!("arguments[{}]", argument.pointer).into(),
                None => "arguments".into(),
            },
            field => field_name(field),
        }
    }
}

/// What a constraint asks for: `a string with pattern "^src/" of at most 80`.
fn expected_argument(constraint: &Constraint) -> String {
    let mut parts = Vec::new();
    parts.extend(constraint.is.map(|is| is.to_string()));
    parts.extend(constraint.one_of.as_ref().map(list));
    let none_of = constraint.none_of.as_ref();
    parts.extend(none_of.map(|values| format!("not {}", list(values))));
    let pattern = constraint.pattern.as_ref();
    parts.extend(
        pattern.map(|pattern| format!("text that matches {}", quoted(&pattern.to_string()))),
    );
    parts.extend(constraint.min.as_ref().map(|min| format!("at least {min}")));
    parts.extend(constraint.max.as_ref().map(|max| format!("at most {max}")));
    let lengths = [
        ("at least", constraint.min_length),
        ("at most", constraint.max_length),
    ];
    for (word, length) in lengths {
        parts.extend(length.map(|length| format!("a length of {word} {length}")));
    }
    let mut text = match parts.is_empty() {
        true => "a value".to_owned(),
        false => parts.join(" and "),
    };
    if constraint.optional {
        text.push_str(", or nothing");
    }
    text
}

impl Block for HttpBlock {
    fn expected(&self, field: Field, _: &Explain<'_, '_>) -> String {
        match field {
            Field::Paths => list(self.paths.iter().flatten()),
            Field::Ports => list(self.ports.iter().flatten()),
            Field::HttpMethods => list(self.methods.iter().flatten()),
            _ => list(self.hosts.iter().flatten()),
        }
    }
}

fn field_name(field: Field) -> Cow<'static, str> {
    match field {
        Field::Providers => "providers".into(),
        Field::Models => "models".into(),
        Field::Operations => "operations".into(),
        Field::MaxOutputTokens => "maxOutputTokens".into(),
        Field::Servers => "servers".into(),
        Field::Methods | Field::HttpMethods => "methods".into(),
        Field::Params(index) => format!("methods[{index}].params").into(),
        Field::Arguments(_) => "arguments".into(),
        Field::Hosts => "hosts".into(),
        Field::Paths => "paths".into(),
        Field::Ports => "ports".into(),
    }
}

/// `a, b or c`, cut after [`LIST_MAX`] entries.
pub(crate) fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let mut items = items.into_iter();
    let shown: Vec<String> = items
        .by_ref()
        .take(LIST_MAX)
        .map(|i| i.to_string())
        .collect();
    let more = items.count();
    match (shown.split_last(), more) {
        (None, _) => "nothing (the list is empty)".into(),
        (Some((only, [])), 0) => only.clone(),
        (Some((last, rest)), 0) => format!("{} or {last}", rest.join(", ")),
        (Some(_), more) => format!("{} or one of {more} more", shown.join(", ")),
    }
}

/// A name from the request, escaped and cut.
pub(crate) fn quoted(name: &str) -> String {
    match name.char_indices().nth(NAME_MAX_CHARS) {
        None => format!("{name:?}"),
        Some((end, _)) => format!("{:?}…", name.get(..end).unwrap_or_default()),
    }
}
