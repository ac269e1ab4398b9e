//! Holds: `batchin doctor`: what is wrong with an installation, in a person's words.
//!
//! Each check is a function of what it is given and changes nothing that stays. Checks that need the store or the
//! weights take a closure, so that this file knows neither.

use std::io::{self, ErrorKind, Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use batchin_batch_cli::{Outcome, counted};
use batchin_config::{Config, ConfigError, TlsFiles};
use serde_json::json;

use crate::tls;

/// A server of ours on this machine answers its health check at once.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How the answer of a healthy server begins.
const HEALTHY: &[u8] = b"HTTP/1.1 200";

/// How TLS begins to say that it does not understand.
const TLS_ALERT: u8 = 0x15;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was checked, in one or two words.
    pub subject: &'static str,
    /// What was found.
    pub verdict: Verdict,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to do.
    Fine(String),
    /// Works, and is probably not what was meant.
    Doubtful {
        /// What is so.
        what: String,
    },
    /// Does not work.
    Broken {
        /// What is wrong.
        what: String,
        /// What to do about it.
        remedy: String,
    },
}

/// Whether the configuration can be used.
pub fn configuration(loaded: &Result<Config, ConfigError>) -> Finding {
    let remedy = "`batchin config example` prints every setting with what it is for";
    let verdict = match loaded {
        Ok(config) => {
            let (models, upstreams) = (config.models.len(), config.upstreams.len());
            Verdict::Fine(format!("{}, {}", counted(models, "model"), counted(upstreams, "upstream")))
        }
        Err(ConfigError::Unreadable { path, source }) => {
            broken(format!("cannot read {}: {source}", path.display()), "give --config a file that is there")
        }
        Err(error) => broken(error.to_string(), remedy),
    };
    Finding { subject: "configuration", verdict }
}

/// What is allowed in the configuration and probably not meant.
pub fn warnings(config: &Config) -> Vec<Finding> {
    let finding = |what| Finding { subject: "configuration", verdict: Verdict::Doubtful { what } };
    config.warnings().into_iter().map(finding).collect()
}

/// Whether files can be written where the data lies. A folder that is not there is made by `serve`, so it is enough
/// that its nearest existing parent can be written.
pub fn data_folder(folder: &Path) -> Finding {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let existing = absolute.ancestors().find(|candidate| candidate.exists());
    let verdict = match existing.map(|existing| (existing, tempfile::tempfile_in(existing))) {
        Some((_, Ok(_))) => Verdict::Fine(absolute.display().to_string()),
        Some((existing, Err(error))) => broken(
            format!("cannot write to {}: {error}", existing.display()),
            "give this user the right to write there, or choose another folder with --data",
        ),
        None => broken(format!("{} has no parent folder", absolute.display()), "choose another folder with --data"),
    };
    Finding { subject: "data folder", verdict }
}

/// Whether the address is free, or our own server has it already; `serving` is where the server of this data folder
/// listens, if one runs.
pub fn port(listen: SocketAddr, serving: Option<&str>) -> Finding {
    if let Some(address) = serving {
        let what = format!("the server of this data folder is running on {address}");
        return Finding { subject: "address", verdict: Verdict::Fine(what) };
    }
    let verdict = match TcpListener::bind(listen) {
        Ok(_) => Verdict::Fine(format!("{listen} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse && answers_health_check(listen) => {
            Verdict::Doubtful { what: format!("a server is running on {listen}, and not on this data folder") }
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => broken(
            format!("another program listens on {listen}"),
            "stop that program, or choose another address with --listen",
        ),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => broken(
            format!("this user may not listen on {listen}"),
            "choose a port above 1023 with --listen, or grant CAP_NET_BIND_SERVICE",
        ),
        Err(error) => broken(format!("cannot listen on {listen}: {error}"), "choose another address with --listen"),
    };
    Finding { subject: "address", verdict }
}

/// Whether the database answers; `reached` is the outcome of trying, with what to show when it did not.
pub fn database(reached: Result<String, String>) -> Finding {
    let remedy = "check database.url, and that the database runs and lets this user in";
    let verdict = match reached {
        Ok(what) => Verdict::Fine(what),
        Err(what) => broken(what, remedy),
    };
    Finding { subject: "database", verdict }
}

/// That the database is not what it will be once a server has started: not there yet, or of an older version.
pub fn database_to_come(what: String) -> Finding {
    Finding { subject: "database", verdict: Verdict::Doubtful { what } }
}

/// Whether the key that seals webhook secrets is there and opens those of the database; `tried` is the outcome of
/// trying, with what to show when it does not.
pub fn secret_key(tried: Result<String, String>) -> Finding {
    let remedy = "give this node the server.secret_key (or the file secret_key in the data folder) that the others \
                  have or that was in use before; when it is lost, `batchin webhooks forget-secrets`";
    let verdict = match tried {
        Ok(what) => Verdict::Fine(what),
        Err(what) => broken(what, remedy),
    };
    Finding { subject: "secret key", verdict }
}

/// Whether this node's blobs are those of the other nodes; `compared` is the outcome of looking, with what differs.
pub fn blobs(compared: Result<String, String>) -> Finding {
    let remedy = "all nodes on one database need the same blobs.url: a folder that they share, or s3://";
    let verdict = match compared {
        Ok(what) => Verdict::Fine(what),
        Err(what) => broken(what, remedy),
    };
    Finding { subject: "blobs", verdict }
}

/// Whether the mail server lets us in; `tried` is the outcome of connecting, without a mail.
pub fn mail(tried: Result<(), String>) -> Finding {
    let remedy = "check smtp.host, smtp.port, smtp.tls, smtp.username and smtp.password, and that this machine may connect there";
    let verdict = match tried {
        Ok(()) => Verdict::Fine("the mail server lets this server in".to_owned()),
        Err(what) => broken(what, remedy),
    };
    Finding { subject: "mail", verdict }
}

/// Whether Stripe answers to our key, and whether that moves real money; `tried` is the outcome of asking.
pub fn cards(tried: &Result<Option<bool>, String>) -> Finding {
    let remedy = "check stripe.secret_key and that this machine may call stripe.api_base; docs/payments.md says what a \
                  restricted key must be allowed";
    let verdict = match tried {
        Ok(Some(true)) => Verdict::Fine("Stripe answers to this key".to_owned()),
        Ok(Some(false)) => {
            Verdict::Fine("Stripe answers to this key, which is for tests: nobody pays real money".to_owned())
        }
        Ok(None) => Verdict::Fine("Stripe answers to this key, which does not say whether it is for tests".to_owned()),
        Err(what) => broken(what.clone(), remedy),
    };
    Finding { subject: "cards", verdict }
}

/// Whether reports of Stripe's are dealt with; `waiting` have been for longer than that takes.
pub fn reports(waiting: u64) -> Option<Finding> {
    let what =
        format!("{} of Stripe's not dealt with for a while; the server's log says why", counted(waiting, "report"));
    (waiting > 0).then_some(Finding { subject: "cards", verdict: Verdict::Doubtful { what } })
}

/// Whether an endpoint serves its chain; `block` is the newest that it has, or what is wrong.
pub fn chain(name: &str, block: &Result<u64, String>) -> Finding {
    let remedy = "check usdc.chains.rpc_urls and chain, and that this machine may call it";
    let verdict = match block {
        Ok(block) => Verdict::Fine(format!("{name} serves its chain, at block {block}")),
        Err(what) => broken(format!("{name}: {what}"), remedy),
    };
    Finding { subject: "chains", verdict }
}

/// That no second endpoint can be asked about large payments of a chain.
pub fn lone_endpoint(chain: &str, from_cents: &str) -> Finding {
    let what = format!(
        "{chain} has one endpoint; payments of {from_cents}¢ and more wait until a second one can be asked about them"
    );
    Finding { subject: "chains", verdict: Verdict::Doubtful { what } }
}

/// Whether the facilitator carries payments out on each chain that is offered over x402; what is wrong where it cannot be asked.
pub fn facilitator(asked: &Result<Vec<(String, bool)>, String>) -> Finding {
    let verdict = match asked {
        Ok(chains) => {
            let (there, not_there): (Vec<_>, Vec<_>) = chains.iter().partition(|(_, is_there)| *is_there);
            let names =
                |of: Vec<&(String, bool)>| of.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
            match (there.is_empty(), not_there.is_empty()) {
                (_, true) => Verdict::Fine(format!("the facilitator carries payments out on {}", names(there))),
                (false, false) => Verdict::Doubtful {
                    what: format!(
                        "the facilitator carries payments out on {}, not on {}",
                        names(there),
                        names(not_there)
                    ),
                },
                (true, false) => broken(
                    format!("the facilitator carries no payments out on {}", names(not_there)),
                    "set usdc.x402.facilitator to one that supports the scheme exact of x402 version 2 there",
                ),
            }
        }
        Err(what) => broken(what.clone(), "check usdc.x402.facilitator and api_key, and that this machine may call it"),
    };
    Finding { subject: "x402", verdict }
}

/// Whether the servers that run charge by the prices of this configuration; `others` do not.
pub fn prices(others: &[String]) -> Option<Finding> {
    let what = match others {
        [] => return None,
        [one] => format!("the node {one} runs with other prices than this configuration has"),
        many => format!("the nodes {} run with other prices than this configuration has", many.join(", ")),
    };
    Some(Finding { subject: "prices", verdict: Verdict::Doubtful { what } })
}

/// Whether the weights that the engine loads are there; `is_present` answers for one name, and not for a program, which
/// has none.
pub fn weights(config: &Config, is_present: impl Fn(&str) -> Option<bool>) -> Vec<Finding> {
    if !config.is_engine_needed() {
        return Vec::new();
    }
    let finding = |name: &String| {
        let verdict = if is_present(name)? {
            Verdict::Fine(name.clone())
        } else {
            let what = format!(
                "the weights of {name} are not here yet; `batchin serve` fetches them, `batchin models pull {name}` now"
            );
            Verdict::Doubtful { what }
        };
        Some(Finding { subject: "weights", verdict })
    };
    config.engine.models.iter().filter_map(finding).collect()
}

/// Which voices there are, and what would bring the rest.
pub struct Voices {
    /// In how many languages espeak-ng speaks here, or why it does not.
    pub languages: Result<usize, String>,
    /// Piper voices whose files are here.
    pub installed: Vec<String>,
    /// Those that `batchin models pull` can fetch.
    pub to_fetch: Vec<String>,
    /// Whether a model of the engine speaks.
    pub is_wanted: bool,
}

/// What the engine could speak with.
pub fn speech(voices: &Voices) -> Finding {
    let Voices { languages, installed, to_fetch, is_wanted } = voices;
    let rest: String = to_fetch.iter().map(|name| format!("; `batchin models pull {name}` brings {name}")).collect();
    let verdict = match languages {
        Ok(languages) => {
            let here = installed.iter().map(|name| format!("{name}, ")).collect::<String>();
            Verdict::Fine(format!("{here}espeak-ng in {languages} languages{rest}"))
        }
        Err(why) if *is_wanted => Verdict::Doubtful { what: format!("no voice speaks: {why}") },
        Err(why) => Verdict::Fine(format!("not used, and no voice could speak: {why}")),
    };
    Finding { subject: "speech", verdict }
}

/// Whether certificate and key can be used; nothing without TLS.
pub fn certificate(files: Option<&TlsFiles>) -> Option<Finding> {
    let files = files?;
    let verdict = match tls::load(files) {
        Ok(_) => Verdict::Fine(files.certificate.display().to_string()),
        Err(error) => broken(error.to_string(), "give server.tls_cert_file and server.tls_key_file matching PEM files"),
    };
    Some(Finding { subject: "certificate", verdict })
}

/// Whether a model server takes our key and has what it is to serve.
pub fn upstream(name: &str, is_well: bool, found: String) -> Finding {
    let what = format!("{name} {found}");
    let remedy = "check the upstream's base_url and api_key, and upstream_model of the models that name it";
    Finding { subject: "upstream", verdict: if is_well { Verdict::Fine(what) } else { broken(what, remedy) } }
}

/// Prints the findings; failed when one of them is broken.
pub fn print(findings: &[Finding], as_json: bool, out: &mut impl Write) -> io::Result<Outcome> {
    let is_broken = findings.iter().any(|finding| matches!(finding.verdict, Verdict::Broken { .. }));
    if as_json {
        let list: Vec<_> = findings.iter().map(in_json).collect();
        writeln!(out, "{}", json!({ "ok": !is_broken, "findings": list }))?;
    } else {
        for Finding { subject, verdict } in findings {
            match verdict {
                Verdict::Fine(what) => writeln!(out, "  ok     {subject}: {what}")?,
                Verdict::Doubtful { what } => writeln!(out, "  note   {subject}: {what}")?,
                Verdict::Broken { what, remedy } => writeln!(out, "  WRONG  {subject}: {what}\n         → {remedy}")?,
            }
        }
    }
    Ok(if is_broken { Outcome::Failed } else { Outcome::Done })
}

fn in_json(finding: &Finding) -> serde_json::Value {
    let (status, what, remedy) = match &finding.verdict {
        Verdict::Fine(what) => ("ok", what, None),
        Verdict::Doubtful { what } => ("note", what, None),
        Verdict::Broken { what, remedy } => ("wrong", what, Some(remedy)),
    };
    json!({ "subject": finding.subject, "status": status, "what": what, "remedy": remedy })
}

fn broken(what: String, remedy: &str) -> Verdict {
    Verdict::Broken { what, remedy: remedy.to_owned() }
}

/// Whether a server is healthy there, with or without TLS.
pub fn answers_health_check(listen: SocketAddr) -> bool {
    let plain = connected(listen).and_then(|mut stream| health(listen, &mut stream));
    match plain {
        Ok(answer) if answer == HEALTHY => true,
        // Nothing, or an alert of TLS, is what a server with TLS says to a plain question.
        Ok(answer) if answer.first().is_none_or(|first| *first == TLS_ALERT) => answers_with_tls(listen),
        Ok(_) => false,
        Err(_) => answers_with_tls(listen),
    }
}

fn answers_with_tls(listen: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let tcp = connected(listen)?;
        let client = tls::blind_client(listen.ip()).map_err(io::Error::other)?;
        Ok(health(listen, &mut rustls::StreamOwned::new(client, tcp))? == HEALTHY)
    };
    ask().unwrap_or(false)
}

fn connected(listen: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&listen, PROBE_TIMEOUT)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    stream.set_write_timeout(Some(PROBE_TIMEOUT))?;
    Ok(stream)
}

/// How the answer begins; shorter when there is less of it.
fn health(listen: SocketAddr, stream: &mut (impl io::Read + Write)) -> io::Result<Vec<u8>> {
    stream.write_all(format!("GET /healthz HTTP/1.1\r\nhost: {listen}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut begin = Vec::new();
    let length = u64::try_from(HEALTHY.len()).unwrap_or(u64::MAX);
    match stream.take(length).read_to_end(&mut begin) {
        Err(error) if begin.is_empty() => Err(error),
        Ok(_) | Err(_) => Ok(begin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_broken(finding: &Finding) -> bool {
        matches!(finding.verdict, Verdict::Broken { .. })
    }

    #[test]
    fn a_taken_port_is_told_from_a_free_one_and_from_ours() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let stranger = std::thread::spawn(move || {
            let (mut stream, _) = taken.accept().unwrap();
            stream.write_all(b"SSH-2.0-nobody\r\n").unwrap();
            taken
        });
        assert!(is_broken(&port(address, None)));
        let taken = stranger.join().unwrap();
        let ours = std::thread::spawn(move || {
            let (mut stream, _) = taken.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            assert!(request.starts_with(b"GET /healthz"));
        });
        assert!(!is_broken(&port(address, None)));
        ours.join().unwrap();
        assert!(!is_broken(&port(SocketAddr::from(([127, 0, 0, 1], 0)), None)));
    }

    #[test]
    fn a_data_folder_may_be_missing_but_not_unwritable() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_broken(&data_folder(&folder.path().join("a/b/c"))));
        assert!(is_broken(&data_folder(Path::new("/proc/none/of/this"))));
    }

    #[test]
    fn missing_weights_name_the_command_that_fetches_them() {
        let config = Config::load(&batchin_config::Sources::default()).unwrap();
        let findings = weights(&config, |name| Some(name == "all-minilm-l6-v2"));
        let mut out = Vec::new();
        assert_eq!(print(&findings, false, &mut out).unwrap(), Outcome::Done);
        assert!(String::from_utf8(out).unwrap().contains("batchin models pull smollm2-135m-instruct"));
        assert_eq!(print(&weights(&config, |_| Some(true)), true, &mut Vec::new()).unwrap(), Outcome::Done);
        assert_eq!(weights(&config, |_| None), []);
    }

    #[test]
    fn payments_that_cannot_come_are_told() {
        assert!(is_broken(&cards(&Err("Stripe does not know this key".to_owned()))));
        assert!(matches!(cards(&Ok(Some(false))).verdict, Verdict::Fine(what) if what.contains("tests")));
        assert!(reports(0).is_none() && reports(2).is_some_and(|found| !is_broken(&found)));
        assert_eq!(chain("base #1", &Ok(7)).verdict, Verdict::Fine("base #1 serves its chain, at block 7".to_owned()));
        assert!(is_broken(&chain("base #2", &Err("the endpoint cannot be reached".to_owned()))));
        let asked =
            |of: &[(&str, bool)]| Ok(of.iter().map(|(name, is_there)| ((*name).to_owned(), *is_there)).collect());
        let all = facilitator(&asked(&[("base", true), ("polygon", true)]));
        assert_eq!(all.verdict, Verdict::Fine("the facilitator carries payments out on base, polygon".to_owned()));
        let some = facilitator(&asked(&[("base", true), ("polygon", false)]));
        assert!(matches!(some.verdict, Verdict::Doubtful { what } if what.ends_with("on base, not on polygon")));
        assert!(is_broken(&facilitator(&asked(&[("base", false)]))));
        assert!(is_broken(&facilitator(&Err("the facilitator cannot be reached".to_owned()))));
    }

    #[test]
    fn voices_are_told_with_what_would_bring_the_rest() {
        let voices = |languages, is_wanted| Voices {
            languages,
            installed: vec!["a".to_owned()],
            to_fetch: vec!["b".to_owned()],
            is_wanted,
        };
        assert_eq!(
            speech(&voices(Ok(131), true)).verdict,
            Verdict::Fine("a, espeak-ng in 131 languages; `batchin models pull b` brings b".to_owned())
        );
        let missing = Err("install it".to_owned());
        assert!(
            matches!(speech(&voices(missing.clone(), true)).verdict, Verdict::Doubtful { what } if what.contains("install it"))
        );
        assert!(matches!(speech(&voices(missing, false)).verdict, Verdict::Fine(_)));
    }
}
