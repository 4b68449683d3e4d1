//! A configuration file of any content: refused at a place that it has, or read, printed, and read again as the same.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ploop_fuzz::limit::{Counting, within};
use ploop_snapshotter::config::{Config, Error};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What reading may hold for each byte of the text, and beside that.
const FAIR: (usize, usize) = (4096, 4 << 20);

fuzz_target!(|text: &str| {
    let path = Path::new("config.toml");
    let fair = FAIR.0 * text.len() + FAIR.1;
    let config = match within(fair, "reading", || Config::parse(path, text)) {
        Ok(config) => config,
        Err(Error::Value { line, column, .. }) => {
            // Behind the last character is a place too: there the rest of a value is missing.
            let lines = text.split('\n').count();
            let long = text.split('\n').nth(line - 1).map_or(0, |line| line.chars().count());
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
            assert!((1..=long + 1).contains(&column), "column {column} of {long}");
            return;
        }
        Err(error) => panic!("a text is not read from a file: {error}"),
    };
    let printed = config.print().expect("what was read from a text can be written as one");
    let again = Config::parse(path, &printed).expect("what is printed can be read");
    assert_eq!(again.print().expect("as before"), printed, "and says the same");
    // What `print` fills in is all that may be new.
    let bare = |mut config: Config| {
        config
            .names
            .values_mut()
            .for_each(|name| (name.socket, name.size) = (None, None));
        config
    };
    assert_eq!(bare(again), bare(config));
});
