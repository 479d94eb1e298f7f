use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::super::{Count, Period, Tokens, UsageLimit, tests::limit};
use super::*;

const NOW: Now = Now {
    monotonic_ns: 1,
    unix_s: 1,
};

fn kinds() -> Kinds {
    Kinds::of(&limit(Vec::new()))
}

/// Enters, and leaves at once.
fn touch(table: &Table, key: &[u8]) -> Result<Slot, NotEntered> {
    let slot = table.enter(table.look(key), kinds(), None)?;
    table.bucket(slot).unwrap().leave();
    Ok(slot)
}

#[test]
fn a_bucket_is_one_line_of_the_cache() {
    assert_eq!(size_of::<Bucket>(), 64);
}

#[test]
fn each_key_has_its_bucket() {
    let table = Table::new(Table::MOST, [1, 2]);
    let mut slots = std::collections::HashSet::new();
    for number in 0..10_000u32 {
        let slot = touch(&table, &number.to_be_bytes()).unwrap();
        assert!(slots.insert((slot.shard, slot.place)), "{number}");
    }
    for number in 0..10_000u32 {
        let slot = touch(&table, &number.to_be_bytes()).unwrap();
        assert!(slots.contains(&(slot.shard, slot.place)), "{number}");
    }
    assert_eq!(table.len(), 10_000);
    // Whoever knows the keys does not know where they are.
    let other = Table::new(Table::MOST, [3, 4]);
    let same = (0..100u32).filter(|number| {
        let key = number.to_be_bytes();
        table.digest(&key) == other.digest(&key)
    });
    assert_eq!(same.count(), 0);
}

/// The cap is reached before any shard is full.
#[test]
fn there_is_room_for_as_many_as_are_promised() {
    let table = Table::new(Table::MOST, [5, 6]);
    for number in 0..Table::MOST {
        touch(&table, &number.to_be_bytes()).unwrap();
    }
    let one_more = touch(&table, b"one more");
    assert_eq!(one_more, Err(NotEntered::Unavailable));
}

#[test]
fn what_cannot_be_counted_is_refused() {
    const MOST: usize = 1000;
    let table = Table::new(MOST, [7, 8]);
    for number in 0..MOST {
        touch(&table, &number.to_be_bytes()).unwrap();
    }
    let one_more = touch(&table, &MOST.to_be_bytes());
    assert_eq!(one_more, Err(NotEntered::Unavailable));
    // Those that are known still are, and what is in use is not forgotten.
    let known = table
        .enter(table.look(&7usize.to_be_bytes()), kinds(), None)
        .unwrap();
    table.sweep(NOW);
    assert_eq!(table.len(), 1);
    let again = touch(&table, &7usize.to_be_bytes());
    assert_eq!(again, Ok(known));
    assert!(touch(&table, &MOST.to_be_bytes()).is_ok());
}

/// Threads enter, use and leave a few buckets while others forget them as fast as they can. There
/// is never more than one bucket of a key, or more calls would run at the same time than may; and
/// none is forgotten with something used in it, or that would be there again.
#[test]
fn buckets_are_forgotten_only_when_nobody_would_miss_them() {
    const KEYS: u32 = 3;
    const MOST: u32 = 2;
    const ROUNDS: u64 = 20_000;
    let table = Table::new(Table::MOST, [9, 10]);
    let limit = UsageLimit {
        tokens: Some(Tokens {
            limit: 1 << 30,
            period: Period::Calendar(super::super::Calendar::Month),
            count: Count::Total,
        }),
        ..limit(Vec::new())
    };
    let kinds = Kinds::of(&limit);
    let meter = limit.tokens.unwrap().meter();
    let running: [AtomicU32; KEYS as usize] = Default::default();
    let kept: [AtomicU64; KEYS as usize] = Default::default();
    let forgotten = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let before = table.len();
                table.sweep(NOW);
                let fewer = before.saturating_sub(table.len());
                forgotten.fetch_add(fewer as u64, Ordering::Relaxed);
            }
        });
        let workers: Vec<_> = (0..3u32)
            .map(|worker| {
                let (table, running, kept) = (&table, &running, &kept);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let key = (worker + u32::try_from(round).unwrap()) % KEYS;
                        let index = key as usize;
                        let looked = table.look(&key.to_be_bytes());
                        let slot = match table.enter(looked, kinds, Some(MOST)) {
                            Ok(slot) => slot,
                            Err(why) => {
                                assert_eq!(why, NotEntered::Full);
                                continue;
                            }
                        };
                        let bucket = table.bucket(slot).unwrap();
                        let others = running[index].fetch_add(1, Ordering::AcqRel);
                        assert!(others < MOST, "{others}");
                        let taken = meter.take(&bucket.tokens, NOW, 100).unwrap();
                        // The last key begins to keep what it used when it has been forgotten often.
                        let uses = match round > ROUNDS / 2 && key == KEYS - 1 {
                            true => round % 3,
                            false => 0,
                        };
                        meter.settle(&bucket.tokens, NOW, taken, uses);
                        kept[index].fetch_add(uses, Ordering::AcqRel);
                        running[index].fetch_sub(1, Ordering::AcqRel);
                        bucket.leave();
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
        let slot = touch(&table, &key.to_be_bytes()).unwrap();
        let bucket = table.bucket(slot).unwrap();
        let kept = i64::try_from(kept.into_inner()).unwrap();
        let remaining = meter.remaining(&bucket.tokens, NOW);
        assert_eq!(remaining, (1 << 30) - kept, "{key}");
        assert_eq!(bucket.users(), 0);
    }
    table.sweep(NOW);
    assert_eq!(table.len(), 1);
}
