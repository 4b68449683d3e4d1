//! An error with everything that lies under it, in one line: for a log, a status, a person.

use std::error::Error;

/// The error's own words, then those of each cause, with colons between.
#[must_use]
pub fn in_full(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::in_full;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open {path}")]
    struct Cannot {
        path: &'static str,
        #[source]
        source: io::Error,
    }

    #[test]
    fn the_cause_follows_what_it_caused() {
        let error = Cannot {
            path: "/x",
            source: io::Error::other("no such luck"),
        };
        assert_eq!(in_full(&error), "cannot open /x: no such luck");
    }
}
