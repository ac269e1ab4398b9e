//! Holds: sending a delivery again.

use axum::{Json, extract::State};

use super::DeliveryObject;
use crate::{app::App, auth::AccountCaller, error::ApiError, path::PathText};

/// Send a delivery again
///
/// It is tried at once, under the same `webhook-id`, and from the first attempt on; also when the receiver had said that
/// it wants no more. When that succeeds, later events go to this URL again.
#[utoipa::path(post, path = "/v1/webhooks/deliveries/{id}/replay", tag = "Webhooks", params(("id" = String, Path)),
    responses(
    (status = 200, description = "The delivery, pending", body = DeliveryObject),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such delivery in this account", body = ApiError)))]
pub(crate) async fn replay(
    State(app): State<App>,
    caller: AccountCaller,
    id: PathText,
) -> Result<Json<DeliveryObject>, ApiError> {
    let delivery = app.delivery_log.replay_delivery(caller.account, id.id("delivery")?, app.now()).await?;
    Ok(Json(delivery.into()))
}
