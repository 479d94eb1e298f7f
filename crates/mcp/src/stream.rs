//! Event streams of an upstream, with their lists filtered.

use bytes::Bytes;
use waypoint_wire::{
    json,
    jsonrpc::{self, IdKey, Message},
    sse::{self, Splitter},
};

use crate::{
    era::Era,
    list::{self, FilterError, Filtered, Keep, ListKind},
    task,
};

/// A request whose response may come on a stream.
#[derive(Debug, Clone)]
pub struct Expected {
    id: IdKey,
    list: Option<ListKind>,
}

impl Expected {
    /// The request with this id, as [`crate::Call::id`] has it; `None` if it is not one.
    #[must_use]
    pub fn new(id: &[u8], list: Option<ListKind>) -> Option<Self> {
        let id = IdKey::of(id)?;
        Some(Self { id, list })
    }
}

/// What to do with a response to a request that is not among the expected ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownIds {
    /// Leave the event out.
    Drop,
    /// End the stream with [`FilterError::UnexpectedId`].
    Refuse,
    /// Pass it, with every list in it filtered whatever was asked. For resumed
    /// streams, where responses of earlier requests are replayed.
    ByShape,
}

/// Passes an event stream through and filters the lists in it.
///
/// An event is passed as its own bytes unless something in it had to go.
/// Comments and events without data pass; so do the server's notifications and,
/// in the legacy era, its requests. A message that can not be read ends the
/// stream, because nobody can tell what it lists.
#[derive(Debug)]
pub struct StreamFilter {
    splitter: Splitter,
    era: Era,
    expected: Vec<Expected>,
    unknown: UnknownIds,
    answered: usize,
    task: Option<Box<str>>,
}

/// What becomes of one event.
enum Verdict {
    Pass,
    Drop,
    Data(Vec<u8>),
}

impl StreamFilter {
    /// A filter for events of at most `limit` bytes.
    #[must_use]
    pub fn new(era: Era, expected: Vec<Expected>, unknown: UnknownIds, limit: usize) -> Self {
        Self {
            splitter: Splitter::new(limit),
            era,
            expected,
            unknown,
            answered: 0,
            task: None,
        }
    }

    /// Takes what came next and appends to `out` what may be sent now.
    ///
    /// `keep` gets the name, URI, URI template or task id of each listed item.
    ///
    /// # Errors
    /// [`FilterError`]; send what is in `out` and end the stream.
    pub fn push(
        &mut self,
        chunk: Bytes,
        keep: &mut Keep<'_>,
        out: &mut Vec<Bytes>,
    ) -> Result<(), FilterError> {
        self.splitter.push(chunk);
        while let Some(event) = self.splitter.next()? {
            self.event(event, keep, out)?;
        }
        Ok(())
    }

    /// Ends the stream: what is left is treated like an event, though clients discard it.
    ///
    /// # Errors
    /// As [`StreamFilter::push`].
    pub fn finish(&mut self, keep: &mut Keep<'_>, out: &mut Vec<Bytes>) -> Result<(), FilterError> {
        let rest = self.splitter.take_rest();
        if rest.is_empty() {
            return Ok(());
        }
        self.event(rest, keep, out)
    }

    /// How many expected responses have come so far; the same one twice counts twice.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answered
    }

    /// The id of a task that a response created, once. Bind it before sending the event.
    pub fn take_task(&mut self) -> Option<Box<str>> {
        self.task.take()
    }

    fn event(
        &mut self,
        raw: Bytes,
        keep: &mut Keep<'_>,
        out: &mut Vec<Bytes>,
    ) -> Result<(), FilterError> {
        let event = sse::parse(&raw);
        if event.data.is_empty() {
            out.push(raw);
            return Ok(());
        }
        let verdict = match self.message(&event.data, keep) {
            // Clients pass over other types, which need not be JSON; one that
            // does not must not see what we can not read.
            Err(FilterError::Unreadable(_)) if !event.is_message() => Verdict::Drop,
            other => other?,
        };
        match verdict {
            Verdict::Pass => out.push(raw),
            Verdict::Drop => {}
            Verdict::Data(data) => out.push(sse::replace_data(&raw, &data).into()),
        }
        Ok(())
    }

    fn message(&mut self, data: &[u8], keep: &mut Keep<'_>) -> Result<Verdict, FilterError> {
        let (id, result, fields) = match jsonrpc::parse_answer(data)? {
            // Modern servers ask inside results, never on a stream.
            Message::Request { .. } if self.era == Era::Modern => return Ok(Verdict::Drop),
            Message::Request { .. } | Message::Notification { .. } => return Ok(Verdict::Pass),
            Message::Response {
                id, result, fields, ..
            } => (id, result, fields),
        };
        let Some(id) = id.map(|id| id.key()) else {
            // Only an error may lack an id.
            return Ok(Verdict::Pass);
        };
        let known = self.expected.iter().find(|expected| expected.id == id);
        let Some(expected) = known else {
            return match (self.unknown, result) {
                (UnknownIds::Drop, _) => Ok(Verdict::Drop),
                (UnknownIds::Refuse, _) => Err(FilterError::UnexpectedId),
                (UnknownIds::ByShape, None) => Ok(Verdict::Pass),
                (UnknownIds::ByShape, Some(_)) => {
                    let result = fields.ok_or(FilterError::BadList)?;
                    self.by_shape(&result, data, keep)
                }
            };
        };
        self.answered += 1;
        let edits = match (expected.list, result) {
            (_, None) => return Ok(Verdict::Pass),
            (None, Some(_)) => {
                if let Some(task) = fields.as_ref().and_then(task::created_in) {
                    self.task = Some(task);
                }
                return Ok(Verdict::Pass);
            }
            (Some(list), Some(_)) => {
                let result = fields.ok_or(FilterError::BadList)?;
                list::edit_list(&[list], self.era, &result, keep)?
            }
        };
        Ok(verdict(list::finish(edits, data)))
    }

    fn by_shape(
        &self,
        result: &json::Object<'_>,
        data: &[u8],
        keep: &mut Keep<'_>,
    ) -> Result<Verdict, FilterError> {
        if !list::is_list(result) {
            return Ok(Verdict::Pass);
        }
        let edits = list::edit_list(ListKind::ALL, self.era, result, keep)?;
        Ok(verdict(list::finish(edits, data)))
    }
}

fn verdict(filtered: Filtered) -> Verdict {
    match filtered {
        Filtered::Unchanged => Verdict::Pass,
        Filtered::Changed(data) => Verdict::Data(data),
    }
}
