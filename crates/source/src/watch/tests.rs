use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::{FileSource, Options, Status};

const DEADLINE: Duration = Duration::from_secs(20);

fn gateway(port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\n\
         kind: Gateway\n\
         metadata: {{name: wp, namespace: apps}}\n\
         spec:\n  \
           gatewayClassName: kgateway-waypoint\n  \
           listeners: [{{name: http, port: {port}, protocol: HTTP}}]\n"
    )
}

/// A source that polls so rarely that only watches can find a change, or the other way round.
fn source(path: &Path, poll: Duration) -> FileSource {
    let settle = Duration::from_millis(20);
    let options = Options {
        poll,
        settle,
        ..Options::default()
    };
    FileSource::open(&[path.to_owned()], options).unwrap()
}

const NEVER: Duration = Duration::from_secs(3600);
const OFTEN: Duration = Duration::from_millis(20);

async fn until(
    status: &mut watch::Receiver<Status>,
    what: &str,
    reached: impl Fn(&Status) -> bool,
) {
    let wait = tokio::time::timeout(DEADLINE, status.wait_for(|status| reached(status)));
    assert!(
        wait.await.is_ok_and(|ended| ended.is_ok()),
        "{what} was not reached"
    );
}

#[test]
fn a_bad_start_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    let open = || FileSource::open(&[dir.path().to_owned()], Options::default());
    assert_eq!(open().unwrap_err()[0].code, "no-files");
    fs::write(&path, "kind: [").unwrap();
    let found = open().unwrap_err();
    assert_eq!(
        found.iter().map(|d| d.code).collect::<Vec<_>>(),
        ["yaml-syntax"]
    );
}

#[tokio::test]
async fn edits_are_generations_and_mistakes_are_not() {
    for poll in [NEVER, OFTEN] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, gateway(8080)).unwrap();
        let source = source(dir.path(), poll);
        let (snapshot, mut status) = (source.snapshot(), source.status());
        assert_eq!(
            (
                snapshot.borrow().generation,
                snapshot.borrow().listeners[0].port
            ),
            (1, 8080)
        );
        let (end, ended) = oneshot::channel::<()>();
        let task = source.spawn(async { drop(ended.await) });
        // With watches alone, a change may come before the first watch: so it is made again.
        let write = |text: String| {
            let path = path.clone();
            tokio::spawn(async move {
                loop {
                    fs::write(&path, &text).unwrap();
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            })
        };

        let writer = write(gateway(8081));
        until(&mut status, "generation 2", |s| s.generation == 2).await;
        assert_eq!(snapshot.borrow().listeners[0].port, 8081);
        writer.abort();
        assert!(writer.await.is_err());

        let writer = write("kind: [".to_owned());
        until(&mut status, "a rejection", |s| s.rejected_total == 1).await;
        assert_eq!(status.borrow().last_diagnostics[0].code, "yaml-syntax");
        assert_eq!(
            (
                snapshot.borrow().generation,
                snapshot.borrow().listeners[0].port
            ),
            (2, 8081)
        );
        writer.abort();
        assert!(writer.await.is_err());

        fs::remove_file(&path).unwrap();
        until(&mut status, "no files", |s| s.rejected_total == 2).await;
        assert_eq!(status.borrow().last_diagnostics[0].code, "no-files");

        let writer = write(gateway(8081));
        until(&mut status, "the old text", |s| {
            s.last_diagnostics.is_empty()
        })
        .await;
        assert_eq!(status.borrow().generation, 2, "nothing new");
        writer.abort();

        end.send(()).unwrap();
        tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_swapped_link_is_seen() {
    for poll in [NEVER, OFTEN] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let version = |name: &str, port: u16| {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("a.yaml"), gateway(port)).unwrap();
        };
        version("..1", 8080);
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
        let source = source(root, poll);
        let (snapshot, mut status) = (source.snapshot(), source.status());
        let task = source.spawn(std::future::pending());
        for (generation, port) in [(2, 8081), (3, 8082)] {
            let name = format!("..{generation}");
            version(&name, port);
            // As kubelet does it, again and again until seen.
            let swap = || {
                symlink(&name, root.join("..tmp")).unwrap();
                fs::rename(root.join("..tmp"), root.join("..data")).unwrap();
            };
            let deadline = tokio::time::Instant::now() + DEADLINE;
            while status.borrow().generation < generation {
                assert!(
                    tokio::time::Instant::now() < deadline,
                    "the swap was not seen"
                );
                swap();
                let wait = status.wait_for(|status| status.generation == generation);
                let _ = tokio::time::timeout(Duration::from_millis(500), wait).await;
            }
            assert_eq!(snapshot.borrow().listeners[0].port, port);
        }
        assert_eq!(status.borrow().rejected_total, 0);
        task.abort();
    }
}

#[tokio::test]
async fn a_replaced_file_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    fs::write(&path, gateway(8080)).unwrap();
    // The file itself is named, not its directory.
    let source = source(&path, NEVER);
    let mut status = source.status();
    let task = source.spawn(std::future::pending());
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while status.borrow().generation < 2 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the file was not seen"
        );
        fs::write(dir.path().join(".new"), gateway(8081)).unwrap();
        fs::rename(dir.path().join(".new"), &path).unwrap();
        let wait = status.wait_for(|status| status.generation == 2);
        let _ = tokio::time::timeout(Duration::from_millis(500), wait).await;
    }
    task.abort();
}
