//! Against a real server.

mod faults;
mod keys;
mod ledgers;

use std::num::NonZeroU32;

use prometheus::{IntCounter, IntGaugeVec, Opts};
use waypoint_config::{Address, Credential, Endpoint};
use waypoint_policy::limit::{Calendar, Period};
use waypoint_tests::store::Store;
use waypoint_tests::wait::until;

use super::*;

/// What a test asks of a store, and how it is counted.
struct Process {
    shared: Shared,
    metrics: StoreMetrics,
}

fn metrics() -> StoreMetrics {
    StoreMetrics {
        up: IntGaugeVec::new(Opts::new("up", "up"), &[]).unwrap(),
        round_trips: IntCounter::new("round_trips", "round trips").unwrap(),
        failures: IntCounter::new("failures", "failures").unwrap(),
    }
}

fn settings(store: &Store) -> LimitStore {
    LimitStore {
        endpoint: Endpoint {
            tls: None,
            host: "127.0.0.1".into(),
            port: store.port,
            prefix: String::new(),
            address: Address::Fixed(vec![store.address()]),
            private: true,
            http2: false,
        },
        database: 0,
        // Machines that run tests are slow at times.
        timeout: Duration::from_secs(2),
        replicas: NonZeroU32::MIN,
        username: None,
        credential: Credential::None,
    }
}

/// A process that is connected.
async fn process(settings: &LimitStore) -> Process {
    let metrics = metrics();
    let gateway = ObjectName::new("agents", "wp");
    let connector = Arc::new(Connector::new());
    let shared = Shared::new(settings, &gateway, connector, metrics.clone());
    let process = Process { shared, metrics };
    process.is_up(true).await;
    process
}

impl Process {
    async fn is_up(&self, is_up: bool) {
        until("the store is seen to be up or down", || async {
            (self.shared.inner.link.is_up() == is_up).then_some(())
        })
        .await;
    }

    async fn take(&self, wants: &[Want<'_>]) -> Result<SmallVec<[Hold; 2]>, NotTaken> {
        self.shared.take(wants).await
    }

    /// One call that uses what it takes.
    async fn use_up(&self, want: Want<'_>) -> Result<(), Why> {
        let taken = self.take(&[want]).await;
        taken.map(drop).map_err(|not| not.why)
    }

    /// Gives back what is not used, and says what is owed.
    async fn settled(&self) {
        until("all is said", || async {
            self.shared.close().await;
            let mut accounts = self.shared.inner.accounts.iter();
            let is_said = |account: &Arc<Account>| {
                let (used, granted) = account.ledger().numbers();
                used == granted
            };
            let all = accounts.all(|shard| shard.lock().unwrap().values().all(is_said));
            all.then_some(())
        })
        .await;
    }
}

fn month(limit: u64) -> Amount {
    let calendar = Period::Calendar(Calendar::Month);
    Amount::Meter(Meter::new(limit, calendar, None))
}

fn window(limit: u64, seconds: u64) -> Amount {
    let window = Period::Window(Duration::from_secs(seconds));
    Amount::Meter(Meter::new(limit, window, None))
}

fn tokens(key: &[u8], amount: Amount, units: u64) -> Want<'_> {
    Want {
        key,
        number: Number::Tokens,
        amount,
        units,
        failure: StoreFailure::Closed,
    }
}

/// The sum that the store has for the only bucket of a calendar period, and that of its ledgers.
async fn sums(store: &Store) -> (i64, i64) {
    let keys = store.keys().await;
    let mut keys = keys.iter().filter(|key| key.contains(":month:"));
    let (key, None) = (keys.next().unwrap(), keys.next()) else {
        panic!("several buckets");
    };
    let mut sum = 0;
    let mut of_ledgers = 0;
    for (field, value) in store.hash(key).await {
        match field.as_str() {
            "sum" => sum = value.parse().unwrap(),
            _ => of_ledgers += value.split(' ').next().unwrap().parse::<i64>().unwrap(),
        }
    }
    (sum, of_ledgers)
}

#[tokio::test]
async fn what_is_used_is_what_the_store_has() {
    let store = Store::start().await;
    let (one, two) = (
        process(&settings(&store)).await,
        process(&settings(&store)).await,
    );
    let limit = month(1000);
    // Each takes 300 and uses 120, less and more than it took in turn.
    let mut holds = one.take(&[tokens(b"k", limit, 300)]).await.unwrap();
    assert_eq!(holds[0].left().remaining, 700);
    holds[0].settle(20);
    assert_eq!(holds[0].left().remaining, 980);
    let mut more = two.take(&[tokens(b"k", limit, 10)]).await.unwrap();
    more[0].grow(90).await.unwrap();
    assert_eq!(more[0].units(), 100);
    more[0].charge(50);
    more[0].settle(160);
    drop((holds, more));
    one.settled().await;
    two.settled().await;
    assert_eq!(sums(&store).await, (180, 180));
    // What is left is admitted to the last unit, and no more.
    assert_eq!(one.use_up(tokens(b"k", limit, 820)).await, Ok(()));
    let refused = two.use_up(tokens(b"k", limit, 1)).await.unwrap_err();
    let Why::Exceeded(Exceeded::For(wait)) = refused else {
        panic!("{refused:?}");
    };
    assert!(wait <= Duration::from_secs(31 * 86_400), "{wait:?}");
    let forever = two.use_up(tokens(b"k", limit, 1001)).await;
    assert_eq!(forever, Err(Why::Exceeded(Exceeded::Forever)));
}

#[tokio::test]
async fn all_or_nothing() {
    let store = Store::start().await;
    let process = process(&settings(&store)).await;
    let (wide, narrow) = (month(1000), month(10));
    let wants = [tokens(b"wide", wide, 20), tokens(b"narrow", narrow, 6)];
    let first = process.take(&wants).await.unwrap();
    let second = process.take(&wants).await.unwrap_err();
    assert_eq!(second.index, 1);
    assert_eq!(second.left.remaining, 4);
    let left = first[0].left();
    assert_eq!((left.limit, left.remaining), (1000, 980));
    // The same bucket twice in one call is one bucket.
    let twice = [tokens(b"narrow", narrow, 3), tokens(b"narrow", narrow, 3)];
    let refused = process.take(&twice).await.unwrap_err();
    assert_eq!(refused.index, 0);
    let twice = [tokens(b"narrow", narrow, 2), tokens(b"narrow", narrow, 2)];
    assert_eq!(process.take(&twice).await.unwrap().len(), 2);
    assert!(process.use_up(tokens(b"narrow", narrow, 1)).await.is_err());
}

#[tokio::test]
async fn a_call_that_is_dropped_while_it_waits_takes_nothing() {
    let store = Store::start().await;
    let process = process(&settings(&store)).await;
    let limit = month(100);
    process.use_up(tokens(b"k", limit, 1)).await.unwrap();
    process.settled().await;
    store.pause().await;
    let wants = [tokens(b"k", limit, 60)];
    let mut waits = Box::pin(process.take(&wants));
    assert!(futures_poll(&mut waits).await.is_none());
    drop(waits);
    store.resume().await;
    assert_eq!(process.use_up(tokens(b"k", limit, 99)).await, Ok(()));
    process.settled().await;
    assert_eq!(sums(&store).await, (100, 100));
}

/// Looks at a future a few times without waiting for it.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    for _ in 0..10 {
        let polled = std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context))
        });
        if let std::task::Poll::Ready(output) = polled.await {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test]
async fn rates_come_back_and_are_shared() {
    let store = Store::start().await;
    let (one, two) = (
        process(&settings(&store)).await,
        process(&settings(&store)).await,
    );
    // A unit in 36 s: what comes back during the test is less than one.
    let limit = window(100, 3600);
    let mut holds = one.take(&[tokens(b"k", limit, 60)]).await.unwrap();
    assert_eq!(two.use_up(tokens(b"k", limit, 40)).await, Ok(()));
    let refused = two.use_up(tokens(b"k", limit, 1)).await.unwrap_err();
    let Why::Exceeded(Exceeded::For(wait)) = refused else {
        panic!("{refused:?}");
    };
    assert!(wait <= Duration::from_secs(36), "{wait:?}");
    // What is given back can be used by the other.
    holds[0].settle(10);
    one.settled().await;
    assert_eq!(two.use_up(tokens(b"k", limit, 50)).await, Ok(()));
    assert!(two.use_up(tokens(b"k", limit, 2)).await.is_err());
    // Debts too are shared.
    holds[0].charge(100);
    one.settled().await;
    let refused = two.use_up(tokens(b"k", limit, 1)).await.unwrap_err();
    let Why::Exceeded(Exceeded::For(wait)) = refused else {
        panic!("{refused:?}");
    };
    assert!(wait > Duration::from_secs(3000), "{wait:?}");
}

#[tokio::test]
async fn slots_come_back_when_they_are_dropped() {
    let store = Store::start().await;
    let (one, two) = (
        process(&settings(&store)).await,
        process(&settings(&store)).await,
    );
    let slot = Want {
        number: Number::Concurrency,
        ..tokens(b"k", Amount::Slots(2), 1)
    };
    let first = one.take(&[slot]).await.unwrap();
    let second = two.take(&[slot]).await.unwrap();
    let full = Err(Why::Exceeded(Exceeded::For(CONCURRENCY_WAIT)));
    assert_eq!(one.use_up(slot).await, full);
    assert_eq!(two.use_up(slot).await, full);
    drop(first);
    one.settled().await;
    // It is the other's now.
    let third = two.take(&[slot]).await.unwrap();
    assert_eq!(one.use_up(slot).await, full);
    drop((second, third));
    two.settled().await;
    assert_eq!(one.use_up(slot).await, Ok(()));
}

#[tokio::test]
async fn most_calls_ask_nobody() {
    let store = Store::start().await;
    let process = process(&settings(&store)).await;
    let limit = month(1_000_000);
    let before = process.metrics.round_trips.get();
    for _ in 0..2000 {
        process.use_up(tokens(b"k", limit, 1)).await.unwrap();
    }
    let asked = process.metrics.round_trips.get() - before;
    assert!(asked < 200, "{asked}");
    process.settled().await;
    assert_eq!(sums(&store).await, (2000, 2000));
}

/// Several processes that do everything at once: nothing is admitted beyond the limit, and what the
/// store has in the end is what was used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_are_exact_whatever_is_interleaved() {
    const LIMIT: u64 = 20_000;
    let store = Store::start().await;
    let used = Arc::new(AtomicU64::new(0));
    let owed = Arc::new(AtomicU64::new(0));
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(Arc::new(process(&settings(&store)).await));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (number, process) in processes.iter().enumerate() {
        for client in 0..8 {
            let process = Arc::clone(process);
            let (used, owed) = (Arc::clone(&used), Arc::clone(&owed));
            let mut seed = u64::try_from(number * 100 + client).unwrap() + 1;
            tasks.spawn(async move {
                let mut refused = 0;
                for _ in 0..100 {
                    // A small generator, so that a failure can be played again.
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let dice = seed >> 33;
                    let want = tokens(b"k", month(LIMIT), 1 + dice % 40);
                    let Ok(mut holds) = process.take(&[want]).await else {
                        refused += 1;
                        continue;
                    };
                    let hold = &mut holds[0];
                    if dice % 5 == 0 && hold.grow(dice % 30).await.is_err() {
                        refused += 1;
                    }
                    let held = hold.units();
                    let spent = match dice % 4 {
                        0 => held,
                        1 => held + dice % 7,
                        _ => dice % (held + 1),
                    };
                    owed.fetch_add(spent.saturating_sub(held), Ordering::Relaxed);
                    used.fetch_add(spent, Ordering::Relaxed);
                    hold.settle(spent);
                    if dice % 3 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                refused
            });
        }
    }
    let refused: u64 = tasks.join_all().await.into_iter().sum();
    assert!(refused > 0, "the limit was never reached");
    for process in &processes {
        process.settled().await;
    }
    let used = used.load(Ordering::Relaxed);
    assert!(used <= LIMIT + owed.load(Ordering::Relaxed), "{used}");
    assert!(used > LIMIT / 2, "{used}");
    let used = i64::try_from(used).unwrap();
    assert_eq!(sums(&store).await, (used, used));
}

/// Three processes that take all they can of a rate, whose store is killed and restarted in the
/// middle: no more is admitted than the bucket had and what came back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rates_admit_no_more_than_comes_back() {
    const BURST: u64 = 2000;
    let mut store = Store::start().await;
    let began = Instant::now();
    let admitted = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(Arc::new(process(&settings(&store)).await));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for process in &processes {
        for _ in 0..3 {
            let process = Arc::clone(process);
            let (admitted, stop) = (Arc::clone(&admitted), Arc::clone(&stop));
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let want = tokens(b"k", window(BURST, 4), 7);
                    if process.use_up(want).await.is_ok() {
                        admitted.fetch_add(7, Ordering::Relaxed);
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
    }
    let more_than = |number| {
        let admitted = Arc::clone(&admitted);
        async move {
            until("more is admitted", || async {
                (admitted.load(Ordering::Relaxed) > number).then_some(())
            })
            .await;
        }
    };
    more_than(BURST + 100).await;
    store.kill().await;
    for process in &processes {
        process.is_up(false).await;
    }
    store.restart().await;
    for process in &processes {
        process.is_up(true).await;
    }
    let before = admitted.load(Ordering::Relaxed);
    more_than(before + 500).await;
    stop.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    let admitted = admitted.load(Ordering::Relaxed);
    let come_back = u64::try_from(began.elapsed().as_millis()).unwrap() * BURST / 4000;
    assert!(
        admitted <= BURST + come_back,
        "{admitted} of {BURST} and {come_back}"
    );
}
