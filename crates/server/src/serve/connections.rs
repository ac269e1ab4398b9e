//! Holds: how many connections are open, and how many of them one network address may have.
//!
//! Who connects has shown no key yet, so that its address stands for it. The rule is the one of accounts: what an address
//! may have depends on what is free. A trusted proxy speaks for many and may have all.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use batchin_api::network;
use batchin_config::Server;
use batchin_shares::{NoShare, Share, ShareLimits, Shares};
use ipnet::IpNet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::Instant;
use tracing::warn;

/// Connections beyond the last one that are told so at once; more are closed without a word.
const MAX_REFUSED: u64 = 64;
/// Files open beside connections and calls of model servers: database, blobs, logs, the engine.
const OTHER_FILES: u64 = 256;
/// Before it is said again that connections are refused.
const QUIET: Duration = Duration::from_secs(60);

/// All connections of this server.
pub(super) struct Connections {
    open: Arc<Shares<Peer>>,
    refused: Arc<Shares<Peer>>,
    trusted: Vec<IpNet>,
    /// Numbers the connections of proxies.
    proxied: AtomicU64,
    /// std mutex: held to compare and set a point in time, never across an await.
    warned: Mutex<Option<Instant>>,
}

/// Whom a connection counts for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Peer {
    Network(IpAddr),
    /// A connection of a proxy, which counts for itself alone.
    Proxied(u64),
}

/// A connection's place, free again when this is dropped.
pub(super) struct Place {
    _share: Share<Peer>,
}

impl Place {
    fn new(share: Share<Peer>) -> Self {
        metrics::gauge!("batchin_connections").increment(1);
        Self { _share: share }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("batchin_connections").decrement(1);
    }
}

impl Connections {
    /// As configured, or as many as this process may have files open.
    pub(super) fn new(server: &Server) -> Self {
        let calls = server.gateway.max_in_flight as u64;
        let files = raise_files(server.max_connections.saturating_add(calls).saturating_add(OTHER_FILES));
        let capacity = fitting(server.max_connections, calls, files);
        if capacity < server.max_connections {
            warn!(
                "{capacity} connections are taken in place of server.max_connections ({}): this process may open {files} \
                 files (ulimit -n; LimitNOFILE of systemd)",
                server.max_connections
            );
        }
        Self::of(capacity, server.max_address_percent, server.trusted_proxies.clone())
    }

    fn of(capacity: u64, most_percent: u64, trusted: Vec<IpNet>) -> Self {
        Self {
            open: Shares::new(ShareLimits { capacity, most_percent }),
            refused: Shares::new(ShareLimits { capacity: MAX_REFUSED, most_percent }),
            trusted,
            proxied: AtomicU64::new(0),
            warned: Mutex::new(None),
        }
    }

    /// A place for a connection from this address.
    pub(super) fn take(&self, address: IpAddr) -> Result<Place, NoShare> {
        self.open.take(self.peer(address), 1).map(Place::new).inspect_err(|why| self.note(*why))
    }

    /// A place for one that is told that there is none.
    pub(super) fn refuse(&self, address: IpAddr) -> Option<Place> {
        self.refused.take(self.peer(address), 1).map(Place::new).ok()
    }

    fn peer(&self, address: IpAddr) -> Peer {
        let address = address.to_canonical();
        if self.trusted.iter().any(|network| network.contains(&address)) {
            return Peer::Proxied(self.proxied.fetch_add(1, Ordering::Relaxed));
        }
        Peer::Network(network(address))
    }

    fn note(&self, why: NoShare) {
        let (reason, said) = match why {
            NoShare::Full => ("full", "all of server.max_connections are open"),
            NoShare::OverPart => ("address", "one network address has its part of them (server.max_address_percent)"),
        };
        metrics::counter!("batchin_connections_refused_total", "reason" => reason).increment(1);
        let now = Instant::now();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|last| now.duration_since(last) >= QUIET) {
            *warned = Some(now);
            drop(warned);
            warn!("connections are refused: {said}");
        }
    }
}

/// What is left for connections of so many files; half of them at least, since calls need a connection first.
fn fitting(connections: u64, calls: u64, files: u64) -> u64 {
    let left = files.saturating_sub(calls.saturating_add(OTHER_FILES));
    connections.min(left.max(files / 2))
}

/// Lets this process open so many files, as far as it may. How many it may then.
fn raise_files(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let Some(now) = limit.current.filter(|now| *now < wanted) else { return wanted };
    let raised = limit.maximum.map_or(wanted, |most| most.min(wanted));
    let asked = Rlimit { current: Some(raised), maximum: limit.maximum };
    if setrlimit(Resource::Nofile, asked).is_ok() { raised } else { now }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(connections: &Connections, addresses: &[&str]) -> (Vec<Place>, NoShare) {
        let mut held = Vec::new();
        for address in addresses.iter().cycle() {
            match connections.take(address.parse().unwrap()) {
                Ok(place) => held.push(place),
                Err(why) => return (held, why),
            }
        }
        unreachable!("it ends with a refusal")
    }

    #[test]
    fn one_address_has_its_part_and_a_network_is_one() {
        let connections = Connections::of(100, 50, Vec::new());
        let (greedy, why) = fill(&connections, &["192.0.2.1", "::ffff:192.0.2.1"]);
        assert_eq!((greedy.len(), why), (50, NoShare::OverPart));
        let (network, why) = fill(&connections, &["2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:3::3"]);
        assert_eq!((network.len(), why), (25, NoShare::OverPart));
        let _another = connections.take("2001:db8:1:3::1".parse().unwrap()).unwrap();
        assert!(connections.refuse("192.0.2.1".parse().unwrap()).is_some(), "it can be told");
        drop(greedy);
        assert!(connections.take("2001:db8:1:2::1".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_trusted_proxy_may_have_all() {
        let connections = Connections::of(100, 50, vec!["192.0.2.0/24".parse().unwrap()]);
        let (proxied, why) = fill(&connections, &["192.0.2.1"]);
        assert_eq!((proxied.len(), why), (100, NoShare::Full));
        let told: Vec<_> = std::iter::from_fn(|| connections.refuse("192.0.2.1".parse().unwrap())).collect();
        assert_eq!(told.len() as u64, MAX_REFUSED);
    }

    #[test]
    fn there_are_no_more_connections_than_files() {
        assert_eq!(fitting(8_192, 2_048, 524_288), 8_192);
        assert_eq!(fitting(8_192, 2_048, 4_096), 2_048);
        assert_eq!(fitting(8_192, 2_048, 8_192), 5_888);
        assert_eq!(fitting(100, 2_048, 1_024), 100);
    }
}
