//! The real daemons behind the door: containerd's rules, restarts, a disk server that hangs or dies.
//!
//! Needs root, FUSE and loop devices.

use std::time::{Duration, Instant};

use ploop_snapshotter::seat::Seat;
use rustix::process::{Signal, kill_process};
use tonic::Code;

use super::client::{Client, code, labels};
use super::daemon::{Place, run};

/// Everything detached at the end, so that a test leaves nothing behind.
const CLEAN: &str = "[service]\ndetach_on_stop = true\n";

async fn commit(client: &Client, name: &str, parent: &str) {
    let key = format!("making {name}");
    client.prepare(&key, parent).await.unwrap();
    client.commit(name, &key, &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_codes_are_those_that_containerd_expects() {
    let place = Place::new(CLEAN);
    let _daemon = place.start();
    let client = place.client().await;
    commit(&client, "base", "").await;
    commit(&client, "child", "base").await;
    client.prepare("active", "base").await.unwrap();
    client.view("view", "base").await.unwrap();

    for missing in ["missing", "k8s.io/1/x y", "../../etc/passwd"] {
        assert_eq!(code(client.stat(missing).await), Code::NotFound);
        assert_eq!(code(client.usage(missing).await), Code::NotFound);
        assert_eq!(code(client.mounts(missing).await), Code::NotFound);
        assert_eq!(code(client.remove(missing).await), Code::NotFound);
        assert_eq!(
            code(client.update(missing, &[], None).await),
            Code::NotFound
        );
        assert_eq!(
            code(client.commit("new", missing, &[]).await),
            Code::NotFound
        );
        assert_eq!(code(client.prepare("new", missing).await), Code::NotFound);
        assert_eq!(code(client.view("new", missing).await), Code::NotFound);
    }
    for parent in ["active", "view"] {
        assert_eq!(
            code(client.prepare("new", parent).await),
            Code::InvalidArgument
        );
        assert_eq!(
            code(client.view("new", parent).await),
            Code::InvalidArgument
        );
    }
    for taken in ["base", "active", "view"] {
        assert_eq!(
            code(client.prepare(taken, "base").await),
            Code::AlreadyExists
        );
        assert_eq!(code(client.view(taken, "base").await), Code::AlreadyExists);
        assert_eq!(
            code(client.commit(taken, "active", &[]).await),
            Code::AlreadyExists
        );
    }
    assert_eq!(code(client.mounts("base").await), Code::FailedPrecondition);
    for not_active in ["base", "view"] {
        let answer = client.commit("new", not_active, &[]).await;
        assert_eq!(code(answer), Code::FailedPrecondition);
    }
    let status = client.remove("base").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("remove"), "{status}");
    let answer = client.update("base", &[], Some(&["parent"])).await;
    assert_eq!(code(answer), Code::InvalidArgument);
    assert_eq!(code(client.list(&["name=x"]).await), Code::InvalidArgument);
    assert_eq!(
        code(client.stat("new").await),
        Code::NotFound,
        "nothing was made"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_keys_are_kept_word_for_word_and_have_limits() {
    let place = Place::new(CLEAN);
    let _daemon = place.start();
    let client = place.client().await;
    let kept = [
        ("containerd.io/snapshot.ref", "sha256:ab"),
        ("l 1", "x=\"y\",\n牛"),
    ];
    let limit = ("k", "v".repeat(4095));
    let pairs = [kept[0], kept[1], (limit.0, &limit.1)];
    client.prepare_with("a", "", &pairs).await.unwrap();
    let info = client.stat("a").await.unwrap();
    assert_eq!(info.labels, labels(&pairs));
    assert_eq!(info.created_at, info.updated_at);

    let over = "v".repeat(4096);
    for answer in [
        code(client.prepare_with("b", "", &[("k", &over)]).await),
        code(client.commit("b", "a", &[("k", &over)]).await),
        code(client.update("a", &[("k", &over)], None).await),
    ] {
        assert_eq!(answer, Code::InvalidArgument);
    }
    assert_eq!(client.stat("a").await.unwrap(), info, "nothing was changed");

    let long = "/".repeat(4096);
    for key in [
        "k8s.io/40/extract-1-x7Yz sha256:ab",
        "/tmp/a b/../c",
        "\u{1f4a9}",
        &long,
    ] {
        client.view(key, "").await.unwrap();
        assert_eq!(client.stat(key).await.unwrap().name, key);
        client.remove(key).await.unwrap();
    }
    for key in ["", &"k".repeat(4097)] {
        assert_eq!(code(client.prepare(key, "").await), Code::InvalidArgument);
    }

    let masked = client
        .update(
            "a",
            &[("l1", "new"), ("l4", "no")],
            Some(&["labels.l1", "labels.l 1"]),
        )
        .await
        .unwrap();
    assert_eq!(
        masked.labels,
        labels(&[kept[0], (limit.0, &limit.1), ("l1", "new")])
    );
    assert_eq!(masked.created_at, info.created_at);
    assert!(masked.updated_at.unwrap().nanos != info.updated_at.unwrap().nanos);
    for (mask, wanted) in [
        (None, ("all", "1")),
        (Some(&[][..]), ("all", "2")),
        (Some(&["labels"][..]), ("all", "3")),
    ] {
        let info = client.update("a", &[wanted], mask).await.unwrap();
        assert_eq!(info.labels, labels(&[wanted]));
        assert_eq!(info.parent, "", "only labels change");
    }
    // A commit replaces labels, it does not inherit them.
    client.commit("c", "a", &[("new", "1")]).await.unwrap();
    assert_eq!(
        client.stat("c").await.unwrap().labels,
        labels(&[("new", "1")])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_filtered_and_says_what_stat_says() {
    let place = Place::new(CLEAN);
    let _daemon = place.start();
    let client = place.client().await;
    commit(&client, "p", "").await;
    let label = [("containerd.io/gc.root", "check-walk")];
    client.prepare_with("a", "p", &label).await.unwrap();
    client.view("v", "p").await.unwrap();
    for (filters, names) in [
        (&[][..], &["a", "p", "v"][..]),
        (&["kind==active"], &["a"]),
        (&["kind==view"], &["v"]),
        (&["kind==committed"], &["p"]),
        (&["name==p", "name==a"], &["a", "p"]),
        (&["parent==p"], &["a", "v"]),
        (&["parent!=\"\",labels.\"containerd.io/gc.root\""], &["a"]),
        (&["labels.\"containerd.io/gc.root\"==check-walk"], &["a"]),
        (&["name~=|^[pv]$|"], &["p", "v"]),
        (&["name==nobody"], &[]),
    ] {
        assert_eq!(client.names(filters).await, names, "{filters:?}");
    }
    for info in client.list(&[]).await.unwrap().0 {
        assert_eq!(client.stat(&info.name).await.unwrap(), info);
    }
}

/// Containers go on while we are away, and the next one of us knows everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_nothing_and_detaches_nothing() {
    let place = Place::new("");
    let mut daemon = place.start();
    let client = place.client().await;
    commit(&client, "base", "").await;
    let mounts = client.prepare("a", "base").await.unwrap();
    let before = client.list(&[]).await.unwrap().0;
    let server = place.ploopd().unwrap();
    for signal in [Signal::TERM, Signal::KILL] {
        let status = daemon.end(signal);
        assert_eq!(status.success(), signal == Signal::TERM, "{status}");
        let socket = place.path("run/ploop.sock");
        assert_eq!(socket.exists(), signal == Signal::KILL);
        assert_eq!(place.ploopd(), Some(server), "the disk server outlives us");
        assert!(std::path::Path::new(&mounts[0].source).exists());
        daemon = place.start();
        let client = place.client().await;
        assert_eq!(client.list(&[]).await.unwrap().0, before);
        assert_eq!(client.mounts("a").await.unwrap(), mounts);
    }
    assert_eq!(place.ploopd(), Some(server));
    assert!(place.log().contains("adopting the disk server that runs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn detach_on_stop_leaves_nothing_behind() {
    let place = Place::new(CLEAN);
    let daemon = place.start();
    let client = place.client().await;
    let source = client.prepare("a", "").await.unwrap()[0].source.clone();
    assert!(source.ends_with("/dev/s1"), "named by the disk: {source}");
    let device = std::fs::read_link(source).unwrap();
    let served = || {
        let name = device.strip_prefix("/dev/").unwrap().display();
        let file = format!("/sys/block/{name}/loop/backing_file");
        std::fs::read_to_string(file).is_ok_and(|f| f.contains(place.path("run").to_str().unwrap()))
    };
    assert!(served());
    assert!(daemon.end(Signal::TERM).success());
    assert!(!served());
    let begun = Instant::now();
    while place.ploopd().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(10), "ploopd stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(place.path("run").to_str().unwrap()));
    // And what was prepared is still there for the next one.
    let _daemon = place.start();
    assert_eq!(place.client().await.mounts("a").await.unwrap().len(), 1);
}

/// A disk server that is stopped costs a caller its limit, one that is gone costs nothing, and neither
/// costs those who need no disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_server_that_hangs_or_dies_is_a_clear_error_in_time() {
    let place = Place::new(
        "[disk_server]\nservers = 1\nattach_limit = '1s'\ndetach_limit = '1s'\ncall_limit = '1s'\n",
    );
    let _daemon = place.start();
    let client = place.client().await;
    commit(&client, "base", "").await;
    let server = place.ploopd().unwrap();
    kill_process(server, Signal::STOP).unwrap();
    let begun = Instant::now();
    let status = client.prepare("hung", "base").await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("within 1s"), "{status}");
    assert_eq!(client.stat("base").await.unwrap().name, "base");
    assert_eq!(client.names(&[]).await, ["base"]);
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        place.http("/metrics").contains("ploop_snapshots{"),
        "half an answer is one"
    );
    kill_process(server, Signal::CONT).unwrap();
    client.prepare("hung", "base").await.unwrap();

    kill_process(server, Signal::KILL).unwrap();
    let begun = Instant::now();
    let status = loop {
        match client.prepare("x", "base").await {
            Err(status) => break status,
            // It was faster than the signal, or the next server is up already.
            Ok(_) => client.remove("x").await.unwrap(),
        }
        if place.ploopd().is_some_and(|pid| pid != server) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
    };
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    while client.prepare("y", "base").await.is_err() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "no new disk server"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(place.ploopd().unwrap(), server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_is_refused_and_the_first_not_disturbed() {
    let place = Place::new(CLEAN);
    let _daemon = place.start();
    let client = place.client().await;
    client.prepare("a", "").await.unwrap();
    let same_root = place.configure("same-root.toml", "root", "run2", "");
    let (code, words) = run(&same_root, &[]);
    assert_eq!(code, Some(1), "{words}");
    let root = place.path("root");
    assert!(words.contains(root.to_str().unwrap()), "{words}");
    // The disk servers that it had started are gone again.
    let begun = Instant::now();
    let answering = || {
        let seats = Seat::all(&place.path("run2")).unwrap();
        seats.iter().any(|seat| seat.socket().exists())
    };
    while answering() {
        assert!(begun.elapsed() < Duration::from_secs(10), "a ploopd stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(place.path("run2").to_str().unwrap()),
        "nor another one came"
    );
    let same_run = place.configure("same-run.toml", "root2", "run", "");
    let (code, words) = run(&same_run, &[]);
    assert_eq!(code, Some(1), "{words}");
    assert!(
        words.contains("belong to another ploop-snapshotter (process"),
        "{words}"
    );
    // The whole place once more.
    let (code, words) = run(&place.path("config.toml"), &[]);
    assert_eq!(code, Some(1), "{words}");
    client.mounts("a").await.unwrap();
    assert!(place.http("/readyz").ends_with("ready\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_shown_as_they_are() {
    let place = Place::new(CLEAN);
    let _daemon = place.start();
    let client = place.client().await;
    commit(&client, "base", "").await;
    client.prepare("a", "base").await.unwrap();
    let _ = client.stat("missing").await;
    let text = place.http("/metrics");
    for line in [
        "ploop_snapshots{kind=\"committed\",snapshotter=\"ploop\"} 1",
        "ploop_snapshots{kind=\"active\",snapshotter=\"ploop\"} 1",
        "ploop_calls_total{code=\"OK\",method=\"Prepare\",snapshotter=\"ploop\"} 2",
        "ploop_calls_total{code=\"NOT_FOUND\",method=\"Stat\",snapshotter=\"ploop\"} 1",
        "ploop_call_seconds_count{method=\"Commit\",snapshotter=\"ploop\"} 1",
        "ploop_disk_server_up{server=\"1-1\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    let disks = text
        .lines()
        .filter(|l| l.starts_with("ploop_disk_attached{"));
    assert_eq!(disks.count(), 1, "{text}");
    assert!(place.http("/healthz").ends_with("alive\n"));
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_is_done() {
    let place = Place::new("[snapshots2]\n");
    let (code, words) = run(&place.path("config.toml"), &[]);
    assert_eq!(code, Some(78), "{words}");
    assert_eq!(words.lines().count(), 1, "{words}");
    assert!(
        words.contains("config.toml:9:2: unknown field `snapshots2`"),
        "{words}"
    );
    assert!(!place.path("root").exists() && !place.path("run").exists());
    std::fs::write(place.path("config.toml"), "[names.x]\n").unwrap();
    let (code, words) = run(&place.path("config.toml"), &["--check-config"]);
    assert_eq!(code, Some(0), "{words}");
    assert!(
        words.contains("[names.x]\nsocket = \"/run/ploop-snapshotter/x.sock\""),
        "{words}"
    );
}
