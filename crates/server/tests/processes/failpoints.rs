//! A server that dies between any two outside effects, and starts again, has lost nothing and doubled nothing.

mod logbook;
mod quay;
mod scene;
mod stage;
mod till;

use std::{collections::BTreeSet, path::Path};

use self::{
    logbook::Logbook,
    quay::Quay,
    scene::{Play, Scene},
    stage::Stage,
    till::Till,
};
use crate::harness::{Backend, Bucket, Maker, on_both};

/// Every point at which a process can be made to die: its name, the how-manieth time, and what is going on. A point of
/// the source that is missing here fails a test, and so does one that its scene does not reach.
const POINTS: &[(&str, u32, Scene)] = &[
    // What is leased for a request: one of the key's minute, of the key's month, of the balance.
    ("lease.granted", 1, Scene::Whole),
    ("lease.granted", 2, Scene::Whole),
    ("lease.granted", 3, Scene::Whole),
    ("upstream.calling", 1, Scene::Whole),
    ("upstream.answered", 1, Scene::Whole),
    ("commit.gathered", 1, Scene::Whole),
    ("commit.written", 1, Scene::Whole),
    ("commit.durable", 1, Scene::Whole),
    ("answer.charged", 1, Scene::Whole),
    ("upstream.answered", 1, Scene::Stream),
    ("stream.passing", 3, Scene::Stream),
    ("stream.ended", 1, Scene::Stream),
    ("commit.durable", 1, Scene::Stream),
    ("stream.charged", 1, Scene::Stream),
    ("stream.flushed", 1, Scene::LongStream),
    ("stream.abandoned", 1, Scene::LeftStream),
    ("answer.left", 1, Scene::LeftWhole),
    ("answer.charged", 1, Scene::LeftWhole),
    ("upstream.answered", 1, Scene::Speech),
    ("sound.passing", 2, Scene::Speech),
    ("sound.ended", 1, Scene::Speech),
    ("commit.durable", 1, Scene::Speech),
    ("sound.charged", 1, Scene::Speech),
    ("files.kept", 1, Scene::Picture),
    ("commit.durable", 1, Scene::Picture),
    ("idempotency.begun", 1, Scene::Once),
    ("upstream.answered", 1, Scene::Once),
    ("commit.written", 1, Scene::Once),
    ("commit.durable", 1, Scene::Once),
    ("answer.charged", 1, Scene::Once),
    ("idempotency.forgetting", 1, Scene::RefusedOnce),
    ("idempotency.forgotten", 1, Scene::RefusedOnce),
    ("file.begun", 1, Scene::Batch),
    ("batch.stored", 1, Scene::Batch),
    ("batch.created", 1, Scene::Batch),
    ("task.claimed", 1, Scene::Batch),
    ("upstream.calling", 2, Scene::Batch),
    ("task.answered", 1, Scene::Batch),
    ("result.written", 1, Scene::Batch),
    ("commit.written", 1, Scene::Batch),
    ("commit.durable", 1, Scene::Batch),
    ("task.finished", 2, Scene::Batch),
    ("batch.filed", 1, Scene::Batch),
    ("batch.closed", 1, Scene::Batch),
    ("task.answered", 1, Scene::SpeechBatch),
    ("files.kept", 1, Scene::SpeechBatch),
    ("commit.durable", 1, Scene::SpeechBatch),
    ("files.kept", 1, Scene::PictureBatch),
    ("commit.durable", 1, Scene::PictureBatch),
    ("task.answered", 1, Scene::BucketBatch),
    ("result.written", 1, Scene::BucketBatch),
    ("task.finished", 2, Scene::BucketBatch),
    ("results.copied", 1, Scene::BucketBatch),
    ("results.moved", 1, Scene::BucketBatch),
    ("batch.filed", 1, Scene::BucketBatch),
    ("batch.closed", 1, Scene::BucketBatch),
    ("chore.taken", 1, Scene::FileBatch),
    ("batch.accepted", 1, Scene::FileBatch),
    ("batch.loaded", 1, Scene::FileBatch),
    ("task.claimed", 1, Scene::FileBatch),
    ("batch.filed", 1, Scene::FileBatch),
    ("batch.closed", 1, Scene::FileBatch),
    ("creation.made", 1, Scene::BatchOnce),
    ("creation.noted", 1, Scene::BatchOnce),
    ("task.requeueing", 1, Scene::FailingTask),
    ("task.requeued", 1, Scene::FailingTask),
    ("task.failing", 1, Scene::FailingTask),
    ("task.failed", 1, Scene::FailingTask),
    ("batch.blocked", 1, Scene::PoorBatch),
    ("batch.unblocked", 1, Scene::PoorBatch),
    ("film.created", 1, Scene::Film),
    ("film.claimed", 1, Scene::Film),
    ("film.submitting", 1, Scene::Film),
    ("film.submitted", 1, Scene::Film),
    ("film.noted", 1, Scene::Film),
    ("film.stored", 1, Scene::Film),
    ("commit.written", 1, Scene::Film),
    ("commit.durable", 1, Scene::Film),
    ("film.finished", 1, Scene::Film),
    ("film.lost", 1, Scene::LostFilm),
    ("film.submitted", 2, Scene::LostFilm),
    ("film.failing", 1, Scene::FailingFilm),
    ("film.failed", 1, Scene::FailingFilm),
    ("film.left", 1, Scene::CancelledFilm),
    ("film.removed", 1, Scene::RemovedFilm),
    ("film.returned", 1, Scene::StoppedFilm),
    ("blobs.named", 1, Scene::Start),
    ("node.joined", 1, Scene::Start),
    ("prices.published", 1, Scene::Start),
    ("node.renewed", 12, Scene::Quiet),
    ("lease.returning", 1, Scene::Quiet),
    ("task.requeueing", 1, Scene::Stop),
    ("claims.returned", 1, Scene::Stop),
    ("node.leaving", 1, Scene::Stop),
    ("lease.returned", 1, Scene::Stop),
    ("node.left", 1, Scene::Stop),
    ("lease.recalled", 1, Scene::AskOther),
    ("lease.returning", 1, Scene::GiveOther),
    ("lease.returned", 1, Scene::GiveOther),
    ("node.given_up", 1, Scene::DeadOther),
    ("node.rejoined", 1, Scene::Stalled),
    ("late.booking", 1, Scene::Stalled),
    ("late.booked", 1, Scene::Stalled),
    ("topup.opened", 1, Scene::Checkout),
    ("topup.created", 1, Scene::Checkout),
    ("topup.noted", 1, Scene::Checkout),
    ("stripe_event.kept", 1, Scene::Payment),
    ("topup.read", 1, Scene::Payment),
    ("topup.settled", 1, Scene::Payment),
    ("stripe_event.dealt", 1, Scene::Payment),
    ("stripe_event.kept", 1, Scene::Refund),
    ("topup.read", 1, Scene::Refund),
    ("topup.settled", 1, Scene::Refund),
    ("stripe_event.dealt", 1, Scene::Refund),
    ("topup.due", 1, Scene::Automatic),
    ("topup.charged", 1, Scene::Automatic),
    ("chain.scanned", 1, Scene::Deposit),
    ("chain.written", 1, Scene::Deposit),
    ("deposits.credited", 1, Scene::Deposit),
    ("chain.scanned", 1, Scene::Orphan),
    ("chain.written", 1, Scene::Orphan),
    ("audit.kept", 1, Scene::Record),
    ("audit.kept", 2, Scene::Record),
    ("audit.extended", 1, Scene::Record),
    ("audit.remembered", 1, Scene::Record),
    ("audit.published", 1, Scene::Record),
    ("audit.extended", 2, Scene::Record),
];

/// Dies at every point of these scenes, one after the other, on one database.
async fn die_at_each(backend: Backend, play: Play) {
    let bucket = match play {
        Play::Buckets => Some(Bucket::new(Maker::S3s).await),
        _ => None,
    };
    let mut stage = Stage::new(backend, bucket).await;
    for (point, hit, scene) in POINTS.iter().filter(|(_, _, scene)| scene.play() == play) {
        stage.die_at(point, *hit, *scene).await;
    }
}

on_both! {
    async fn while_requests_are_answered(backend) {
        die_at_each(backend, Play::Requests).await;
    }

    async fn while_batches_run(backend) {
        die_at_each(backend, Play::Batches).await;
    }

    async fn while_batches_run_with_blobs_in_a_bucket(backend) {
        die_at_each(backend, Play::Buckets).await;
    }

    async fn while_films_are_made(backend) {
        die_at_each(backend, Play::Films).await;
    }

    async fn while_money_comes_in(backend) {
        let mut till = Till::new(backend).await;
        for (point, hit, scene) in POINTS.iter().filter(|(_, _, scene)| scene.play() == Play::Money) {
            till.die_at(point, *hit, *scene).await;
        }
    }

    async fn while_payments_come_on_a_chain(backend) {
        let mut quay = Quay::new(backend).await;
        for (point, hit, scene) in POINTS.iter().filter(|(_, _, scene)| scene.play() == Play::Chain) {
            quay.die_at(point, *hit, *scene).await;
        }
    }

    async fn while_records_are_made(backend) {
        let mut logbook = Logbook::new(backend).await;
        for (point, hit, _) in POINTS.iter().filter(|(_, _, scene)| scene.play() == Play::Records) {
            logbook.die_at(point, *hit).await;
        }
    }

    async fn while_the_server_comes_and_goes(backend) {
        die_at_each(backend, Play::Server).await;
    }
}

/// A file of SQLite is one server's, so that only PostgreSQL sees these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_servers_share_an_account() {
    die_at_each(Backend::Postgres, Play::Servers).await;
}

#[test]
fn every_point_of_the_source_is_in_the_table() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(crates).unwrap() {
        points_in(&entry.unwrap().path().join("src"), &mut found);
    }
    let table: BTreeSet<String> = POINTS.iter().map(|(point, _, _)| (*point).to_owned()).collect();
    assert_eq!(found, table);
}

/// Collects the names of the points in every source file below a folder.
fn points_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            points_in(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let calls = text.split("batchin_faults::point(").skip(1);
            found.extend(calls.map(|call| call.split('"').nth(1).expect("a literal name").to_owned()));
        }
    }
}
