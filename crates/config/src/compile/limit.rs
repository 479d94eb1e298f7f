//! `UsageLimit`: how much callers may use.

use std::num::NonZeroU64;
use std::time::Duration;

use waypoint_llm::MicroUsd;
use waypoint_policy::limit::{
    Calendar, Cost, Count, Cut, Dimension, ExhaustedStatus, OnExceeded, Period, Prefix, Requests,
    Store, StoreFailure, Tokens, UnknownModel, UsageLimit,
};
use waypoint_policy::{Effect, Kind, LlmBlock, McpBlock, ObjectRef, Rule};

use super::agent::{Blocks, Reader, Served, each, mode};
use super::draft::Drafts;
use super::gateway::Chosen;
use super::set::{Decoded, Set};
use crate::object::{At, Diagnostics};
use crate::raw::agent;
use crate::raw::limit as raw;
use crate::raw::{self as written, Text};

/// The most of anything in a period, money in micro-USD: what a bucket can count.
const AMOUNT_MAX: u64 = 10_000_000_000_000;
const WINDOW_MIN: Duration = Duration::from_secs(1);
const WINDOW_MAX: Duration = Duration::from_secs(31 * 24 * 60 * 60);

pub(super) fn compile(
    set: &Set<'_>,
    chosen: &Chosen<'_>,
    drafts: &Drafts<'_>,
    out: &mut Diagnostics,
) -> Vec<UsageLimit> {
    let served = Served::of(chosen, drafts);
    let one = |limit: &Decoded<'_, raw::UsageLimit>| {
        let reader = Reader {
            set,
            drafts,
            served: &served,
            object: limit.object,
            noun: "limit",
        };
        one(&reader, &limit.raw, chosen, out)
    };
    set.limits.values().map(one).collect()
}

fn one(
    reader: &Reader<'_>,
    spec: &raw::UsageLimit,
    chosen: &Chosen<'_>,
    out: &mut Diagnostics,
) -> UsageLimit {
    let at = reader.object.spec();
    let (targets, here) = reader.targets(&spec.target_refs, out);
    let store = store(reader, spec, (chosen, here), out);
    if spec.tokens.is_none()
        && spec.requests.is_none()
        && spec.concurrency.is_none()
        && spec.cost.is_none()
    {
        let message = "nothing is limited: give it `tokens`, `requests`, `cost` or `concurrency`";
        out.error(at, "missing-field", message);
    }
    for (field, given) in [
        ("tokens", spec.tokens.is_some()),
        ("cost", spec.cost.is_some()),
    ] {
        if given {
            llm_only(spec, &targets, at.key(field), out);
        }
    }
    let is_metered = spec.tokens.is_some() || spec.cost.is_some();
    if spec.on_exceeded == Some(raw::OnExceeded::Cut) && !is_metered {
        let message =
            "`Cut` is for streams whose `tokens` or `cost` are used up, and there are none";
        out.error(at.key("onExceeded"), "contradiction", message);
    }
    if spec.cut_with.is_some() && spec.on_exceeded != Some(raw::OnExceeded::Cut) {
        let message = "`cutWith` is for `onExceeded: Cut`; without it no stream is cut";
        out.error(at.key("cutWith"), "contradiction", message);
    }
    UsageLimit {
        name: reader.object.name.clone(),
        rule: rule(reader, spec, &targets, here, out),
        targets,
        mode: mode(spec.mode),
        per: dimensions(spec, at.key("per"), out),
        tokens: spec
            .tokens
            .as_ref()
            .and_then(|raw| tokens(raw, at.key("tokens"), out)),
        requests: spec
            .requests
            .as_ref()
            .and_then(|raw| requests(raw, at.key("requests"), out)),
        cost: spec
            .cost
            .as_ref()
            .and_then(|raw| cost(raw, at.key("cost"), out)),
        concurrency: spec.concurrency.and_then(|number| {
            let at = at.key("concurrency");
            bounded("concurrency", number, 0, u32::MAX.into(), at, out);
            number.try_into().ok()
        }),
        on_exceeded: match spec.on_exceeded {
            Some(raw::OnExceeded::Cut) => OnExceeded::Cut,
            Some(raw::OnExceeded::Reject) | None => OnExceeded::Reject,
        },
        cut: match spec.cut_with {
            Some(raw::CutWith::Finish) => Cut::Finish,
            Some(raw::CutWith::Error) | None => Cut::Error,
        },
        prefix: Prefix::default(),
        warn_at: thresholds(&spec.warn_at, at.key("warnAt"), out),
        exhausted_status: match spec.exhausted_status {
            None | Some(429) => ExhaustedStatus::TooManyRequests,
            Some(402) => ExhaustedStatus::PaymentRequired,
            Some(403) => ExhaustedStatus::Forbidden,
            Some(_) => {
                let message = "`exhaustedStatus` is 402, 403 or 429";
                out.error(at.key("exhaustedStatus"), "bad-value", message);
                ExhaustedStatus::default()
            }
        },
        store,
    }
}

/// Where the amounts are kept. A limit of this waypoint needs a store of this waypoint.
fn store(
    reader: &Reader<'_>,
    spec: &raw::UsageLimit,
    (chosen, here): (&Chosen<'_>, bool),
    out: &mut Diagnostics,
) -> Store {
    let at = reader.object.spec();
    let failure = spec.store_failure.map(|failure| match failure {
        raw::StoreFailure::Closed => StoreFailure::Closed,
        raw::StoreFailure::Open => StoreFailure::Open,
        raw::StoreFailure::LocalShare => StoreFailure::LocalShare,
    });
    match (spec.store, failure) {
        (Some(raw::Store::Shared), failure) => {
            let has_store = chosen.has_limit_store || !chosen.parameters_known;
            if here && !has_store {
                let message = "there is no store to share: name one as `limitStore` in the \
                               WaypointParameters, or use `Local`";
                out.error(at.key("store"), "missing-reference", message);
            }
            Store::Shared(failure.unwrap_or_default())
        }
        (Some(raw::Store::Local) | None, None) => Store::Local,
        (Some(raw::Store::Local) | None, Some(_)) => {
            let message = "`storeFailure` is for `store: Shared`: a local one does not fail";
            out.error(at.key("storeFailure"), "contradiction", message);
            Store::Local
        }
    }
}

/// Tokens and money are of LLM calls alone.
fn llm_only(spec: &raw::UsageLimit, targets: &[ObjectRef], at: At<'_>, out: &mut Diagnostics) {
    let message = "MCP calls have no tokens and no price";
    let only_proxies = targets.iter().all(|target| target.kind == Kind::McpProxy);
    if spec.llm.is_none() && spec.mcp.is_some() {
        let message = format!("{message}, and this limit is about `mcp` alone; use `requests`");
        out.error(at, "contradiction", message);
    } else if only_proxies && !targets.is_empty() {
        let message = format!(
            "{message}, and this limit is attached to MCPProxies alone, so these are never used"
        );
        out.warning(at, "never-matches", message);
    }
}

fn thresholds(raw: &[u64], at: At<'_>, out: &mut Diagnostics) -> Vec<u8> {
    let mut thresholds: Vec<u8> = Vec::new();
    for (index, &percent) in raw.iter().enumerate() {
        let at = at.index(index);
        match u8::try_from(percent) {
            Ok(percent @ 1..=100) if thresholds.last().is_none_or(|&last| last < percent) => {
                thresholds.push(percent);
            }
            Ok(1..=100) => {
                let message = "`warnAt` lists each percentage once, ascending";
                out.error(at, "bad-value", message);
            }
            _ => out.error(at, "bad-value", "`warnAt` lists percentages from 1 to 100"),
        }
    }
    thresholds
}

/// Whom the limit is about, and which of their calls. Blocks are read as a Deny's.
fn rule(
    reader: &Reader<'_>,
    spec: &raw::UsageLimit,
    targets: &[ObjectRef],
    here: bool,
    out: &mut Diagnostics,
) -> Rule {
    let at = reader.object.spec();
    let blocks = Blocks {
        reader,
        targets,
        effect: Effect::Deny,
        warn: here,
    };
    let from = spec.from.as_ref();
    let from = from.map(|from| reader.callers(from, at.key("from"), out));
    let mut rule = Rule {
        name: (&*reader.object.name.name).into(),
        from,
        llm: each(spec.llm.as_deref(), at.key("llm"), out, |raw, at, out| {
            blocks.llm(&llm(raw), at, out)
        }),
        mcp: each(spec.mcp.as_deref(), at.key("mcp"), out, |raw, at, out| {
            blocks.mcp(&mcp(raw), at, out)
        }),
        http: Vec::new(),
    };
    if spec.llm.is_none() && spec.mcp.is_none() {
        rule.llm.push(LlmBlock::default());
        rule.mcp.push(McpBlock::default());
    }
    rule
}

fn llm(raw: &raw::Llm) -> agent::Llm {
    agent::Llm {
        providers: raw.providers.clone(),
        models: raw.models.clone(),
        operations: raw.operations.clone(),
        max_output_tokens: None,
    }
}

fn mcp(raw: &raw::Mcp) -> agent::Mcp {
    agent::Mcp {
        servers: raw.servers.clone(),
        methods: raw.methods.clone(),
        arguments: None,
    }
}

fn dimensions(spec: &raw::UsageLimit, at: At<'_>, out: &mut Diagnostics) -> Vec<Dimension> {
    let only_llm = spec.llm.is_some() && spec.mcp.is_none();
    let only_mcp = spec.mcp.is_some() && spec.llm.is_none();
    let mut dimensions: Vec<Dimension> = Vec::new();
    for (index, Text(dimension)) in spec.per.iter().enumerate() {
        let at = at.index(index);
        let missing = match dimension {
            Dimension::Server | Dimension::Tool if only_llm => Some("LLM"),
            Dimension::Provider | Dimension::Model if only_mcp => Some("MCP"),
            _ => None,
        };
        if let Some(calls) = missing {
            let message = format!(
                "{calls} calls have no {dimension}, and this limit is about them alone: they share one amount"
            );
            out.warning(at, "never-matches", message);
        }
        // Nobody's token has a claim of such a name, so all would share what each should have.
        if let Dimension::Claim(name) = dimension
            && name.starts_with('[')
        {
            let message =
                format!("`{name}` is not the name of a claim; claims in claims have none");
            out.error(at, "bad-value", message);
        }
        if dimensions.contains(dimension) {
            let message = format!("`{dimension}` is listed already");
            out.error(at, "duplicate-name", message);
        }
        dimensions.push(dimension.clone());
    }
    dimensions
}

fn tokens(raw: &raw::Tokens, at: At<'_>, out: &mut Diagnostics) -> Option<Tokens> {
    bounded("limit", raw.limit, 0, AMOUNT_MAX, at.key("limit"), out);
    Some(Tokens {
        limit: raw.limit,
        period: period("tokens", raw.window, raw.calendar, at, out)?,
        count: match raw.count {
            Some(raw::Count::Input) => Count::Input,
            Some(raw::Count::Output) => Count::Output,
            Some(raw::Count::Total) | None => Count::Total,
        },
    })
}

fn requests(raw: &raw::Requests, at: At<'_>, out: &mut Diagnostics) -> Option<Requests> {
    bounded("limit", raw.limit, 0, AMOUNT_MAX, at.key("limit"), out);
    if let Some(burst) = raw.burst {
        let at = at.key("burst");
        bounded("burst", burst, 1, AMOUNT_MAX, at, out);
        if raw.calendar.is_some() {
            let message = "`burst` is for a `window`: of a `calendar` all may be used at once";
            out.error(at, "contradiction", message);
        }
    }
    Some(Requests {
        limit: raw.limit,
        period: period("requests", raw.window, raw.calendar, at, out)?,
        burst: raw.burst.and_then(NonZeroU64::new),
    })
}

fn cost(raw: &raw::Cost, at: At<'_>, out: &mut Diagnostics) -> Option<Cost> {
    let Text(MicroUsd(limit)) = raw.limit;
    if limit > AMOUNT_MAX {
        let message = "`limit` must be at most 10000000 USD";
        out.error(at.key("limit"), "bad-value", message);
    }
    Some(Cost {
        limit,
        period: period("cost", raw.window, raw.calendar, at, out)?,
        unknown_model: match raw.unknown_model {
            Some(raw::UnknownModel::Alert) => UnknownModel::Alert,
            Some(raw::UnknownModel::Reject) | None => UnknownModel::Reject,
        },
    })
}

fn period(
    field: &str,
    window: Option<written::Duration>,
    calendar: Option<raw::Calendar>,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<Period> {
    if let Some(written::Duration(window)) = window
        && !(WINDOW_MIN..=WINDOW_MAX).contains(&window)
    {
        let message = "`window` must be from 1s to 744h (31 days)";
        out.error(at.key("window"), "bad-value", message);
    }
    match (window, calendar) {
        (Some(written::Duration(window)), None) => Some(Period::Window(window)),
        (None, Some(calendar)) => Some(Period::Calendar(match calendar {
            raw::Calendar::Hour => Calendar::Hour,
            raw::Calendar::Day => Calendar::Day,
            raw::Calendar::Week => Calendar::Week,
            raw::Calendar::Month => Calendar::Month,
        })),
        (Some(_), Some(_)) => {
            let message = format!("`{field}` has `window` and `calendar`; keep one");
            out.error(at.key("calendar"), "contradiction", message);
            None
        }
        (None, None) => {
            let message = format!("`{field}` needs `window` or `calendar`");
            out.error(at, "missing-field", message);
            None
        }
    }
}

fn bounded(field: &str, number: u64, min: u64, max: u64, at: At<'_>, out: &mut Diagnostics) {
    if number < min {
        out.error(at, "bad-value", format!("`{field}` must be at least {min}"));
    } else if number > max {
        out.error(at, "bad-value", format!("`{field}` must be at most {max}"));
    }
}
