//! What a configuration must be, and what happens when it changes.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use waypoint_tests::client::Client;
use waypoint_tests::llm::{chat, chat_answer};
use waypoint_tests::upstream::Upstream;
use waypoint_tests::wait::until;
use waypoint_tests::waypoint::{ANN, Setup, Waypoint, agent, provider, route, secret};

fn objects(upstream: &Arc<Upstream>, key: &str) -> String {
    [
        provider(
            "openai",
            "OpenAI",
            upstream,
            "credential: {secretRef: {name: keys, key: key}}",
        ),
        secret("keys", key),
        route("llm", "- backendRefs: [{name: openai}]"),
    ]
    .concat()
}

/// A key the upstream receives in a call.
async fn key_in_use(waypoint: &Waypoint, upstream: &Upstream) -> String {
    let answer = waypoint.workload(ANN).call(&chat("m")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = upstream.last();
    seen.header("authorization")
        .unwrap_or_default()
        .replace("Bearer ", "")
}

#[tokio::test]
async fn a_configuration_with_errors_does_not_start() {
    let upstream = Upstream::always(chat_answer()).await;
    let good = objects(&upstream, "sk-1");
    for (case, text, place, names) in [
        (
            "no YAML",
            "a: [1, 2".to_owned(),
            "objects.yaml:2:1: error[",
            "",
        ),
        (
            "a tab",
            good.replace("  dialect", "\tdialect"),
            "objects.yaml:5:",
            "",
        ),
        (
            "an unknown field",
            good.replace("  dialect:", "  dialekt: a\n  dialect:"),
            "objects.yaml:5:3: error[",
            "dialekt",
        ),
        (
            "an unknown value",
            good.replace("OpenAI", "OpenAl"),
            "objects.yaml:5:12: error[",
            "OpenAl",
        ),
        (
            "a missing secret",
            good.replace("{name: keys, namespace", "{name: other, namespace"),
            "objects.yaml:7:",
            "keys",
        ),
        (
            "a missing key",
            good.replace("key: key}}", "key: other}}"),
            "objects.yaml:7:",
            "other",
        ),
        (
            "a missing provider",
            good.replace("{name: openai}", "{name: opemai}"),
            "objects.yaml:",
            "opemai",
        ),
        (
            "the same object twice",
            format!("{good}{good}"),
            "objects.yaml:",
            "openai",
        ),
        (
            "a key twice",
            good.replace("  dialect: OpenAI", "  dialect: OpenAI\n  dialect: OpenAI"),
            "objects.yaml:6:3: error[",
            "dialect",
        ),
        (
            "a rule that says nothing",
            good.clone() + &agent("p", "Allow", "- {name: a}"),
            "objects.yaml:",
            "",
        ),
        (
            "a private address",
            good.replace("http://127.0.0.1", "http://10.0.0.1"),
            "objects.yaml:6:",
            "10.0.0.1",
        ),
    ] {
        let mut waypoint = Setup::new(&text).spawn();
        let status = waypoint.ended().await;
        let said = waypoint.stderr();
        assert_eq!(status.code(), Some(1), "{case}: {said}");
        assert!(
            said.contains(place) && said.contains(names),
            "{case}: {place} {names}: {said}"
        );
        assert!(!said.contains("sk-1"), "{case}: {said}");
        assert!(!said.contains("panicked"), "{case}: {said}");
    }
}

#[tokio::test]
async fn a_change_comes_into_force_and_a_bad_one_does_not() {
    let upstream = Upstream::always(chat_answer()).await;
    let waypoint = Setup::new(&objects(&upstream, "sk-1")).start().await;
    assert_eq!(key_in_use(&waypoint, &upstream).await, "sk-1");
    let mut kept = waypoint.workload(ANN).connect().await.unwrap();
    assert_eq!(kept.call(&chat("m")).await.unwrap().status, 200);
    waypoint.reload(&objects(&upstream, "sk-2")).await;
    assert_eq!(key_in_use(&waypoint, &upstream).await, "sk-2");
    let generation = waypoint.generation().await;
    for (number, bad) in [
        (1.0, "a: [1, 2".to_owned()),
        (
            2.0,
            objects(&upstream, "sk-3").replace("dialect", "dialekt"),
        ),
    ] {
        waypoint.write("objects.yaml", &bad);
        waypoint
            .metric_reaches("waypoint_config_rejected_total", &[], number)
            .await;
        assert_eq!(waypoint.generation().await, generation);
        assert_eq!(key_in_use(&waypoint, &upstream).await, "sk-2");
    }
    assert!(
        waypoint.stderr().contains("objects.yaml:2:1: error["),
        "{}",
        waypoint.stderr()
    );
    waypoint.write("objects.yaml", &objects(&upstream, "sk-4"));
    waypoint.generation_after(generation).await;
    assert_eq!(key_in_use(&waypoint, &upstream).await, "sk-4");
    let metrics = waypoint.metrics().await;
    assert_eq!(
        metrics.sum("waypoint_config_generation", &[]),
        f64::from(u32::try_from(waypoint.generation().await).unwrap())
    );
    // All this on connections that were open before, too.
    assert_eq!(kept.call(&chat("m")).await.unwrap().status, 200);
    assert_eq!(upstream.last().header("authorization"), Some("Bearer sk-4"));
}

#[tokio::test]
async fn a_mounted_volume_is_read_again_when_its_link_is_turned() {
    // As the kubelet lays out a ConfigMap: files are links through `..data`, which is replaced.
    let upstream = Upstream::always(chat_answer()).await;
    let waypoint = Setup::new(&objects(&upstream, "sk-1")).start().await;
    let config = waypoint.config().to_owned();
    let version = |number: u32| {
        let directory = config.join(format!("..v{number}"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(
            directory.join("objects.yaml"),
            objects(&upstream, &format!("sk-{number}")),
        )
        .unwrap();
        symlink(format!("..v{number}"), config.join("..new")).unwrap();
        std::fs::rename(config.join("..new"), config.join("..data")).unwrap();
    };
    let before = waypoint.generation().await;
    version(2);
    symlink("..data/objects.yaml", config.join("link")).unwrap();
    std::fs::rename(config.join("link"), config.join("objects.yaml")).unwrap();
    waypoint.generation_after(before).await;
    assert_eq!(key_in_use(&waypoint, &upstream).await, "sk-2");
    let before = waypoint.generation().await;
    version(3);
    waypoint.generation_after(before).await;
    assert_eq!(key_in_use(&waypoint, &upstream).await, "sk-3");
    assert_eq!(
        waypoint
            .metrics()
            .await
            .sum("waypoint_config_rejected_total", &[]),
        0.0
    );
}

#[tokio::test]
async fn listeners_come_and_go_with_the_configuration() {
    let upstream = Upstream::always(chat_answer()).await;
    let waypoint = Setup::new(&objects(&upstream, "sk-1")).start().await;
    assert_eq!(
        waypoint.anonymous().call(&chat("m")).await.unwrap().status,
        401
    );
    let mut kept = waypoint.workload(ANN).connect().await.unwrap();
    let base = std::fs::read_to_string(waypoint.config().join("gateway.yaml")).unwrap();
    let other = waypoint_tests::ports::free();
    let before = waypoint.generation().await;
    let moved = base.replace(
        &format!("port: {}", waypoint.ports.plain),
        &format!("port: {other}"),
    );
    assert_ne!(base, moved);
    waypoint.write("gateway.yaml", &moved);
    waypoint.generation_after(before).await;
    let moved = until("the new port", || async {
        Client::plain(other).call(&chat("m")).await.ok()
    })
    .await;
    assert_eq!(moved.status, 401);
    until("the old port to close", || async {
        waypoint.anonymous().connect().await.err()
    })
    .await;
    assert_eq!(kept.call(&chat("m")).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_certificate_authority_that_is_replaced_counts_for_new_connections() {
    let upstream = Upstream::always(chat_answer()).await;
    let waypoint = Setup::new(&objects(&upstream, "sk-1")).start().await;
    assert_eq!(
        waypoint
            .workload(ANN)
            .call(&chat("m"))
            .await
            .unwrap()
            .status,
        200
    );
    let base = std::fs::read_to_string(waypoint.config().join("gateway.yaml")).unwrap();
    let indented = |pem: &str| {
        pem.lines()
            .map(|line| format!("    {line}\n"))
            .collect::<String>()
    };
    let next = waypoint_tests::certificates::Authority::new();
    let changed = base.replace(&indented(&waypoint.authority.pem), &indented(&next.pem));
    assert_ne!(base, changed);
    let before = waypoint.generation().await;
    waypoint.write("gateway.yaml", &changed);
    waypoint.generation_after(before).await;
    // The gateway's own certificate is still the old authority's, so the caller trusts that one.
    let renewed = waypoint
        .with(&next.agent(ANN))
        .call(&chat("m"))
        .await
        .unwrap();
    assert_eq!(renewed.status, 200);
    assert!(waypoint.workload(ANN).call(&chat("m")).await.is_err());
}

#[tokio::test]
async fn operators_see_everything_but_secrets() {
    let upstream = Upstream::always(chat_answer()).await;
    let waypoint = Setup::new(&objects(&upstream, "sk-never-shown"))
        .start()
        .await;
    let answer = waypoint.workload(ANN).call(&chat("m")).await.unwrap();
    let dump = waypoint.admin("/config_dump").await;
    assert_eq!(dump.status, 200);
    assert!(dump.json().is_object(), "{}", dump.text());
    assert!(
        dump.text().contains("openai") && !dump.text().contains("sk-never-shown"),
        "{}",
        dump.text()
    );
    assert!(!dump.text().contains("PRIVATE KEY"), "{}", dump.text());
    assert_eq!(waypoint.admin("/healthz").await.status, 200);
    let id = answer.header("x-request-id").unwrap();
    // The event is written once the answer has gone out.
    assert_eq!(waypoint.event(&answer).await["request_id"], id);
    let one = waypoint
        .admin(&format!("/decisions?request_id={id}"))
        .await
        .json();
    assert_eq!(one.as_array().map(Vec::len), Some(1), "{one}");
    // A page in the operator's browser must not read this through a name of its own.
    let admin = Client::plain(waypoint.ports.admin);
    let rebound = waypoint_tests::client::Request::new("GET", "/config_dump").host("evil.example");
    assert_eq!(admin.call(&rebound).await.unwrap().status, 403);
}

/// The new address holds the old one's port: both are open for a moment.
#[tokio::test]
async fn a_listener_moves_to_an_address_that_holds_the_old_one() {
    let upstream = Upstream::always(chat_answer()).await;
    let waypoint = Setup::new(&objects(&upstream, "sk-1")).start().await;
    let mut kept = waypoint.workload(ANN).connect().await.unwrap();
    assert_eq!(kept.call(&chat("m")).await.unwrap().status, 200);
    let base = std::fs::read_to_string(waypoint.config().join("gateway.yaml")).unwrap();
    let mut moved = base.replace("value: 127.0.0.1", "value: 0.0.0.0");
    // Developer identity stays on loopback addresses.
    let line = |text: &str| {
        let mut lines = text.lines();
        lines
            .find(|line| line.trim_start().starts_with("dev: {"))
            .map(str::to_owned)
    };
    let developer = line(&base).unwrap();
    moved = moved.replace(&developer, "    dev: {}");
    let before = waypoint.generation().await;
    waypoint.write("gateway.yaml", &moved);
    waypoint.generation_after(before).await;
    let metrics = waypoint.metrics().await;
    assert_eq!(metrics.sum("waypoint_config_rejected_total", &[]), 0.0);
    // Only the wildcard socket can be reached by another address of this machine.
    let elsewhere = until("the new address", || async {
        tokio::net::TcpStream::connect(("127.0.0.2", waypoint.ports.plain))
            .await
            .ok()
    })
    .await;
    drop(elsewhere);
    for _ in 0..8 {
        assert_eq!(
            waypoint
                .workload(ANN)
                .call(&chat("m"))
                .await
                .unwrap()
                .status,
            200
        );
    }
    assert_eq!(kept.call(&chat("m")).await.unwrap().status, 200);
    // A port that somebody else has stays theirs.
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let stolen = moved.replace(
        &format!("port: {}", waypoint.ports.plain),
        &format!("port: {port}"),
    );
    assert_ne!(moved, stolen);
    waypoint.write("gateway.yaml", &stolen);
    waypoint
        .metric_reaches("waypoint_config_rejected_total", &[], 1.0)
        .await;
    assert_eq!(
        waypoint.anonymous().call(&chat("m")).await.unwrap().status,
        401
    );
}
