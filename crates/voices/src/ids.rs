//! Holds: phonemes as the numbers that a Piper voice knows them by.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization as _;

/// Before the first phoneme.
const BEGIN: char = '^';

/// After the last one.
const END: char = '$';

/// After each but the last.
const PAD: char = '_';

/// The numbers of each phoneme, from the voice's own description.
#[derive(Clone, Debug)]
pub(crate) struct PhonemeIds(HashMap<char, Vec<i32>>);

impl PhonemeIds {
    /// None where the marks are missing that every voice has, or a phoneme is no single character.
    pub(crate) fn new(described: HashMap<String, Vec<i32>>) -> Option<Self> {
        let single = |text: String| {
            let mut symbols = text.chars();
            symbols.next().filter(|_| symbols.next().is_none())
        };
        let pairs = described.into_iter().map(|(phoneme, ids)| Some((single(phoneme)?, ids)));
        let map: HashMap<char, Vec<i32>> = pairs.collect::<Option<_>>()?;
        let is_known = |mark: &char| map.get(mark).is_some_and(|ids| !ids.is_empty());
        [BEGIN, END, PAD].iter().all(is_known).then_some(Self(map))
    }

    /// The input of the model for these phonemes. Those that the voice does not know are left out, as Piper does.
    pub(crate) fn encode(&self, phonemes: &[char]) -> Vec<i32> {
        let of = |symbol: char| self.0.get(&symbol).map(Vec::as_slice).unwrap_or_default();
        let mut ids = Vec::with_capacity(phonemes.len() * 2 + 3);
        ids.extend_from_slice(of(BEGIN));
        ids.extend_from_slice(of(PAD));
        for known in phonemes.iter().map(|symbol| of(*symbol)).filter(|known| !known.is_empty()) {
            ids.extend_from_slice(known);
            ids.extend_from_slice(of(PAD));
        }
        ids.extend_from_slice(of(END));
        ids
    }

    /// Whether the voice has a sound or a pause for it.
    pub(crate) fn knows(&self, symbol: char) -> bool {
        self.0.contains_key(&symbol)
    }
}

/// What espeak-ng says of a clause, as single phonemes: its lines as one, without `(en)` and the like, where it changed
/// the language, and without `_`, which is a mark of Piper's.
pub(crate) fn phonemes(said: &str) -> Vec<char> {
    let mut phonemes = Vec::new();
    let mut is_flag = false;
    for symbol in said.trim().nfd() {
        match symbol {
            '(' => is_flag = true,
            ')' => is_flag = false,
            _ if is_flag || matches!(symbol, PAD | BEGIN | END) => {}
            _ if symbol.is_whitespace() => {
                if phonemes.last() != Some(&' ') {
                    phonemes.push(' ');
                }
            }
            _ => phonemes.push(symbol),
        }
    }
    phonemes
}

/// At most `most` phonemes in each piece, cut between words where that can be.
pub(crate) fn pieces(phonemes: &[char], most: usize) -> Vec<Vec<char>> {
    let most = most.max(1);
    let mut pieces = Vec::new();
    let mut rest = phonemes;
    while rest.len() > most {
        let head = rest.get(..most).unwrap_or(rest);
        let cut = head.iter().rposition(|symbol| *symbol == ' ').map_or(most, |at| at + 1);
        let (piece, after) = rest.split_at_checked(cut).unwrap_or((rest, &[]));
        pieces.push(piece.to_vec());
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(rest.to_vec());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> HashMap<String, Vec<i32>> {
        let known =
            [("_", vec![0]), ("^", vec![1]), ("$", vec![2]), ("a", vec![7]), ("c", vec![8, 9]), ("\u{327}", vec![5])];
        known.into_iter().map(|(phoneme, ids)| (phoneme.to_owned(), ids)).collect()
    }

    #[test]
    fn phonemes_become_numbers_with_marks_between_them() {
        let ids = PhonemeIds::new(map()).unwrap();
        assert_eq!(ids.encode(&phonemes("aça?")), [1, 0, 7, 0, 8, 9, 0, 5, 0, 7, 0, 2]);
        assert_eq!(ids.encode(&[]), [1, 0, 2]);
        assert!(ids.knows('a') && !ids.knows('?'));
        for missing in ["_", "^", "$"] {
            let mut map = map();
            map.remove(missing);
            assert!(PhonemeIds::new(map).is_none(), "{missing}");
        }
    }

    #[test]
    fn a_word_has_the_numbers_that_the_voice_gives_its_phonemes() {
        let espeak = crate::Espeak::find(std::path::Path::new(crate::ESPEAK_NG)).unwrap();
        let said = phonemes(&espeak.phonemes("en-us", "hello").unwrap());
        // As in the description of en_US-joe-medium.
        let joe = [("_", 0), ("^", 1), ("$", 2), ("h", 20), ("l", 24), ("o", 27), ("ə", 59), ("ʊ", 100), ("ˈ", 120)];
        let joe = joe.into_iter().map(|(phoneme, id)| (phoneme.to_owned(), vec![id])).collect();
        let ids = PhonemeIds::new(joe).unwrap().encode(&said);
        assert_eq!(ids, [1, 0, 20, 0, 59, 0, 24, 0, 120, 0, 27, 0, 100, 0, 2]);
    }

    #[test]
    fn what_is_no_phoneme_is_taken_out() {
        let said = " həlˈoʊ\n (en)wˈɜːld(fr) _^$x\n";
        assert_eq!(phonemes(said).into_iter().collect::<String>(), "həlˈoʊ wˈɜːld x");
    }

    #[test]
    fn long_pieces_are_cut_between_words() {
        let text: Vec<char> = "abc de fghijklm".chars().collect();
        let cut: Vec<String> = pieces(&text, 6).into_iter().map(|piece| piece.into_iter().collect()).collect();
        assert_eq!(cut, ["abc ", "de ", "fghijk", "lm"]);
        assert!(pieces(&[], 6).is_empty());
    }
}
