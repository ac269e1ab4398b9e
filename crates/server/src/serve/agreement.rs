//! Holds: what this node must have in common with the others on its database: the place of the blobs, the prices, the
//! schema.
//!
//! Blobs that others cannot read fail their tasks, so a node that has other ones does not join. Prices may differ for a
//! while, while a change is rolled out; that is said aloud and counted.

use std::time::Duration;

use anyhow::{Result, bail};
use batchin_domain::{IdSource as _, PriceVersion};
use batchin_files::{Blobs, BlobsPlace, IDENTITY};
use batchin_gateway::Gateway;
use batchin_store::{Agreement, Prices, StoreError};
use batchin_tasks::Tasks;
use metrics::gauge;
use tracing::{error, info, warn};

use crate::world::World;

/// What the blobs' place is called among that which nodes have agreed on.
pub const BLOBS: &str = "blobs";
/// Between two looks at the other nodes.
const LOOK: Duration = Duration::from_secs(5);

/// Refuses blobs that are not those of this database. A place that cannot be asked is no other one: it is told of, and
/// what needs it fails until it can be.
pub(super) async fn check_blobs(agreement: &Agreement, blobs: &Blobs, place: &BlobsPlace) -> Result<()> {
    let agreed = agreement.agreed(BLOBS).await?;
    let found = match &agreed {
        Some(_) => blobs.identity().await,
        None => blobs.identity_or(&World.uuid().to_string()).await.map(Some),
    };
    let found = match found {
        Ok(found) => found,
        Err(cause) => {
            error!(
                error = &cause as &dyn std::error::Error,
                "the blobs cannot be asked whether they are the right ones"
            );
            return Ok(());
        }
    };
    batchin_faults::point("blobs.named");
    let agreed = match (agreed, &found) {
        (Some(agreed), _) => agreed,
        (None, Some(found)) => agreement.agree(BLOBS, found).await?,
        (None, None) => return Ok(()),
    };
    if found.as_ref() == Some(&agreed) {
        return Ok(());
    }
    bail!(
        "{place} is not where the other nodes of this database have their blobs: all of them need the same blobs.url, a \
         folder that they share or s3://. If the blobs were moved here without their file {IDENTITY}, write {agreed} \
         into it"
    )
}

/// Says which prices this node charges by, and looks whether others charge by the same.
pub(super) fn watch(gateway: Gateway, (agreement, prices): (Agreement, Prices), tasks: &Tasks) {
    tasks.spawn("node_agreement", move |stop| async move {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen = Seen::default();
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(cause) = seen.look(&gateway, (&agreement, &prices)).await {
                warn!(error = &cause as &dyn std::error::Error, "the other nodes could not be looked at");
            }
        }
    });
}

/// What the last look has shown.
#[derive(Default)]
struct Seen {
    /// The list that the others have been told of, and what tells it from others.
    noted: Option<(PriceVersion, String)>,
    others: usize,
    ahead: usize,
}

impl Seen {
    async fn look(&mut self, gateway: &Gateway, (agreement, prices): (&Agreement, &Prices)) -> Result<(), StoreError> {
        let version = gateway.catalog().version();
        let node = gateway.epoch().identity.id;
        let fingerprint = match &self.noted {
            Some((noted, fingerprint)) if *noted == version => fingerprint.clone(),
            _ => {
                let fingerprint = prices.price_fingerprint(version).await?.unwrap_or_default();
                agreement.note_prices(node, version).await?;
                self.noted = Some((version, fingerprint.clone()));
                fingerprint
            }
        };
        let others = agreement.other_prices(Some(node), &fingerprint).await?;
        gauge!("batchin_node_disagreements", "what" => "prices").set(others.len() as f64);
        if others.len() != self.others {
            match others.first() {
                Some(one) => warn!(
                    nodes = others.len(),
                    "{} node(s) charge by other prices than this one, {one} among them: give all the same configuration",
                    others.len()
                ),
                None => info!("all nodes charge by the same prices"),
            }
        }
        let ahead = agreement.schema_ahead().await?;
        gauge!("batchin_node_disagreements", "what" => "schema").set(ahead as f64);
        if ahead > self.ahead {
            error!("the database was brought up to date by a newer version of this program: restart this node with it");
        }
        (self.others, self.ahead) = (others.len(), ahead);
        Ok(())
    }
}
