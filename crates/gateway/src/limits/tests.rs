use std::pin::pin;
use std::task::{Context, Poll, Waker};

use waypoint_policy::limit::{
    Calendar, Cost, Count, Cut, OnExceeded, Period, Prefix, Requests, Store, Tokens,
};
use waypoint_policy::{LlmBlock, ObjectName, Principal, Rule};

use super::*;

fn limit(name: &str, tokens: Option<u64>, requests: Option<u64>) -> UsageLimit {
    let period = Period::Calendar(Calendar::Month);
    UsageLimit {
        name: ObjectName::new("agents", name),
        targets: Vec::new(),
        mode: Mode::Enforce,
        rule: Rule {
            name: name.into(),
            from: None,
            llm: vec![LlmBlock::default()],
            mcp: Vec::new(),
            http: Vec::new(),
        },
        per: Vec::new(),
        tokens: tokens.map(|limit| Tokens {
            limit,
            period,
            count: Count::Total,
        }),
        requests: requests.map(|limit| Requests {
            limit,
            period,
            burst: None,
        }),
        cost: None,
        concurrency: None,
        on_exceeded: OnExceeded::Reject,
        cut: Cut::Error,
        warn_at: Vec::new(),
        prefix: Prefix::default(),
        exhausted_status: ExhaustedStatus::default(),
        store: Store::Local,
    }
}

fn trial(limit: UsageLimit) -> UsageLimit {
    UsageLimit {
        mode: Mode::DryRun,
        ..limit
    }
}

fn cutting(limit: UsageLimit) -> UsageLimit {
    UsageLimit {
        on_exceeded: OnExceeded::Cut,
        ..limit
    }
}

fn exactly(input: u64, output: u64) -> Ask {
    Ask {
        input,
        output,
        least_input: input,
        least_output: None,
        price: None,
        is_billed: true,
    }
}

fn tokens(input: Option<u64>, output: Option<u64>) -> Used {
    Used {
        input,
        output,
        cost: None,
    }
}

fn guess(input: u64, output: u64) -> Ask {
    Ask {
        least_output: Some(64),
        ..exactly(input, output)
    }
}

/// What is ready at once, as everything about local limits is.
fn ready<T>(future: impl Future<Output = T>) -> T {
    let context = &mut Context::from_waker(Waker::noop());
    match pin!(future).poll(context) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a local limit waits"),
    }
}

fn reserve(limits: &Arc<Limits>, of: &[&UsageLimit], ask: Ask) -> Result<Reservation, Code> {
    let subject = Subject::of(&Principal::Anonymous);
    let mut would_deny = Vec::new();
    let of: Vec<_> = of.iter().map(|&limit| Arc::new(limit.clone())).collect();
    let reserved = ready(limits.reserve(&of, &subject, ask, &mut would_deny));
    reserved.map_err(|refusal| refusal.code)
}

/// What is left of a limit: tokens, requests, and who is using it.
fn left(limits: &Limits, limit: &UsageLimit) -> (i64, i64, u32) {
    let now = limits.now();
    let unlimited = UsageLimit {
        concurrency: None,
        ..limit.clone()
    };
    let subject = Subject::of(&Principal::Anonymous);
    let key = bucket_key(&unlimited, &subject);
    let looked = limits.table.look(key.as_bytes());
    let slot = limits.enter(&unlimited, looked).unwrap();
    let bucket = limits.table.bucket(slot).unwrap();
    bucket.leave();
    let tokens = limit.tokens.map(|tokens| tokens.meter());
    let requests = limit.requests.map(|requests| requests.meter());
    (
        tokens.map_or(0, |meter| meter.remaining(&bucket.tokens, now)),
        requests.map_or(0, |meter| meter.remaining(&bucket.requests, now)),
        bucket.users(),
    )
}

#[test]
fn settles_once_by_what_became_of_it() {
    type Story = fn(Reservation);
    let stories: [(&str, Story, (i64, i64)); 11] = [
        ("not sent", drop, (1000, 10)),
        (
            "not sent, and settled",
            |r| {
                let _rates = r.settle();
            },
            (1000, 10),
        ),
        (
            "sent, and nobody knows",
            |mut r| {
                r.sent();
            },
            (700, 9),
        ),
        (
            "refused by the upstream",
            |mut r| {
                r.sent();
                r.refused();
            },
            (1000, 9),
        ),
        (
            "used less",
            |mut r| {
                r.sent();
                r.used(tokens(Some(20), Some(30)));
            },
            (950, 9),
        ),
        (
            "used more, and settled before it is dropped",
            |mut r| {
                r.sent();
                r.used(tokens(Some(200), Some(1800)));
                let rates = r.settle();
                assert_eq!(rates.tokens.unwrap().remaining, 0);
                assert_eq!(rates.requests.unwrap().remaining, 9);
            },
            (-1000, 9),
        ),
        (
            "nobody counted the output",
            |mut r| {
                r.sent();
                r.used(tokens(Some(20), None));
            },
            (780, 9),
        ),
        (
            "nobody counted the input",
            |mut r| {
                r.sent();
                r.used(tokens(None, Some(0)));
            },
            (900, 9),
        ),
        (
            "lost, and made again",
            |mut r| {
                r.sent();
                r.again();
                r.sent();
                r.used(tokens(Some(10), Some(10)));
            },
            (680, 9),
        ),
        (
            "lost, and then refused",
            |mut r| {
                r.sent();
                r.again();
                r.sent();
                r.refused();
            },
            (700, 9),
        ),
        (
            "refused, and made again",
            |mut r| {
                r.sent();
                r.refused();
                r.again();
                r.sent();
                r.used(tokens(Some(10), Some(10)));
            },
            (980, 9),
        ),
    ];
    for (case, story, (tokens, requests)) in stories {
        let limits = Arc::new(Limits::default());
        let limit = limit("all", Some(1000), Some(10));
        let reservation = reserve(&limits, &[&limit], exactly(100, 200)).unwrap();
        assert_eq!(left(&limits, &limit), (700, 9, 1), "{case}");
        story(reservation);
        assert_eq!(left(&limits, &limit), (tokens, requests, 0), "{case}");
    }
}

#[test]
fn all_of_them_or_none() {
    let limits = Arc::new(Limits::default());
    let wide = limit("a", Some(1000), Some(10));
    let narrow = limit("b", Some(100), None);
    let few = limit("c", None, Some(1));
    let full = UsageLimit {
        concurrency: Some(1),
        ..limit("d", None, None)
    };
    let held = reserve(&limits, &[&few, &full], Ask::default()).unwrap();
    for (case, last, code) in [
        ("too large", &narrow, Code::RequestExceedsLimit),
        ("used up", &few, Code::QuotaExhausted),
        ("too many", &full, Code::RateLimited),
    ] {
        let refused = reserve(&limits, &[&wide, last], exactly(100, 100)).unwrap_err();
        assert_eq!(refused, code, "{case}");
        assert_eq!(left(&limits, &wide), (1000, 10, 0), "{case}");
    }
    // Within one limit too: its request is not counted when its tokens are missing.
    let both = limit("e", Some(150), Some(10));
    assert!(reserve(&limits, &[&both], exactly(100, 100)).is_err());
    assert_eq!(left(&limits, &both), (150, 10, 0));
    drop(held);
    assert_eq!(left(&limits, &few), (0, 1, 0));
    assert_eq!(left(&limits, &full).2, 0);
}

#[test]
fn one_on_trial_changes_nothing() {
    let limits = Arc::new(Limits::default());
    let wide = limit("a", Some(10_000), Some(10));
    let stop = trial(UsageLimit {
        concurrency: Some(0),
        ..limit("b", None, None)
    });
    let alone = trial(UsageLimit {
        concurrency: Some(1),
        ..limit("c", None, None)
    });
    let small = cutting(trial(limit("d", Some(150), None)));
    let all = [&wide, &stop, &alone, &small].map(|limit| Arc::new(limit.clone()));
    let subject = Subject::of(&Principal::Anonymous);
    let go = |ask| {
        let mut would_deny = Vec::new();
        let reserved = ready(limits.reserve(&all, &subject, ask, &mut would_deny));
        let told: Vec<_> = would_deny.iter().map(|r| r.policy.name.clone()).collect();
        (reserved.unwrap(), told.join(" "))
    };
    let (mut first, told) = go(guess(100, 1000));
    // A guess fits, as it would if the limit were in force; and others are asked for all of it.
    assert_eq!(told, "b");
    assert_eq!(left(&limits, &small).0, 0);
    assert_eq!(left(&limits, &wide), (8900, 9, 1));
    let (second, told) = go(exactly(100, 1000));
    assert_eq!(told, "b c d");
    assert_eq!(left(&limits, &alone).2, 1);
    first.sent();
    assert!(ready(first.grow(None, 5000)).is_ok());
    assert!(left(&limits, &small).0 < -4000);
    first.used(tokens(Some(50), Some(50)));
    drop(first);
    drop(second);
    assert_eq!(left(&limits, &wide), (9900, 9, 0));
    assert_eq!(left(&limits, &small), (50, 0, 0));
    assert_eq!(left(&limits, &alone).2, 0);
}

#[test]
fn streams_take_as_they_go() {
    let limits = Arc::new(Limits::default());
    let cut = cutting(limit("cut", Some(1000), None));
    let mut stream = reserve(&limits, &[&cut], guess(100, 64)).unwrap();
    stream.sent();
    assert!(ready(stream.grow(None, 64)).is_ok());
    assert_eq!(left(&limits, &cut).0, 836);
    // A lease at a time, or as many as one event needs.
    assert!(ready(stream.grow(None, 65)).is_ok());
    assert_eq!(left(&limits, &cut).0, 708);
    assert!(ready(stream.grow(None, 192)).is_ok());
    assert_eq!(left(&limits, &cut).0, 708);
    assert!(ready(stream.grow(None, 400)).is_ok());
    assert_eq!(left(&limits, &cut).0, 452);
    // More input than was estimated is more used, and less than that is room.
    assert!(ready(stream.grow(Some(300), 400)).is_ok());
    assert_eq!(left(&limits, &cut).0, 196);
    assert!(ready(stream.grow(Some(50), 700)).is_ok());
    assert_eq!(left(&limits, &cut).0, 196);
    let refusal = ready(stream.grow(Some(300), 709)).unwrap_err();
    assert_eq!(refusal.code, Code::QuotaExhausted);
    assert!(ready(stream.grow(Some(300), u64::MAX)).is_err());
    stream.used(tokens(Some(300), Some(720)));
    drop(stream);
    assert_eq!(left(&limits, &cut), (-20, 0, 0));
    let debt = limit("debt", Some(1000), None);
    let mut stream = reserve(&limits, &[&debt], guess(100, 64)).unwrap();
    assert!(ready(stream.grow(None, 5000)).is_ok());
    assert!(left(&limits, &debt).0 <= -4100);
    stream.used(tokens(None, Some(500)));
    drop(stream);
    assert_eq!(left(&limits, &debt), (400, 0, 0));
}

#[test]
fn a_stream_is_not_cut_by_what_it_does_not_use() {
    let limits = Arc::new(Limits::default());
    let mut input = cutting(limit("input", Some(1000), None));
    input.tokens.as_mut().unwrap().count = Count::Input;
    let mut stream = reserve(&limits, &[&input], guess(100, 64)).unwrap();
    let mut other = reserve(&limits, &[&input], guess(100, 64)).unwrap();
    other.used(tokens(Some(5000), Some(0)));
    drop(other);
    assert!(left(&limits, &input).0 < 0);
    assert!(ready(stream.grow(None, 100_000)).is_ok());
    assert!(ready(stream.grow(Some(101), 100_000)).is_err());
}

fn money(name: &str, limit_micro_usd: u64, unknown_model: UnknownModel) -> UsageLimit {
    UsageLimit {
        cost: Some(Cost {
            limit: limit_micro_usd,
            period: Period::Calendar(Calendar::Month),
            unknown_model,
        }),
        ..limit(name, None, None)
    }
}

/// 1 USD per million tokens of input, 10 of output.
fn priced(ask: Ask) -> Ask {
    let price = serde_json::from_str(r#"{"input": "1", "output": "10", "cachedInput": "0.1"}"#);
    Ask {
        price: Some(price.unwrap()),
        ..ask
    }
}

/// What is left of a limit of money.
fn money_left(limits: &Limits, limit: &UsageLimit) -> i64 {
    let key = bucket_key(limit, &Subject::of(&Principal::Anonymous));
    let slot = limits.enter(limit, limits.table.look(key.as_bytes()));
    let bucket = limits.table.bucket(slot.unwrap()).unwrap();
    bucket.leave();
    let meter = limit.cost.unwrap().meter();
    meter.remaining(&bucket.cost, limits.now())
}

#[test]
fn money_is_reserved_and_settled() {
    let limits = Arc::new(Limits::default());
    let budget = money("budget", 10_000, UnknownModel::Reject);
    // 100 of input and 200 of output: 100 and 2000 micro-USD.
    let mut call = reserve(&limits, &[&budget], priced(exactly(100, 200))).unwrap();
    assert_eq!(money_left(&limits, &budget), 7900);
    call.sent();
    call.used(tokens(Some(50), Some(10)));
    drop(call);
    assert_eq!(money_left(&limits, &budget), 9850);
    // What it really cost counts, where that is known: the cache is cheaper.
    let mut call = reserve(&limits, &[&budget], priced(exactly(100, 200))).unwrap();
    call.used(Used {
        input: Some(50),
        output: Some(10),
        cost: Some(105),
    });
    drop(call);
    assert_eq!(money_left(&limits, &budget), 9745);
    // A lost try is paid for.
    let mut call = reserve(&limits, &[&budget], priced(exactly(0, 100))).unwrap();
    call.sent();
    call.again();
    call.sent();
    call.refused();
    drop(call);
    assert_eq!(money_left(&limits, &budget), 8745);
    let refused = |ask| reserve(&limits, &[&budget], priced(ask)).unwrap_err();
    assert_eq!(refused(exactly(0, 900)), Code::QuotaExhausted);
    assert_eq!(refused(exactly(0, 1001)), Code::RequestExceedsLimit);
    // A guess fits into what is left, as long as that is enough to begin with.
    assert_eq!(refused(exactly(0, 875)), Code::QuotaExhausted);
    let call = reserve(&limits, &[&budget], priced(guess(0, 1001))).unwrap();
    assert_eq!(money_left(&limits, &budget), 5);
    assert_eq!(refused(guess(0, 1001)), Code::QuotaExhausted);
    drop(call);
    let fresh = money("fresh", 10_000, UnknownModel::Reject);
    assert!(reserve(&limits, &[&fresh], priced(guess(5000, 100_000))).is_ok());
    assert_eq!(money_left(&limits, &budget), 8745);
}

#[test]
fn streams_spend_as_they_go() {
    let limits = Arc::new(Limits::default());
    let budget = cutting(UsageLimit {
        cut: Cut::Finish,
        ..money("budget", 10_000, UnknownModel::Reject)
    });
    let mut stream = reserve(&limits, &[&budget], priced(guess(100, 64))).unwrap();
    stream.sent();
    assert_eq!(money_left(&limits, &budget), 9260);
    assert!(ready(stream.grow(None, 65)).is_ok());
    // 128 tokens of output at a time.
    assert_eq!(money_left(&limits, &budget), 7980);
    assert!(ready(stream.grow(None, 192)).is_ok());
    assert_eq!(money_left(&limits, &budget), 7980);
    assert_eq!(stream.cut(), None);
    let refusal = ready(stream.grow(None, 2000)).unwrap_err();
    assert_eq!(refusal.code, Code::QuotaExhausted);
    assert_eq!(stream.cut(), Some(Cut::Finish));
    stream.used(tokens(None, Some(193)));
    drop(stream);
    assert_eq!(money_left(&limits, &budget), 7970);
}

#[test]
fn what_has_no_price_is_never_free_in_silence() {
    let limits = Arc::new(Limits::default());
    let strict = money("strict", 10_000, UnknownModel::Reject);
    let loose = money("loose", 10_000, UnknownModel::Alert);
    let refused = reserve(&limits, &[&strict], exactly(1, 1)).unwrap_err();
    assert_eq!(refused, Code::PriceUnknown);
    assert!(reserve(&limits, &[&loose], exactly(1, 1)).is_ok());
    // What costs nothing needs no price.
    assert!(reserve(&limits, &[&strict], Ask::default()).is_ok());
    // Nothing is bought from an empty purse.
    let none = money("none", 0, UnknownModel::Alert);
    let refused = reserve(&limits, &[&none], exactly(1, 1)).unwrap_err();
    assert_eq!(refused, Code::QuotaExhausted);
    assert!(none.is_stop());
}

#[test]
fn warns_of_the_highest_threshold() {
    let limits = Arc::new(Limits::default());
    let watched = UsageLimit {
        warn_at: vec![50, 80],
        ..limit("watched", Some(1000), Some(4))
    };
    let warned = |ask| {
        let mut call = reserve(&limits, &[&watched], ask).unwrap();
        let warnings: Vec<_> = call.warnings().map(|warning| warning.at).collect();
        call.sent();
        warnings
    };
    assert_eq!(warned(exactly(100, 0)), [0u8; 0]);
    // Of the requests half.
    assert_eq!(warned(exactly(100, 0)), [50]);
    assert_eq!(warned(exactly(600, 0)), [80]);
    assert_eq!(warned(exactly(1, 0)), [80]);
}

#[test]
fn who_must_wait_long_is_told_with_the_status_that_was_set() {
    let limits = Arc::new(Limits::default());
    let subject = Subject::of(&Principal::Anonymous);
    for (status, expected) in [
        (ExhaustedStatus::PaymentRequired, 402),
        (ExhaustedStatus::Forbidden, 403),
        (ExhaustedStatus::TooManyRequests, 429),
    ] {
        let stop = Arc::new(UsageLimit {
            exhausted_status: status,
            ..limit("stop", Some(0), None)
        });
        let refusal = ready(limits.reserve([&stop], &subject, exactly(1, 1), &mut Vec::new()));
        assert_eq!(refusal.unwrap_err().status(), expected);
    }
}

#[test]
fn estimates_follow_what_is_counted() {
    let estimates = Estimates::default();
    let estimate = estimates.of("agents/openai", "m");
    assert!(Arc::ptr_eq(&estimate, &estimates.of("agents/openai", "m")));
    assert_eq!(estimate.input(4001), 1001);
    assert_eq!(estimate.input(0), 0);
    for _ in 0..100 {
        estimate.learn(1000, 500, Some(100));
    }
    assert!((500..=502).contains(&estimate.input(1000)));
    let usual = estimate.output();
    assert!((64..1024).contains(&usual), "{usual}");
    // No call makes those of others larger than their text can be, whatever it refers to.
    for _ in 0..100 {
        estimate.learn(10, u64::MAX, Some(u64::MAX));
    }
    assert_eq!(estimate.input(1000), 1000);
    assert_eq!(estimate.output(), 8192);
    // Nor so small that they are nothing.
    for _ in 0..100_000 {
        estimate.learn(usize::MAX, 1, Some(0));
    }
    assert!((1 << 13..(1 << 13) + 16).contains(&estimate.input(1 << 16)));
    assert_eq!(estimate.output(), 64);
    // Names beyond the bound share one.
    for number in 0..2000 {
        estimates.of("agents/openai", &number.to_string());
    }
    let (one, other) = (estimates.of("x", "a"), estimates.of("y", "b"));
    assert!(Arc::ptr_eq(&one, &other));
    assert!(!Arc::ptr_eq(&one, &estimates.of("agents/openai", "m")));
}
