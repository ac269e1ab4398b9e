//! Holds: one month's statement, in the form that is asked for.

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use batchin_domain::Month;
use batchin_openai::Code;
use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, VARY},
};

use super::{csv, document::StatementDocument, pdf};
use crate::{app::App, auth::AccountCaller, error::ApiError, path::PathText};

/// What a statement is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Csv,
    Pdf,
}

impl Form {
    /// The first of the forms that a client takes, in its order; JSON where it names none.
    fn accepted(headers: &HeaderMap) -> Self {
        let texts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let form = |media: &str| match media.split(';').next().unwrap_or_default().trim() {
            "text/csv" => Some(Self::Csv),
            "application/pdf" => Some(Self::Pdf),
            "application/json" => Some(Self::Json),
            _ => None,
        };
        texts.flat_map(|text| text.split(',')).find_map(form).unwrap_or(Self::Json)
    }
}

/// The month in a path, and the form where it says one.
fn asked(path: &str) -> Result<(Month, Option<Form>), ApiError> {
    let (month, form) = match path.rsplit_once('.') {
        Some((month, "json")) => (month, Some(Form::Json)),
        Some((month, "csv")) => (month, Some(Form::Csv)),
        Some((month, "pdf")) => (month, Some(Form::Pdf)),
        _ => (path, None),
    };
    let month = Month::parse(month).ok_or_else(|| {
        ApiError::invalid(
            "month",
            "`month` must have the form `yyyy-mm`, such as `2026-11`; `.json`, `.csv` or `.pdf` may follow.",
        )
    })?;
    Ok((month, form))
}

/// A month's statement
///
/// As JSON, CSV or PDF: what `Accept` names first (`application/json`, `text/csv`, `application/pdf`), or what follows
/// the month (`2026-11.csv`). A month that is closed stays as it is, to the byte.
#[utoipa::path(get, path = "/v1/statements/{month}", tag = "Money in", params(
    ("month" = String, Path, description = "`yyyy-mm`, with `.json`, `.csv` or `.pdf` behind it or not")), responses(
    (status = 200, description = "The statement", content(
        (StatementDocument = "application/json"), (String = "text/csv"), (String = "application/pdf"))),
    (status = 400, description = "It has not the form of a month", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "The account has no such month", body = ApiError)))]
pub(crate) async fn show(
    State(app): State<App>,
    caller: AccountCaller,
    headers: HeaderMap,
    path: PathText,
) -> Result<Response, ApiError> {
    let (month, form) = asked(path.as_str())?;
    let form = form.unwrap_or_else(|| Form::accepted(&headers));
    let Some(statement) = app.statements.statement(caller.account, month, app.now()).await? else {
        let message = format!(
            "There is no statement of {month}: it begins before the account's first movement of money or has not begun; \
             GET /v1/statements lists the months that there are."
        );
        return Err(ApiError::new(Code::NotFound, message));
    };
    let document = StatementDocument::new(caller.account, statement);
    let (kind, name, body) = match form {
        Form::Json => return Ok(([(VARY, "accept")], Json(document)).into_response()),
        Form::Csv => ("text/csv; charset=utf-8", "csv", Body::from_stream(csv::pieces(document))),
        Form::Pdf => ("application/pdf", "pdf", Body::from(pdf::write(&document))),
    };
    let file = format!("attachment; filename=\"statement-{month}.{name}\"");
    let file = HeaderValue::try_from(file).map_err(|_| ApiError::internal())?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CONTENT_DISPOSITION, file),
        (VARY, HeaderValue::from_static("accept")),
    ];
    Ok((headers, body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_is_known_counts() {
        for (accept, form) in [
            ("*/*", Form::Json),
            ("text/csv", Form::Csv),
            ("text/html, application/pdf;q=0.9, application/json", Form::Pdf),
            ("", Form::Json),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(Form::accepted(&headers), form, "{accept}");
        }
        assert_eq!(asked("2026-11.pdf").unwrap(), (Month::parse("2026-11").unwrap(), Some(Form::Pdf)));
        for wrong in ["2026-13", "2026-11.txt", "2026-11.csv.csv", "november", ".csv"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
