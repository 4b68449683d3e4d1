//! Several disk servers side by side: who gets a disk, who waits for whom, and how an upgrade goes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ploop_snapshotter::link::{Disk, DiskStats, Kind, Seen, Servers};
use ploop_snapshotter::seat::{Name, Seat};
use rustix::process::Signal;

use crate::support::ploopd::{Ploopd, alive, send, wait_until};

const MIB: u64 = 1 << 20;

fn several(count: usize) -> Ploopd {
    let mut server = Ploopd::folders();
    server.count = count;
    server.connect(true).unwrap();
    server
}

fn named(server: &Ploopd, name: &str) -> Option<Seen> {
    let seen = server.servers().seen();
    seen.into_iter().find(|seen| seen.name.to_string() == name)
}

/// The name of the server that a disk is on: its device's backing file lies in that seat.
fn server_of(disk: &Disk) -> String {
    let device = disk.device.file_name().unwrap().to_str().unwrap();
    let backing = fs::read_to_string(format!("/sys/block/{device}/loop/backing_file")).unwrap();
    let seat = Path::new(&backing).ancestors().nth(2).unwrap();
    seat.file_name().unwrap().to_str().unwrap().to_owned()
}

fn write(disk: &Disk, byte: u8) {
    let device = fs::File::options().write(true).open(&disk.device).unwrap();
    device.write_all_at(&[byte; 4096], MIB / 2).unwrap();
    device.sync_data().unwrap();
}

fn read(disk: &Disk) -> u8 {
    fs::read(&disk.device).unwrap()[usize::try_from(MIB / 2).unwrap()]
}

#[test]
fn new_disks_are_spread_and_found_again_by_the_next_client() {
    let mut server = several(3);
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut disks = BTreeMap::new();
    let mut on: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        let disk = server.attach(name, &[server.delta(name, MIB)]).unwrap();
        *on.entry(server_of(&disk)).or_default() += 1;
        write(&disk, 7);
        assert_eq!(read(&disk), 7);
        disks.insert(name, disk);
    }
    let two_each = ["1-1", "1-2", "1-3"].map(|name| (name.to_owned(), 2));
    assert_eq!(on, BTreeMap::from(two_each));

    let pids = |server: &Ploopd| -> Vec<u32> {
        let seen = server.servers().seen();
        seen.iter().map(|seen| seen.hello.pid).collect()
    };
    let before = pids(&server);
    let error = server
        .block(Servers::start(server.options(true)))
        .err()
        .unwrap();
    let words = error.to_string();
    assert!(
        words.contains("belong to another ploop-snapshotter (process"),
        "{words}"
    );
    server.connect(true).unwrap();
    assert_eq!(pids(&server), before, "adopted, all of them");
    let mut listed = server.block(server.servers().list()).unwrap();
    listed.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(listed, disks.values().cloned().collect::<Vec<_>>());
    let counted = server.block(server.servers().stats(None)).unwrap();
    assert_eq!(counted.len(), names.len());
    for disk in &counted {
        let timed: Vec<_> = disk
            .latencies
            .iter()
            .map(|latency| {
                let steps = latency.steps.iter().map(|(_, count)| count);
                (latency.op, steps.sum::<u64>() + latency.longer)
            })
            .collect();
        let (reads, writes) = (disk.reads, disk.writes);
        let (flushes, discards) = (disk.flushes, disk.discards);
        let all = [
            ("read", reads),
            ("write", writes),
            ("flush", flushes),
            ("discard", discards),
        ];
        assert_eq!(timed, all, "every request is timed");
    }
    let busy = |disk: &DiskStats| disk.reads > 0 && disk.writes > 0 && disk.flushes > 0;
    assert!(counted.iter().all(busy), "{counted:?}");
    for (name, disk) in &disks {
        let again = server.attach(name, &disk.deltas).unwrap();
        assert_eq!(again.device, disk.device, "where it was");
        assert!(server.detach(name).unwrap());
        assert!(!server.detach(name).unwrap(), "detached is detached");
    }
    assert!(server.loops().is_empty());
}

/// A server that does not come back keeps its own disks waiting, for a bounded time, and nobody else.
#[test]
fn a_server_that_is_down_gets_no_new_disks_and_its_own_wait_for_it() {
    let mut server = Ploopd::folders();
    server.count = 2;
    let mut options = server.options(true);
    options.limits.absent = Duration::from_millis(700);
    server.connect_with(options).unwrap();
    let delta = server.delta("a", MIB);
    let disk = server.attach("a", std::slice::from_ref(&delta)).unwrap();
    assert_eq!(server_of(&disk), "1-1");
    write(&disk, 7);

    let config = fs::read(server.config()).unwrap();
    fs::write(server.config(), "no configuration").unwrap();
    let killed = named(&server, "1-1").unwrap().hello.pid;
    send(killed, Signal::KILL);
    wait_until("its death is seen", || {
        !named(&server, "1-1").unwrap().alive
    });
    for name in ["b", "c"] {
        let disk = server.attach(name, &[server.delta(name, MIB)]).unwrap();
        assert_eq!(server_of(&disk), "1-2", "though it has more");
    }
    let begun = Instant::now();
    let error = server
        .attach("a", std::slice::from_ref(&delta))
        .unwrap_err();
    let took = begun.elapsed();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(took > Duration::from_millis(600), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");

    fs::write(server.config(), config).unwrap();
    wait_until("it is back", || named(&server, "1-1").unwrap().starts == 2);
    let disk = server.attach("a", &[delta]).unwrap();
    assert_eq!(read(&disk), 7);
}

/// The death of one process is a pause for the callers of its disks, and no error.
#[test]
fn a_call_waits_while_its_server_is_started_again() {
    let server = several(2);
    let delta = server.delta("a", MIB);
    server.attach("a", std::slice::from_ref(&delta)).unwrap();
    let killed = server.pid();
    send(killed, Signal::KILL);
    wait_until("it dies", || !alive(killed));
    let disk = server.attach("a", &[delta]).unwrap();
    wait_until("the monitor knows it", || server.pid() != killed);
    assert_eq!(server_of(&disk), "1-1");
    assert!(server.detach("a").unwrap());
}

/// A program of our own that can be exchanged for another build: what follows an ELF file is ignored.
fn install(server: &mut Ploopd, more: &str) {
    let binary = server.folder.path().join("ploopd");
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_ploopd")).unwrap();
    bytes.extend_from_slice(more.as_bytes());
    // As a package manager does it: a new file under the old name.
    let fresh = binary.with_extension("new");
    fs::write(&fresh, bytes).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&fresh, mode).unwrap();
    fs::rename(&fresh, &binary).unwrap();
    server.binary = binary;
}

#[test]
fn an_upgrade_moves_no_disk_and_the_old_server_ends_with_its_last() {
    let mut server = Ploopd::folders();
    install(&mut server, "one");
    server.connect(true).unwrap();
    let first = server.delta("a", MIB);
    let a = server.attach("a", std::slice::from_ref(&first)).unwrap();
    let old = server.pid();
    install(&mut server, "one");
    let renew = |server: &Ploopd| server.block(server.servers().renew()).unwrap();
    assert_eq!(renew(&server), 0, "a copy of the same is no upgrade");

    install(&mut server, "two");
    assert_eq!(renew(&server), 1);
    assert_eq!(renew(&server), 1, "it still retires, and nothing is new");
    let b = server.attach("b", &[server.delta("b", MIB)]).unwrap();
    assert_eq!((server_of(&a), server_of(&b)), ("1-1".into(), "2-1".into()));
    assert_eq!(server.attach("a", &a.deltas).unwrap(), a, "as it was");
    let builds: Vec<_> = server
        .servers()
        .seen()
        .iter()
        .map(|seen| (seen.hello.build.clone(), seen.retiring))
        .collect();
    assert_ne!(builds[0].0, builds[1].0);
    assert_eq!((builds[0].1, builds[1].1), (true, false));

    // The next snapshotter finds both, and which of them is the old one.
    server.connect(true).unwrap();
    assert_eq!(server.pid(), old);
    assert!(named(&server, "1-1").unwrap().retiring);
    let c = server.attach("c", &[server.delta("c", MIB)]).unwrap();
    assert_eq!(server_of(&c), "2-1");
    assert_eq!(server.block(server.servers().list()).unwrap().len(), 3);
    write(&a, 3);
    assert_eq!(read(&a), 3);
    server.detach("a").unwrap();
    wait_until("the old one ends", || !alive(old));
    wait_until("its seat is free", || !server.seat().folder().exists());
    assert!(named(&server, "1-1").is_none());
    let again = server.attach("a", &[first]).unwrap();
    assert_eq!(server_of(&again), "2-1");
    assert_eq!(read(&again), 3);
}

/// Whoever restarts a ploop-snapshotter after an upgrade has done enough.
#[test]
fn a_start_after_an_upgrade_is_an_upgrade() {
    let mut server = Ploopd::folders();
    server.count = 2;
    install(&mut server, "one");
    server.connect(true).unwrap();
    let a = server.attach("a", &[server.delta("a", MIB)]).unwrap();
    install(&mut server, "two");
    server.connect(true).unwrap();
    let names = |server: &Ploopd| -> Vec<String> {
        let seen = server.servers().seen();
        seen.iter().map(|seen| seen.name.to_string()).collect()
    };
    // The one without a disk has ended.
    wait_until("one old server is left", || {
        names(&server) == ["1-1", "2-1", "2-2"]
    });
    assert_eq!(server.attach("a", &a.deltas).unwrap(), a);
}

/// Over FUSE a server that is told to end stays with its disks; the node goes on taking new ones.
#[test]
fn a_server_that_was_told_to_end_gets_another_beside_it() {
    let mut server = several(1);
    let a = server.attach("a", &[server.delta("a", MIB)]).unwrap();
    let old = server.pid();
    assert_eq!(server.block(server.servers().drain()).unwrap(), 1);
    for name in ["b", "c"] {
        server.connect(true).unwrap();
        assert_eq!(server.pid(), old);
        let disk = server.attach(name, &[server.delta(name, MIB)]).unwrap();
        assert_eq!(server_of(&disk), "2-1");
    }
    write(&a, 3);
    assert_eq!(read(&a), 3);
    server.detach("a").unwrap();
    wait_until("the old one ends", || !alive(old));
}

/// An old server that dies before its disks went is replaced in its own seat by the program that is
/// installed now: only that seat knows which devices were its. (On FUSE they are gone; what was
/// answered is not.)
#[test]
fn an_old_server_that_dies_is_replaced_by_the_new_program() {
    let mut server = Ploopd::folders();
    install(&mut server, "one");
    server.connect(true).unwrap();
    let delta = server.delta("a", MIB);
    let a = server.attach("a", std::slice::from_ref(&delta)).unwrap();
    write(&a, 9);
    let direct = fs::File::options().write(true).open(&a.device).unwrap();
    rustix::fs::fcntl_setfl(&direct, rustix::fs::OFlags::DIRECT).unwrap();
    let unflushed = ploop_snapshotter::io::Piece::from_bytes(&[4; 4096]);
    unflushed.with_bytes(|bytes| direct.write_all_at(bytes, MIB / 2).unwrap());
    drop(direct);
    let old = named(&server, "1-1").unwrap().hello;
    install(&mut server, "two");
    assert_eq!(server.block(server.servers().renew()).unwrap(), 1);
    send(old.pid, Signal::KILL);
    wait_until("the seat is taken over, found empty, and left", || {
        named(&server, "1-1").is_none()
    });
    let log = fs::read_to_string(server.seat().log()).unwrap();
    assert!(
        log.contains("the server before ended while it served disks"),
        "{log}"
    );
    assert!(log.contains("the last disk has gone: ending"), "{log}");
    assert!(!server.seat().folder().exists());
    let again = server.attach("a", &[delta]).unwrap();
    assert_eq!(server_of(&again), "2-1");
    assert_eq!(read(&again), 4, "pending entries are everybody's");
}

/// Before there were several, the one server sat in the run directory itself.
#[test]
fn a_server_of_the_old_layout_is_adopted_and_retires() {
    let mut server = Ploopd::folders();
    let plain = Seat::new(&server.run_folder(), Name::PLAIN);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_ploopd"))
        .arg("--config")
        .arg(server.config())
        .spawn()
        .unwrap();
    wait_until("it answers", || plain.socket().exists());
    server.connect(true).unwrap();
    assert_eq!(
        named(&server, "0-0").map(|seen| seen.hello.pid),
        Some(child.id())
    );
    let ended = child.wait().unwrap();
    assert!(ended.success(), "it had no disk");
    wait_until("it is forgotten", || named(&server, "0-0").is_none());
    assert!(!plain.socket().exists() && !plain.lock().exists());
    let disk = server.attach("a", &[server.delta("a", MIB)]).unwrap();
    assert_eq!(server_of(&disk), "1-1");
}

/// Where systemd starts servers, `systemctl stop` of one that serves nothing is no death; and a SIGHUP that reaches one is
/// somebody else's.
#[test]
fn a_server_that_somebody_took_away_is_forgotten_and_found_again() {
    let mut server = Ploopd::folders();
    let config = server.config();
    let start = |name: &str| {
        std::process::Command::new(env!("CARGO_BIN_EXE_ploopd"))
            .args(["--server", name, "--config"])
            .arg(&config)
            .spawn()
            .unwrap()
    };
    let (mut one, mut two) = (start("1-1"), start("1-2"));
    let seats = ["1-1", "1-2"].map(|name| Seat::new(&server.run_folder(), name.parse().unwrap()));
    wait_until("they answer", || {
        seats.iter().all(|seat| seat.socket().exists())
    });
    server.connect(false).unwrap();
    let alive = |server: &Ploopd, name| named(server, name).is_some_and(|seen| seen.alive);
    assert!(alive(&server, "1-1") && alive(&server, "1-2"));

    send(one.id(), Signal::HUP);
    send(two.id(), Signal::TERM);
    assert!(two.wait().unwrap().success(), "it had no disk");
    wait_until("it is forgotten", || named(&server, "1-2").is_none());
    let disk = server.attach("a", &[server.delta("a", MIB)]).unwrap();
    assert_eq!(server_of(&disk), "1-1");
    write(&disk, 3);
    let mut two = start("1-2");
    wait_until("it is found again", || alive(&server, "1-2"));
    assert_eq!(read(&disk), 3);
    server.detach("a").unwrap();
    for child in [&mut one, &mut two] {
        send(child.id(), Signal::TERM);
        assert!(child.wait().unwrap().success());
    }
}

/// A living server's devices are its own; a dead one's may be released by anybody with its seat's lock.
#[test]
fn devices_of_a_living_server_are_not_released() {
    let server = several(2);
    server.attach("a", &[server.delta("a", MIB)]).unwrap();
    let release = |more: &[&str]| {
        let done = std::process::Command::new(env!("CARGO_BIN_EXE_ploop"))
            .args(["release-devices", "--config"])
            .arg(server.config())
            .args(more)
            .output()
            .unwrap();
        let words = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        (done.status.code(), words)
    };
    for more in [&[][..], &["--dry-run"]] {
        let (code, words) = release(more);
        assert_eq!(code, Some(1), "{words}");
        let living = format!("server 1-1: ploopd lives (process {})", server.pid());
        assert!(words.contains(&living), "{words}");
        assert!(words.contains("2 servers live"), "{words}");
    }
    assert!(server.seat().registry().exists());

    let config = fs::read(server.config()).unwrap();
    let broken = [config.as_slice(), b"\n[disk_server2]\n"].concat();
    let pids: Vec<u32> = server
        .servers()
        .seen()
        .iter()
        .map(|seen| seen.hello.pid)
        .collect();
    // No ploopd can come back with this; the tool reads a sound one.
    fs::write(server.config(), broken).unwrap();
    for pid in &pids {
        send(*pid, Signal::KILL);
    }
    let sound = server.config().with_extension("other");
    fs::write(&sound, config).unwrap();
    wait_until("they die", || pids.iter().all(|pid| !alive(*pid)));
    // A killed server keeps its lock until the kernel has cleaned up after all of its threads, and the
    // tool waits for that: one that dies is not called living.
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_ploop"))
        .args(["release-devices", "--config"])
        .arg(&sound)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    let words = String::from_utf8(done.stdout).unwrap();
    for name in ["1-1", "1-2"] {
        let dead = format!("server {name}: dead, and has no ublk device");
        assert!(words.contains(&dead), "{words}");
    }
    assert!(
        words.contains("0 devices released, 0 not; 0 servers live"),
        "{words}"
    );
}
