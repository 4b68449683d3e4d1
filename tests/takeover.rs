//! A disk server is killed under load, and the next one takes its devices over: nobody hears an error,
//! nothing that was answered is lost, and nobody waits for long.
//!
//! It needs ublk, so it runs in the virtual machines of `make vm-test`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ploop_snapshotter::link::{Disk, Kind};
use rustix::process::Signal;

use crate::support::device::{open, read, write};
use crate::support::ploopd::{Ploopd, alive, may_open, send, wait_until};

const MIB: u64 = 1 << 20;
/// Threads that write and read back.
const CLIENTS: usize = 8;

/// Writes and reads back on every disk in turn until told to stop; the longest time that one act took.
struct Load {
    stop: AtomicBool,
    longest: AtomicU64,
    acts: AtomicU64,
}

impl Load {
    fn client(&self, disks: &[&Disk], client: usize) {
        let files: Vec<_> = disks.iter().map(|disk| open(&disk.device)).collect();
        let mut turn = 0_u64;
        while !self.stop.load(Ordering::Relaxed) {
            for file in &files {
                let begun = Instant::now();
                let at = turn * 40_960 % (4 * MIB) / 4096 * 4096;
                let byte = u8::try_from((turn + client as u64) % 251).unwrap();
                write(file, at, &[byte; 4096]);
                assert_eq!(
                    read(file, at, 4096),
                    [byte; 4096],
                    "an answered write is lost"
                );
                let took = u64::try_from(begun.elapsed().as_millis()).unwrap();
                self.longest.fetch_max(took, Ordering::Relaxed);
                self.acts.fetch_add(1, Ordering::Relaxed);
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
            }
            turn += 1;
        }
    }
}

/// Kills, or asks to end, every server `rounds` times under load; the longest wait in milliseconds.
fn stall(devices: usize, servers: usize, signal: Signal, rounds: usize) -> u64 {
    let server = Ploopd::start_many(servers);
    assert!(server.is_ublk(), "this test is about ublk");
    let disks: Vec<Disk> = (0..devices)
        .map(|n| {
            let id = format!("d{n}");
            server.attach(&id, &[server.delta(&id, 4 * MIB)]).unwrap()
        })
        .collect();
    let load = Load {
        stop: AtomicBool::new(false),
        longest: AtomicU64::new(0),
        acts: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        for client in 0..CLIENTS.min(devices) {
            let mine: Vec<&Disk> = disks.iter().skip(client).step_by(CLIENTS).collect();
            let load = &load;
            scope.spawn(move || load.client(&mine, client));
        }
        thread::sleep(Duration::from_secs(2));
        for round in 0..rounds {
            let before = load.acts.load(Ordering::Relaxed);
            let old = server.pids();
            for pid in &old {
                send(*pid, signal);
            }
            // Gone on: every client has done something since, and by new servers.
            let deadline = Instant::now() + Duration::from_secs(60);
            while load.acts.load(Ordering::Relaxed) < before + 4 * devices as u64
                || server.pids().iter().any(|pid| old.contains(pid))
            {
                assert!(
                    Instant::now() < deadline,
                    "round {round}: nothing goes on\n{}",
                    server.log()
                );
                thread::sleep(Duration::from_millis(20));
            }
        }
        load.stop.store(true, Ordering::Relaxed);
    });
    for n in 0..devices {
        assert!(server.detach(&format!("d{n}")).unwrap());
    }
    load.longest.load(Ordering::Relaxed)
}

/// The devices' number, the servers', and how long the slowest act may take here, in milliseconds. A
/// virtual machine without hardware's help is far slower than any other: these bounds only catch a wait
/// that does not end by itself.
#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn a_killed_server_is_followed_by_one_that_goes_on() {
    // The long form: what one server alone costs.
    let long = std::env::var("TAKEOVER").is_ok_and(|word| word == "long");
    for (devices, servers, rounds, bound) in [
        (1, 1, 5, 15_000),
        (50, 1, 2, 20_000),
        (200, 4, 1, 30_000),
        (200, 8, 1, 30_000),
        (200, 1, 1, 40_000),
    ] {
        if devices == 200 && servers == 1 && !long {
            continue;
        }
        let longest = stall(devices, servers, Signal::KILL, rounds);
        eprintln!("kill -9: {devices} devices, {servers} servers: the longest wait {longest} ms");
        assert!(longest < bound, "{devices} devices waited {longest} ms");
    }
}

#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn a_server_that_is_told_to_end_hands_over() {
    for (devices, bound) in [(1, 15_000), (50, 20_000)] {
        let longest = stall(devices, 1, Signal::TERM, 2);
        eprintln!("planned: {devices} devices: the longest wait {longest} ms");
        assert!(longest < bound, "{devices} devices waited {longest} ms");
    }
}

/// A ploopd that was helped to more descriptors than it is started with is killed: the next one cannot serve all that it
/// left. What it cannot serve waits until it can, and is never given up for that.
#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn what_a_server_has_no_descriptors_for_waits() {
    const DISKS: usize = 40;
    let mut server = Ploopd::folders();
    let few = server.folder.path().join("few");
    let program = server.folder.path().join("ploopd");
    let script = format!(
        "#!/bin/sh\n[ ! -e {few} ] || ulimit -n $(cat {few})\nexec {ploopd} \"$@\"\n",
        few = few.display(),
        ploopd = env!("CARGO_BIN_EXE_ploopd"),
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    server.binary = program;
    server.connect(true).unwrap();
    assert!(server.is_ublk(), "this test is about ublk");
    let open_files = |pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let alone = open_files(server.pid());
    let deltas: Vec<_> = (0..DISKS)
        .map(|n| server.delta(&format!("d{n}"), MIB))
        .collect();
    let attach = |server: &Ploopd, n: usize| server.attach(&format!("d{n}"), &deltas[n..=n]);
    let disks: Vec<_> = (0..DISKS).map(|n| attach(&server, n).unwrap()).collect();
    let files: Vec<_> = disks.iter().map(|disk| open(&disk.device)).collect();
    let byte = |n: usize| u8::try_from(n + 1).unwrap();
    for (n, file) in files.iter().enumerate() {
        write(file, 0, &[byte(n); 4096]);
    }

    let all = open_files(server.pid());
    fs::write(&few, (alone + (all - alone) / 2).to_string()).unwrap();
    // The second one leaves to the third what it could not serve itself.
    for _ in 0..2 {
        let killed = server.pid();
        server.signal(Signal::KILL);
        wait_until("another server", || {
            server.pid() != killed && server.seen().alive
        });
        let refused: Vec<_> = (0..DISKS)
            .filter_map(|n| attach(&server, n).err())
            .collect();
        assert!((1..DISKS).contains(&refused.len()), "{}", refused.len());
        for error in refused {
            assert_eq!(error.kind(), Kind::Exhausted, "{error}");
            assert!(error.to_string().contains("not taken over yet"), "{error}");
        }
        assert_eq!(server.numbers().len(), DISKS, "none is given up");
    }
    // Whoever has looked after the servers since before, and who comes now: to neither is it a disk that is nowhere.
    for again in [false, true] {
        if again {
            server.connect(true).unwrap();
        }
        // What the one before had open is enough for one more of them.
        let waits = (0..DISKS).rfind(|n| attach(&server, *n).is_err()).unwrap();
        let error = server.detach(&format!("d{waits}")).unwrap_err();
        assert_eq!(error.kind(), Kind::Exhausted, "{error}");
    }

    thread::scope(|scope| {
        for (n, file) in files.iter().enumerate() {
            scope.spawn(move || assert_eq!(read(file, 0, 4096), [byte(n); 4096]));
        }
        thread::sleep(Duration::from_millis(300));
        may_open(server.pid(), None);
    });
    wait_until("all are served", || {
        (0..DISKS).all(|n| attach(&server, n).is_ok())
    });
    let log = server.log();
    assert!(log.contains("wait for want of descriptors"), "{log}");
    drop(files);
    for (n, disk) in disks.iter().enumerate() {
        assert_eq!(attach(&server, n).unwrap(), *disk, "as it was");
        assert!(server.detach(&format!("d{n}")).unwrap());
    }
}

/// A server that may not use ublk, or cannot, could only lose what the one before left to it.
#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn devices_are_left_to_who_can_take_them_over() {
    let server = Ploopd::start();
    assert!(server.is_ublk(), "this test is about ublk");
    let disk = server.attach("a", &[server.delta("a", MIB)]).unwrap();
    let file = open(&disk.device);
    write(&file, 0, &[1; 4096]);
    let config = fs::read_to_string(server.config()).unwrap();
    let other = config.replace("[disk_server]", "[disk_server]\ntransport = \"fuse\"");
    fs::write(server.config(), other).unwrap();
    server.signal(Signal::KILL);
    wait_until("the next one says why it does not start", || {
        server.log().contains("the server before left /dev/ublkb")
    });
    let log = server.log();
    assert!(log.contains("ploop release-devices"), "{log}");
    assert!(server.seat().registry().exists(), "its account is kept");
    fs::write(server.config(), config).unwrap();
    // Waits for whoever comes.
    assert_eq!(read(&file, 0, 4096), [1; 4096]);
    drop(file);
    assert!(server.detach("a").unwrap());
}

/// A run directory that is gone took the word with it whose its devices were: only a person knows.
#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn what_nobody_comes_back_for_is_released_by_name() {
    let server = Ploopd::start();
    let disk = server.attach("a", &[server.delta("a", MIB)]).unwrap();
    let device = format!("/dev/ublkb{}", server.numbers()[0]);
    let release = |more: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_ploop"))
            .args(["release-devices", "--config"])
            .arg(server.config().with_extension("sound"))
            .args(more)
            .output()
            .unwrap();
        let words = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        (done.status.code(), words)
    };
    let config = fs::read(server.config()).unwrap();
    fs::write(server.config().with_extension("sound"), &config).unwrap();
    // No ploopd can come back with this.
    fs::write(server.config(), [&config[..], b"\n[nonsense]\n"].concat()).unwrap();
    let pid = server.pid();
    let gone = server.run_folder().with_extension("gone");
    fs::rename(server.run_folder(), &gone).unwrap();
    fs::create_dir(server.run_folder()).unwrap();
    let (code, words) = release(&["--device", &device]);
    assert_eq!(code, Some(1), "it is served: {words}");
    assert!(words.contains("a ploopd serves it"), "{words}");

    send(pid, Signal::KILL);
    wait_until("it dies", || !alive(pid));
    let (code, words) = release(&[]);
    assert_eq!(code, Some(0), "{words}");
    assert!(
        words.contains("left alone; if that is gone for good"),
        "{words}"
    );
    assert!(Path::new(&device).exists());
    let (_, words) = release(&["--device", "/dev/ublkb999999"]);
    assert!(words.contains("no device of a ploopd"), "{words}");
    // The kernel may not have noticed yet that its server is dead.
    wait_until("it is released", || {
        release(&["--device", &device]).0 == Some(0)
    });
    wait_until("it is gone", || !Path::new(&device).exists());
    drop(disk);
    fs::remove_dir_all(server.run_folder()).unwrap();
    fs::rename(gone, server.run_folder()).unwrap();
}
