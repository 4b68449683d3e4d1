//! A small reader of Rust: words and signs, without comments, strings and character literals.
//!
//! It does not parse. It knows just enough to tell `use crate::disk` in the code from the same words in
//! a comment, and it must err on the side of seeing too much.

/// A word or a sign of the source, with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) line: usize,
    pub(super) text: String,
}

/// Everything that the compiler would see as words and signs.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut found = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end > at {
            line += newlines(&chars[at..end]);
            at = end;
            continue;
        }
        let end = word_end(&chars, at);
        let text: String = chars[at..end].iter().collect();
        found.push(Token { line, text });
        at = end;
    }
    found
}

fn newlines(chars: &[char]) -> usize {
    chars.iter().filter(|c| **c == '\n').count()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The end of the word or sign that starts at `at`; `::` is one sign.
fn word_end(chars: &[char], at: usize) -> usize {
    if is_word(chars[at]) {
        let rest = chars[at..].iter().take_while(|c| is_word(**c)).count();
        at + rest
    } else if chars[at] == ':' && chars.get(at + 1) == Some(&':') {
        at + 2
    } else {
        at + 1
    }
}

/// The end of what starts at `at` and is no code: white space, a comment, a literal. `at` if it is code.
fn skip(chars: &[char], at: usize) -> usize {
    let next = |n: usize| chars.get(at + n).copied();
    match chars[at] {
        c if c.is_whitespace() => at + 1,
        '/' if next(1) == Some('/') => line_end(chars, at),
        '/' if next(1) == Some('*') => block_end(chars, at),
        '"' => string_end(chars, at + 1),
        '\'' => char_end(chars, at),
        'b' | 'c' if next(1) == Some('"') => string_end(chars, at + 2),
        'b' if next(1) == Some('\'') => char_end(chars, at + 1),
        'r' => raw_end(chars, at, at + 1),
        'b' | 'c' if next(1) == Some('r') => raw_end(chars, at, at + 2),
        _ => at,
    }
}

fn line_end(chars: &[char], at: usize) -> usize {
    let rest = chars[at..].iter().take_while(|c| **c != '\n').count();
    at + rest
}

fn block_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// A character literal ends at its quote; a lifetime is code, so its tick alone is skipped.
fn char_end(chars: &[char], at: usize) -> usize {
    if chars.get(at + 1) == Some(&'\\') {
        let rest = chars[at + 3..].iter().take_while(|c| **c != '\'').count();
        at + 4 + rest
    } else if chars.get(at + 2) == Some(&'\'') {
        at + 3
    } else {
        at + 1
    }
}

/// `r"…"`, `r#"…"#`; `start` if this is a word that begins with r, or a raw word such as `r#type`.
fn raw_end(chars: &[char], start: usize, mut at: usize) -> usize {
    let hashes = chars[at.min(chars.len())..]
        .iter()
        .take_while(|c| **c == '#')
        .count();
    at += hashes;
    if chars.get(at) != Some(&'"') {
        return start;
    }
    at += 1;
    while at < chars.len() {
        let closes =
            chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
        if closes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    chars.len()
}

/// The tokens without the bodies of inline test modules (`#[cfg(test)] mod tests { … }`).
pub(super) fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept: Vec<Token> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        kept.push(tokens[at].clone());
        at += 1;
        let ends_with = |words: &[&str]| {
            kept.len() >= words.len()
                && kept[kept.len() - words.len()..]
                    .iter()
                    .zip(words)
                    .all(|(token, word)| token.text == *word)
        };
        if ends_with(&["mod", "tests", "{"]) {
            let mut depth = 1;
            while at < tokens.len() && depth > 0 {
                match tokens[at].text.as_str() {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                at += 1;
            }
        }
    }
    kept
}

/// Every place where `root::name` stands, as `(line, name)`; `{` and `*` are names too.
pub(super) fn paths_from(tokens: &[Token], root: &str) -> Vec<(usize, String)> {
    tokens
        .windows(3)
        .enumerate()
        .filter(|(at, window)| {
            let starts = *at == 0 || tokens[at - 1].text != "::";
            starts && window[0].text == root && window[1].text == "::"
        })
        .map(|(_, window)| (window[2].line, window[2].text.clone()))
        .collect()
}

/// What a path leaves after climbing out of a file that stands `depth` modules below the crate's root.
///
/// In `src/disk/serve.rs` (depth 2) `super::super::image` names the room `image`.
pub(super) fn paths_climbing_out(tokens: &[Token], depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let mut climbs = 0;
        while tokens.get(at).is_some_and(|t| t.text == "super")
            && tokens.get(at + 1).is_some_and(|t| t.text == "::")
        {
            climbs += 1;
            at += 2;
        }
        if climbs >= depth
            && climbs > 0
            && let Some(token) = tokens.get(at)
        {
            found.push((token.line, token.text.clone()));
        }
        at += 1;
    }
    found
}

/// Lines on which a `use` ends in a star.
pub(super) fn globs(tokens: &[Token]) -> Vec<usize> {
    let mut inside = false;
    let mut found = Vec::new();
    for token in tokens {
        match token.text.as_str() {
            "use" => inside = true,
            ";" => inside = false,
            "*" if inside => found.push(token.line),
            _ => {}
        }
    }
    found
}

/// Lines on which something is printed.
pub(super) fn prints(tokens: &[Token]) -> Vec<usize> {
    let macros = ["print", "println", "eprint", "eprintln", "dbg"];
    let streams = ["stdout", "stderr"];
    (0..tokens.len().saturating_sub(1))
        .filter(|&at| {
            let word = tokens[at].text.as_str();
            let next = tokens[at + 1].text.as_str();
            // `.stdout(` is a method: where a program that is started writes, not where we do.
            let method = at > 0 && tokens[at - 1].text == ".";
            (macros.contains(&word) && next == "!")
                || (streams.contains(&word) && next == "(" && !method)
        })
        .map(|at| tokens[at].line)
        .collect()
}

/// What a door holds besides `mod x;`, `pub use …;` and attributes.
pub(super) fn definitions(tokens: &[Token]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    let text = |at: usize| tokens.get(at).map_or("", |t| t.text.as_str());
    while at < tokens.len() {
        let start = at;
        if text(at) == "#" {
            at += if text(at + 1) == "!" { 2 } else { 1 };
            at = closing(tokens, at, "[", "]");
            continue;
        }
        let public = text(at) == "pub";
        if public {
            at += 1;
            if text(at) == "(" {
                at = closing(tokens, at, "(", ")");
            }
        }
        let opens = match text(at) {
            "mod" => text(at + 2) == ";",
            "use" => public,
            _ => false,
        };
        if !opens {
            found.push((tokens[start].line, text(at).to_owned()));
        }
        while at < tokens.len() && text(at) != ";" {
            at += 1;
        }
        at += 1;
    }
    found
}

/// The place after the sign that closes the bracket at `at`.
fn closing(tokens: &[Token], mut at: usize, open: &str, close: &str) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        if tokens[at].text == open {
            depth += 1;
        } else if tokens[at].text == close {
            depth -= 1;
            if depth == 0 {
                return at + 1;
            }
        }
        at += 1;
    }
    at
}
