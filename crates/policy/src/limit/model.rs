//! The buckets' atomics under every order that the memory model allows:
//! `make model` builds this with the model checker's own.

use loom::sync::Arc;
use loom::thread;

use super::shard::Shard;
use super::sync::{AtomicU64, AtomicUsize, Ordering};
use super::tests::limit;
use super::*;

const NOW: Now = Now {
    monotonic_ns: 1,
    unix_s: 1,
};

fn budget(limit: u64) -> Meter {
    Meter::new(limit, Period::Calendar(Calendar::Month), None)
}

fn kinds() -> Kinds {
    Kinds::of(&UsageLimit {
        tokens: Some(Tokens {
            limit: 10,
            period: Period::Calendar(Calendar::Month),
            count: Count::Total,
        }),
        ..limit(Vec::new())
    })
}

fn shard() -> Arc<(Shard, AtomicUsize)> {
    Arc::new((Shard::new(2), AtomicUsize::new(0)))
}

/// Enters the bucket of one key.
fn enter(of: &(Shard, AtomicUsize), word: u64, most: Option<u32>) -> Result<usize, NotEntered> {
    let (shard, len) = of;
    let digest = Digest::new([word, 7]);
    let seen = shard.look(digest);
    shard.enter((digest, seen), (kinds(), most), (len, 2))
}

/// Two calls take, use less, and settle: what is left is what nobody used, and it was never
/// overdrawn.
#[test]
fn settling_loses_nothing() {
    for meter in [
        budget(10),
        Meter::new(10, Period::Window(std::time::Duration::from_secs(10)), None),
    ] {
        loom::model(move || {
            let word = Arc::new(AtomicU64::new(0));
            let call = |used: u64| {
                let word = Arc::clone(&word);
                move || {
                    let Ok(taken) = meter.take(&word, NOW, 6) else {
                        return 0;
                    };
                    assert!(meter.remaining(&word, NOW) >= 0);
                    meter.settle(&word, NOW, taken, used);
                    used
                }
            };
            let other = thread::spawn(call(2));
            let spent = call(3)() + other.join().unwrap();
            assert!(spent > 0);
            let left = i64::try_from(10 - spent).unwrap();
            assert_eq!(meter.remaining(&word, NOW), left);
        });
    }
}

/// A stream goes into debt while a call settles.
#[test]
fn debts_add_up() {
    loom::model(|| {
        let (meter, word) = (budget(10), Arc::new(AtomicU64::new(0)));
        let other = thread::spawn({
            let word = Arc::clone(&word);
            move || meter.charge(&word, NOW, 9).units
        });
        let taken = meter.take(&word, NOW, 5);
        let used = taken.map_or(0, |taken| {
            meter.settle(&word, NOW, taken, 1);
            1
        });
        assert_eq!(other.join().unwrap(), 9);
        assert_eq!(meter.remaining(&word, NOW), 10 - 9 - used);
    });
}

/// A key that two look for at once has one bucket.
#[test]
fn a_key_has_one_bucket() {
    loom::model(|| {
        let of = shard();
        let other = thread::spawn({
            let of = Arc::clone(&of);
            move || enter(&of, 1, Some(1))
        });
        let mine = enter(&of, 1, Some(1));
        let theirs = other.join().unwrap();
        let entered = [mine, theirs]
            .iter()
            .filter(|entered| entered.is_ok())
            .count();
        assert_eq!(entered, 1, "{mine:?} {theirs:?}");
        assert_eq!(of.1.load(Ordering::Acquire), 1);
    });
}

/// A bucket is used while it is swept: what was used in it stays, and whoever enters has it for
/// itself.
#[test]
fn what_is_used_is_not_forgotten() {
    loom::model(|| {
        let of = shard();
        let meter = budget(10);
        let place = enter(&of, 1, None).unwrap();
        of.0.get(place).unwrap().leave();
        let sweeper = thread::spawn({
            let of = Arc::clone(&of);
            move || of.0.sweep(NOW, &of.1)
        });
        let place = enter(&of, 1, Some(1)).unwrap();
        let bucket = of.0.get(place).unwrap();
        let taken = meter.take(&bucket.tokens, NOW, 4).unwrap();
        meter.settle(&bucket.tokens, NOW, taken, 3);
        bucket.leave();
        sweeper.join().unwrap();
        let place = enter(&of, 1, None).unwrap();
        let left = meter.remaining(&of.0.get(place).unwrap().tokens, NOW);
        assert_eq!(left, 7);
        assert_eq!(of.1.load(Ordering::Acquire), 1);
    });
}

/// A bucket is swept and becomes another's while somebody looks for the first: nobody counts in a
/// bucket that is not its own.
#[test]
fn nobody_counts_for_another() {
    loom::model(|| {
        // With room for one.
        let of = Arc::new((Shard::new(1), AtomicUsize::new(0)));
        let meter = budget(10);
        let place = enter(&of, 1, None).unwrap();
        of.0.get(place).unwrap().leave();
        let other = thread::spawn({
            let of = Arc::clone(&of);
            move || {
                of.0.sweep(NOW, &of.1);
                enter(&of, 2, None).is_ok()
            }
        });
        let mine = enter(&of, 1, None).is_ok_and(|place| {
            let bucket = of.0.get(place).unwrap();
            let _taken = meter.take(&bucket.tokens, NOW, 4).unwrap();
            bucket.leave();
            true
        });
        // What the first has used keeps its bucket from being forgotten.
        let theirs = other.join().unwrap();
        assert!(mine != theirs, "{mine} {theirs}");
        let left = meter.remaining(&of.0.get(0).unwrap().tokens, NOW);
        assert_eq!(left, if mine { 6 } else { 10 });
    });
}
