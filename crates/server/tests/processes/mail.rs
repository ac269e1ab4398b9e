//! Alerts by e-mail, on a mail server that is not ours: who is told, how often, and what a refusal or a death changes.

use std::{path::Path, process::Stdio};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::harness::{Account, Backend, Node, PATIENCE, Settings, World, chat, until};

const PASSWORD: &str = "quite quiet";

/// aiosmtpd, with STARTTLS and one password. Killed when dropped.
struct MailServer {
    port: u64,
    said: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl MailServer {
    /// On a certificate that lies in this folder once this returns.
    async fn start(folder: &Path) -> Self {
        let python = std::env::var_os("BATCHIN_TEST_PYTHON");
        let python = python.expect("BATCHIN_TEST_PYTHON is not set: run this with `make test`");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let mut process = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/mail_server.py"))
            .args([folder.join("cert.pem"), folder.join("key.pem")])
            .arg(PASSWORD)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut server = Self { port: 0, said, _process: process };
        server.port = server.next().await["port"].as_u64().unwrap();
        server
    }

    /// What it answered next, and for which message.
    async fn next(&mut self) -> Value {
        let line = timeout(PATIENCE, self.said.next_line()).await.expect("it is sent something").unwrap();
        serde_json::from_str(&line.expect("it runs")).unwrap()
    }

    fn configuration(&self, password: &str) -> String {
        format!(
            "[smtp]\nhost = \"localhost\"\nport = {}\nusername = \"batchin\"\npassword = \"{password}\"\n\
             from = \"BatchIn <noreply@batch.example>\"\nreply_to = \"help@batch.example\"\n",
            self.port
        )
    }
}

async fn user(world: &World, email: &str) -> Account {
    world.command(&["user", "create", email]).await;
    let account = Account::new(email, &world.key(email, &["--rpm", "10000000"]).await, 0);
    world.grant(email, 10).await;
    account
}

async fn wants_mail(account: &Account, node: &Node) -> Value {
    let wishes = json!({ "email": true, "balance_low_cents": 9.95 });
    let reply = account.put(&node.address, "/v1/alerts", &wishes).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn code_of(mail: &Value) -> String {
    let text = mail["text"].as_str().unwrap();
    text.lines().find_map(|line| line.strip_prefix("    ")).expect("a line with a code").to_owned()
}

fn id_of(mail: &Value) -> String {
    mail["headers"]["message-id"].as_str().unwrap().to_owned()
}

async fn deliveries(account: &Account, node: &Node) -> Vec<Value> {
    account.get(&node.address, "/v1/webhooks/deliveries").await.json()["data"].as_array().unwrap().clone()
}

/// What `batchin doctor` says with a wrong password, and with the right one, which the configuration has from then on.
async fn asked_about(world: &World, mail: &MailServer) {
    let plain = world.configuration(&Settings::default());
    world.overwrite_configuration(&format!("{plain}{}", mail.configuration("wrong and quiet")));
    let doctor = async || {
        let out = world.try_command(&["doctor"]).await.out;
        assert!(!out.contains("quiet"), "{out}");
        out
    };
    let refused = doctor().await;
    assert!(refused.contains("mail: the mail server did not take the user name and password"), "{refused}");
    world.overwrite_configuration(&format!("{plain}{}", mail.configuration(PASSWORD)));
    let fine = doctor().await;
    assert!(fine.contains("ok     mail: the mail server lets this server in"), "{fine}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_go_by_mail_once_and_only_to_who_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let mut mail = MailServer::start(folder.path()).await;
    let trusted = folder.path().join("cert.pem").display().to_string();
    let world = World::new(Backend::Sqlite, Settings::default()).await.with("SSL_CERT_FILE", &trusted);
    asked_about(&world, &mail).await;
    let mut node = world.node().await;
    let (ada, busy) = (user(&world, "ada@example.com").await, user(&world, "busy@example.com").await);
    let (gone, slow) = (user(&world, "gone@example.com").await, user(&world, "slow@example.com").await);

    // The address first shows that it is the account's owner's.
    let standing = wants_mail(&ada, &node).await;
    assert_eq!([&standing["email"], &standing["email_confirmed"]], [&json!(true), &json!(false)]);
    let first = mail.next().await;
    assert_eq!((&first["answer"], &first["to"]), (&json!(250), &json!("ada@example.com")), "{first}");
    assert_eq!((&first["tls"], &first["user"]), (&json!(true), &json!("batchin")), "{first}");
    assert_eq!(first["mail_from"], "noreply@batch.example");
    let headers = &first["headers"];
    assert_eq!([&headers["from"], &headers["reply-to"]], ["BatchIn <noreply@batch.example>", "help@batch.example"]);
    assert_eq!([&headers["to"], &headers["auto-submitted"]], ["ada@example.com", "auto-generated"]);
    assert!(headers["subject"].as_str().unwrap().contains("确认您的邮箱"), "{headers}");
    let told = deliveries(&ada, &node).await;
    assert_eq!(id_of(&first), format!("<{}@batch.example>", told[0]["id"].as_str().unwrap()));
    wants_mail(&ada, &node).await;
    let replay = format!("/v1/webhooks/deliveries/{}/replay", told[0]["id"].as_str().unwrap());
    assert_eq!(ada.post(&node.address, &replay, &json!({})).await.status, 200);
    // What is told before is not told there.
    assert_eq!(ada.chat(&node.address, &chat("fixed", 10)).await.status, 200);
    let confirm = async |account: &Account, code: &str| {
        account.post(&node.address, "/v1/alerts/email", &json!({ "code": code })).await
    };
    let code = code_of(&first);
    assert_eq!(confirm(&busy, &code).await.status, 403, "it is for that account alone");
    assert_eq!(confirm(&ada, &code).await.json()["email_confirmed"], true);

    // Once for each fall below the limit.
    for _ in 0..2 {
        world.grant(&ada.email, 1).await;
        assert_eq!(
            ada.put(&node.address, "/v1/alerts", &json!({ "email": true, "balance_low_cents": 9.95 })).await.status,
            200
        );
        for _ in 0..13 {
            assert_eq!(ada.chat(&node.address, &chat("fixed", 10)).await.status, 200);
        }
        let low = mail.next().await;
        assert_eq!((&low["answer"], &low["to"]), (&json!(250), &json!("ada@example.com")), "{low}");
        assert!(low["headers"]["subject"].as_str().unwrap().starts_with("Your balance is low / 余额"), "{low}");
        assert!(low["text"].as_str().unwrap().contains("balance.low"), "{low}");
    }
    assert_eq!(deliveries(&ada, &node).await.len(), 3, "a code and two alerts");

    // Put off, it comes again under the same name.
    wants_mail(&busy, &node).await;
    let (put_off, taken) = (mail.next().await, mail.next().await);
    assert_eq!([&put_off["answer"], &taken["answer"]], [&json!(451), &json!(250)]);
    assert_eq!((id_of(&put_off), &put_off["text"]), (id_of(&taken), &taken["text"]));

    // Refused for good, it is given up.
    wants_mail(&gone, &node).await;
    assert_eq!(mail.next().await, json!({ "answer": 550, "to": "gone@example.com" }));
    let failed = until("the mail is given up", async || {
        deliveries(&gone, &node).await.into_iter().find(|one| one["status"] == "failed")
    });
    let failed = failed.await;
    assert_eq!(failed["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(
        [&failed["attempts"][0]["status"], &failed["attempts"][0]["failure"]],
        [&json!(550), &json!("mail_refused")]
    );

    // Killed before it knew that the mail was taken, the server sends it again, to be told by its name.
    wants_mail(&slow, &node).await;
    let unheard = mail.next().await;
    node.kill().await;
    node.start_again().await;
    let again = mail.next().await;
    assert_eq!([&unheard["answer"], &again["answer"]], [&Value::Null, &json!(250)]);
    assert_eq!((id_of(&unheard), &unheard["text"]), (id_of(&again), &again["text"]));
    let log = node.log();
    assert!(!log.contains(PASSWORD) && !log.contains("@example.com") && !log.contains(&code), "{log}");
    world.settled().await;
}
