//! How long a rule waits.

use waypoint_tests::upstream::{Gate, Reply, Step, Upstream};
use waypoint_tests::waypoint::ANN;

use super::{ask, get, start};

#[tokio::test]
async fn an_answer_that_takes_too_long_is_given_up() {
    let slow = Reply::default().then(Step::Stall);
    let upstream = Upstream::always(slow).await;
    let spec = "\
rules:
- matches: [{path: {value: /short}}]
  timeouts: {request: 200ms}
  backendRefs: [{name: app, port: 80}]
- matches: [{path: {value: /none}}]
  timeouts: {request: 0s}
  backendRefs: [{name: app, port: 80}]
";
    let waypoint = start(&upstream, "http", spec).await;
    let answer = ask(&waypoint, &get("/short")).await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    upstream.abandoned(1).await;
    let event = waypoint.event(&answer).await;
    assert_eq!(event["code"], "upstream_timeout", "{event}");
    // Zero is no timeout at all (GEP-1742): it outlives one that began later.
    let mut patient = waypoint.workload(ANN).connect().await.unwrap();
    patient.send(&get("/none")).await.unwrap();
    upstream.requests(2).await;
    let answer = ask(&waypoint, &get("/short")).await;
    assert_eq!(answer.status, 504);
    upstream.abandoned(2).await;
    waypoint.event(&answer).await;
    assert_eq!(waypoint.audit().len(), 2, "the patient one goes on");
    drop(patient);
    upstream.abandoned(3).await;
}

#[tokio::test]
async fn an_answer_that_trickles_past_its_time_is_cut_and_does_not_look_whole() {
    let gate = Gate::new();
    let piece = b"1\r\nx\r\n".to_vec();
    let endless = Reply::chunked(200, &[]).then(Step::Endless(piece));
    let held = Reply::chunked(200, &[]).chunk("one").wait(&gate).end();
    for (case, reply) in [("it never ends", endless), ("it goes silent", held)] {
        let upstream = Upstream::always(reply).await;
        let spec = "\
rules:
- timeouts: {request: 2s}
  backendRefs: [{name: app, port: 80}]
";
        let waypoint = start(&upstream, "http", spec).await;
        let mut connection = waypoint.workload(ANN).connect().await.unwrap();
        connection.send(&get("/")).await.unwrap();
        assert_eq!(connection.head().await.unwrap().status, 200, "{case}");
        let body = connection.body().await;
        assert!(body.is_err(), "{case}: the answer seems to be whole");
        upstream.abandoned(1).await;
    }
}
