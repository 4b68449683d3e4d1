//! ploop-snapshotter dies between two steps of Prepare, View, Commit, Remove. The next one knows what
//! was promised: what containerd then asks again works, and nothing is left that nobody asks for.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use containerd_snapshots::api::types::Mount;
use tonic::Code;

use super::client::{Client, code};
use super::daemon::{Daemon, Place};

const CLEAN: &str = "[service]\ndetach_on_stop = true\n";

/// A place with one layer, and a daemon that dies where it is told to.
struct House {
    place: Place,
    daemon: Option<Daemon>,
    client: Client,
}

impl House {
    async fn new() -> Self {
        let place = Place::new(CLEAN);
        let daemon = Some(place.start());
        let client = place.client().await;
        let mounts = client.prepare("making base", "").await.unwrap();
        mounted(&place, &mounts, |root| {
            std::fs::write(root.join("base"), "b").unwrap()
        });
        client.commit("base", "making base", &[]).await.unwrap();
        Self {
            place,
            daemon,
            client,
        }
    }

    /// Arms a step; whatever is asked then ends in a death there.
    fn arm(&self, step: &str) {
        self.place.arm(step);
    }

    /// It has died at that step, and another one runs.
    async fn next(&mut self, step: &str) {
        let ploopd = self.place.ploopd();
        self.daemon.take().unwrap().died();
        assert!(self.place.reached(step), "it died elsewhere than at {step}");
        self.daemon = Some(self.place.start());
        self.client = self.place.client().await;
        assert_eq!(self.place.ploopd(), ploopd, "no disk server had to die");
    }

    fn deltas(&self) -> usize {
        std::fs::read_dir(self.place.path("root/deltas"))
            .unwrap()
            .count()
    }

    async fn deltas_become(&self, number: usize) {
        let begun = Instant::now();
        while self.deltas() != number {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{} files",
                self.deltas()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Mounts as containerd does, and unmounts.
fn mounted<T>(place: &Place, mounts: &[Mount], act: impl FnOnce(&Path) -> T) -> T {
    let point: PathBuf = place.path("mnt");
    std::fs::create_dir_all(&point).unwrap();
    let [mount] = mounts else {
        panic!("one mount: {mounts:?}");
    };
    let run = |program: &str, arguments: &[&str]| {
        let done = Command::new(program).args(arguments).output().unwrap();
        assert!(done.status.success(), "{program} {arguments:?}: {done:?}");
    };
    let at = point.to_str().unwrap();
    let options = mount.options.join(",");
    run(
        "mount",
        &["-t", &mount.r#type, "-o", &options, &mount.source, at],
    );
    let answer = act(&point);
    run("umount", &[at]);
    answer
}

fn read(root: &Path, name: &str) -> String {
    std::fs::read_to_string(root.join(name)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_prepare_and_view() {
    let mut house = House::new().await;
    for step in ["reserved", "delta made", "attached", "ready"] {
        house.arm(step);
        house.client.prepare("a", "base").await.unwrap_err();
        house.next(step).await;
        // Only what was ready is there; everything else never was.
        let mounts = if step == "ready" {
            assert_eq!(
                code(house.client.prepare("a", "base").await),
                Code::AlreadyExists
            );
            house.client.mounts("a").await.unwrap()
        } else {
            assert_eq!(code(house.client.stat("a").await), Code::NotFound, "{step}");
            house.deltas_become(1).await;
            house.client.prepare("a", "base").await.unwrap()
        };
        mounted(&house.place, &mounts, |root| {
            assert_eq!(read(root, "base"), "b")
        });
        assert_eq!(house.deltas(), 2, "{step}");
        house.client.remove("a").await.unwrap();
        house.deltas_become(1).await;
    }
    for step in ["reserved", "attached", "ready"] {
        house.arm(step);
        house.client.view("v", "base").await.unwrap_err();
        house.next(step).await;
        if step != "ready" {
            assert_eq!(code(house.client.stat("v").await), Code::NotFound, "{step}");
            house.client.view("v", "base").await.unwrap();
        }
        let mounts = house.client.mounts("v").await.unwrap();
        mounted(&house.place, &mounts, |root| {
            assert_eq!(read(root, "base"), "b")
        });
        house.client.remove("v").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_commit() {
    let mut house = House::new().await;
    for step in ["committing", "flushed", "sealed", "protected", "committed"] {
        let mounts = house.client.prepare("a", "base").await.unwrap();
        mounted(&house.place, &mounts, |root| {
            std::fs::write(root.join("new"), step).unwrap()
        });
        house.arm(step);
        house.client.commit("new", "a", &[]).await.unwrap_err();
        house.next(step).await;
        let again = house.client.commit("new", "a", &[]).await;
        if step == "committed" {
            assert_eq!(code(again), Code::AlreadyExists);
        } else {
            again.unwrap();
        }
        assert_eq!(code(house.client.stat("a").await), Code::NotFound);
        let mounts = house.client.view("v", "new").await.unwrap();
        mounted(&house.place, &mounts, |root| {
            assert_eq!(
                (read(root, "base"), read(root, "new")),
                ("b".into(), step.into())
            );
        });
        assert_eq!(house.deltas(), 2, "{step}");
        house.client.remove("v").await.unwrap();
        house.client.remove("new").await.unwrap();
        house.deltas_become(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_remove() {
    let mut house = House::new().await;
    for step in ["removed", "released", "taken apart"] {
        house.client.prepare("a", "base").await.unwrap();
        house.arm(step);
        // Its parts go after the answer.
        let answer = house.client.remove("a").await;
        assert!(step != "removed" || answer.is_err());
        house.next(step).await;
        assert_eq!(
            code(house.client.remove("a").await),
            Code::NotFound,
            "{step}"
        );
        house.deltas_become(1).await;
    }
    for step in ["removed", "taken apart"] {
        house.client.view("v", "base").await.unwrap();
        house.arm(step);
        let _ = house.client.remove("v").await;
        house.next(step).await;
        assert_eq!(code(house.client.stat("v").await), Code::NotFound, "{step}");
        let mounts = house.client.view("v", "base").await.unwrap();
        mounted(&house.place, &mounts, |root| {
            assert_eq!(read(root, "base"), "b")
        });
        house.client.remove("v").await.unwrap();
    }
    house.arm("taken apart");
    // It may die before the answer is out.
    let _ = house.client.remove("base").await;
    house.next("taken apart").await;
    house.deltas_become(0).await;
    assert_eq!(house.client.names(&[]).await, [""; 0]);
}

/// What a label asks for is made once for all, and given to a container of its own: either is whole or gone.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_size() {
    const LABEL: &str = "containerd.io/snapshot/ploop.size";
    let mut house = House::new().await;
    let fitting = ["fitting", "fit attached", "fit resized", "fitted"];
    for step in fitting {
        house.arm(step);
        let sized = house.client.prepare_with("a", "base", &[(LABEL, "1Gi")]);
        sized.await.unwrap_err();
        house.next(step).await;
        assert_eq!(code(house.client.stat("a").await), Code::NotFound, "{step}");
        // It becomes durable with the first who stands on it.
        house.deltas_become(1).await;
    }
    let mounts = house
        .client
        .prepare_with("a", "base", &[(LABEL, "1Gi")])
        .await;
    mounted(&house.place, &mounts.unwrap(), |root| {
        assert_eq!(read(root, "base"), "b")
    });
    assert_eq!(house.deltas(), 3);
    house.client.remove("a").await.unwrap();

    let mounts = house
        .client
        .prepare_with("a", "base", &[(LABEL, "64Mi")])
        .await;
    mounts.unwrap();
    for step in ["resize attached", "resize grown", "resize done"] {
        house.arm(step);
        let resized = house.client.update("a", &[(LABEL, "512Mi")], None).await;
        resized.unwrap_err();
        house.next(step).await;
    }
    // Nobody was told that it is done, but it is, and somebody writes behind the old end.
    let bytes = vec![0x5a; 300 << 20];
    let mounts = house.client.mounts("a").await.unwrap();
    mounted(&house.place, &mounts, |root| {
        std::fs::write(root.join("large"), &bytes).unwrap()
    });
    for size in ["512Mi", "1Gi"] {
        house
            .client
            .update("a", &[(LABEL, size)], None)
            .await
            .unwrap();
        let mounts = house.client.mounts("a").await.unwrap();
        mounted(&house.place, &mounts, |root| {
            assert!(
                std::fs::read(root.join("large")).unwrap() == bytes,
                "{size}"
            );
            assert_eq!(read(root, "base"), "b");
        });
    }
    house.client.remove("a").await.unwrap();
    house.client.remove("base").await.unwrap();
    house.deltas_become(0).await;
}
