//! Statements and ledgers, without a clock of their own.

use waypoint_tests::store::{Reply, Store};

use super::super::ledger::{Ledger, Said};
use super::super::measure::Measure;
use super::super::script::TAKE;

const SECOND: i64 = 1_000_000_000;

/// One statement about a bucket of a calendar period: what the store answers about it.
async fn state(store: &Store, numbers: [u64; 7]) -> Vec<i64> {
    let [seq, keep, want, more, chunk, limit, epoch] = numbers.map(|number| number.to_string());
    let words = [
        "EVAL", TAKE.text, "2", "{t}e", "{t}k", "0", "budget", "p.0", &seq, &keep, &want, &more,
        &chunk, "0", &limit, "0", &epoch, "60000",
    ];
    match store.ask(&words).await {
        Reply::List(list) => list.iter().filter_map(Reply::number).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn statements_that_come_late_or_twice_change_nothing() {
    let store = Store::start().await;
    let taken = state(&store, [1, 0, 40, 0, 0, 100, 0]).await;
    assert_eq!(taken[0], 1);
    assert_eq!(taken[3..], [0, 40, 40, 0]);
    let epoch = taken[2];
    // The answer was lost: the next says more, and counts the difference.
    let more = state(&store, [3, 0, 70, 0, 0, 100, 0]).await;
    assert_eq!((more[0], more[2]), (1, epoch));
    assert_eq!(more[3..], [0, 70, 70, 0]);
    // What was sent in between, on another connection, and what was sent first.
    for seq in [2, 3, 1] {
        let late = state(&store, [seq, 0, 99, 0, 0, 100, 0]).await;
        assert_eq!(late[0], 0);
        assert_eq!(late[3..], [2, 70, 70, 0], "{seq}");
    }
    // Given back; refused, with what is missing; what is kept is kept.
    assert_eq!(
        state(&store, [4, 30, 30, 0, 0, 100, 0]).await[3..],
        [0, 30, 30, 0]
    );
    let refused = state(&store, [5, 30, 130, 0, 0, 100, 0]).await;
    assert_eq!(refused[0], 0);
    assert_eq!(refused[3..], [1, 30, 30, 30]);
    // Who waits gets all there is, what is only wished for a sixteenth of the rest.
    assert_eq!(
        state(&store, [6, 30, 40, 28, 500, 100, 0]).await[3..],
        [0, 70, 70, 0]
    );
    assert_eq!(
        state(&store, [7, 40, 50, 0, 500, 100, 0]).await[3..],
        [0, 53, 53, 0]
    );
    assert_eq!(
        state(&store, [8, 50, 60, 500, 0, 100, 0]).await[3..],
        [0, 100, 100, 0]
    );
    // What is owed is recorded, whatever the limit says.
    assert_eq!(
        state(&store, [9, 250, 250, 0, 0, 100, 0]).await[3..],
        [0, 250, 250, 0]
    );
}

#[tokio::test]
async fn largest_numbers_stay_whole() {
    let store = Store::start().await;
    let most = 10_000_000_000_000;
    let taken = state(&store, [1, 0, most - 1, 0, 0, most, 0]).await;
    assert_eq!(taken[3..6], [0, 9_999_999_999_999, 9_999_999_999_999]);
    let (keep, want) = (most - 1, most);
    assert_eq!(state(&store, [2, keep, want, 0, 0, most, 0]).await[0], 1);
    let refused = state(&store, [3, want, want + 1, 0, 0, most, 0]).await;
    assert_eq!(refused[3..], [1, 10_000_000_000_000, 10_000_000_000_000, 1]);
}

fn said(total: u64, used: u64) -> Said {
    Said {
        total,
        used,
        missing: 0,
    }
}

#[test]
fn what_a_rate_owed_through_an_outage_comes_back() {
    // A unit each millisecond.
    let rate = Measure::Rate {
        limit: 1000,
        window_ns: 1_000_000_000,
        burst: 1000,
    };
    let mut ledger = Ledger::new(rate, 0);
    let cost = ledger.charge(rate.cost(3000), 1, 0);
    // At once all of it is said,
    let statement = ledger.tend(1, SECOND).unwrap();
    assert_eq!(statement.keep, 3_000_000);
    // after two seconds what has not come back,
    let statement = ledger.tend(1, 2 * SECOND).unwrap();
    assert_eq!(statement.keep, 1_000_000);
    // and in the end nothing; that too is said, since nobody knows what the store has taken of what
    // was said before.
    let statement = ledger.tend(1, 5 * SECOND).unwrap();
    assert_eq!((statement.keep, statement.want), (0, 0));
    // A refund does not bring back what has come back by itself.
    ledger.refund(cost, 1, 0, 5 * SECOND);
    assert_eq!(ledger.numbers(), (0, 0));
}

#[test]
fn leases_follow_the_last_second() {
    let budget = Measure::Slots { limit: 1000 };
    let mut ledger = Ledger::new(budget, 0);
    ledger.begin(10);
    let first = ledger.ask(0, 0);
    // Nothing is known yet, so nothing is taken in advance.
    assert_eq!((first.keep, first.want, first.chunk), (0, 10, 0));
    ledger.acknowledge(&said(10, 10), budget, 1, 0);
    ledger.confirm(10);
    assert!(!ledger.take(1));
    ledger.begin(1);
    let second = ledger.ask(5, SECOND / 10);
    assert_eq!((second.want, second.more), (11, 5));
    // Ten in a tenth of a second, of half a second that is looked at.
    assert_eq!(second.chunk, 15);
    ledger.acknowledge(&said(26, 26), budget, 1, SECOND / 10);
    ledger.confirm(1);
    // What came back is lent out again,
    ledger.refund(11, 1, 0, SECOND / 5);
    assert!(ledger.take(11));
    // and goes back when it was not needed for a second.
    ledger.refund(11, 1, 0, SECOND / 5);
    let needed = ledger.tend(1, SECOND / 4).unwrap();
    assert_eq!((needed.keep, needed.want), (11, 11));
    ledger.acknowledge(&said(11, 11), budget, 1, SECOND / 4);
    assert_eq!(ledger.tend(1, SECOND / 2), None);
    let idle = ledger.tend(1, SECOND).unwrap();
    assert_eq!((idle.keep, idle.want), (0, 0));
}

#[test]
fn a_new_epoch_is_told_everything() {
    let budget = Measure::Slots { limit: 100 };
    let mut ledger = Ledger::new(budget, 0);
    ledger.begin(10);
    let _ = ledger.ask(0, 0);
    ledger.acknowledge(&said(10, 10), budget, 1, 0);
    ledger.confirm(10);
    assert_eq!(ledger.tend(1, 1), None);
    let again = ledger.tend(2, 2).unwrap();
    assert_eq!((again.keep, again.want, again.epoch), (10, 10, 1));
}

#[test]
fn slots_are_refreshed() {
    let slots = Measure::Slots { limit: 100 };
    let mut ledger = Ledger::new(slots, 0);
    ledger.begin(1);
    let _ = ledger.ask(0, 0);
    ledger.acknowledge(&said(1, 1), slots, 1, 0);
    ledger.confirm(1);
    assert_eq!(ledger.tend(1, SECOND), None);
    assert!(ledger.tend(1, 6 * SECOND).is_some());
    assert!(!ledger.is_quiet());
}
