//! Holds: a statement as one flat table, whose amounts add up.

use std::convert::Infallible;

use batchin_domain::Balance;
use bytes::Bytes;
use futures::{Stream, stream};

use super::document::{StatementDocument, StatementEntry, StatementLine};

const HEADER: &str = "section,date,id,reference,description,key,model,price_version,requests,input_tokens,output_tokens,\
                      amount_nano,amount_cents\r\n";
/// Rows sent at once.
const ROWS_A_PIECE: usize = 500;

/// The table, piece by piece. The amounts of all rows but `opening` and `closing` add up to the difference of these two.
pub(super) fn pieces(document: StatementDocument) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let day = |at: &str| at.split_once('T').map_or(at, |(day, _)| day).to_owned();
    let opening = balance("opening", &day(&document.from), document.opening_balance_nano.0);
    let closing = balance("closing", &day(&document.to), document.closing_balance_nano.0);
    let rows = std::iter::once(HEADER.to_owned() + &opening)
        .chain(document.movements.into_iter().map(|entry| movement(&entry)))
        .chain(document.usage.into_iter().map(|line| usage(&line)))
        .chain([closing]);
    stream::unfold(rows, |mut rows| async {
        let piece: String = rows.by_ref().take(ROWS_A_PIECE).collect();
        (!piece.is_empty()).then(|| (Ok(Bytes::from(piece)), rows))
    })
}

fn balance(section: &str, date: &str, nanos: i64) -> String {
    row([section, date, "", "", "", "", "", "", "", "", ""], nanos)
}

fn movement(entry: &StatementEntry) -> String {
    let described = match &entry.reason {
        Some(reason) => format!("{} ({reason})", entry.kind),
        None => entry.kind.to_owned(),
    };
    let reference = entry.reference_id.as_deref().unwrap_or_default();
    let id = entry.id.to_string();
    let cells = ["movement", &entry.created_at, &id, reference, &described, "", "", "", "", "", ""];
    row(cells, entry.amount_nano.0)
}

fn usage(line: &StatementLine) -> String {
    let key = line.key_id.map(|key| key.to_string()).unwrap_or_default();
    let counts = [line.requests, line.input_tokens, line.output_tokens].map(|count| count.to_string());
    let [requests, input, output] = &counts;
    let version = line.price_version.to_string();
    row(
        ["usage", &line.date, "", "", "", &key, &line.model, &version, requests, input, output],
        line.cost_nano.0.saturating_neg(),
    )
}

fn row(cells: [&str; 11], nanos: i64) -> String {
    let mut row = String::new();
    for text in cells {
        row.push_str(&cell(text));
        row.push(',');
    }
    row.push_str(&format!("{nanos},{}\r\n", Balance::from_nanos(nanos).to_cents_text()));
    row
}

/// A cell as RFC 4180 has it. One that a spreadsheet would compute is kept from it by a quote before it.
fn cell(text: &str) -> String {
    let computed = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if computed { format!("'{text}") } else { text.to_owned() };
    match text.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_not_computed() {
        for (text, cell_text) in
            [("gpt", "gpt"), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\""), ("=1+1", "'=1+1"), ("@x,y", "\"'@x,y\"")]
        {
            assert_eq!(cell(text), cell_text);
        }
    }
}
