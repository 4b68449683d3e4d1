//! The life of a disk server's process: adopted, killed, stopped, stuck, drained, of another version.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use ploop_snapshotter::link::{Access, Kind, Servers};
use rustix::process::Signal;

use crate::support::ploopd::{Mounted, Ploopd, alive, may_open, run, send, stopped, wait_until};

const MIB: u64 = 1 << 20;

#[test]
fn a_living_server_is_adopted_with_its_disks() {
    let mut server = Ploopd::start();
    let disk = server.attach("a", &[server.delta("a", MIB)]).unwrap();
    let pid = server.pid();
    server.connect(true).unwrap();
    assert_eq!(server.pid(), pid);
    assert_eq!(server.block(server.servers().list()).unwrap(), [disk]);
    let second = server.second();
    assert!(!second.status.success());
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        words.contains(&format!("another ploopd (process {pid}) owns")),
        "{words}"
    );
    assert!(alive(pid));
    assert_eq!(server.mounts(), 1, "the second one touched nothing");
}

/// What a container was told survives the server: its writes are there after `kill -9`, flushed or not,
/// because the device has already forgotten them.
#[test]
fn a_killed_server_is_replaced_and_what_it_answered_is_there() {
    let server = Ploopd::start();
    let delta = server.delta("a", 16 * MIB);
    let disk = server.attach("a", std::slice::from_ref(&delta)).unwrap();
    let device = fs::File::options().write(true).open(&disk.device).unwrap();
    device.write_all_at(&[1; 8192], MIB).unwrap();
    device.sync_data().unwrap();
    let direct = rustix::fs::OFlags::DIRECT;
    rustix::fs::fcntl_setfl(&device, direct).unwrap();
    let unflushed = ploop_snapshotter::io::Piece::from_bytes(&[2; 8192]);
    unflushed.with_bytes(|bytes| device.write_all_at(bytes, 5 * MIB).unwrap());
    drop(device);

    assert_eq!(server.seen().starts, 1);
    let killed = server.pid();
    server.signal(Signal::KILL);
    wait_until("ploopd dies", || !alive(killed));
    let begun = Instant::now();
    while let Err(error) = server.block(server.servers().list()) {
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
        std::thread::sleep(Duration::from_millis(20));
    }
    wait_until("the monitor says so", || server.seen().starts == 2);
    assert_ne!(server.pid(), killed);
    assert!(server.loops().is_empty(), "{:?}", server.loops());
    assert_eq!(server.mounts(), 1);
    assert!(
        server
            .log()
            .contains("the server before ended while it served disks")
    );

    // Half of it is not in the image yet: whoever mends that now would lose it.
    let image = fs::read(&delta.path).unwrap();
    let mend = std::process::Command::new(env!("CARGO_BIN_EXE_ploop"))
        .args(["check", "--repair", "--config"])
        .args([&server.config(), &delta.path])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&mend.stderr);
    assert_eq!(mend.status.code(), Some(1), "{words}");
    assert!(words.contains("attach the disk again"), "{words}");
    assert!(fs::read(&delta.path).unwrap() == image);

    let disk = server.attach("b", &[delta]).unwrap();
    let bytes = fs::read(&disk.device).unwrap();
    let at = |start: u64| usize::try_from(start).unwrap();
    assert!(bytes[at(MIB)..at(MIB) + 8192] == [1; 8192]);
    assert!(bytes[at(5 * MIB)..at(5 * MIB) + 8192] == [2; 8192]);
}

/// A server that is killed between the answer to an attach and the mount leaves a number that is free for
/// the next disk. Who mounts by the path that was answered gets this disk or nothing.
#[test]
fn a_disk_is_mounted_by_a_path_that_is_never_anothers() {
    let server = Ploopd::start();
    let delta = server.delta("a", MIB);
    let first = server.attach("a", std::slice::from_ref(&delta)).unwrap();
    let path = first.alias.clone().unwrap();
    assert_eq!(fs::read_link(&path).unwrap(), first.device);
    let held = fs::File::open(&first.device).unwrap();
    assert_eq!(server.detach("a").unwrap_err().kind(), Kind::Busy);
    assert_eq!(fs::read_link(&path).unwrap(), first.device, "it goes on");
    drop(held);

    let killed = server.pid();
    server.signal(Signal::KILL);
    wait_until("another server", || {
        server.pid() != killed && server.seen().alive
    });
    assert!(fs::symlink_metadata(&path).is_err(), "it means nothing now");
    let other = server.attach("b", &[server.delta("b", MIB)]).unwrap();
    assert_ne!(other.alias, first.alias);
    let again = server.attach("a", &[delta]).unwrap();
    assert_eq!(again.alias, first.alias);
    assert_eq!(fs::read_link(&path).unwrap(), again.device);
    server.detach("a").unwrap();
    assert!(fs::symlink_metadata(&path).is_err());
}

/// A container still has the dead server's device mounted. The new server must start all the same, and
/// the disk must be attachable again beside its dead device.
#[test]
fn a_dead_device_that_is_still_mounted_keeps_nobody() {
    let server = Ploopd::start();
    let delta = server.delta("a", 64 * MIB);
    let disk = server.attach("a", std::slice::from_ref(&delta)).unwrap();
    run("mkfs.ext4", &["-q", disk.device.to_str().unwrap()]);
    let mounted = Mounted::new(&disk.device);
    fs::write(mounted.path("kept"), "kept").unwrap();
    fs::File::open(mounted.path("kept"))
        .unwrap()
        .sync_all()
        .unwrap();
    server.signal(Signal::KILL);
    let killed = server.pid();
    wait_until("another server", || {
        server.pid() != killed && server.seen().alive
    });
    let mut file = fs::File::create(mounted.path("lost")).ok();
    let written = file
        .as_mut()
        .map(|file| file.write_all(b"lost").and_then(|()| file.sync_all()));
    assert!(
        !matches!(written, Some(Ok(()))),
        "a dead disk takes nothing"
    );
    drop(file);
    assert!(
        server
            .log()
            .contains("still has these dead devices open or mounted")
    );

    let again = server.attach("a", &[delta]).unwrap();
    assert_ne!(again.device, disk.device);
    drop(mounted);
    wait_until("the kernel frees the dead device", || {
        let device = disk.device.file_name().unwrap().to_str().unwrap();
        !fs::exists(format!("/sys/block/{device}/loop/backing_file")).unwrap()
    });
    let mounted = Mounted::new(&again.device);
    assert_eq!(fs::read_to_string(mounted.path("kept")).unwrap(), "kept");
    drop(mounted);
    run("e2fsck", &["-fn", again.device.to_str().unwrap()]);
}

/// Somebody asks again for the disk of a running container (containerd does, for its mounts), and the server has no
/// descriptor left to look at the device with. It took "cannot be read" for "not ours", and let go of the disk.
#[test]
fn without_descriptors_nobody_loses_a_disk() {
    let server = Ploopd::start();
    let delta = server.delta("a", MIB);
    let disk = server.attach("a", std::slice::from_ref(&delta)).unwrap();
    let device = crate::support::device::open(&disk.device);
    may_open(server.pid(), Some(3));
    for byte in 1..3 {
        let again = server.attach("a", std::slice::from_ref(&delta)).unwrap();
        assert_eq!(again, disk);
        let error = server.detach("a").unwrap_err();
        assert_eq!(error.kind(), Kind::Exhausted, "{error}");
        crate::support::device::write(&device, 0, &[byte; 4096]);
        assert_eq!(crate::support::device::read(&device, 0, 4096), [byte; 4096]);
    }
    may_open(server.pid(), None);
    assert_eq!(server.attach("a", &[delta]).unwrap(), disk);
    drop(device);
    assert!(server.detach("a").unwrap());
}

fn stopped_whole(pid: u32) -> bool {
    let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.all(|task| stopped(task.unwrap().file_name().to_str().unwrap().parse().unwrap()))
}

#[test]
fn a_stuck_server_costs_the_limit_and_no_more() {
    let server = Ploopd::start();
    let pid = server.pid();
    server.signal(Signal::STOP);
    wait_until("every thread stands still", || stopped_whole(pid));
    let begun = Instant::now();
    let error = server.block(server.servers().list()).unwrap_err();
    let took = begun.elapsed();
    server.signal(Signal::CONT);
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(
        error.to_string().contains("did not answer List within 2s"),
        "{error}"
    );
    assert!(took < Duration::from_secs(4), "{took:?}");
    wait_until("it answers again", || {
        server.block(server.servers().list()).is_ok()
    });
    assert!(
        alive(server.pid()),
        "a stuck server is not killed: it has disks"
    );
}

#[test]
fn told_to_end_it_serves_until_the_last_disk_has_gone() {
    let server = Ploopd::start();
    let (one, two) = (server.delta("a", MIB), server.delta("b", MIB));
    server.attach("a", std::slice::from_ref(&one)).unwrap();
    let pid = server.pid();
    server.signal(Signal::TERM);
    wait_until("it drains", || {
        match server.attach("b", std::slice::from_ref(&two)) {
            // The signal was not heard yet; what is attached would be answered again for ever.
            Ok(_) => {
                server.detach("b").unwrap();
                false
            }
            Err(error) => error.kind() == Kind::Unavailable,
        }
    });
    assert!(
        server.attach("a", &[one]).is_ok(),
        "what is there is still served"
    );
    assert!(alive(pid));
    server.detach("a").unwrap();
    wait_until("it ends", || !alive(pid));
    assert!(
        !server.log().contains("stays; the next start"),
        "{}",
        server.log()
    );
}

/// Who was answered has a disk, also when the server was told to end while it worked on the answer.
#[test]
fn told_to_end_it_serves_what_is_being_attached() {
    // Which moment it meets differs from machine to machine.
    let mut answered = 0;
    for pause in [0, 2, 5, 10, 20, 40, 80] {
        let server = Ploopd::start();
        let delta = server.delta("a", MIB);
        let told = server.pid();
        let answer = std::thread::scope(|scope| {
            let attach = scope.spawn(|| server.attach("a", std::slice::from_ref(&delta)));
            std::thread::sleep(Duration::from_millis(pause));
            send(told, Signal::TERM);
            attach.join().unwrap()
        });
        // Refused, or by the next server, or by this one: whoever answered has it. One that ends does it at once.
        let Ok(disk) = answer else { continue };
        answered += 1;
        std::thread::sleep(Duration::from_millis(500));
        let bytes = fs::read(&disk.device).map(|bytes| bytes.len() as u64);
        assert_eq!(bytes.ok(), Some(MIB), "after {pause} ms");
        assert!(server.detach("a").unwrap(), "after {pause} ms");
        wait_until("it ends", || !alive(told));
    }
    assert!(answered > 0, "nothing was tried");
}

#[test]
fn told_twice_it_ends_at_once_and_in_order() {
    let mut server = Ploopd::start();
    let delta = server.delta("a", MIB);
    let disk = server.attach("a", std::slice::from_ref(&delta)).unwrap();
    let pid = server.pid();
    let device = fs::File::options().write(true).open(&disk.device).unwrap();
    device.write_all_at(&[5; 4096], 0).unwrap();
    device.sync_data().unwrap();
    server.signal(Signal::TERM);
    wait_until("it drains", || {
        server.log().contains("serving until the last")
    });
    server.signal(Signal::TERM);
    wait_until("it ends", || !alive(pid));
    drop(device);
    server.connect(true).unwrap();
    let disk = server.attach("a", &[delta]).unwrap();
    assert!(fs::read(&disk.device).unwrap()[..4096] == [5; 4096]);
}

#[test]
fn nobody_there_is_said_quickly_and_clearly() {
    let mut server = Ploopd::folders();
    let mut options = server.options(false);
    options.limits.start = Duration::from_millis(300);
    let error = server.block(Servers::start(options)).err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(
        error.to_string().contains("no disk server answers at"),
        "{error}"
    );

    fs::write(server.config(), "shards = nonsense").unwrap();
    let error = server.connect(true).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("config.toml"), "{error}");

    let mut options = server.options(true);
    options.start.as_mut().unwrap().binary = "/nonexistent/ploopd".into();
    let error = server.block(Servers::start(options)).err().unwrap();
    assert!(error.to_string().contains("/nonexistent/ploopd"), "{error}");
}

/// A container's disk grows under its feet: nothing of it moves, and what is new reads as zeros.
#[test]
fn a_disk_grows_while_it_is_open_and_stays_so() {
    let server = Ploopd::start();
    let delta = server.delta("a", 64 * MIB);
    let disk = server.attach("a", std::slice::from_ref(&delta)).unwrap();
    let device = crate::support::device::open(&disk.device);
    let write = |at, byte| crate::support::device::write(&device, at, &[byte; 8192]);
    let read = |at| crate::support::device::read(&device, at, 8192);
    write(0, 1);
    write(63 * MIB, 2);
    let announced = || {
        let sysfs = format!("/sys/dev/block/{}:{}/size", disk.major, disk.minor);
        let sectors: u64 = fs::read_to_string(sysfs).unwrap().trim().parse().unwrap();
        sectors * 512
    };
    let grown = server.block(server.servers().grow("a", 3000 * MIB));
    // Before Linux 6.16 a ublk device keeps its size, and whoever asks is told what to do.
    let fixed = server.is_ublk() && !ploop_snapshotter::ublk::probe().unwrap().update_size();
    if fixed {
        let error = grown.unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        assert!(error.to_string().contains("attach it again"), "{error}");
        assert_eq!(announced(), 64 * MIB);
        drop(device);
        server.detach("a").unwrap();
        let chain = [delta];
        let attach = server.servers().attach("a", &chain, Access::Grow);
        assert_eq!(server.block(attach).unwrap().size, 3000 * MIB);
        let grown = server.block(server.servers().grow("a", 4000 * MIB));
        assert_eq!(grown.unwrap().size, 4000 * MIB);
        return;
    }
    assert_eq!(grown.unwrap().size, 3000 * MIB);
    assert_eq!(announced(), 3000 * MIB);
    assert_eq!((read(0), read(63 * MIB)), (vec![1; 8192], vec![2; 8192]));
    assert_eq!(read(2900 * MIB), vec![0; 8192]);
    write(2999 * MIB, 3);
    device.sync_all().unwrap();
    // Asked again it has nothing to do; smaller it does not become, and a view not at all.
    for (size, done) in [(3000, true), (64, false)] {
        let answer = server.block(server.servers().grow("a", size * MIB));
        assert_eq!(answer.is_ok(), done, "{answer:?}");
    }
    drop(device);
    server.detach("a").unwrap();
    let disk = server.attach("a", &[delta]).unwrap();
    assert_eq!(disk.size, 3000 * MIB);
    let device = crate::support::device::open(&disk.device);
    for (at, byte) in [(0, 1), (63, 2), (2900, 0), (2999, 3)] {
        let found = crate::support::device::read(&device, at * MIB, 8192);
        assert_eq!(found, vec![byte; 8192], "at {at} MiB");
    }
}
