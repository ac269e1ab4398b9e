//! Holds: a statement as PDF, the same numbers on pages of A4.
//!
//! By `pdf-writer`, since it is small, kept up with and brings no font. The text is in Courier, which every reader has:
//! nothing is embedded, columns are as wide as their letters are many. It has Windows-1252 and no more; a letter that is
//! not in there stands as `?`, and the JSON has it.

use batchin_domain::Balance;
use pdf_writer::{Content, Finish as _, Name, Pdf, Rect, Ref, Str};
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
    for (index, lines) in (0..count).zip(pages) {
        let content_ref = Ref::new(page_ref(index).get().saturating_add(1));
        let mut page = pdf.page(page_ref(index));
        page.media_box(Rect::new(0.0, 0.0, PAGE.0, PAGE.1)).parent(PAGES).contents(content_ref);
        page.resources().fonts().pair(Name(b"F1"), FONT);
        page.finish();
        let foot = format!("Statement {}, page {} of {count}", document.month, index.saturating_add(1));
        pdf.stream(content_ref, &content(lines, &foot));
    }
    pdf.finish()
}

fn content(lines: &[String], foot: &str) -> Vec<u8> {
    let mut content = Content::new();
    content.begin_text().set_font(Name(b"F1"), FONT_SIZE).set_leading(LINE_HEIGHT);
    content.next_line(MARGIN, PAGE.1 - MARGIN - FONT_SIZE);
    for line in lines {
        content.show(Str(&windows_1252(line))).next_line(0.0, -LINE_HEIGHT);
    }
    content.end_text().begin_text().set_font(Name(b"F1"), FONT_SIZE).next_line(MARGIN, MARGIN / 2.0);
    content.show(Str(&windows_1252(foot))).end_text();
    content.finish().into_vec()
}

/// Letters as Windows-1252 has them, where they are in Latin-1 too; the euro and typographic marks are not worth a table.
fn windows_1252(text: &str) -> Vec<u8> {
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

fn wrapped(text: &str, indent: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let room = COLUMNS.saturating_sub(indent.len()).max(1);
    letters.chunks(room).map(|part| format!("{indent}{}", part.iter().collect::<String>())).collect()
}
