//! One LLM call as it was received: what policy must know, and where to edit it.

use std::ops::Range;

use bytes::Bytes;
use waypoint_policy::{Code, Operation, Refusal};
use waypoint_wire::json::{self, JsonError, Kind, Options, Surrogates, UniqueKeys, Value};

use crate::Dialect;
use crate::classify::{MODEL_NAME_LIMIT_BYTES, is_model_name};
use crate::edit::{Edit, quoted, splice};

/// What callers may ask for beyond plain inference. Off, because its tokens cannot be seen: a
/// background answer is fetched later, and stored history is input that we never read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowances {
    /// `background: true` on OpenAI responses.
    pub background: bool,
    /// History kept by the provider: OpenAI `previous_response_id` and `conversation`,
    /// Anthropic `thread`.
    pub stored: bool,
}

impl Allowances {
    /// Everything is allowed.
    pub const ALL: Self = Self {
        background: true,
        stored: true,
    };

    /// Whether everything in `needs` is allowed here.
    #[must_use]
    pub fn cover(self, needs: Self) -> bool {
        (self.background || !needs.background) && (self.stored || !needs.stored)
    }
}

/// A parsed call. It does not hold the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The API it is written in.
    pub dialect: Dialect,
    /// What it asks for.
    pub operation: Operation,
    /// The requested model; empty for the list of models.
    pub model: Box<str>,
    /// Whether the answer is to be an event stream.
    pub stream: bool,
    /// The most output the caller accepts, over all `n` answers. Unit: tokens.
    pub max_output_tokens: Option<u64>,
    /// How many answers are asked for: `n`, from 1.
    pub answers: u64,
    /// Whether a streamed chat was asked to report its usage.
    pub wants_usage: bool,
    /// What it asks for beyond plain inference.
    pub needs: Allowances,
    model_range: Range<usize>,
    usage_edit: Option<Edit>,
}

/// Why a body is not a call we pass on.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Not strict JSON (RFC 8259), or a key appears twice.
    #[error("the body is not a valid JSON object: {0}")]
    Json(#[from] JsonError),
    /// A field we must understand has another type than its API says.
    #[error("`{field}` must be {expected}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A field spelled in another case, which lenient providers read as the field itself.
    #[error("a field name differs from `{field}` only in case")]
    Spelling {
        /// The field's name.
        field: &'static str,
    },
    /// A field that is not allowed here.
    #[error("`{field}` is not allowed here: {reason}")]
    NotAllowed {
        /// The field's name.
        field: &'static str,
        /// What it would evade.
        reason: &'static str,
    },
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        let code = match &error {
            CallError::Json(_) => Code::BadJson,
            CallError::Field { .. } | CallError::Spelling { .. } => Code::BadRequest,
            CallError::NotAllowed { .. } => Code::OperationNotAllowed,
        };
        Refusal::new(code).with_message(error.to_string())
    }
}

/// What a body must keep to. Only the objects we read may not repeat a key: tool schemas and the
/// like are passed on as they are.
const STRICT: Options = Options {
    max_depth: 64,
    unique_keys: UniqueKeys::TopLevel,
    surrogates: Surrogates::Paired,
};

/// The fields that decide what a call may do; no other spelling of them passes.
const READ: [&str; 13] = [
    "model",
    "stream",
    "stream_options",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "background",
    "previous_response_id",
    "conversation",
    "thread",
    "models",
    "fallbacks",
];

const STORED: &str = "history kept by the provider cannot be inspected";
const BACKGROUND: &str = "the answer of a background call cannot be accounted for";
const OTHER_MODELS: &str = "a call names one model, in `model`";

impl Call {
    /// Reads a call once: the whole body is validated, its top-level fields are looked at.
    ///
    /// Unknown fields pass. `allow` is what any provider of the route allows;
    /// [`candidates`](crate::candidates) holds each provider to its own.
    ///
    /// # Errors
    /// [`CallError`] says which field is wrong; none of its texts repeats the caller's bytes.
    pub fn parse(
        dialect: Dialect,
        operation: Operation,
        body: &Bytes,
        allow: &Allowances,
    ) -> Result<Call, CallError> {
        let object = json::parse_object(body, &STRICT)?;
        let mut call = Call {
            dialect,
            operation,
            model: Box::default(),
            stream: false,
            max_output_tokens: None,
            answers: 1,
            wants_usage: false,
            needs: Allowances::default(),
            model_range: 0..0,
            usage_edit: None,
        };
        let mut model = None;
        let mut stream_options = None;
        for member in object.members() {
            let value = &member.value;
            match (&*member.key, operation, dialect) {
                ("model", ..) => model = Some(value),
                ("stream", Operation::Chat | Operation::Responses | Operation::Messages, _) => {
                    call.stream = flag("stream", value)?;
                }
                ("stream_options", Operation::Chat, _) => stream_options = Some(value),
                ("n", Operation::Chat, _) => {
                    call.answers = count("n", value)?.unwrap_or(1).max(1);
                }
                ("max_tokens", Operation::Chat | Operation::Messages, _) => {
                    call.accepts(count("max_tokens", value)?);
                }
                ("max_completion_tokens", Operation::Chat, _) => {
                    call.accepts(count("max_completion_tokens", value)?);
                }
                ("max_output_tokens", Operation::Responses, _) => {
                    call.accepts(count("max_output_tokens", value)?);
                }
                ("background", _, Dialect::OpenAi) => {
                    call.needs.background = flag("background", value)?;
                    if call.needs.background && !allow.background {
                        return Err(not_allowed("background", BACKGROUND));
                    }
                }
                ("previous_response_id", _, Dialect::OpenAi) => {
                    call.needs_stored("previous_response_id", value, allow)?;
                }
                ("conversation", _, Dialect::OpenAi) => {
                    call.needs_stored("conversation", value, allow)?;
                }
                ("thread", _, Dialect::Anthropic) => call.needs_stored("thread", value, allow)?,
                // Fallback models of routers such as OpenRouter and LiteLLM: models that no
                // policy would be asked about.
                ("models", ..) if !value.is_null() => {
                    return Err(not_allowed("models", OTHER_MODELS));
                }
                ("fallbacks", ..) if !value.is_null() => {
                    return Err(not_allowed("fallbacks", OTHER_MODELS));
                }
                (key, ..) => check_spelling(key, &READ)?,
            }
        }
        let expected = "a string of 1 to 256 bytes without control characters";
        let wrong_model = || field("model", expected);
        let model = model.ok_or_else(wrong_model)?;
        if model.kind != Kind::String || model.raw.len() > MODEL_NAME_LIMIT_BYTES * 6 + 2 {
            return Err(wrong_model());
        }
        call.model_range = model.range();
        let name = model.as_str().filter(|name| is_model_name(name));
        call.model = name.ok_or_else(wrong_model)?.into();
        if let Some(limit) = &mut call.max_output_tokens {
            *limit = limit.saturating_mul(call.answers);
        }
        if operation == Operation::Chat {
            call.read_stream_options(stream_options, object.value().start + 1)?;
        }
        Ok(call)
    }

    /// A call without a body: `GET /v1/models`, or `GET /v1/models/{model}`.
    #[must_use]
    pub fn models(dialect: Dialect, model: Option<&str>) -> Call {
        Call {
            dialect,
            operation: Operation::Models,
            model: model.unwrap_or_default().into(),
            stream: false,
            max_output_tokens: None,
            answers: 1,
            wants_usage: false,
            needs: Allowances::default(),
            model_range: 0..0,
            usage_edit: None,
        }
    }

    /// The body for the provider: `model` by the provider's name for it, and a streamed chat asked
    /// to report its usage even if its caller was not interested. Every other byte is as received;
    /// the same `Bytes` come back when nothing changes.
    ///
    /// `body` is the one that was parsed.
    #[must_use]
    pub fn upstream_body(&self, body: &Bytes, upstream_model: &str) -> Bytes {
        let mut edits = Vec::new();
        if *self.model != *upstream_model && !self.model_range.is_empty() {
            edits.push(Edit::new(self.model_range.clone(), quoted(upstream_model)));
        }
        edits.extend(self.usage_edit.clone());
        splice(body, edits)
    }

    /// Several limits may be given under several names; the provider may heed any of them.
    fn accepts(&mut self, tokens: Option<u64>) {
        self.max_output_tokens = self.max_output_tokens.max(tokens);
    }

    fn needs_stored(
        &mut self,
        name: &'static str,
        value: &Value<'_>,
        allow: &Allowances,
    ) -> Result<(), CallError> {
        if value.is_null() {
            return Ok(());
        }
        self.needs.stored = true;
        if allow.stored {
            Ok(())
        } else {
            Err(not_allowed(name, STORED))
        }
    }

    /// Finds out whether usage was asked for and how to ask for it. `inside` is the offset just
    /// after the body's opening brace; the object is not empty, for it has a model.
    fn read_stream_options(
        &mut self,
        options: Option<&Value<'_>>,
        inside: usize,
    ) -> Result<(), CallError> {
        const ASK: &[u8] = br#"{"include_usage":true}"#;
        let edit = match options {
            None => Edit::insert(inside, br#""stream_options":{"include_usage":true},"#),
            Some(value) if value.is_null() => Edit::new(value.range(), ASK),
            Some(value) if value.kind == Kind::Object => {
                let object = json::object(*value)?;
                for member in object.members() {
                    check_spelling(&member.key, &["include_usage"])?;
                }
                match object.value_of("include_usage") {
                    Some(asked) => {
                        self.wants_usage = flag("stream_options.include_usage", &asked)?;
                        Edit::new(asked.range(), &b"true"[..])
                    }
                    None if object.is_empty() => Edit::new(value.range(), ASK),
                    None => Edit::insert(value.start + 1, br#""include_usage":true,"#),
                }
            }
            Some(_) => return Err(field("stream_options", "an object")),
        };
        if self.stream && !self.wants_usage {
            self.usage_edit = Some(edit);
        }
        Ok(())
    }
}

fn field(field: &'static str, expected: &'static str) -> CallError {
    CallError::Field { field, expected }
}

fn not_allowed(field: &'static str, reason: &'static str) -> CallError {
    CallError::NotAllowed { field, reason }
}

/// A boolean; `null` is the absent value, as OpenAI's API description has it.
fn flag(name: &'static str, value: &Value<'_>) -> Result<bool, CallError> {
    match value.kind {
        Kind::True => Ok(true),
        Kind::False | Kind::Null => Ok(false),
        _ => Err(field(name, "true or false")),
    }
}

/// A whole number. `1e9` and `5.0` are refused: what a provider makes of them is its own affair.
fn count(name: &'static str, value: &Value<'_>) -> Result<Option<u64>, CallError> {
    match value.kind {
        Kind::Null => Ok(None),
        Kind::Number => value
            .as_u64()
            .map(Some)
            .ok_or_else(|| field(name, "a whole number")),
        _ => Err(field(name, "a whole number")),
    }
}

/// Refuses `key` if it is one of `names` but for case: providers written in Go fold case when they
/// read JSON.
fn check_spelling(key: &str, names: &[&'static str]) -> Result<(), CallError> {
    match names.iter().find(|name| json::folds_to(key, name)) {
        Some(field) => Err(CallError::Spelling { field }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
