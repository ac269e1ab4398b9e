//! Holds: `batchin ledger check`, which recomputes everything from the transfers and compares.

use std::collections::HashMap;

use crate::{
    PriceList, Store, StoreError, UsageMarks,
    stored::{column, counts_by},
};
use batchin_db::{Dialect, Rerun, Row, Snapshot, Value, retried};
use batchin_domain::{
    Chore, Class, DepositStatus, Measure, Month, PriceVersion, PurseKind, Tariff, TaskStatus, TopupStatus,
    ledger::Movement,
};

/// The mark of a row whose counts were capped.
const CAPPED: i16 = UsageMarks { capped: true, below_pieces: false, cut: false }.code();

/// What the last credit of a payment on a chain is known by.
const CREDIT_OF: &str =
    "('usdc:' || d.name || CASE WHEN d.credits > 1 THEN '#' || CAST(d.credits AS text) ELSE '' END)";

/// Faults reported per rule; one is enough to stop, a handful to see the pattern.
const FAULTS_PER_RULE: i64 = 20;

/// Something that does not add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule that is broken.
    pub rule: &'static str,
    /// What breaks it: an id.
    pub subject: String,
    /// What history says.
    pub expected: i64,
    /// What is stored.
    pub found: i64,
}

/// What was looked at and what was found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Customer accounts.
    pub accounts: u64,
    /// Movements of money.
    pub transfers: u64,
    /// Usage rows.
    pub usage_rows: u64,
    /// Of those, the ones that were capped: more was counted than was held for.
    pub capped_rows: u64,
    /// What nodes have leased of balances now, in nano-dollars.
    pub leased_nanos: i64,
    /// Usage that we bear because it came too late, in nano-dollars.
    pub late_nanos: i64,
    /// What does not add up; empty is good.
    pub faults: Vec<Fault>,
}

/// Rules, each with a query that returns one row (`subject`, `expected`, `found`) per fault; stored codes stand in braces.
const RULES: &[(&str, &str)] = &[
    (
        "posted_debit is the sum of charges",
        "SELECT a.id AS subject, coalesce(t.sum, 0) AS expected, a.posted_debit AS found FROM account a \
         LEFT JOIN (SELECT account_id, CAST(sum(amount) AS bigint) AS sum FROM transfer WHERE movement = {charge} \
         GROUP BY account_id) t ON t.account_id = a.id WHERE a.posted_debit <> coalesce(t.sum, 0)",
    ),
    (
        "posted_credit is the sum of credits and of what was given back",
        "SELECT a.id AS subject, coalesce(t.sum, 0) AS expected, a.posted_credit AS found FROM account a \
         LEFT JOIN (SELECT account_id, CAST(sum({credited}) AS bigint) AS sum FROM transfer GROUP BY account_id) t ON t.account_id = a.id WHERE a.posted_credit <> coalesce(t.sum, 0)",
    ),
    (
        "a payment that was credited was credited once, and as much as was asked for",
        "SELECT p.id AS subject, CASE WHEN p.status = {paid_status} THEN p.amount ELSE 0 END AS expected, \
         coalesce(t.sum, 0) AS found FROM topup p LEFT JOIN (SELECT topup_id, CAST(sum(amount) AS bigint) AS sum \
         FROM transfer WHERE movement IN ({paid}, {deposited}) GROUP BY topup_id) t ON t.topup_id = p.id \
         WHERE coalesce(t.sum, 0) <> CASE WHEN p.status = {paid_status} THEN p.amount ELSE 0 END",
    ),
    (
        "a credited payment on a chain has its one movement",
        "SELECT d.id AS subject, CAST(1 AS bigint) AS expected, count(t.id) AS found FROM deposit d LEFT JOIN transfer t \
         ON t.reference = {credit_of} AND t.movement = {deposited} AND t.amount = d.amount AND t.account_id = d.account_id \
         AND t.topup_id = d.topup_id WHERE d.status = {deposit_credited} GROUP BY d.id HAVING count(t.id) <> 1",
    ),
    (
        "a credited payment on a chain whose block went has the movement that takes it back",
        "SELECT d.id AS subject, CAST(1 AS bigint) AS expected, count(o.id) AS found FROM deposit d LEFT JOIN transfer t \
         ON t.reference = {credit_of} AND t.movement = {deposited} LEFT JOIN transfer o ON o.reverses = t.id \
         AND o.movement = {orphaned} AND o.amount = t.amount \
         WHERE d.credits > 0 AND d.status <> {deposit_credited} GROUP BY d.id HAVING count(o.id) <> 1",
    ),
    (
        "what chains have brought to a payment is what of it is credited",
        "SELECT p.id AS subject, coalesce(d.sum, 0) AS expected, coalesce(t.sum, 0) AS found FROM topup p \
         LEFT JOIN (SELECT topup_id, CAST(sum(amount) AS bigint) AS sum FROM deposit WHERE status = {deposit_credited} \
         GROUP BY topup_id) d ON d.topup_id = p.id \
         LEFT JOIN (SELECT topup_id, CAST(sum(CASE WHEN movement = {deposited} THEN amount ELSE -amount END) AS bigint) \
         AS sum FROM transfer WHERE movement IN ({deposited}, {orphaned}) GROUP BY topup_id) t ON t.topup_id = p.id \
         WHERE coalesce(d.sum, 0) <> coalesce(t.sum, 0)",
    ),
    (
        "what a chain has brought or taken belongs to a payment",
        "SELECT t.id AS subject, CAST(1 AS bigint) AS expected, CAST(0 AS bigint) AS found FROM transfer t \
         LEFT JOIN topup p ON p.id = t.topup_id WHERE t.movement IN ({deposited}, {orphaned}) AND p.id IS NULL",
    ),
    (
        // A bank may take back what was refunded already: each way by itself.
        "of a payment no more goes back in one way than came",
        "SELECT topup_id AS subject, came AS expected, refunded + disputed + orphaned AS found FROM (SELECT topup_id, \
         CAST(sum(CASE WHEN movement IN ({paid}, {deposited}) THEN amount ELSE 0 END) AS bigint) AS came, \
         CAST(sum(CASE movement WHEN {refunded} THEN amount WHEN {refund_failed} THEN -amount ELSE 0 END) AS bigint) AS refunded, \
         CAST(sum(CASE movement WHEN {disputed} THEN amount WHEN {dispute_won} THEN -amount ELSE 0 END) AS bigint) AS disputed, \
         CAST(sum(CASE movement WHEN {orphaned} THEN amount ELSE 0 END) AS bigint) AS orphaned \
         FROM transfer WHERE topup_id IS NOT NULL GROUP BY topup_id) g \
         WHERE refunded > came OR disputed > came OR orphaned > came OR refunded < 0 OR disputed < 0",
    ),
    (
        "what takes a movement back takes back one of its kind, account and payment, and no more than that was",
        "SELECT t.id AS subject, coalesce(r.amount, 0) AS expected, t.amount AS found FROM transfer t \
         LEFT JOIN transfer r ON r.id = t.reverses WHERE t.reverses IS NOT NULL \
         AND (r.id IS NULL OR r.account_id <> t.account_id OR t.amount > r.amount \
         OR (t.topup_id IS NOT NULL AND (r.topup_id IS NULL OR r.topup_id <> t.topup_id)) \
         OR r.movement <> CASE t.movement WHEN {correction} THEN {grant} WHEN {refunded} THEN {paid} \
         WHEN {disputed} THEN {paid} WHEN {refund_failed} THEN {refunded} WHEN {dispute_won} THEN {disputed} \
         WHEN {orphaned} THEN {deposited} ELSE -1 END)",
    ),
    (
        "pending_debit is what nodes have leased",
        "SELECT a.id AS subject, coalesce(l.sum, 0) AS expected, a.pending_debit AS found FROM account a \
         LEFT JOIN (SELECT owner, CAST(sum(outstanding) AS bigint) AS sum FROM lease WHERE kind = {balance} GROUP BY owner) l \
         ON l.owner = a.id WHERE a.pending_debit <> coalesce(l.sum, 0)",
    ),
    (
        "nobody has spent or leased more than was credited",
        "SELECT id AS subject, posted_credit AS expected, posted_debit + pending_debit AS found FROM account \
         WHERE posted_debit + pending_debit > posted_credit AND NOT frozen",
    ),
    (
        "sequence numbers have no gap",
        "SELECT a.id AS subject, a.last_seq AS expected, coalesce(t.n, 0) AS found FROM account a LEFT JOIN \
         (SELECT account_id, count(DISTINCT seq) AS n, max(seq) AS top FROM transfer WHERE seq IS NOT NULL \
         GROUP BY account_id) t ON t.account_id = a.id \
         WHERE a.last_seq <> coalesce(t.n, 0) OR a.last_seq <> coalesce(t.top, 0)",
    ),
    (
        "a request's charges are its usage row's cost",
        "SELECT u.request_id AS subject, u.cost_nano AS expected, coalesce(t.sum, 0) AS found FROM usage_log u \
         LEFT JOIN (SELECT request_id, CAST(sum(CASE WHEN movement = {charge} THEN amount ELSE -amount END) AS bigint) \
         AS sum FROM transfer WHERE movement IN ({charge}, {give_back}) \
         GROUP BY request_id) t ON t.request_id = u.request_id WHERE u.cost_nano <> coalesce(t.sum, 0)",
    ),
    (
        "every charge has a usage row",
        "SELECT t.id AS subject, 1 AS expected, 0 AS found FROM transfer t LEFT JOIN usage_log u \
         ON u.request_id = t.request_id WHERE t.movement IN ({charge}, {give_back}) AND u.request_id IS NULL",
    ),
    (
        "what is leased of a budget or a batch's highest cost is what nodes have leased",
        "SELECT p.owner AS subject, coalesce(l.sum, 0) AS expected, p.leased AS found FROM purse p LEFT JOIN \
         (SELECT kind, owner, win, CAST(sum(outstanding) AS bigint) AS sum FROM lease WHERE kind IN ({budget}, {cap}) \
         GROUP BY kind, owner, win) l ON l.kind = p.kind AND l.owner = p.owner AND l.win = p.win \
         WHERE p.kind IN ({budget}, {cap}) AND p.leased <> coalesce(l.sum, 0)",
    ),
    (
        "a batch costs at most what its owner allowed",
        "SELECT id AS subject, max_cost_nano AS expected, cost_nano AS found FROM batch \
         WHERE max_cost_nano IS NOT NULL AND cost_nano > max_cost_nano",
    ),
    (
        "what is counted on a batch's highest cost is what it cost",
        "SELECT b.id AS subject, b.cost_nano AS expected, p.spent AS found FROM batch b JOIN purse p \
         ON p.kind = {cap} AND p.owner = b.id WHERE b.cost_nano <> p.spent",
    ),
    (
        "a batch's counters are its tasks",
        "SELECT b.id AS subject, coalesce(t.completed + t.failed + t.cancelled + t.expired, 0) AS expected, \
         b.completed + b.failed + b.cancelled + b.expired AS found FROM batch b LEFT JOIN (SELECT batch_id, \
         count(*) AS total, count(CASE WHEN state = {completed} THEN 1 END) AS completed, \
         count(CASE WHEN state = {failed} THEN 1 END) AS failed, \
         count(CASE WHEN state = {cancelled} THEN 1 END) AS cancelled, \
         count(CASE WHEN state = {expired} THEN 1 END) AS expired FROM task GROUP BY batch_id) t \
         ON t.batch_id = b.id WHERE (b.finished_at IS NULL OR b.sweep_at > 0) AND \
         (b.completed <> coalesce(t.completed, 0) OR b.failed <> coalesce(t.failed, 0) \
         OR b.cancelled <> coalesce(t.cancelled, 0) OR b.expired <> coalesce(t.expired, 0) \
         OR b.loaded <> coalesce(t.total, 0))",
    ),
    (
        "a batch ends after its last task",
        "SELECT id AS subject, total AS expected, completed + failed + cancelled + expired AS found FROM batch \
         WHERE total > 0 AND completed + failed + cancelled + expired <> total AND finished_at IS NOT NULL",
    ),
    (
        "a batch whose tasks have all ended is closed or about to be",
        "SELECT id AS subject, CAST({close} AS bigint) AS expected, CAST(chore AS bigint) AS found FROM batch \
         WHERE total > 0 AND completed + failed + cancelled + expired = total AND finished_at IS NULL \
         AND chore <> {close}",
    ),
    (
        "a batch's tasks ended in an order without gap",
        "SELECT b.id AS subject, coalesce(t.top, 0) AS expected, \
         b.completed + b.failed + b.cancelled + b.expired AS found FROM batch b LEFT JOIN (SELECT batch_id, \
         max(seq) AS top FROM task WHERE seq IS NOT NULL GROUP BY batch_id) t ON t.batch_id = b.id \
         WHERE (b.finished_at IS NULL OR b.sweep_at > 0) \
         AND coalesce(t.top, 0) <> b.completed + b.failed + b.cancelled + b.expired",
    ),
    (
        "a batch costs what its tasks cost",
        "SELECT b.id AS subject, coalesce(t.sum, 0) AS expected, b.cost_nano AS found FROM batch b LEFT JOIN \
         (SELECT batch_id, CAST(sum(cost_nano) AS bigint) AS sum FROM task WHERE cost_nano IS NOT NULL \
         GROUP BY batch_id) t ON t.batch_id = b.id WHERE (b.finished_at IS NULL OR b.sweep_at > 0) \
         AND b.cost_nano <> coalesce(t.sum, 0)",
    ),
    (
        "only a node that is alive cares for a batch",
        "SELECT b.id AS subject, CAST(1 AS bigint) AS expected, CAST(0 AS bigint) AS found FROM batch b \
         LEFT JOIN node n ON n.id = b.steward WHERE b.steward IS NOT NULL AND (n.id IS NULL OR NOT n.alive)",
    ),
    (
        "only a node that is alive has anything leased",
        "SELECT l.node_id AS subject, CAST(0 AS bigint) AS expected, CAST(sum(l.outstanding) AS bigint) AS found \
         FROM lease l LEFT JOIN node n ON n.id = l.node_id WHERE l.outstanding > 0 AND (n.id IS NULL OR NOT n.alive) \
         GROUP BY l.node_id",
    ),
    (
        "only a node that is alive runs a task",
        "SELECT t.id AS subject, CAST(1 AS bigint) AS expected, CAST(0 AS bigint) AS found FROM task t \
         LEFT JOIN node n ON n.id = t.node_id WHERE t.state = {running} AND (n.id IS NULL OR NOT n.alive)",
    ),
    (
        "a key's months together are the cost of its requests",
        "SELECT u.key_id AS subject, u.sum AS expected, coalesce(p.sum, 0) AS found FROM \
         (SELECT key_id, CAST(sum(cost_nano) AS bigint) AS sum FROM usage_log WHERE key_id IS NOT NULL GROUP BY key_id) u \
         LEFT JOIN (SELECT owner, CAST(sum(spent) AS bigint) AS sum FROM purse WHERE kind = {budget} GROUP BY owner) p \
         ON p.owner = u.key_id WHERE u.sum <> coalesce(p.sum, 0)",
    ),
    (
        "a completed task was charged once",
        "SELECT t.id AS subject, t.cost_nano AS expected, coalesce(u.sum, 0) AS found FROM task t LEFT JOIN \
         (SELECT task_id, CAST(sum(cost_nano) AS bigint) AS sum FROM usage_log WHERE task_id IS NOT NULL \
         GROUP BY task_id) u ON u.task_id = t.id \
         WHERE t.state = {completed} AND coalesce(t.cost_nano, 0) <> coalesce(u.sum, 0)",
    ),
];

impl Store {
    /// Recomputes the ledger from history and compares, on one snapshot of a live system.
    pub async fn check(&self) -> Result<CheckReport, StoreError> {
        retried(Rerun::Harmless, || self.check_once()).await
    }

    async fn check_once(&self) -> Result<CheckReport, StoreError> {
        let check = Check { view: self.db.snapshot().await?, dialect: self.db.dialect() };
        let mut report = check.totals().await?;
        let codes = [
            ("{charge}", Movement::Charge.code()),
            ("{give_back}", Movement::GiveBack.code()),
            ("{grant}", Movement::Grant.code()),
            ("{correction}", Movement::Correction.code()),
            ("{paid}", Movement::Paid.code()),
            ("{refunded}", Movement::Refunded.code()),
            ("{refund_failed}", Movement::RefundFailed.code()),
            ("{disputed}", Movement::Disputed.code()),
            ("{dispute_won}", Movement::DisputeWon.code()),
            ("{deposited}", Movement::Deposited.code()),
            ("{orphaned}", Movement::Orphaned.code()),
            ("{deposit_credited}", DepositStatus::Credited.code()),
            ("{paid_status}", TopupStatus::Completed.code()),
            ("{balance}", PurseKind::Balance.code()),
            ("{budget}", PurseKind::Budget.code()),
            ("{cap}", PurseKind::Cap.code()),
            ("{close}", Chore::Close.code()),
            ("{running}", TaskStatus::Running.code()),
            ("{completed}", TaskStatus::Completed.code()),
            ("{failed}", TaskStatus::Failed.code()),
            ("{cancelled}", TaskStatus::Cancelled.code()),
            ("{expired}", TaskStatus::Expired.code()),
        ];
        let credited: Vec<String> =
            Movement::ALL.map(|one| format!("WHEN {} THEN {} * amount", one.code(), one.credits())).to_vec();
        let credited = format!("CASE movement {} END", credited.join(" "));
        for (rule, sql) in RULES {
            let sql = sql.replace("{credited}", &credited).replace("{credit_of}", CREDIT_OF);
            report.faults.extend(check.rule(rule, &sql, &codes).await?);
        }
        report.faults.extend(check.budgets().await?);
        report.faults.extend(check.costs().await?);
        Ok(report)
    }
}

struct Check {
    view: Snapshot,
    dialect: Dialect,
}

impl Check {
    async fn all(&self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        self.view.all(sql, values).await
    }

    async fn number(&self, sql: &str) -> Result<i64, StoreError> {
        let rows = self.all(sql.to_owned(), vec![]).await?;
        rows.first().map_or(Ok(0), |row| row.get("n"))
    }

    async fn totals(&self) -> Result<CheckReport, StoreError> {
        let unsigned = |n: i64| u64::try_from(n).unwrap_or(0);
        let late = Movement::Late.code();
        Ok(CheckReport {
            accounts: unsigned(self.number("SELECT count(*) AS n FROM account").await?),
            transfers: unsigned(self.number("SELECT count(*) AS n FROM transfer").await?),
            usage_rows: unsigned(self.number("SELECT count(*) AS n FROM usage_log").await?),
            capped_rows: unsigned(
                self.number(&format!("SELECT count(*) AS n FROM usage_log WHERE marks & {CAPPED} <> 0")).await?,
            ),
            leased_nanos: self
                .number("SELECT CAST(coalesce(sum(pending_debit), 0) AS bigint) AS n FROM account")
                .await?,
            late_nanos: self
                .number(&format!(
                    "SELECT CAST(coalesce(sum(amount), 0) AS bigint) AS n FROM transfer WHERE movement = {late}"
                ))
                .await?,
            faults: Vec::new(),
        })
    }

    async fn rule(&self, rule: &'static str, sql: &str, codes: &[(&str, i16)]) -> Result<Vec<Fault>, StoreError> {
        let mut sql = format!("{sql} LIMIT {FAULTS_PER_RULE}");
        for (name, code) in codes {
            sql = sql.replace(name, &code.to_string());
        }
        let rows = self.all(sql, vec![]).await?;
        rows.iter()
            .map(|row| {
                let subject: uuid::Uuid = row.get("subject")?;
                let number = |column| row.get::<i64>(column).or_else(|_| row.get::<i32>(column).map(i64::from));
                Ok(Fault { rule, subject: subject.to_string(), expected: number("expected")?, found: number("found")? })
            })
            .collect()
    }

    /// What a key spent in a month is what its requests of that month cost.
    async fn budgets(&self) -> Result<Vec<Fault>, StoreError> {
        let rows = self
            .all(
                "SELECT p.owner, p.win, p.spent, k.account_id FROM purse p JOIN api_key k ON k.id = p.owner WHERE p.kind = $1"
                    .to_owned(),
                vec![PurseKind::Budget.code().into()],
            )
            .await?;
        let mut faults = Vec::new();
        for row in rows {
            let (key, spent): (uuid::Uuid, i64) = (row.get("owner")?, row.get("spent")?);
            let month = Month::from_index(row.get("win")?);
            let sums = self
                .all(
                    "SELECT CAST(coalesce(sum(cost_nano), 0) AS bigint) AS n FROM usage_log \
                     WHERE key_id = $1 AND created_at >= $2 AND created_at < $3 AND account_id = $4"
                        .to_owned(),
                    vec![
                        key.into(),
                        month.start().micros().into(),
                        month.next().start().micros().into(),
                        row.get::<uuid::Uuid>("account_id")?.into(),
                    ],
                )
                .await?;
            let expected: i64 = sums.first().map_or(Ok(0), |row| row.get("n"))?;
            if expected != spent {
                let rule = "a key's month is the cost of its requests";
                faults.push(Fault { rule, subject: key.to_string(), expected, found: spent });
            }
        }
        Ok(faults)
    }

    /// A row costs what its counts cost by its version of the prices; one that was capped, at most that.
    async fn costs(&self) -> Result<Vec<Fault>, StoreError> {
        const COST: &str = "a request costs its tokens by its version of the prices";
        const PRICED: &str = "a request's version of the prices has its model";
        let most = usize::try_from(FAULTS_PER_RULE).unwrap_or(usize::MAX);
        let lists = self.price_lists().await?;
        if lists.is_empty() {
            return Ok(Vec::new());
        }
        let kinds =
            "SELECT model, class, price_version, count(*) AS n FROM usage_log GROUP BY model, class, price_version";
        let mut faults = Vec::new();
        for kind in self.all(kinds.to_owned(), vec![]).await? {
            let (model, class): (String, i16) = (kind.get("model")?, kind.get("class")?);
            let version = PriceVersion(kind.get("price_version")?);
            let known = usize::try_from(class).ok().and_then(|class| Class::ALL.get(class).copied());
            let price = known.and_then(|class| lists.get(&version)?.price(&model, class));
            let (rule, rows) = match price {
                Some(price) => (COST, self.miscounted((&model, class, version), Some(price)).await?),
                None => (PRICED, self.miscounted((&model, class, version), None).await?),
            };
            faults.extend(rows.into_iter().map(|(subject, expected, found)| Fault { rule, subject, expected, found }));
            if faults.len() >= most {
                break;
            }
        }
        faults.truncate(most);
        Ok(faults)
    }

    /// A row's counts with each unit in one place, as `Counts::apart` has them, in SQL.
    fn apart(&self) -> [String; Measure::ALL.len()] {
        let least = if self.dialect == Dialect::Postgres { "least" } else { "min" };
        let count = |measure: Measure| match measure.is_of_tokens() {
            true => column(measure).to_owned(),
            false => format!("coalesce({}, 0)", column(measure)),
        };
        let mut counts = Measure::ALL.map(count);
        for part in Measure::ALL {
            let Some(whole) = part.part_of() else { continue };
            let (part, whole) = (part as usize, whole as usize);
            counts[part] = format!("{least}({}, {})", counts[part], counts[whole]);
            counts[whole] = format!("({} - {})", counts[whole], counts[part]);
        }
        counts
    }

    async fn price_lists(&self) -> Result<HashMap<PriceVersion, PriceList>, StoreError> {
        let rows = self.all("SELECT version, body FROM price_list".to_owned(), vec![]).await?;
        let list = |row: &Row| {
            let body: String = row.get("body")?;
            Ok((PriceVersion(row.get("version")?), PriceList::parse(&body).unwrap_or_default()))
        };
        rows.iter().map(list).collect()
    }

    /// Rows of one model, class and version that do not cost what their counts cost, each with what they should and do;
    /// without a price, all of them.
    async fn miscounted(
        &self,
        (model, class, version): (&str, i16, PriceVersion),
        price: Option<Tariff>,
    ) -> Result<Vec<(String, i64, i64)>, StoreError> {
        let mut sql = format!(
            "SELECT request_id, {}, cost_nano FROM usage_log WHERE model = $1 AND class = $2 AND price_version = $3",
            Measure::ALL.map(column).join(", ")
        );
        if let Some(price) = price {
            // Rows from before counts were bounded can have any number; in PostgreSQL their products need room.
            let wide = if self.dialect == Dialect::Postgres { "numeric" } else { "bigint" };
            let apart = self.apart();
            let of = |measure: Measure| {
                let (count, rate) = (&apart[measure as usize], price.rate(measure).pico());
                match measure.per_price() {
                    1 => format!("CAST({count} AS {wide}) * {rate}"),
                    // Of whole units first: their products need no more room than the cost does.
                    per => format!(
                        "(CAST({count} / {per} AS {wide}) * {rate} + \
                         CAST((({count} % {per}) * {rate} + {per} - 1) / {per} AS {wide}))"
                    ),
                }
            };
            let pico = format!("({})", Measure::ALL.map(of).join(" + "));
            // Rounded up to a whole nano-dollar, without a division.
            let cost = format!("CAST(cost_nano AS {wide}) * 1000");
            sql.push_str(&format!(" AND NOT ({cost} - 1000 < {pico} AND (marks & {CAPPED} <> 0 OR {cost} >= {pico}))"));
        }
        sql.push_str(&format!(" LIMIT {FAULTS_PER_RULE}"));
        let rows = self.all(sql, vec![model.into(), class.into(), version.0.into()]).await?;
        let read = |row: &Row| {
            let count =
                |column| Ok::<_, StoreError>(u64::try_from(row.get::<Option<i64>>(column)?.unwrap_or(0)).unwrap_or(0));
            let counts = counts_by(count)?;
            let subject: uuid::Uuid = row.get("request_id")?;
            let expected = price.map_or(0, |price| price.cost(counts).nanos());
            Ok((subject.to_string(), expected, row.get("cost_nano")?))
        };
        rows.iter().map(read).collect()
    }
}
