//! Holds: payments on chains: what is credited of them, in which order, and from where a chain is read again.

use std::{collections::BTreeMap, future::Future, ops::RangeInclusive, time::Duration};

use batchin_domain::{AccountId, DepositStatus, TopupId, TransferId};
use batchin_store::{
    ChainEvent, ChainProgress, ChainRestart, ChainScan, DepositCredit, DepositError, DepositRow, RestartedPayments,
    SeenDeposit,
};
use uuid::Uuid;

use crate::support::{Db, both, client, nanos, now, on};

const CHAIN: u64 = 8453;

fn progress(read_to: u64) -> ChainProgress {
    let state = format!("read to {read_to}");
    ChainProgress { version: 0, state, read_to, safe: None, finalized: None, updated_at: now() }
}

async fn version(db: &Db) -> i64 {
    db.store.deposits().chain_progress(CHAIN).await.unwrap().map_or(0, |found| found.version)
}

async fn scan(db: &Db, read_to: u64, events: Vec<ChainEvent>) -> usize {
    let version = version(db).await;
    let scan = ChainScan { chain_id: CHAIN, version, progress: progress(read_to), events };
    db.store.deposits().write_scan(&scan).await.unwrap().1
}

fn seen(db: &Db, account: AccountId, block: u64, amount: i64) -> ChainEvent {
    let id = db.id();
    ChainEvent::Seen(Box::new(SeenDeposit {
        name: format!("{CHAIN}/{id}"),
        id,
        account,
        supported: true,
        payer: "0xpayer".to_owned(),
        base_units: 1,
        amount: nanos(amount),
        block_number: block,
        block_hash: format!("0x{block}"),
        log_index: 0,
    }))
}

async fn fresh(db: &Db) -> Vec<DepositRow> {
    let (mut all, mut after) = (Vec::new(), (AccountId::new(Uuid::nil()), Uuid::nil()));
    loop {
        let page = db.store.deposits().fresh_deposits((CHAIN, 1_000), after).await.unwrap();
        let Some(last) = page.last() else { return all };
        after = (last.seen.account, last.id);
        all.extend(page);
    }
}

fn credits(db: &Db, rows: Vec<DepositRow>) -> Vec<DepositCredit> {
    let mut of: BTreeMap<AccountId, Vec<DepositRow>> = BTreeMap::new();
    rows.into_iter().for_each(|row| of.entry(row.seen.account).or_default().push(row));
    let named = |rows: Vec<DepositRow>| rows.into_iter().map(|row| (row, TransferId::new(db.id()))).collect();
    of.into_iter()
        .map(|(account, rows)| DepositCredit { topup: TopupId::new(db.id()), account, deposits: named(rows) })
        .collect()
}

async fn credit(db: &Db, rows: Vec<DepositRow>) {
    let credits = credits(db, rows);
    db.store.deposits().credit_deposits((CHAIN, version(db).await), &credits, &[], now()).await.unwrap();
}

async fn status(db: &Db, status: DepositStatus) -> i64 {
    db.numbers::<1>(&format!("SELECT count(*) FROM deposit WHERE status = {}", status.code())).await[0]
}

/// So many payments as they lie in the database, of these amounts.
async fn put(db: &Db, (account, status): (AccountId, DepositStatus), amounts: RangeInclusive<i64>) {
    let uuid = |id: Uuid| if db.is_postgres() { format!("'{id}'") } else { format!("X'{}'", id.simple()) };
    let row = |amount: i64| {
        let (id, status) = (db.id(), status.code());
        let (key, owner) = (uuid(id), uuid(account.uuid()));
        format!("({key}, {CHAIN}, '{id}', {owner}, {status}, true, '0xpayer', '1', {amount}, 10, '0x10', 0, 0)")
    };
    let rows: Vec<String> = amounts.map(row).collect();
    let columns = "id, chain_id, name, account_id, status, supported, payer, base_units, amount, block_number, \
                   block_hash, log_index, seen_at";
    db.raw(&format!("INSERT INTO deposit ({columns}) VALUES {}", rows.join(", "))).await;
}

/// One payment of each of two accounts that is credited, and one that was and whose block went.
async fn some_credits(db: &Db) -> [AccountId; 2] {
    let accounts = [db.account(0).await, db.account(0).await];
    scan(db, 20, vec![seen(db, accounts[0], 10, 700), seen(db, accounts[1], 10, 300), seen(db, accounts[0], 12, 50)])
        .await;
    credit(db, fresh(db).await).await;
    let gone = ChainEvent::Orphaned { number: 12, hash: "0x12".to_owned() };
    assert_eq!(scan(db, 21, vec![gone]).await, 1);
    db.assert_balance(accounts[0], 700).await;
    db.assert_balance(accounts[1], 300).await;
    db.assert_clean().await;
    accounts
}

/// Breaks something and sees that this rule complains.
async fn breaks(db: &Db, sql: &str, rule: &str) {
    some_credits(db).await;
    db.raw(sql).await;
    let faults = db.store.check().await.unwrap().faults;
    assert!(faults.iter().any(|fault| fault.rule == rule), "{rule}: {faults:?}");
}

/// Runs work on two accounts while the first of them is locked, and sees that it waits for that one before it has the other.
async fn waits_for_the_first<T>(db: &Db, [first, second]: [AccountId; 2], work: impl Future<Output = T>) -> T {
    let (holder, asking) = (client(&db.url).await, client(&db.url).await);
    let lock = |account: AccountId| format!("SELECT 1 FROM account WHERE id = '{}' FOR UPDATE", account.uuid());
    holder.batch_execute(&format!("BEGIN; {}", lock(first))).await.unwrap();
    let asks = async {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while db.numbers(waiting).await == [0] {
            tokio::task::yield_now().await;
        }
        let free = asking.batch_execute(&format!("BEGIN; {} NOWAIT; ROLLBACK", lock(second))).await;
        holder.batch_execute("ROLLBACK").await.unwrap();
        assert!(free.is_ok(), "the second account is locked before the first: {free:?}");
    };
    let both = async { tokio::join!(work, asks) };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("it waits, and then goes on").0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_are_locked_in_one_order() {
    let in_turn = async |db: &Db| {
        let accounts = [db.account(0).await, db.account(0).await];
        scan(db, 20, vec![seen(db, accounts[0], 10, 700), seen(db, accounts[1], 11, 300)]).await;
        let mut due = credits(db, fresh(db).await);
        due.reverse();
        let deposits = db.store.deposits();
        let work = deposits.credit_deposits((CHAIN, version(db).await), &due, &[], now());
        waits_for_the_first(db, accounts, work).await.unwrap();
        // The newest block goes first.
        let gone = [11, 10].map(|number| ChainEvent::Orphaned { number, hash: format!("0x{number}") });
        assert_eq!(waits_for_the_first(db, accounts, scan(db, 20, gone.to_vec())).await, 2);
        db.assert_clean().await;
    };
    // On SQLite all are written one after the other.
    on(Db::postgres().await, in_turn).await;
}

both! {
    async fn a_look_reads_what_is_fresh_and_of_what_is_held_the_largest_of_one_account(db) {
        let accounts = [db.account(0).await, db.account(0).await, db.account(0).await];
        put(db, (accounts[0], DepositStatus::Held), 1..=2_000).await;
        assert_eq!(fresh(db).await, [], "what is held is not looked at by itself");
        // More than a page of one account, and pages that end between accounts.
        put(db, (accounts[1], DepositStatus::Confirming), 1..=600).await;
        put(db, (accounts[2], DepositStatus::Confirming), 1..=400).await;
        scan(db, 2_000, vec![seen(db, accounts[0], 12, 5), seen(db, accounts[0], 2_000, 5)]).await;
        let all = fresh(db).await;
        let of = |account| all.iter().filter(|row| row.seen.account == account).count();
        assert_eq!(accounts.map(of), [1, 600, 400]);
        let page = db.store.deposits().fresh_deposits((CHAIN, 1_000), (accounts[1], Uuid::nil())).await.unwrap();
        assert!(page.len() == 500 && page.iter().all(|row| row.seen.account == accounts[1]), "its own page is full");
        let after = (accounts[1], page[499].id);
        let page = db.store.deposits().fresh_deposits((CHAIN, 1_000), after).await.unwrap();
        assert!(page.len() == 100, "an account is not cut in two where it fits: {}", page.len());
        let held = db.store.deposits().held_deposits((CHAIN, 1_000), accounts[0]).await.unwrap();
        let least = held.iter().map(|row| row.seen.amount.nanos()).min();
        assert_eq!((held.len(), least), (500, Some(1_501)));
    }

    async fn a_chain_that_is_read_again_leaves_credits_as_they_are(db) {
        let accounts = some_credits(db).await;
        let (below, above) = (seen(db, accounts[1], 9, 30), seen(db, accounts[1], 11, 40));
        scan(db, 21, vec![below, above.clone()]).await;
        let restart = |version| ChainRestart {
            chain_id: CHAIN,
            version,
            state: "from 10".to_owned(),
            read_to: 9,
            id: db.id(),
            actor: "command line".to_owned(),
            reason: "base is read from block 10 on".to_owned(),
            now: now(),
        };
        let version = version(db).await;
        let stale = db.store.deposits().restart_chain(&restart(version - 1)).await;
        assert!(matches!(stale, Err(DepositError::Stale)), "{stale:?}");
        let done = db.store.deposits().restart_chain(&restart(version)).await.unwrap();
        assert_eq!(done, RestartedPayments { set_aside: 1, credited: 2 });
        let progress = db.store.deposits().chain_progress(CHAIN).await.unwrap().unwrap();
        assert_eq!((progress.version, progress.read_to, &*progress.state), (version + 1, 9, "from 10"));
        // Who read the chain before writes nothing any more, and credits nothing.
        let late = ChainScan { chain_id: CHAIN, version, progress: progress.clone(), events: vec![] };
        assert!(matches!(db.store.deposits().write_scan(&late).await, Err(DepositError::Stale)));
        let open = fresh(db).await;
        assert!(open.len() == 1 && open[0].seen.block_number == 9, "{open:?}");
        let stale = db.store.deposits().credit_deposits((CHAIN, version), &credits(db, open), &[], now()).await;
        assert!(matches!(stale, Err(DepositError::Stale)), "{stale:?}");
        // Seen again, it counts again; what is credited is not credited twice.
        scan(db, 21, vec![above]).await;
        assert_eq!(fresh(db).await.len(), 2);
        assert_eq!(status(db, DepositStatus::Credited).await, 2);
        let wanted = batchin_store::WantedActions { limit: 10, after: None, account: None };
        let log = db.store.admin_log().actions(wanted).await.unwrap();
        assert!(log.iter().any(|act| act.action == "chain.restarted" && act.actor == "command line"), "{log:?}");
        db.assert_balance(accounts[0], 700).await;
        db.assert_clean().await;
    }

    async fn a_credit_without_its_movement(db) {
        let sql = "UPDATE deposit SET credits = 2 WHERE status = 2 AND amount = 700";
        breaks(db, sql, "a credited payment on a chain has its one movement").await;
    }

    async fn a_credit_of_another_amount(db) {
        let sql = "UPDATE deposit SET amount = 701 WHERE status = 2 AND amount = 700";
        breaks(db, sql, "a credited payment on a chain has its one movement").await;
    }

    async fn a_movement_without_a_credit(db) {
        let sql = "UPDATE deposit SET status = 0, credits = 0 WHERE status = 2 AND amount = 700";
        breaks(db, sql, "what chains have brought to a payment is what of it is credited").await;
    }

    async fn a_block_that_went_without_its_movement(db) {
        let sql = "UPDATE deposit SET status = 3 WHERE status = 2 AND amount = 700";
        breaks(db, sql, "a credited payment on a chain whose block went has the movement that takes it back").await;
    }

    async fn a_movement_of_no_payment(db) {
        let sql = "UPDATE transfer SET topup_id = NULL WHERE amount = 300";
        breaks(db, sql, "what a chain has brought or taken belongs to a payment").await;
    }
}
