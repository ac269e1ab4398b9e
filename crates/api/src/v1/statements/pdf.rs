//! Holds: a statement as PDF, the same numbers on pages of A4.
//!
//! By `pdf-writer`, since it is small, kept up with and brings no font. The text is in Courier, which every reader has:
//! nothing is embedded, columns are as wide as their letters are many. It has Latin-1; other letters, of a name in Chinese for
//! one, are in a font that PDF knows by the name of its collection (Adobe-GB1), for which readers take one of their machine's, and each
//! is as wide as two. Letters that are in neither, such as Korean ones, may stand as blanks; the JSON has them.

use std::collections::BTreeSet;

use batchin_domain::Balance;
use pdf_writer::{
    Content, Finish as _, Name, Pdf, Rect, Ref, Str,
    types::{CidFontType, FontFlags, SystemInfo, UnicodeCmap},
};
use serde_json::Value;

use super::document::StatementDocument;

/// A4, in points.
const PAGE: (f32, f32) = (595.0, 842.0);
const MARGIN: f32 = 36.0;
const FONT_SIZE: f32 = 7.5;
const LINE_HEIGHT: f32 = 10.0;
const LINES_A_PAGE: usize = 74;
/// Letters of a line: Courier's are 0.6 of its size wide.
const COLUMNS: usize = 116;

/// Of a letter that takes two columns: it is as wide as it is high.
const WIDE_SIZE: f32 = FONT_SIZE * 0.6 * 2.0;

const WIDE_FONT: &[u8] = b"STSong-Light";
/// Texts in it are UTF-16.
const WIDE_ENCODING: &[u8] = b"UniGB-UTF16-H";
const WIDE_COLLECTION: SystemInfo<'_> = SystemInfo { registry: Str(b"Adobe"), ordering: Str(b"GB1"), supplement: 4 };

const CATALOG: Ref = Ref::new(1);
const PAGES: Ref = Ref::new(2);
const FONT: Ref = Ref::new(3);
/// Each page has two objects from here on.
const FIRST_PAGE: i32 = 4;

/// The document.
pub(super) fn write(document: &StatementDocument) -> Vec<u8> {
    let lines = lines(document);
    let mut pdf = Pdf::new();
    pdf.catalog(CATALOG).pages(PAGES);
    let pages: Vec<&[String]> = lines.chunks(LINES_A_PAGE).collect();
    let count = i32::try_from(pages.len()).unwrap_or(i32::MAX);
    let page_ref = |index: i32| Ref::new(FIRST_PAGE.saturating_add(index.saturating_mul(2)));
    pdf.pages(PAGES).kids((0..count).map(page_ref)).count(count);
    pdf.type1_font(FONT).base_font(Name(b"Courier")).encoding_predefined(Name(b"WinAnsiEncoding"));
    let wide: BTreeSet<u16> = lines.iter().flat_map(|line| line.chars()).filter_map(wide).collect();
    // Behind all pages, and not there where nobody needs it.
    let wide_font = page_ref(count);
    for (index, lines) in (0..count).zip(pages) {
        let content_ref = Ref::new(page_ref(index).get().saturating_add(1));
        let mut page = pdf.page(page_ref(index));
        page.media_box(Rect::new(0.0, 0.0, PAGE.0, PAGE.1)).parent(PAGES).contents(content_ref);
        let mut resources = page.resources();
        let mut fonts = resources.fonts();
        fonts.pair(Name(b"F1"), FONT);
        if !wide.is_empty() {
            fonts.pair(Name(b"F2"), wide_font);
        }
        fonts.finish();
        resources.finish();
        page.finish();
        let foot = format!("Statement {}, page {} of {count}", document.month, index.saturating_add(1));
        pdf.stream(content_ref, &content(lines, &foot));
    }
    if !wide.is_empty() {
        write_wide_font(&mut pdf, wide_font, &wide);
    }
    pdf.finish()
}

/// The font by its name alone, and what its letters are, for who copies or searches the text.
fn write_wide_font(pdf: &mut Pdf, font: Ref, letters: &BTreeSet<u16>) {
    let [of_letters, descriptor, letters_ref] = [1, 2, 3].map(|more| Ref::new(font.get().saturating_add(more)));
    pdf.type0_font(font)
        .base_font(Name(WIDE_FONT))
        .encoding_predefined(Name(WIDE_ENCODING))
        .descendant_font(of_letters)
        .to_unicode(letters_ref);
    pdf.cid_font(of_letters)
        .subtype(CidFontType::Type0)
        .base_font(Name(WIDE_FONT))
        .system_info(WIDE_COLLECTION)
        .default_width(1_000.0)
        .font_descriptor(descriptor);
    pdf.font_descriptor(descriptor)
        .name(Name(WIDE_FONT))
        .flags(FontFlags::SYMBOLIC | FontFlags::SERIF)
        .bbox(Rect::new(-25.0, -254.0, 1_000.0, 880.0))
        .italic_angle(0.0)
        .ascent(880.0)
        .descent(-120.0)
        .cap_height(880.0)
        .stem_v(93.0);
    let mut map: UnicodeCmap = UnicodeCmap::new(Name(b"Letters"), WIDE_COLLECTION);
    for code in letters {
        if let Some(letter) = char::from_u32(u32::from(*code)) {
            map.pair(*code, letter);
        }
    }
    pdf.cmap(letters_ref, &map.finish());
}

fn content(lines: &[String], foot: &str) -> Vec<u8> {
    let mut content = Content::new();
    content.begin_text().set_font(Name(b"F1"), FONT_SIZE).set_leading(LINE_HEIGHT);
    content.next_line(MARGIN, PAGE.1 - MARGIN - FONT_SIZE);
    for line in lines {
        show(&mut content, line);
        content.next_line(0.0, -LINE_HEIGHT);
    }
    content.end_text().begin_text().set_font(Name(b"F1"), FONT_SIZE).next_line(MARGIN, MARGIN / 2.0);
    content.show(Str(&latin(foot))).end_text();
    content.finish().into_vec()
}

/// Shows one line, each stretch of it in the font that has its letters.
fn show(content: &mut Content, line: &str) {
    if !line.chars().any(|letter| wide(letter).is_some()) {
        content.show(Str(&latin(line)));
        return;
    }
    let letters: Vec<char> = line.chars().collect();
    for part in letters.chunk_by(|one, other| wide(*one).is_some() == wide(*other).is_some()) {
        let codes: Vec<u8> = part.iter().copied().filter_map(wide).flat_map(u16::to_be_bytes).collect();
        if codes.is_empty() {
            content.show(Str(&latin(&part.iter().collect::<String>())));
        } else {
            content.set_font(Name(b"F2"), WIDE_SIZE).show(Str(&codes)).set_font(Name(b"F1"), FONT_SIZE);
        }
    }
}

/// The code of a letter that Latin-1 lacks, in UTF-16, where it has one there; control characters have none.
fn wide(letter: char) -> Option<u16> {
    u16::try_from(u32::from(letter)).ok().filter(|code| *code > 0xff)
}

/// How many columns a letter takes.
fn columns(letter: char) -> usize {
    if wide(letter).is_some() { 2 } else { 1 }
}

/// Letters as Windows-1252 has them, where they are in Latin-1 too.
fn latin(text: &str) -> Vec<u8> {
    let byte = |letter: char| match u32::from(letter) {
        code @ (0x20..=0x7e | 0xa0..=0xff) => u8::try_from(code).unwrap_or(b'?'),
        _ => b'?',
    };
    text.chars().map(byte).collect()
}

fn lines(document: &StatementDocument) -> Vec<String> {
    let mut lines = head(document);
    let usd = |nanos: i64| format!("{} US cents", Balance::from_nanos(nanos).to_cents_text());
    lines.push(between("Opening balance", &usd(document.opening_balance_nano.0)));
    lines.extend([String::new(), "Payments, grants and what went back".to_owned()]);
    for entry in &document.movements {
        lines.push(between(&format!("{}  {}", entry.created_at, entry.kind), &usd(entry.amount_nano.0)));
        let reason = entry.reason.as_deref().map(|reason| format!("Reason {reason}"));
        let reference = entry.reference_id.as_deref().map(|text| format!("Reference {text}"));
        let invoice = entry.invoice.as_deref().map(|text| format!("Invoice {text}"));
        let receipt = entry.receipt_url.as_deref().map(|text| format!("Receipt {text}"));
        for text in [reference, reason, invoice, receipt].into_iter().flatten() {
            lines.extend(wrapped(&text, "    "));
        }
    }
    lines.push(between("Together", &usd(document.totals.movements_nano.0)));
    lines.extend([String::new(), "Usage by day (UTC), key, model and version of the prices".to_owned()]);
    for line in &document.usage {
        let key = line.key_id.map_or_else(|| "no key".to_owned(), |key| key.to_string());
        let first = format!("{}  {key}  prices {}", line.date, line.price_version);
        lines.push(between(&first, &usd(line.cost_nano.0.saturating_neg())));
        let counts = format!(
            "{}: {} requests, {} input and {} output tokens",
            line.model, line.requests, line.input_tokens, line.output_tokens
        );
        lines.extend(wrapped(&counts, "    "));
    }
    lines.push(between("Together", &usd(document.totals.usage_nano.0.saturating_neg())));
    lines.push(String::new());
    lines.push(between("Closing balance", &usd(document.closing_balance_nano.0)));
    lines
}

fn head(document: &StatementDocument) -> Vec<String> {
    let state = if document.closed { "closed" } else { "not closed yet" };
    let mut lines = vec![format!("Statement of {} ({state})", document.month), String::new()];
    let account = &document.account;
    lines.extend(wrapped(&format!("Account {}", account.id), ""));
    lines.extend(wrapped(&format!("{} <{}>", account.name, account.email), ""));
    if let Some(buyer) = &document.buyer {
        lines.push("Buyer".to_owned());
        let mut texts = Vec::new();
        gather(buyer, &mut texts);
        for text in texts {
            lines.extend(wrapped(&text, "    "));
        }
    }
    lines.push(String::new());
    lines
}

/// Whatever Stripe collected, each text on a line.
fn gather(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Number(number) => texts.push(number.to_string()),
        Value::Array(values) => values.iter().for_each(|value| gather(value, texts)),
        Value::Object(members) => members.values().for_each(|value| gather(value, texts)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// One text on the left, one on the right.
fn between(left: &str, right: &str) -> String {
    let room = COLUMNS.saturating_sub(right.chars().count() + 1);
    let left: String = left.chars().take(room).collect();
    format!("{left:<room$} {right}")
}

/// A text on as many lines as it needs.
fn wrapped(text: &str, indent: &str) -> Vec<String> {
    let room = COLUMNS.saturating_sub(indent.len()).max(2);
    let (mut lines, mut taken) = (Vec::new(), room);
    for letter in text.chars() {
        if taken + columns(letter) > room {
            lines.push(indent.to_owned());
            taken = 0;
        }
        taken += columns(letter);
        if let Some(line) = lines.last_mut() {
            line.push(letter);
        }
    }
    lines
}
