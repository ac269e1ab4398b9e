//! Holds: the vectors of an answer, in the order of the inputs and written as was asked for.
//!
//! Servers give lists of numbers or base64, whichever they know. What is as it should be keeps its bytes, and a vector that
//! need not be written anew is not looked into.

use std::borrow::Cow;

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::value::RawValue;

use crate::{
    members::range_in,
    peek::whole_number,
    scan::{items_in, members_in},
    wanted::{Encoding, Vectors},
};

/// Written with padding as OpenAI does, and read without it too.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The list is not one vector for each input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoVectors;

/// One vector with what stands around it.
struct Item<'a> {
    text: &'a str,
    embedding: &'a str,
    /// Where it stands, and what it says.
    index: Option<&'a str>,
}

/// The list as it should be; `None` where it is that already.
pub(crate) fn in_form(data: &RawValue, vectors: Vectors) -> Result<Option<String>, NoVectors> {
    let items = items_of(data.get(), vectors.inputs)?;
    let order = order_of(&items)?;
    let is_as_asked = |item: &Item<'_>| item.embedding.starts_with(vectors.encoding.opening());
    let is_numbered = items.iter().all(|item| item.index.is_some_and(|index| index != "null"));
    if is_numbered && order.iter().copied().eq(0..items.len()) && items.iter().all(is_as_asked) {
        return Ok(None);
    }
    let mut out = String::with_capacity(data.get().len() * vectors.encoding.growth() + items.len() * 16);
    out.push('[');
    for (item, index) in order.into_iter().map(|at| &items[at]).zip(0..) {
        if index > 0 {
            out.push(',');
        }
        item.write(index, vectors.encoding, &mut out)?;
    }
    out.push(']');
    Ok(Some(out))
}

/// The vectors of a list that is in form, numbered from here on and without the list's brackets.
pub(crate) fn number_on(data: &RawValue, vectors: Vectors, from: u32, out: &mut String) -> Result<(), NoVectors> {
    for (item, index) in items_of(data.get(), vectors.inputs)?.iter().zip(from..) {
        if index > from {
            out.push(',');
        }
        item.write(index, vectors.encoding, out)?;
    }
    Ok(())
}

impl Encoding {
    /// What the JSON of a vector begins with.
    const fn opening(self) -> char {
        match self {
            Self::Float => '[',
            Self::Base64 => '"',
        }
    }

    /// How much longer a list may get: a number is eleven characters where base64 needs five and a third.
    const fn growth(self) -> usize {
        match self {
            Self::Float => 3,
            Self::Base64 => 1,
        }
    }
}

fn items_of(data: &str, inputs: u32) -> Result<Vec<Item<'_>>, NoVectors> {
    if !data.starts_with('[') {
        return Err(NoVectors);
    }
    let inputs = usize::try_from(inputs).map_err(|_| NoVectors)?;
    let mut items = Vec::with_capacity(inputs);
    for text in items_in(data) {
        if items.len() == inputs || !text.starts_with('{') {
            return Err(NoVectors);
        }
        let (mut embedding, mut index) = (None, None);
        for (name, value) in members_in(text) {
            match name {
                "\"embedding\"" => embedding = Some(value),
                "\"index\"" => index = Some(value),
                _ => {}
            }
        }
        let embedding = embedding.filter(|value| value.starts_with(['[', '"'])).ok_or(NoVectors)?;
        items.push(Item { text, embedding, index });
    }
    if items.len() == inputs { Ok(items) } else { Err(NoVectors) }
}

/// Which item belongs at each place. Without numbers they lie in the order of the inputs; numbers that are none say nothing
/// that could be relied on.
fn order_of(items: &[Item<'_>]) -> Result<Vec<usize>, NoVectors> {
    if items.iter().all(|item| item.index.is_none_or(|index| index == "null")) {
        return Ok((0..items.len()).collect());
    }
    let mut order = vec![None; items.len()];
    for (at, item) in items.iter().enumerate() {
        let index = item.index.and_then(whole_number).and_then(|index| usize::try_from(index).ok());
        let place = index.and_then(|index| order.get_mut(index)).ok_or(NoVectors)?;
        if place.replace(at).is_some() {
            return Err(NoVectors);
        }
    }
    order.into_iter().collect::<Option<_>>().ok_or(NoVectors)
}

impl Item<'_> {
    fn write(&self, index: u32, encoding: Encoding, out: &mut String) -> Result<(), NoVectors> {
        let number = index.to_string();
        let embedding = range_in(self.text, self.embedding);
        let numbered = self.index.map(|said| range_in(self.text, said));
        let mut from = 0;
        if let Some(place) = numbered.clone().filter(|place| place.start < embedding.start) {
            out.push_str(&self.text[..place.start]);
            out.push_str(&number);
            from = place.end;
        }
        out.push_str(&self.text[from..embedding.start]);
        write_vector(self.embedding, encoding, out)?;
        from = embedding.end;
        match numbered {
            Some(place) if place.start > from => {
                out.push_str(&self.text[from..place.start]);
                out.push_str(&number);
                out.push_str(&self.text[place.end..]);
            }
            Some(_) => out.push_str(&self.text[from..]),
            None => {
                let rest = &self.text[from..];
                let end = rest.len().saturating_sub(1);
                out.push_str(&rest[..end]);
                out.push_str(",\"index\":");
                out.push_str(&number);
                out.push('}');
            }
        }
        Ok(())
    }
}

fn write_vector(vector: &str, encoding: Encoding, out: &mut String) -> Result<(), NoVectors> {
    if vector.starts_with(encoding.opening()) {
        out.push_str(vector);
        return Ok(());
    }
    match encoding {
        Encoding::Float => write_floats(vector, out),
        Encoding::Base64 => write_base64(vector, out),
    }
}

/// Of a list of numbers.
fn write_base64(list: &str, out: &mut String) -> Result<(), NoVectors> {
    let inner = list.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(NoVectors)?;
    let mut bytes = Vec::with_capacity(inner.len() / 2);
    for number in inner.split(',') {
        let number: f32 = number.trim_ascii().parse().map_err(|_| NoVectors)?;
        if !number.is_finite() {
            return Err(NoVectors);
        }
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    out.push('"');
    BASE64.encode_string(&bytes, out);
    out.push('"');
    Ok(())
}

/// Of base64, each number in the fewest digits that mean it.
fn write_floats(text: &str, out: &mut String) -> Result<(), NoVectors> {
    // Some servers escape a slash.
    let text: Cow<'_, str> = if text.contains('\\') {
        serde_json::from_str(text).map(Cow::Owned).map_err(|_| NoVectors)?
    } else {
        text.trim_matches('"').into()
    };
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| NoVectors)?;
    let (numbers, rest) = bytes.as_chunks::<4>();
    let numbers: Vec<f32> = numbers.iter().copied().map(f32::from_le_bytes).collect();
    if numbers.is_empty() || !rest.is_empty() || !numbers.iter().all(|number| number.is_finite()) {
        return Err(NoVectors);
    }
    out.push_str(&serde_json::to_string(&numbers).map_err(|_| NoVectors)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOAT: Vectors = Vectors { inputs: 1, encoding: Encoding::Float };
    const BASE: Vectors = Vectors { inputs: 1, encoding: Encoding::Base64 };

    fn form(data: &str, vectors: Vectors) -> Result<Option<String>, NoVectors> {
        let data: &RawValue = serde_json::from_str(data).unwrap();
        in_form(data, vectors)
    }

    #[track_caller]
    fn check(data: &str, vectors: Vectors, expected: &str) {
        let found = form(data, vectors).unwrap();
        assert_eq!(found.as_deref().unwrap_or(data), expected);
        assert_eq!(found.is_none(), data == expected, "the same bytes are not written anew");
    }

    #[test]
    fn what_is_as_asked_keeps_its_bytes() {
        let list = r#"[ {"object":"embedding", "embedding" : [0.10, -1e-3 ,2] ,"index" : 0} ]"#;
        check(list, FLOAT, list);
        let llama = r#"[{"embedding":"AACAPw==","index":0,"object":"embedding","encoding_format":"base64"}]"#;
        check(llama, BASE, llama);
        // Lists of whole numbers, which quantised vectors are.
        let whole = r#"[{"index":0,"embedding":[-3,127]},{"index":1,"embedding":[1,2]}]"#;
        check(whole, Vectors { inputs: 2, ..FLOAT }, whole);
    }

    #[test]
    fn each_way_of_writing_becomes_the_other() {
        let item = |vector: &str| format!(r#"[{{"object":"embedding","index":0,"embedding":{vector},"x": 1.50 }}]"#);
        let base = item("\"AACAPwAAgL6Vv9Yz//9/fw==\"");
        check(&item("[ 1.0, -0.25,1e-7, 3.4028235e38 ]"), BASE, &base);
        let list = item("[1.0,-0.25,1e-7,3.4028235e+38]");
        // As it is, without padding, and with slashes escaped.
        for spelled in [base.clone(), base.replace('=', ""), base.replace('/', "\\/")] {
            check(&spelled, FLOAT, &list);
        }
        // As Python writes a double: rounded once.
        check(r#"[{"index":0,"embedding":[0.01234567890123456]}]"#, BASE, r#"[{"index":0,"embedding":"iEVKPA=="}]"#);
    }

    #[test]
    fn numbers_survive_both_ways() {
        let numbers: Vec<f32> = (0..4096_u32)
            .map(|seed| f32::from_bits(seed.wrapping_mul(0x9E37_79B9)))
            .filter(|number| number.is_finite())
            .collect();
        let list = format!(r#"[{{"index":0,"embedding":{}}}]"#, serde_json::to_string(&numbers).unwrap());
        let base = form(&list, BASE).unwrap().unwrap();
        assert_eq!(form(&base, FLOAT).unwrap().unwrap(), list);
    }

    #[test]
    fn vectors_stand_in_the_order_of_the_inputs() {
        let three = Vectors { inputs: 3, ..FLOAT };
        check(
            r#"[{"index":2,"embedding":[2]}, {"embedding":[0],"index":0},{"index":1.0,"embedding":[1]}]"#,
            three,
            r#"[{"embedding":[0],"index":0},{"index":1,"embedding":[1]},{"index":2,"embedding":[2]}]"#,
        );
        check(
            r#"[{"embedding":[0]},{"index":null,"embedding":[1]},{"embedding":[2],"a":{"index":9}}]"#,
            three,
            r#"[{"embedding":[0],"index":0},{"index":1,"embedding":[1]},{"embedding":[2],"a":{"index":9},"index":2}]"#,
        );
    }

    #[test]
    fn what_is_not_a_vector_for_each_input_is_none() {
        let two = Vectors { inputs: 2, ..FLOAT };
        for data in [
            "[]",
            "null",
            "{}",
            r#"[{"index":0,"embedding":[1]}]"#,
            r#"[{"index":0,"embedding":[1]},{"index":1,"embedding":[1]},{"index":2,"embedding":[1]}]"#,
            r#"[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]"#,
            r#"[{"index":0,"embedding":[1]},{"index":2,"embedding":[1]}]"#,
            r#"[{"index":0,"embedding":[1]},{"embedding":[1]}]"#,
            r#"[{"index":0,"embedding":[1]},{"index":1,"embedding":null}]"#,
            r#"[{"index":0,"embedding":[1]},{"index":1}]"#,
            "[[1],[2]]",
        ] {
            assert_eq!(form(data, two), Err(NoVectors), "{data}");
        }
        for vector in ["[]", "[null]", "[[1]]", "[1e39]", "[\"1\"]", "[true]"] {
            assert_eq!(form(&format!(r#"[{{"index":0,"embedding":{vector}}}]"#), BASE), Err(NoVectors), "{vector}");
        }
        // Not base64, no whole number of floats, not a number, nothing.
        for vector in ["\"?\"", "\"AAAA\"", "\"AADAfw==\"", "\"\""] {
            assert_eq!(form(&format!(r#"[{{"index":0,"embedding":{vector}}}]"#), FLOAT), Err(NoVectors), "{vector}");
        }
    }
}
