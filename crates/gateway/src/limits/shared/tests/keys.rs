//! What the store sees.

use waypoint_config::UpstreamTls;
use waypoint_tests::certificates::Authority;
use waypoint_tests::ports;

use super::*;

#[tokio::test]
async fn keys_have_an_end_and_one_slot_and_no_caller_in_them() {
    let store = Store::start().await;
    let process = process(&settings(&store)).await;
    let secret = b"spiffe://cluster.local/ns/agents/sa/ann {}\r\n*";
    let mut held = Vec::new();
    for (number, amount) in [
        (Number::Tokens, month(100)),
        (Number::Requests, window(100, 3600)),
        (Number::Cost, window(100, 60)),
        (Number::Concurrency, Amount::Slots(5)),
    ] {
        let want = Want {
            number,
            ..tokens(secret, amount, 2)
        };
        held.push(process.take(&[want]).await.unwrap());
    }
    let keys = store.keys().await;
    // Four buckets, the epoch and who is alive.
    assert_eq!(keys.len(), 6, "{keys:?}");
    for key in &keys {
        assert!(key.starts_with("waypoint:1:{agents/wp}:"), "{key}");
        assert!(!key.contains("ann") && !key.contains("spiffe"), "{key}");
        let ttl = store.ask(&["PTTL", key]).await.number().unwrap();
        assert!(ttl > 0 && ttl <= 36 * 86_400_000, "{key}: {ttl}");
        let text = format!("{:?}", store.hash(key).await);
        assert!(!text.contains("ann") && !text.contains("spiffe"), "{text}");
    }
    // A rate is kept for as long as it comes back, and two minutes.
    let rate = keys.iter().find(|key| key.contains(":requests:")).unwrap();
    let ttl = store.ask(&["PTTL", rate]).await.number().unwrap();
    assert!((100_000..=192_000).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn a_password_is_shown() {
    let store = Store::with(&["--requirepass", "open sesame"]).await;
    let wrong = metrics();
    let gateway = ObjectName::new("agents", "wp");
    let connector = Arc::new(Connector::new());
    let _shared = Shared::new(&settings(&store), &gateway, connector, wrong.clone());
    let right = LimitStore {
        credential: Credential::Inline("open sesame".to_owned().into()),
        database: 3,
        ..settings(&store)
    };
    let process = process(&right).await;
    assert_eq!(process.use_up(tokens(b"k", month(5), 1)).await, Ok(()));
    assert_eq!(process.metrics.up().get(), 1);
    until("the other is refused", || async {
        (wrong.failures.get() > 0).then_some(())
    })
    .await;
    assert_eq!(wrong.up().get(), 0);
}

#[tokio::test]
async fn two_gateways_share_nothing() {
    let store = Store::start().await;
    let one = process(&settings(&store)).await;
    let gateway = ObjectName::new("agents", "other");
    let connector = Arc::new(Connector::new());
    let metrics = metrics();
    let shared = Shared::new(&settings(&store), &gateway, connector, metrics.clone());
    let other = Process { shared, metrics };
    other.is_up(true).await;
    assert_eq!(one.use_up(tokens(b"k", month(5), 5)).await, Ok(()));
    assert_eq!(other.use_up(tokens(b"k", month(5), 5)).await, Ok(()));
    assert!(one.use_up(tokens(b"k", month(5), 1)).await.is_err());
}

#[tokio::test]
async fn limits_that_change_keep_what_was_used() {
    let store = Store::start().await;
    let process = process(&settings(&store)).await;
    process.use_up(tokens(b"k", month(10), 8)).await.unwrap();
    assert!(process.use_up(tokens(b"k", month(10), 3)).await.is_err());
    assert_eq!(process.use_up(tokens(b"k", month(20), 12)).await, Ok(()));
    assert!(process.use_up(tokens(b"k", month(20), 1)).await.is_err());
}

#[tokio::test]
async fn what_a_process_kept_open_is_given_back_when_it_is_dropped() {
    let store = Store::start().await;
    let one = process(&settings(&store)).await;
    let mut holds = one.take(&[tokens(b"k", month(100), 70)]).await.unwrap();
    drop(one);
    holds[0].settle(30);
    drop(holds);
    until("the rest is given back", || async {
        (sums(&store).await == (30, 30)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tls_needs_roots_that_signed_the_name() {
    let authority = Authority::new();
    let identity = authority.server();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let port = ports::free();
    let store = Store::with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &write("tls.crt", &identity.certificate_pem),
        "--tls-key-file",
        &write("tls.key", &identity.key_pem),
        "--tls-ca-cert-file",
        &write("ca.crt", &authority.pem),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let secured = |roots: &str, hostname: &str| {
        let mut settings = settings(&store);
        settings.endpoint.address = Address::Fixed(vec![([127, 0, 0, 1], port).into()]);
        settings.endpoint.tls = Some(UpstreamTls {
            hostname: hostname.into(),
            roots_pem: Some(roots.into()),
        });
        settings
    };
    let trusted = process(&secured(&authority.pem, "localhost")).await;
    assert_eq!(trusted.use_up(tokens(b"k", month(5), 1)).await, Ok(()));
    for settings in [
        secured(&Authority::new().pem, "localhost"),
        secured(&authority.pem, "valkey.example"),
    ] {
        let gateway = ObjectName::new("agents", "wp");
        let connector = Arc::new(Connector::new());
        let shared = Shared::new(&settings, &gateway, connector, metrics());
        // What is asked at the beginning waits until it is known.
        let want = tokens(b"k", month(5), 1);
        let taken = shared.take(&[want]).await;
        assert_eq!(taken.unwrap_err().why, Why::Unavailable);
        assert!(*shared.inner.link.is_tried.borrow());
    }
}
