//! Holds: what can be typed after `batchin batch`.

use std::path::PathBuf;

use batchin_domain::{Amount, Priority};
use clap::{Args, Subcommand};
use secrecy::SecretString;
use uuid::Uuid;

/// Hours that a batch may be given: OpenAI's form, one hour to seven days.
const WINDOW_HOURS: std::ops::RangeInclusive<u32> = 1..=168;

/// `batchin batch`
#[derive(Debug, Args)]
pub struct BatchCommand {
    /// Which server
    #[command(flatten)]
    pub connection: Connection,
    /// What to do there
    #[command(subcommand)]
    pub command: Batch,
}

/// Which server, and with which key.
#[derive(Debug, Clone, Default, Args)]
pub struct Connection {
    /// Server, http:// or https://; without, BATCHIN_BASE_URL or else http://127.0.0.1:8080
    #[arg(long, global = true, value_name = "URL")]
    pub base_url: Option<String>,
    /// API key; without, BATCHIN_API_KEY, which other users of this machine cannot see
    #[arg(long, global = true, value_name = "KEY", value_parser = secret)]
    pub api_key: Option<SecretString>,
    /// PEM file of certificates to trust beside the system's; SSL_CERT_FILE names one in place of those
    #[arg(long, global = true, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
}

/// What can be done with batches.
#[derive(Debug, Subcommand)]
pub enum Batch {
    /// Submit a file of tasks, show progress, write the results
    #[command(after_help = "A line of a JSON-lines file is one of
  {\"custom_id\": \"a\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", \"body\": {\"model\": \"M\", \"messages\": […]}}
  {\"custom_id\": \"a\", \"model\": \"M\", \"request_body\": {\"messages\": […]}}
  {\"prompt\": \"…\"}   {\"messages\": […]}   {\"input\": \"…\"}      with --model

A CSV file (first row: names of columns) takes a template, which is rendered for each row and becomes the prompt of a
chat; a template that begins with { renders a JSON line of one of the forms above. The syntax is Jinja's, columns are
variables: {{text}}, {{row[\"First name\"]}}, {{text|tojson}}.

BATCHIN_API_KEY is the key, BATCHIN_BASE_URL the server (http://127.0.0.1:8080 without). Every fault of the file is
reported with its line, and --out is opened, before anything is sent. A server that never answered is given up after
seconds; a connection that is lost later is waited out, and nothing is submitted twice. Ctrl-C asks whether to cancel,
to leave the batch running, or to go on; a second one leaves it running.

Examples:
  batchin batch run prompts.jsonl --model smollm2-135m-instruct
  batchin batch run tasks.jsonl --priority fill --out results.jsonl --ordered
  batchin batch run tasks.jsonl --estimate
  batchin batch run tasks.jsonl --max-cost-cents 500 --window 6h --webhook-url https://example.org/done
  batchin batch run reviews.csv --model M --template 'Translate to French: {{text}}' --id-column id
  batchin batch run reviews.csv --model M --template-file prompt.j2
  zcat tasks.jsonl.gz | batchin batch run - --json > results.jsonl

Exit code 0 when every task completed, 1 when one did not or the batch was left running, 2 when misused.")]
    Run(Box<BatchRun>),
    /// Follow a batch that was submitted before, and write its results
    #[command(after_help = "Examples:
  batchin batch watch 01890a5d-ac96-774b-bcce-b302099a8057 --out results.jsonl
  batchin batch watch batch_01890a5d-ac96-774b-bcce-b302099a8057 --ordered --json")]
    Watch(BatchWatch),
    /// List the account's batches, newest first
    #[command(
        after_help = "Examples:\n  batchin batch list\n  batchin batch list --limit 10 --after 01890a5d-ac96-774b-bcce-b302099a8057 --json"
    )]
    List(BatchList),
    /// Stop a batch; what has completed keeps its results
    #[command(after_help = "Examples:
  batchin batch cancel 01890a5d-ac96-774b-bcce-b302099a8057
  batchin batch cancel 01890a5d-ac96-774b-bcce-b302099a8057 --json")]
    Cancel(BatchCancel),
    /// Fetch the results that there are, also while the batch runs
    #[command(after_help = "Examples:
  batchin batch results 01890a5d-ac96-774b-bcce-b302099a8057 --ordered --out results.jsonl
  batchin batch results 01890a5d-ac96-774b-bcce-b302099a8057 --json --after 1200

--after takes the `seq` of the last line that you have (its `index` where lines have no seq).")]
    Results(BatchResults),
}

/// `batchin batch run`
#[derive(Debug, Clone, Args)]
pub struct BatchRun {
    /// File of JSON lines, or .csv or .tsv with a template; - reads standard input
    pub file: PathBuf,
    /// Model of the lines that name none
    #[arg(long, value_name = "M")]
    pub model: Option<String>,
    /// What is made of a CSV row, such as 'Translate: {{text}}'
    #[arg(long, value_name = "TEXT", conflicts_with = "template_file")]
    pub template: Option<String>,
    /// The same from a file
    #[arg(long, value_name = "FILE")]
    pub template_file: Option<PathBuf>,
    /// CSV column of the custom_ids; they are made from line numbers without
    #[arg(long, value_name = "NAME")]
    pub id_column: Option<String>,
    /// Print what it will cost and stop; nothing is submitted
    #[arg(long)]
    pub estimate: bool,
    /// What the server is asked for
    #[command(flatten)]
    pub terms: Terms,
    /// Where and how results are delivered
    #[command(flatten)]
    pub delivery: Delivery,
}

/// What a batch asks of the server beside its tasks.
#[derive(Debug, Clone, Default, Args)]
pub struct Terms {
    /// high, low or fill; the server's default without
    #[arg(long, value_name = "P", value_parser = priority)]
    pub priority: Option<Priority>,
    /// US cents that the batch may cost; it stops there
    #[arg(long, value_name = "N", value_parser = cents)]
    pub max_cost_cents: Option<Amount>,
    /// Time it may take, 1h to 7d; what has not run by then expires
    #[arg(long, value_name = "TIME", value_parser = window)]
    pub window: Option<String>,
    /// Whom the server tells when it has ended
    #[arg(long, value_name = "URL")]
    pub webhook_url: Option<String>,
}

/// `batchin batch watch`
#[derive(Debug, Clone, Args)]
pub struct BatchWatch {
    /// Id of the batch, as `batch run` printed it
    pub id: String,
    /// Where and how results are delivered
    #[command(flatten)]
    pub delivery: Delivery,
}

/// `batchin batch results`
#[derive(Debug, Clone, Args)]
pub struct BatchResults {
    /// Id of the batch
    pub id: String,
    /// Only what came after this line
    #[arg(long, value_name = "N")]
    pub after: Option<u64>,
    /// Where and how results are delivered
    #[command(flatten)]
    pub delivery: Delivery,
}

/// `batchin batch list`
#[derive(Debug, Clone, Args)]
pub struct BatchList {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub limit: u32,
    /// Those that follow this one, the last that was seen: none comes twice, whatever comes in meanwhile
    #[arg(long, value_name = "ID", value_parser = batch)]
    pub after: Option<Uuid>,
    /// Leave out so many of the newest; the others move up while new ones come in
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "after")]
    pub offset: u32,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `batchin batch cancel`
#[derive(Debug, Clone, Args)]
pub struct BatchCancel {
    /// Id of the batch
    pub id: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Where results go, and how.
#[derive(Debug, Clone, Default, Args)]
pub struct Delivery {
    /// Write the results to this file as JSON lines, rather than print the answers; it is FILE.part until it is whole
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace that file if it is there
    #[arg(long, visible_alias = "overwrite", requires = "out")]
    pub force: bool,
    /// In the order of the input, rather than as they come
    #[arg(long)]
    pub ordered: bool,
    /// Print JSON: the results as lines, or the batch's end when they go to a file
    #[arg(long)]
    pub json: bool,
}

fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(SecretString::from(text))
}

fn cents(text: &str) -> Result<Amount, batchin_domain::money::ParseCentsError> {
    Amount::parse_cents(text)
}

fn priority(text: &str) -> Result<Priority, &'static str> {
    text.parse().map_err(|()| "must be high, low or fill")
}

/// Either of a batch's two spellings.
fn batch(text: &str) -> Result<Uuid, &'static str> {
    text.strip_prefix("batch_").unwrap_or(text).parse().map_err(|_| "must be the id of a batch")
}

fn window(text: &str) -> Result<String, &'static str> {
    let hours = |number: &str, hours_each: u32| number.parse::<u32>().ok()?.checked_mul(hours_each);
    let asked = match (text.strip_suffix('h'), text.strip_suffix('d')) {
        (Some(number), _) => hours(number, 1),
        (_, Some(number)) => hours(number, 24),
        (None, None) => None,
    };
    match asked {
        Some(asked) if WINDOW_HOURS.contains(&asked) => Ok(text.to_owned()),
        _ => Err("must be 1h to 168h, or 1d to 7d"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_window_is_an_hour_to_seven_days() {
        for text in ["1h", "24h", "168h", "1d", "7d"] {
            assert_eq!(super::window(text).as_deref(), Ok(text));
        }
        for text in ["0h", "169h", "8d", "24", "h", "", "-1h", "90m", "99999999999d"] {
            assert!(super::window(text).is_err(), "{text}");
        }
    }
}
