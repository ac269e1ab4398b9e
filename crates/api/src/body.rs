//! Holds: reading a request's body within its bounds.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::body::Body;
use batchin_domain::AccountId;
use batchin_openai::Code;
use batchin_shares::{NoShare, Share, ShareLimits, Shares};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, header::CONTENT_LENGTH, request::Parts};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::{error::ApiError, throttle::network};

/// A body that takes longer is not being sent any more.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// All larger bodies in memory at once: 1 GiB. What comes on top is refused rather than swapped.
const MAX_BYTES_IN_MEMORY: u64 = 1024 * 1024 * 1024;
/// Bodies up to this size are bounded by the number of connections alone.
const SMALL_BYTES: usize = 64 * 1024;
/// What a body takes at a time, as it comes: what it says of its length costs nobody anything.
const STEP_BYTES: usize = 256 * 1024;

/// All bodies at once of whoever has shown no key: 64 MiB. What they may send is a thousandth of that.
const MAX_BYTES_WITHOUT_ACCOUNT: u64 = 64 * 1024 * 1024;
/// What such a body takes at a time, from its first byte on.
const STEP_WITHOUT_ACCOUNT_BYTES: usize = 4 * 1024;

/// Who has memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    Account(AccountId),
    /// Where somebody without an account is.
    Network(IpAddr),
}

/// The memory that bodies may take; those without an account have some of their own.
pub(crate) struct BodyMemory {
    of_accounts: Arc<Shares<Holder>>,
    of_networks: Arc<Shares<Holder>>,
}

/// [`BodyMemory`] in the name of somebody.
pub(crate) struct Allowance<'a> {
    shares: &'a Arc<Shares<Holder>>,
    holder: Holder,
}

/// A share of [`BodyMemory`].
#[derive(Default)]
struct Place(Option<Share<Holder>>);

/// A body and its place in memory, which is free again once nobody has a piece of it any more.
struct Held {
    bytes: Bytes,
    _share: Share<Holder>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

enum Fault {
    TooLarge,
    BrokenOff,
    NoMemory(Holder, NoShare),
}

impl BodyMemory {
    /// One account may have so many percent of it while it is alone, and one address so many of what is there without one.
    pub(crate) fn new(of_account: u64, of_address: u64) -> Self {
        let shares = |capacity, most_percent| Shares::new(ShareLimits { capacity, most_percent });
        Self {
            of_accounts: shares(MAX_BYTES_IN_MEMORY, of_account),
            of_networks: shares(MAX_BYTES_WITHOUT_ACCOUNT, of_address),
        }
    }

    /// In an account's name.
    pub(crate) fn of(&self, account: AccountId) -> Allowance<'_> {
        Allowance { shares: &self.of_accounts, holder: Holder::Account(account) }
    }

    /// In the name of an address, for who has shown no key.
    pub(crate) fn at(&self, address: IpAddr) -> Allowance<'_> {
        Allowance { shares: &self.of_networks, holder: Holder::Network(network(address)) }
    }
}

impl Allowance<'_> {
    /// What a body has without asking, and what it asks for at a time.
    fn steps(&self) -> (usize, usize) {
        match self.holder {
            Holder::Account(_) => (SMALL_BYTES, STEP_BYTES),
            Holder::Network(_) => (0, STEP_WITHOUT_ACCOUNT_BYTES),
        }
    }

    fn take(&self, place: &mut Place, bytes: usize) -> Result<(), Fault> {
        match &mut place.0 {
            Some(held) => held.grow(bytes as u64),
            None => self.shares.take(self.holder, bytes as u64).map(|share| place.0 = Some(share)),
        }
        .map_err(|why| Fault::NoMemory(self.holder, why))
    }
}

/// A request's head, and its body if that has at most `limit` bytes.
pub(crate) async fn received(
    memory: &Allowance<'_>,
    request: Request<Body>,
    limit: usize,
) -> Result<(Parts, Bytes), ApiError> {
    let (parts, body) = request.into_parts();
    let body = read(memory, &parts.headers, body, limit).await?;
    Ok((parts, body))
}

/// The body, if it has at most `limit` bytes.
pub(crate) async fn read(
    memory: &Allowance<'_>,
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
) -> Result<Bytes, ApiError> {
    let stated = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if stated.is_some_and(|length| length > limit) {
        return Err(ApiError::too_large(limit));
    }
    match timeout(BODY_TIMEOUT, collect(memory, &mut body, stated, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(Fault::TooLarge)) => Err(ApiError::too_large(limit)),
        Ok(Err(Fault::BrokenOff)) => Err(ApiError::new(Code::InvalidRequest, "The body broke off.")),
        Ok(Err(Fault::NoMemory(_, NoShare::Full))) => {
            Err(ApiError::unavailable("Too many large bodies at once; try again in a moment."))
        }
        Ok(Err(Fault::NoMemory(Holder::Account(_), NoShare::OverPart))) => Err(ApiError::over_share(
            "This account has as many large bodies on their way as it may; try again in a moment.",
        )),
        Ok(Err(Fault::NoMemory(Holder::Network(_), NoShare::OverPart))) => Err(ApiError::over_share(
            "This address has as many bodies on their way as it may without a key; try again in a moment.",
        )),
        Err(_) => Err(ApiError::new(Code::RequestTimeout, "The body did not arrive in time.")),
    }
}

/// A body that comes in one piece is not copied.
async fn collect(memory: &Allowance<'_>, body: &mut Body, stated: Option<usize>, limit: usize) -> Result<Bytes, Fault> {
    let (mut paid, least) = memory.steps();
    let mut place = Place::default();
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Fault::BrokenOff)?.into_data() else { continue };
        let size = first.len() + rest.len() + data.len();
        if size > limit {
            return Err(Fault::TooLarge);
        }
        if size > paid {
            let step = (size - paid).max(least);
            memory.take(&mut place, step)?;
            paid += step;
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.extend_from_slice(&first);
            first.clear();
        }
        // At most twice what is there, however much is said to come.
        let room = stated.unwrap_or(size).clamp(size, size.saturating_mul(2));
        if rest.capacity() < size {
            rest.reserve(room - rest.len());
        }
        rest.extend_from_slice(&data);
    }
    let bytes = if rest.is_empty() { first } else { rest.freeze() };
    Ok(match place.0 {
        Some(share) => Bytes::from_owner(Held { bytes, _share: share }),
        None => bytes,
    })
}

#[cfg(test)]
mod tests {
    use batchin_domain::AccountId;
    use futures::stream;

    use super::*;

    fn pieces(count: usize) -> Body {
        Body::from_stream(stream::iter((0..count).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 100_000])))))
    }

    #[tokio::test]
    async fn large_bodies_take_memory_as_they_come_and_give_it_back() {
        let memory = BodyMemory::new(90, 50);
        let account = AccountId::new(uuid::Uuid::from_u128(1));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, 1_000_000_000_u64.into());
        let received = read(&memory.of(account), &headers, pieces(10), 1_000_000_000).await;
        let received = received.unwrap_or_else(|_| panic!("it fits"));
        assert_eq!(received.len(), 1_000_000);
        let taken = memory.of_accounts.taken() as usize;
        assert!((1_000_000 - SMALL_BYTES..1_500_000).contains(&taken), "{taken}");
        let piece = received.slice(..10);
        drop(received);
        assert_eq!(memory.of_accounts.taken() as usize, taken, "it is there as long as a piece of it");
        drop(piece);
        assert_eq!(memory.of_accounts.taken(), 0);
    }

    #[tokio::test]
    async fn one_account_leaves_room_for_the_next() {
        let of_accounts = Shares::new(ShareLimits { capacity: 2_000_000, most_percent: 60 });
        let memory = BodyMemory { of_accounts, ..BodyMemory::new(60, 60) };
        let (one, two) = (AccountId::new(uuid::Uuid::from_u128(1)), AccountId::new(uuid::Uuid::from_u128(2)));
        let status = async |account: AccountId, count: usize| {
            let read = read(&memory.of(account), &HeaderMap::new(), pieces(count), 10_000_000).await;
            read.map_err(|error| error.status().as_u16())
        };
        let Ok(_held) = status(one, 10).await else { panic!("it is alone") };
        assert_eq!(status(one, 10).await.err(), Some(429));
        assert!(status(two, 5).await.is_ok());
        assert_eq!(status(two, 30).await.err(), Some(429));
    }

    #[tokio::test]
    async fn without_an_account_one_address_leaves_room_for_the_next() {
        let of_networks = Shares::new(ShareLimits { capacity: 100_000, most_percent: 50 });
        let memory = BodyMemory { of_networks, ..BodyMemory::new(90, 50) };
        let small = || Body::from(vec![b'x'; 20_000]);
        let status = async |address: &str| {
            let read = read(&memory.at(address.parse().unwrap()), &HeaderMap::new(), small(), 64 * 1024).await;
            read.map_err(|error| error.status().as_u16())
        };
        let held = [status("2001:db8:1:2::1").await.unwrap(), status("2001:db8:1:2::2").await.unwrap()];
        assert_eq!(status("2001:db8:1:2:3::4").await.err(), Some(429), "its network has its part");
        assert!(status("2001:db8:1:3::1").await.is_ok() && status("192.0.2.1").await.is_ok());
        assert_eq!(memory.of_accounts.taken(), 0, "none of it is what accounts have");
        drop(held);
        assert!(status("2001:db8:1:2:3::4").await.is_ok());
        assert_eq!(memory.of_networks.taken(), 0);
    }
}
