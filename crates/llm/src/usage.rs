//! Tokens as providers count them.

use serde::Serialize;
use waypoint_policy::Operation;
use waypoint_wire::json::{self, Kind, Object, Options, Surrogates, UniqueKeys};

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

/// The usage of a plain JSON answer; `None` when it reports none.
///
/// Counting tokens uses none, so [`Operation::CountTokens`] never reports any.
#[must_use]
pub fn usage_from_answer(dialect: Dialect, operation: Operation, body: &[u8]) -> Option<Usage> {
    if matches!(operation, Operation::CountTokens | Operation::Models) {
        return None;
    }
    let answer = json::parse_object(body, &LENIENT).ok()?;
    let mut reported = Reported::default();
    reported.read(&answer).then(|| reported.usage(dialect))
}

/// Whether a plain answer is one complete JSON object, so that nothing of it is missing.
#[must_use]
pub fn answer_is_whole(body: &[u8]) -> bool {
    json::validate(body, &LENIENT).is_ok_and(|value| value.kind == Kind::Object)
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
            .or_else(|| nested(holder, "x_groq")?.value_of("usage"))
            .filter(|usage| usage.kind == Kind::Object);
        let Some(usage) = usage.and_then(|usage| json::object(usage).ok()) else {
            return false;
        };
        last(
            &mut self.input,
            number(&usage, &["prompt_tokens", "input_tokens"]),
        );
        last(
            &mut self.output,
            number(&usage, &["completion_tokens", "output_tokens"]),
        );
        last(&mut self.total, number(&usage, &["total_tokens"]));
        // Anthropic and DeepSeek report the cache beside the input, OpenAI in its details.
        last(
            &mut self.cached,
            number(
                &usage,
                &["cache_read_input_tokens", "prompt_cache_hit_tokens"],
            ),
        );
        last(
            &mut self.cache_write,
            number(&usage, &["cache_creation_input_tokens"]),
        );
        if let Some(created) = nested(&usage, "cache_creation")
            && self.cache_write.is_none()
        {
            let parts = ["ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"];
            self.cache_write = parts
                .iter()
                .filter_map(|part| number(&created, &[part]))
                .reduce(u64::saturating_add);
        }
        for details in ["prompt_tokens_details", "input_tokens_details"] {
            if let Some(details) = nested(&usage, details) {
                last(&mut self.cached, number(&details, &["cached_tokens"]));
                last(
                    &mut self.cache_write,
                    number(&details, &["cache_write_tokens"]),
                );
            }
        }
        for details in ["completion_tokens_details", "output_tokens_details"] {
            if let Some(details) = nested(&usage, details) {
                let names = ["reasoning_tokens", "thinking_tokens"];
                last(&mut self.reasoning, number(&details, &names));
            }
        }
        true
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

fn last(field: &mut Option<u64>, reported: Option<u64>) {
    *field = reported.or(*field);
}

pub(crate) fn nested<'a>(object: &Object<'a>, name: &str) -> Option<Object<'a>> {
    json::object(object.value_of(name)?).ok()
}

fn number(object: &Object<'_>, names: &[&str]) -> Option<u64> {
    names
        .iter()
        .find_map(|name| object.value_of(name)?.as_u64())
}

#[cfg(test)]
mod tests;
