//! Holds: the form of a transcript: its exchanges, as they are read and as they are written.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batchin_sim::WireRequest;
use serde_json::Value;

/// A file: what it shows, what is set, and what is said in turn.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    /// Lines that begin with `#`.
    pub(super) shows: String,
    /// Words of the line `settings:`, each with its value.
    pub(super) settings: Vec<(String, String)>,
    pub(super) exchanges: Vec<Exchange>,
}

/// What a client asks, what becomes of it at the server, as often as that is asked, and what the client gets.
#[derive(Clone, Debug, Default)]
pub(super) struct Exchange {
    pub(super) client: Part,
    pub(super) sent: Vec<Part>,
    pub(super) answers: Vec<Part>,
    pub(super) told: Part,
}

/// A section: what stands behind its name, its headers, its body.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) line: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Part {
    /// Its line in two.
    pub(super) fn words(&self) -> (&str, &str) {
        self.line.split_once(' ').unwrap_or((&self.line, ""))
    }

    /// The body's bytes: a text, or what is written in base64.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self.body.strip_prefix("base64: ") {
            Some(encoded) => STANDARD.decode(encoded.trim()).expect("base64"),
            // An event ends with an empty line, which ends no section.
            None if self.words().1 == "text/event-stream" => format!("{}\n\n", self.body).into_bytes(),
            None => self.body.clone().into_bytes(),
        }
    }

    /// What the server was sent. Of its headers those that differ from call to call, or say nothing, are left out.
    pub(super) fn of_request(request: &WireRequest) -> Self {
        const PLAIN: [&str; 4] = ["host", "content-length", "accept-encoding", "x-request-id"];
        let says = |(name, value): &&(String, String)| {
            !PLAIN.contains(&name.as_str()) && (name != "content-type" || value != "application/json")
        };
        let body = String::from_utf8_lossy(&request.body).replace("\r\n", "\n");
        Self {
            line: format!("{} {}", request.method, request.path),
            headers: request.headers.iter().filter(says).cloned().collect(),
            body: body.trim_end().to_owned(),
        }
    }

    /// With JSON in one form, whatever the order of its members, alone or in events.
    fn settled(&self) -> (String, Vec<(String, String)>, String) {
        let settle =
            |text: &str| serde_json::from_str::<Value>(text).map_or_else(|_| text.to_owned(), |json| json.to_string());
        let line = |line: &str| match line.strip_prefix("data: ") {
            Some(data) => format!("data: {}", settle(data)),
            None => settle(line),
        };
        (self.line.clone(), self.headers.clone(), self.body.lines().map(line).collect::<Vec<_>>().join("\n"))
    }

    fn write(&self, name: &str) -> String {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        let body = if self.body.is_empty() { String::new() } else { format!("{}\n", self.body) };
        format!("== {name} {}\n{headers}{body}\n", self.line)
    }
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.settled() == other.settled()
    }
}

impl Exchange {
    pub(super) fn is(&self, other: &Self) -> bool {
        self.sent == other.sent && self.told == other.told
    }
}

impl Transcript {
    /// Reads a file.
    pub(super) fn read(text: &str) -> Self {
        let mut found = Self::default();
        let (head, rest) = text.split_once("\n== ").expect("a transcript has sections, which begin with `== `");
        for line in head.lines() {
            if let Some(settings) = line.strip_prefix("settings: ") {
                let pair = |pair: &str| pair.split_once(' ').map(|(name, value)| (name.to_owned(), value.to_owned()));
                found.settings = settings.split(", ").map(|said| pair(said).expect("a name and a value")).collect();
            } else if !line.is_empty() {
                assert!(line.starts_with("# "), "neither a remark nor `settings: `: {line}");
                found.shows += &format!("{line}\n");
            }
        }
        for section in rest.split("\n== ") {
            let (line, body) = section.split_once('\n').unwrap_or((section, ""));
            let (name, line) = NAMES
                .iter()
                .find_map(|name| line.strip_prefix(name).map(|line| (*name, line.trim_start())))
                .unwrap_or_else(|| panic!("no section is called `{line}`"));
            found.add(name, part(line, body));
        }
        assert!(!found.shows.is_empty(), "a transcript begins with what it shows");
        found
    }

    fn add(&mut self, name: &str, part: Part) {
        if name == CLIENT {
            self.exchanges.push(Exchange::default());
        }
        let exchange = self.exchanges.last_mut().expect("a client asks first");
        match name {
            SENT => exchange.sent.push(part),
            ANSWERS => exchange.answers.push(part),
            TOLD => exchange.told = part,
            _ => exchange.client = part,
        }
    }

    /// As it would stand in its file.
    pub(super) fn write(&self) -> String {
        let settings: Vec<_> = self.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let settings = if settings.is_empty() { String::new() } else { format!("settings: {}\n", settings.join(", ")) };
        let mut out = format!("{}{settings}\n", self.shows);
        for Exchange { client, sent, answers, told } in &self.exchanges {
            out += &client.write(CLIENT);
            for at in 0..sent.len().max(answers.len()) {
                out += &sent.get(at).map(|part| part.write(SENT)).unwrap_or_default();
                out += &answers.get(at).map(|part| part.write(ANSWERS)).unwrap_or_default();
            }
            out += &told.write(TOLD);
        }
        format!("{}\n", out.trim_end())
    }
}

const CLIENT: &str = "client asks";
const SENT: &str = "server gets";
const ANSWERS: &str = "server answers";
const TOLD: &str = "client gets";
const NAMES: [&str; 4] = [CLIENT, SENT, ANSWERS, TOLD];

fn part(line: &str, body: &str) -> Part {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let (mut headers, mut rest) = (Vec::new(), body);
    while let Some((first, more)) = rest.split_once('\n') {
        let Some((name, value)) =
            first.split_once(": ").filter(|(name, _)| is_name(name) && !NO_HEADERS.contains(name))
        else {
            break;
        };
        headers.push((name.to_owned(), value.to_owned()));
        rest = more;
    }
    Part { line: line.to_owned(), headers, body: rest.trim_end().to_owned() }
}

/// How bodies begin that are no headers.
const NO_HEADERS: [&str; 3] = ["data", "event", "base64"];
