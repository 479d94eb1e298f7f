//! What a tool is called with, and what rules ask of it.
//!
//! The arguments come as the JSON text that is forwarded, and are read in place with
//! `serde_json`'s `RawValue`: no tree is built, a number stays the digits it was written with, and
//! nothing is read at all unless a candidate rule has constraints. What two readers could take for
//! different things (a repeated key, a key that folds onto the one that is asked for) is treated
//! as a wrong type: no Allow matches it and every Deny does.

use std::cell::OnceCell;
use std::fmt;

use serde::Serialize;

use crate::Effect;

mod constraint;
mod number;
mod pointer;
mod read;
#[cfg(test)]
mod tests;

pub use constraint::{Constraint, JsonType, PatternTooHard, Scalar, TextPattern};
pub use number::{Number, NumberError};
pub use pointer::{Pointer, PointerError};

use constraint::Verdict;
use read::{Found, Members};

/// The one method whose arguments rules can ask about.
pub(crate) const TOOLS_CALL: &str = "tools/call";

/// What a tool is called with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Arguments<'a> {
    /// The best there can be: constraints of an Allow hold, those of a Deny do not. Lists ask
    /// this, so that they show what can be called with some arguments.
    Best,
    /// The worst there can be: constraints of an Allow fail, those of a Deny hold. What is allowed
    /// then is allowed with any arguments.
    Worst,
    /// There are none.
    Absent,
    /// A JSON value, as it is forwarded.
    Json(&'a [u8]),
}

/// Which of them it is; never what is in them.
impl fmt::Debug for Arguments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Best => "Best",
            Self::Worst => "Worst",
            Self::Absent => "Absent",
            Self::Json(_) => "Json",
        })
    }
}

/// A place in the arguments, and what is asked of the value there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Argument {
    /// Where.
    pub pointer: Pointer,
    /// What is asked.
    pub constraint: Constraint,
}

/// The arguments of a question, read when a rule first asks about them.
pub(crate) struct Reading<'a> {
    arguments: Arguments<'a>,
    /// The outermost object; `None` if the arguments are no object that can be relied on, which MCP
    /// asks of them ("Tools: Calling Tools").
    members: OnceCell<Option<Members<'a>>>,
}

impl fmt::Debug for Reading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.arguments.fmt(f)
    }
}

impl<'a> Reading<'a> {
    pub(crate) fn new(arguments: Arguments<'a>) -> Self {
        Self {
            arguments,
            members: OnceCell::new(),
        }
    }

    /// The first of `arguments` that does not match.
    pub(crate) fn failed(&self, arguments: &[Argument], effect: Effect) -> Option<usize> {
        let mut arguments = arguments.iter();
        arguments.position(|argument| !self.holds(argument, effect))
    }

    /// Whether a constraint matches. An Allow needs every value that the pointer names, a Deny
    /// only one.
    fn holds(&self, argument: &Argument, effect: Effect) -> bool {
        let matches = |found: Found<'_>| match found {
            Found::Absent => argument.constraint.optional,
            Found::Unreadable => effect == Effect::Deny,
            Found::Value(value) => match argument.constraint.check(value) {
                Verdict::Holds => true,
                Verdict::Fails => false,
                Verdict::WrongType => effect == Effect::Deny,
            },
        };
        match (self.arguments, effect) {
            (Arguments::Best, _) => effect == Effect::Allow,
            (Arguments::Worst, _) => effect == Effect::Deny,
            (_, Effect::Allow) => {
                let mut all = true;
                self.each(&argument.pointer, &mut |found| {
                    all = matches(found);
                    all
                });
                all
            }
            (_, Effect::Deny) => {
                let mut any = false;
                self.each(&argument.pointer, &mut |found| {
                    any = matches(found);
                    !any
                });
                any
            }
        }
    }

    /// Gives everything that a pointer names, for as long as `see` wants more.
    fn each(&self, pointer: &Pointer, see: &mut dyn FnMut(Found<'_>) -> bool) {
        let Arguments::Json(json) = self.arguments else {
            see(Found::Absent);
            return;
        };
        let Some((first, rest)) = pointer.segments().split_first() else {
            see(read::value(json).map_or(Found::Unreadable, Found::Value));
            return;
        };
        let members = self.members.get_or_init(|| read::members(json));
        let found = match members {
            Some(members) => members.find(first),
            None => Found::Unreadable,
        };
        read::each(found, rest, see);
    }

    /// What there is where `argument` points, by type alone: the value that made it fail.
    pub(crate) fn actual(&self, argument: &Argument, effect: Effect) -> String {
        match self.arguments {
            Arguments::Best | Arguments::Worst => return "any arguments".into(),
            Arguments::Absent => return "no arguments".into(),
            Arguments::Json(_) => {}
        }
        let mut actual = "nothing".to_owned();
        self.each(&argument.pointer, &mut |found| {
            let (holds, text) = match found {
                Found::Absent => (argument.constraint.optional, "nothing".into()),
                Found::Unreadable => (
                    effect == Effect::Deny,
                    "no object or array where one must be, or a key that passes for another".into(),
                ),
                Found::Value(value) => (
                    argument.constraint.check(value) == Verdict::Holds,
                    constraint::type_of(value).to_owned(),
                ),
            };
            actual = text;
            // An Allow fails by one value, a Deny by all; the first is told of.
            effect == Effect::Allow && holds
        });
        actual
    }
}
