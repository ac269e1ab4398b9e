//! Holds: the listener, with or without TLS, and what one connection may take.

use std::{
    future::{Future, Ready, ready},
    io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum_server::{
    accept::Accept,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use batchin_api::Api;
use batchin_config::Server;
use batchin_upstream::Gathered;
use hyper_util::{rt::TokioTimer, server::conn::auto::Builder};
use tokio::net::TcpStream;

use super::{
    accepting::{Handle, accept},
    connections::Connections,
    outgoing::Streams,
    patience::Patient,
};
use crate::tls::Certificate;

/// A client that has not sent its headers by then is not going to.
const HEADERS_PATIENCE: Duration = Duration::from_secs(30);

/// A client that has not shaken hands by then is not going to.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// A connection that is told that it is one too many has so long to ask for something.
const REFUSED_PATIENCE: Duration = Duration::from_secs(5);
/// And so long altogether: its body is read away, as everybody's is.
const REFUSED_TIME: Duration = Duration::from_secs(15);

/// A request's head: more than clients and proxies send, and what a connection that sends nothing else may keep.
const MAX_HEAD_BYTES: usize = 128 * 1024;

/// An HTTP/2 connection that is silent for so long is asked whether it is still there; HTTP/1.1 closes idle ones.
const ASKED_AFTER: Duration = Duration::from_secs(20);
/// One that does not say so by then is gone. Its place would be taken for ever.
const MUST_ANSWER_WITHIN: Duration = Duration::from_secs(10);

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
    handle: Handle,
    write_timeout: Duration,
    connections: Arc<Connections>,
}

/// Binds the configured address.
pub(super) fn bind(server: &Server) -> Result<Bound> {
    let tls = server.tls.clone().map(Certificate::new).transpose()?.map(|certificate| {
        let certificate = Arc::new(certificate);
        Tls { shown: RustlsConfig::from_config(certificate.current()), certificate }
    });
    let tcp = TcpListener::bind(server.listen).with_context(|| format!("cannot listen on {}", server.listen))?;
    tcp.set_nonblocking(true)?;
    let connections = Arc::new(Connections::new(server));
    Ok(Bound { tcp, tls, handle: Handle::default(), write_timeout: server.write_timeout, connections })
}

impl Bound {
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    pub(super) fn tls(&self) -> Option<Tls> {
        self.tls.clone()
    }

    /// Ends the listener: no new connections, and those that are idle close.
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until its handle says to stop and every request has ended.
    pub(super) async fn serve(self, api: Api) -> io::Result<()> {
        let Self { tcp, tls, handle, write_timeout, connections } = self;
        let listener = tokio::net::TcpListener::from_std(tcp)?;
        let serving = (api, http(Streams::new(handle.tasks().clone(), write_timeout)));
        // A handshake is dear, and one that is refused can do without.
        let refusing = if tls.is_none() { Refusing::InWords } else { Refusing::ByClosing };
        let prompt = Prompt { connections, refusing, write_timeout };
        match tls {
            None => accept(listener, prompt, serving, handle).await,
            Some(tls) => {
                let tls = RustlsAcceptor::new(tls.shown).handshake_timeout(HANDSHAKE_PATIENCE).acceptor(prompt);
                accept(listener, Above { tls, write_timeout }, serving, handle).await;
            }
        }
        Ok(())
    }
}

/// What one connection may take.
fn http(streams: Streams) -> Builder<Streams> {
    let mut http = Builder::new(streams);
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_PATIENCE).max_buf_size(MAX_HEAD_BYTES);
    let mut http2 = http.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(ASKED_AFTER).keep_alive_timeout(MUST_ANSWER_WITHIN);
    http2.max_concurrent_streams(MAX_STREAMS);
    http
}

/// What becomes of a connection that is one too many.
#[derive(Clone, Copy)]
enum Refusing {
    InWords,
    ByClosing,
}

/// Accepts who finds a place, for answers that leave at once: small ones must not wait for the other side's
/// acknowledgement.
#[derive(Clone)]
struct Prompt {
    connections: Arc<Connections>,
    refusing: Refusing,
    write_timeout: Duration,
}

type Accepted = (Gathered<Patient<TcpStream>>, Api);

impl Prompt {
    fn take_in(&self, stream: TcpStream, api: Api) -> io::Result<Accepted> {
        let peer = stream.peer_addr()?.ip();
        stream.set_nodelay(true)?;
        let why = match self.connections.take(peer) {
            Ok(place) => {
                let stream = Patient::new(stream, HEADERS_PATIENCE, self.write_timeout).on(place);
                return Ok((Gathered(stream), api));
            }
            Err(why) => why,
        };
        let told = match self.refusing {
            Refusing::InWords => self.connections.refuse(peer),
            Refusing::ByClosing => None,
        };
        let place = told.ok_or(io::ErrorKind::ConnectionRefused)?;
        let stream = Patient::new(stream, REFUSED_PATIENCE, REFUSED_PATIENCE).on(place).for_at_most(REFUSED_TIME);
        Ok((Gathered(stream), api.refusing(why)))
    }
}

impl Accept<TcpStream, Api> for Prompt {
    type Stream = Gathered<Patient<TcpStream>>;
    type Service = Api;
    type Future = Ready<io::Result<Accepted>>;

    fn accept(&self, stream: TcpStream, api: Api) -> Self::Future {
        ready(self.take_in(stream, api))
    }
}

/// Accepts within TLS: who has shaken hands has not asked for anything yet.
#[derive(Clone)]
struct Above<A> {
    tls: A,
    write_timeout: Duration,
}

impl<A, I, S> Accept<I, S> for Above<A>
where
    A: Accept<I, S, Future: Send + 'static>,
{
    type Stream = Patient<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, A::Service)>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let (accepted, for_room) = (self.tls.accept(stream, service), self.write_timeout);
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            Ok((Patient::new(stream, HEADERS_PATIENCE, for_room), service))
        })
    }
}
