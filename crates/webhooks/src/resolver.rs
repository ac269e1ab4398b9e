//! Holds: names to addresses, with the addresses that nothing is sent to taken out.
//!
//! The connection is made to exactly what passes here, so an answer that changes between two questions gains nothing.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use batchin_domain::webhook::TargetPolicy;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// The world's answer to where a name leads.
pub trait Lookup: Send + Sync {
    /// Every address of a name.
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The operating system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name, 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

/// Why a name leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveFault {
    #[error("the host has no address")]
    NotFound,
    #[error("the host has no address that may be connected to")]
    Forbidden,
}

/// Resolves for the HTTP client.
pub(crate) struct FilteredResolver {
    pub(crate) lookup: Arc<dyn Lookup>,
    pub(crate) policy: Arc<TargetPolicy>,
}

impl Resolve for FilteredResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (found, policy) = (self.lookup.lookup(name.as_str().to_owned()), Arc::clone(&self.policy));
        Box::pin(async move {
            let found = found.await.unwrap_or_default();
            permitted(&policy, &found).map_err(|fault| -> Box<dyn Error + Send + Sync> { Box::new(fault) })
        })
    }
}

fn permitted(policy: &TargetPolicy, found: &[IpAddr]) -> Result<Addrs, ResolveFault> {
    if found.is_empty() {
        return Err(ResolveFault::NotFound);
    }
    let permitted = found.iter().filter(|address| policy.permits(**address)).take(MAX_ADDRESSES);
    // Port 0: the URL's.
    let permitted: Vec<_> = permitted.map(|address| SocketAddr::new(*address, 0)).collect();
    if permitted.is_empty() { Err(ResolveFault::Forbidden) } else { Ok(Box::new(permitted.into_iter())) }
}
