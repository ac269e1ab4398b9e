//! `batchin batch` as a person runs it, while its server is killed and started again.

use std::process::Stdio;

use serde_json::Value;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
};

use crate::harness::{Account, Address, Settings, TOKEN, World, on_both};

/// An address that stays while the server behind it changes its own.
async fn in_front_of(server: Address) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mut forwarding = JoinSet::new();
    forwarding.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let address = server.url().trim_start_matches("http://").to_owned();
            connections.spawn(async move {
                if let Ok(mut server) = TcpStream::connect(address).await {
                    // However it ends, both sides are closed.
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    (base, forwarding)
}

fn command(account: &Account, base: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_batchin"));
    command
        .args(arguments)
        .env_clear()
        .env("BATCHIN_BASE_URL", base)
        .env("BATCHIN_API_KEY", &account.key)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

on_both! {
    async fn a_run_goes_on_when_its_server_was_killed(backend) {
        let world = World::new(backend, Settings::default().model("slow", "sim:tokens=10,first_ms=50")).await;
        let mut node = world.node().await;
        let account = world.account(1000).await;
        let (base, _forwarding) = in_front_of(node.address.clone()).await;
        let folder = tempfile::tempdir().unwrap();
        let [input, out] = ["in.jsonl", "out.jsonl"].map(|name| folder.path().join(name).display().to_string());
        let count = 300;
        let text: String = (0..count).map(|n| format!("{{\"prompt\":\"p {n}\",\"max_tokens\":10}}\n")).collect();
        std::fs::write(&input, text).unwrap();
        let run = command(&account, &base, &["batch", "run", &input, "--model", "slow", "--out", &out]).spawn().unwrap();
        for calls in [40, 150] {
            world.sim().until_calls(calls).await;
            node.kill().await;
            node.start_again().await;
        }
        let ran = run.wait_with_output().await.unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let text = std::fs::read_to_string(&out).unwrap();
        let mut indexes: Vec<u64> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["index"].as_u64().unwrap()).collect();
        indexes.sort_unstable();
        assert_eq!(indexes, (0..count).collect::<Vec<_>>(), "every line once");
        let listed = command(&account, &base, &["batch", "list", "--json"]).output().await.unwrap();
        assert_eq!(serde_json::from_slice::<Vec<Value>>(&listed.stdout).unwrap().len(), 1);
        let at = &node.address;
        assert_eq!(account.funded - account.balance(at).await, i64::try_from(count).unwrap() * 10 * TOKEN);
        node.terminate().await;
        world.settled().await;
    }
}
