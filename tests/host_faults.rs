//! What the host does to the files of disks: a sync that fails alone, bytes of a sealed layer that change.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ploop_snapshotter::io::Piece;
use ploop_snapshotter::link::{Delta, Format};
use ploop_snapshotter::units::ClusterSize;
use rustix::process::Signal;

use crate::support::ploopd::{Mounted, Ploopd, run, wait_until};
use crate::support::unsynced::Unsynced;
use crate::support::{device, images};

const MIB: u64 = 1 << 20;

/// Every write succeeds and one sync does not: the kernel may have dropped anything. That disk is given up, for
/// good and in words; its neighbour is not; and whoever opens the file again finds what was flushed before.
#[test]
fn a_sync_that_fails_alone_ends_that_disk_and_no_other() {
    let host = Unsynced::new();
    let server = Ploopd::start();
    let deltas = ["bad", "good"].map(|name| {
        images::create(&host.behind(name), 16 * MIB, ClusterSize::DEFAULT);
        Delta {
            path: host.face(name),
            format: Format::Ploop,
            seal: None,
        }
    });
    let attach = |index: usize| {
        let delta = std::slice::from_ref(&deltas[index]);
        server.attach(["bad", "good"][index], delta).unwrap()
    };
    let disks = [attach(0), attach(1)];
    let [bad, good] = disks.each_ref().map(|disk| device::open(&disk.device));
    for file in [&bad, &good] {
        device::write(file, MIB, &[1; 8192]);
        file.sync_data().unwrap();
    }

    host.fail(Some("bad"));
    device::write(&bad, 2 * MIB, &[2; 8192]);
    device::write(&good, 2 * MIB, &[2; 8192]);
    bad.sync_data().unwrap_err();
    good.sync_data().unwrap();
    // The next sync would succeed, and prove nothing.
    host.fail(None);
    bad.sync_data().unwrap_err();
    Piece::from_bytes(&[3; 4096])
        .with_bytes(|bytes| bad.write_all_at(bytes, 3 * MIB))
        .unwrap_err();
    let log = server.log();
    assert!(log.contains("the disk answers errors from now on"), "{log}");
    assert!(log.contains("sync of data failed"), "{log}");
    for disk in server.block(server.servers().list()).unwrap() {
        assert_eq!(disk.failed.is_some(), disk.id == "bad", "{disk:?}");
    }
    server.seal("bad").unwrap_err();
    device::write(&good, 3 * MIB, &[3; 8192]);
    good.sync_data().unwrap();
    assert_eq!(device::read(&good, 3 * MIB, 8192), [3; 8192]);

    drop(bad);
    // It is let go all the same, and whoever asks hears once more that it was not closed in order.
    let error = server.detach("bad").unwrap_err().to_string();
    assert!(error.contains("sync of data failed"), "{error}");
    assert!(!server.detach("bad").unwrap());
    let bad = device::open(&attach(0).device);
    assert_eq!(device::read(&bad, MIB, 8192), [1; 8192], "flushed before");
    device::write(&bad, 2 * MIB, &[4; 8192]);
    bad.sync_data().unwrap();
    drop((bad, good));
    // What it refused is remembered: it serves, and is no layer.
    let error = server.seal("bad").unwrap_err().to_string();
    assert!(
        error.contains("disk bad answered 2 writes or syncs with errors"),
        "{error}"
    );
    assert!(server.detach("bad").unwrap());
    attach(0);
    server.seal("bad").unwrap_err();
    assert!(server.detach("bad").unwrap());
    assert!(server.seal("good").unwrap().is_some());
}

/// A server died, and the next one's first sync fails: it was to cover what the pending file names. The disk is refused; who
/// opens it after that must not find the entries, whose data may be gone.
#[test]
fn a_sync_that_fails_when_a_disk_is_opened_leaves_what_was_flushed() {
    let host = Unsynced::new();
    let mut server = Ploopd::folders();
    // Over ublk the next server takes the disk over before anything could fail.
    let config = fs::read_to_string(server.config()).unwrap();
    let fuse = "[disk_server]\ntransport = \"fuse\"\n";
    fs::write(server.config(), config.replace("[disk_server]\n", fuse)).unwrap();
    server.connect(true).unwrap();
    images::create(&host.behind("bad"), 16 * MIB, ClusterSize::DEFAULT);
    let delta = Delta {
        path: host.face("bad"),
        format: Format::Ploop,
        seal: None,
    };
    let attach = |id| server.attach(id, std::slice::from_ref(&delta));
    let disk = device::open(&attach("bad").unwrap().device);
    device::write(&disk, MIB, &[1; 8192]);
    disk.sync_data().unwrap();
    device::write(&disk, 2 * MIB, &[2; 8192]);
    drop(disk);
    let killed = server.pid();
    server.signal(Signal::KILL);
    wait_until("another server", || {
        server.pid() != killed && server.seen().alive
    });
    assert_eq!(server.block(server.servers().list()).unwrap(), []);
    host.fail(Some("bad"));
    let error = attach("b").unwrap_err().to_string();
    assert!(error.contains("in-use mark durable"), "{error}");
    host.fail(None);
    let disk = device::open(&attach("b").unwrap().device);
    assert_eq!(device::read(&disk, MIB, 8192), [1; 8192], "flushed before");
    assert_eq!(device::read(&disk, 2 * MIB, 8192), [0; 8192]);
    drop(disk);
    server.seal("b").unwrap_err();
    assert!(server.detach("b").unwrap());
}

/// Its user may never write again, as an XFS that has shut down: that the sync failed is remembered all the same.
#[test]
fn a_sync_that_fails_is_remembered_though_nothing_is_written_after_it() {
    let host = Unsynced::new();
    let server = Ploopd::start();
    images::create(&host.behind("bad"), 16 * MIB, ClusterSize::DEFAULT);
    let delta = Delta {
        path: host.face("bad"),
        format: Format::Ploop,
        seal: None,
    };
    let attach = || server.attach("bad", std::slice::from_ref(&delta)).unwrap();
    let bad = device::open(&attach().device);
    device::write(&bad, MIB, &[1; 8192]);
    host.fail(Some("bad"));
    bad.sync_data().unwrap_err();
    host.fail(None);
    drop(bad);
    server.detach("bad").unwrap_err();
    attach();
    let error = server.seal("bad").unwrap_err().to_string();
    assert!(
        error.contains("disk bad answered 1 writes or syncs with errors"),
        "{error}"
    );
    assert!(server.detach("bad").unwrap());
}

/// Bytes of a file that nobody else has.
fn content() -> Vec<u8> {
    (0..16 * 1024_u32)
        .flat_map(|word| word.wrapping_mul(0x9E37_79B9).to_le_bytes())
        .collect()
}

/// Changes one byte of the only place of a file that holds these.
fn flip(path: &Path, bytes: &[u8]) {
    let all = fs::read(path).unwrap();
    let places: Vec<_> = all
        .windows(bytes.len())
        .enumerate()
        .filter(|(_, window)| *window == bytes)
        .map(|(at, _)| at)
        .collect();
    let [at] = places[..] else {
        panic!("found at {places:?}");
    };
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[!bytes[0]], at as u64).unwrap();
    file.sync_data().unwrap();
}

/// The seal speaks of header and index, ext4 of its own metadata: a byte of a file's contents is nobody's.
#[test]
fn of_a_layers_bytes_ext4_notices_its_own_and_nobody_a_files() {
    let server = Ploopd::start();
    let layer = server.delta("layer", 64 * MIB);
    let disk = server
        .attach("layer", std::slice::from_ref(&layer))
        .unwrap();
    run(
        "mkfs.ext4",
        &[
            "-q",
            "-O",
            "metadata_csum,^has_journal",
            disk.device.to_str().unwrap(),
        ],
    );
    let mounted = Mounted::new(&disk.device);
    fs::write(mounted.path("file"), content()).unwrap();
    fs::create_dir(mounted.path("folder")).unwrap();
    fs::write(mounted.path("folder/a-name-of-its-own"), "").unwrap();
    drop(mounted);
    let seal = server.seal("layer").unwrap();
    let layer = Delta { seal, ..layer };
    let on_top = |name: &str| {
        let deltas = [layer.clone(), server.delta(name, 64 * MIB)];
        server.attach(name, &deltas).unwrap()
    };

    flip(&layer.path, &content()[8192..8256]);
    let disk = on_top("data");
    let mounted = Mounted::new(&disk.device);
    let mut expected = content();
    expected[8192] = !expected[8192];
    assert!(
        fs::read(mounted.path("file")).unwrap() == expected,
        "as the host has it"
    );
    assert_eq!(fs::read_dir(mounted.path("folder")).unwrap().count(), 1);
    drop(mounted);
    server.detach("data").unwrap();

    flip(&layer.path, b"a-name-of-its-own");
    let disk = on_top("metadata");
    let mounted = Mounted::new(&disk.device);
    let error = fs::read_dir(mounted.path("folder"))
        .and_then(|mut entries| entries.try_for_each(|entry| entry.map(drop)))
        .unwrap_err();
    let bad = [
        rustix::io::Errno::BADMSG,
        rustix::io::Errno::UCLEAN,
        rustix::io::Errno::IO,
    ];
    let code = error.raw_os_error();
    assert!(
        bad.iter().any(|it| code == Some(it.raw_os_error())),
        "{error}"
    );
    assert!(
        fs::read(mounted.path("file")).unwrap() == expected,
        "all else is there"
    );
    drop(mounted);
    server.detach("metadata").unwrap();

    // The file's own words: nothing is wrong with header and index.
    let check = std::process::Command::new(env!("CARGO_BIN_EXE_ploop"))
        .arg("check")
        .arg(&layer.path)
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(0), "{check:?}");
}
