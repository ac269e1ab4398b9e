//! Holds: the command line: what can be typed, and the commands that need no store.
//!
//! Exit codes are 0 for done, 1 for failed and 2 for misused; clap itself answers 2 to what it cannot parse.

pub mod audit;
pub mod config;
pub mod doctor;
pub mod manual;
mod upstreams;

use std::path::PathBuf;

use batchin_batch_cli::BatchCommand;
use batchin_config::{Flags, Sources};
use batchin_domain::{Amount, KeyId};
use batchin_settings::Environment;
use clap::{Args, Parser, Subcommand};

pub use upstreams::Upstreams;

/// Requests a minute that a key may be given, as the API has it.
const RPM: std::ops::RangeInclusive<i64> = 1..=10_000_000;

/// A metered inference platform: OpenAI-compatible API, exact money, batches, embedded models.
#[derive(Debug, Parser)]
#[command(
    name = "batchin",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = "Examples:
  batchin serve                                   the server with its embedded defaults
  batchin user create ann@example.org --name Ann  a user; then a key, and credit
  batchin key create ann@example.org
  batchin credits grant ann@example.org 500 --reason welcome
  batchin batch run prompts.jsonl --model smollm2-135m-instruct

Exit codes: 0 done, 1 failed, 2 misused.")]
pub struct Cli {
    /// Configuration file; the embedded defaults without
    #[arg(long, global = true, env = "BATCHIN_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Folder of the default database, blobs and model weights
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<String>,
    /// sqlite:FILE or postgres://USER:PASSWORD@HOST/NAME
    #[arg(long, global = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    #[command(after_help = "Examples:
  batchin serve
  batchin serve --config batchin.toml
  batchin serve --listen 0.0.0.0:8080 --data /var/lib/batchin
  batchin serve --roles worker --database-url postgres://batchin@db/batchin

Prints `listening on http://ADDR` once it can answer. SIGHUP reloads models, prices and upstreams.")]
    Serve(Serve),
    /// What is done with the configuration alone
    #[command(flatten)]
    Configured(Configured),
    /// Submit and follow batches on a server
    // As far down as ledger: numbers are given in order, to the flags first, and among equals the names decide.
    #[command(display_order = 9)]
    Batch(BatchCommand),
    /// Check a configuration, or print an example
    #[command(subcommand)]
    Config(Config),
    /// Check records of the audit log, offline; change its key
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Say what is wrong with this installation
    #[command(after_help = "Examples:\n  batchin doctor\n  batchin doctor --config batchin.toml --json")]
    Doctor(Report),
    /// Print a script that completes commands in a shell
    #[command(after_help = "Examples:
  batchin completions bash > /etc/bash_completion.d/batchin
  batchin completions zsh > ~/.zfunc/_batchin
  batchin completions fish > ~/.config/fish/completions/batchin.fish")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command
    #[command(after_help = "Examples:\n  batchin man | man -l -\n  batchin man --dir /usr/local/share/man/man1")]
    Man {
        /// Folder for the pages of all commands; the first one is printed without
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// The embedded engine's own process
    #[command(hide = true, disable_help_flag = true)]
    Engine(Engine),
}

/// What is done to a database or with models: with the configuration, and beside a running server.
#[derive(Debug, Subcommand)]
pub enum Configured {
    /// Bring the database up to date and exit
    #[command(after_help = "Examples:\n  batchin migrate\n  batchin migrate --config batchin.toml")]
    Migrate,
    /// Make and list users, keep them out, let them in again
    #[command(subcommand)]
    User(User),
    /// Make and list API keys, change what they may, take them back
    #[command(subcommand)]
    Key(Key),
    /// Give credit, take back what was given in error, and list both
    #[command(subcommand)]
    Credits(Credits),
    /// What is served; fetch weights; probe upstreams
    #[command(subcommand)]
    Models(Models),
    /// Take model servers out and back
    #[command(subcommand)]
    Upstreams(Upstreams),
    /// Recompute the ledger
    #[command(subcommand)]
    Ledger(Ledger),
    /// Say where payments in USDC lie; have a chain read again
    #[command(subcommand)]
    Deposits(Deposits),
    /// Repair what webhooks are signed with
    #[command(subcommand)]
    Webhooks(Webhooks),
}

/// `batchin serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// Address and port, such as 127.0.0.1:8080; port 0 takes any free one
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// What this process does, separated by commas: api, worker
    #[arg(long, value_name = "ROLES")]
    pub roles: Option<String>,
    /// Refuse to start on a database that is not up to date, rather than bring it up to date
    #[arg(long)]
    pub no_migrate: bool,
}

/// `batchin user`
#[derive(Debug, Subcommand)]
pub enum User {
    /// Make a user
    #[command(after_help = "Examples:
  batchin user create ann@example.org --name Ann
  printf %s \"$PASSWORD\" | batchin user create ann@example.org --password-stdin --admin")]
    Create {
        /// Email, which names the user
        email: String,
        /// Name; the part of the email before the @ without
        #[arg(long)]
        name: Option<String>,
        /// Read the password from standard input; without, the user can log in only after one is set
        #[arg(long)]
        password_stdin: bool,
        /// Give the role admin
        #[arg(long)]
        admin: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List users: balance, and who is disabled or an admin
    #[command(after_help = "Examples:\n  batchin user list\n  batchin user list --json")]
    List(Report),
    /// Say everything about a user: balance, what of it is set aside, keys
    #[command(
        after_help = "Examples:\n  batchin user show ann@example.org\n  batchin user show ann@example.org --json"
    )]
    Show {
        /// Email, which names the user
        email: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Keep a user out: sessions and keys stop within a second, on every node; batches that were submitted go on
    #[command(after_help = "Examples:\n  batchin user disable ann@example.org")]
    Disable {
        /// Email, which names the user
        email: String,
    },
    /// Let a user in again: keys, and sessions that have not ended, work as before
    #[command(after_help = "Examples:\n  batchin user enable ann@example.org")]
    Enable {
        /// Email, which names the user
        email: String,
    },
}

/// `batchin key`
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a key and print it, alone, on standard output
    #[command(after_help = "Examples:
  batchin key create ann@example.org
  export BATCHIN_API_KEY=$(batchin key create ann@example.org --rpm 60 --budget-cents 1000)")]
    Create {
        /// Whose key
        email: String,
        /// What the key is called
        #[arg(long)]
        name: Option<String>,
        /// Requests a minute; the configured default without
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(RPM))]
        rpm: Option<u32>,
        /// US cents that may be spent in a month; no budget without
        #[arg(long, value_name = "N", value_parser = cents)]
        budget_cents: Option<Amount>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List a user's keys, newest first, without their secrets
    #[command(after_help = "Examples:\n  batchin key list ann@example.org\n  batchin key list ann@example.org --json")]
    List {
        /// Whose keys
        email: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a key back for good: it stops within a second, on every node; batches that it submitted go on
    #[command(after_help = "Examples:
  batchin key revoke 01890a5d-ac96-774b-bcce-b302099a8057")]
    Revoke {
        /// Id of the key, as `key list` prints it
        id: KeyId,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change what a key may; what is not named stays
    #[command(after_help = "Examples:
  batchin key limits 01890a5d-ac96-774b-bcce-b302099a8057 --rpm 600 --budget-cents 5000
  batchin key limits 01890a5d-ac96-774b-bcce-b302099a8057 --no-budget")]
    Limits {
        /// Id of the key, as `key list` prints it
        id: KeyId,
        /// What it may from now on
        #[command(flatten)]
        limits: KeyLimits,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What a key may.
#[derive(Debug, Clone, Copy, Args)]
#[group(required = true, multiple = true)]
pub struct KeyLimits {
    /// Requests a minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(RPM))]
    pub rpm: Option<u32>,
    /// US cents that may be spent in a month
    #[arg(long, value_name = "N", value_parser = cents)]
    pub budget_cents: Option<Amount>,
    /// As much as the account has
    #[arg(long, conflicts_with = "budget_cents")]
    pub no_budget: bool,
}

/// `batchin credits`
#[derive(Debug, Subcommand)]
pub enum Credits {
    /// Give a user credit; a number below 0 takes back what was given in error
    #[command(after_help = "Examples:
  batchin credits grant ann@example.org 500 --reason \"welcome\"
  batchin credits grant ann@example.org -200 --reason \"granted twice\"

No more is taken back than is there and not set aside for requests that run.")]
    Grant {
        /// Who gets it
        email: String,
        /// US cents, not 0
        #[arg(value_parser = credit, allow_negative_numbers = true)]
        cents: Credit,
        /// Why; kept with the grant
        #[arg(long)]
        reason: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What operators gave and took back, and why, newest first
    #[command(after_help = "Examples:
  batchin credits log
  batchin credits log --account ann@example.org --limit 500 --json")]
    Log {
        /// Of this user alone
        #[arg(long, value_name = "EMAIL")]
        account: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Print JSON, a line each
        #[arg(long)]
        json: bool,
    },
}

/// Credit that is given or taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credit {
    /// A grant.
    Given(Amount),
    /// A correction.
    TakenBack(Amount),
}

/// `batchin webhooks`
#[derive(Debug, Subcommand)]
pub enum Webhooks {
    /// Forget every account's webhook secret, once the server.secret_key that sealed them is lost
    #[command(after_help = "Examples:\n  batchin webhooks forget-secrets --yes

Accounts make new ones with POST /v1/webhooks/secret; the next delivery to an account without one makes one.")]
    ForgetSecrets {
        /// Say that it is meant
        #[arg(long)]
        yes: bool,
    },
}

/// `batchin models`
#[derive(Debug, Subcommand)]
pub enum Models {
    /// What is configured, its prices, and which weights can be fetched
    #[command(after_help = "Examples:\n  batchin models list\n  batchin models list --json")]
    List(Report),
    /// Fetch the weights of a known model
    #[command(
        after_help = "Examples:\n  batchin models pull smollm2-135m-instruct\n  batchin models pull best\n  batchin models pull best-coder"
    )]
    Pull {
        /// Name of the model, as `models list` shows it; `best` or `best-coder` for the largest that fits into half of this
        /// machine's memory
        name: String,
    },
    /// Probe every upstream
    #[command(after_help = "Examples:\n  batchin models check --config batchin.toml")]
    Check(Report),
}

/// `batchin ledger`
#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// Recompute the ledger and every invariant; exit code 1 on any difference
    #[command(after_help = "Examples:\n  batchin ledger check\n  batchin ledger check --json")]
    Check(Report),
}

/// `batchin deposits`
#[derive(Debug, Subcommand)]
pub enum Deposits {
    /// List every payment in USDC that is credited, or held since it is below the minimum, and lies at an address of yours
    #[command(after_help = "Examples:
  batchin deposits export
  batchin deposits export --json > deposits.jsonl

A line each: chain, address, its index below m/44'/60'/0'/0, token, base units, transaction, status, account. What you have
moved away since is listed still: the server holds no private key, and does not see what leaves.")]
    Export(Report),
    /// Have a chain read again from a block on, after a reorganisation that was too deep to be followed
    #[command(after_help = "Examples:
  batchin deposits restart base --from 24000000

Nodes that run go on from there. Payments from that block on that are not credited count again once they are seen again; those
that are credited stay so, and are to be compared with an explorer. It is told in the log of what operators did.")]
    Restart {
        /// The chain, as the configuration names it
        chain: String,
        /// The first block that is read: below the oldest one that was reorganised
        #[arg(long, value_name = "BLOCK", value_parser = clap::value_parser!(u64).range(1..))]
        from: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `batchin config`
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Say everything that is wrong with a file, each with its line
    #[command(after_help = "Examples:\n  batchin config check batchin.toml")]
    Check {
        /// The file
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a commented example of every setting
    #[command(after_help = "Examples:\n  batchin config example > batchin.toml")]
    Example,
}

/// A command that prints for people, or for programs.
#[derive(Debug, Clone, Copy, Args)]
pub struct Report {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `batchin engine`, which the server starts.
#[derive(Debug, Args)]
pub struct Engine {
    /// As the engine itself reads them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// An error with its causes, in one line for a person: `cannot read a.toml: permission denied`.
pub fn explain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl Cli {
    /// Where this command's configuration comes from.
    pub fn sources(&self, environment: Environment) -> Sources {
        let (listen, roles) = match &self.command {
            Command::Serve(serve) => (serve.listen.clone(), serve.roles.clone()),
            _ => (None, None),
        };
        let flags = Flags { listen, data: self.data.clone(), database_url: self.database_url.clone(), roles };
        Sources { file: self.config.clone(), environment, flags }
    }
}

fn cents(text: &str) -> Result<Amount, batchin_domain::money::ParseCentsError> {
    Amount::parse_cents(text)
}

fn credit(text: &str) -> Result<Credit, String> {
    let (amount, is_taken) = match text.strip_prefix('-') {
        Some(amount) => (cents(amount), true),
        None => (cents(text), false),
    };
    match amount.map_err(|error| error.to_string())? {
        Amount::ZERO => Err("must not be 0".to_owned()),
        amount if is_taken => Ok(Credit::TakenBack(amount)),
        amount => Ok(Credit::Given(amount)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_is_well_formed_and_shows_examples() {
        let command = Cli::command();
        command.clone().debug_assert();
        fn leaves(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().next().is_none() && !command.is_hide_set() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:"), "{path} has no examples");
                assert!(help.contains(path.trim()), "the examples of {path} do not name it");
            }
            command.get_subcommands().for_each(|child| leaves(child, &path));
        }
        leaves(&command, "");
    }

    #[test]
    fn batches_are_shown_before_what_is_only_for_repairs() {
        let help = Cli::command().render_help().to_string();
        let at = |name: &str| help.find(&format!("\n  {name} ")).unwrap();
        assert!(at("models") < at("batch") && at("batch") < at("ledger"), "{help}");
    }

    #[test]
    fn what_cannot_be_parsed_is_misuse() {
        for line in [
            "batchin",
            "batchin frobnicate",
            "batchin credits grant a@b 0 --reason x",
            "batchin credits grant a@b --5 --reason x",
            "batchin credits grant a@b -1e-9 --reason x",
            "batchin key create a@b --rpm 0",
            "batchin key limits 01890a5d-ac96-774b-bcce-b302099a8057",
            "batchin key limits 01890a5d-ac96-774b-bcce-b302099a8057 --rpm 0",
            "batchin key limits 01890a5d-ac96-774b-bcce-b302099a8057 --budget-cents 1 --no-budget",
            "batchin key revoke nonsense",
            "batchin completions cmd.exe",
            "batchin batch watch x --force",
            "batchin batch run f --priority urgent",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert_eq!(Cli::try_parse_from(["batchin", "--help"]).unwrap_err().exit_code(), 0);
    }

    #[test]
    fn credit_is_given_or_taken_back() {
        for (cents, expected) in [
            ("5", Credit::Given(Amount::from_cents(5))),
            ("-5", Credit::TakenBack(Amount::from_cents(5))),
            ("-0.5", Credit::TakenBack(Amount::parse_cents("0.5").unwrap())),
        ] {
            let cli = Cli::try_parse_from(["batchin", "credits", "grant", "a@b", cents, "--reason", "x"]).unwrap();
            let Command::Configured(Configured::Credits(Credits::Grant { cents, .. })) = cli.command else {
                panic!("another command")
            };
            assert_eq!(cents, expected);
        }
    }

    #[test]
    fn a_server_is_named_on_either_side_of_what_it_is_asked_and_its_key_is_not_shown() {
        for line in [
            "batchin batch --base-url http://h --api-key secret list",
            "batchin batch list --base-url http://h --api-key secret",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(!format!("{cli:?}").contains("secret"), "{cli:?}");
            let Command::Batch(batch) = cli.command else { panic!("another command") };
            assert_eq!(batch.connection.base_url.as_deref(), Some("http://h"));
            assert!(batch.connection.api_key.is_some());
        }
    }

    #[test]
    fn flags_reach_the_configuration_from_either_side_of_the_command() {
        for line in ["batchin --data d serve --listen 127.0.0.1:0", "batchin serve --listen 127.0.0.1:0 --data d"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let config = batchin_config::Config::load(&cli.sources(Environment::default())).unwrap();
            assert_eq!((config.server.listen.port(), config.server.data_dir.to_str()), (0, Some("d")));
        }
    }
}
