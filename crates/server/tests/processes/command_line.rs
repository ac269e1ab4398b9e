//! The commands as a person runs them, beside servers that are killed, that speak TLS, or that are not there.

use std::process::Stdio;

use batchin_sim::{Answer, Behaviour};
use serde_json::Value;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
};

use crate::harness::{Account, Address, Backend, Ran, Settings, TOKEN, World, on_both};

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

    async fn a_run_says_that_its_highest_cost_ended_it(backend) {
        let world = World::new(backend, Settings::default()).await;
        let node = world.node().await;
        let account = world.account(1000).await;
        let folder = tempfile::tempdir().unwrap();
        let [input, out] = ["in.jsonl", "out.jsonl"].map(|name| folder.path().join(name).display().to_string());
        let text: String = (0..100).map(|n| format!("{{\"prompt\":\"p {n}\",\"max_tokens\":10}}\n")).collect();
        std::fs::write(&input, text).unwrap();
        let base = node.address.url();
        let run = ["batch", "run", &input, "--model", "fixed", "--out", &out, "--max-cost-cents", "1"];
        let ran = Ran::of(&command(&account, &base, &run).output().await.unwrap());
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains("is left of --max-cost-cents"), "{}", ran.err);
        let listed = command(&account, &base, &["batch", "list", "--json"]).output().await.unwrap();
        let id = serde_json::from_slice::<Vec<Value>>(&listed.stdout).unwrap()[0]["id"].as_str().unwrap().to_owned();
        let ran = Ran::of(&command(&account, &base, &["batch", "results", &id, "--json"]).output().await.unwrap());
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.err.contains("is left of --max-cost-cents"), "{}", ran.err);
        // What is there stays there; nothing is submitted for it.
        let whole = std::fs::read_to_string(&out).unwrap();
        let ran = Ran::of(&command(&account, &base, &run).output().await.unwrap());
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("it is there already; --force replaces it"), "{}", ran.err);
        assert_eq!(std::fs::read_to_string(&out).unwrap(), whole);
        let listed = command(&account, &base, &["batch", "list", "--json"]).output().await.unwrap();
        assert_eq!(serde_json::from_slice::<Vec<Value>>(&listed.stdout).unwrap().len(), 1);
    }

    async fn keys_and_credit_are_managed_beside_a_server(backend) {
        let world = World::new(backend, Settings::default()).await;
        let node = world.node().await;
        let (account, at) = (world.account(100).await, &node.address);
        let email = account.email.as_str();
        let listed: Vec<Value> = world
            .command(&["key", "list", email, "--json"])
            .await
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let id = listed[0]["id"].as_str().unwrap();
        assert!(account.key.ends_with(listed[0]["last_four"].as_str().unwrap()));
        let limited = world.command(&["key", "limits", id, "--rpm", "7", "--budget-cents", "50", "--json"]).await;
        let limited: Value = serde_json::from_str(&limited).unwrap();
        assert_eq!((&limited["rate_limit_rpm"], &limited["monthly_budget_cents"]), (&7.into(), &50.into()));
        let limited = world.command(&["key", "limits", id, "--no-budget", "--rpm", "10000000"]).await;
        assert!(limited.contains("10000000/min  0¢ this month"), "{limited}");

        let taken = world.command(&["credits", "grant", email, "-40.5", "--reason", "granted twice"]).await;
        assert_eq!(taken, format!("{email} has 59.5¢\n"));
        let refused = world.try_command(&["credits", "grant", email, "-60", "--reason", "too much"]).await;
        assert_eq!(refused.code, 1);
        assert!(refused.err.contains("60¢ cannot be taken back"), "{}", refused.err);
        let log = world.command(&["credits", "log", "--account", email, "--limit", "1"]).await;
        let said = format!("  credit.taken_back  40.5¢  {email}  by command line  granted twice\n");
        assert!(log.ends_with(&said) && log.lines().count() == 1, "{log}");
        let log = world.command(&["credits", "log", "--json"]).await;
        let entry: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        assert_eq!((&entry["email"], &entry["amount_cents"]), (&email.into(), &40.5.into()), "{log}");
        let history: Value = account.get(at, "/v1/topup/history").await.json();
        assert_eq!((&history[0]["amount_cents"], &history[0]["source"]), (&(-40.5).into(), &"correction".into()));

        world.command(&["user", "disable", email]).await;
        assert!(world.command(&["user", "list"]).await.contains(&format!("{email} 59.5¢ disabled\n")));
        let shown: Value = serde_json::from_str(&world.command(&["user", "show", email, "--json"]).await).unwrap();
        assert_eq!((&shown["disabled"], &shown["keys"][0]["id"]), (&true.into(), &id.into()));
        assert!(world.command(&["user", "show", email]).await.contains(", user, disabled, since "));
        world.command(&["user", "enable", email]).await;
        world.command(&["key", "revoke", id]).await;
        assert!(world.command(&["key", "list", email]).await.is_empty());
        for command in [&["key", "revoke", id][..], &["key", "limits", id, "--rpm", "1"]] {
            let refused = world.try_command(command).await;
            assert!(refused.code == 1 && refused.err.contains("no key"), "{refused:?}");
        }
        world.ledger().await;
    }
}

/// Variables that a command reads, and how it ended.
async fn with(account: &Account, base: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = command(account, base, arguments);
    command.envs(variables.iter().copied());
    Ran::of(&command.output().await.unwrap())
}

#[tokio::test]
async fn a_server_with_tls_is_told_from_a_wrong_address_a_stranger_and_nobody() {
    let world = World::new(Backend::Sqlite, Settings::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name).display().to_string());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = format!("[server]\ntls_cert_file = \"{certificate}\"\ntls_key_file = \"{key}\"\n");
    let text = world.configuration(&Settings::default()).replacen("[server]\n", &tls, 1);
    world.overwrite_configuration(&text);
    let node = world.node().await;
    let account = world.account(10).await;
    let base = node.address.url();
    let list = ["batch", "list"];

    let refused = with(&account, &base, &[], &list).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains(&format!("cannot reach {base}: its certificate is refused")), "{}", refused.err);
    let trusted = with(&account, &base, &[], &["batch", "list", "--cacert", &certificate]).await;
    assert_eq!((trusted.code, trusted.out.as_str()), (0, "no batches\n"), "{trusted:?}");
    let trusted = with(&account, &base, &[("SSL_CERT_FILE", &certificate)], &list).await;
    assert_eq!(trusted.code, 0, "{trusted:?}");
    let plain = base.replace("https:", "http:");
    let refused = with(&account, &plain, &[], &list).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains(&format!("cannot reach {plain}: what answers is not HTTP")), "{}", refused.err);
    let secure_sim = world.sim().base_url().replace("http:", "https:");
    let refused = with(&account, &secure_sim, &[], &list).await;
    assert!(refused.err.contains("is it http:// there?"), "{}", refused.err);

    // A port that is surely free for as long as nobody else is given it.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}");
    let given_up =
        with(&account, &base, &[], &["batch", "list", "--base-url", &nobody, "--api-key", &account.key]).await;
    assert_eq!(given_up.code, 1, "{given_up:?}");
    assert!(given_up.err.contains(&format!("no connection to {nobody}: Connection refused; trying again")));
    assert!(given_up.err.ends_with(&format!("error: cannot reach {nobody}: Connection refused\n")), "{given_up:?}");

    world.sim().script("sim:tokens=10", Behaviour::Answer(Answer::of(10)));
    let report = world.command_on(node.data(), &["doctor", "--json"]).await;
    let address = format!("the server of this data folder is running on {base}");
    assert!(report.code == 0 && report.out.contains(&address), "{report:?}");
    let stranger = tempfile::tempdir().unwrap();
    let listen = ["doctor", "--json"];
    let text =
        text.replacen("[server]\n", &format!("[server]\nlisten = \"{}\"\n", base.trim_start_matches("https://")), 1);
    world.overwrite_configuration(&text);
    let report = world.command_on(stranger.path(), &listen).await;
    assert!(report.out.contains("and not on this data folder"), "{report:?}");
    assert!(!report.out.contains("another program listens"), "{report:?}");
}

#[tokio::test]
async fn before_the_first_start_nothing_is_wrong_and_nothing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_batchin"));
        command.args(arguments).arg("--data").arg(&data).env_clear().env("BATCHIN_SERVER__LISTEN", "127.0.0.1:0");
        Ran::of(&command.stdin(Stdio::null()).output().await.unwrap())
    };
    let report = run(&["doctor"]).await;
    assert_eq!(report.code, 0, "{report:?}");
    assert!(report.out.contains("database: no database yet; `batchin serve` makes "), "{}", report.out);
    for arguments in [
        &["user", "list"][..],
        &["migrate"],
        &["ledger", "check"],
        &["key", "list", "ann@example.org"],
        &["models", "pull", "smollm2-135m-instruct"],
    ] {
        let refused = run(arguments).await;
        assert_eq!(refused.code, 2, "{arguments:?}: {refused:?}");
        assert!(refused.err.contains("there is no folder ") && refused.err.contains("--data"), "{}", refused.err);
    }
    assert!(!data.exists());
    let missing = folder.path().join("none.toml").display().to_string();
    for arguments in [&["--config", &missing, "user", "list"][..], &["config", "check", &missing]] {
        let refused = run(arguments).await;
        assert!(refused.code == 2 && format!("{refused:?}").contains("none.toml"), "{arguments:?}: {refused:?}");
    }
    let missing = folder.path().join("none.jsonl").display().to_string();
    let refused = run(&["batch", "run", &missing, "--api-key", "k"]).await;
    assert!(refused.code == 2 && refused.err.contains("none.jsonl"), "{refused:?}");
}
