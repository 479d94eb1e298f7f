//! Who may do what, and in what words we refuse.
//!
//! Configuration compiles [`AgentPolicy`] objects into one [`PolicySet`]. Every pipeline asks it
//! the same question, [`PolicySet::decide`], and gets a [`Decision`] that names the rule. Only an
//! allowing decision turns into a [`Permit`], which planning needs; any other turns into a
//! [`Refusal`].
//!
//! The crate is pure: no clock, no files, no logging.

pub mod access;
mod action;
mod agent_policy;
mod arguments;
mod decision;
mod explain;
mod facts;
mod identity_header;
mod index;
pub mod istio;
pub mod limit;
mod matching;
mod object;
mod pattern;
mod posture;
mod principal;
mod refusal;
mod secret;
mod set;
mod spiffe;
mod stage;
mod token;

pub use action::{Action, Family, Operation, UnknownOperation};
pub use agent_policy::{
    AgentPolicy, Caller, Effect, HttpBlock, LlmBlock, McpBlock, MethodRule, Mode, Rule,
};
pub use arguments::{
    Argument, Arguments, Constraint, JsonType, Number, NumberError, PatternTooHard, Pointer,
    PointerError, Scalar, TextPattern,
};
pub use decision::{By, Decision, Permit, RuleName};
pub use explain::{Does, Explanation, Ids, Names, Outcome, TraceEntry};
pub use facts::Facts;
pub use identity_header::is_identity_header;
pub use object::{Kind, ObjectName, ObjectRef, ProviderId, ServerId, TargetId, UnknownKind};
pub use pattern::{Pattern, PatternError};
pub use posture::{Posture, Settings, UnknownPosture};
pub use principal::Principal;
pub use refusal::{Code, Refusal};
pub use secret::Secret;
pub use set::{PolicySet, Query, WOULD_DENY_MAX};
pub use spiffe::{SpiffeError, SpiffeId, SpiffePattern, Workload};
pub use stage::Stage;
pub use token::{ClaimRule, Token};
