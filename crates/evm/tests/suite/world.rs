//! Holds: a chain with USDC where it really lies, and somebody who watches it as the watcher of an installation does.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use batchin_evm::{
    Address, BASE, BlockRef, Chain, Endpoint, Event, Reached, Rpc, Scan, ScanError, Seen, Skipped, State, TransferId,
    Watch, begin, heads, scan,
};
use batchin_sim::chain::Anvil;

/// Blocks that one step reads.
const LIMIT: u64 = 20;
/// Steps that suffice wherever a test begins.
const MAX_STEPS: usize = 100;

/// The chain that tests run on: Base's number and contracts.
pub const CHAIN: Chain = BASE;
/// An account's address.
pub const ALICE: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
/// Another one's.
pub const BOB: &str = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359";

/// An endpoint.
pub fn endpoint(url: &str) -> Rpc {
    // The process has none otherwise.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let endpoint = Endpoint {
        name: "base[0]".to_owned(),
        url: url.to_owned().into(),
        timeout: Duration::from_secs(10),
        max_batch: 20,
    };
    Rpc::new(endpoint).unwrap()
}

/// A chain with some blocks, on which the payer has USDC.
pub async fn chain() -> Anvil {
    let chain = Anvil::start(CHAIN.id).await;
    chain.place_token(CHAIN.usdc).await;
    chain.mine(100).await;
    chain
}

/// Watches a chain, and keeps what an installation keeps: the state, and transfers by their key.
pub struct Watcher {
    pub rpc: Rpc,
    pub addresses: Vec<Address>,
    pub state: State,
    /// Each transfer with the block that it stands in; none once that was orphaned.
    pub seen: HashMap<TransferId, (Seen, Option<BlockRef>)>,
    pub skipped: Skipped,
    /// How often a transfer was told.
    pub told: usize,
    pub orphaned: usize,
}

impl Watcher {
    /// Begins where an installation does.
    pub async fn start(url: &str) -> Self {
        let rpc = endpoint(url);
        rpc.check_chain(CHAIN.id).await.unwrap();
        let state = begin(&rpc, &CHAIN, &heads(&rpc).await.unwrap()).await.unwrap();
        let addresses = [ALICE, BOB].map(|text| text.parse().unwrap()).to_vec();
        let (seen, skipped) = (HashMap::new(), Skipped::default());
        Self { rpc, addresses, state, seen, skipped, told: 0, orphaned: 0 }
    }

    /// One step, kept as one transaction keeps it.
    pub async fn step(&mut self) -> Result<Scan, ScanError> {
        let heads = heads(&self.rpc).await?;
        let watch = Watch::new(&CHAIN, self.addresses.iter().copied().collect::<HashSet<_>>());
        let scan = scan(&self.rpc, &watch, self.state.clone(), &heads, LIMIT).await?;
        for event in &scan.events {
            match event {
                Event::Orphaned(block) => {
                    self.orphaned += 1;
                    for (_, at) in self.seen.values_mut().filter(|(_, at)| *at == Some(*block)) {
                        *at = None;
                    }
                }
                Event::Seen(seen) => {
                    self.told += 1;
                    self.seen.insert(seen.id, (seen.clone(), Some(seen.block)));
                }
            }
        }
        self.skipped.of_nothing += scan.skipped.of_nothing;
        self.skipped.of_other_form += scan.skipped.of_other_form;
        // As it comes out of a database.
        self.state = serde_json::from_str(&serde_json::to_string(&scan.state).unwrap()).unwrap();
        Ok(scan)
    }

    /// Steps until all is read.
    pub async fn catch_up(&mut self) -> Reached {
        for _ in 0..MAX_STEPS {
            let scan = self.step().await.unwrap();
            if scan.behind == 0 {
                return scan.reached;
            }
        }
        panic!("it does not come to the chain's end");
    }

    /// Values that are in the chain now, smallest first.
    pub fn values(&self) -> Vec<u128> {
        let mut values: Vec<_> =
            self.seen.values().filter(|(_, at)| at.is_some()).map(|(seen, _)| seen.value).collect();
        values.sort_unstable();
        values
    }
}
