//! Go's string literals, as filters write them: `"…"` everywhere, `/…/` and `|…|` for expressions.
//!
//! The rule: only what Go reads is read, and to the same bytes; a filter that another snapshotter
//! refuses is refused here too.

/// Why a literal cannot be read, and at which byte of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadQuote {
    pub(super) at: usize,
    pub(super) reason: &'static str,
}

/// Reads the literal that `text` starts with: its value, and how many bytes it took.
///
/// The first character is the quote that must close it.
///
/// # Errors
/// [`BadQuote`] if it is not closed, or holds an escape that Go does not know.
pub(super) fn unquote(text: &str) -> Result<(String, usize), BadQuote> {
    let mut chars = text.char_indices();
    let Some((_, quote)) = chars.next() else {
        return Err(bad(0, "expected a quote"));
    };
    // Bytes, not characters: `\xc3\xa9` is one character in two escapes.
    let mut value = Vec::new();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            let value = String::from_utf8(value)
                .map_err(|_| bad(0, "the quoted text is not valid UTF-8"))?;
            return Ok((value, at + c.len_utf8()));
        }
        match c {
            '\n' => break,
            '\\' => {
                let rest = &text[at + 1..];
                let taken = escape(rest, quote, &mut value)
                    .ok_or_else(|| bad(at, "illegal escape sequence"))?;
                chars = text.char_indices();
                // Every escape is ASCII, so this lands on a character's border.
                while chars.offset() < at + 1 + taken {
                    chars.next();
                }
            }
            _ => push(&mut value, c),
        }
    }
    Err(bad(0, "quoted literal not terminated"))
}

fn bad(at: usize, reason: &'static str) -> BadQuote {
    BadQuote { at, reason }
}

fn push(value: &mut Vec<u8>, c: char) {
    value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// What follows a backslash: adds what it means, says how many bytes it is long.
fn escape(rest: &str, quote: char, value: &mut Vec<u8>) -> Option<usize> {
    let kind = rest.chars().next()?;
    let simple = match kind {
        'a' => Some(7),
        'b' => Some(8),
        't' => Some(b'\t'),
        'n' => Some(b'\n'),
        'v' => Some(11),
        'f' => Some(12),
        'r' => Some(b'\r'),
        '\\' => Some(b'\\'),
        c if c == quote => u8::try_from(c).ok(),
        _ => None,
    };
    if let Some(byte) = simple {
        value.push(byte);
        return Some(1);
    }
    let (start, length, base) = match kind {
        '0'..='7' => (0, 3, 8),
        'x' => (1, 2, 16),
        'u' => (1, 4, 16),
        'U' => (1, 8, 16),
        _ => return None,
    };
    let digits = rest.get(start..start + length)?;
    if !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    let number = u32::from_str_radix(digits, base).ok()?;
    if matches!(kind, 'u' | 'U') {
        push(value, char::from_u32(number)?);
    } else {
        value.push(u8::try_from(number).ok()?);
    }
    Some(start + length)
}

#[cfg(test)]
mod tests {
    use super::unquote;

    #[test]
    fn literals_mean_what_they_mean_in_go() {
        for (text, value, taken) in [
            (r#""""#, "", 2),
            (r#""a b" rest"#, "a b", 5),
            (r#""a\"b\\c""#, r#"a"b\c"#, 9),
            (r"/a\/b|c/", "a/b|c", 8),
            (r"|a/b\||x", "a/b|", 7),
            (r#""\a\b\f\n\r\t\v""#, "\u{7}\u{8}\u{c}\n\r\t\u{b}", 16),
            (r#""\x41\102\u0043\U00000044""#, "ABCD", 26),
            (r#""\xc3\xa9é牛""#, "éé牛", 15),
            (r#""'""#, "'", 3),
        ] {
            assert_eq!(unquote(text), Ok((value.to_owned(), taken)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused_with_its_place() {
        for (text, at, reason) in [
            (r#""abc"#, 0, "not terminated"),
            ("\"a\nb\"", 0, "not terminated"),
            (r#""abc\""#, 0, "not terminated"),
            (r#""ab\"#, 3, "escape"),
            (r#""a\gb""#, 2, "escape"),
            (r#""a\'b""#, 2, "escape"),
            (r#""a\/b""#, 2, "escape"),
            (r"/\d+/", 1, "escape"),
            (r#""\xag""#, 1, "escape"),
            (r#""\x4""#, 1, "escape"),
            (r#""\400""#, 1, "escape"),
            (r#""\08""#, 1, "escape"),
            (r#""\ud800""#, 1, "escape"),
            (r#""\u+123""#, 1, "escape"),
            (r#""\U00110000""#, 1, "escape"),
            (r#""\u牛牛""#, 1, "escape"),
            (r#""\xff""#, 0, "UTF-8"),
            ("", 0, "quote"),
        ] {
            let error = unquote(text).unwrap_err();
            assert_eq!(error.at, at, "{text}: {error:?}");
            assert!(error.reason.contains(reason), "{text}: {error:?}");
        }
    }
}
