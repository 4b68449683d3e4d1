//! What the tool says of a node, held against `df` in the container and `du` on the host.
//!
//! Needs root, FUSE and loop devices.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::daemon::Place;
use crate::support::ploopd::run;

const MIB: u64 = 1 << 20;

fn ploop(place: &Place, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ploop"))
        .args(arguments)
        .arg("--config")
        .arg(place.path("config.toml"))
        .output()
        .unwrap()
}

fn said(place: &Place, arguments: &[&str]) -> String {
    let output = ploop(place, arguments);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(place: &Place, arguments: &[&str]) -> String {
    let output = ploop(place, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// The figures of one snapshot.
fn found(place: &Place, key: &str) -> Value {
    let all: Value = serde_json::from_str(&said(place, &["ls", "--json"])).unwrap();
    let snapshots = all["snapshots"].as_array().unwrap();
    let mut found = snapshots.iter().filter(|seen| seen["key"] == key);
    let one = found.next().unwrap_or_else(|| panic!("{key}: {all:#}"));
    assert_eq!(found.next(), None);
    one.clone()
}

fn agree(what: &str, ours: u64, theirs: u64) {
    let far = ours.abs_diff(theirs) * 100 > theirs;
    assert!(!far, "{what}: {ours}, and they say {theirs}: over 1 %");
}

/// A figure in the first column of what another program prints last.
fn theirs(program: &str, arguments: &[&str]) -> u64 {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().last().unwrap();
    last.split_whitespace().next().unwrap().parse().unwrap()
}

/// A mount that ends before its daemon does.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_is_what_df_and_du_say() {
    let place = Place::new("[service]\ndetach_on_stop = true\n");
    let error = refused(&place, &["ls"]);
    assert!(
        error.contains("no ploop-snapshotter answers at") && error.contains("start it"),
        "{error}"
    );
    let _daemon = place.start();
    let client = place.client().await;
    client.prepare("making", "").await.unwrap();
    client
        .commit("k8s.io/1/layer", "making", &[])
        .await
        .unwrap();
    let key = "default/2/web";
    let mounts = client.prepare(key, "k8s.io/1/layer").await.unwrap();
    client
        .view("default/3/view", "k8s.io/1/layer")
        .await
        .unwrap();

    let idle = found(&place, key);
    assert_eq!(idle["inside"], Value::Null, "nobody has it mounted");
    assert_eq!(idle["size_bytes"], 256 * MIB);
    assert_eq!(idle["depth"], 3, "golden, layer, its own");

    let point = place.path("mnt");
    std::fs::create_dir(&point).unwrap();
    let at = point.to_str().unwrap();
    run("mount", &["-o", "discard", &mounts[0].source, at]);
    let mounted = Mounted(&point);
    std::fs::write(point.join("file"), vec![7; 100 << 20]).unwrap();
    run("sync", &["-f", at]);

    let seen = found(&place, key);
    let inside = &seen["inside"];
    for (column, field) in [
        ("size", "size_bytes"),
        ("used", "used_bytes"),
        ("avail", "available_bytes"),
        ("itotal", "inodes"),
        ("iavail", "free_inodes"),
    ] {
        let theirs = theirs("df", &["-B1", &format!("--output={column}"), at]);
        agree(column, inside[field].as_u64().unwrap(), theirs);
    }
    let delta = place.path("root/deltas/2.hds");
    let on_host = theirs("du", &["-B1", delta.to_str().unwrap()]);
    assert!(on_host > 100 * MIB);
    agree("own", seen["own_bytes"].as_u64().unwrap(), on_host);
    let (usage, _) = client.usage(key).await.unwrap();
    agree("Usage", usage.unsigned_abs(), on_host);
    let layer = found(&place, "k8s.io/1/layer");
    let golden = place.path("root/golden");
    let below = layer["own_bytes"].as_u64().unwrap()
        + theirs("du", &["-B1", "-s", "-S", golden.to_str().unwrap()]);
    // The folder itself is counted by du.
    assert!(seen["shared_bytes"].as_u64().unwrap().abs_diff(below) <= 4096);
    let metrics = place.http("/metrics");
    let used = inside["used_bytes"].as_u64().unwrap();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("ploop_container_filesystem_used_bytes{"))
        .unwrap();
    agree(
        line,
        line.rsplit(' ').next().unwrap().parse().unwrap(),
        used,
    );
    assert!(line.contains("container=\"web\"") && line.contains("namespace=\"default\""));

    // Every row has every column.
    let text = said(&place, &["ls"]);
    assert_eq!(text.lines().count(), 4, "{text}");
    let heads = text.lines().next().unwrap();
    assert!(heads.starts_with("SNAPSHOTTER  KEY"), "{heads}");
    let text = said(&place, &["df"]);
    assert!(
        text.contains("web") && text.contains("and the host has it"),
        "{text}"
    );
    let text = said(&place, &["tree"]);
    assert!(text.starts_with("ploop\n└─ k8s.io/1/layer: "), "{text}");

    let error = refused(&place, &["resize", "web", "64Mi"]);
    assert!(error.contains("mounted"), "{error}");
    drop(mounted);
    let error = refused(&place, &["resize", "web", "64Mi"]);
    assert!(
        error.contains("does not fit") || error.contains("uses"),
        "{error}"
    );
    for (who, size, answer) in [
        (key, "1Gi", "default/2/web: 256 MiB -> 1.00 GiB\n"),
        ("we", "1Gi", "default/2/web: has 1.00 GiB already\n"),
        ("web", "200Mi", "default/2/web: 1.00 GiB -> 200 MiB\n"),
    ] {
        assert_eq!(said(&place, &["resize", who, size]), answer);
    }
    assert_eq!(found(&place, key)["size_bytes"], 200 * MIB);
    for (who, words) in [
        ("k8s.io/1/layer", "no container's"),
        ("nobody", "`ploop ls` lists them"),
    ] {
        let error = refused(&place, &["resize", who, "1Gi"]);
        assert!(error.contains(words), "{error}");
    }
}
