//! A request that carries an Idempotency-Key is carried out and charged once.

use crate::harness::{Settings, TOKEN, World, chat, on_both};

on_both! {
    async fn two_at_once_are_one(backend) {
        let world = World::new(backend, Settings::default().model("slow", "sim:tokens=10,first_ms=400")).await;
        let node = world.node().await;
        let (account, at) = (world.account(100).await, &node.address);
        let body = chat("slow", 10);
        let (first, second) = tokio::join!(account.chat_once(at, &body, "a"), account.chat_once(at, &body, "a"));
        assert_eq!((first.status, second.status), (200, 200), "{first:?} {second:?}");
        assert_eq!(first.body, second.body);
        let replayed = [&first, &second].map(|reply| reply.header("idempotent-replayed") == Some("true"));
        assert!(replayed[0] ^ replayed[1], "one of them is the first: {replayed:?}");

        let later = account.chat_once(at, &body, "a").await;
        assert_eq!((later.status, &later.body), (200, &first.body));
        let other = account.chat_once(at, &chat("slow", 9), "a").await;
        assert_eq!((other.status, other.code().as_str()), (409, "conflict"), "{other:?}");
        assert_eq!(world.sim().calls(), 1);
        assert_eq!(account.funded - account.balance(at).await, 10 * TOKEN);
        world.settled().await;
    }

    async fn an_answer_is_given_again_after_kill_minus_nine(backend) {
        let world = World::new(backend, Settings::default().model("slow", "sim:tokens=10,first_ms=1500")).await;
        let mut node = world.node().await;
        let account = world.account(100).await;
        let first = account.chat_once(&node.address, &chat("fixed", 10), "done").await;
        assert_eq!(first.status, 200);
        // Killed in the middle, a request has done nothing, and its key is free again.
        let (cut, body) = (account.clone(), chat("slow", 10));
        let address = node.address.clone();
        let asked = tokio::task::JoinSet::from_iter([async move {
            cut.try_chat_once(&address, &body, "cut").await.is_err()
        }]);
        world.sim().until_calls(2).await;
        node.kill().await;
        assert_eq!(asked.join_all().await, [true]);
        node.start_again().await;
        let again = account.chat_once(&node.address, &chat("fixed", 10), "done").await;
        assert_eq!((again.status, &again.body), (200, &first.body));
        let retried = account.chat_once(&node.address, &chat("slow", 10), "cut").await;
        assert_eq!(retried.status, 200, "{retried:?}");
        assert_eq!(world.sim().calls(), 3);
        assert_eq!(account.funded - account.balance(&node.address).await, 20 * TOKEN);
        world.settled().await;
    }
}
