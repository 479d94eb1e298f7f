//! The methods of each era, and what each one names.

use crate::{era::Era, list::ListKind};

/// What a request method is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Nothing in particular: it follows from any permitted item.
    Session,
    /// A list, whose answer is filtered.
    List(ListKind),
    /// The thing named by this key of `params`. Whoever may not use it by
    /// `object`, its principal method, may not use it by this one either.
    Item {
        key: &'static str,
        object: &'static str,
    },
    /// `completion/complete`: a prompt or a resource in `params.ref`.
    Complete,
    /// `subscriptions/listen`: any number of resources and tasks.
    Listen,
    /// A task, by `params.taskId`.
    Task,
}

/// Finds a request method; `None` is "method not found". Names are compared exactly.
pub(crate) fn request(era: Era, method: &str) -> Option<(&'static str, Shape)> {
    use Shape::{Complete, Item, List, Listen, Session, Task};
    let legacy = era == Era::Legacy;
    let item = |key, object| Item { key, object };
    let found = match method {
        "initialize" if legacy => ("initialize", Session),
        "ping" if legacy => ("ping", Session),
        "logging/setLevel" if legacy => ("logging/setLevel", Session),
        // Legacy servers answer this with an error of their own, which tells
        // clients to open with `initialize`; so it is passed in both eras.
        "server/discover" => ("server/discover", Session),
        "tools/list" => ("tools/list", List(ListKind::Tools)),
        "tools/call" => ("tools/call", item("name", "tools/call")),
        "prompts/list" => ("prompts/list", List(ListKind::Prompts)),
        "prompts/get" => ("prompts/get", item("name", "prompts/get")),
        "resources/list" => ("resources/list", List(ListKind::Resources)),
        "resources/templates/list" => (
            "resources/templates/list",
            List(ListKind::ResourceTemplates),
        ),
        "resources/read" => ("resources/read", item("uri", "resources/read")),
        "resources/subscribe" if legacy => ("resources/subscribe", item("uri", "resources/read")),
        "resources/unsubscribe" if legacy => {
            ("resources/unsubscribe", item("uri", "resources/read"))
        }
        "completion/complete" => ("completion/complete", Complete),
        "subscriptions/listen" if !legacy => ("subscriptions/listen", Listen),
        "tasks/get" => ("tasks/get", Task),
        "tasks/update" => ("tasks/update", Task),
        "tasks/cancel" => ("tasks/cancel", Task),
        "tasks/result" if legacy => ("tasks/result", Task),
        "tasks/list" if legacy => ("tasks/list", List(ListKind::Tasks)),
        _ => return None,
    };
    Some(found)
}

/// Whether a client may send this notification. Others are taken and not passed on.
pub(crate) fn is_notification(method: &str) -> bool {
    matches!(
        method,
        "notifications/initialized"
            | "notifications/cancelled"
            | "notifications/progress"
            | "notifications/roots/list_changed"
            | "notifications/elicitation/response"
            | "notifications/tasks/status"
    )
}
