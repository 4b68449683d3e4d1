//! What is mounted where, as this process sees it.

use std::fs;
use std::io;
use std::path::Path;

use super::error::{Error, kernel};

/// Is a block device with these numbers mounted?
pub(super) fn is_mounted(major: u32, minor: u32) -> Result<bool, Error> {
    let wanted = format!("{major}:{minor}");
    Ok(table()?
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(2))
        .any(|numbers| numbers == wanted.as_bytes()))
}

/// How many mounts lie on exactly this folder.
pub(super) fn mounts_at(folder: &Path) -> Result<usize, Error> {
    let wanted = folder.as_os_str().as_encoded_bytes();
    Ok(table()?
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .filter(|point| unescape(point) == wanted)
        .count())
}

fn table() -> Result<Vec<u8>, Error> {
    let path = Path::new("/proc/self/mountinfo");
    fs::read(path).map_err(kernel::<io::Error>("read", path))
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        match code {
            Some(byte) => {
                plain.push(byte);
                rest = &rest[4..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn mountinfo_escapes_are_read_back() {
        for (written, meant) in [
            ("/run/a", "/run/a"),
            ("/run/a\\040b", "/run/a b"),
            ("/a\\134040", "/a\\040"),
            ("/a\\", "/a\\"),
            ("/a\\04", "/a\\04"),
        ] {
            assert_eq!(unescape(written.as_bytes()), meant.as_bytes(), "{written}");
        }
    }
}
