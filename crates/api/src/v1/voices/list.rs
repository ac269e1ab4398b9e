//! Holds: an account's voices.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::VoiceObject;
use crate::{app::App, auth::AccountCaller, error::ApiError};

/// Voices.
#[derive(Serialize, ToSchema)]
pub(crate) struct VoiceList {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<VoiceObject>,
}

/// The account's voices, by name
#[utoipa::path(get, path = "/v1/audio/voices", tag = "Voices", responses(
    (status = 200, description = "The voices, without their recordings", body = VoiceList),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn list(State(app): State<App>, caller: AccountCaller) -> Result<Json<VoiceList>, ApiError> {
    let voices = app.voices.voices(caller.account).await?;
    Ok(Json(VoiceList { object: "list", data: voices.into_iter().map(VoiceObject::from).collect() }))
}
