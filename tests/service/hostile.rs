//! Every call with words that nobody means well, over the real socket and with real disks: each is answered with
//! a code that containerd knows, nothing is touched outside the root, and the daemon goes on as before.
//!
//! The same words at every run: `SEED=7 ROUNDS=1000` says others, and more.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tonic::Code;

use super::client::{Client, code};
use super::daemon::Place;

const CLEAN: &str = "[service]\ndetach_on_stop = true\n";
/// What words are put together from.
const PIECES: &[&str] = &[
    "",
    "a",
    "base",
    "active",
    "view",
    "/",
    "..",
    "../",
    "../../../../outside/x",
    "k8s.io/1/",
    "k8s.io/18446744073709551616/",
    "//",
    ".",
    "\0",
    "\n",
    "\r\n",
    " ",
    "\t",
    "%s%n",
    "%2e%2e%2f",
    "\\",
    "\"",
    "'",
    "$(touch x)",
    "`",
    ";",
    "é",
    "\u{202e}",
    "\u{fffd}",
    "\u{1f4a9}",
    "\u{feff}",
    "sha256:",
    "-rf",
    "--",
    "*",
    "?",
    "deltas/1.hds",
    "snapshots.db",
    "kept",
    "extract-1 x",
];
/// Labels that mean something to somebody.
const LABELS: &[&str] = &[
    "containerd.io/snapshot/ploop.size",
    "containerd.io/snapshot/max-size",
    "containerd.io/snapshot.ref",
    "containerd.io/gc.root",
    "containerd.io/snapshot/ploop.",
    "labels",
    "",
];
/// What sizes are written as.
const SIZES: &[&str] = &[
    "",
    "0",
    "-1",
    "1",
    "256Mi",
    "300Mi",
    "1e99",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "16Ei",
    "1Zi",
    "0x10",
    "٣",
    "1 Gi",
    "Gi",
    "1Gi\0",
    "NaN",
    "+1Gi",
];
const MASKS: &[&str] = &[
    "labels",
    "labels.",
    "labels.a",
    "labels.containerd.io/snapshot/max-size",
    "name",
    "",
    "..",
    "labels.\0",
    "parent",
];
const FILTERS: &[&str] = &[
    "name==",
    "name~=",
    "labels.",
    "kind==active",
    "\"",
    "(((((",
    "parent!=",
    "{",
    "~=(a*)*b",
    "name~=\"(.*){1000}{1000}\"",
];

/// Chance that is the same each time (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((word ^ (word >> 31)) % count as u64).unwrap()
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// A word of some pieces; now and then a very long one.
    fn word(&mut self) -> String {
        let count = 1 + self.below(4);
        let mut word: String = (0..count).map(|_| self.one(PIECES)).collect();
        match self.below(24) {
            0 => word = word.repeat(1 + 70_000 / word.len().max(1)),
            1 => word.push_str(&"x".repeat(250 + self.below(10))),
            _ => {}
        }
        word
    }

    /// A word, or the name of something that is there.
    fn key(&mut self) -> String {
        match self.below(3) {
            0 => self.one(&["base", "active", "view", "made"]).to_owned(),
            _ => self.word(),
        }
    }

    fn labels(&mut self) -> Vec<(String, String)> {
        let count = self.below(3);
        let label = |_| match self.below(3) {
            0 => (self.word(), self.word()),
            1 => (self.one(LABELS).to_owned(), self.one(SIZES).to_owned()),
            _ => (self.one(LABELS).to_owned(), self.word()),
        };
        (0..count).map(label).collect()
    }
}

/// One call of any method.
async fn call(client: &Client, chance: &mut Chance) -> (String, Code) {
    let (key, other, labels) = (chance.key(), chance.key(), chance.labels());
    let pairs: Vec<_> = labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let masks = [chance.one(MASKS), chance.one(MASKS)];
    let filters = [
        format!("{}{}", chance.one(FILTERS), chance.word()),
        chance.one(FILTERS).to_owned(),
    ];
    let filters: Vec<_> = filters.iter().map(String::as_str).collect();
    let (name, code) = match chance.below(9) {
        0 => (
            "prepare",
            code(client.prepare_with(&key, &other, &pairs).await),
        ),
        1 => ("view", code(client.view(&key, &other).await)),
        2 => ("mounts", code(client.mounts(&key).await)),
        3 => ("commit", code(client.commit(&other, &key, &pairs).await)),
        4 => ("remove", code(client.remove(&key).await)),
        5 => ("stat", code(client.stat(&key).await)),
        6 => (
            "update",
            code(
                client
                    .update(&key, &pairs, Some(&masks[..1 + chance.below(2)]))
                    .await,
            ),
        ),
        7 => ("usage", code(client.usage(&key).await)),
        _ => ("list", code(client.list(&filters[..chance.below(3)]).await)),
    };
    let said = format!("{name} {key:.60?} {other:.60?} {labels:.200?} {masks:?} {filters:.200?}");
    (said, code)
}

/// All files below a folder, by their path.
fn files(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            files(&path, found);
        }
        found.insert(path.to_str().unwrap().to_owned());
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_words_touch_anything_outside_the_root_or_end_the_daemon() {
    let place = Place::new(CLEAN);
    let daemon = place.start();
    let client = place.client().await;
    // As many names as may be, so that `..` has somewhere to go.
    fs::create_dir(place.path("outside")).unwrap();
    fs::write(place.path("outside/x"), "as it was").unwrap();
    client.prepare("making base", "").await.unwrap();
    client.commit("base", "making base", &[]).await.unwrap();
    client.prepare("active", "base").await.unwrap();
    client.view("view", "base").await.unwrap();

    let seed = number("SEED", 1);
    let mut chance = Chance(seed);
    let mut answers = std::collections::BTreeMap::<String, usize>::new();
    for round in 0..number("ROUNDS", 300) {
        let asked = call(&client, &mut chance);
        let (said, code) = tokio::time::timeout(Duration::from_secs(60), asked)
            .await
            .unwrap();
        *answers.entry(format!("{code:?}")).or_default() += 1;
        let known = [
            Code::Ok,
            Code::NotFound,
            Code::AlreadyExists,
            Code::InvalidArgument,
            Code::FailedPrecondition,
        ];
        assert!(
            known.contains(&code),
            "seed {seed}, round {round}: {code:?} to {said}\n{}",
            place.log()
        );
    }
    for code in [
        "Ok",
        "NotFound",
        "AlreadyExists",
        "InvalidArgument",
        "FailedPrecondition",
    ] {
        assert!(answers.contains_key(code), "too tame: {answers:?}");
    }

    assert!(!place.log().contains("panicked"), "{}", place.log());
    assert_eq!(
        fs::read_to_string(place.path("outside/x")).unwrap(),
        "as it was"
    );
    let mut found = BTreeSet::new();
    for folder in ["outside", "root/deltas"] {
        files(&place.path(folder), &mut found);
    }
    // Files are called by our numbers, never by their words.
    for path in &found {
        let name = Path::new(path).file_stem().unwrap().to_str().unwrap();
        let ours = path.ends_with("outside/x") || name.bytes().all(|byte| byte.is_ascii_digit());
        assert!(ours, "{path}");
    }
    let beside: BTreeSet<_> = fs::read_dir(place.path(""))
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    let expected = ["config.toml", "failpoints", "log", "outside", "root", "run"].map(Into::into);
    assert_eq!(beside, BTreeSet::from(expected));

    // Whatever they made can be taken away, and nothing of it stays.
    let (mut infos, _) = client.list(&[]).await.unwrap();
    while !infos.is_empty() {
        let before = infos.len();
        let mut left = Vec::new();
        for info in infos {
            if client.remove(&info.name).await.is_err() {
                left.push(info);
            }
        }
        assert!(left.len() < before, "{left:?} cannot be removed");
        infos = left;
    }
    drop(daemon);
    let check = std::process::Command::new(env!("CARGO_BIN_EXE_ploop"))
        .arg("check")
        .arg(place.path("root"))
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(0), "{check:?}");
}
