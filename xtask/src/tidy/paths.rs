//! Holds: the paths that a source file names: what it imports, and what it writes out.
//!
//! Reads tokens, not syntax: comments, texts and characters are passed over, and a module inside a file counts as the file.

/// A path that a file names.
#[derive(Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// From 1.
    pub line: usize,
    /// Such as `crate`, `a` and `B`; without a star at the end.
    pub parts: Vec<&'a str>,
    /// The name that an import gives it; `None` where it is only written out.
    pub here: Option<&'a str>,
}

struct Token<'a> {
    line: usize,
    /// A word, `::`, or one character.
    text: &'a str,
}

/// All paths of more than one part, and all imports.
pub fn named(text: &str) -> Vec<Named<'_>> {
    let tokens = tokens(text);
    let text_at = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let before = if at == 0 { "" } else { text_at(at - 1) };
        match token.text {
            "use" => {
                at += 1;
                read_tree(&tokens, &mut at, &[], &mut found);
            }
            // How far something is seen is no use of anything.
            "pub" if text_at(at + 1) == "(" => {
                while at < tokens.len() && text_at(at) != ")" {
                    at += 1;
                }
            }
            word if is_word(word) && text_at(at + 1) == "::" && !matches!(before, "::" | "." | "$") => {
                let mut parts = vec![word];
                at += 1;
                while text_at(at) == "::" && is_word(text_at(at + 1)) {
                    parts.push(text_at(at + 1));
                    at += 2;
                }
                found.push(Named { line: token.line, parts, here: None });
            }
            _ => at += 1,
        }
    }
    found
}

/// Reads one branch of an import, up to the comma, brace or semicolon after it.
fn read_tree<'a>(tokens: &[Token<'a>], at: &mut usize, above: &[&'a str], found: &mut Vec<Named<'a>>) {
    let mut parts = above.to_vec();
    let (mut line, mut here) = (0, None);
    while let Some(token) = tokens.get(*at) {
        match token.text {
            "::" | "*" => {}
            "as" => {
                *at += 1;
                here = tokens.get(*at).map(|token| token.text);
            }
            "{" => {
                *at += 1;
                while let Some(token) = tokens.get(*at) {
                    match token.text {
                        "}" => {
                            *at += 1;
                            return;
                        }
                        word if is_word(word) => read_tree(tokens, at, &parts, found),
                        _ => *at += 1,
                    }
                }
                return;
            }
            word if is_word(word) => {
                line = token.line;
                parts.push(word);
            }
            _ => break,
        }
        *at += 1;
    }
    if parts.len() > 1 && parts.last() == Some(&"self") {
        parts.pop();
    }
    let here = here.or_else(|| parts.last().copied());
    if here.is_some() {
        found.push(Named { line, parts, here });
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let passed = passed_over(rest);
        let length = passed.unwrap_or_else(|| match rest.find(|next: char| !next.is_alphanumeric() && next != '_') {
            _ if rest.starts_with("::") => 2,
            Some(0) => first.len_utf8(),
            end => end.unwrap_or(rest.len()),
        });
        let (token, after) = rest.split_at(length);
        if passed.is_none() {
            found.push(Token { line, text: token });
        }
        line += token.matches('\n').count();
        rest = after;
    }
    found
}

/// The length of what says nothing about paths, where it comes next: white space, a comment, a text, a character, the mark
/// of a lifetime.
fn passed_over(rest: &str) -> Option<usize> {
    let to_end_of = |end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    if rest.starts_with("//") {
        return Some(to_end_of("\n", 2));
    }
    if rest.starts_with("/*") {
        return Some(to_end_of("*/", 2));
    }
    if let Some(character) = rest.strip_prefix('\'') {
        let mut characters = character.char_indices();
        let (_, first) = characters.next()?;
        return Some(match (first, characters.next()) {
            ('\\', Some((at, escaped))) => to_end_of("'", 1 + at + escaped.len_utf8()),
            (_, Some((at, '\''))) => at + 2,
            _ => 1,
        });
    }
    let space = rest.len() - rest.trim_start().len();
    if space > 0 {
        return Some(space);
    }
    let opening = rest.trim_start_matches(['b', 'c', 'r']);
    let prefix = rest.len() - opening.len();
    let is_raw = rest[..prefix].ends_with('r');
    let hashes = if is_raw { opening.len() - opening.trim_start_matches('#').len() } else { 0 };
    if !opening[hashes..].starts_with('"') {
        return None;
    }
    let from = prefix + hashes + 1;
    if is_raw {
        return Some(to_end_of(&format!("\"{}", "#".repeat(hashes)), from));
    }
    let mut is_escaped = false;
    let end = rest[from..].find(|next: char| {
        let ends = next == '"' && !is_escaped;
        is_escaped = next == '\\' && !is_escaped;
        ends
    });
    Some(end.map_or(rest.len(), |at| from + at + 1))
}
