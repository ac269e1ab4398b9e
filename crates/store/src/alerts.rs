//! Holds: what owners of accounts want to be told of money, and the telling, in the transaction that moves it.

use batchin_db::{Db, Rerun, Row, WriteTx, retried};
use batchin_domain::{
    AccountId, Amount, Balance, KeyId, Month, PurseKind, Timestamp,
    webhook::{EventKind, mail_to},
};
use uuid::Uuid;

use crate::{
    StoreError,
    outbox::events::{NewEvent, enqueue},
};

/// Mails with a code that an account may cause in all, a day apart: nobody can have a stranger written to for ever.
const MAX_CODES: i16 = 5;
const MICROS_PER_DAY: i64 = 24 * 3_600 * 1_000_000;

/// What owners want to be told of. Held by who lets them say it.
#[derive(Clone)]
pub struct Alerts {
    pub(crate) db: Db,
}

/// What an account's owner wants to be told of, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertSettings {
    /// Where events of money go; `None`: nowhere.
    pub url: Option<String>,
    /// Whether they also go to the owner's e-mail address.
    pub email: bool,
    /// Whether they have shown that the address is theirs; nothing else goes there before. Not a wish: setting wishes leaves it.
    pub email_confirmed: bool,
    /// They are told once the balance falls below this, and again after it was above.
    pub low: Option<Amount>,
    /// They are told once a key has spent so much of its month's budget, in percent.
    pub budget_percent: Option<u8>,
}

/// Something that an owner is told of.
pub(crate) struct Alert {
    pub(crate) account: AccountId,
    pub(crate) kind: EventKind,
    pub(crate) subject: Uuid,
    /// Which time, of what happens to the same more than once.
    pub(crate) occasion: Option<i64>,
}

impl Alerts {
    /// What an account's owner wants to be told of.
    pub async fn alert_settings(&self, account: AccountId) -> Result<AlertSettings, StoreError> {
        let row = self.db.one(SELECT, [account.uuid().into()]).await?;
        row.as_ref().map_or_else(|| Ok(AlertSettings::default()), settings)
    }

    /// Puts other wishes in place of an owner's, and returns all as it is then. A balance that is below the limit already is
    /// told of when it was above again. Who wants e-mail and has not confirmed the address is sent a code, once a day.
    pub async fn set_alerts(
        &self,
        account: AccountId,
        wanted: &AlertSettings,
        now: Timestamp,
    ) -> Result<AlertSettings, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(
                "INSERT INTO alert (account_id, url, email, low_nano, budget_percent, changed_at) \
                 VALUES ($1,$2,$3,$4,$5,$6) ON CONFLICT (account_id) DO UPDATE SET url = excluded.url, \
                 email = excluded.email, low_nano = excluded.low_nano, budget_percent = excluded.budget_percent, \
                 changed_at = excluded.changed_at",
                [
                    account.uuid().into(),
                    wanted.url.clone().into(),
                    wanted.email.into(),
                    wanted.low.map(Amount::nanos).into(),
                    wanted.budget_percent.map(i16::from).into(),
                    now.micros().into(),
                ],
            )
            .await?;
            let sql = "UPDATE account SET budget_alert = $2 WHERE id = $1";
            tx.run(sql, [account.uuid().into(), wanted.budget_percent.map(i16::from).into()]).await?;
            arm(&tx, account).await?;
            if wanted.email {
                send_code(&tx, account, now).await?;
            }
            tx.commit().await
        })
        .await?;
        self.alert_settings(account).await
    }

    /// Notes that an owner has shown that the account's e-mail address is theirs.
    pub async fn confirm_email(&self, account: AccountId) -> Result<AlertSettings, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run("UPDATE alert SET email_confirmed = TRUE WHERE account_id = $1", [account.uuid().into()]).await?;
            tx.commit().await
        })
        .await?;
        self.alert_settings(account).await
    }
}

/// Queues the mail that shows whose an address is, unless that is known or there were enough of them.
async fn send_code(tx: &WriteTx, account: AccountId, now: Timestamp) -> Result<(), StoreError> {
    let sql = "SELECT u.email FROM alert a JOIN app_user u ON u.id = a.account_id \
               WHERE a.account_id = $1 AND NOT a.email_confirmed AND a.email_codes < $2";
    let Some(row) = tx.one(sql, [account.uuid().into(), MAX_CODES.into()]).await? else { return Ok(()) };
    let (kind, subject, occasion) = (EventKind::EmailCode, account.uuid(), Some(now.micros() / MICROS_PER_DAY));
    let event = NewEvent { kind, subject, account, occasion, url: mail_to(&row.get::<String>("email")?) };
    if enqueue(tx, &event, now).await? {
        let sql = "UPDATE alert SET email_codes = email_codes + 1 WHERE account_id = $1";
        tx.run(sql, [account.uuid().into()]).await?;
    }
    Ok(())
}

const SELECT: &str = "SELECT url, email, email_confirmed, low_nano, budget_percent FROM alert WHERE account_id = $1";

fn settings(row: &Row) -> Result<AlertSettings, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "alert", column };
    let low: Option<i64> = row.get("low_nano")?;
    let percent: Option<i16> = row.get("budget_percent")?;
    Ok(AlertSettings {
        url: row.get("url")?,
        email: row.get("email")?,
        email_confirmed: row.get("email_confirmed")?,
        low: low.map(|nanos| Amount::from_nanos(nanos).ok_or(corrupt("low_nano"))).transpose()?,
        budget_percent: percent.map(|part| u8::try_from(part).map_err(|_| corrupt("budget_percent"))).transpose()?,
    })
}

/// Has the next fall below the limit told, if the balance is above it now.
async fn arm(tx: &WriteTx, account: AccountId) -> Result<(), StoreError> {
    let sql = "UPDATE account SET alert_at = (SELECT low_nano FROM alert WHERE account_id = $1 \
               AND low_nano <= posted_credit - posted_debit) WHERE id = $1";
    tx.run(sql, [account.uuid().into()]).await?;
    Ok(())
}

/// A balance has become larger: what was told of may be told of again.
pub(crate) async fn credited(tx: &WriteTx, account: AccountId) -> Result<(), StoreError> {
    let sql = "UPDATE account SET alert_at = (SELECT low_nano FROM alert WHERE account_id = $1 \
               AND low_nano <= posted_credit - posted_debit) WHERE id = $1 AND alert_at IS NULL \
               AND EXISTS (SELECT 1 FROM alert WHERE account_id = $1 AND low_nano IS NOT NULL)";
    tx.run(sql, [account.uuid().into()]).await?;
    Ok(())
}

/// A balance may have become smaller than its owner wants; `last_seq` is the place of the movement that did it.
pub(crate) async fn lowered(
    tx: &WriteTx,
    account: AccountId,
    (balance, last_seq): (Balance, i64),
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "UPDATE account SET alert_at = NULL WHERE id = $1 AND alert_at > $2";
    if tx.run(sql, [account.uuid().into(), balance.nanos().into()]).await? == 0 {
        return Ok(());
    }
    let alert = Alert { account, kind: EventKind::BalanceLow, subject: account.uuid(), occasion: Some(last_seq) };
    tell(tx, &alert, now).await
}

/// A key has spent `posted` nano-dollars more of its month: its owner is told where that passed the part of the budget that they
/// want to be told of, once for each month.
pub(crate) async fn spent(
    tx: &WriteTx,
    (account, percent): (AccountId, i16),
    (key, month, posted): (KeyId, Month, i64),
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "SELECT p.spent, k.budget_nano FROM purse p JOIN api_key k ON k.id = p.owner \
               WHERE p.kind = $1 AND p.owner = $2 AND p.win = $3 AND k.budget_nano IS NOT NULL";
    let values = [PurseKind::Budget.code().into(), key.uuid().into(), month.index().into()];
    let Some(row) = tx.one(sql, values).await? else { return Ok(()) };
    let (spent, budget): (i64, i64) = (row.get("spent")?, row.get("budget_nano")?);
    let part = i128::from(budget) * i128::from(percent);
    let passes = |spent: i64| i128::from(spent) * 100 >= part;
    if !passes(spent) || passes(spent.saturating_sub(posted)) {
        return Ok(());
    }
    let (kind, subject, occasion) = (EventKind::BudgetThreshold, key.uuid(), Some(month.index()));
    tell(tx, &Alert { account, kind, subject, occasion }, now).await
}

/// Queues an alert for wherever its owner wants to hear of it.
pub(crate) async fn tell(tx: &WriteTx, alert: &Alert, now: Timestamp) -> Result<(), StoreError> {
    let sql = "SELECT a.url, a.email AND a.email_confirmed AS by_mail, u.email FROM alert a LEFT JOIN app_user u ON u.id = a.account_id \
               WHERE a.account_id = $1";
    let Some(row) = tx.one(sql, [alert.account.uuid().into()]).await? else { return Ok(()) };
    let url: Option<String> = row.get("url")?;
    let mail: Option<String> = if row.get("by_mail")? { row.get("email")? } else { None };
    let Alert { account, kind, subject, occasion } = *alert;
    for url in url.into_iter().chain(mail.map(|address| mail_to(&address))) {
        enqueue(tx, &NewEvent { kind, subject, account, occasion, url }, now).await?;
    }
    Ok(())
}
