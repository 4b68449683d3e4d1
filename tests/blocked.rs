//! Somebody sits in a call to a device (mount, fsync, flush of its cache, resize, unmount) when the
//! device's server dies. The call ends, and well, once the next server has taken the device over.
//!
//! To be sure of the middle, the server is stopped first: the call begins, does not end, and stands in
//! the very system call when the stopped server is killed. It needs ublk, so it runs in the virtual
//! machines of `make vm-test`.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ploop_snapshotter::link::{Delta, Disk};
use rustix::process::Signal;

use crate::support::device::{open, read};
use crate::support::ploopd::{Mounted, Ploopd, run, send, state, stopped, wait_until};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
/// Numbers of system calls, as x86-64 has them.
const IOCTL: u64 = 16;
const FSYNC: u64 = 74;
const MOUNT: u64 = 165;
const UNMOUNT: u64 = 166;
const FSCONFIG: u64 = 431;

/// A server with one disk.
struct House {
    server: Ploopd,
    delta: Delta,
    disk: Disk,
}

impl House {
    /// The file system takes `size` of the disk.
    fn new(size: &str) -> Self {
        let server = Ploopd::start();
        assert!(server.is_ublk(), "this test is about ublk");
        let delta = server.delta("disk", SIZE);
        let disk = server.attach("disk", std::slice::from_ref(&delta)).unwrap();
        let house = Self {
            server,
            delta,
            disk,
        };
        run("mkfs.ext4", &["-q", "-F", house.device(), size]);
        house
    }

    fn device(&self) -> &str {
        self.disk.device.to_str().unwrap()
    }

    /// Runs a program whose call finds the server stopped and outlives its death.
    fn outlives(&self, calls: &[u64], program: &str, arguments: &[&str]) {
        let old = self.server.pid();
        let _standing = Standing::new(old);
        let mut child = Command::new(program)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until(&format!("{program} sits in its call"), || {
            assert!(
                child.try_wait().unwrap().is_none(),
                "{program}: {:?}",
                words(&mut child)
            );
            sits_in(child.id()).is_some_and(|call| calls.contains(&call))
        });
        // Not only passing through.
        std::thread::sleep(Duration::from_millis(300));
        let call = sits_in(child.id()).expect("it still sits there");
        assert!(calls.contains(&call), "{program} went on to call {call}");

        let begun = Instant::now();
        send(old, Signal::KILL);
        let ended = loop {
            if let Some(ended) = child.try_wait().unwrap() {
                break ended;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{program} does not come back\n{}",
                self.server.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = begun.elapsed();
        assert!(ended.success(), "{program}: {ended}: {}", words(&mut child));
        wait_until("the next one is known", || self.server.pid() != old);
        eprintln!(
            "{program} in call {call}: done {} ms after the death",
            took.as_millis()
        );
    }

    /// Nothing mounted, nothing wrong, nothing left.
    fn end(self) {
        run("e2fsck", &["-fn", self.device()]);
        assert!(self.server.detach("disk").unwrap());
        run(
            env!("CARGO_BIN_EXE_ploop"),
            &["check", self.delta.path.to_str().unwrap()],
        );
        wait_until("no device is left", || self.server.devices() == 0);
    }
}

/// A process that stands still. It goes on if the test fails meanwhile: what follows then, an unmount
/// for one, would wait for it for ever.
struct Standing(u32);

impl Standing {
    fn new(pid: u32) -> Self {
        send(pid, Signal::STOP);
        wait_until("it stands still", || stopped(pid));
        Self(pid)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        send(self.0, Signal::CONT);
    }
}

fn words(child: &mut Child) -> String {
    let mut text = String::new();
    for stream in [
        child
            .stdout
            .take()
            .map(|s| Box::new(s) as Box<dyn std::io::Read>),
        child
            .stderr
            .take()
            .map(|s| Box::new(s) as Box<dyn std::io::Read>),
    ] {
        let _ = stream.map(|mut stream| stream.read_to_string(&mut text));
    }
    text
}

/// The number of the system call in which a process waits and cannot be interrupted.
fn sits_in(pid: u32) -> Option<u64> {
    let line = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    let call = line.split(' ').next()?.parse().ok()?;
    (state(pid) == Some('D')).then_some(call)
}

fn forget_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn a_mount() {
    let house = House::new("64M");
    let point = tempfile::tempdir().unwrap();
    let at = point.path().to_str().unwrap();
    house.outlives(
        &[MOUNT, FSCONFIG],
        "mount",
        &["-t", "ext4", house.device(), at],
    );
    fs::write(point.path().join("file"), "here").unwrap();
    run("umount", &[at]);
    house.end();
}

#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn an_unmount() {
    let house = House::new("64M");
    let mounted = Mounted::new(&house.disk.device);
    let file = mounted.path("file");
    fs::write(&file, [5; 1 << 20]).unwrap();
    let at = file.parent().unwrap().to_str().unwrap();
    house.outlives(&[UNMOUNT], "umount", &[at]);
    run("mount", &[house.device(), at]);
    assert_eq!(fs::read(&file).unwrap(), [5; 1 << 20]);
    drop(mounted);
    house.end();
}

#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn an_fsync() {
    let house = House::new("64M");
    let mounted = Mounted::new(&house.disk.device);
    let file = mounted.path("file");
    fs::write(&file, [6; 1 << 20]).unwrap();
    house.outlives(&[FSYNC], "sync", &[file.to_str().unwrap()]);
    forget_caches();
    assert_eq!(fs::read(&file).unwrap(), [6; 1 << 20]);
    drop(mounted);
    house.end();
}

/// The device is written as a file, as by whoever copies a file system; the last one to close it would
/// write it out, so it is held open.
#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn a_flush_of_the_devices_cache() {
    let house = House::new("32M");
    let device = fs::File::options()
        .read(true)
        .write(true)
        .open(house.device())
        .unwrap();
    device.write_all_at(&[7; 1 << 20], 48 * MIB).unwrap();
    house.outlives(&[IOCTL], "blockdev", &["--flushbufs", house.device()]);
    drop(device);
    let past = open(&house.disk.device);
    assert_eq!(read(&past, 48 * MIB, 1 << 20), [7; 1 << 20]);
    drop(past);
    house.end();
}

/// Once by the call itself, once by the program, which first flushes what it finds.
#[test]
#[ignore = "needs a kernel with ublk: make vm-test"]
fn a_resize() {
    let house = House::new("32M");
    let mounted = Mounted::new(&house.disk.device);
    let file = mounted.path("file");
    fs::write(&file, [8; 1 << 20]).unwrap();
    rustix::fs::syncfs(fs::File::open(&file).unwrap()).unwrap();
    let stat = || rustix::fs::statvfs(&file).unwrap();
    let size = || stat().f_blocks * stat().f_frsize;
    let (before, blocks) = (size(), 48 * MIB / stat().f_frsize);
    // EXT4_IOC_RESIZE_FS
    let call = "open(F, '<', $ARGV[0]) && ioctl(F, 0x40086610, pack('Q', $ARGV[1])) or die $!";
    let arguments = ["-e", call, file.to_str().unwrap(), &blocks.to_string()];
    house.outlives(&[IOCTL], "perl", &arguments);
    let between = size();
    assert!(between > before + 12 * MIB, "{before} to {between}");
    house.outlives(&[FSYNC, IOCTL], "resize2fs", &[house.device()]);
    let after = size();
    assert!(after > between + 12 * MIB, "{between} to {after}");
    forget_caches();
    assert_eq!(fs::read(&file).unwrap(), [8; 1 << 20]);
    drop(mounted);
    house.end();
}
