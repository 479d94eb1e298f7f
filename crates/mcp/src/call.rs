//! One message of a caller, as what has to be decided about it.

use std::borrow::Cow;
use std::ops::Range;

use waypoint_wire::{
    json::{self, Kind, Object, Value},
    jsonrpc::{self, Message},
};

use crate::{
    era::{self, Era, Sort},
    head::Head,
    list::ListKind,
    method::{self, Shape},
    mirror,
    refusal::McpRefusal,
};

/// Most resources and tasks one `subscriptions/listen` may name.
const MAX_LISTEN: usize = 1024;
/// Longest task id, in bytes.
pub(crate) const MAX_TASK_ID: usize = 1024;

pub(crate) const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_KEYS: &[&str] = &[
    "progressToken",
    META_VERSION,
    META_CAPABILITIES,
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/logLevel",
    "io.modelcontextprotocol/related-task",
];
pub(crate) const LISTEN_KEYS: &[&str] = &["resourceSubscriptions", "taskIds"];

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// Expects an answer.
    Request,
    /// Expects status 202 and no body.
    Notification,
    /// The caller's answer to a request of the server; legacy era only.
    Response,
}

/// Something a call names, in policy words: a method and its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// `tools/call`, `prompts/get`, `resources/read`, or the method of the call.
    pub method: &'static str,
    /// Tool name, prompt name or URI, exactly as the server will read it.
    pub name: Box<str>,
}

/// What has to be decided before a call may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Whether the caller may use this server at all.
    Session,
    /// Whether the caller may do this.
    Item(Item),
    /// The same for all of these; one denial denies the call. A call that
    /// reaches an object other than by its principal method asks for both:
    /// `resources/subscribe` for itself and for `resources/read`.
    Items(Vec<Item>),
    /// Which of these the caller may hear about. Each URI is asked for
    /// `resources/read` and `subscriptions/listen`; each task by what created
    /// it. Take the denied ones out with [`crate::cut_listen`].
    Listen {
        /// Resource URIs.
        uris: Vec<Box<str>>,
        /// Task ids.
        tasks: Vec<Box<str>>,
    },
    /// What the call that created this task asked for, at this server, if the
    /// same principal made it; else the task is unknown.
    Task {
        /// The task.
        id: Box<str>,
    },
    /// Nothing: answer 202 and do not forward. For notifications we do not know.
    Discard,
}

impl Ask {
    /// The items that all must be allowed; empty for the other kinds.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        match self {
            Self::Item(item) => std::slice::from_ref(item),
            Self::Items(items) => items,
            _ => &[],
        }
    }
}

/// One message of a caller.
#[derive(Debug, Clone)]
pub struct Call {
    /// Which era it belongs to.
    pub era: Era,
    /// Request, notification or response.
    pub kind: CallKind,
    /// The method; empty for a response.
    pub method: Box<str>,
    /// The id as it was written, to be echoed. For a response, the id it answers.
    pub id: Option<Box<[u8]>>,
    /// What has to be decided.
    pub ask: Ask,
    /// Set if the answer is a list and must be filtered.
    pub list: Option<ListKind>,
    /// Where in the message the arguments of a `tools/call` lie, if it has any.
    pub arguments: Option<Range<usize>>,
    /// Whether it asks to run as a task (`params.task`, revision 2025-11-25).
    /// In the modern era the server decides, so look at every answer.
    pub wants_task: bool,
    /// `params._meta.progressToken` as it was written.
    pub progress_token: Option<Box<[u8]>>,
}

impl Call {
    /// The task a `tasks/*` request is about.
    #[must_use]
    pub fn task_id(&self) -> Option<&str> {
        match &self.ask {
            Ask::Task { id } => Some(id),
            _ => None,
        }
    }

    /// What the call names first, for metrics and audit; `None` where it names nothing.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.ask.items().first().map(|item| &*item.name)
    }

    /// Whether it opens a legacy session.
    #[must_use]
    pub fn is_initialize(&self) -> bool {
        self.era == Era::Legacy && self.kind == CallKind::Request && &*self.method == "initialize"
    }
}

/// Reads a caller's message and checks its headers against it.
///
/// Nothing is rebuilt: if the call is permitted, forward `body` as it is.
///
/// # Errors
/// The answer to give: status 400 for what is not one well-formed message, for
/// headers that disagree with it and for parameters that name nothing; 404
/// (modern) or 200 (legacy) with `-32601` for methods of no revision.
pub fn read(body: &[u8], head: &Head<'_>) -> Result<Call, McpRefusal> {
    match jsonrpc::parse(body)? {
        Message::Request { id, method, params } => {
            request(head, id.raw(), &method, params.as_ref())
                .map_err(|refusal| refusal.with_id(id.raw()))
        }
        Message::Notification { method, params } => notification(head, &method, params.as_ref()),
        Message::Response { id, .. } => {
            if era::detect(head.protocol_version, None, Sort::OneWay)? == Era::Modern {
                return Err(McpRefusal::request("this revision has no client responses"));
            }
            mirror::check_method(head, None, false)?;
            mirror::check_name(head, Era::Legacy, None)?;
            Ok(Call {
                era: Era::Legacy,
                kind: CallKind::Response,
                method: "".into(),
                id: id.map(|id| id.raw().into()),
                ask: Ask::Session,
                list: None,
                arguments: None,
                wants_task: false,
                progress_token: None,
            })
        }
    }
}

fn request(
    head: &Head<'_>,
    id: &[u8],
    method: &str,
    params: Option<&Object<'_>>,
) -> Result<Call, McpRefusal> {
    let meta = meta(params)?;
    let version = version(meta.as_ref())?;
    let sort = match method {
        "initialize" => Sort::Initialize,
        _ => Sort::Request,
    };
    let era = era::detect(head.protocol_version, version.as_deref(), sort)?;
    let value = |key| params.and_then(|params| params.value_of(key));
    if era == Era::Modern {
        let capabilities = meta
            .as_ref()
            .and_then(|meta| meta.value_of(META_CAPABILITIES));
        if capabilities.is_none_or(|value| value.kind != Kind::Object) {
            return Err(McpRefusal::params(
                "_meta must hold io.modelcontextprotocol/clientCapabilities",
            ));
        }
    }
    mirror::check_method(head, Some(method), era == Era::Modern)?;
    let (method, shape) = method::request(era, method).ok_or_else(|| McpRefusal::method(era))?;
    let mut named = None;
    let ask = match shape {
        Shape::Session | Shape::List(_) => Ask::Session,
        Shape::Item { key, object } => {
            let name = text(value(key), key)?;
            let ask = ask(method, object, &name);
            named = Some(name);
            ask
        }
        Shape::Complete => complete(value("ref"))?,
        Shape::Listen => listen(params)?,
        Shape::Task => {
            let name = text(value("taskId"), "taskId")?;
            if name.len() > MAX_TASK_ID {
                return Err(McpRefusal::params("taskId is too long"));
            }
            let id = name.as_ref().into();
            named = Some(name);
            Ask::Task { id }
        }
    };
    mirror::check_name(head, era, named.as_deref())?;
    Ok(Call {
        era,
        kind: CallKind::Request,
        method: method.into(),
        id: Some(id.into()),
        ask,
        list: match shape {
            Shape::List(list) => Some(list),
            _ => None,
        },
        arguments: match method {
            "tools/call" => value("arguments").map(|arguments| arguments.range()),
            _ => None,
        },
        wants_task: value("task").is_some_and(|task| !task.is_null()),
        progress_token: progress_token(meta.as_ref()),
    })
}

fn notification(
    head: &Head<'_>,
    method: &str,
    params: Option<&Object<'_>>,
) -> Result<Call, McpRefusal> {
    if !method.starts_with("notifications/") {
        return Err(McpRefusal::request("a request must have an id"));
    }
    let meta = meta(params)?;
    let version = version(meta.as_ref())?;
    let era = era::detect(head.protocol_version, version.as_deref(), Sort::OneWay)?;
    mirror::check_method(head, Some(method), false)?;
    mirror::check_name(head, era, None)?;
    Ok(Call {
        era,
        kind: CallKind::Notification,
        method: method.into(),
        id: None,
        ask: if method::is_notification(method) {
            Ask::Session
        } else {
            Ask::Discard
        },
        list: None,
        arguments: None,
        wants_task: false,
        progress_token: None,
    })
}

/// `params._meta`, if there is one.
fn meta<'a>(params: Option<&Object<'a>>) -> Result<Option<Object<'a>>, McpRefusal> {
    let Some(meta) = params.and_then(|params| params.value_of("_meta")) else {
        return Ok(None);
    };
    let meta = json::object(meta).map_err(|_| McpRefusal::params("_meta must be an object"))?;
    jsonrpc::refuse_look_alikes(&meta, META_KEYS)?;
    Ok(Some(meta))
}

fn version<'a>(meta: Option<&Object<'a>>) -> Result<Option<Cow<'a, str>>, McpRefusal> {
    meta.and_then(|meta| meta.value_of(META_VERSION))
        .map(|version| text(Some(version), META_VERSION))
        .transpose()
}

fn progress_token(meta: Option<&Object<'_>>) -> Option<Box<[u8]>> {
    let token = meta?.value_of("progressToken")?;
    matches!(token.kind, Kind::String | Kind::Number).then(|| token.raw.into())
}

fn text<'a>(value: Option<Value<'a>>, key: &str) -> Result<Cow<'a, str>, McpRefusal> {
    value
        .and_then(|value| value.as_str())
        .ok_or_else(|| McpRefusal::params(format!("{key} must be a string")))
}

fn ask(method: &'static str, object: &'static str, name: &str) -> Ask {
    let item = |method| Item {
        method,
        name: name.into(),
    };
    if method == object {
        Ask::Item(item(method))
    } else {
        Ask::Items(vec![item(object), item(method)])
    }
}

/// What `completion/complete` completes an argument of.
fn complete(reference: Option<Value<'_>>) -> Result<Ask, McpRefusal> {
    let bad = || McpRefusal::params("ref must name a prompt or a resource");
    let reference = json::object(reference.ok_or_else(bad)?).map_err(|_| bad())?;
    jsonrpc::refuse_look_alikes(&reference, &["type", "name", "uri"])?;
    let kind = text(reference.value_of("type"), "ref.type")?;
    let (key, other, object) = match &*kind {
        "ref/prompt" => ("name", "uri", "prompts/get"),
        "ref/resource" => ("uri", "name", "resources/read"),
        _ => return Err(bad()),
    };
    if reference.get(other).is_some() {
        // A server that looks for the key instead of the type would read the other one.
        return Err(bad());
    }
    let name = text(reference.value_of(key), key)?;
    Ok(ask("completion/complete", object, &name))
}

/// What `subscriptions/listen` wants to hear about.
fn listen(params: Option<&Object<'_>>) -> Result<Ask, McpRefusal> {
    let [uris, tasks] = listened(params)?.map(|items| {
        items
            .iter()
            .map(|(_, text)| text.as_ref().into())
            .collect::<Vec<Box<str>>>()
    });
    if uris.is_empty() && tasks.is_empty() {
        return Ok(Ask::Session);
    }
    Ok(Ask::Listen { uris, tasks })
}

/// A string that `subscriptions/listen` names, with the array it stands in.
pub(crate) type Listened<'a> = (Value<'a>, Cow<'a, str>);

/// The strings of `resourceSubscriptions` and `taskIds`.
pub(crate) fn listened<'a>(
    params: Option<&Object<'a>>,
) -> Result<[Vec<Listened<'a>>; 2], McpRefusal> {
    let mut found = [Vec::new(), Vec::new()];
    let notifications = params.and_then(|params| params.value_of("notifications"));
    let notifications = notifications
        .map(json::object)
        .transpose()
        .map_err(|_| McpRefusal::params("notifications must be an object"))?;
    // The keys belong into `notifications`; a server may look beside it too.
    for place in [params, notifications.as_ref()].into_iter().flatten() {
        jsonrpc::refuse_look_alikes(place, LISTEN_KEYS)?;
        for (key, found) in LISTEN_KEYS.iter().zip(&mut found) {
            let Some(list) = place.value_of(key).filter(|list| !list.is_null()) else {
                continue;
            };
            let bad = || McpRefusal::params(format!("{key} must be an array of strings"));
            for item in json::array(list).map_err(|_| bad())? {
                if found.len() >= MAX_LISTEN {
                    return Err(McpRefusal::params("too many subscriptions in one request"));
                }
                found.push((list, item.as_str().ok_or_else(bad)?));
            }
        }
    }
    Ok(found)
}
