//! A store that is down, slow, empty, or forgets.

use super::*;

fn failing(failure: StoreFailure, want: Want<'_>) -> Want<'_> {
    Want { failure, ..want }
}

#[tokio::test]
async fn each_limit_says_what_holds_while_the_store_is_down() {
    let mut store = Store::start().await;
    let three = LimitStore {
        replicas: NonZeroU32::new(3).unwrap(),
        ..settings(&store)
    };
    let process = process(&three).await;
    let limit = month(100);
    process.use_up(tokens(b"share", limit, 40)).await.unwrap();
    process.settled().await;
    store.kill().await;
    process.is_up(false).await;
    let closed = failing(StoreFailure::Closed, tokens(b"closed", limit, 1));
    assert_eq!(process.use_up(closed).await, Err(Why::Unavailable));
    let open = failing(StoreFailure::Open, tokens(b"open", limit, 90));
    assert_eq!(process.use_up(open).await, Ok(()));
    assert_eq!(process.use_up(open).await, Ok(()));
    // A third of the 60 that were left.
    let share = failing(StoreFailure::LocalShare, tokens(b"share", limit, 20));
    assert_eq!(process.use_up(share).await, Ok(()));
    let one = failing(StoreFailure::LocalShare, tokens(b"share", limit, 1));
    assert!(matches!(process.use_up(one).await, Err(Why::Exceeded(_))));
    // One that is refused gives back what it took of others.
    let both = [
        failing(StoreFailure::Open, tokens(b"open", limit, 7)),
        closed,
    ];
    assert_eq!(process.take(&both).await.unwrap_err().index, 1);
    // Slots: a third of six.
    let slot = Want {
        number: Number::Concurrency,
        failure: StoreFailure::LocalShare,
        ..tokens(b"slots", Amount::Slots(6), 1)
    };
    let two = process.take(&[slot, slot]).await.unwrap();
    assert!(process.use_up(slot).await.is_err());
    drop(two);
    // A rate: a third of what comes back.
    let rate = failing(
        StoreFailure::LocalShare,
        tokens(b"rate", window(90, 3600), 30),
    );
    assert_eq!(process.use_up(rate).await, Ok(()));
    assert!(process.use_up(rate).await.is_err());
    store.restart().await;
    process.is_up(true).await;
    process.settled().await;
    let keys = store.keys().await;
    let mut sums = Vec::new();
    for key in keys.iter().filter(|key| key.contains(":month:")) {
        let sum = store.ask(&["HGET", key, "sum"]).await.number().unwrap();
        sums.push(sum);
    }
    sums.sort_unstable();
    // What was open has been counted; what was refused has not.
    assert_eq!(sums, [60, 180]);
    until("it is open again", || async {
        process.use_up(closed).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_lease_is_used_before_anything_fails() {
    let mut store = Store::start().await;
    let process = process(&settings(&store)).await;
    let mut holds = process.take(&[tokens(b"k", month(100), 50)]).await.unwrap();
    store.kill().await;
    process.is_up(false).await;
    holds[0].settle(10);
    assert_eq!(process.use_up(tokens(b"k", month(100), 40)).await, Ok(()));
    let none = process.use_up(tokens(b"k", month(100), 1)).await;
    assert_eq!(none, Err(Why::Unavailable));
}

#[tokio::test]
async fn a_store_that_was_flushed_is_told_again() {
    let store = Store::start().await;
    let (one, two) = (
        process(&settings(&store)).await,
        process(&settings(&store)).await,
    );
    let limit = month(1000);
    one.use_up(tokens(b"k", limit, 300)).await.unwrap();
    two.use_up(tokens(b"k", limit, 400)).await.unwrap();
    one.settled().await;
    two.settled().await;
    until("each knows of the other", || async {
        let all = [&one, &two].map(|it| it.shared.inner.alive.load(Ordering::Relaxed));
        (all == [2, 2]).then_some(())
    })
    .await;
    store.flush().await;
    // Whoever asks next learns of it, and is given nothing until all have said what they had.
    let want = tokens(b"k", limit, 300);
    assert_eq!(one.use_up(want).await, Err(Why::Unavailable));
    until("all have said everything", || async {
        one.use_up(want).await.ok()
    })
    .await;
    assert!(two.use_up(tokens(b"k", limit, 1)).await.is_err());
    one.settled().await;
    two.settled().await;
    assert_eq!(sums(&store).await, (1000, 1000));
}

#[tokio::test]
async fn a_rate_is_told_again_by_whoever_knew_it_last() {
    let mut store = Store::start().await;
    let (one, two) = (
        process(&settings(&store)).await,
        process(&settings(&store)).await,
    );
    let limit = window(1000, 3600);
    one.use_up(tokens(b"k", limit, 600)).await.unwrap();
    two.use_up(tokens(b"k", limit, 300)).await.unwrap();
    one.settled().await;
    two.settled().await;
    store.kill().await;
    one.is_up(false).await;
    two.is_up(false).await;
    store.restart().await;
    // The second knew of both.
    until("all have said everything", || async {
        two.use_up(tokens(b"k", limit, 99)).await.ok()
    })
    .await;
    one.is_up(true).await;
    for process in [&one, &two] {
        let much = process.use_up(tokens(b"k", limit, 3)).await;
        assert!(matches!(much, Err(Why::Exceeded(_))), "{much:?}");
    }
}

#[tokio::test]
async fn a_slow_store_is_down_and_nothing_is_counted_twice() {
    let store = Store::start().await;
    let hasty = LimitStore {
        timeout: Duration::from_millis(50),
        ..settings(&store)
    };
    let process = process(&hasty).await;
    let limit = month(100);
    process.use_up(tokens(b"k", limit, 10)).await.unwrap();
    process.settled().await;
    store.pause().await;
    let began = Instant::now();
    let want = tokens(b"k", limit, 30);
    assert_eq!(process.use_up(want).await, Err(Why::Unavailable));
    // It is not asked again, and nobody waits for it again.
    assert!(!process.shared.inner.link.is_up());
    let failed = process.metrics.failures.get();
    assert_eq!(process.use_up(want).await, Err(Why::Unavailable));
    assert_eq!(process.metrics.failures.get(), failed);
    assert!(began.elapsed() < waypoint_tests::wait::DEADLINE);
    // It carries out what it has been sent, and is told again what was really taken.
    store.resume().await;
    until("the store has what was used", || async {
        (sums(&store).await == (10, 10)).then_some(())
    })
    .await;
    process.is_up(true).await;
    store.pause().await;
    assert_eq!(process.use_up(want).await, Err(Why::Unavailable));
    let open = failing(StoreFailure::Open, tokens(b"k", limit, 5));
    assert_eq!(process.use_up(open).await, Ok(()));
    store.resume().await;
    process.is_up(true).await;
    process.settled().await;
    assert_eq!(sums(&store).await, (15, 15));
}

#[tokio::test]
async fn scripts_and_connections_can_be_lost() {
    let store = Store::start().await;
    let process = process(&settings(&store)).await;
    let limit = month(100);
    process.use_up(tokens(b"k", limit, 10)).await.unwrap();
    store.ask(&["SCRIPT", "FLUSH"]).await;
    process.use_up(tokens(b"k", limit, 50)).await.unwrap();
    process.settled().await;
    store.ask(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    let open = failing(StoreFailure::Open, tokens(b"k", limit, 20));
    assert_eq!(process.use_up(open).await, Ok(()));
    process.is_up(false).await;
    process.is_up(true).await;
    process.settled().await;
    assert_eq!(sums(&store).await, (80, 80));
}

/// Kills and restarts the store while three processes use it. All that is lost in between is stated
/// again by those who used it, so that in the end the store has what was used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_are_exact_after_a_restart() {
    let mut store = Store::start().await;
    let used = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(Arc::new(process(&settings(&store)).await));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for process in &processes {
        for client in 0..4 {
            let (process, used, stop) = (Arc::clone(process), Arc::clone(&used), Arc::clone(&stop));
            tasks.spawn(async move {
                let mut calls: u64 = client;
                while !stop.load(Ordering::Relaxed) {
                    calls += 1;
                    let want = tokens(b"k", month(10_000_000_000_000), 1 + calls % 50);
                    let want = failing(StoreFailure::Open, want);
                    let mut holds = process.take(&[want]).await.unwrap();
                    let spent = calls * 7 % 60;
                    holds[0].settle(spent);
                    used.fetch_add(spent, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            });
        }
    }
    for _ in 0..2 {
        store.kill().await;
        for process in &processes {
            process.is_up(false).await;
        }
        store.restart().await;
        for process in &processes {
            process.is_up(true).await;
        }
        store.flush().await;
    }
    stop.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    until("the store has what was used", || async {
        for process in &processes {
            process.settled().await;
        }
        let used = i64::try_from(used.load(Ordering::Relaxed)).unwrap();
        let keys = store.keys().await;
        let is_there = keys.iter().any(|key| key.contains(":month:"));
        (is_there && sums(&store).await == (used, used)).then_some(())
    })
    .await;
}
