//! Holds: the listener, with or without TLS.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum_server::{
    Handle,
    accept::Accept,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use batchin_api::Api;
use batchin_upstream::Gathered;
use hyper_util::{rt::TokioTimer, server::conn::auto::Builder};
use tokio::net::TcpStream;
use tower::service_fn;

use super::patience::Patient;
use crate::{config, tls::Certificate};

/// A client that has not sent its headers by then is not going to.
const HEADERS_PATIENCE: Duration = Duration::from_secs(30);

/// Requests at once on one HTTP/2 connection: what is answered and not read is kept for each of them.
const MAX_STREAMS: u32 = 64;

/// A certificate and the listener that shows it.
#[derive(Clone)]
pub(super) struct Tls {
    certificate: Arc<Certificate>,
    shown: RustlsConfig,
}

impl Tls {
    /// Reads the files again; the old certificate stays when they cannot be used.
    pub(super) fn reload(&self) -> Result<()> {
        self.certificate.reload()?;
        self.shown.reload_from_config(self.certificate.current());
        Ok(())
    }
}

/// A bound listener.
pub(super) struct Bound {
    tcp: TcpListener,
    tls: Option<Tls>,
    handle: Handle<SocketAddr>,
    write_timeout: Duration,
}

/// Binds the configured address.
pub(super) fn bind(server: &config::Server) -> Result<Bound> {
    let tls = server.tls.clone().map(Certificate::new).transpose()?.map(|certificate| {
        let certificate = Arc::new(certificate);
        Tls { shown: RustlsConfig::from_config(certificate.current()), certificate }
    });
    let tcp = TcpListener::bind(server.listen).with_context(|| format!("cannot listen on {}", server.listen))?;
    tcp.set_nonblocking(true)?;
    Ok(Bound { tcp, tls, handle: Handle::new(), write_timeout: server.write_timeout })
}

impl Bound {
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    pub(super) fn tls(&self) -> Option<Tls> {
        self.tls.clone()
    }

    /// Ends the listener: no new connections, and those that are idle close.
    pub(super) fn handle(&self) -> Handle<SocketAddr> {
        self.handle.clone()
    }

    /// Serves until its handle says to stop and every request has ended.
    pub(super) async fn serve(self, api: Api) -> io::Result<()> {
        let service = service_fn(move |peer| ready(Ok::<_, Infallible>(api.clone().for_peer(peer))));
        let prompt = Prompt { write_timeout: self.write_timeout };
        match self.tls {
            None => {
                let mut server = axum_server::from_tcp(self.tcp)?.acceptor(prompt).handle(self.handle);
                bound(server.http_builder());
                server.serve(service).await
            }
            Some(tls) => {
                let acceptor = Above { tls: RustlsAcceptor::new(tls.shown).acceptor(prompt), prompt };
                let mut server = axum_server::from_tcp(self.tcp)?.acceptor(acceptor).handle(self.handle);
                bound(server.http_builder());
                server.serve(service).await
            }
        }
    }
}

/// What one connection may take.
fn bound<E>(http: &mut Builder<E>) {
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_PATIENCE);
    http.http2().max_concurrent_streams(MAX_STREAMS);
}

/// Accepts for answers that leave at once: small ones must not wait for the other side's acknowledgement.
#[derive(Clone, Copy)]
struct Prompt {
    write_timeout: Duration,
}

impl<S> Accept<TcpStream, S> for Prompt {
    type Stream = Gathered<Patient<TcpStream>>;
    type Service = S;
    type Future = Ready<io::Result<(Self::Stream, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let prompt = stream.set_nodelay(true);
        let stream = Gathered(Patient::new(stream, HEADERS_PATIENCE, self.write_timeout));
        ready(prompt.map(|()| (stream, service)))
    }
}

/// Accepts within TLS: who has shaken hands has not asked for anything yet.
#[derive(Clone)]
struct Above<A> {
    tls: A,
    prompt: Prompt,
}

impl<A, I, S> Accept<I, S> for Above<A>
where
    A: Accept<I, S, Future: Send + 'static>,
{
    type Stream = Patient<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, A::Service)>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let (accepted, for_room) = (self.tls.accept(stream, service), self.prompt.write_timeout);
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            Ok((Patient::new(stream, HEADERS_PATIENCE, for_room), service))
        })
    }
}
