//! LLM calls whose answers are whole.

mod answers;
mod outgoing;
mod permits;
mod refusals;

const ONE: &str = "- backendRefs: [{name: openai}]";
