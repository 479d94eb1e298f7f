//! Which field of a rule an action fails first.
//!
//! The index asks with the lists cut down to the one entry that led it to the rule, `explain`
//! asks with the whole lists; the fields are the same.

use crate::{
    Action, Arguments, Caller, Effect, HttpBlock, LlmBlock, McpBlock, MethodRule, Operation,
    Pattern, Principal, Settings, SpiffeId, SpiffePattern, Workload,
    arguments::{Reading, TOOLS_CALL},
    istio::Claims,
};

/// A field of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    Providers,
    Models,
    Operations,
    MaxOutputTokens,
    Servers,
    Methods,
    /// `params` of this entry of `methods`.
    Params(usize),
    /// This entry of `arguments`.
    Arguments(usize),
    Hosts,
    Paths,
    Ports,
    HttpMethods,
}

/// A caller with an identity, looked at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) id: &'a SpiffeId,
    /// Namespace and service account, in the own trust domain or an alias of it.
    pub(crate) own: Option<Workload<'a>>,
}

impl<'a> Who<'a> {
    pub(crate) fn new(principal: &'a Principal, settings: &Settings) -> Option<Self> {
        let id = principal.spiffe()?;
        let trust_domain = id.trust_domain();
        let mut domains = settings.trust_domains.iter();
        let own = domains
            .any(|domain| **domain == *trust_domain)
            .then(|| id.workload())
            .flatten();
        Some(Self { id, own })
    }
}

impl Caller {
    /// Whether it names nobody in particular.
    pub(crate) fn is_anyone(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a request of `who` with these claims is one of this caller, for a rule with this
    /// effect.
    pub(crate) fn matches(
        &self,
        who: Option<&Who<'_>>,
        claims: Option<&Claims>,
        effect: Effect,
    ) -> bool {
        self.has_identity(who)
            && (self.jwt.as_ref()).is_none_or(|token| token.matches(claims, effect))
    }

    /// Whether the fields that are about an identity hold; without any, nobody's will do.
    pub(crate) fn has_identity(&self, who: Option<&Who<'_>>) -> bool {
        let Some(who) = who else {
            let fields = (&self.spiffe, &self.service_account, &self.namespace);
            return matches!(fields, (None, None, None));
        };
        self.spiffe
            .as_ref()
            .is_none_or(|pattern: &SpiffePattern| pattern.matches(who.id))
            && self.service_account.as_ref().is_none_or(|(ns, name)| {
                who.own
                    .is_some_and(|w| *w.namespace == **ns && *w.service_account == **name)
            })
            && self
                .namespace
                .as_ref()
                .is_none_or(|ns| who.own.is_some_and(|w| *w.namespace == **ns))
    }
}

/// An action, looked at once.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) action: Action<'a>,
    /// The name is a resource that could mean another one once it is decoded.
    evasive: bool,
    /// What a tool is called with.
    pub(crate) arguments: Reading<'a>,
}

impl<'a> Asked<'a> {
    /// `host` is the action's host as [`plain_host`] gives it.
    pub(crate) fn new(action: &Action<'a>, plain_host: &'a str) -> Self {
        let mut action = *action;
        if let Action::Http { host, .. } = &mut action {
            *host = plain_host;
        }
        let evasive = match action {
            Action::Mcp { method, name, .. } => {
                method.starts_with("resources/") && is_evasive(name)
            }
            _ => false,
        };
        let arguments = match action {
            Action::Mcp { arguments, .. } => arguments,
            _ => Arguments::Absent,
        };
        Self {
            action,
            evasive,
            arguments: Reading::new(arguments),
        }
    }

    /// Whether globs of resources are held back for this name.
    pub(crate) fn is_evasive(&self) -> bool {
        self.evasive
    }
}

/// Writes `host` as patterns of hosts are kept: lower case, without the dot that ends a rooted
/// name. `buffer` is used only if that differs.
pub(crate) fn plain_host<'a>(host: &'a str, buffer: &'a mut String) -> &'a str {
    let bare = match host.strip_suffix('.') {
        Some(bare) if !bare.is_empty() => bare,
        _ => host,
    };
    if !bare.bytes().any(|b| b.is_ascii_uppercase()) {
        return bare;
    }
    buffer.push_str(bare);
    buffer.make_ascii_lowercase();
    buffer
}

/// Whether a resource's URI may name something else to the server than to a glob: parent
/// segments, encoded slashes or dots, backslashes, control characters.
fn is_evasive(uri: &str) -> bool {
    let bytes = uri.as_bytes();
    let escape = |at: usize| match bytes.get(at + 1..at + 3) {
        Some([b'2', low]) => matches!(low, b'e' | b'E' | b'f' | b'F'),
        Some([b'5', low]) => matches!(low, b'c' | b'C'),
        _ => false,
    };
    let evades = bytes.iter().enumerate().any(|(at, byte)| match byte {
        b'.' => bytes.get(at + 1) == Some(&b'.'),
        b'%' => escape(at),
        b'\\' => true,
        byte => byte.is_ascii_control(),
    });
    evades || (!uri.is_ascii() && uri.chars().any(char::is_control))
}

fn restricts_operations(operations: Option<&[Operation]>) -> bool {
    operations.is_some_and(|listed| Operation::ALL.iter().any(|op| !listed.contains(op)))
}

fn every_name(patterns: Option<&[Pattern]>) -> bool {
    patterns.is_none_or(|patterns| patterns.iter().any(Pattern::is_any))
}

fn some_name<T>(list: Option<&[T]>) -> bool {
    list.is_none_or(|list| !list.is_empty())
}

impl LlmBlock {
    /// The first field that keeps the block from speaking about the provider as a whole: an Allow
    /// does if it grants anything there, a Deny if it leaves nothing.
    pub(crate) fn failed_whole(&self, effect: Effect) -> Option<Field> {
        let (models, operations) = (self.models.as_deref(), self.operations.as_deref());
        first_that_fails(match effect {
            Effect::Allow => [some_name(models), some_name(operations), true],
            Effect::Deny => [
                every_name(models),
                !restricts_operations(operations),
                self.max_output_tokens.is_none(),
            ],
        })
    }

    /// The first field `asked` fails, with `models` in place of the block's own.
    pub(crate) fn failed(
        &self,
        models: Option<&[Pattern]>,
        effect: Effect,
        asked: &Asked<'_>,
    ) -> Option<Field> {
        let (Action::Llm { provider, .. } | Action::LlmAny { provider }) = asked.action else {
            return Some(Field::Providers);
        };
        let listed = self.providers.as_ref();
        if !listed.is_none_or(|listed| listed.contains(&provider)) {
            return Some(Field::Providers);
        }
        let Action::Llm {
            provider: _,
            requested,
            upstream,
            operation,
            max_output_tokens: bound,
        } = asked.action
        else {
            return self.failed_whole(effect);
        };
        let operations = self.operations.as_deref();
        let named = |patterns: &[Pattern], name| patterns.iter().any(|p| p.matches(name));
        let models_hold = models.is_none_or(|patterns| match effect {
            Effect::Allow => named(patterns, upstream),
            Effect::Deny => named(patterns, upstream) || named(patterns, requested),
        });
        let operations_hold = match (effect, operation) {
            (Effect::Allow, None) => some_name(operations),
            (Effect::Deny, None) => !restricts_operations(operations),
            (_, Some(operation)) => operations.is_none_or(|listed| listed.contains(&operation)),
        };
        let output_holds = self.max_output_tokens.is_none_or(|limit| {
            let within = match operation {
                None => true,
                Some(operation) if !operation.generates() => true,
                Some(_) => bound.is_some_and(|bound| bound <= limit),
            };
            match effect {
                Effect::Allow => within,
                Effect::Deny => !within,
            }
        });
        first_that_fails([models_hold, operations_hold, output_holds])
    }
}

fn first_that_fails([models, operations, output]: [bool; 3]) -> Option<Field> {
    let fields = [
        (models, Field::Models),
        (operations, Field::Operations),
        (output, Field::MaxOutputTokens),
    ];
    fields
        .into_iter()
        .find_map(|(holds, field)| (!holds).then_some(field))
}

impl MethodRule {
    fn holds_whole(&self, effect: Effect) -> bool {
        match effect {
            Effect::Allow => some_name(self.params.as_deref()),
            Effect::Deny => self.method.is_any() && every_name(self.params.as_deref()),
        }
    }
}

impl McpBlock {
    /// Whether the block speaks about the server as a whole: an Allow if it grants anything
    /// there, a Deny if it leaves nothing.
    pub(crate) fn holds_whole(&self, effect: Effect) -> bool {
        let leaves_some = effect == Effect::Deny && !self.arguments.is_empty();
        let mut methods = self.methods.iter().flatten();
        !leaves_some && (self.methods.is_none() || methods.any(|rule| rule.holds_whole(effect)))
    }

    /// The first field `asked` fails, with `methods` in place of the block's own and only the
    /// entry `param` of their `params`, if there is one.
    pub(crate) fn failed(
        &self,
        methods: Option<&[MethodRule]>,
        param: Option<usize>,
        effect: Effect,
        asked: &Asked<'_>,
    ) -> Option<Field> {
        let (server, item) = match asked.action {
            Action::Mcp {
                server,
                method,
                name,
                arguments: _,
            } => (server, Some((method, name))),
            Action::McpSession { server, .. } => (server, None),
            _ => return Some(Field::Servers),
        };
        let listed = self.servers.as_ref();
        if !listed.is_none_or(|listed| listed.contains(&server)) {
            return Some(Field::Servers);
        }
        let Some((method, name)) = item else {
            return (!self.holds_whole(effect)).then_some(Field::Methods);
        };
        if !self.arguments.is_empty() && method != TOOLS_CALL {
            return Some(Field::Methods);
        }
        let failed_argument = || {
            let failed = asked.arguments.failed(&self.arguments, effect);
            failed.map(Field::Arguments)
        };
        let Some(methods) = methods else {
            return failed_argument();
        };
        let named = |pattern: &Pattern| {
            let guarded = effect == Effect::Allow && asked.evasive && pattern.as_exact().is_none();
            !guarded && pattern.matches(name)
        };
        let mut failed = Field::Methods;
        for (index, rule) in methods.iter().enumerate() {
            if !rule.method.matches(method) {
                continue;
            }
            let held = match (rule.params.as_deref(), param) {
                (None, _) => true,
                (Some(params), None) => params.iter().any(named),
                (Some(params), Some(index)) => params.get(index).is_some_and(named),
            };
            if held {
                return failed_argument();
            }
            failed = failed.max(Field::Params(index));
        }
        Some(failed)
    }
}

impl HttpBlock {
    /// The first field `asked` fails, with `hosts` and `paths` in place of the block's own.
    pub(crate) fn failed(
        &self,
        hosts: Option<&[Pattern]>,
        paths: Option<&[Pattern]>,
        effect: Effect,
        asked: &Asked<'_>,
    ) -> Option<Field> {
        let Action::Http {
            method,
            host,
            path,
            port,
            external: _,
        } = asked.action
        else {
            return Some(Field::Hosts);
        };
        let named = |patterns: Option<&[Pattern]>, name| {
            patterns.is_none_or(|patterns| patterns.iter().any(|p| p.matches(name)))
        };
        let same_method = |listed: &String| match effect {
            Effect::Allow => listed == "*" || listed == method,
            Effect::Deny => listed == "*" || listed.eq_ignore_ascii_case(method),
        };
        let methods = self.methods.as_ref();
        if !named(hosts, host) {
            Some(Field::Hosts)
        } else if !named(paths, path) {
            Some(Field::Paths)
        } else if !self
            .ports
            .as_ref()
            .is_none_or(|ports| ports.contains(&port))
        {
            Some(Field::Ports)
        } else if !methods.is_none_or(|methods| methods.iter().any(same_method)) {
            Some(Field::HttpMethods)
        } else {
            None
        }
    }
}
