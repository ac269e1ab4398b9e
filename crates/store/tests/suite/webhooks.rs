//! Holds: the outbox of webhooks: what is queued, who delivers it, and what its account sees.

use std::{collections::HashMap, time::Duration};

use batchin_domain::{
    AccountId, NodeId, Priority, Timestamp,
    webhook::{DeliveryState, EventKind, FailureKind, Next, TryResult},
};
use batchin_store::{
    ClaimedDelivery, DeliveryError, DeliveryFilter, DeliveryRoom, DeliveryRow, FencedError, FinishedTry, NewBatch,
    NodeIdentity, Reclaimed,
};
use futures::future::join_all;

use crate::support::{Db, both, completed, failed, now};

const HOOK: &str = "https://example.com/hook";
const GOOD: TryResult = TryResult { status: Some(204), failure: None, retry_after: None };
const SILENT: TryResult = TryResult { status: None, failure: Some(FailureKind::TimedOut), retry_after: None };

fn at(seconds: u64) -> Timestamp {
    now().after(Duration::from_secs(seconds))
}

fn room() -> DeliveryRoom {
    DeliveryRoom { total: 64, per_endpoint: 4, per_account: 16, endpoints: HashMap::new(), accounts: HashMap::new() }
}

/// A batch that wants to be told at `url`.
async fn telling(db: &Db, account: AccountId, url: &str, tasks: usize) -> NewBatch {
    let mut new = db.new_batch(account, Priority::High, tasks);
    new.terms.webhook_url = Some(url.to_owned());
    db.store.openings().create_batch(new.clone()).await.unwrap();
    new
}

/// An event that happens then.
async fn event(db: &Db, account: AccountId, url: &str, when: Timestamp) {
    // One that is cancelled, and whose file is at fault, ends there and then.
    let mut new = db.new_file_batch(account, Priority::High);
    new.terms.webhook_url = Some(url.to_owned());
    db.store.openings().create_batch(new.clone()).await.unwrap();
    db.store.endings().cancel_batch(account, new.id, when).await.unwrap();
    let node = db.node().await;
    while db.store.chores().take_chore(node, None, when).await.unwrap().unwrap().id != new.id {}
    db.store.chores().reject_batch(node, new.id, "[]", when).await.unwrap();
    db.store.nodes().leave(node).await.unwrap();
}

async fn log_of(db: &Db, account: AccountId) -> Vec<DeliveryRow> {
    let filter = DeliveryFilter { account, state: None, after: None, limit: 100 };
    db.store.delivery_log().deliveries(&filter).await.unwrap()
}

async fn claim(db: &Db, node: NodeIdentity, when: Timestamp) -> Vec<ClaimedDelivery> {
    db.store.outbox().claim_deliveries(node, room(), when).await.unwrap()
}

async fn finish(db: &Db, claimed: &ClaimedDelivery, result: TryResult, next: Next) -> bool {
    let (id, epoch, took) = (claimed.id, claimed.epoch, Duration::from_millis(12));
    db.store.outbox().finish_try(FinishedTry { id, epoch, at: now(), took, result, next, now: now() }).await.unwrap()
}

both! {
    async fn the_end_of_a_batch_is_an_event_of_its_kind(db) {
        let account = db.account(1_000).await;
        let node = db.node().await;
        let committer = db.committer(node);
        db.batch(account, Priority::High, 1).await;
        let (good, bad) = (telling(db, account, HOOK, 1).await, telling(db, account, HOOK, 1).await);
        let stopped = telling(db, account, HOOK, 2).await;
        db.store.endings().cancel_batch(account, stopped.id, now()).await.unwrap();
        db.store.endings().cancel_batch(account, stopped.id, now()).await.unwrap();
        db.do_chores(node).await;
        for task in db.claim(node, Priority::High, 9, now()).await.unwrap() {
            assert_eq!(log_of(db, account).await.iter().filter(|row| row.subject == task.batch.uuid()).count(), 0);
            let end = if task.batch == bad.id { failed() } else { completed() };
            committer.commit(db.ending(&task, 0, end)).await.unwrap();
            db.do_chores(node).await;
        }
        let log = log_of(db, account).await;
        let kind_of = |batch: &NewBatch| {
            let of_batch: Vec<_> = log.iter().filter(|row| row.subject == batch.id.uuid()).collect();
            assert_eq!(of_batch.len(), 1);
            assert_eq!((of_batch[0].state, of_batch[0].url.as_str()), (DeliveryState::Pending, HOOK));
            of_batch[0].kind
        };
        assert_eq!(kind_of(&good), EventKind::BatchCompleted);
        assert_eq!(kind_of(&bad), EventKind::BatchFailed);
        assert_eq!(kind_of(&stopped), EventKind::BatchCancelled);
        assert_eq!(log.len(), 3, "a batch without a URL has none");
    }

    async fn a_delivery_is_claimed_by_one_node(db) {
        for n in 0..12 {
            let account = db.account(0).await;
            event(db, account, &format!("https://{n}.example.com/"), now()).await;
        }
        let nodes = [db.node().await, db.node().await, db.node().await];
        let claimed = join_all(nodes.iter().map(|node| claim(db, *node, now()))).await.concat();
        let mut ids: Vec<_> = claimed.iter().map(|delivery| delivery.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), claimed.len()), (12, 12));
        assert!(claim(db, nodes[0], now()).await.is_empty());
    }

    async fn what_is_dead_starves_nobody(db) {
        let (ada, eve) = (db.account(0).await, db.account(0).await);
        for n in 0..30 {
            event(db, eve, &format!("https://dead.example.com/{n}"), now()).await;
        }
        for n in 0..20 {
            event(db, eve, &format!("https://{n}.dead.example.com/"), at(1)).await;
        }
        event(db, ada, HOOK, at(2)).await;
        let node = db.node().await;
        let claimed = claim(db, node, at(9)).await;
        let dead: Vec<_> = claimed.iter().filter(|one| one.url.starts_with("https://dead.")).collect();
        assert_eq!(dead.len(), 4, "one server has four places");
        assert_eq!(claimed.iter().filter(|one| one.account == eve).count(), 16, "one account has sixteen");
        assert_eq!(claimed.iter().filter(|one| one.account == ada).count(), 1, "and the others theirs");

        // While eve's places are taken, only others' are looked at.
        event(db, ada, HOOK, at(3)).await;
        let mut busy = room();
        for one in &claimed {
            *busy.endpoints.entry(one.endpoint).or_default() += 1;
            *busy.accounts.entry(one.account).or_default() += 1;
        }
        let more = db.store.outbox().claim_deliveries(node, busy.clone(), at(9)).await.unwrap();
        assert_eq!(more.iter().map(|one| one.account).collect::<Vec<_>>(), [ada]);
        busy.total = 0;
        assert!(db.store.outbox().claim_deliveries(node, busy, at(9)).await.unwrap().is_empty());
    }

    async fn a_killed_nodes_tries_are_taken_over(db) {
        let account = db.account(0).await;
        event(db, account, HOOK, now()).await;
        let lively = db.node().await;
        let lost = db.store.nodes().join(NodeId::new(db.id()), now(), Duration::ZERO).await.unwrap();
        let old = claim(db, lost, now()).await.remove(0);
        assert!(claim(db, lively, now()).await.is_empty());
        assert_eq!(db.store.nodes().reclaim(now(), Duration::ZERO).await.unwrap(), Reclaimed { nodes: 1, tasks: 0 });

        let new = claim(db, lively, now()).await.remove(0);
        assert_eq!((new.id, new.tries), (old.id, 0));
        assert!(new.epoch > old.epoch);
        assert!(!finish(db, &old, GOOD, Next::Delivered).await, "what comes too late counts for nothing");
        let fenced = db.store.outbox().claim_deliveries(lost, room(), now()).await;
        assert!(fenced.is_ok_and(|claimed| claimed.is_empty()), "nothing is due");
        event(db, account, HOOK, now()).await;
        assert!(matches!(db.store.outbox().claim_deliveries(lost, room(), now()).await, Err(FencedError::Fenced)));
        assert!(finish(db, &new, GOOD, Next::Delivered).await);
        assert!(!finish(db, &new, GOOD, Next::Delivered).await);
        let log = log_of(db, account).await;
        let delivered = log.iter().find(|row| row.id == new.id).unwrap();
        assert_eq!((delivered.state, delivered.tries.len()), (DeliveryState::Delivered, 1));
    }

    async fn a_node_that_leaves_or_lost_count_gives_back(db) {
        let account = db.account(0).await;
        event(db, account, HOOK, now()).await;
        event(db, account, HOOK, now()).await;
        let (node, other) = (db.node().await, db.node().await);
        let both = claim(db, node, now()).await;
        assert_eq!(db.store.outbox().release_deliveries(node, &[both[0].id]).await.unwrap(), 1);
        assert_eq!(claim(db, other, now()).await.iter().map(|one| one.id).collect::<Vec<_>>(), [both[1].id]);
        db.store.nodes().leave(node).await.unwrap();
        assert_eq!(claim(db, other, now()).await.iter().map(|one| one.id).collect::<Vec<_>>(), [both[0].id]);
        assert_eq!(db.store.outbox().release_deliveries(node, &[]).await.unwrap(), 0, "an ended epoch releases nothing");
    }

    async fn a_failed_try_waits_for_its_time_and_is_shown(db) {
        let account = db.account(0).await;
        event(db, account, HOOK, now()).await;
        let node = db.node().await;
        let first = claim(db, node, now()).await.remove(0);
        assert!(finish(db, &first, SILENT, Next::RetryAt(at(5))).await);
        assert!(claim(db, node, at(4)).await.is_empty());
        let shown = db.store.delivery_log().delivery(account, first.id).await.unwrap();
        assert_eq!((shown.state, shown.next_try_at, shown.finished_at), (DeliveryState::Pending, Some(at(5)), None));
        let second = claim(db, node, at(5)).await.remove(0);
        assert_eq!((second.id, second.tries, second.created_at), (first.id, 1, now()));
        let refused = TryResult { status: Some(500), ..GOOD };
        assert!(finish(db, &second, refused, Next::Failed).await);
        let shown = db.store.delivery_log().delivery(account, first.id).await.unwrap();
        assert_eq!((shown.state, shown.next_try_at, shown.finished_at), (DeliveryState::Failed, None, Some(now())));
        let tries: Vec<_> = shown.tries.iter().map(|one| (one.status, one.failure)).collect();
        assert_eq!(tries, [(None, Some(FailureKind::TimedOut)), (Some(500), None)]);
        assert_eq!(shown.tries[0].took, Duration::from_millis(12));
        assert!(claim(db, node, at(999_999)).await.is_empty());
    }

    async fn what_wants_no_more_gets_no_more_until_it_does(db) {
        let (account, other) = (db.account(0).await, db.account(0).await);
        let node = db.node().await;
        for when in [0, 1, 2] {
            event(db, account, HOOK, at(when)).await;
        }
        event(db, account, "https://example.com/other", at(3)).await;
        event(db, other, HOOK, at(3)).await;
        let first = claim(db, node, now()).await.remove(0);
        assert!(finish(db, &first, TryResult { status: Some(410), ..GOOD }, Next::Off).await);
        let states = async |account| {
            let log = log_of(db, account).await;
            log.iter().filter(|row| row.url == HOOK).map(|row| row.state).collect::<Vec<_>>()
        };
        assert_eq!(states(account).await, [DeliveryState::Off; 3]);
        assert_eq!(states(other).await, [DeliveryState::Pending], "another account's is another matter");
        event(db, account, HOOK, at(4)).await;
        assert_eq!(states(account).await, [DeliveryState::Off; 4]);
        assert_eq!(claim(db, node, at(9)).await.len(), 2);

        // A replay that succeeds switches it on again.
        let replayed = db.store.delivery_log().replay_delivery(account, first.id, at(9)).await.unwrap();
        assert_eq!((replayed.state, replayed.tries.len()), (DeliveryState::Pending, 1));
        let again = claim(db, node, at(9)).await.remove(0);
        assert_eq!((again.id, again.tries), (first.id, 0));
        assert_eq!(db.store.delivery_log().replay_delivery(account, first.id, at(9)).await.unwrap().state, DeliveryState::Sending);
        assert!(finish(db, &again, GOOD, Next::Delivered).await);
        event(db, account, HOOK, at(10)).await;
        assert_eq!(states(account).await[0], DeliveryState::Pending);

        // So does a new secret.
        let later = claim(db, node, at(11)).await.remove(0);
        assert!(finish(db, &later, TryResult { status: Some(410), ..GOOD }, Next::Off).await);
        event(db, account, HOOK, at(12)).await;
        db.store.outbox().rotate_webhook_secret(account, vec![1], at(13), at(14)).await.unwrap();
        event(db, account, HOOK, at(15)).await;
        assert_eq!(states(account).await[..2], [DeliveryState::Pending, DeliveryState::Off]);
    }

    async fn the_log_is_paged_filtered_and_its_owners(db) {
        let (account, other) = (db.account(0).await, db.account(0).await);
        let node = db.node().await;
        for when in [0, 1, 1, 1, 2] {
            event(db, account, HOOK, at(when)).await;
        }
        let first = claim(db, node, now()).await.remove(0);
        assert!(finish(db, &first, GOOD, Next::Delivered).await);
        let filter = DeliveryFilter { account, state: None, after: None, limit: 2 };
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let page = db.store.delivery_log().deliveries(&DeliveryFilter { after, ..filter }).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            pages.push(page.iter().map(|row| row.id).collect::<Vec<_>>());
        }
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(pages.concat(), log_of(db, account).await.iter().map(|row| row.id).collect::<Vec<_>>());
        assert_eq!(pages[2], [first.id]);
        let of_state = async |state| {
            let filter = DeliveryFilter { state: Some(state), limit: 100, ..filter };
            db.store.delivery_log().deliveries(&filter).await.unwrap().len()
        };
        claim(db, node, at(1)).await;
        assert_eq!(of_state(DeliveryState::Pending).await, 4, "what is being tried is pending to its owner");
        assert_eq!((of_state(DeliveryState::Delivered).await, of_state(DeliveryState::Off).await), (1, 0));

        let foreign = DeliveryFilter { account: other, after: Some(first.id), ..filter };
        assert!(matches!(db.store.delivery_log().deliveries(&foreign).await, Err(DeliveryError::NotFound)));
        assert!(matches!(db.store.delivery_log().delivery(other, first.id).await, Err(DeliveryError::NotFound)));
        assert!(matches!(db.store.delivery_log().replay_delivery(other, first.id, now()).await, Err(DeliveryError::NotFound)));
        assert_eq!(db.store.delivery_log().delivery(account, first.id).await.unwrap().state, DeliveryState::Delivered);
        assert!(log_of(db, other).await.is_empty());
    }

    async fn what_ended_long_ago_is_forgotten(db) {
        let account = db.account(0).await;
        let node = db.node().await;
        event(db, account, HOOK, now()).await;
        event(db, account, HOOK, now()).await;
        let claimed = claim(db, node, now()).await;
        assert!(finish(db, &claimed[0], GOOD, Next::Delivered).await);
        assert!(finish(db, &claimed[1], SILENT, Next::RetryAt(at(5))).await);
        assert_eq!(db.store.outbox().sweep_deliveries(now()).await.unwrap(), 0);
        assert_eq!(db.store.outbox().sweep_deliveries(at(1)).await.unwrap(), 1);
        assert_eq!(log_of(db, account).await.iter().map(|row| row.id).collect::<Vec<_>>(), [claimed[1].id]);
        assert_eq!(db.count("webhook_attempt").await, 1);
    }

    async fn only_the_latest_tries_are_kept(db) {
        let account = db.account(0).await;
        let node = db.node().await;
        event(db, account, HOOK, now()).await;
        for n in 0..60_u16 {
            let claimed = claim(db, node, now()).await.remove(0);
            assert!(finish(db, &claimed, TryResult { status: Some(500 + n), ..GOOD }, Next::RetryAt(now())).await);
        }
        let tries = log_of(db, account).await.remove(0).tries;
        assert_eq!((tries.len(), tries[0].status, tries[49].status), (50, Some(510), Some(559)));
    }

    async fn a_secret_is_made_once_and_overlaps_when_rotated(db) {
        let account = db.account(0).await;
        assert!(db.store.outbox().webhook_secret(account).await.unwrap().is_none());
        let outbox = db.store.outbox();
        let made = join_all((1..5).map(|n| outbox.ensure_webhook_secret(account, vec![n], now()))).await;
        let first = made[0].as_ref().unwrap().current.clone();
        assert!(made.iter().all(|secret| secret.as_ref().unwrap().current == first));
        for _ in 0..2 {
            // Run again, as after a lost connection, it changes nothing more.
            db.store.outbox().rotate_webhook_secret(account, vec![9], at(1), at(100)).await.unwrap();
            let secret = db.store.outbox().webhook_secret(account).await.unwrap().unwrap();
            assert_eq!((secret.current, secret.created_at), (vec![9], at(1)));
            assert_eq!(secret.previous, Some((first.clone(), at(100))));
        }
        let other = db.account(0).await;
        db.store.outbox().rotate_webhook_secret(other, vec![7], at(1), at(100)).await.unwrap();
        assert_eq!(db.store.outbox().webhook_secret(other).await.unwrap().unwrap().previous, None);

        assert_eq!(db.store.outbox().known_webhook_key_proof().await.unwrap(), None);
        let outbox = db.store.outbox();
        let proofs = join_all((1..5).map(|n| outbox.webhook_key_proof(vec![n]))).await;
        let known = db.store.outbox().known_webhook_key_proof().await.unwrap().unwrap();
        assert!(proofs.into_iter().all(|proof| proof.unwrap() == known));
        assert_eq!(db.store.outbox().forget_webhook_secrets().await.unwrap(), 2);
        assert_eq!(db.store.outbox().known_webhook_key_proof().await.unwrap(), None);
        assert!(db.store.outbox().webhook_secret(account).await.unwrap().is_none());
    }
}
