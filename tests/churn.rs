//! Devices come and go beside devices that work: nothing gets stuck, nothing is left.
//!
//! Many of ublk's known faults, in kernels and in servers, need churn to show: control commands that
//! never come back, descriptors that keep deleted devices alive. It needs ublk, so it runs in the
//! virtual machines of `make vm-test`; `CHURN_CYCLES` says how long.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ploop_snapshotter::link::{Disk, Kind};
use ploop_snapshotter::ublk;

use crate::support::device::{open, read, write};
use crate::support::ploopd::{Ploopd, wait_until};

const MIB: u64 = 1 << 20;
/// So many come and go at once.
const LANES: usize = 3;

/// fio that verifies what it wrote, until it is told to stop.
fn verifying_fio(disk: &Disk, seconds: usize) -> Child {
    let device = disk.device.to_str().unwrap();
    Command::new("fio")
        .args(["--name=neighbour", "--rw=randrw", "--bs=4k", "--direct=1"])
        .args(["--ioengine=libaio", "--iodepth=4", "--verify=crc32c"])
        .args(["--verify_fatal=1", "--time_based", "--output-format=terse"])
        .args(["--verify_backlog=64", "--random_generator=tausworthe64"])
        .arg(format!("--runtime={seconds}"))
        .arg(format!("--filename={device}"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What the driver was loaded with is no bound for a disk server: it asks for more at its start.
#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn a_server_may_have_more_devices_than_the_driver_was_told() {
    let before = ublk::limit().expect("this test is about ublk");
    fs::write(ublk::LIMIT, "2").unwrap();
    let server = Ploopd::start();
    assert_eq!(ublk::limit(), Some(ublk::ENOUGH), "{before} before");
    assert!(
        server.log().contains("raised ublks_max"),
        "{}",
        server.log()
    );
    let names = ["a", "b", "c", "d"];
    for name in names {
        server.attach(name, &[server.delta(name, MIB)]).unwrap();
    }
    for name in names {
        assert!(server.detach(name).unwrap());
    }
}

#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn a_thousand_devices_come_and_go_beside_two_that_work() {
    let cycles: usize = std::env::var("CHURN_CYCLES").map_or(1000, |text| text.parse().unwrap());
    let server = Ploopd::start();
    assert!(server.is_ublk(), "this test is about ublk");
    let safe_stop = ublk::probe().unwrap().safe_stop();
    let neighbours: Vec<Disk> = ["n1", "n2"]
        .iter()
        .map(|id| server.attach(id, &[server.delta(id, 16 * MIB)]).unwrap())
        .collect();
    let deltas: Vec<_> = (0..LANES)
        .map(|lane| server.delta(&format!("churn{lane}"), 4 * MIB))
        .collect();
    let pid = server.pid();
    let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    // Control commands keep a few rings for those that follow; everything else comes back.
    let descriptors = || {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let names = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
        names.partition::<Vec<_>, _>(|name| !name.to_string_lossy().contains("io_uring"))
    };

    let slowest = AtomicUsize::new(0);
    let cycle = |lane: usize, turn: usize| {
        let begun = Instant::now();
        let id = format!("churn{lane}");
        let disk = server
            .attach(&id, std::slice::from_ref(&deltas[lane]))
            .unwrap();
        let file = open(&disk.device);
        let byte = u8::try_from(turn % 251).unwrap();
        write(&file, 4096 * (turn as u64 % 1024), &[byte; 4096]);
        assert_eq!(read(&file, 4096 * (turn as u64 % 1024), 4096), [byte; 4096]);
        match turn % 8 {
            // Somebody holds it open.
            3 if safe_stop => {
                let error = server.detach(&id).unwrap_err();
                assert_eq!(error.kind(), Kind::Busy, "{error}");
                drop(file);
                assert!(server.detach(&id).unwrap());
            }
            3 => {
                assert!(server.detach(&id).unwrap());
                drop(file);
            }
            // Somebody writes while it is stopped.
            6 if !safe_stop => thread::scope(|scope| {
                let writer = scope.spawn(move || {
                    let deadline = Instant::now() + Duration::from_secs(20);
                    let bytes = ploop_snapshotter::io::Piece::zeroed(4096);
                    while bytes
                        .with_bytes(|bytes| file.write_all_at(bytes, 0))
                        .is_ok()
                    {
                        assert!(Instant::now() < deadline, "the stopped device still works");
                    }
                });
                thread::sleep(Duration::from_millis(5));
                assert!(server.detach(&id).unwrap());
                writer.join().unwrap();
            }),
            _ => {
                drop(file);
                assert!(server.detach(&id).unwrap());
            }
        }
        let took = usize::try_from(begun.elapsed().as_millis()).unwrap();
        slowest.fetch_max(took, Ordering::Relaxed);
    };
    for lane in 0..LANES {
        cycle(lane, 0);
    }
    wait_until("the first ones are gone", || server.devices() == 2);
    let threads = count("task");
    let before = descriptors().0.len();
    let mut fios: Vec<Child> = neighbours
        .iter()
        .map(|disk| verifying_fio(disk, 3600))
        .collect();
    let begun = Instant::now();
    thread::scope(|scope| {
        for lane in 0..LANES {
            let cycle = &cycle;
            scope.spawn(move || {
                (lane..cycles)
                    .step_by(LANES)
                    .for_each(|turn| cycle(lane, turn))
            });
        }
    });
    let took = begun.elapsed();
    for fio in &mut fios {
        assert!(fio.try_wait().unwrap().is_none(), "a neighbour ended early");
        crate::support::ploopd::send(fio.id(), rustix::process::Signal::INT);
    }
    for fio in fios {
        let output = fio.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            !text.contains("verify"),
            "a neighbour read what it had not written: {text}"
        );
    }
    wait_until("all are gone", || server.devices() == 2);
    wait_until("no descriptor is left", || descriptors().0.len() <= before);
    let (files, rings) = descriptors();
    assert!(rings.len() <= 20, "{} rings", rings.len());
    wait_until("no thread is left", || count("task") <= threads);
    eprintln!(
        "{cycles} cycles in {took:.1?}, the slowest {} ms; {} descriptors, {} rings, {threads} threads",
        slowest.load(Ordering::Relaxed),
        files.len(),
        rings.len()
    );
    assert!(slowest.load(Ordering::Relaxed) < 20_000, "a cycle hung");
}
