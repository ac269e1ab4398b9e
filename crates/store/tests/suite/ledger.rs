//! Holds: verbs that move money in random order, each compared with the rules of double entry that `domain` states.

use std::collections::{BTreeMap, HashMap};

use batchin_domain::{
    AccountId, Amount, NodeId, Purse, TransferId,
    ledger::{Book, Counters, LedgerError, Movement},
};
use batchin_store::{Committer, CorrectError, LeaseOutcome, NodeIdentity, Outcome, Settlement};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::support::{Db, both, nanos, now};

const STEPS: usize = 80;

/// What the books should say.
#[derive(Default)]
struct Books {
    customers: BTreeMap<AccountId, Counters>,
    /// Credited minus debited.
    sums: HashMap<Book, i64>,
}

impl Books {
    fn moved(&mut self, movement: Movement, amount: Amount) {
        let (debit, credit) = movement.sides();
        *self.sums.entry(debit).or_default() -= amount.nanos();
        *self.sums.entry(credit).or_default() += amount.nanos();
    }

    fn sum(&self, book: Book) -> i64 {
        self.sums.get(&book).copied().unwrap_or_default()
    }

    fn of(&self, account: AccountId) -> Counters {
        self.customers[&account]
    }

    fn becomes(&mut self, account: AccountId, after: Result<Counters, LedgerError>) {
        let after = after.unwrap();
        assert!(after.is_sound(), "{after:?}");
        self.customers.insert(account, after);
    }
}

struct Run<'a> {
    db: &'a Db,
    rng: StdRng,
    node: NodeIdentity,
    committer: Committer,
    books: Books,
}

impl Run<'_> {
    fn amount(&mut self, most: i64) -> Amount {
        nanos(self.rng.random_range(1..=most))
    }

    async fn step(&mut self, account: AccountId) {
        match self.rng.random_range(0..100) {
            0..10 => self.grant(account).await,
            10..20 => self.correct(account).await,
            20..50 => self.lease(account).await,
            50..70 => self.charge(account).await,
            70..80 => self.charge_too_much(account).await,
            80..92 => self.release(account).await,
            92..96 => self.rejoin().await,
            _ => self.book_late(account).await,
        }
    }

    async fn grant(&mut self, account: AccountId) {
        let amount = self.amount(500);
        self.db.store.credit().grant_credit(self.db.grant(account, amount.nanos())).await.unwrap();
        self.books.becomes(account, self.books.of(account).credit(amount));
        self.books.moved(Movement::Grant, amount);
    }

    async fn correct(&mut self, account: AccountId) {
        let amount = self.amount(400);
        let corrected = self.db.store.credit().correct_credit(self.db.grant(account, amount.nanos())).await;
        match (corrected, self.books.of(account).take_back(amount)) {
            (Ok(_), Ok(after)) => {
                self.books.becomes(account, Ok(after));
                self.books.moved(Movement::Correction, amount);
            }
            (Err(CorrectError::Insufficient { available }), Err(refused)) => {
                assert_eq!(refused, LedgerError::Insufficient { available });
            }
            other => panic!("{other:?}"),
        }
    }

    async fn lease(&mut self, account: AccountId) {
        let (need, want) = (self.amount(300), self.amount(600));
        let ask = self.db.ask(self.node, Purse::Balance(account), need.nanos(), want.nanos());
        let before = self.books.of(account);
        match self.db.store.purses().lease(ask).await.unwrap() {
            LeaseOutcome::Granted { quantity, left } => {
                let amount = quantity.money();
                assert!(amount >= need);
                self.books.becomes(account, before.pend(amount));
                assert_eq!(left.money(), self.books.of(account).available());
            }
            LeaseOutcome::Short { available, .. } => {
                let available = available.money();
                assert_eq!(before.pend(need), Err(LedgerError::Insufficient { available }));
            }
            LeaseOutcome::Gone => panic!("gone"),
        }
    }

    /// Charges part of what is leased, if anything is.
    async fn charge(&mut self, account: AccountId) {
        let leased = self.books.of(account).pending_debit;
        if leased > 0 {
            let amount = self.amount(leased);
            self.settle(account, self.db.settlement(account, amount.nanos())).await;
        }
    }

    /// A flush that charges more than its request costs in the end, and the end that gives it back.
    async fn charge_too_much(&mut self, account: AccountId) {
        let leased = self.books.of(account).pending_debit;
        if leased < 2 {
            return;
        }
        let charged = nanos(self.rng.random_range(2..=leased));
        let back = self.amount(charged.nanos() - 1);
        let mut flush = self.db.settlement(account, charged.nanos());
        let mut end = Settlement { given_back: back, ..self.db.settlement(account, 0) };
        if let Some(usage) = &mut flush.usage {
            usage.outcome = Outcome::Running;
            end.usage = Some(usage.clone());
        }
        if let Some(usage) = &mut end.usage {
            (usage.outcome, usage.cost) = (Outcome::Completed, charged.saturating_sub(back));
        }
        self.settle(account, flush).await;
        self.settle(account, end).await;
    }

    async fn settle(&mut self, account: AccountId, settlement: Settlement) {
        let (charge, back) = (settlement.charge, settlement.given_back);
        self.committer.commit(settlement).await.unwrap();
        let before = self.books.of(account);
        if back.is_zero() {
            self.books.becomes(account, before.post(charge));
            self.books.moved(Movement::Charge, charge);
        } else {
            self.books.becomes(account, before.credit(back));
            self.books.moved(Movement::GiveBack, back);
        }
    }

    async fn release(&mut self, account: AccountId) {
        let leased = self.books.of(account).pending_debit;
        let amount = nanos(self.rng.random_range(0..=leased));
        self.db.store.purses().release(self.node, &[(Purse::Balance(account), amount.into())]).await.unwrap();
        self.books.becomes(account, self.books.of(account).void(amount));
    }

    /// A new life of the node: what it had leased is given back.
    async fn rejoin(&mut self) {
        self.node = join(self.db, self.node.id).await;
        let before = std::mem::replace(&mut self.committer, self.db.committer(self.node));
        before.close();
        let accounts: Vec<AccountId> = self.books.customers.keys().copied().collect();
        for account in accounts {
            let counters = self.books.of(account);
            self.books.becomes(account, counters.void(nanos(counters.pending_debit)));
        }
    }

    async fn book_late(&mut self, account: AccountId) {
        let amount = self.amount(50);
        let late = self.db.settlement(account, amount.nanos());
        self.db.store.ledger().book_late(TransferId::new(self.db.id()), &late, now()).await.unwrap();
        self.books.moved(Movement::Late, amount);
    }

    /// The store says of every account and of every book what the rules say.
    async fn compare(&self) {
        let mut all = Counters::default();
        for (account, counters) in &self.books.customers {
            assert_eq!(self.db.balance(*account).await, counters.balance().nanos());
            assert_eq!(self.db.store.balances().available(*account).await.unwrap(), counters.available());
            all.posted_debit += counters.posted_debit;
            all.posted_credit += counters.posted_credit;
            all.pending_debit += counters.pending_debit;
        }
        let counted = "SELECT CAST(sum(posted_debit) AS bigint), CAST(sum(posted_credit) AS bigint), \
                       CAST(sum(pending_debit) AS bigint) FROM account";
        let [posted_debit, posted_credit, pending_debit] = self.db.numbers(counted).await;
        assert_eq!(Counters { posted_debit, posted_credit, pending_debit }, all);
        for book in Book::ALL {
            let signed = |movement: Movement| match movement.sides() {
                (debit, _) if debit == book => -1,
                (_, credit) if credit == book => 1,
                _ => 0,
            };
            let cases = Movement::ALL.map(|one| format!("WHEN {} THEN {} * amount", one.code(), signed(one))).join(" ");
            let sum = format!("SELECT CAST(coalesce(sum(CASE movement {cases} END), 0) AS bigint) FROM transfer");
            assert_eq!(self.db.numbers(&sum).await, [self.books.sum(book)], "{book:?}");
        }
        assert_eq!(self.books.sum(Book::Customer), all.balance().nanos());
    }
}

async fn join(db: &Db, id: NodeId) -> NodeIdentity {
    db.store.nodes().join(id, now(), std::time::Duration::from_secs(60)).await.unwrap()
}

async fn run(db: &Db, seed: u64) {
    let mut books = Books::default();
    for _ in 0..2 {
        books.customers.insert(db.account(0).await, Counters::default());
    }
    let accounts: Vec<AccountId> = books.customers.keys().copied().collect();
    let node = join(db, NodeId::new(db.id())).await;
    let committer = db.committer(node);
    let mut run = Run { db, rng: StdRng::seed_from_u64(seed), node, committer, books };
    for step in 0..STEPS {
        let account = accounts[run.rng.random_range(0..accounts.len())];
        run.step(account).await;
        if step % 4 == 0 {
            run.compare().await;
        }
    }
    run.compare().await;
    db.assert_clean().await;
}

both! {
    async fn every_verb_moves_money_as_the_rules_say(db) {
        run(db, 1).await;
    }
}
