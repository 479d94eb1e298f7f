use std::time::Duration;

use proptest::prelude::*;

use super::sync::{AtomicU64, Ordering};
use super::*;
use crate::{Caller, LlmBlock, Principal};

fn at(seconds: f64) -> Now {
    #[expect(clippy::cast_possible_truncation, reason = "small numbers of tests")]
    let monotonic_ns = (seconds * 1e9) as i64;
    Now {
        monotonic_ns,
        unix_s: monotonic_ns.unsigned_abs() / 1_000_000_000,
    }
}

fn rate(limit: u64, seconds: u64) -> Meter {
    Meter::new(limit, Period::Window(Duration::from_secs(seconds)), None)
}

#[test]
fn debt_is_waited_for() {
    // 10,000 a second, as worked through by hand.
    let (meter, word) = (rate(10_000, 1), AtomicU64::new(0));
    let first = meter.take(&word, at(1.0), 9000).unwrap();
    assert_eq!(first.units, 9000);
    assert_eq!(
        meter.take(&word, at(1.0), 2000),
        Err(Exceeded::For(Duration::from_millis(100)))
    );
    let _owed = meter.charge(&word, at(1.0), 4000);
    assert_eq!(meter.remaining(&word, at(1.0)), -3000);
    assert_eq!(
        meter.take(&word, at(1.0), 1),
        Err(Exceeded::For(Duration::from_nanos(300_100_000)))
    );
    // What was not used of the first comes back.
    meter.settle(&word, at(1.0), first, 0);
    assert_eq!(meter.remaining(&word, at(1.0)), 6000);
    assert_eq!(meter.take(&word, at(1.0), 10_001), Err(Exceeded::Forever));
    assert_eq!(meter.remaining(&word, at(1.5)), 10_000);
}

#[test]
fn a_burst_of_centuries_is_not_endless() {
    // 10,000 at once, each of which takes 31 days to come back: more than a word of time holds.
    let period = Period::Window(Duration::from_secs(31 * 86_400));
    let meter = Meter::new(1, period, NonZeroU64::new(10_000));
    let word = AtomicU64::new(0);
    let taken = (0..20_000).filter(|_| meter.take(&word, at(1.0), 1).is_ok());
    let taken = taken.count();
    assert!((3000..=10_000).contains(&taken), "{taken}");
    assert!(meter.take(&word, at(1.0), 10_000).is_err());
    // Nor does debt without bound turn into room.
    let _owed = meter.charge(&word, at(2.0), u64::MAX);
    assert!(meter.take(&word, at(3.0), 1).is_err());
    assert!(meter.remaining(&word, at(3.0)) <= 0);
}

#[test]
fn the_largest_amounts_are_counted() {
    const MOST: u64 = 10_000_000_000_000;
    for seconds in [1, 31 * 86_400] {
        let (meter, word) = (rate(MOST, seconds), AtomicU64::new(0));
        let all = meter.take(&word, at(1.0), MOST).unwrap();
        assert!(meter.take(&word, at(1.0), 1_000_000).is_err());
        assert_eq!(meter.reset(&word, at(1.0)), Duration::from_secs(seconds));
        meter.settle(&word, at(1.0), all, 0);
        assert_eq!(meter.remaining(&word, at(1.0)), 10_000_000_000_000);
        assert_eq!(meter.take(&word, at(1.0), MOST + 1), Err(Exceeded::Forever));
    }
}

#[test]
fn nothing_fits_into_nothing() {
    for period in [
        Period::Window(Duration::from_secs(1)),
        Period::Calendar(Calendar::Day),
    ] {
        let (meter, word) = (Meter::new(0, period, None), AtomicU64::new(0));
        for units in [0, 1] {
            let taken = meter.take(&word, at(5.0), units);
            assert_eq!(taken, Err(Exceeded::Forever), "{period:?}");
        }
        assert_eq!(meter.capacity(), 0);
        assert_eq!(meter.remaining(&word, at(5.0)), 0);
    }
}

#[test]
fn a_burst_is_less_than_the_window() {
    let window = Period::Window(Duration::from_secs(60));
    let meter = Meter::new(60, window, NonZeroU64::new(10));
    let word = AtomicU64::new(0);
    let taken = (0..100).filter(|_| meter.take(&word, at(100.0), 1).is_ok());
    assert_eq!(taken.count(), 10);
    assert_eq!(
        meter.take(&word, at(100.0), 1),
        Err(Exceeded::For(Duration::from_secs(1)))
    );
    let later = (0..100).filter(|_| meter.take(&word, at(103.0), 1).is_ok());
    assert_eq!(later.count(), 3);
}

#[test]
fn budgets_begin_anew() {
    const DAY: f64 = 86_400.0;
    let meter = Meter::new(100, Period::Calendar(Calendar::Day), None);
    let word = AtomicU64::new(0);
    let morning = meter.take(&word, at(10.0 * DAY), 80).unwrap();
    assert_eq!(
        meter.take(&word, at(10.5 * DAY), 30),
        Err(Exceeded::For(Duration::from_secs(43_200)))
    );
    assert_eq!(
        meter.take(&word, at(10.5 * DAY), 101),
        Err(Exceeded::Forever)
    );
    // What a period was charged for a call stays there; what the call used beyond it is owed now.
    meter.settle(&word, at(11.0 * DAY), morning, 95);
    assert_eq!(meter.remaining(&word, at(11.0 * DAY)), 85);
    // What it did not use is lost with its period.
    let evening = meter.take(&word, at(11.0 * DAY), 50).unwrap();
    meter.settle(&word, at(12.0 * DAY), evening, 0);
    assert_eq!(meter.remaining(&word, at(12.0 * DAY)), 100);
    // A clock that is set back brings nothing back.
    let _taken = meter.take(&word, at(12.0 * DAY), 100).unwrap();
    assert!(meter.take(&word, at(11.5 * DAY), 1).is_err());
    assert_eq!(
        meter.reset(&word, at(12.25 * DAY)),
        Duration::from_secs(64_800)
    );
}

#[test]
fn calendars_know_their_periods() {
    // 2024-02-29T12:34:56Z was a Thursday.
    let now = Now {
        monotonic_ns: 0,
        unix_s: 1_709_210_096,
    };
    let left = |calendar| {
        let meter = Meter::new(1, Period::Calendar(calendar), None);
        meter.reset(&AtomicU64::new(0), now).as_secs()
    };
    assert_eq!(left(Calendar::Hour), 25 * 60 + 4);
    assert_eq!(left(Calendar::Day), 11 * 3600 + 25 * 60 + 4);
    assert_eq!(left(Calendar::Week), (3 * 24 + 11) * 3600 + 25 * 60 + 4);
    // The last day of its month, in a leap year.
    assert_eq!(left(Calendar::Month), 11 * 3600 + 25 * 60 + 4);
    // 2026-12-31T23:59:59Z.
    let eve = Now {
        monotonic_ns: 0,
        unix_s: 1_798_761_599,
    };
    for calendar in [Calendar::Hour, Calendar::Day, Calendar::Month] {
        let meter = Meter::new(1, Period::Calendar(calendar), None);
        assert_eq!(meter.reset(&AtomicU64::new(0), eve).as_secs(), 1);
    }
}

#[test]
fn a_full_bucket_may_be_forgotten() {
    let (meter, word) = (rate(10, 10), AtomicU64::new(0));
    let is_unused = |word: &AtomicU64, now| {
        let bits = word.load(Ordering::Acquire);
        super::meter::is_unused(1, bits, now)
    };
    assert!(is_unused(&word, at(0.0)));
    let _taken = meter.take(&word, at(1.0), 5).unwrap();
    assert!(!is_unused(&word, at(5.9)));
    assert!(is_unused(&word, at(6.0)));
    let bucket = Bucket::free();
    assert_eq!(bucket.enter(None), Entry::Retired);
    bucket.claim(Digest::new([7, 8]), Kinds::of(&limit(Vec::new())));
    assert_eq!(bucket.enter(Some(1)), Entry::Full);
    assert_eq!(bucket.users(), 1);
    assert!(!bucket.retire());
    bucket.leave();
    assert!(bucket.retire());
    assert_eq!(bucket.enter(None), Entry::Retired);
    bucket.restore();
    assert_eq!(bucket.enter(None), Entry::Entered);
}

pub(super) fn limit(per: Vec<Dimension>) -> UsageLimit {
    UsageLimit {
        name: ObjectName::new("agents", "tokens"),
        targets: Vec::new(),
        mode: Mode::Enforce,
        rule: Rule {
            name: "tokens".into(),
            from: None::<Vec<Caller>>,
            llm: vec![LlmBlock::default()],
            mcp: Vec::new(),
            http: Vec::new(),
        },
        per,
        tokens: Some(Tokens {
            limit: 10,
            period: Period::Window(Duration::from_secs(1)),
            count: Count::Total,
        }),
        requests: None,
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

#[test]
fn says_how_much_is_used() {
    let (meter, word) = (rate(200, 10), AtomicU64::new(0));
    let percent = || meter.used_percent(&word, at(0.0));
    assert_eq!(percent(), 0);
    let _taken = meter.take(&word, at(0.0), 159).unwrap();
    assert_eq!(percent(), 79);
    let _taken = meter.take(&word, at(0.0), 1).unwrap();
    assert_eq!(percent(), 80);
    let _owed = meter.charge(&word, at(0.0), 1000);
    assert_eq!(percent(), 100);
    let nothing = rate(0, 10);
    assert_eq!(nothing.used_percent(&AtomicU64::new(0), at(0.0)), 100);
}

#[test]
fn keys_differ_where_dimensions_do() {
    let principal = |name: &str| {
        let id = format!("spiffe://cluster.local/ns/agents/sa/{name}");
        Principal::from(id.parse::<crate::SpiffeId>().unwrap())
    };
    let (a, b) = (principal("a"), principal("b"));
    let all = limit(Vec::new());
    let key = |limit: &UsageLimit, subject: &Subject<'_>| bucket_key(limit, subject);
    assert_eq!(key(&all, &Subject::of(&a)), key(&all, &Subject::of(&b)));
    let each = limit(vec![Dimension::Principal, Dimension::Model]);
    assert_ne!(key(&each, &Subject::of(&a)), key(&each, &Subject::of(&b)));
    let of = |model| Subject {
        model,
        ..Subject::of(&a)
    };
    // A missing value is a value of its own, and not the empty one.
    assert_ne!(key(&each, &of(None)), key(&each, &of(Some(""))));
    assert_ne!(key(&each, &of(Some("x"))), key(&each, &of(Some("y"))));
    let two = limit(vec![Dimension::Model, Dimension::Tool]);
    let with = |model, tool| {
        let subject = Subject {
            model: Some(model),
            tool: Some(tool),
            ..Subject::of(&a)
        };
        key(&two, &subject)
    };
    // No text slips from one value into the next.
    assert_ne!(with("ab", "c"), with("a", "bc"));
    let space = limit(vec![Dimension::Namespace]);
    assert_eq!(key(&space, &Subject::of(&a)), key(&space, &Subject::of(&b)));
    // Another number keeps the bucket; another period does not.
    let mut more = each.clone();
    more.tokens.as_mut().unwrap().limit = 20;
    assert_eq!(key(&each, &Subject::of(&a)), key(&more, &Subject::of(&a)));
    more.tokens.as_mut().unwrap().period = Period::Calendar(Calendar::Hour);
    assert_ne!(key(&each, &Subject::of(&a)), key(&more, &Subject::of(&a)));
}

/// What happens to a bucket.
#[derive(Debug, Clone, Copy)]
enum Step {
    Wait(u32),
    Take(u64),
    Charge(u64),
    /// One of what is held, and what it used.
    Settle(prop::sample::Index, u64),
}

fn steps(most: u64) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..2_000_000_000u32).prop_map(Step::Wait),
        (0..most).prop_map(Step::Take),
        (0..most).prop_map(Step::Charge),
        (any::<prop::sample::Index>(), 0..most).prop_map(|(which, used)| Step::Settle(which, used)),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// A bucket as the documents describe it: a level in exact fractions that refills with time,
    /// up to its size. The meter never allows what that would not, and never differs by more than
    /// the nanosecond that each step is rounded by.
    #[test]
    fn a_rate_is_a_bucket_that_refills(
        limit in 1..100_000u64,
        window_s in 1..100u64,
        steps in steps(120_000),
    ) {
        let meter = rate(limit, window_s);
        let word = AtomicU64::new(0);
        let window = i128::from(window_s) * 1_000_000_000;
        let size = i128::from(limit) * window;
        // In units of 1 / window tokens.
        let mut level = size;
        let mut now = at(1.0);
        let mut held: Vec<Taken> = Vec::new();
        let mut operations = 0;
        for step in steps {
            // A nanosecond is worth `limit` of these units.
            let slack = i128::from(limit) * (2 * operations + 2);
            match step {
                Step::Wait(ns) => {
                    now.monotonic_ns += i64::from(ns);
                    level = (level + i128::from(ns) * i128::from(limit)).min(size);
                }
                Step::Take(units) => {
                    let cost = i128::from(units) * window;
                    match meter.take(&word, now, units) {
                        Ok(taken) => {
                            prop_assert!(cost <= level + slack, "allowed {units} at {level}");
                            level -= cost;
                            held.push(taken);
                        }
                        Err(Exceeded::Forever) => prop_assert!(cost > size),
                        Err(Exceeded::For(wait)) => {
                            prop_assert!(cost > level - slack, "refused {units} at {level}");
                            let wait = i128::try_from(wait.as_nanos()).unwrap();
                            let then = (level + wait * i128::from(limit)).min(size);
                            prop_assert!(cost <= then + slack, "too early");
                        }
                    }
                    operations += 1;
                }
                Step::Charge(units) => {
                    let _owed = meter.charge(&word, now, units);
                    level -= i128::from(units) * window;
                    operations += 1;
                }
                Step::Settle(which, used) => {
                    if !held.is_empty() {
                        let taken = held.swap_remove(which.index(held.len()));
                        meter.settle(&word, now, taken, used);
                        let back = i128::from(taken.units) - i128::from(used);
                        level = (level + back * window).min(size);
                        operations += 1;
                    }
                }
            }
            let units = i64::try_from(level.div_euclid(window)).unwrap();
            let tolerance = i64::try_from(slack / window + 1).unwrap();
            let remaining = meter.remaining(&word, now);
            prop_assert!((remaining - units).abs() <= tolerance, "{remaining} for {units}");
        }
    }

    /// What is left of a budget is the limit less all that was taken, settled and charged.
    #[test]
    fn a_budget_adds_up(limit in 1..100_000u64, steps in steps(50_000)) {
        let meter = Meter::new(limit, Period::Calendar(Calendar::Month), None);
        let word = AtomicU64::new(0);
        let now = at(1e9);
        let (mut used, mut held) = (0i64, Vec::<Taken>::new());
        let signed = |units: u64| i64::try_from(units).unwrap();
        for step in steps {
            match step {
                Step::Wait(_) => {}
                Step::Take(units) => match meter.take(&word, now, units) {
                    Ok(taken) => {
                        used += signed(units);
                        prop_assert!(used <= signed(limit));
                        held.push(taken);
                    }
                    Err(_) => prop_assert!(used + signed(units) > signed(limit)),
                },
                Step::Charge(units) => {
                    let _owed = meter.charge(&word, now, units);
                    used += signed(units);
                }
                Step::Settle(which, really) => {
                    if !held.is_empty() {
                        let taken = held.swap_remove(which.index(held.len()));
                        meter.settle(&word, now, taken, really);
                        used += signed(really) - signed(taken.units);
                    }
                }
            }
            prop_assert_eq!(meter.remaining(&word, now), signed(limit) - used);
        }
    }
}

/// Threads take and settle as fast as they can; nothing is lost, and nothing is there twice.
#[test]
fn threads_do_not_overdraw() {
    let meter = Meter::new(10_000, Period::Calendar(Calendar::Month), None);
    let word = AtomicU64::new(0);
    let spent = AtomicU64::new(0);
    let now = at(1e9);
    std::thread::scope(|scope| {
        for seed in 0..4u64 {
            let (word, spent) = (&word, &spent);
            scope.spawn(move || {
                let mut random = seed * 7919 + 1;
                for _ in 0..5000 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let units = (random >> 33) % 20;
                    let Ok(taken) = meter.take(word, now, units) else {
                        continue;
                    };
                    let used = (random >> 45) % (units + 1);
                    meter.settle(word, now, taken, used);
                    spent.fetch_add(used, Ordering::Relaxed);
                }
            });
        }
    });
    let spent = i64::try_from(spent.load(Ordering::Relaxed)).unwrap();
    assert!(spent <= 10_000);
    assert!(spent > 9_900, "{spent}");
    assert_eq!(meter.remaining(&word, now), 10_000 - spent);
}
