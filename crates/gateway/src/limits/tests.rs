use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use waypoint_policy::limit::{Calendar, Count, Dimension, Period, Requests, Store};
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
        concurrency: None,
        on_exceeded: OnExceeded::Reject,
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
        is_guess: false,
    }
}

fn guess(input: u64, output: u64) -> Ask {
    Ask {
        is_guess: true,
        ..exactly(input, output)
    }
}

fn reserve(limits: &Arc<Limits>, of: &[&UsageLimit], ask: Ask) -> Result<Reservation, Code> {
    let subject = Subject::of(&Principal::Anonymous);
    let mut would_deny = Vec::new();
    let reserved = limits.reserve(of.iter().copied(), &subject, ask, &mut would_deny);
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
    let held = limits.enter(&unlimited, &subject).unwrap();
    held.bucket.leave();
    let tokens = limit.tokens.map(|tokens| tokens.meter());
    let requests = limit.requests.map(|requests| requests.meter());
    (
        tokens.map_or(0, |meter| meter.remaining(&held.bucket.tokens, now)),
        requests.map_or(0, |meter| meter.remaining(&held.bucket.requests, now)),
        held.bucket.users(),
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
                r.used(Some(20), Some(30));
            },
            (950, 9),
        ),
        (
            "used more, and settled before it is dropped",
            |mut r| {
                r.sent();
                r.used(Some(200), Some(1800));
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
                r.used(Some(20), None);
            },
            (780, 9),
        ),
        (
            "nobody counted the input",
            |mut r| {
                r.sent();
                r.used(None, Some(0));
            },
            (900, 9),
        ),
        (
            "lost, and made again",
            |mut r| {
                r.sent();
                r.again();
                r.sent();
                r.used(Some(10), Some(10));
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
                r.used(Some(10), Some(10));
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
    let all = [&wide, &stop, &alone, &small];
    let subject = Subject::of(&Principal::Anonymous);
    let go = |ask| {
        let mut would_deny = Vec::new();
        let reserved = limits.reserve(all, &subject, ask, &mut would_deny);
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
    assert!(first.grow(None, 5000).is_ok());
    assert!(left(&limits, &small).0 < -4000);
    first.used(Some(50), Some(50));
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
    assert!(stream.grow(None, 64).is_ok());
    assert_eq!(left(&limits, &cut).0, 836);
    // A lease at a time, or as many as one event needs.
    assert!(stream.grow(None, 65).is_ok());
    assert_eq!(left(&limits, &cut).0, 708);
    assert!(stream.grow(None, 192).is_ok());
    assert_eq!(left(&limits, &cut).0, 708);
    assert!(stream.grow(None, 400).is_ok());
    assert_eq!(left(&limits, &cut).0, 452);
    // More input than was estimated is more used, and less than that is room.
    assert!(stream.grow(Some(300), 400).is_ok());
    assert_eq!(left(&limits, &cut).0, 196);
    assert!(stream.grow(Some(50), 700).is_ok());
    assert_eq!(left(&limits, &cut).0, 196);
    let refusal = stream.grow(Some(300), 709).unwrap_err();
    assert_eq!(refusal.code, Code::QuotaExhausted);
    assert!(stream.grow(Some(300), u64::MAX).is_err());
    stream.used(Some(300), Some(720));
    drop(stream);
    assert_eq!(left(&limits, &cut), (-20, 0, 0));
    let debt = limit("debt", Some(1000), None);
    let mut stream = reserve(&limits, &[&debt], guess(100, 64)).unwrap();
    assert!(stream.grow(None, 5000).is_ok());
    assert!(left(&limits, &debt).0 <= -4100);
    stream.used(None, Some(500));
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
    other.used(Some(5000), Some(0));
    drop(other);
    assert!(left(&limits, &input).0 < 0);
    assert!(stream.grow(None, 100_000).is_ok());
    assert!(stream.grow(Some(101), 100_000).is_err());
}

#[test]
fn keys_are_bounded_however_long_the_names() {
    let limits = Limits::default();
    let each = UsageLimit {
        per: vec![Dimension::Tool],
        ..limit("each", None, Some(1))
    };
    let names = ["x".repeat(4 << 20), "x".repeat((4 << 20) + 1), "x".into()];
    let enter = |name: &str| {
        let subject = Subject {
            tool: Some(name),
            ..Subject::of(&Principal::Anonymous)
        };
        limits.enter(&each, &subject).unwrap()
    };
    for name in &names {
        let (once, again) = (enter(name), enter(name));
        assert!(Arc::ptr_eq(&once, &again));
    }
    assert_eq!(limits.buckets(), 3);
    assert!(limits.buckets.key_bytes() < 3 * 257);
}

#[test]
fn what_cannot_be_counted_is_refused() {
    const MOST: usize = 1000;
    let buckets = Buckets::of_most(MOST);
    let limit = limit("all", None, Some(1));
    let key = |number: usize| number.to_be_bytes();
    for number in 0..MOST {
        buckets.enter(&key(number), &limit).unwrap().bucket.leave();
    }
    let one_more = buckets.enter(&key(MOST), &limit);
    assert_eq!(one_more.unwrap_err(), NotEntered::Unavailable);
    // Those that are known still are.
    let known = buckets.enter(&key(7), &limit).unwrap();
    buckets.sweep(Limits::default().now());
    assert_eq!(buckets.len(), 1);
    assert!(Arc::ptr_eq(
        &known,
        &buckets.enter(&key(7), &limit).unwrap()
    ));
    assert!(buckets.enter(&key(MOST), &limit).is_ok());
}

/// Threads enter, use and leave a few buckets while others forget them as fast as they can. There
/// is never more than one bucket of a key, or more calls would run at the same time than may; and
/// none is forgotten with something used in it, or that would be there again.
#[test]
fn buckets_are_forgotten_only_when_nobody_would_miss_them() {
    const KEYS: u32 = 3;
    const MOST: u32 = 2;
    const ROUNDS: u64 = 20_000;
    let buckets = Buckets::default();
    let now = Limits::default().now();
    let limit = UsageLimit {
        concurrency: Some(MOST),
        ..limit("all", Some(1 << 30), None)
    };
    let meter = limit.tokens.unwrap().meter();
    let running: [AtomicU32; KEYS as usize] = Default::default();
    let kept: [AtomicU64; KEYS as usize] = Default::default();
    let forgotten = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let before = buckets.len();
                buckets.sweep(now);
                let after = buckets.len();
                let fewer = before.saturating_sub(after);
                forgotten.fetch_add(fewer as u64, Ordering::Relaxed);
            }
        });
        let workers: Vec<_> = (0..3u32)
            .map(|worker| {
                let (buckets, limit, running, kept) = (&buckets, &limit, &running, &kept);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let key = (worker + u32::try_from(round).unwrap()) % KEYS;
                        let index = key as usize;
                        let held = match buckets.enter(&key.to_be_bytes(), limit) {
                            Ok(held) => held,
                            Err(why) => {
                                assert_eq!(why, NotEntered::Full);
                                continue;
                            }
                        };
                        let others = running[index].fetch_add(1, Ordering::AcqRel);
                        assert!(others < MOST, "{others}");
                        let taken = meter.take(&held.bucket.tokens, now, 100).unwrap();
                        // The last key begins to keep what it used when it has been forgotten often.
                        let uses = match round > ROUNDS / 2 && key == KEYS - 1 {
                            true => round % 3,
                            false => 0,
                        };
                        meter.settle(&held.bucket.tokens, now, taken, uses);
                        kept[index].fetch_add(uses, Ordering::AcqRel);
                        running[index].fetch_sub(1, Ordering::AcqRel);
                        held.bucket.leave();
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        done.store(true, Ordering::Release);
        sweeper.join().unwrap();
    });
    assert!(forgotten.into_inner() > 0);
    for (key, kept) in (0..KEYS).zip(kept) {
        let held = buckets.enter(&key.to_be_bytes(), &limit).unwrap();
        let remaining = meter.remaining(&held.bucket.tokens, now);
        let kept = i64::try_from(kept.into_inner()).unwrap();
        assert_eq!(remaining, (1 << 30) - kept, "{key}");
        assert_eq!(held.bucket.users(), 1);
        held.bucket.leave();
    }
    buckets.sweep(now);
    assert_eq!(buckets.len(), 1);
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
    assert!(estimate.input(1 << 16) >= 1);
    assert_eq!(estimate.output(), 64);
    // Names beyond the bound share one.
    for number in 0..2000 {
        estimates.of("agents/openai", &number.to_string());
    }
    let (one, other) = (estimates.of("x", "a"), estimates.of("y", "b"));
    assert!(Arc::ptr_eq(&one, &other));
    assert!(!Arc::ptr_eq(&one, &estimates.of("agents/openai", "m")));
}
