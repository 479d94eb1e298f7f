//! Plain bodies of any size that an external authorizer sees the beginning of.

use waypoint_tests::client::{Answer, Request};
use waypoint_tests::upstream::{Reply, Seen, Speaks, Step, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, Waypoint, http_route, service};

use super::{ASKED, custom, mesh};

const KIB: usize = 1 << 10;

/// A body in which no two places look the same.
fn body(length: usize) -> Vec<u8> {
    let lines = (0..).flat_map(|line| format!("{line:07}\n").into_bytes());
    lines.take(length).collect()
}

/// One way to send a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// HTTP/1.1 with `Content-Length`.
    Length,
    /// HTTP/1.1 in chunks of this size.
    Chunks(usize),
    /// HTTP/2 with `content-length`.
    Http2,
    /// HTTP/2 without.
    Http2Open,
}

async fn send(waypoint: &Waypoint, body: &[u8], sent: Sent) -> Answer {
    let client = waypoint.workload(ANN);
    let request = Request::post("/asked", body).host("app.example.com");
    match sent {
        Sent::Length => client.call(&request).await.unwrap(),
        Sent::Http2 | Sent::Http2Open => {
            let request = match sent {
                Sent::Http2 => request.header("content-length", &body.len().to_string()),
                _ => request,
            };
            let mut connection = client.connect_http2().await.unwrap();
            connection.call(&request).await.unwrap()
        }
        Sent::Chunks(size) => {
            let mut connection = client.connect().await.unwrap();
            let head = "POST /asked HTTP/1.1\r\nhost: app.example.com\r\ntransfer-encoding: chunked\r\n\r\n";
            let mut bytes = head.as_bytes().to_vec();
            for chunk in body.chunks(size) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            // A refusal may come before all has been sent.
            let _ = connection.write(&bytes).await;
            connection.answer().await.unwrap()
        }
    }
}

#[tokio::test]
async fn the_beginning_is_shown_and_all_of_it_forwarded() {
    let authorizer = Upstream::always(Reply::whole(200, &[], "")).await;
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let app =
            Upstream::speaking(speaks.clone(), |_: &Seen| Reply::whole(200, &[], "hello")).await;
        let kind = match speaks {
            Speaks::Http2 => "kubernetes.io/h2c",
            _ => "http",
        };
        let objects = [
            service("app", &app, kind),
            http_route("app", "rules: [{backendRefs: [{name: app, port: 80}]}]"),
            custom("ask", "authz", ASKED),
        ]
        .concat();
        let with = |max: usize, partial: bool| {
            let fields = format!(
                "includeRequestBodyInCheck: {{maxRequestBytes: {max}, allowPartialMessage: {partial}}}"
            );
            format!("{objects}{}", mesh(&authorizer, &fields))
        };
        let mut waypoint: Option<Waypoint> = None;
        for (max, partial, rows) in [
            (
                200,
                true,
                &[
                    // Length, how it is sent, and what is shown of it; `None` is refused.
                    (200, Sent::Length, Some(200)),
                    (201, Sent::Length, Some(200)),
                    (63 * KIB, Sent::Length, Some(200)),
                    (65 * KIB, Sent::Length, Some(200)),
                    (300 * KIB, Sent::Length, Some(200)),
                    (3000 * KIB, Sent::Length, Some(200)),
                    (300 * KIB, Sent::Chunks(5000), Some(200)),
                    (300 * KIB, Sent::Chunks(70_000), Some(200)),
                    (300 * KIB, Sent::Http2, Some(200)),
                    (300 * KIB, Sent::Http2Open, Some(200)),
                ][..],
            ),
            (
                100 * KIB,
                true,
                &[
                    (70 * KIB, Sent::Length, Some(70 * KIB)),
                    (100 * KIB, Sent::Length, Some(100 * KIB)),
                    (101 * KIB, Sent::Length, Some(100 * KIB)),
                    (500 * KIB, Sent::Length, Some(100 * KIB)),
                    (40 * KIB, Sent::Chunks(3000), Some(40 * KIB)),
                    (90 * KIB, Sent::Http2, Some(90 * KIB)),
                    (40 * KIB, Sent::Http2Open, Some(40 * KIB)),
                ],
            ),
            (
                100 * KIB,
                false,
                &[
                    (60 * KIB, Sent::Length, Some(60 * KIB)),
                    (100 * KIB, Sent::Length, Some(100 * KIB)),
                    (100 * KIB + 1, Sent::Length, None),
                    (60 * KIB, Sent::Chunks(3000), Some(60 * KIB)),
                    // Only its end says how long it is.
                    (90 * KIB, Sent::Chunks(3000), None),
                    (90 * KIB, Sent::Http2, Some(90 * KIB)),
                    (60 * KIB, Sent::Http2Open, Some(60 * KIB)),
                    (90 * KIB, Sent::Http2Open, None),
                ],
            ),
        ] {
            let objects = with(max, partial);
            match &waypoint {
                Some(waypoint) => waypoint.reload(&objects).await,
                None => waypoint = Some(Setup::new(&objects).start().await),
            }
            let waypoint = waypoint.as_ref().unwrap();
            for (length, sent, shown) in rows {
                let case = format!("{kind}: {length} of {max} ({partial}), {sent:?}");
                let body = body(*length);
                let (asked, served) = (authorizer.seen().len(), app.seen().len());
                let answer = send(waypoint, &body, *sent).await;
                let Some(shown) = *shown else {
                    assert_eq!(answer.status, 413, "{case}");
                    assert_eq!(authorizer.seen().len(), asked, "{case}");
                    assert_eq!(app.seen().len(), served, "{case}");
                    continue;
                };
                assert_eq!(answer.status, 200, "{case}: {}", answer.text());
                let check = authorizer.last();
                let is_partial = (shown < *length).to_string();
                assert!(check.body == body[..shown], "{case}: {}", check.body.len());
                let said = check.header("x-envoy-auth-partial-body");
                assert_eq!(said, Some(&*is_partial), "{case}");
                assert_eq!(app.seen().len(), served + 1, "{case}");
                assert!(app.last().body == body, "{case}: {}", app.last().body.len());
            }
        }
    }
}

/// A length nobody declared: as much is shown as can be sent on whatever comes, and said to be a part.
#[tokio::test]
async fn a_body_without_length_is_shown_in_part() {
    let authorizer = Upstream::always(Reply::whole(200, &[], "")).await;
    let app = Upstream::always(Reply::whole(200, &[], "hello")).await;
    let fields = "includeRequestBodyInCheck: {maxRequestBytes: 200000, allowPartialMessage: true}";
    let objects = [
        service("app", &app, "http"),
        http_route("app", "rules: [{backendRefs: [{name: app, port: 80}]}]"),
        custom("ask", "authz", ASKED),
        mesh(&authorizer, fields),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let body = body(300 * KIB);
    let answer = send(&waypoint, &body, Sent::Chunks(3000)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let check = authorizer.last();
    assert_eq!(check.header("x-envoy-auth-partial-body"), Some("true"));
    assert!(check.body.len() > 40 * KIB && check.body.len() <= 200_000);
    assert!(body.starts_with(&check.body));
    assert!(app.last().body == body, "{}", app.last().body.len());
}

/// Pingora would repeat what it kept, which is not all of a body that was shown in part.
#[tokio::test]
async fn what_was_shown_in_part_is_sent_once() {
    for (case, path, max, length, attempts) in [
        // Of the first nothing is kept before it is forwarded, of the second the end.
        ("the rest is kept", "/asked", 200, 100 * KIB, 1),
        ("the end is kept", "/asked", 100 * KIB, 101 * KIB, 1),
        // On a connection that may only have been stale, Pingora tries once more.
        ("all is kept", "/asked", 200, 300, 2),
        ("nobody is asked", "/other", 200, 300, 2),
    ] {
        let authorizer = Upstream::always(Reply::whole(200, &[], "")).await;
        let app = Upstream::start(|seen: &Seen| match seen.number {
            1 => Reply::default().then(Step::Close),
            _ => Reply::whole(200, &[], "hello"),
        })
        .await;
        let fields = format!(
            "includeRequestBodyInCheck: {{maxRequestBytes: {max}, allowPartialMessage: true}}"
        );
        let objects = [
            service("app", &app, "http"),
            http_route("app", "rules: [{backendRefs: [{name: app, port: 80}]}]"),
            custom("ask", "authz", ASKED),
            mesh(&authorizer, &fields),
        ];
        let waypoint = Setup::new(&objects.concat()).start().await;
        let ann = waypoint.workload(ANN);
        let first = Request::new("GET", "/other").host("app.example.com");
        assert_eq!(ann.call(&first).await.unwrap().status, 200, "{case}");
        let body = body(length);
        let put = Request {
            method: "PUT".into(),
            ..Request::post(path, &*body).host("app.example.com")
        };
        let answer = ann.call(&put).await.unwrap();
        let expected = if attempts == 1 { 502 } else { 200 };
        assert_eq!(answer.status, expected, "{case}: {}", answer.text());
        let seen = app.seen();
        assert_eq!(seen.len(), 1 + attempts, "{case}");
        assert_eq!(seen[1].connection, seen[0].connection, "{case}");
        for seen in &seen[1..] {
            assert!(seen.body == body, "{case}: {}", seen.body.len());
        }
    }
}
