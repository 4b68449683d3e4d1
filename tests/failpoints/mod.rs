//! A disk server that dies exactly there: in the middle of a copy-up, a flush, an attach, a seal, a
//! take-over. Whatever it had answered is there afterwards, and what it had not answered is done by
//! the next one (ublk) or never happened (FUSE).
//!
//! On ublk (`make vm-test`) an ext4 with a writer is on the device all the time and hears nothing. Over
//! FUSE a disk ends with its server, so there the writer writes to the device itself, hears an error,
//! and the disk is attached again.

mod armed;
mod writer;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ploop_snapshotter::link::{Delta, Disk, Kind};
use rustix::process::Signal;

use crate::support::device::{open, read, write};
use crate::support::ploopd::{Mounted, Ploopd, alive, run, wait_until};
use armed::Armed;
use writer::{BLOCK, Writers};

const MIB: u64 = 1 << 20;
/// The disk with the writers.
const SIZE: u64 = 64 * MIB;
/// What they write on: so much of it, and all of it is in the layer below.
const FILE: u64 = 16 * MIB;

/// How long they may be held: more than a server waits for anything of the one before it.
const PATIENCE: Duration = Duration::from_secs(90);

/// A place where writes go: a file on a mounted disk, or the disk itself.
struct Ground {
    disk: Disk,
    mounted: Option<Mounted>,
}

impl Ground {
    fn new(disk: Disk, ublk: bool) -> Self {
        let mounted = ublk.then(|| Mounted::new(&disk.device));
        Self { disk, mounted }
    }

    fn open(&self) -> fs::File {
        match &self.mounted {
            Some(mounted) => open(&mounted.path("data")),
            None => open(&self.disk.device),
        }
    }
}

/// A sealed layer in which every block says that nobody has written it yet.
fn layer(server: &Ploopd) -> Delta {
    let mut delta = server.delta("layer", SIZE);
    let disk = server
        .attach("layer", std::slice::from_ref(&delta))
        .unwrap();
    let ublk = server.is_ublk();
    if ublk {
        run("mkfs.ext4", &["-q", "-F", disk.device.to_str().unwrap()]);
    }
    let ground = Ground::new(disk, ublk);
    if let Some(mounted) = &ground.mounted {
        fs::File::create(mounted.path("data")).unwrap();
    }
    writer::prepare(&ground.open(), FILE);
    drop(ground);
    delta.seal = server.seal("layer").unwrap();
    assert!(delta.seal.is_some());
    delta
}

/// Runs writers over a layer, lets the server die at `places` while `act` goes on, and looks at everything.
fn dies_at(places: &[&'static str], act: impl FnOnce(&Armed)) {
    let armed = Armed::start();
    let server = &armed.server;
    let ublk = server.is_ublk();
    let chain = [layer(server), server.delta("top", SIZE)];
    let ground = Ground::new(server.attach("top", &chain).unwrap(), ublk);
    let writers = Writers::start(|| ground.open(), FILE / BLOCK);
    wait_until("they write", || writers.acts() > 20);

    let before = server.pid();
    let begun = Instant::now();
    for place in places {
        armed.arm(place);
    }
    act(&armed);
    for place in places {
        wait_until(&format!("the server is at {place}"), || {
            armed.reached(place)
        });
    }
    wait_until("the next one is there", || {
        let seen = server.seen();
        seen.alive && seen.hello.pid != before && alive(seen.hello.pid)
    });
    eprintln!(
        "{places:?}: the next one is there after {:.1?}",
        begun.elapsed()
    );
    let mut ground = ground;
    let written = if ublk {
        let went = writers.acts();
        let again = Instant::now();
        while writers.acts() < went + 100 {
            let log = || server.log();
            assert!(
                again.elapsed() < PATIENCE,
                "{places:?}: nobody writes\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        writers.end().expect("nobody heard of it")
    } else {
        let written = writers.broken();
        ground = Ground::new(server.attach("top", &chain).unwrap(), ublk);
        written
    };
    written.check(&ground.open(), &format!("{places:?}"));
    if ublk {
        ground.mounted = None;
        run("e2fsck", &["-fn", ground.disk.device.to_str().unwrap()]);
    }
    assert!(server.detach("top").unwrap());
    check(&chain);

    // And for whoever opens the files next.
    let again = Ground::new(server.attach("top", &chain).unwrap(), ublk);
    written.check(&again.open(), &format!("{places:?}, opened again"));
    drop(again);
    assert!(server.detach("top").unwrap());
    wait_until("nothing is left", || server.devices() == 0);
}

/// The tool finds no defect in this chain.
fn check(chain: &[Delta]) {
    let paths = chain.iter().map(|delta| delta.path.to_str().unwrap());
    let done = Command::new(env!("CARGO_BIN_EXE_ploop"))
        .arg("check")
        .args(paths)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&done.stdout);
    // A place that was given out before one that was answered for, and was not itself, stays a gap. Its bytes are the
    // host's again: a hole, and a note, is all that may be left of it.
    let harmless =
        |line: &str| line.ends_with(": clean") || line.contains("are holes that nothing uses");
    let mut findings = words.lines().filter(|line| !line.starts_with(' '));
    match done.status.code() {
        Some(0) => {}
        Some(3) if findings.all(harmless) => {}
        code => panic!("{code:?}: {words}"),
    }
}

#[test]
fn in_the_middle_of_a_copy_up() {
    for place in ["copy-up-read", "copy-up-written", "copy-up-published"] {
        dies_at(&[place], |_| {});
    }
}

#[test]
fn in_the_middle_of_a_flush() {
    for place in [
        "flush-data-synced",
        "flush-index-written",
        "flush-index-synced",
    ] {
        dies_at(&[place], |_| {});
    }
}

/// Another disk, open.
fn other(server: &Ploopd) -> (Delta, fs::File) {
    let delta = server.delta("other", 4 * MIB);
    let disk = server
        .attach("other", std::slice::from_ref(&delta))
        .unwrap();
    let file = open(&disk.device);
    (delta, file)
}

/// Another disk is being attached: the caller hears nothing of it, and no half-made device stays.
fn attaches(armed: &Armed) {
    let server = &armed.server;
    let (delta, file) = other(server);
    write(&file, MIB, &[7; 4096]);
    assert_eq!(read(&file, MIB, 4096), [7; 4096]);
    drop(file);
    assert!(server.detach("other").unwrap());
    check(&[delta]);
}

#[test]
fn in_the_middle_of_an_attach() {
    for place in ["attach-opened", "attach-started", "attach-written"] {
        dies_at(&[place], attaches);
    }
}

/// The kernel has the device and the registry its number, and nobody has started it.
#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn between_the_note_of_a_device_and_its_start() {
    for place in ["attach-noted", "queue-mapped"] {
        dies_at(&[place], attaches);
    }
}

/// A layer is being sealed, as Commit does it: the caller asks again, as Commit does, and the layer is
/// whole and bears its seal.
#[test]
fn in_the_middle_of_a_seal() {
    for place in [
        "detach-device-gone",
        "close-flushed",
        "close-closed",
        "detach-closed",
        "detach-written",
    ] {
        dies_at(&[place], |armed| {
            let server = &armed.server;
            let mut delta = server.delta("other", 4 * MIB);
            let chain = std::slice::from_ref(&delta);
            let disk = server.attach("other", chain).unwrap();
            let file = open(&disk.device);
            write(&file, MIB, &[9; 4096]);
            file.sync_data().unwrap();
            drop(file);
            let mut tries = 0;
            let seal = loop {
                match server.seal("other") {
                    Ok(Some(seal)) => break seal,
                    Ok(None) => {}
                    Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
                }
                tries += 1;
                assert!(tries < 20, "{place}: no seal");
                server.attach("other", chain).unwrap();
            };
            delta.seal = Some(seal);
            let view = server.view("view", std::slice::from_ref(&delta)).unwrap();
            let bytes = first_of(&view.device, 2 * MIB);
            let from = usize::try_from(MIB).unwrap();
            assert_eq!(bytes[from..from + 4096], [9; 4096], "{place}");
            assert!(server.detach("view").unwrap());
            check(&[delta]);
        });
    }
}

fn first_of(device: &Path, len: u64) -> Vec<u8> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = fs::File::open(device).unwrap();
    file.take(len).read_to_end(&mut bytes).unwrap();
    bytes
}

/// The next one dies while it takes over, and the one after it, and the one after that.
#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn in_the_middle_of_a_take_over() {
    let places = ["recovery-begun", "recovery-fetched", "recovery-ended"];
    for at in [&places[..1], &places[1..2], &places[2..], &places[..]] {
        dies_at(at, |armed| dies_as_it_takes_over(armed, at));
    }
}

/// It has mapped a device's table of requests, and fetched nothing: Linux 6.12 lets no other map it, and
/// begins no other take-over.
#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn between_the_map_of_a_queue_and_its_first_fetch() {
    let at = ["queue-mapped"];
    dies_at(&[], |armed| dies_as_it_takes_over(armed, &at));
}

/// A server with another disk is killed, and the next ones die at these places.
fn dies_as_it_takes_over(armed: &Armed, places: &[&str]) {
    let server = &armed.server;
    let (delta, file) = other(server);
    write(&file, MIB, &[3; 4096]);
    // Some of them are passed by an attach too.
    for place in places {
        armed.arm(place);
    }
    server.signal(Signal::KILL);
    for place in places {
        wait_until(&format!("the server is at {place}"), || {
            armed.reached(place)
        });
    }
    assert_eq!(read(&file, MIB, 4096), [3; 4096]);
    drop(file);
    std::thread::sleep(Duration::from_millis(100));
    assert!(server.detach("other").unwrap());
    check(&[delta]);
}
