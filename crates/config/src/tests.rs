//! Holds: what a configuration must accept, refuse and say.

use batchin_domain::{Class, Measure, Rate, Tariff};
use batchin_upstream::Fim;
use insta::assert_snapshot;
use secrecy::ExposeSecret as _;

use super::*;

mod money_in;
mod workflows;

/// Reads `text` as a file named `batchin.toml`, with these variables.
fn load_with(text: &str, variables: &[(&str, &str)], flags: Flags) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("batchin.toml");
    std::fs::write(&path, text).unwrap();
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment = variables.iter().map(owned).collect();
    Config::load(&Sources { file: Some(path.clone()), environment, flags })
        .map_err(|error| error.to_string().replace(&path.display().to_string(), "batchin.toml"))
}

fn load(text: &str) -> Result<Config, String> {
    load_with(text, &[], Flags::default())
}

fn faults(text: &str) -> String {
    load(text).map(|_| "no faults".to_owned()).unwrap_or_else(|faults| faults)
}

fn defaults() -> Config {
    Config::load(&Sources::default()).unwrap()
}

/// All that can be compared, as text; secrets show as `[REDACTED]`.
fn shown(config: &Config) -> String {
    format!("{config:#?}")
}

#[test]
fn the_example_equals_the_defaults() {
    let (example, defaults) = (load(&example()).unwrap(), defaults());
    assert_eq!(shown(&example), shown(&defaults));
    assert_eq!(example.upstreams, defaults.upstreams, "of which a debug print shows the names");
}

#[test]
fn every_setting_of_the_example_is_known_also_when_switched_on() {
    let is_setting = |line: &str| {
        line.starts_with('[') || line.split_once(" = ").is_some_and(|(name, _)| !name.contains([' ', '\'', '`']))
    };
    let active = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if is_setting(rest) => rest.to_owned(),
        _ => line.to_owned(),
    };
    let text = example().lines().map(active).collect::<Vec<_>>().join("\n");
    let faults = Collector::default();
    SCHEMA.check_keys(&Document::parse(&text, &faults), &faults);
    assert_eq!(faults.finish(), []);
    for name in ["tls_cert_file", "internal_token_file", "otlp_endpoint", "[[upstreams]]", "[models.pricing.batch]"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is in the example");
    }
}

#[test]
fn without_a_file_the_embedded_defaults_are_served() {
    let config = defaults();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.database.url, DatabaseUrl::Sqlite("data/batchin.db".into()));
    assert_eq!(config.blobs, BlobsPlace::Folder("data/blobs".into()));
    assert_eq!(config.server.roles, Roles { api: true, worker: true });
    assert_eq!(config.engine.models, ["smollm2-135m-instruct", "all-minilm-l6-v2", "piper-en-us-joe", "espeak-ng"]);
    let prices: Vec<_> = config.models.iter().map(|model| (model.id.as_str(), model.prices.standard())).collect();
    let tariff = |input, output| Tariff::of_tokens(Rate::from_pico(input), Rate::from_pico(output));
    let spoken = |characters| Tariff::FREE.with(Measure::Characters, Rate::from_pico(characters));
    assert_eq!(
        prices,
        [
            ("smollm2-135m-instruct", tariff(20_000, 80_000)),
            ("all-minilm-l6-v2", tariff(10_000, 0)),
            ("piper-en-us-joe", spoken(4_000_000)),
            ("espeak-ng", spoken(1_000_000)),
        ]
    );
    assert!(config.is_engine_needed());
    assert_eq!(config.warnings(), Vec::<String>::new());
}

#[test]
fn all_faults_come_at_once_with_their_lines() {
    let text = r#"
[server]
lisen = "127.0.0.1:8080"
roles = ["api", "boss"]
max_in_flight = 0
max_body_bytes = "big"

[keys]
default_rate_limit_rpm = 1.5

[audit]
level = 1
origin = "a b"

[[upstreams]]
name = "gpu-1"
kind = "vllm"
base_url = "ftp://10.0.0.5"
api_key_file = "/nonexistent/key"

[[upstreams]]
name = "gpu-1"
kind = "cosyvoice"
base_url = "http://10.0.0.6"

[[models]]
id = "a"
aliases = ["b"]
upstreams = ["gpu-2"]
capabilities = ["chat", "images", "speech"]
context_length = 100
max_output_tokens = 200
[models.pricing]
std_input = 0.02

[[models]]
id = "b"
upstreams = ["gpu-1"]
capabilities = ["embeddings"]
context_length = 100
[models.pricing]
std_input = 0.0000001
[models.pricing.batch]
low = 0
fil = 0.2
"#;
    assert_snapshot!(faults(text), @r#"
    batchin.toml:3:1: unknown key server.lisen; did you mean listen?
    batchin.toml:4:17: server.roles "boss" is none of api, worker
    batchin.toml:5:17: server.max_in_flight 0 is out of range: 1 to 1000000
    batchin.toml:6:18: server.max_body_bytes must be a whole number, not a text
    batchin.toml:9:26: keys.default_rate_limit_rpm must be a whole number, not a number
    batchin.toml:12:1: unknown key audit.level; did you mean log.level?
    batchin.toml:13:10: audit.origin must be 1 to 255 characters without blanks and +, such as "api.example.com/audit/log"
    batchin.toml:18:12: upstreams[0].base_url must begin with http:// or https:// or unix:/
    batchin.toml:19:16: upstreams[0].api_key cannot read /nonexistent/key: there is no such file
    batchin.toml:22:8: upstreams[1].name "gpu-1" is the name of another upstream
    batchin.toml:26:1: models[0].pricing.characters is missing; speech needs a price, such as 15.0 (or pricing.audio_second)
    batchin.toml:26:1: models[0].pricing.image is missing; images needs a price, such as 0.003
    batchin.toml:26:1: models[0].pricing.std_output is missing; chat needs a price, such as 0.08
    batchin.toml:29:14: there is no upstream "gpu-2"; did you mean "gpu-1"?
    batchin.toml:32:21: models[0].max_output_tokens is above context_length (100)
    batchin.toml:37:6: "b" already names the model "a"
    batchin.toml:39:17: upstream "gpu-1" is of kind cosyvoice, which cannot do "embeddings"; kinds that can: openai, vllm, sglang, llamacpp, ollama, vllm-omni, embedded
    batchin.toml:42:13: models[1].pricing.std_input must have at most 6 decimals
    batchin.toml:44:7: models[1].pricing.batch.low must be above 0; nothing is served for free
    batchin.toml:45:1: unknown key pricing.batch.fil; did you mean fill?
    "#);
}

#[test]
fn broken_toml_names_every_broken_line() {
    assert_snapshot!(faults("[server]\nlisten = \nroles = [\"api\"\n\n[keys]\ncolour = 1\n[keys]\n"), @r#"
    batchin.toml:2:10: not valid TOML: string values must be quoted, expected literal string
    batchin.toml:5:1: not valid TOML: missing comma between array elements, expected `,`
    batchin.toml:6:1: not valid TOML: missing comma between array elements, expected `,`
    batchin.toml:7:1: not valid TOML: missing comma between array elements, expected `,`
    "#);
}

#[test]
fn a_section_of_the_wrong_form_is_named() {
    assert_snapshot!(faults("server = 3\nmodels = []\nupstreams = \"x\"\n[model]\nid = \"x\"\n"), @r#"
    batchin.toml:1:10: server is a table: write [server], not a number
    batchin.toml:3:13: upstreams is a list: write [[upstreams]] with two brackets
    batchin.toml:4:2: unknown key model; did you mean models?
    "#);
}

#[test]
fn a_key_of_another_section_is_named_in_full() {
    assert_snapshot!(faults("[server]\nconcurrency = 4\n"), @r#"
    batchin.toml:2:1: unknown key server.concurrency; did you mean batches.concurrency?
    "#);
}

#[test]
fn a_server_without_room_for_anybody_is_a_fault() {
    let text = "[server]\nmax_connections = 0\nmax_address_percent = 101\n";
    assert_snapshot!(faults(text), @r"
    batchin.toml:2:19: server.max_connections 0 is out of range: 16 to 1000000
    batchin.toml:3:23: server.max_address_percent 101 is out of range: 1 to 100
    ");
    let text = "[server]\nmax_connections = 20\nmax_address_percent = 100\n";
    let server = load(text).unwrap().server;
    assert_eq!((server.max_connections, server.max_address_percent), (20, 100));
}

#[test]
fn flags_come_over_variables_over_the_file() {
    let text = "[server]\nlisten = \"127.0.0.1:1\"\nmax_in_flight = 5\ndata_dir = \"file\"\n";
    let variables = [("BATCHIN_SERVER__LISTEN", "127.0.0.1:2"), ("BATCHIN_SERVER__MAX_IN_FLIGHT", "6")];
    let config = load_with(text, &variables, Flags::default()).unwrap();
    assert_eq!((config.server.listen.port(), config.server.gateway.max_in_flight), (2, 6));
    let flags = Flags { listen: Some("127.0.0.1:3".to_owned()), roles: Some("worker".to_owned()), ..Flags::default() };
    let config = load_with(text, &variables, flags).unwrap();
    assert_eq!((config.server.listen.port(), config.server.gateway.max_in_flight), (3, 6));
    assert_eq!(config.server.roles, Roles { api: false, worker: true });
}

#[test]
fn the_data_folder_moves_the_default_database_and_blobs_with_it() {
    let flags = Flags { data: Some("/srv/b".to_owned()), ..Flags::default() };
    let config = load_with("", &[], flags.clone()).unwrap();
    assert_eq!(config.database.url, DatabaseUrl::Sqlite("/srv/b/batchin.db".into()));
    assert_eq!(config.blobs, BlobsPlace::Folder("/srv/b/blobs".into()));
    let config = load_with("[database]\nurl = \"postgres://u:p@h/d\"\n", &[], flags).unwrap();
    assert_eq!(config.database.url.connection().expose_secret(), "postgres://u:p@h/d");
    assert!(!shown(&config).contains("u:p@h"), "a password is not printed");
}

#[test]
fn a_variable_that_is_no_setting_is_a_fault() {
    let variables = [
        ("BATCHIN_SERVER__LISEN", "x"),
        ("BATCHIN_SERVER_LISTEN", "x"),
        ("BATCHIN_MODELS__0__ID", "x"),
        ("BATCHIN_SERVER__MAX_IN_FLIGHT", "many"),
        ("BATCHIN_USERS__PUBLIC_LOOKUP", "perhaps"),
        ("BATCHIN_API_KEY", "batchin_api_x"),
        ("BATCHIN_BASE_URL", "http://127.0.0.1:8080"),
        ("BATCHIN_SERVER__ROLES", ""),
    ];
    assert_snapshot!(load_with("", &variables, Flags::default()).unwrap_err(), @r#"
    BATCHIN_MODELS__0__ID: models, upstreams and usdc.chains can only be set in the file
    BATCHIN_SERVER_LISTEN: is no setting; did you mean BATCHIN_SERVER__LISTEN?
    BATCHIN_SERVER__LISEN: is no setting; did you mean BATCHIN_SERVER__LISTEN?
    BATCHIN_SERVER__MAX_IN_FLIGHT: server.max_in_flight must be a whole number, not a text
    BATCHIN_USERS__PUBLIC_LOOKUP: users.public_lookup must be true or false, without quotes, not a text
    "#);
}

#[test]
fn a_secret_comes_from_its_file_and_is_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "s3cret\n").unwrap();
    let text = format!("[users]\ninternal_token_file = \"{}\"\n", path.display());
    let config = load(&text).unwrap();
    assert_eq!(config.users.internal_token.as_ref().unwrap().expose_secret(), "s3cret");
    assert!(!shown(&config).contains("s3cret"));
    let both = format!("{text}internal_token = \"other\"\n");
    assert!(faults(&both).contains("keep one"), "{}", faults(&both));
    // A variable replaces the file's other form instead of meeting it.
    let config = load_with(&text, &[("BATCHIN_USERS__INTERNAL_TOKEN", "third")], Flags::default()).unwrap();
    assert_eq!(config.users.internal_token.unwrap().expose_secret(), "third");
}

#[test]
fn webhooks_reach_what_the_operator_opens() {
    let text = "[webhooks]\nallow_http = true\nallow_cidrs = [\"10.1.0.0/16\", \"::1\"]\nretention_days = 2\n";
    let webhooks = load(text).unwrap().webhooks;
    assert!(webhooks.targets.allow_http);
    assert_eq!(webhooks.targets.allow, ["10.1.0.0/16".parse().unwrap(), "::1/128".parse().unwrap()]);
    assert_eq!(webhooks.targets.own, ["127.0.0.1/32".parse().unwrap()], "what it listens on");
    assert_eq!(load("server.listen = \"0.0.0.0:80\"").unwrap().webhooks.targets.own, []);
    assert_eq!(webhooks.retention.as_secs(), 2 * 24 * 3_600);
    assert_snapshot!(faults("[server]\nsecret_key = \"short\"\n[webhooks]\nown_cidrs = [\"10.1\"]\nallow_htp = true\n"), @r#"
    batchin.toml:2:14: server.secret_key must have at least 32 characters, all of them random
    batchin.toml:4:14: webhooks.own_cidrs: "10.1" is no address or network such as 10.0.0.0/8
    batchin.toml:5:1: unknown key webhooks.allow_htp; did you mean allow_http?
    "#);
}

#[test]
fn several_nodes_are_told_to_share_their_secret_key() {
    let postgres = ("BATCHIN_DATABASE__URL", "postgres://u:p@h/d");
    let config = load_with("", &[postgres], Flags::default()).unwrap();
    assert!(config.warnings()[0].starts_with("server.secret_key is not set"), "{:?}", config.warnings());
    let key = ("BATCHIN_SERVER__SECRET_KEY", "0123456789abcdef0123456789abcdef");
    let config = load_with("", &[postgres, key], Flags::default()).unwrap();
    assert_eq!(config.warnings(), Vec::<String>::new());
    assert!(!shown(&config).contains("0123456789"), "a key is not printed");
}

#[test]
fn nothing_is_served_for_free_by_accident() {
    let model = |capabilities: &str, pricing: &str| {
        format!(
            "[[upstreams]]\nname = \"any\"\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1\"\n\
             [[models]]\nid = \"m\"\nupstreams = [\"any\"]\ncapabilities = {capabilities}\ncontext_length = 10\n\
             [models.pricing]\n{pricing}\n"
        )
    };
    let cases = [
        ("[\"chat\"]", "std_input = 0.1\nstd_output = 0.2", true),
        ("[\"chat\"]", "std_input = 0\nstd_output = 0.2", true),
        ("[\"embeddings\"]", "std_input = 0.1", true),
        ("[\"chat\"]", "std_input = 0.1", false),
        ("[\"chat\"]", "std_output = 0.1", false),
        ("[\"chat\", \"embeddings\"]", "std_input = 0.1", false),
        ("[\"embeddings\"]", "", false),
        ("[\"embeddings\"]", "std_input = 0", false),
        ("[\"embeddings\"]", "std_input = 0\ncached_input = 0.1\ncache_write = 0.1", false),
        ("[\"embeddings\"]", "std_input = 0.1\ncached_input = 0", true),
        ("[\"embeddings\"]", "std_input = -1", false),
        ("[\"chat\"]", "std_input = 0.1\nstd_output = 0.2\nbatch.fill = 0.0", false),
        ("[\"speech\"]", "characters = 15", true),
        ("[\"speech\"]", "audio_second = 0.0001", true),
        ("[\"speech\"]", "characters = 0", false),
        ("[\"speech\"]", "characters = 0\naudio_second = 0.000000000001", true),
        ("[\"speech\"]", "audio_second = 0.0000000000001", false),
        ("[\"speech\"]", "std_input = 1", false),
        ("[\"rerank\"]", "search = 0.001", true),
        ("[\"rerank\"]", "std_input = 0.01", true),
        ("[\"embeddings\", \"rerank\"]", "search = 0.001", false),
        ("[\"chat\", \"speech\"]", "std_input = 0.1\nstd_output = 0.2", false),
        ("[\"chat\", \"embeddings\"]", "std_input = 0\nstd_output = 0.2", true),
    ];
    for (capabilities, pricing, is_fine) in cases {
        assert_eq!(load(&model(capabilities, pricing)).is_ok(), is_fine, "{capabilities} {pricing}");
    }
}

#[test]
fn a_model_can_do_what_each_of_its_servers_can() {
    let text = |capability: &str, kind: &str| {
        format!(
            "[[upstreams]]\nname = \"a\"\nkind = \"{kind}\"\nbase_url = \"http://127.0.0.1:1\"\n\
             [[models]]\nid = \"m\"\nupstreams = [\"a\"]\ncapabilities = [\"{capability}\"]\ncontext_length = 10\n\
             [models.pricing]\nstd_input = 1\nstd_output = 1\ncharacters = 1\n"
        )
    };
    for (capability, kind, can) in [
        ("speech", "openai", true),
        ("speech", "vllm-omni", true),
        ("speech", "cosyvoice", true),
        ("speech", "vllm", false),
        ("chat", "cosyvoice", false),
        ("rerank", "ollama", false),
    ] {
        assert_eq!(load(&text(capability, kind)).is_ok(), can, "{capability} on {kind}");
    }
    let fault = "8:17: upstream \"a\" is of kind vllm, which cannot do \"speech\"; kinds that can: openai, vllm-omni, cosyvoice, embedded";
    assert!(faults(&text("speech", "vllm")).contains(fault), "{}", faults(&text("speech", "vllm")));
}

#[test]
fn a_cache_costs_what_the_prompt_does_unless_it_has_a_price() {
    let tariff = |pricing: &str| {
        let text = format!(
            "[[models]]\nid = \"m\"\nupstreams = [\"engine\"]\ncapabilities = [\"chat\"]\ncontext_length = 10\n\
             [models.pricing]\nstd_input = 0.02\nstd_output = 0.08\n{pricing}\n"
        );
        load(&text).unwrap().models[0].prices
    };
    let plain = Tariff::of_tokens(Rate::from_pico(20_000), Rate::from_pico(80_000));
    let cached = plain.with(Measure::CachedTokens, Rate::from_pico(5_000));
    assert_eq!(tariff("").standard(), plain);
    assert_eq!(tariff("cached_input = 0.005").standard(), cached);
    let both = tariff("cached_input = 0.005\ncache_write = 0.025");
    assert_eq!(both.standard(), cached.with(Measure::CacheWriteTokens, Rate::from_pico(25_000)));
    let low = both.in_class(Class::Low);
    assert_eq!(low.rate(Measure::CachedTokens), Rate::from_pico(2_500));
    assert_eq!(low.rate(Measure::CacheWriteTokens), Rate::from_pico(12_500));
}

#[test]
fn the_lookup_is_open_on_loopback_without_a_proxy_only() {
    let open = |text: &str| load(text).unwrap().is_lookup_open();
    assert!(open(""));
    assert!(open("[server]\npublic_url = \"http://localhost:9000\"\n"));
    assert!(open("[server]\npublic_url = \"http://[::1]:9000\"\n"));
    assert!(!open("[users]\ninternal_token = \"t\"\n"));
    for reached in [
        "listen = \"0.0.0.0:80\"",
        "trusted_proxies = [\"127.0.0.1\"]",
        "public_url = \"https://batchin.example.com\"",
        "public_url = \"http://203.0.113.9:8080\"",
    ] {
        let config = load(&format!("[server]\n{reached}\n")).unwrap();
        assert!(!config.is_lookup_open(), "{reached}");
        assert!(config.warnings()[0].starts_with("the look-up by email answers 401"), "{:?}", config.warnings());
        let config = load(&format!("[server]\n{reached}\n[users]\npublic_lookup = true\n")).unwrap();
        assert!(config.is_lookup_open(), "{reached}");
        assert_eq!(config.warnings().len(), 1);
        assert!(config.warnings()[0].starts_with("users.public_lookup is on"), "{:?}", config.warnings());
        let config = load(&format!("[server]\n{reached}\n[users]\ninternal_token = \"t\"\n")).unwrap();
        assert_eq!((config.is_lookup_open(), config.warnings().len()), (false, 0), "{reached}");
    }
}

#[test]
fn an_upstream_is_an_address_that_can_be_called() {
    let upstream = |name: &str, url: &str, key: &str| {
        load(&format!("[[upstreams]]\nname = \"{name}\"\nkind = \"vllm\"\nbase_url = \"{url}\"\napi_key = \"{key}\"\n"))
    };
    let config = upstream("gpu-1", "unix:/run/vllm.sock", "k").unwrap();
    let mut built = UpstreamConfig::new("gpu-1", batchin_upstream::Kind::VLLM, "unix:/run/vllm.sock").unwrap();
    built.api_key = Some("k".into());
    assert_eq!(config.upstreams[0], built);
    for (name, url, key) in [
        ("gpu 1", "http://h/v1", "k"),
        ("engine", "http://h/v1", "k"),
        ("gpu-1", "http://user:password@h/v1", "k"),
        ("gpu-1", "http://h/v1?x=1", "k"),
        ("gpu-1", "http://", "k"),
        ("gpu-1", "h:8000", "k"),
        ("gpu-1", "unix:vllm.sock", "k"),
        ("gpu-1", "http://h/v1", "a b"),
        ("gpu-1", "http://h/v1", ""),
    ] {
        let faults = upstream(name, url, key).unwrap_err();
        assert_eq!(faults.lines().count(), 1, "{name} {url} {key:?}: {faults}");
        assert!(!faults.contains("password") && !faults.contains("a b"), "{faults}");
    }
}

#[test]
fn the_engine_runs_only_for_models_that_need_it() {
    let remote = "[[upstreams]]\nname = \"u\"\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
                  [[models]]\nid = \"m\"\nupstreams = [\"u\"]\ncapabilities = [\"embeddings\"]\ncontext_length = 10\n\
                  pricing.std_input = 1\n";
    let config = load(remote).unwrap();
    assert!(!config.is_engine_needed());
    assert!(config.engine.models.is_empty());
    let config = load("[engine]\nenabled = false\n").unwrap();
    assert!(config.models.is_empty() && !config.is_engine_needed());
    assert_eq!(config.warnings().len(), 1);
}

#[test]
fn voices_are_names_and_files() {
    let voices = |list: &str| load(&format!("[engine]\nvoices = {list}\n"));
    let read = voices(r#"["amy=/v/en_US-amy-medium.onnx", "b = b.onnx"]"#).unwrap();
    assert_eq!(read.engine.voices, [("amy".into(), "/v/en_US-amy-medium.onnx".into()), ("b".into(), "b.onnx".into())]);
    for wrong in
        [r#"["amy"]"#, r#"["=a.onnx"]"#, r#"["a=b.gguf"]"#, r#"["a=b,kind=embed.onnx"]"#, r#"["a=b.onnx", "a=c.onnx"]"#]
    {
        let faults = voices(wrong).unwrap_err().to_string();
        assert_eq!(faults.lines().count(), 1, "{wrong}: {faults}");
    }
}

#[test]
fn a_mistyped_level_is_a_fault_and_not_the_name_of_a_module() {
    for level in ["info", "WARN", "off", "info,batchin_gateway=debug", "info,[span]=debug"] {
        assert_eq!(faults(&format!("log.level = \"{level}\"")), "no faults", "{level}");
    }
    for (level, part) in [
        ("inof", "inof"),
        ("verbose", "verbose"),
        ("info,batchin_gateway", "batchin_gateway"),
        ("info,a=dbug", "a=dbug"),
    ] {
        let said = faults(&format!("[log]\nlevel = \"{level}\""));
        assert!(
            said.starts_with(&format!("batchin.toml:2:9: log.level \"{part}\" is no level (off, error,")),
            "{said}"
        );
    }
    assert!(faults("log.level = \"info,\"").contains("is no level"));
}

#[test]
fn a_price_below_zero_is_a_fault_in_its_own_words() {
    let priced = |prices: &str| {
        faults(&format!(
            "[[models]]\nid = \"m\"\nupstreams = [\"engine\"]\ncapabilities = [\"chat\"]\ncontext_length = 10\n\
             [models.pricing]\n{prices}\n"
        ))
    };
    let fine = "std_input = 1\nstd_output = 1\n";
    assert_eq!(priced(fine), "no faults");
    for (prices, said) in [
        (
            "std_input = -1\nstd_output = 1",
            "7:13: models[0].pricing.std_input must be a decimal number of dollars, zero or more",
        ),
        (
            "std_input = 1\nstd_output = -0.5",
            "8:14: models[0].pricing.std_output must be a decimal number of dollars, zero or more",
        ),
        ("std_input = inf\nstd_output = 1", "7:13: models[0].pricing.std_input must be a decimal number of dollars"),
        (
            "std_input = 1\nstd_output = 1\ncached_input = -0.1",
            "9:16: models[0].pricing.cached_input must be a decimal number of dollars, zero or more",
        ),
        (
            "std_input = 1\nstd_output = 1\ncache_write = 0.0000001",
            "9:15: models[0].pricing.cache_write must have at most 6 decimals",
        ),
    ] {
        assert!(priced(prices).starts_with(&format!("batchin.toml:{said}")), "{}", priced(prices));
    }
    for (factor, said) in [
        ("-0.5", "must be a factor on the standard price, a decimal number above 0"),
        ("nan", "must be a factor on the standard price"),
        ("0", "must be above 0; nothing is served for free"),
        ("0.1234567", "must have at most 6 decimals"),
        ("99999999", "is too large for a factor"),
    ] {
        let found = priced(&format!("{fine}[models.pricing.batch]\nlow = {factor}"));
        assert!(
            found.starts_with(&format!("batchin.toml:10:7: models[0].pricing.batch.low {said}")),
            "{factor}: {found}"
        );
    }
}

#[test]
fn odd_forms_are_faults_and_never_a_panic() {
    let odd = [
        "models = [1, {}]",
        "[[server]]",
        "server.listen = {a = 1}",
        "[[models]]\npricing = 3",
        "[[models]]\npricing.batch = []",
        "[[models]]\nid = 3\naliases = \"x\"\nupstreams = [1]\ncapabilities = [[]]",
        "upstreams = [[]]",
        "server.max_in_flight = 99999999999999999999999",
        "server.max_in_flight = 0xffffffffffffffffffffff",
        "server.max_in_flight = -1",
        "server.max_in_flight = 1979-05-27",
        "server.trusted_proxies = [\"10.0.0.0/99\"]",
        "server.roles = []",
        "server.tls_cert_file = \"/nonexistent\"",
        "database.url = \"mysql://h/d\"",
        "database.url = 3",
        "blobs.url = \"s3://\"",
        "log.level = \"info,=,=\"",
        "log.format = \"xml\"",
        "users.internal_token_file = \"/nonexistent\"",
        "\"\" = 1",
        "ä = 1",
        "\u{0}",
        "[server",
    ];
    for text in odd {
        let said = load(text).map(|_| ()).unwrap_err();
        assert!(said.lines().all(|line| line.starts_with("batchin.toml:")), "{text}: {said}");
    }
}

#[test]
fn databases_and_blobs_are_told_apart_by_their_addresses() {
    let config = load("database.url = \"sqlite://x/y.db?mode=rwc\"\nblobs.url = \"s3://bucket/a/b/\"\n").unwrap();
    assert_eq!(config.database.url, DatabaseUrl::Sqlite("x/y.db".into()));
    assert_eq!(config.database.url.connection().expose_secret(), "sqlite:x/y.db?mode=rwc");
    assert_eq!(config.blobs, BlobsPlace::S3 { bucket: "bucket".to_owned(), prefix: "a/b".to_owned() });
}

#[test]
fn how_a_model_fills_in_the_middle_is_said_or_told_by_its_name() {
    let model = |members: &str| {
        format!(
            "[[upstreams]]\nname = \"a\"\nkind = \"vllm\"\nbase_url = \"http://a\"\n[[models]]\nid = \"code\"\n\
             upstreams = [\"a\"]\ncapabilities = [\"completions\"]\ncontext_length = 100\n{members}\n\
             [models.pricing]\nstd_input = 1\nstd_output = 1\n"
        )
    };
    let fim = |members: &str| load(&model(members)).unwrap().models[0].fim;
    let qwen = "upstream_model = \"Qwen/Qwen2.5-Coder-7B\"";
    assert_eq!((fim(""), fim(qwen)), (Fim::Usual(None), Fim::usual("qwen2.5-coder")));
    assert_eq!(Some(fim(&format!("{qwen}\nfim = \"seed\""))), Fim::named("seed"));
    assert_eq!(fim(&format!("{qwen}\nfim = \"none\"")), Fim::Off);
    assert_snapshot!(faults(&model("fim = \"qwem\"")), @r#"batchin.toml:10:7: models[0].fim "qwem" is none of qwen, starcoder, codellama, deepseek, codestral, granite, seed, codegemma, server, none"#);
}

/// Models with these fallbacks.
fn with_fallbacks(models: &[(&str, &str, &str)]) -> String {
    let model = |(id, capabilities, fallback): &(&str, &str, &str)| {
        format!(
            "[[models]]\nid = \"{id}\"\nupstreams = [\"gpu-1\"]\ncapabilities = [{capabilities}]\ncontext_length = 100\n{fallback}\n\
             [models.pricing]\nstd_input = 0.02\nstd_output = 0.08\n"
        )
    };
    let upstream = "[[upstreams]]\nname = \"gpu-1\"\nkind = \"vllm\"\nbase_url = \"http://10.0.0.5\"\n".to_owned();
    std::iter::once(upstream).chain(models.iter().map(model)).collect()
}

#[test]
fn a_fallback_is_another_model_that_can_do_as_much() {
    let chat = "\"chat\"";
    let circle = [("a", chat, "fallback = \"b\""), ("b", chat, "fallback = \"c\""), ("c", chat, "fallback = \"b\"")];
    assert_snapshot!(faults(&with_fallbacks(&circle)), @r#"
    batchin.toml:19:12: models[1].fallback "c" leads back to "b"
    batchin.toml:28:12: models[2].fallback "b" leads back to "c"
    "#);
    let alone = [("alpha", chat, "fallback = \"alpha\""), ("beta", chat, "fallback = \"alpa\"")];
    assert_snapshot!(faults(&with_fallbacks(&alone)), @r#"
    batchin.toml:10:12: models[0].fallback "alpha" leads back to "alpha"
    batchin.toml:19:12: models[1].fallback "alpa" is the id of no model; did you mean "alpha"?
    "#);
    let less = [("a", "\"chat\", \"completions\"", "fallback = \"b\""), ("b", chat, "")];
    assert_snapshot!(faults(&with_fallbacks(&less)), @r#"batchin.toml:10:12: models[0].fallback "b" lacks the capability "completions""#);
    let fine = [
        ("a", "\"chat\", \"messages\"", "fallback = \"b\""),
        ("b", "\"chat\", \"completions\"", "fallback = \"c\""),
        ("c", "\"completions\", \"chat\"", ""),
    ];
    let config = load(&with_fallbacks(&fine)).unwrap();
    assert_eq!(config.models[0].fallback.as_deref(), Some("b"));
}
