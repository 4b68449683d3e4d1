//! What the file may say, what it may not, and where an error points.

use std::path::Path;
use std::time::Duration;

use super::super::{Config, DEFAULT_PATH, Error};
use crate::filesystem::{Choices, Kind};

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(Path::new("x.toml"), text)
}

/// `line:column: reason`
fn refusal(text: &str) -> String {
    let message = parse(text).unwrap_err().to_string();
    message.strip_prefix("x.toml:").unwrap().to_owned()
}

const DEPLOYED: &str = include_str!("../../deploy/config.toml");

#[test]
fn an_empty_file_is_the_defaults_and_they_agree_with_the_rooms() {
    let config = parse("").unwrap();
    assert_eq!(config, Config::default());
    let ours = config.snapshot_options();
    let theirs = crate::snapshot::Options::new(config.root.clone());
    assert_eq!(ours.names, [crate::snapshot::NameOptions::new("ploop")]);
    assert_eq!(
        (ours.busy_wait, ours.flush_limit, ours.cleanup_wait),
        (theirs.busy_wait, theirs.flush_limit, theirs.cleanup_wait)
    );
    let ours = config.link_options(Path::new("/c"), Path::new("/b"));
    let theirs = crate::link::Limits::default();
    assert_eq!(format!("{:?}", ours.limits), format!("{theirs:?}"));
    assert_eq!(config.service_options(), crate::service::Options::default());
    assert_eq!(ours.start.unwrap().binary, Path::new("/b/ploopd"));
}

#[test]
fn the_deployed_file_says_the_defaults() {
    assert_eq!(parse(DEPLOYED).unwrap(), Config::default());
}

/// Options that are absent by default stand there as comments: they must be right as well.
#[test]
fn the_deployed_files_commented_options_can_be_used() {
    let mut options = 0;
    let text: String = DEPLOYED
        .lines()
        .map(|line| match line.strip_prefix("#") {
            Some(rest) if !rest.starts_with([' ', '#']) && rest.contains('=') => {
                options += 1;
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(options >= 4, "{options}");
    let config = parse(&text).unwrap();
    assert_ne!(config, Config::default());
}

#[test]
fn the_deployed_file_mentions_every_option() {
    let all =
        parse("[metrics]\naddress = '127.0.0.1:1'\n[disk_server]\nbinary = '/b'\n[names.ploop]\n")
            .unwrap()
            .print()
            .unwrap();
    let mut counted = 0;
    for option in all.lines().filter_map(|line| line.split_once(" = ")) {
        let key = option.0.trim();
        let mentioned = DEPLOYED.lines().any(|line| {
            let line = line.trim_start_matches('#');
            line.split_once(" = ").is_some_and(|(name, _)| name == key)
        });
        assert!(mentioned, "{key}");
        counted += 1;
    }
    assert!(counted > 20, "{counted}\n{all}");
}

#[test]
fn what_is_printed_is_read_back_alike() {
    let config = parse(
        "root = '/a'\n[log]\nfilter = 'info,h2=warn'\nformat = 'json'\n\
         [snapshots]\nsize = 1074790400\ncluster = '1Mi'\nbusy_wait = '1m 500ms'\n\
         [names.big]\nsize = '1.5Ti'\n[names.small]\nsocket = '/run/s'\n",
    )
    .unwrap();
    assert_eq!(config.snapshots.size.0, (1 << 30) + (1 << 20));
    assert_eq!(config.snapshots.busy_wait, Duration::from_millis(60_500));
    let printed = config.print().unwrap();
    assert!(
        printed.contains("\"/run/ploop-snapshotter/big.sock\""),
        "{printed}"
    );
    let again = parse(&printed).unwrap();
    assert_eq!(again.print().unwrap(), printed);
    assert_eq!(
        again.snapshot_options().names,
        config.snapshot_options().names
    );
}

/// What no file system can have is refused before the disk is made larger.
#[test]
fn nobody_may_ask_for_more_than_a_file_system_can_have() {
    let config =
        parse("[snapshots]\nmax_size = '16Ti'\n[names.all]\n[names.few]\nmax_size = '1Ti'\n");
    let names = config.unwrap().snapshot_options().names;
    assert_eq!((names[0].largest, names[1].largest), (8 << 40, 1 << 40));
}

#[test]
fn a_name_makes_its_file_systems_its_own_way() {
    let config = parse(
        "[snapshots]\nbytes_per_inode = '32Ki'\nuser_quota = true\nmkfs_options = ['-m', '1']\n[names.plain]\n\
         [names.mail]\nbytes_per_inode = '4Ki'\nuser_quota = false\nmkfs_options = []\n",
    )
    .unwrap();
    let options = config.snapshot_options();
    let [mail, plain] = options.names.as_slice() else {
        panic!("{:?}", options.names)
    };
    let (Choices::Ext4(mail), Choices::Ext4(plain)) = (&mail.file_system, &plain.file_system)
    else {
        panic!("{options:?}")
    };
    assert_eq!((mail.bytes_per_inode, mail.user_quota), (4096, false));
    assert_eq!((plain.bytes_per_inode, plain.user_quota), (32768, true));
    assert_eq!((plain.mkfs.words().len(), mail.mkfs.words().len()), (2, 0));
}

#[test]
fn a_name_has_a_kind_of_file_system_and_what_does_not_go_with_it_is_refused() {
    let config = parse("[names.plain]\n[names.x]\nfilesystem = 'xfs'\n").unwrap();
    let options = config.snapshot_options();
    assert_eq!(options.names[0].file_system, Choices::default());
    assert_eq!(options.names[1].file_system, Choices::Xfs);
    assert!(config.makes(Kind::Ext4) && config.makes(Kind::Xfs));
    let all = parse(
        "[snapshots]\nfilesystem = 'xfs'\n[names.a]\n[names.b]\nfilesystem = 'ext4'\nuser_quota = true\n",
    );
    let options = all.unwrap().snapshot_options();
    assert_eq!(options.names[0].file_system, Choices::Xfs);
    assert!(options.names[1].file_system.user_quota());
    for (text, place, words) in [
        (
            "[names.x]\nfilesystem = 'btrfs'",
            "2:14:",
            "there are \"ext4\" and \"xfs\"",
        ),
        (
            "[names.x]\nfilesystem = 'xfs'\nsize = '256Mi'",
            "3:1:",
            "the smallest is 300Mi",
        ),
        (
            "[names.x]\nfilesystem = 'xfs'\nuser_quota = true",
            "3:1:",
            "users' quota is for ext4",
        ),
        (
            "[snapshots]\nuser_quota = true\n[names.x]\nfilesystem = 'xfs'",
            "2:1:",
            "users' quota is for ext4",
        ),
        (
            "[names.x]\nfilesystem = 'xfs'\nbytes_per_inode = '4Ki'",
            "3:1:",
            "makes its inodes as they",
        ),
        (
            "[names.x]\nfilesystem = 'xfs'\nmkfs_options = ['-m', '1']",
            "3:1:",
            "words for mkfs.ext4",
        ),
    ] {
        let refusal = refusal(text);
        assert!(
            refusal.starts_with(place) && refusal.contains(words),
            "{text}: {refusal}"
        );
    }
    parse("[snapshots]\nuser_quota = true\n[names.x]\nfilesystem = 'xfs'\nuser_quota = false")
        .unwrap();
}

#[test]
fn a_wrong_value_is_refused_with_its_place_and_what_would_be_right() {
    for (text, place, words) in [
        (
            "rot = '/x'",
            "1:1:",
            "unknown field `rot`, expected one of `root`",
        ),
        ("\n\n[log]\nlevel = 'info'", "4:1:", "unknown field `level`"),
        ("[nmes.ploop]", "1:2:", "unknown field `nmes`"),
        (
            "[names.ploop]\nsice = '1Gi'",
            "2:1:",
            "unknown field `sice`",
        ),
        ("root = 7", "1:8:", "invalid type: integer `7`"),
        ("root = 'var/lib'", "1:8:", "no absolute path"),
        ("[snapshots]\nsize = '10 Gigs'", "2:8:", "such as 10Gi"),
        ("[snapshots]\nsize = '1Mi'", "2:8:", "from 64Mi to 16Ti"),
        ("[snapshots]\nsize = '100000001'", "2:8:", "multiple of 4Ki"),
        ("[snapshots]\nsize = -1", "2:8:", "not negative"),
        ("[snapshots]\nsize = 1.5", "2:8:", "a size such as"),
        (
            "[snapshots]\ncluster = '65Ki'",
            "2:11:",
            "power of two from 32 KiB",
        ),
        ("[service]\ncall_limit = '20'", "2:14:", "such as 500ms"),
        ("[service]\ncall_limit = 20", "2:14:", "invalid type"),
        (
            "[snapshots]\nbytes_per_inode = '2Ki'",
            "2:19:",
            "write from 4Ki to 4Mi",
        ),
        (
            "[names.p]\nbytes_per_inode = '8Mi'",
            "2:19:",
            "write from 4Ki to 4Mi",
        ),
        (
            "[names.p]\nuser_quota = 'yes'",
            "2:14:",
            "expected a boolean",
        ),
        (
            "[snapshots]\nmkfs_options = ['-b', '1024']",
            "2:16:",
            "a block has 4096 bytes",
        ),
        (
            "[names.p]\nmkfs_options = ['-O', '^has_journal']",
            "2:16:",
            "not whole after a crash",
        ),
        ("[names.p]\nmkfs_options = '-m 1'", "2:16:", "invalid type"),
        (
            "[service]\ncall_limit = '0s'",
            "2:14:",
            "longer than nothing",
        ),
        ("[service]\ncall_limit = '2 days'", "2:14:", "a day at most"),
        (
            "[service]\ndetach_on_stop = 'yes'",
            "2:18:",
            "expected a boolean",
        ),
        ("[log]\nfilter = 'inof'", "2:10:", "write error, warn"),
        ("[log]\nformat = 'xml'", "2:10:", "write text or json"),
        (
            "[metrics]\naddress = ':9180'",
            "2:11:",
            "such as 127.0.0.1:9180",
        ),
        (
            "[disk_server]\ntransport = 'nbd'",
            "2:13:",
            "expected one of `auto`, `ublk`, `fuse`",
        ),
        ("[disk_server]\nshards = 70000", "2:10:", "u16"),
        (
            "[snapshots]\nsize = '1Gi'\nmin_size = '2Gi'",
            "2:1:",
            "the size 1Gi is not between min_size 2Gi and max_size 8Ti",
        ),
        (
            "[names.ploop]\nsize = '4Gi'\nmax_size = '2Gi'",
            "2:1:",
            "the size 4Gi is not between min_size 64Mi and max_size 2Gi",
        ),
        (
            "[snapshots]\nsize = '9Ti'\nmax_size = '16Ti'",
            "2:1:",
            "the size 9Ti is too large: a file system is made of 8Ti at most",
        ),
        (
            "[snapshots]\nsize = '100Mi'\ncluster = '64Mi'",
            "2:1:",
            "the size 100Mi is not a multiple of the cluster size, 64Mi",
        ),
        ("[nri]\nenabled = 'auto'", "2:11:", "expected a boolean"),
        ("[nri]\nsocket = 'nri.sock'", "2:10:", "no absolute path"),
        ("[names.\"a b\"]\n", "1:8:", "is no snapshotter name"),
        ("[names.\"../x\"]\n", "1:8:", "is no snapshotter name"),
        ("a = [\n1,", "2:3:", ""),
        ("root = '/a'\nroot = '/b'", "2:1:", "duplicate key"),
        // What only two options together tell.
        ("[log]\n[names]\n", "2:2:", "no snapshotter is named"),
        (
            "run_dir = '/a'\nroot = '/a'",
            "1:1:",
            "must not be the root",
        ),
        (
            "[names.a]\nsocket = '/s'\n[names.b]\nsocket = '/s'",
            "4:1:",
            "already that of [names.a]",
        ),
        (
            "[metrics]\naddress = '/run/ploop-snapshotter/ploopd.sock'",
            "2:1:",
            "the disk server",
        ),
        (
            "[names.ploopd]\n",
            "1:8:",
            "already that of the disk server",
        ),
    ] {
        let refusal = refusal(text);
        assert!(refusal.starts_with(place), "{text}\n  -> {refusal}");
        assert!(refusal.contains(words), "{text}\n  -> {refusal}");
    }
    let long = format!("run_dir = '/{}'", "x".repeat(120));
    assert!(
        refusal(&long).starts_with("1:1: the socket"),
        "{}",
        refusal(&long)
    );
    let long = format!("[nri]\nsocket = '/{}'", "x".repeat(120));
    assert!(
        refusal(&long).starts_with("2:1: the socket"),
        "{}",
        refusal(&long)
    );
    let long = format!("[names.p]\nsocket = '/{}'", "x".repeat(120));
    assert!(
        refusal(&long).starts_with("2:1: the socket"),
        "{}",
        refusal(&long)
    );
}

#[test]
fn a_missing_file_is_the_defaults_only_where_nothing_was_asked_for() {
    let error = Config::load(Path::new("/nowhere/config.toml")).unwrap_err();
    assert!(
        error.to_string().contains("/nowhere/config.toml"),
        "{error}"
    );
    if !Path::new(DEFAULT_PATH).exists() {
        assert_eq!(
            Config::load(Path::new(DEFAULT_PATH)).unwrap(),
            Config::default()
        );
    }
}
