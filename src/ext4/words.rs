//! Words for mkfs beside our own, as far as what is made with them is still understood here.
//!
//! What is known to go is listed, not what does not: a word that nobody has tried with growing, shrinking and
//! committing would be found wrong in somebody's data.

use super::Error;

/// Features that may be added or taken away: with each of them a file system is made, resized and checked in a test.
const FEATURES: [&str; 9] = [
    "ea_inode",
    "encrypt",
    "fast_commit",
    "inline_data",
    "large_dir",
    "metadata_csum_seed",
    "orphan_file",
    "^dir_index",
    "^huge_file",
];
/// Extended options that may be chosen, each a number.
const EXTENDED: [&str; 3] = ["stride", "stripe_width", "packed_meta_blocks"];
const LETTERS: &str = "-E -G -I -J -L -O -e -m";

/// Words for mkfs.ext4 beside our own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MkfsOptions {
    words: Vec<String>,
    features: Vec<String>,
    extended: Vec<String>,
    others: Vec<String>,
}

impl MkfsOptions {
    /// The words `-m`, `1`, or `-m1`.
    ///
    /// # Errors
    /// [`Error::BadOption`] for what may not be chosen.
    pub fn new(words: Vec<String>) -> Result<Self, Error> {
        let mut options = Self::default();
        let mut rest = words.iter().map(String::as_str);
        while let Some(word) = rest.next() {
            let Some((letter, attached)) = letter_of(word) else {
                return Err(bad(word, "write each word by itself: [\"-m\", \"1\"]"));
            };
            options.refuse_ours(word, letter)?;
            let value = match attached {
                "" => rest.next().unwrap_or_default(),
                attached => attached,
            };
            options.take(letter, value)?;
        }
        options.words = words;
        Ok(options)
    }

    /// As they were written.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// What is chosen beside our features: mkfs heeds only the last list of them.
    pub(super) fn features(&self) -> &[String] {
        &self.features
    }

    /// The same of extended options.
    pub(super) fn extended(&self) -> &[String] {
        &self.extended
    }

    /// Everything else; of two words for one thing mkfs heeds the last.
    pub(super) fn others(&self) -> &[String] {
        &self.others
    }

    /// What another option says, or what everything here relies on.
    fn refuse_ours(&self, word: &str, letter: char) -> Result<(), Error> {
        let why = match letter {
            'E' | 'G' | 'I' | 'J' | 'L' | 'O' | 'e' | 'm' => return Ok(()),
            'b' => "a block has 4096 bytes".to_owned(),
            'i' | 'N' => "the number of inodes is bytes_per_inode".to_owned(),
            _ => format!("there are {LETTERS}"),
        };
        Err(bad(word, why))
    }

    fn take(&mut self, letter: char, value: &str) -> Result<(), Error> {
        let option = format!("-{letter}");
        let shown = format!("{option} {value}");
        match letter {
            'O' => {
                for feature in value.split(',') {
                    check_feature(feature)?;
                    self.features.push(feature.to_owned());
                }
            }
            'E' => {
                for word in value.split(',') {
                    check_extended(word)?;
                    self.extended.push(word.to_owned());
                }
            }
            _ => {
                check_value(letter, value).map_err(|why| bad(&shown, why))?;
                self.others.extend([option, value.to_owned()]);
            }
        }
        Ok(())
    }
}

/// `-m` and `-m1` as a letter and what is written behind it.
fn letter_of(word: &str) -> Option<(char, &str)> {
    let mut rest = word.strip_prefix('-')?.chars();
    let letter = rest.next().filter(char::is_ascii_alphabetic)?;
    let attached = rest.as_str();
    (!attached.contains(char::is_whitespace)).then_some((letter, attached))
}

fn bad(word: &str, why: impl Into<String>) -> Error {
    Error::BadOption {
        word: word.chars().take(64).collect(),
        why: why.into(),
    }
}

fn check_feature(feature: &str) -> Result<(), Error> {
    if FEATURES.contains(&feature) {
        return Ok(());
    }
    let why = match feature.trim_start_matches('^') {
        "quota" => "say user_quota = true".to_owned(),
        "has_journal" => "a disk without a journal is not whole after a crash".to_owned(),
        _ => format!("features that may be chosen are {}", FEATURES.join(", ")),
    };
    Err(bad(feature, why))
}

fn check_extended(word: &str) -> Result<(), Error> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    if EXTENDED.contains(&name) && value.parse::<u32>().is_ok() {
        return Ok(());
    }
    let why = match name {
        "resize" => "how far it may grow is decided here".to_owned(),
        "quotatype" => "say user_quota = true".to_owned(),
        _ => format!(
            "extended options that may be chosen are {}, each = a number",
            EXTENDED.join(", ")
        ),
    };
    Err(bad(word, why))
}

fn check_value(letter: char, value: &str) -> Result<(), &'static str> {
    let number = |text: &str| text.parse::<u32>().unwrap_or(u32::MAX);
    let (right, why) = match letter {
        'm' => (
            number(value) <= 50,
            "it is the percentage kept for root, from 0 to 50",
        ),
        'I' => (
            [256, 512, 1024].contains(&number(value)),
            "an inode has 256, 512 or 1024 bytes",
        ),
        'G' => (
            number(value).is_power_of_two() && number(value) <= 1 << 16,
            "it is a power of two, at most 65536",
        ),
        'J' => (
            value
                .strip_prefix("size=")
                .is_some_and(|size| (4..=1024).contains(&number(size))),
            "of a journal its size may be chosen, from size=4 to size=1024 (MiB)",
        ),
        'e' => (
            ["continue", "remount-ro"].contains(&value),
            "after an error a file system may continue or remount-ro: it must not take the node with it",
        ),
        _ => (
            (1..=16).contains(&value.len()) && value.chars().all(|c| c.is_ascii_graphic()),
            "a label has from 1 to 16 visible characters",
        ),
    };
    if right { Ok(()) } else { Err(why) }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::super::{Choices, Filesystem, Layout, Tools, spent_journal};
    use super::{FEATURES, MkfsOptions};

    fn read(text: &str) -> Result<MkfsOptions, String> {
        let words = text
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(str::to_owned);
        MkfsOptions::new(words.collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn lists_are_joined_and_the_rest_is_passed_on() {
        let found = read(
            "-m 1 -O fast_commit -I512 -E stride=16 -O orphan_file,^huge_file -E stripe_width=64 -J size=64",
        );
        let found = found.unwrap();
        assert_eq!(
            found.features(),
            ["fast_commit", "orphan_file", "^huge_file"]
        );
        assert_eq!(found.extended(), ["stride=16", "stripe_width=64"]);
        assert_eq!(found.others(), ["-m", "1", "-I", "512", "-J", "size=64"]);
        assert_eq!(found.words().len(), 13);
        assert_eq!(read("").unwrap(), MkfsOptions::default());
    }

    #[test]
    fn what_breaks_what_we_rely_on_is_refused() {
        for (text, words) in [
            ("-b 1024", "a block has 4096 bytes"),
            ("-b1024", "a block has 4096 bytes"),
            ("-i 4096", "is bytes_per_inode"),
            ("-N 1000", "is bytes_per_inode"),
            ("-O ^has_journal", "without a journal"),
            ("-O bigalloc", "features that may be chosen are"),
            ("-O fast_commit,meta_bg", "\"meta_bg\""),
            ("-O none", "features that may be chosen"),
            ("-O quota", "user_quota"),
            ("-O", "features that may be chosen"),
            ("-E resize=4G", "how far it may grow"),
            ("-E stride=x", "extended options that may be chosen"),
            ("-E root_owner=1:1", "extended options that may be chosen"),
            ("-J device=/dev/sda", "of a journal its size"),
            ("-J size=2", "of a journal its size"),
            ("-e panic", "must not take the node"),
            ("-m 51", "from 0 to 50"),
            ("-m", "from 0 to 50"),
            ("-I 128", "256, 512 or 1024"),
            ("-G 3", "power of two"),
            ("-L", "a label has"),
            ("-n", "there are -E -G"),
            ("-S", "there are -E -G"),
            ("-d /etc", "there are -E -G"),
            ("-t ext2", "there are -E -G"),
            ("/dev/sda", "write each word by itself"),
            ("10G", "write each word by itself"),
            ("--", "write each word by itself"),
        ] {
            let refusal = read(text).unwrap_err();
            assert!(refusal.contains(words), "{text}: {refusal}");
        }
        let blank = MkfsOptions::new(vec!["-m 1".to_owned()])
            .unwrap_err()
            .to_string();
        assert!(blank.contains("write each word by itself"), "{blank}");
    }

    /// Each by itself, and what else may be said: made, made larger and smaller, checked, its journal found.
    #[tokio::test]
    async fn what_may_be_chosen_does_what_is_done_with_a_file_system() {
        let tools = Tools::find().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let each = FEATURES.map(|feature| format!("-O {feature}"));
        let others = [
            "-m 5",
            "-I 1024",
            "-G 16",
            "-J size=64",
            "-e remount-ro -L some-label",
            "-E stride=16,stripe_width=64,packed_meta_blocks=0",
        ];
        for text in each.iter().map(String::as_str).chain(others) {
            for user_quota in [false, true] {
                let _ = std::fs::remove_file(&path);
                let choices = Choices {
                    mkfs: read(text).unwrap(),
                    user_quota,
                    ..Choices::default()
                };
                let layout = Layout::new(1 << 30, &choices).unwrap();
                let made = Filesystem::make(&path, &layout, &tools).await;
                let made = made.unwrap_or_else(|error| panic!("{text}: {error}"));
                std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
                let file = File::options().read(true).write(true).open(&path).unwrap();
                file.set_len(4 << 30).unwrap();
                for size in [4 << 30, 300 << 20, 1 << 30] {
                    let resized = made.resize(size, &tools).await;
                    resized.unwrap_or_else(|error| panic!("{text}: {error}"));
                    made.check(&tools)
                        .await
                        .unwrap_or_else(|error| panic!("{text}: {error}"));
                }
                assert!(
                    !spent_journal(&file, 0, &path).unwrap().is_empty(),
                    "{text}"
                );
            }
        }
    }
}
