//! Tokens as providers count them.

use serde::Serialize;
use waypoint_policy::Operation;
use waypoint_wire::json::{self, JsonError, Kind, Object, Options, Surrogates, UniqueKeys, Value};

use crate::Dialect;

/// What upstream documents must keep to. They are passed on, not decided on, so text that only
/// some parsers accept is no reason to lose an answer.
pub(crate) const LENIENT: Options = Options {
    max_depth: 256,
    unique_keys: UniqueKeys::TopLevel,
    surrogates: Surrogates::Any,
};

/// Tokens of one call. A field is `None` when nobody has counted it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// All input, cached or not.
    pub input: Option<u64>,
    /// The part of the input that was read from the provider's cache.
    pub cached_input: Option<u64>,
    /// The part of the input that was written to the provider's cache.
    pub cache_write: Option<u64>,
    /// All output, reasoning included.
    pub output: Option<u64>,
    /// The part of the output that was reasoning.
    pub reasoning: Option<u64>,
    /// Who counted.
    pub source: Source,
}

impl Usage {
    /// Whether anything was counted.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.input.or(self.output).is_some()
    }
}

/// Who counted the tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The provider, to the end of the answer.
    Upstream,
    /// We did, or the provider did not finish: the true number is at least this.
    #[default]
    Estimated,
}

/// Reads a plain answer once: whether it is one complete JSON object, so that nothing of it is
/// missing, and the usage it reports, if it does.
///
/// Counting tokens uses none, so [`Operation::CountTokens`] never reports any.
///
/// # Errors
/// [`JsonError`] when it is cut, or is no object.
pub fn read_answer(
    dialect: Dialect,
    operation: Operation,
    body: &[u8],
) -> Result<Option<Usage>, JsonError> {
    let (answer, usage) = json::parse_nested(body, &LENIENT, "usage")?;
    if matches!(operation, Operation::CountTokens | Operation::Models) {
        return Ok(None);
    }
    let mut reported = Reported::default();
    let reports = match usage {
        Some(usage) => {
            let members = usage.members().iter();
            reported.read_usage(members.map(|member| (&member.key, member.value)));
            true
        }
        None => reported.read(&answer),
    };
    Ok(reports.then(|| reported.usage(dialect)))
}

/// What a provider has reported so far, in its own terms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reported {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    cache_write: Option<u64>,
    reasoning: Option<u64>,
}

impl Reported {
    /// Reads the `usage` member of an answer, message or chunk, if it has one. Each field that is
    /// a number replaces what was reported before; frames are cumulative, so nothing is summed.
    pub(crate) fn read(&mut self, holder: &Object<'_>) -> bool {
        let usage = holder
            .value_of("usage")
            .filter(|usage| usage.kind == Kind::Object)
            .or_else(|| {
                let mut members = json::members(holder.value_of("x_groq")?);
                members
                    .find(|(key, _)| key == "usage")
                    .map(|(_, usage)| usage)
            })
            .filter(|usage| usage.kind == Kind::Object);
        let Some(usage) = usage else {
            return false;
        };
        self.read_usage(json::members(usage));
        true
    }

    /// Reads the members of a `usage` object.
    fn read_usage<'a>(&mut self, members: impl Iterator<Item = (impl AsRef<str>, Value<'a>)>) {
        let mut found = Found::default();
        for (key, value) in members {
            found.note(key.as_ref(), value);
        }
        last(&mut self.input, found.prompt.or(found.input));
        last(&mut self.output, found.completion.or(found.output));
        last(&mut self.total, found.total);
        // Anthropic and DeepSeek report the cache beside the input, OpenAI in its details.
        let cached = found.cached_details.or(found.cache_read);
        last(&mut self.cached, cached.or(found.cache_hit));
        let parts = self.cache_write.is_none().then_some(found.cache_parts);
        let written = found.written_details.or(found.cache_creation);
        last(&mut self.cache_write, written.or(parts.flatten()));
        last(&mut self.reasoning, found.reasoning.or(found.thinking));
    }

    /// The tokens in our terms, as of the last report.
    pub(crate) fn usage(&self, dialect: Dialect) -> Usage {
        let (input, output) = match dialect {
            // Compatible servers may leave reasoning out of `completion_tokens` but not out of
            // the total.
            Dialect::OpenAi => {
                let beyond = self
                    .total
                    .zip(self.input)
                    .map(|(total, input)| total.saturating_sub(input))
                    .filter(|beyond| *beyond > 0);
                (self.input, self.output.max(beyond))
            }
            // `input_tokens` is what was neither read from the cache nor written to it.
            Dialect::Anthropic => {
                let parts = [self.input, self.cached, self.cache_write];
                let input = parts.into_iter().flatten().reduce(u64::saturating_add);
                (input, self.output)
            }
        };
        Usage {
            input,
            cached_input: self.cached,
            cache_write: self.cache_write,
            output,
            reasoning: self.reasoning,
            source: Source::Upstream,
        }
    }
}

/// The numbers of one `usage` object, each under the names that providers give it.
#[derive(Default)]
struct Found {
    prompt: Option<u64>,
    input: Option<u64>,
    completion: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cache_read: Option<u64>,
    cache_hit: Option<u64>,
    cache_creation: Option<u64>,
    cache_parts: Option<u64>,
    cached_details: Option<u64>,
    written_details: Option<u64>,
    reasoning: Option<u64>,
    thinking: Option<u64>,
}

impl Found {
    fn note(&mut self, key: &str, value: Value<'_>) {
        let field = match key {
            "prompt_tokens" => &mut self.prompt,
            "input_tokens" => &mut self.input,
            "completion_tokens" => &mut self.completion,
            "output_tokens" => &mut self.output,
            "total_tokens" => &mut self.total,
            "cache_read_input_tokens" => &mut self.cache_read,
            "prompt_cache_hit_tokens" => &mut self.cache_hit,
            "cache_creation_input_tokens" => &mut self.cache_creation,
            "cache_creation" => {
                for (key, value) in json::members(value) {
                    if matches!(
                        &*key,
                        "ephemeral_5m_input_tokens" | "ephemeral_1h_input_tokens"
                    ) && let Some(part) = value.as_u64()
                    {
                        let parts = self.cache_parts.unwrap_or_default();
                        self.cache_parts = Some(parts.saturating_add(part));
                    }
                }
                return;
            }
            "prompt_tokens_details" | "input_tokens_details" => {
                for (key, value) in json::members(value) {
                    match &*key {
                        "cached_tokens" => last(&mut self.cached_details, value.as_u64()),
                        "cache_write_tokens" => last(&mut self.written_details, value.as_u64()),
                        _ => {}
                    }
                }
                return;
            }
            "completion_tokens_details" | "output_tokens_details" => {
                for (key, value) in json::members(value) {
                    match &*key {
                        "reasoning_tokens" => last(&mut self.reasoning, value.as_u64()),
                        "thinking_tokens" => last(&mut self.thinking, value.as_u64()),
                        _ => {}
                    }
                }
                return;
            }
            _ => return,
        };
        last(field, value.as_u64());
    }
}

fn last(field: &mut Option<u64>, reported: Option<u64>) {
    *field = reported.or(*field);
}

pub(crate) fn nested<'a>(object: &Object<'a>, name: &str) -> Option<Object<'a>> {
    json::object(object.value_of(name)?).ok()
}

#[cfg(test)]
mod tests;
