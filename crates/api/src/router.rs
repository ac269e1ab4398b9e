//! Holds: which path leads to which handler. The paths themselves stand at the handlers.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use axum::{Router, routing::MethodRouter};
use batchin_domain::CallKind;
use batchin_openai::Code;
use bytes::Bytes;
use http::{Method, StatusCode, header::ALLOW, header::CONTENT_TYPE};
use utoipa::{OpenApi, openapi};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouter},
    routes,
};

use crate::{
    app::{ApiParts, App},
    error::ApiError,
    flavour,
    front::Api,
    health, metrics,
    openai::{batches as openai_batches, files, videos},
    openapi::{self as description},
    v1::{
        alerts, audit, batches, chains, credits, images, keys, messages, models, statements, topup, upstreams, usage,
        users, video, voices, webhooks,
    },
};

/// Every route that is documented below `/v1`.
fn v1_routes() -> Vec<UtoipaMethodRouter<App>> {
    vec![
        routes!(users::create::create),
        routes!(users::login::login),
        routes!(users::logout::logout),
        routes!(users::me::show, users::update::update),
        routes!(users::by_email::by_email),
        routes!(keys::create::create, keys::list::list),
        routes!(keys::update::update, keys::delete::delete),
        routes!(messages::count_tokens::count_tokens),
        routes!(models::list::list),
        routes!(models::show::show),
        routes!(flavour::create_batch, batches::list::list),
        routes!(batches::estimate::estimate),
        routes!(batches::show::show),
        routes!(batches::cancel::cancel),
        routes!(batches::results::results),
        routes!(usage::logs::logs),
        routes!(usage::summary::summary),
        routes!(usage::by_model::by_model),
        routes!(usage::timeseries::timeseries),
        routes!(statements::list::list),
        routes!(statements::show::show),
        routes!(topup::history::history),
        routes!(alerts::show, alerts::set),
        routes!(alerts::confirm),
        routes!(audit::create::create, audit::list::list),
        routes!(audit::keys::current),
        routes!(audit::keys::all),
        routes!(audit::show::show),
        routes!(audit::show::verify),
        routes!(credits::change::change),
        routes!(credits::log::list),
        routes!(topup::checkout::checkout),
        routes!(topup::auto::show, topup::auto::set),
        routes!(topup::auto::setup),
        routes!(topup::reports::stripe),
        routes!(topup::usdc::chains),
        routes!(topup::usdc::picture),
        routes!(topup::usdc::deposits),
        routes!(topup::x402::pay),
        routes!(voices::create::create, voices::list::list),
        routes!(voices::delete::delete),
        routes!(video::generate::generate),
        routes!(video::list::list),
        routes!(video::show::show, video::delete::delete),
        routes!(video::content::content),
        routes!(images::content::content),
        routes!(webhooks::secret::rotate),
        routes!(webhooks::list::list),
        routes!(webhooks::replay::replay),
        routes!(chains::list::list),
        routes!(upstreams::list::list),
        routes!(upstreams::drain::drain),
        routes!(upstreams::resume::resume),
    ]
}

/// Files and films, which have one shape there and are the same under every base URL.
fn openai_file_routes() -> Vec<UtoipaMethodRouter<App>> {
    vec![
        routes!(files::create::create, files::list::list),
        routes!(files::show::show, files::delete::delete),
        routes!(files::content::content),
        routes!(videos::create::create, videos::list::list),
        routes!(videos::show::show, videos::delete::delete),
        routes!(videos::content::content),
    ]
}

/// Models and batches in exactly OpenAI's shapes, which are ours below `/v1`.
fn openai_only_routes() -> Vec<UtoipaMethodRouter<App>> {
    vec![
        routes!(models::openai::list),
        routes!(models::openai::show),
        routes!(openai_batches::create::create, openai_batches::list::list),
        routes!(openai_batches::show::show),
        routes!(openai_batches::cancel::cancel),
    ]
}

/// Routes of the process itself.
fn own_routes() -> Vec<UtoipaMethodRouter<App>> {
    vec![
        routes!(health::healthz),
        routes!(health::health),
        routes!(health::readyz),
        routes!(metrics::scrape),
        routes!(show_description),
    ]
}

/// The audit log, which is not ours alone: its paths are those of other logs.
fn audit_log_routes() -> Vec<UtoipaMethodRouter<App>> {
    vec![routes!(audit::log::checkpoint), routes!(audit::log::tile)]
}

/// The whole HTTP API.
pub fn router(parts: ApiParts) -> Api {
    let serves = parts.settings.serves;
    let app = App::new(parts);
    let mut router = Router::new();
    for (_, paths, methods) in own_routes() {
        router = at_each(router, paths.paths.keys().map(String::as_str), &methods);
    }
    if serves {
        for (_, paths, methods) in v1_routes() {
            let whole = paths.paths.keys().map(String::as_str);
            let bare = whole.clone().filter_map(|path| path.strip_prefix("/v1"));
            router = at_each(router, whole.chain(bare), &methods);
            // As the other inference calls, which `front` answers.
            for path in paths.paths.keys().filter(|path| path.starts_with("/v1/video")) {
                router = router.route(&format!("/openai{path}"), methods.clone());
            }
        }
        for (_, paths, methods) in audit_log_routes() {
            for path in paths.paths.keys() {
                // A tile's address has slashes of its own.
                router = router.route(&path.replace("{tile}", "{*tile}"), methods.clone());
            }
        }
        for (_, paths, methods) in openai_file_routes() {
            router = at_each(router, paths.paths.keys().flat_map(|path| every_base(path)), &methods);
        }
        for (_, paths, methods) in openai_only_routes() {
            router = at_each(router, paths.paths.keys().map(String::as_str), &methods);
        }
        // `front` answers these calls, in the same shapes in both flavours.
        for path in CallKind::answered().map(|call| format!("/openai{}", call.path())) {
            router = at_each(router, every_base(&path), &MethodRouter::new().fallback(other_than_post));
        }
        let beside = CallKind::BESIDE.iter().map(|(path, _)| *path);
        router = at_each(router, beside, &MethodRouter::new().fallback(other_than_post));
    }
    let router = router.fallback(unknown_path).method_not_allowed_fallback(other_method).with_state(app.clone());
    Api::new(router, app)
}

/// `/openai/v1/x`, `/v1/x` and `/x`.
fn every_base(path: &str) -> impl Iterator<Item = &str> {
    let below = path.strip_prefix("/openai");
    std::iter::once(path).chain(below).chain(below.and_then(|path| path.strip_prefix("/v1")))
}

fn at_each<'a>(router: Router<App>, paths: impl Iterator<Item = &'a str>, methods: &MethodRouter<App>) -> Router<App> {
    paths.fold(router, |router, path| router.route(path, methods.clone()))
}

async fn unknown_path() -> ApiError {
    ApiError::new(Code::NotFound, "There is nothing at this path; /openapi.json lists what there is.")
}

/// The router adds `allow`.
async fn other_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    ApiError::new(Code::MethodNotAllowed, "This path does not take this method; `allow` names those that it takes.")
        .into_response()
}

async fn other_than_post(method: Method) -> Response {
    ([(ALLOW, "POST")], other_method(method).await).into_response()
}

/// This description
#[utoipa::path(get, path = "/openapi.json", tag = "Operation", security(()),
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")))]
async fn show_description() -> Response {
    // Not copied: who asks for many and reads none takes no memory by it.
    let text = Bytes::from_static(openapi_json().as_bytes());
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

/// The description of the API as JSON, OpenAPI 3.1.
pub fn openapi_json() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        // A description of fixed parts always serialises.
        let whole = serde_json::to_value(description_of_routes()).map(description::complete);
        whole.and_then(|whole| serde_json::to_string_pretty(&whole)).unwrap_or_default()
    });
    &TEXT
}

fn description_of_routes() -> openapi::OpenApi {
    let mut router = OpenApiRouter::<App>::with_openapi(description::Description::openapi());
    let files = openai_file_routes().into_iter().chain(openai_only_routes());
    for route in v1_routes().into_iter().chain(files).chain(audit_log_routes()).chain(own_routes()) {
        router = router.routes(route);
    }
    router.into_openapi()
}
