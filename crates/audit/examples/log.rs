//! Holds: what the audit log costs: making records, their places, proofs, checking, and the whole tree anew.
//!
//! `log DATABASE_FILE ENTRIES`, on SQLite.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use batchin_audit::{Asserted, Audit, AuditParts, Memory};
use batchin_domain::{AccountId, AuditId, Clock, IdSource, Timestamp};
use batchin_receipts::{Edge, Hash, SigningKey, VerifyingKey, verify_record};
use batchin_store::{ConnectOptions, Store};
use batchin_tasks::Tasks;
use tokio::{task::JoinSet, time::Instant};
use uuid::Uuid;

/// Records that are made at once.
const AT_ONCE: u64 = 256;
/// Records whose proof is asked for and checked.
const ASKED: u64 = 2_000;
const TILE: u64 = 256;

/// A clock and ids that count, so that two runs make the same log.
#[derive(Default)]
struct Counting(AtomicU64);

impl Clock for Counting {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000)
    }
}

impl IdSource for Counting {
    fn uuid(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.0.fetch_add(1, Ordering::Relaxed)) << 64 | 1)
    }

    fn secret(&self) -> [u8; 32] {
        *Hash::of(&self.0.load(Ordering::Relaxed).to_be_bytes()).bytes()
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people, not a part of the server")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().unwrap();
    let entries: u64 = arguments.next().unwrap().parse().unwrap();
    let url = format!("sqlite:{file}?mode=rwc");
    let store = Store::connect(ConnectOptions { url, max_connections: 8 }, true).await.unwrap();
    let (tasks, sequencer) = (Tasks::new(), Tasks::new());
    let signer = SigningKey::from_seed(&[1; 32]).unwrap();
    let key = signer.verifying();
    let parts = AuditParts {
        rows: store.audit_rows(),
        clock: Arc::new(Counting::default()),
        ids: Arc::new(Counting::default()),
        signers: Arc::new(|_| SigningKey::from_seed(&[1; 32])),
        origin: "bench.example/audit/log".parse().unwrap(),
        memory: Memory::open(Path::new(&file).with_extension("signed")).unwrap(),
        tasks: tasks.clone(),
    };
    let audit = Audit::open(parts).await.unwrap();
    audit.start(&sequencer);

    let began = Instant::now();
    let made = make(&audit, entries).await;
    let made_in = began.elapsed();
    while store.audit_rows().audit_log().await.unwrap().unwrap().checkpoint.is_none_or(|(size, _)| size < entries) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let logged_in = began.elapsed();
    let rate = |seconds: f64| entries as f64 / seconds;
    println!(
        "{entries} records made: {:.0}/s durable; {:.0}/s with their places in the published log",
        rate(made_in.as_secs_f64()),
        rate(logged_in.as_secs_f64())
    );

    let (shown_in, checked_in) = ask(&audit, key, &made).await;
    println!("a record with its proof: {shown_in:.0} µs; checked: {checked_in:.0} µs");

    let began = Instant::now();
    let log = store.audit_rows().audit_log().await.unwrap().unwrap();
    let mut edge = Edge::default();
    for index in 0..entries.div_ceil(TILE) {
        let width = (entries - index * TILE).min(TILE);
        let tile = store.audit_rows().audit_tile(0, index, u16::try_from(width).unwrap()).await.unwrap().unwrap();
        tile.into_iter().for_each(|leaf| drop(edge.append(leaf)));
    }
    assert_eq!(edge.root(), log.root);
    println!("the root anew from all leaves: {:.2} s", began.elapsed().as_secs_f64());

    sequencer.shutdown(std::time::Duration::from_secs(10)).await;
    drop(audit);
    tasks.shutdown(std::time::Duration::from_secs(10)).await;
    store.close().await.unwrap();
    let size = std::fs::metadata(&file).unwrap().len();
    println!("the database: {} bytes an entry", size / entries);
}

/// Makes records, many at once.
#[expect(clippy::unwrap_used, reason = "a measurement for people, not a part of the server")]
async fn make(audit: &Audit, entries: u64) -> Vec<AuditId> {
    let account = AccountId::new(Uuid::from_u128(1));
    let next = Arc::new(AtomicU64::new(0));
    let mut makers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (audit, next) = (audit.clone(), Arc::clone(&next));
        makers.spawn(async move {
            let mut made = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= entries {
                    return made;
                }
                let said = Asserted {
                    input: format!("What is {number} and one?"),
                    output: (number + 1).to_string(),
                    model_id: "smollm2-135m-instruct".to_owned(),
                    gpu_id: None,
                };
                made.push(audit.assert(account, &said).await.unwrap().id);
            }
        });
    }
    makers.join_all().await.concat()
}

/// What a proof and its checking take, in microseconds each.
#[expect(clippy::unwrap_used, reason = "a measurement for people, not a part of the server")]
async fn ask(audit: &Audit, key: VerifyingKey, made: &[AuditId]) -> (f64, f64) {
    let step = (made.len() as u64 / ASKED).max(1) as usize;
    let asked: Vec<AuditId> = made.iter().step_by(step).copied().collect();
    let began = Instant::now();
    let mut shown = Vec::new();
    for id in &asked {
        shown.push(audit.shown(*id).await.unwrap().unwrap());
    }
    let shown_in = began.elapsed();
    let began = Instant::now();
    for record in &shown {
        assert!(verify_record(record, &[key], &[]).unwrap().checkpoint.is_some());
    }
    let each = |time: std::time::Duration| time.as_secs_f64() * 1e6 / shown.len() as f64;
    (each(shown_in), each(began.elapsed()))
}
