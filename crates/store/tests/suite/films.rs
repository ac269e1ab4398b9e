//! Holds: jobs that make films: claimed, noted, ended once, given up, forgotten.

use std::time::Duration;

use batchin_domain::{AccountId, CallKind, Counts, FilmStatus, Frame, Measure, NodeId, Purse, RequestId, VideoId};
use batchin_store::{
    ClaimedFilm, CommitError, FencedError, FileOrder, FilmError, FilmFinish, FilmOrder, FilmPage, FilmPlace,
    FilmReturn, FilmRow, IdempotencyScope, NewFilm, NodeIdentity, Settlement, StoredAnswer, StoredFilm,
};

use crate::support::{Db, both, now, units};

const LEASE: Duration = Duration::from_secs(60);
const ALL: (u32, u32) = (16, 16);

fn order(db: &Db) -> FilmOrder {
    FilmOrder {
        request: RequestId::new(db.id()),
        model: "film".to_owned(),
        prompt: "a kite".to_owned(),
        seconds: 4,
        frame: Frame { width: 848, height: 480 },
    }
}

async fn film(db: &Db, account: AccountId) -> VideoId {
    let id = VideoId::new(db.id());
    let new = NewFilm { id, account, key: None, order: order(db), answer: None, now: now() };
    db.store.film_rows().create_film(&new).await.unwrap();
    id
}

async fn claim(db: &Db, node: NodeIdentity) -> Vec<ClaimedFilm> {
    db.store.film_claims().claim_films(node, ALL, now()).await.unwrap()
}

async fn claimed(db: &Db, node: NodeIdentity) -> ClaimedFilm {
    let mut claimed = claim(db, node).await;
    assert_eq!(claimed.len(), 1);
    claimed.remove(0)
}

async fn seen(db: &Db, account: AccountId, id: VideoId) -> FilmRow {
    db.store.film_rows().film(account, id, now()).await.unwrap().unwrap()
}

fn place(remote: &str) -> FilmPlace {
    FilmPlace { upstream: "gpu-1".to_owned(), remote: remote.to_owned(), since: now() }
}

fn ending(db: &Db, job: &ClaimedFilm, charge: i64) -> Settlement {
    let mut settlement = db.settlement(job.account, charge);
    let usage = settlement.usage.as_mut().unwrap();
    (usage.request, usage.call) = (job.order.request, CallKind::Video);
    usage.counts = Counts::NONE.with(Measure::VideoMs, 4_000);
    settlement.film = Some(Box::new(FilmFinish {
        video: job.claim.video,
        epoch: job.claim.epoch,
        film: StoredFilm { blob: "films/a/1".to_owned(), bytes: 9, ms: 4_000 },
        expires_at: now().after(LEASE),
    }));
    settlement
}

both! {
    async fn a_film_is_made_and_paid_for_once(db) {
        let account = db.account(1_000).await;
        let node = db.node().await;
        let id = film(db, account).await;
        let row = seen(db, account, id).await;
        assert_eq!((row.status, row.progress, &row.film), (FilmStatus::Queued, 0, &None));
        let job = claimed(db, node).await;
        assert_eq!((job.claim.video, job.account, job.tries, &job.place), (id, account, 0, &None));
        assert_eq!(job.order, row.order);
        assert!(claim(db, node).await.is_empty());

        let claims = db.store.film_claims();
        assert!(claims.note_submitted(job.claim, &place("r1")).await.unwrap());
        assert!(claims.note_progress(job.claim, 40).await.unwrap());
        assert!(claims.note_progress(job.claim, 30).await.unwrap());
        let row = seen(db, account, id).await;
        assert_eq!((row.status, row.progress), (FilmStatus::InProgress, 40));

        db.lease(node, Purse::Balance(account), 500).await;
        let committer = db.committer(node);
        let end = ending(db, &job, 200);
        committer.commit(end.clone()).await.unwrap();
        assert_eq!(committer.commit(ending(db, &job, 200)).await, Err(CommitError::StaleTask));
        let row = seen(db, account, id).await;
        assert_eq!((row.status, row.progress, row.cost.nanos()), (FilmStatus::Completed, 100, 200));
        assert_eq!(row.film, Some(StoredFilm { blob: "films/a/1".to_owned(), bytes: 9, ms: 4_000 }));
        assert!(!claims.note_progress(job.claim, 50).await.unwrap() && !claims.holds_film(job.claim).await.unwrap());
        db.assert_balance(account, 800).await;
        let [ms, cost] = db.numbers("SELECT video_ms, cost_nano FROM usage_log").await;
        assert_eq!((ms, cost), (4_000, 200));
        db.assert_clean().await;
    }

    async fn two_ends_in_one_group_are_one(db) {
        let account = db.account(1_000).await;
        let node = db.node().await;
        film(db, account).await;
        let job = claimed(db, node).await;
        db.lease(node, Purse::Balance(account), 500).await;
        let committer = db.committer(node);
        let ends = [ending(db, &job, 200), ending(db, &job, 200)];
        let results = futures::future::join_all(ends.map(|end| committer.commit(end))).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        db.assert_balance(account, 800).await;
        db.assert_clean().await;
    }

    async fn the_next_node_asks_the_same_server(db) {
        let account = db.account(1_000).await;
        let (old, other) = (db.node().await, db.node().await);
        let id = film(db, account).await;
        let job = claimed(db, old).await;
        let claims = db.store.film_claims();
        assert!(claims.note_submitted(job.claim, &place("r1")).await.unwrap());
        let lost = db.store.nodes().join(old.id, now(), LEASE).await.unwrap();
        assert!(!claims.note_progress(job.claim, 10).await.unwrap(), "the old epoch's claim is over");
        assert!(matches!(claims.claim_films(old, ALL, now()).await, Err(FencedError::Fenced) | Ok(_)));
        assert_eq!(seen(db, account, id).await.status, FilmStatus::InProgress, "it never goes back");
        let again = claimed(db, other).await;
        assert_eq!((again.claim.video, again.place.as_ref(), again.tries), (id, Some(&place("r1")), 0));
        assert!(again.claim.epoch > job.claim.epoch);
        db.lease(lost, Purse::Balance(account), 500).await;
        let late = db.committer(lost).commit(ending(db, &job, 200)).await;
        assert_eq!(late, Err(CommitError::StaleTask));
        db.assert_balance(account, 1_000).await;
        // A server that forgot it is not asked again.
        assert!(claims.note_lost(again.claim).await.unwrap());
        db.store.nodes().leave(other).await.unwrap();
        let third = claimed(db, lost).await;
        assert_eq!((&third.place, third.tries), (&None, 1));
        db.assert_clean().await;
    }

    async fn a_dead_node_s_films_are_given_to_others(db) {
        let account = db.account(0).await;
        let lively = db.node().await;
        let lost = db.store.nodes().join(NodeId::new(db.id()), now(), Duration::ZERO).await.unwrap();
        film(db, account).await;
        let job = claimed(db, lost).await;
        db.store.nodes().reclaim(now(), Duration::ZERO).await.unwrap();
        let again = claimed(db, lively).await;
        assert_eq!(again.claim.video, job.claim.video);
        db.assert_clean().await;
    }

    async fn what_waits_says_for_what(db) {
        let account = db.account(0).await;
        let node = db.node().await;
        let id = film(db, account).await;
        let job = claimed(db, node).await;
        let claims = db.store.film_claims();
        let later = now().after(LEASE);
        let back = FilmReturn { claim: job.claim, not_before: later, blocked: Some("payment_required"), counts: true };
        assert!(claims.return_film(&back).await.unwrap());
        assert!(!claims.return_film(&back).await.unwrap());
        assert_eq!(seen(db, account, id).await.blocked.as_deref(), Some("payment_required"));
        assert!(claim(db, node).await.is_empty());
        let again = claims.claim_films(node, ALL, later).await.unwrap();
        assert_eq!((again.len(), again[0].tries), (1, 1));
        assert_eq!(seen(db, account, id).await.blocked, None);
    }

    async fn accounts_take_turns(db) {
        let (many, few) = (db.account(0).await, db.account(0).await);
        let node = db.node().await;
        for _ in 0..5 {
            film(db, many).await;
        }
        film(db, few).await;
        let claims = db.store.film_claims();
        let first = claims.claim_films(node, (2, 3), now()).await.unwrap();
        let mut of: Vec<AccountId> = first.iter().map(|job| job.account).collect();
        of.sort();
        let mut both = vec![many, few];
        both.sort();
        assert_eq!(of, both, "each has a turn before one has two");
        assert_eq!(claims.claim_films(node, (9, 3), now()).await.unwrap().len(), 2, "one has three in all");
        assert!(claims.claim_films(node, (9, 3), now()).await.unwrap().is_empty());
    }

    async fn a_film_can_be_given_up_at_any_time(db) {
        let (account, other) = (db.account(1_000).await, db.account(0).await);
        let node = db.node().await;
        let (rows, claims) = (db.store.film_rows(), db.store.film_claims());
        let gone_at = now().after(LEASE);
        // Before anybody began on it.
        let queued = film(db, account).await;
        assert!(rows.give_up_film((other, queued), now(), gone_at).await.unwrap().is_none());
        let before = rows.give_up_film((account, queued), now(), gone_at).await.unwrap().unwrap();
        assert_eq!(before.status, FilmStatus::Queued);
        assert_eq!(seen(db, account, queued).await.status, FilmStatus::Cancelled);
        assert!(claim(db, node).await.is_empty() && claims.left_films(9).await.unwrap().is_empty());
        // While a server makes it.
        let running = film(db, account).await;
        let job = claimed(db, node).await;
        assert!(claims.note_submitted(job.claim, &place("r2")).await.unwrap());
        rows.give_up_film((account, running), now(), gone_at).await.unwrap().unwrap();
        assert!(!claims.holds_film(job.claim).await.unwrap());
        db.lease(node, Purse::Balance(account), 500).await;
        let late = db.committer(node).commit(ending(db, &job, 200)).await;
        assert_eq!(late, Err(CommitError::StaleTask));
        let left = claims.left_films(9).await.unwrap();
        assert_eq!((left.len(), left[0].video, left[0].remote.as_str()), (1, running, "r2"));
        claims.forget_left(running).await.unwrap();
        assert!(claims.left_films(9).await.unwrap().is_empty());
        // Once it is there, and once it has failed.
        let made = film(db, account).await;
        let job = claimed(db, node).await;
        db.committer(node).commit(ending(db, &job, 200)).await.unwrap();
        let failed = film(db, account).await;
        let job = claimed(db, node).await;
        let error = FilmError { code: "upstream_error".to_owned(), message: "no\0".to_owned() };
        assert!(claims.fail_film(job.claim, &error, (now(), gone_at)).await.unwrap());
        let row = seen(db, account, failed).await;
        assert_eq!((row.status, row.error.unwrap().message.as_str()), (FilmStatus::Failed, "no\u{fffd}"));
        assert_eq!(rows.open_films(account).await.unwrap(), 0);
        for id in [made, failed, running] {
            rows.give_up_film((account, id), now(), gone_at).await.unwrap().unwrap();
            assert!(rows.film(account, id, now()).await.unwrap().is_none());
            assert!(rows.give_up_film((account, id), now(), gone_at).await.unwrap().is_none());
        }
        let mut gone = claims.gone_films(9, now()).await.unwrap();
        gone.sort();
        assert_eq!(gone, [running, made, failed]);
        claims.forget_film(queued, now()).await.unwrap();
        for id in gone {
            claims.forget_film(id, now()).await.unwrap();
        }
        assert_eq!(db.count("video_job").await, 1, "one that has not gone stays");
        db.assert_balance(account, 800).await;
        db.assert_clean().await;
    }

    async fn films_are_listed_page_by_page(db) {
        let (account, other) = (db.account(0).await, db.account(0).await);
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(film(db, account).await);
        }
        film(db, other).await;
        let rows = db.store.film_rows();
        let page = async |after, order, limit| {
            let page = FilmPage { after, order, limit };
            let rows = rows.films(account, page, now()).await.unwrap();
            rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
        };
        assert_eq!(page(None, FileOrder::Newest, 2).await, [ids[2], ids[1]]);
        assert_eq!(page(Some(ids[1]), FileOrder::Newest, 2).await, [ids[0]]);
        assert_eq!(page(None, FileOrder::Oldest, 9).await, ids);
        assert_eq!(page(Some(ids[0]), FileOrder::Oldest, 9).await, ids[1..]);
    }

    async fn a_job_and_the_answer_to_its_key_are_one(db) {
        let account = db.account(0).await;
        let node = db.node().await;
        let scope = IdempotencyScope { account, key: "k".to_owned() };
        let answers = db.store.answers();
        answers.begin_idempotent(&scope, "/v1/video/generate", [1; 32], node, now()).await.unwrap();
        let answer = StoredAnswer { status: 200, content_type: "application/json".to_owned(), body: Some(b"{}".to_vec()) };
        let id = VideoId::new(db.id());
        let answer = Some((scope.clone(), answer));
        let new = NewFilm { id, account, key: None, order: order(db), answer, now: now() };
        db.store.film_rows().create_film(&new).await.unwrap();
        db.store.film_rows().create_film(&new).await.unwrap();
        assert_eq!(db.count("video_job").await, 1);
        let again = answers.begin_idempotent(&scope, "/v1/video/generate", [1; 32], node, now()).await.unwrap();
        assert!(matches!(again, batchin_store::Begun::Done(answer) if answer.body.as_deref() == Some(b"{}")));
    }

    async fn money_that_is_free_is_not_a_film_s(db) {
        let account = db.account(1_000).await;
        let node = db.node().await;
        film(db, account).await;
        claimed(db, node).await;
        assert_eq!(db.available(node, Purse::Balance(account)).await, units(1_000), "a claim sets nothing aside");
    }
}
