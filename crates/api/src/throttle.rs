//! Holds: how often an address may use the public calls. Bounded in memory.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use axum::extract::ConnectInfo;
use batchin_openai::Code;
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use http::{Extensions, HeaderMap};
use ipnet::IpNet;
use moka::sync::Cache;

use crate::error::ApiError;

/// Addresses that are remembered; the least used are forgotten first.
const MAX_REMEMBERED: u64 = 50_000;
/// A limiter that was not asked for this long is full again.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// Addresses in one `X-Forwarded-For` that are looked at.
const MAX_HOPS: usize = 16;

type Limiter = Arc<DefaultDirectRateLimiter>;

/// Counts attempts.
pub(crate) struct Throttle {
    per_address: Quota,
    addresses: Cache<IpAddr, Limiter>,
    clock: DefaultClock,
}

impl Throttle {
    pub(crate) fn new(per_address_per_minute: NonZeroU32) -> Self {
        let clock = DefaultClock::default();
        let addresses = Cache::builder().max_capacity(MAX_REMEMBERED).time_to_idle(FORGET_AFTER).build();
        Self { per_address: Quota::per_minute(per_address_per_minute), addresses, clock }
    }

    /// One use of a public call from an address.
    pub(crate) fn address(&self, address: IpAddr) -> Result<(), ApiError> {
        let limiter = self.addresses.get_with(network(address), || Arc::new(RateLimiter::direct(self.per_address)));
        limiter.check().map_err(|until| {
            let pause = until.wait_time_from(self.clock.now());
            ApiError::new(Code::RateLimitExceeded, "Too many attempts; wait and try again.").retry_after(pause)
        })
    }
}

/// What counts as one client: IPv6 addresses are dealt out by the network, so a whole /64 does. IPv4 in IPv6 is IPv4.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(four) => IpAddr::V4(four),
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// Who is at the other end: the peer, or whom the trusted proxies in front of us name.
pub(crate) fn client_address(extensions: &Extensions, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    // Without a peer, as on a Unix socket, everybody counts as one client.
    let mut client = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.0.ip().to_canonical());
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let hops = headers.get_all("x-forwarded-for").into_iter().rev();
    let hops = hops.filter_map(|value| value.to_str().ok()).flat_map(|value| value.rsplit(','));
    for hop in hops.take(MAX_HOPS) {
        if !is_trusted(client) {
            break;
        }
        match hop.trim().parse::<IpAddr>() {
            Ok(before) => client = before.to_canonical(),
            Err(_) => break,
        }
    }
    client
}

/// On whose behalf the site's own back end asks: beside what trusted proxies name, it is believed itself. The last address
/// of its `X-Forwarded-For` is the one that it added.
pub(crate) fn visitor_address(extensions: &Extensions, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let named = client_address(extensions, headers, trusted);
    let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_canonical());
    if peer.is_some_and(|peer| trusted.iter().any(|network| network.contains(&peer))) {
        return named;
    }
    let added = headers.get_all("x-forwarded-for").into_iter().next_back().and_then(|value| value.to_str().ok());
    let added = added.and_then(|value| value.rsplit(',').next()?.trim().parse::<IpAddr>().ok());
    added.map_or(named, |address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        named_by(client_address, peer, forwarded)
    }

    fn named_by(address: fn(&Extensions, &HeaderMap, &[IpNet]) -> IpAddr, peer: &str, forwarded: &[&str]) -> String {
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        address(&extensions, &headers, &["10.0.0.0/8".parse().unwrap()]).to_string()
    }

    #[test]
    fn a_site_that_vouches_names_its_visitors() {
        let visitor = |peer, forwarded: &[&str]| named_by(visitor_address, peer, forwarded);
        assert_eq!(visitor("192.0.2.1", &[]), "192.0.2.1");
        assert_eq!(visitor("192.0.2.1", &["nonsense"]), "192.0.2.1");
        assert_eq!(visitor("192.0.2.1", &["1.1.1.1, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(visitor("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 198.51.100.7", "10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["nonsense"]), "10.0.0.1");
        assert_eq!(client("::ffff:10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
    }

    #[test]
    fn an_address_runs_out_and_says_when_to_come_back() {
        let throttle = Throttle::new(NonZeroU32::new(3).unwrap());
        let one: IpAddr = "2001:db8:1:2:3::1".parse().unwrap();
        let same_network: IpAddr = "2001:db8:1:2:4::9".parse().unwrap();
        for _ in 0..3 {
            throttle.address(one).unwrap();
        }
        assert_eq!(throttle.address(same_network).unwrap_err().status(), 429);
        throttle.address("2001:db8:1:3::1".parse().unwrap()).unwrap();
    }
}
