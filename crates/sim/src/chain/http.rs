//! Holds: one JSON body there, one back.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

/// Connections to the chain.
pub(super) type Http = Client<HttpConnector, Full<Bytes>>;

pub(super) fn client() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

/// What is answered; none where there is no connection.
pub(super) async fn post(http: &Http, url: &str, body: Bytes) -> Option<Bytes> {
    let request = Request::post(url).header("content-type", "application/json").body(Full::new(body)).ok()?;
    let answer = http.request(request).await.ok()?;
    Some(answer.into_body().collect().await.ok()?.to_bytes())
}
