//! Disks as block devices, whatever the transport: sizes, I/O against a model, who holds what.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use ploop_snapshotter::io::Piece;
use ploop_snapshotter::link::{Delta, Disk, Kind};
use ploop_snapshotter::ublk;

use crate::support::device::{open, read, write};
use crate::support::ploopd::{Mounted, Ploopd, run, wait_until};

const MIB: u64 = 1 << 20;

fn attribute(disk: &Disk, name: &str) -> String {
    let device = disk.device.file_name().unwrap().to_str().unwrap();
    let text = fs::read_to_string(format!("/sys/block/{device}/{name}")).unwrap();
    text.trim().to_owned()
}

#[test]
fn sizes_are_exact_and_io_is_direct() {
    const CLUSTER: u64 = 64 << 10;
    let server = Ploopd::start();
    for (id, size) in [
        ("a", CLUSTER),
        ("b", MIB + CLUSTER),
        ("c", (10 << 30) + CLUSTER),
    ] {
        let disk = server.attach(id, &[server.delta(id, size)]).unwrap();
        assert_eq!(disk.size, size);
        let end = File::open(&disk.device).unwrap().seek(SeekFrom::End(0));
        assert_eq!(end.unwrap(), size);
        if server.is_ublk() {
            assert_eq!(attribute(&disk, "queue/scheduler"), "[none]");
            assert_eq!(attribute(&disk, "queue/write_cache"), "write back");
            assert_eq!(attribute(&disk, "queue/fua"), "1");
        } else {
            assert_eq!(attribute(&disk, "loop/dio"), "1");
        }
        assert_eq!(attribute(&disk, "ro"), "0");
        assert_eq!(attribute(&disk, "queue/logical_block_size"), "4096");
        assert_eq!(attribute(&disk, "queue/discard_granularity"), "4096");
        assert_eq!(
            attribute(&disk, "dev"),
            format!("{}:{}", disk.major, disk.minor)
        );
        let file = open(&disk.device);
        write(&file, size - 4096, &[7; 4096]);
        assert_eq!(read(&file, size - 4096, 4096), [7; 4096]);
    }
    assert_eq!(server.devices(), 3);
}

/// Reads, writes, discards, zeroes and reattaches, held against a vector. After a discard each block is
/// as before or zeros; over FUSE it is a write of zeros (see `device/fuse.rs`).
#[test]
fn a_device_is_what_its_model_says() {
    const SIZE: u64 = 8 * MIB;
    const BLOCK: u64 = 4096;
    let server = Ploopd::start();
    let mut model = vec![0_u8; usize::try_from(SIZE).unwrap()];
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut chain: Vec<Delta> = Vec::new();
    for round in 0..4 {
        chain.push(server.delta(&format!("{round}.hds"), SIZE));
        let disk = server.attach("disk", &chain).unwrap();
        let device = disk.device.to_str().unwrap();
        let file = open(&disk.device);
        for act in 0..150_u64 {
            let at = next(SIZE / BLOCK) * BLOCK;
            let len = (1 + next(if act.is_multiple_of(10) { 256 } else { 8 })) * BLOCK;
            let len = len.min(SIZE - at);
            let (first, count) = (usize::try_from(at).unwrap(), usize::try_from(len).unwrap());
            let part = first..first + count;
            let flags: Option<&[&str]> = match next(10) {
                0..4 => {
                    let byte = u8::try_from(next(256)).unwrap();
                    model[part.clone()].fill(byte);
                    write(&file, at, &model[part]);
                    continue;
                }
                4..7 => None,
                7 => Some(&[]),
                8 => Some(&["-z"]),
                _ => {
                    file.sync_data().unwrap();
                    continue;
                }
            };
            match flags {
                None => assert!(
                    read(&file, at, count) == model[part],
                    "{round}:{act} at {at}"
                ),
                Some(flags) => {
                    let (at, len) = (at.to_string(), len.to_string());
                    let range = ["-o", at.as_str(), "-l", len.as_str(), device];
                    run("blkdiscard", &[flags, &range].concat());
                    if flags.is_empty() && server.is_ublk() {
                        let now = read(&file, first as u64, count);
                        for (block, before) in
                            now.chunks(4096).zip(model[part.clone()].chunks(4096))
                        {
                            assert!(block == before || block == [0; 4096], "{round}:{act}");
                        }
                        model[part].copy_from_slice(&now);
                    } else {
                        model[part].fill(0);
                    }
                }
            }
        }
        assert!(read(&file, 0, model.len()) == model, "round {round}");
        drop(file);
        let seal = server.seal("disk").unwrap().unwrap();
        chain.last_mut().unwrap().seal = Some(seal);
    }
    let view = server.view("view", &chain).unwrap();
    let bytes = fs::read(&view.device).unwrap();
    assert!(bytes == model, "the view shows the last round");
}

/// Another FUSE block exporter, under the same loop driver, took `fallocate(PUNCH_HOLE)` for a hint.
/// mkfs discards the whole device, sees that the device promises zeros after that, and does not write
/// the zeros it needs; old bytes shone through, and the mount said "Structure needs cleaning". So: a
/// device full of old bytes, a default mkfs, a mount, a check.
#[test]
fn mkfs_over_old_bytes_makes_a_clean_file_system() {
    let server = Ploopd::start();
    let mut base = server.delta("base.hds", 64 * MIB);
    let disk = server.attach("base", std::slice::from_ref(&base)).unwrap();
    let file = open(&disk.device);
    for at in 0..64 {
        write(&file, at * MIB, &vec![0xA5; 1 << 20]);
    }
    drop(file);
    base.seal = server.seal("base").unwrap();

    let disk = server
        .attach("fs", &[base, server.delta("top.hds", 64 * MIB)])
        .unwrap();
    let device = disk.device.to_str().unwrap();
    run("mkfs.ext4", &["-q", device]);
    run("e2fsck", &["-fn", device]);
    let mounted = Mounted::new(&disk.device);
    let content: Vec<u8> = (0..5_u32 << 20).map(|i| i.to_le_bytes()[1]).collect();
    fs::write(mounted.path("file"), &content).unwrap();
    fs::write(mounted.path("gone"), &content).unwrap();
    fs::remove_file(mounted.path("gone")).unwrap();
    drop(mounted);
    run("e2fsck", &["-fn", device]);
    server.detach("fs").unwrap();
}

#[test]
fn a_mounted_device_is_refused_at_once_and_goes_on() {
    let server = Ploopd::start();
    let disk = server
        .attach("a", &[server.delta("a.hds", 64 * MIB)])
        .unwrap();
    run("mkfs.ext4", &["-q", disk.device.to_str().unwrap()]);
    let mounted = Mounted::new(&disk.device);
    let error = server.detach("a").unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.to_string().contains("unmount it"), "{error}");
    fs::write(mounted.path("x"), vec![1; 1 << 20]).unwrap();
    File::open(mounted.path("x")).unwrap().sync_all().unwrap();
    drop(mounted);
    assert!(server.detach("a").unwrap());
    assert!(!server.detach("a").unwrap(), "gone is gone");
    assert_eq!(server.devices(), 0);
}

/// Somebody who merely reads the device does not keep the kernel from letting go of it: it waits for
/// them and frees the device behind everybody's back. So a refused detach must leave a device that stays.
#[test]
fn a_device_that_is_open_is_refused_and_stays() {
    let server = Ploopd::start();
    let disk = server
        .attach("a", &[server.delta("a.hds", 4 * MIB)])
        .unwrap();
    let holder = open(&disk.device);
    write(&holder, 0, &[1; 4096]);
    if server.is_ublk() && !ublk::probe().unwrap().safe_stop() {
        // This kernel cannot tell: the device goes, and the holder is told.
        assert!(server.detach("a").unwrap());
        let bytes = Piece::zeroed(4096);
        assert!(
            bytes
                .with_bytes(|bytes| holder.write_all_at(bytes, 0))
                .is_err()
        );
        drop(holder);
        wait_until("the device is gone", || server.devices() == 0);
        return;
    }
    let error = server.detach("a").unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    write(&holder, 4096, &[2; 4096]);
    drop(holder);
    let again = open(&disk.device);
    assert_eq!(read(&again, 0, 8192), [[1; 4096], [2; 4096]].concat());
    drop(again);
    if !server.is_ublk() {
        assert_eq!(attribute(&disk, "loop/autoclear"), "0");
    }
    assert!(server.detach("a").unwrap());
}

#[test]
fn one_id_is_one_disk_and_one_written_file_too() {
    let server = Ploopd::start();
    let (base, top) = (server.delta("base", MIB), server.delta("top", MIB));
    let chain = [base.clone(), top.clone()];
    let disk = server.attach("a", &chain).unwrap();
    assert_eq!(server.attach("a", &chain).unwrap(), disk);
    for (id, deltas, says) in [
        ("a", vec![base.clone()], "another chain"),
        ("b", chain.to_vec(), "written by disk a"),
        ("b", vec![base.clone()], "read by disk a"),
        (
            "b",
            vec![top.clone(), server.delta("x", MIB)],
            "written by disk a",
        ),
    ] {
        let error = server.attach(id, &deltas).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(server.view("a", &chain).unwrap_err().kind(), Kind::Busy);
    assert_eq!(server.devices(), 1);
    // A file that was refused is not claimed for ever.
    server.detach("a").unwrap();
    server.attach("b", &[base]).unwrap();
}

#[test]
fn views_are_shared_and_really_read_only() {
    let server = Ploopd::start();
    let mut base = server.delta("base", 4 * MIB);
    let disk = server.attach("w", std::slice::from_ref(&base)).unwrap();
    write(&open(&disk.device), 0, &[9; 8192]);
    base.seal = server.seal("w").unwrap();
    let before = fs::read(&base.path).unwrap();
    for id in ["v1", "v2"] {
        let view = server.view(id, std::slice::from_ref(&base)).unwrap();
        assert!(view.read_only);
        assert_eq!(attribute(&view, "ro"), "1");
        let content = fs::read(&view.device).unwrap();
        assert!(content[..8192] == [9; 8192] && content[8192..].iter().all(|byte| *byte == 0));
        let writing = File::options().write(true).open(&view.device);
        let refused = writing.and_then(|file| file.write_all_at(&[1; 4096], 0));
        assert!(refused.is_err());
    }
    let error = server.seal("v1").unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert!(fs::read(&base.path).unwrap() == before);
}

#[test]
fn a_seal_is_told_again_and_is_believed_only_if_it_fits() {
    let server = Ploopd::start();
    let mut base = server.delta("base", 4 * MIB);
    let disk = server.attach("a", std::slice::from_ref(&base)).unwrap();
    write(&open(&disk.device), MIB, &[9; 8192]);
    let seal = server.seal("a").unwrap().unwrap();
    assert!(seal.allocated > 0 && seal.allocated <= seal.length + 4096);
    // The answer was lost on its way: the same question has the same answer.
    assert_eq!(server.seal("a").unwrap(), Some(seal));
    base.seal = Some(seal);
    let top = server.delta("top", 4 * MIB);
    server.attach("b", &[base.clone(), top.clone()]).unwrap();
    server.detach("b").unwrap();
    let mut other = seal;
    other.digest ^= 1;
    base.seal = Some(other);
    let error = server
        .attach("b", &[base.clone(), top.clone()])
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    fs::remove_file(&base.path).unwrap();
    let error = server.attach("b", &[base, top]).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert_eq!(server.block(server.servers().list()).unwrap(), []);
    assert_eq!(server.devices(), 0);
}

#[test]
fn a_hundred_cycles_leave_nothing_behind() {
    let server = Ploopd::start();
    let delta = server.delta("a", 4 * MIB);
    let pid = server.pid();
    let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    let cycle = || {
        let disk = server.attach("a", std::slice::from_ref(&delta)).unwrap();
        write(&open(&disk.device), 0, &[3; 4096]);
        assert!(server.detach("a").unwrap());
    };
    cycle();
    let (files, threads, mounts) = (count("fd"), count("task"), server.mounts());
    let begun = Instant::now();
    for _ in 0..100 {
        cycle();
    }
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(count("fd"), files);
    assert!(count("task") <= threads + 8, "blocking threads come and go");
    assert_eq!(server.mounts(), mounts);
    assert_eq!(server.devices(), 0);
    assert_eq!(
        fs::read_dir(server.run_folder().join("pending"))
            .unwrap()
            .count(),
        0
    );
}
