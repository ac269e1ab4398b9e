//! Holds: a server that dies while it keeps the audit log, and what must hold once it has started again.

use batchin_receipts::{Checkpoint, Edge, Hash, Note, ShownRecord, VerifyingKey, verify_record};
use batchin_testkit::Backend;
use serde_json::{Value, json};

use crate::harness::{Account, Node, Settings, World, until};

/// One server, which dies again and again.
pub struct Logbook {
    world: World,
    node: Node,
    account: Account,
    /// Records whose making was answered.
    handed_out: Vec<String>,
    /// Every checkpoint that somebody saw.
    seen: Vec<Checkpoint>,
    made: usize,
}

impl Logbook {
    pub async fn new(backend: Backend) -> Self {
        let world = World::new(backend, Settings { lease_seconds: 1, ..Settings::default() }).await;
        let account = world.beggar().await;
        let node = world.new_node();
        Self { world, node, account, handed_out: Vec::new(), seen: Vec::new(), made: 0 }
    }

    /// Makes records to its death, starts the server again and looks whether any was lost, and whether the log is the same.
    pub async fn die_at(&mut self, point: &str, hit: u32) {
        assert!(self.node.start_to_die(point, hit).await, "{point}");
        for _ in 0..3 {
            self.made += 1;
            let body =
                json!({"input_text": format!("question {}", self.made), "output_text": "answer", "model_id": "m"});
            let Ok(reply) = self.account.try_post(&self.node.address, "/v1/audit", &body).await else { break };
            assert_eq!(reply.status, 200, "{point}: {reply:?}");
            self.handed_out.push(reply.json()["audit_id"].as_str().unwrap().to_owned());
        }
        self.node.died_at(point).await;
        self.world.ledger().await;
        self.node.start_again().await;
        self.look(point).await;
        self.node.kill().await;
    }

    async fn look(&mut self, point: &str) {
        let keys = self.get("/v1/audit/pubkeys").await;
        let keys: Vec<VerifyingKey> = keys["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key["verify_key_hex"].as_str().unwrap().parse().unwrap())
            .collect();
        assert_eq!(keys.len(), 1, "{point}");
        for id in &self.handed_out {
            let path = format!("/v1/audit/{id}");
            let record = until("the record has its place", async || {
                let record = self.get(&path).await;
                record["log"].is_object().then_some(record)
            })
            .await;
            let record: ShownRecord = serde_json::from_value(record).unwrap();
            let checked = verify_record(&record, &keys, &[]);
            assert!(checked.is_ok(), "{point}: {checked:?}");
        }
        let signed = self.account.get(&self.node.address, "/audit/log/checkpoint").await;
        let note = Note::parse(std::str::from_utf8(&signed.body).unwrap()).unwrap();
        let newest = Checkpoint::parse(&note.text).unwrap();
        let tile = self.account.get(&self.node.address, &format!("/audit/log/tile/0/000.p/{}", newest.size)).await;
        let leaves: Vec<Hash> = tile.body.chunks(32).map(|hash| Hash::try_from(hash).unwrap()).collect();
        self.seen.push(newest);
        // Whatever was signed is a beginning of what there is now.
        let mut edge = Edge::default();
        for leaf in leaves {
            edge.append(leaf);
            for seen in self.seen.iter().filter(|seen| seen.size == edge.size()) {
                assert_eq!(seen.root, edge.root(), "{point}");
            }
        }
        assert_eq!(self.seen.last().map(|seen| seen.size), Some(edge.size()));
    }

    async fn get(&self, path: &str) -> Value {
        self.account.get(&self.node.address, path).await.json()
    }
}
