//! Holds: a text as a list of clauses that are spoken one after another.

/// Most characters (Unicode scalars) of a text: OpenAI's bound on `input`.
pub const MAX_CHARS: usize = 4096;

/// Most characters of one clause; longer ones are cut between words. What is computed at once is bounded by it, and so is
/// what a program is given at once.
const MAX_CLAUSE: usize = 200;

/// Characters that an utterance has at least, unless the text ends. A voice says single words badly, and each clause costs
/// a start of espeak-ng.
const MIN_UTTERANCE: usize = 24;

/// Words after which a full stop ends nothing. espeak-ng knows how they are said.
const ABBREVIATIONS: [&str; 11] = ["dr", "mr", "mrs", "ms", "prof", "st", "vs", "e.g", "i.e", "jr", "sr"];

/// A part of a text between two pauses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    /// With its punctuation, without blanks around it.
    pub(crate) text: String,
    /// What ends it, as one of `. , ; : ! ?`; nothing where it was only cut.
    pub(crate) end: Option<char>,
}

/// The clauses of a text, gathered into pieces that are spoken at once. Empty when there is nothing to say.
pub(crate) fn utterances(text: &str) -> Vec<Vec<Clause>> {
    let mut utterances = Vec::new();
    let mut gathered: Vec<Clause> = Vec::new();
    let mut length = 0;
    for clause in clauses(&clean(text)) {
        let chars = clause.text.chars().count();
        if length + chars > MAX_CLAUSE && !gathered.is_empty() {
            utterances.push(std::mem::take(&mut gathered));
            length = 0;
        }
        gathered.push(clause);
        length += chars;
        if length >= MIN_UTTERANCE {
            utterances.push(std::mem::take(&mut gathered));
            length = 0;
        }
    }
    if !gathered.is_empty() {
        utterances.push(gathered);
    }
    utterances
}

/// Without what espeak-ng would take for commands: control characters, and `[[`, after which it reads phonemes. Line ends
/// are `\n`.
fn clean(text: &str) -> Vec<char> {
    let mut clean = Vec::with_capacity(text.len());
    for symbol in text.chars() {
        match symbol {
            '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => clean.push('\n'),
            _ if symbol.is_control() => clean.push(' '),
            '[' if clean.last() == Some(&'[') => clean.extend([' ', '[']),
            _ => clean.push(symbol),
        }
    }
    clean
}

fn clauses(text: &[char]) -> Vec<Clause> {
    let mut clauses = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (length, end) = first(rest);
        let (clause, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        rest = after;
        let text: String = clause.iter().collect::<String>().trim().to_owned();
        if text.contains(is_said) {
            clauses.push(Clause { text, end });
        }
    }
    clauses
}

/// Length and end of the first clause; the length is above 0.
fn first(text: &[char]) -> (usize, Option<char>) {
    let mut blank = 0;
    for (at, symbol) in text.iter().copied().enumerate() {
        if at >= MAX_CLAUSE {
            return (if blank > 0 { blank } else { at }, None);
        }
        if symbol.is_whitespace() {
            blank = at + 1;
        }
        let after = text.get(at + 1..).unwrap_or_default();
        if let Some(end) = ends(symbol, text.get(..at).unwrap_or_default(), after) {
            let closing = after.iter().take_while(|symbol| is_closing(**symbol)).count();
            return (at + 1 + closing, Some(end));
        }
    }
    (text.len(), None)
}

/// The pause that a character makes where it stands.
fn ends(symbol: char, before: &[char], after: &[char]) -> Option<char> {
    let is_followed_by_blank = || {
        let next = after.iter().find(|symbol| !is_closing(**symbol));
        next.is_none_or(|next| next.is_whitespace())
    };
    match symbol {
        '\n' => Some('.'),
        '。' | '．' | '।' | '…' => Some('.'),
        '！' => Some('!'),
        '？' | '؟' => Some('?'),
        '，' | '、' | '،' | '—' => Some(','),
        '；' => Some(';'),
        '：' => Some(':'),
        '.' if is_followed_by_blank() && !is_abbreviation(before) => Some('.'),
        '!' | '?' | ',' | ';' | ':' if is_followed_by_blank() => Some(symbol),
        _ => None,
    }
}

/// Whether the word before a full stop is cut short: a known one, or a single capital letter, as in "J. Smith".
fn is_abbreviation(before: &[char]) -> bool {
    let is_of_word = |symbol: &&char| symbol.is_alphanumeric() || **symbol == '.';
    let letters: Vec<char> = before.iter().rev().take_while(is_of_word).copied().collect();
    let word: String = letters.iter().rev().collect();
    let is_initial = letters.len() == 1 && word.chars().all(char::is_uppercase) && word != "I";
    is_initial || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

fn is_closing(symbol: char) -> bool {
    matches!(symbol, '"' | '\'' | ')' | ']' | '}' | '”' | '’' | '»' | '」' | '』')
}

/// Whether a character is more than a pause.
fn is_said(symbol: char) -> bool {
    !symbol.is_whitespace() && !symbol.is_ascii_punctuation() && !is_closing(symbol) && ends(symbol, &[], &[]).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<Vec<(String, Option<char>)>> {
        let plain = |clauses: Vec<Clause>| clauses.into_iter().map(|clause| (clause.text, clause.end)).collect();
        utterances(text).into_iter().map(plain).collect()
    }

    fn clause(text: &str, end: char) -> (String, Option<char>) {
        (text.to_owned(), Some(end))
    }

    #[test]
    fn pauses_part_clauses_and_short_ones_stay_together() {
        assert_eq!(
            split("Hello, \"world!\" It costs 3.14 dollars (or so); Dr. J. Smith said:\r\nI see. It's 10:30"),
            [
                vec![clause("Hello,", ','), clause("\"world!\"", '!'), clause("It costs 3.14 dollars (or so);", ';')],
                vec![clause("Dr. J. Smith said:", ':'), clause("I see.", '.')],
                vec![("It's 10:30".to_owned(), None)],
            ]
        );
        assert_eq!(split("你好，世界。"), [vec![clause("你好，", ','), clause("世界。", '.')]]);
    }

    #[test]
    fn what_says_nothing_is_left_out() {
        for nothing in ["", " \n\t", "...", "\u{0}\u{1b}\u{7f}", "?! (—)", "\"…\""] {
            assert_eq!(split(nothing), Vec::<Vec<_>>::new(), "{nothing:?}");
        }
        assert_eq!(split("--\nYes"), [vec![("Yes".to_owned(), None)]]);
    }

    #[test]
    fn nothing_reaches_the_program_as_a_command() {
        assert_eq!(split("a\u{1}5sb [[h@loU]] [[[x"), [vec![("a 5sb [ [h@loU]] [ [ [x".to_owned(), None)]]);
    }

    #[test]
    fn clauses_are_bounded_and_nothing_is_lost() {
        for text in ["x".repeat(MAX_CHARS), "word ".repeat(800), "é, ".repeat(1000), "好".repeat(MAX_CHARS)] {
            let utterances = utterances(&text);
            let length =
                |clauses: &Vec<Clause>| clauses.iter().map(|clause| clause.text.chars().count()).sum::<usize>();
            assert!(utterances.iter().all(|clauses| (1..=MAX_CLAUSE).contains(&length(clauses))));
            let joined: String = utterances.iter().flatten().map(|clause| clause.text.as_str()).collect();
            assert_eq!(joined.replace(' ', ""), text.replace(' ', ""));
        }
    }
}
