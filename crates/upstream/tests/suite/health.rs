//! Holds: what is known of a server: its breaker, its health, what it has, its calls under way.

use std::{sync::Arc, time::Duration};

use batchin_domain::{CallKind, Capability};
use batchin_sim::{Answer as SimAnswer, Behaviour, End, Refusal};
use batchin_upstream::{
    Asker, BreakerState, Call, CallErrorKind, Check, Health, Kind, Retry, Standing, Trouble, UpstreamConfig,
};

use crate::world::{ADA, BOB, PATIENCE, World, all, deltas, ending, events, of, raw, streaming, whole};

#[tokio::test]
async fn breaker_opens_after_failures_and_a_success_keeps_it_shut() {
    let world = World::of(Kind::VLLM).await;
    for _ in 0..2 {
        world.refused(Behaviour::Drop, whole()).await;
    }
    world.sim.script_all(Behaviour::default());
    world.call(whole()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(world.replica().status().breaker, BreakerState::Closed);
        world.refused(Behaviour::Drop, whole()).await;
    }
    assert_eq!(world.replica().status().breaker, BreakerState::Open);
    let standings = [ADA, BOB].map(|asker| world.replica().standing(asker));
    assert_eq!(standings, [Standing::LastResort, Standing::Takes], "one account's requests may be what breaks it");
    for _ in 0..2 {
        world.refused(Behaviour::Drop, Call { asker: BOB, ..whole() }).await;
    }
    for asker in [ADA, BOB] {
        assert_eq!(world.replica().standing(asker), Standing::LastResort);
        assert_eq!(world.replica().standing(Asker { urgent: false, ..asker }), Standing::Refuses);
    }
    let calls = world.sim.calls();
    assert_eq!(world.refused(Behaviour::default(), whole()).await.kind, CallErrorKind::Unavailable);
    assert_eq!(world.sim.calls(), calls);
    world.sim.script_all(Behaviour::default());
    let last = Asker { last_resort: true, ..BOB };
    world.call(Call { asker: last, ..whole() }).await.unwrap();
    assert_eq!(world.replica().status().breaker, BreakerState::Closed, "it answers");
    world.end().await;
}

#[tokio::test]
async fn what_fails_for_one_account_fails_for_no_other() {
    let bad = [
        Behaviour::Refuse(Refusal::vllm(500, "boom")),
        Behaviour::Refuse(Refusal::html(502)),
        Behaviour::Refuse(Refusal::string(403, "flagged")),
        Behaviour::Refuse(Refusal::vllm(429, "slow down").retry_after("60")),
        Behaviour::Refuse(Refusal::vllm(503, "not you")),
        raw(&["nonsense"], End::Done),
        ending(3, End::Cut),
    ];
    for behaviour in bad {
        let world = World::of(Kind::VLLM).await;
        for _ in 0..10 {
            let asker = Asker { urgent: false, last_resort: true, ..ADA };
            world.sim.queue(behaviour.clone());
            drop(world.call(Call { asker, ..whole() }).await);
            assert_eq!(world.replica().standing(BOB), Standing::Takes, "{behaviour:?}");
            assert!(world.call(Call { asker: BOB, ..whole() }).await.is_ok(), "{behaviour:?}");
        }
        world.end().await;
    }
}

#[tokio::test]
async fn what_a_server_does_not_have_is_asked_of_others_first() {
    let world = World::of(Kind::VLLM).await;
    world.sim.queue(Behaviour::Refuse(Refusal::vllm(404, "The model `Qwen/Qwen3` does not exist.")));
    let error = world.call(whole()).await.expect_err("refused");
    assert_eq!((error.retry, &error.client_error), (Retry::OtherReplica, &None));
    assert!(error.is_not_served());
    let replica = world.replica();
    let serves = |kind| replica.serves("qwen", [kind].into_iter());
    assert!(replica.avoids("qwen", CallKind::Chat) && !serves(CallKind::Chat) && serves(CallKind::Completions));
    assert_eq!((replica.standing(ADA), replica.status().breaker), (Standing::Takes, BreakerState::Closed));
    world.call(streaming()).await.unwrap();
    assert!(!replica.avoids("qwen", CallKind::Chat) && serves(CallKind::Chat), "it has it again");
    world.sim.queue(Behaviour::Refuse(Refusal::vllm(404, "The image could not be fetched")));
    let error = world.call(whole()).await.expect_err("refused");
    assert_eq!(error.client_error.expect("the client's").message, "The image could not be fetched");
    assert!(serves(CallKind::Chat));
    world.end().await;
}

#[tokio::test]
async fn a_refused_key_makes_a_server_ill_until_it_is_taken() {
    let world = World::with(Kind::VLLM, |config| config.api_key = Some("sk-1".into())).await;
    until_probed(&world, Health::Well).await;
    world.refused(Behaviour::Refuse(Refusal::string(401, "Unauthorized")), whole()).await;
    let status = world.replica().status();
    assert_eq!((status.health, status.trouble), (Health::Ill, Some(Trouble::KeyRefused)));
    assert!(!world.replica().serves("qwen", [CallKind::Chat].into_iter()));
    world.sim.script_all(Behaviour::default());
    world.call(Call { asker: BOB, ..whole() }).await.unwrap();
    assert_eq!(world.replica().status().health, Health::Well);
    world.end().await;
}

#[tokio::test]
async fn what_is_forbidden_to_one_account_is_there_for_others() {
    let world = World::of(Kind::VLLM).await;
    let serves = || world.replica().serves("qwen", [CallKind::Chat].into_iter());
    world.refused(Behaviour::Refuse(Refusal::string(403, "flagged")), whole()).await;
    assert!(serves(), "it may be what this account asks");
    world.refused(Behaviour::Refuse(Refusal::string(403, "flagged")), Call { asker: BOB, ..whole() }).await;
    assert!(!serves(), "it is not");
    world.end().await;
}

#[tokio::test]
async fn an_operator_s_check_says_what_a_server_has() {
    for kind in Kind::that_can(Capability::Chat) {
        let world = World::with(kind, |config| config.api_key = Some("sk-1".into())).await;
        let Check::Lists(models) = world.replica().check().await else { panic!("{kind}: no list") };
        assert!(kind.has(&models, "sim"), "{kind}: {models:?}");
        for (status, expected) in [
            (401, Check::KeyRefused),
            (402, Check::QuotaUsedUp),
            (403, Check::KeyRefused),
            (404, Check::NoList),
            (500, Check::Refuses(500)),
        ] {
            world.sim.set_health(status);
            assert_eq!(world.replica().check().await, expected, "{kind}");
        }
        world.end().await;
    }
    let gone = World::of(Kind::OPENAI).await;
    let replica = gone.replica();
    gone.sim.stop().await;
    assert_eq!(replica.check().await, Check::Silent);
    assert_eq!(gone.tasks.shutdown(PATIENCE).await, 0);
}

#[tokio::test]
async fn health_follows_the_server() {
    for kind in Kind::that_can(Capability::Chat) {
        let world = World::of(kind).await;
        world.fleet.probe_all().await;
        assert_eq!(world.replica().status().health, Health::Well, "{kind}");
        world.sim.set_health(503);
        until_probed(&world, Health::Ill).await;
        assert_eq!(world.replica().standing(ADA), Standing::Refuses, "{kind}");
        world.sim.set_health(200);
        until_probed(&world, Health::Well).await;
        assert_eq!(world.replica().standing(ADA), Standing::Takes, "{kind}");
        world.end().await;
    }
}

/// Probes until the health is this; the background task probes as well, so the number of rounds is open.
async fn until_probed(world: &World, health: Health) {
    let probed = async {
        while world.replica().status().health != health {
            world.fleet.probe_all().await;
        }
    };
    tokio::time::timeout(PATIENCE, probed).await.expect("the health never changes");
}

#[tokio::test]
async fn reload_keeps_what_did_not_change() {
    let world = World::of(Kind::VLLM).await;
    world.sim.script_all(Behaviour::Answer(SimAnswer { gap: Duration::from_millis(2), ..of(30) }));
    let before = world.replica();
    let stream = events(world.call(streaming()).await.unwrap());
    let config = before.config().clone();
    let other = UpstreamConfig::new("b", Kind::OPENAI, "http://127.0.0.1:9").unwrap();
    world.fleet.reload(vec![config.clone(), other]).unwrap();
    assert!(Arc::ptr_eq(&before, &world.replica()));
    assert_eq!(world.fleet.replicas().len(), 2);

    let twice = world.fleet.reload(vec![config.clone(), config.clone()]).unwrap_err();
    assert!(twice.to_string().contains("gpu-1"));
    let with_slots = |slots| {
        let mut changed = config.clone();
        changed.slots = Some(slots);
        vec![changed]
    };
    assert!(world.fleet.reload(with_slots(0)).is_err());
    assert_eq!(world.fleet.replicas().len(), 2, "a refused configuration changes nothing");

    world.fleet.reload(with_slots(4)).unwrap();
    assert!(!Arc::ptr_eq(&before, &world.replica()));
    assert!(world.fleet.replica("b").is_none());
    let (seen, error) = all(stream).await;
    assert_eq!((error, deltas(&seen)), (None, 30));
    drop(before);
    world.end().await;
}

#[tokio::test]
async fn a_drain_outlasts_reloads_and_who_is_removed_stays_known_for_a_while() {
    let world = World::of(Kind::VLLM).await;
    let config = world.replica().config().clone();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let drained = world.fleet.set_drained(names(&["gpu-1", "nobody"]));
    assert_eq!(drained, [("gpu-1".to_owned(), true)]);
    assert_eq!(world.fleet.set_drained(names(&["gpu-1"])), []);
    let serves = || world.replica().serves("qwen", [CallKind::Chat].into_iter());
    let mut changed = config.clone();
    changed.slots = Some(4);
    for config in [config.clone(), changed] {
        world.fleet.reload(vec![config]).unwrap();
        assert_eq!((world.replica().standing(ADA), serves()), (Standing::Refuses, false));
        assert!(world.replica().passes_health_check(), "its health is another matter");
    }
    let kept = UpstreamConfig::new("b", Kind::OPENAI, "http://127.0.0.1:9").unwrap();
    let before = world.replica();
    world.fleet.reload(vec![kept.clone()]).unwrap();
    assert!(world.fleet.replica("gpu-1").is_none());
    assert!(Arc::ptr_eq(&before, &world.fleet.known("gpu-1").unwrap()));
    assert!(!world.fleet.let_go(Duration::from_secs(60), |_| true), "too soon");
    assert!(!world.fleet.let_go(Duration::ZERO, |_| false), "something is under way");
    world.fleet.reload(vec![kept.clone(), before.config().clone()]).unwrap();
    assert!(Arc::ptr_eq(&before, &world.replica()) && world.fleet.leaving().is_empty(), "it has come back");
    world.fleet.reload(vec![kept]).unwrap();
    assert!(world.fleet.let_go(Duration::ZERO, |name| name == "gpu-1"));
    assert!(world.fleet.known("gpu-1").is_none() && world.fleet.leaving().is_empty());
    let again = world.fleet.reload(vec![config]);
    assert!(again.is_ok() && world.replica().is_drained(), "it goes by its name");
    assert_eq!(world.fleet.set_drained(names(&[])), [("gpu-1".to_owned(), false)]);
    assert_eq!((world.replica().standing(ADA), serves()), (Standing::Takes, true));
    world.end().await;
}

#[tokio::test]
async fn many_calls_at_once_are_counted_to_zero() {
    let world = World::of(Kind::VLLM).await;
    world.sim.script_all(Behaviour::Answer(of(10)));
    let calls = (0..64).map(|index| {
        let replica = world.replica();
        async move {
            if index % 2 == 0 {
                return replica.call(whole()).await.is_ok();
            }
            let (seen, error) = all(events(replica.call(streaming()).await.unwrap())).await;
            error.is_none() && deltas(&seen) == 10
        }
    });
    assert!(futures::future::join_all(calls).await.into_iter().all(|fine| fine));
    world.end().await;
}
