//! Holds: payments: what follows from their state outside, once, in whatever order and how often it is read.

use std::time::Duration;

use batchin_domain::{
    AccountId, Amount, NodeId, Purse, TopupId, TopupSource, TopupStatus, TransferId, ledger::Movement,
    webhook::EventKind,
};
use batchin_store::{
    AlertSettings, AutoWish, CorrectError, CreditGrant, Entry, LeaseOutcome, NewStripeEvent, NewTopup, OpenTopupError,
    Reading, SavedForAuto, SettleTopupError, Settlement, TopupDetails, TopupKey, WantedActions,
};

use crate::support::{Db, both, nanos, now, units};

async fn open(db: &Db, account: AccountId, amount: i64) -> TopupId {
    let id = TopupId::new(db.id());
    let source = TopupSource::Checkout;
    let new = NewTopup { id, account, source, amount: nanos(amount), due_at: now(), now: now() };
    db.store.topups().open_topup(&new).await.unwrap();
    id
}

fn entry(db: &Db, reference: &str, movement: Movement, amount: i64, reverses: Option<&str>) -> Entry {
    let (reference, reverses) = (reference.to_owned(), reverses.map(str::to_owned));
    Entry { id: TransferId::new(db.id()), reference, movement, amount: nanos(amount), reverses, reason: None }
}

async fn reading(db: &Db, topup: TopupId, entries: Vec<Entry>) -> Reading {
    let version = db.store.topups().topup(TopupKey::Id(topup)).await.unwrap().unwrap().version;
    let details = TopupDetails::default();
    Reading { topup, version, status: TopupStatus::Completed, entries, details, due_at: None, now: now() }
}

async fn paid(db: &Db, account: AccountId, amount: i64) -> (TopupId, String) {
    let topup = open(db, account, amount).await;
    let reference = format!("cs_{topup}");
    let entries = vec![entry(db, &reference, Movement::Paid, amount, None)];
    let read = reading(db, topup, entries).await;
    assert_eq!(db.store.topups().settle_topup(&read).await.unwrap().fresh, 1);
    (topup, reference)
}

async fn told(db: &Db, kind: EventKind) -> i64 {
    let sql = format!("SELECT CAST(count(*) AS bigint) FROM webhook_delivery WHERE kind = {}", kind.code());
    let [count] = db.numbers(&sql).await;
    count
}

async fn listens(db: &Db, account: AccountId, low: Option<Amount>) {
    let url = Some("https://ada.example/hook".to_owned());
    let wanted = AlertSettings { url, email: true, email_confirmed: false, low, budget_percent: None };
    let alerts = db.store.alerts();
    assert_eq!(alerts.set_alerts(account, &wanted, now()).await.unwrap(), wanted);
    assert!(alerts.confirm_email(account).await.unwrap().email_confirmed);
    let standing = alerts.set_alerts(account, &wanted, now()).await.unwrap();
    assert_eq!(standing, AlertSettings { email_confirmed: true, ..wanted });
}

both! {
    async fn a_payment_is_credited_once_however_often_it_is_read(db) {
        let account = db.account(0).await;
        listens(db, account, None).await;
        let (topup, reference) = paid(db, account, 500).await;
        for _ in 0..3 {
            let entries = vec![entry(db, &reference, Movement::Paid, 500, None)];
            let again = reading(db, topup, entries).await;
            assert_eq!(db.store.topups().settle_topup(&again).await.unwrap().fresh, 0);
        }
        db.assert_balance(account, 500).await;
        // By webhook and by e-mail.
        assert_eq!(told(db, EventKind::TopupSucceeded).await, 2);
        db.assert_clean().await;
    }

    async fn a_reading_that_began_before_another_was_written_is_refused(db) {
        let account = db.account(0).await;
        let (topup, reference) = paid(db, account, 500).await;
        let pay = entry(db, &reference, Movement::Paid, 500, None);
        let back = entry(db, "re_1", Movement::Refunded, 200, Some(&reference));
        let stale = reading(db, topup, vec![pay.clone(), back.clone()]).await;
        let failed = entry(db, "re_1:failed", Movement::RefundFailed, 200, Some("re_1"));
        let newer = Reading { entries: vec![pay, back, failed], ..stale.clone() };
        assert_eq!(db.store.topups().settle_topup(&newer).await.unwrap().fresh, 2);
        assert!(matches!(db.store.topups().settle_topup(&stale).await, Err(SettleTopupError::Stale)));
        db.assert_balance(account, 500).await;
        let reverses: Vec<_> = db.store.balances().credits(account, 10).await.unwrap().into_iter()
            .map(|one| (one.amount.nanos(), one.reverses.is_some(), one.topup)).collect();
        assert_eq!(reverses, [(200, true, Some(topup)), (-200, true, Some(topup)), (500, false, Some(topup))]);
        db.assert_clean().await;
    }

    async fn a_reference_that_means_something_else_is_refused_and_nothing_is_written(db) {
        let account = db.account(0).await;
        let (topup, reference) = paid(db, account, 500).await;
        let other = vec![
            entry(db, &reference, Movement::Paid, 500, None),
            entry(db, "re_1", Movement::Refunded, 100, Some(&reference)),
        ];
        db.store.topups().settle_topup(&reading(db, topup, other).await).await.unwrap();
        let entries = vec![
            entry(db, "re_2", Movement::Refunded, 100, Some(&reference)),
            entry(db, "re_1", Movement::Refunded, 101, Some(&reference)),
        ];
        let outcome = db.store.topups().settle_topup(&reading(db, topup, entries).await).await;
        assert!(matches!(outcome, Err(SettleTopupError::Conflict { reference }) if reference == "re_1"));
        db.assert_balance(account, 400).await;
        db.assert_clean().await;
    }

    async fn what_goes_back_beyond_what_there_is_freezes_until_there_is_enough(db) {
        let account = db.account(0).await;
        listens(db, account, None).await;
        let node = db.store.nodes().join(NodeId::new(db.id()), now(), Duration::from_secs(60)).await.unwrap();
        let (topup, reference) = paid(db, account, 1_000).await;
        let ask = db.ask(node, Purse::Balance(account), 600, 600);
        assert!(matches!(db.store.purses().lease(ask).await.unwrap(), LeaseOutcome::Granted { .. }));
        let entries = vec![
            entry(db, &reference, Movement::Paid, 1_000, None),
            entry(db, "dp_1", Movement::Disputed, 1_000, Some(&reference)),
        ];
        let settled = db.store.topups().settle_topup(&reading(db, topup, entries.clone()).await).await.unwrap();
        assert!(settled.frozen);
        assert!(db.store.balances().standing(account).await.unwrap().frozen);
        // Nodes are asked for what they have; what is under way there is still charged.
        assert_eq!(db.store.purses().recalled(node).await.unwrap(), [Purse::Balance(account)]);
        let committer = db.committer(node);
        let charge = Settlement { account, ..db.settlement(account, 150) };
        committer.commit(charge).await.unwrap();
        let ask = db.ask(node, Purse::Balance(account), 1, 1);
        let short = db.store.purses().lease(ask).await.unwrap();
        assert!(matches!(short, LeaseOutcome::Short { .. }), "{short:?}");
        db.assert_balance(account, -150).await;
        assert_eq!(told(db, EventKind::TopupReversed).await, 2);
        db.assert_clean().await;
        db.store.purses().release(node, &[(Purse::Balance(account), units(450))]).await.unwrap();
        let ask = db.ask(node, Purse::Balance(account), 1, 1);
        assert!(matches!(db.store.purses().lease(ask).await.unwrap(), LeaseOutcome::Short { .. }));
        // The bank decides for us.
        let won = entry(db, "dp_1:won", Movement::DisputeWon, 1_000, Some("dp_1"));
        let entries = entries.into_iter().chain([won]).collect();
        let settled = db.store.topups().settle_topup(&reading(db, topup, entries).await).await.unwrap();
        assert_eq!((settled.fresh, settled.frozen), (1, false));
        let ask = db.ask(node, Purse::Balance(account), 850, 850);
        assert!(matches!(db.store.purses().lease(ask).await.unwrap(), LeaseOutcome::Granted { .. }));
        committer.close();
        db.assert_clean().await;
    }

    async fn an_account_that_only_leases_had_frozen_is_free_once_they_are_back(db) {
        let account = db.account(0).await;
        let node = db.store.nodes().join(NodeId::new(db.id()), now(), Duration::from_secs(60)).await.unwrap();
        let (topup, reference) = paid(db, account, 1_000).await;
        db.store.purses().lease(db.ask(node, Purse::Balance(account), 600, 600)).await.unwrap();
        let entries = vec![
            entry(db, &reference, Movement::Paid, 1_000, None),
            entry(db, "re_1", Movement::Refunded, 800, Some(&reference)),
        ];
        assert!(db.store.topups().settle_topup(&reading(db, topup, entries).await).await.unwrap().frozen);
        db.store.purses().release(node, &[(Purse::Balance(account), units(600))]).await.unwrap();
        assert!(!db.store.balances().standing(account).await.unwrap().frozen);
        let ask = db.ask(node, Purse::Balance(account), 200, 200);
        assert!(matches!(db.store.purses().lease(ask).await.unwrap(), LeaseOutcome::Granted { .. }));
        db.assert_clean().await;
    }

    async fn an_address_that_nobody_confirms_hears_of_a_few_codes_and_of_nothing_else(db) {
        let account = db.account(0).await;
        let wanted = AlertSettings { email: true, ..AlertSettings::default() };
        for day in 0..9 {
            for _ in 0..2 {
                let at = now().after(Duration::from_secs(day * 24 * 3_600));
                db.store.alerts().set_alerts(account, &wanted, at).await.unwrap();
            }
            assert_eq!(told(db, EventKind::EmailCode).await, i64::try_from(day).unwrap().min(4) + 1);
        }
        paid(db, account, 500).await;
        assert_eq!(told(db, EventKind::TopupSucceeded).await, 0);
    }

    async fn a_low_balance_is_told_of_once_for_each_fall(db) {
        let account = db.account(1_000).await;
        listens(db, account, Some(nanos(500))).await;
        let node = db.store.nodes().join(NodeId::new(db.id()), now(), Duration::from_secs(60)).await.unwrap();
        db.store.purses().lease(db.ask(node, Purse::Balance(account), 1_000, 1_000)).await.unwrap();
        let committer = db.committer(node);
        for (charge, tellings) in [(500, 0), (1, 2), (1, 2), (100, 2)] {
            committer.commit(db.settlement(account, charge)).await.unwrap();
            assert_eq!(told(db, EventKind::BalanceLow).await, tellings, "after {charge}");
        }
        paid(db, account, 300).await;
        db.store.purses().lease(db.ask(node, Purse::Balance(account), 300, 300)).await.unwrap();
        committer.commit(db.settlement(account, 300)).await.unwrap();
        assert_eq!(told(db, EventKind::BalanceLow).await, 4);
        committer.close();
    }

    async fn a_budget_is_told_of_once_a_month_where_its_part_is_passed(db) {
        let account = db.account(10_000).await;
        let key = db.key(account, 60, Some(1_000)).await;
        let url = Some("https://ada.example/hook".to_owned());
        let wanted = AlertSettings { url, low: None, budget_percent: Some(80), ..AlertSettings::default() };
        db.store.alerts().set_alerts(account, &wanted, now()).await.unwrap();
        let node = db.store.nodes().join(NodeId::new(db.id()), now(), Duration::from_secs(60)).await.unwrap();
        db.store.purses().lease(db.ask(node, Purse::Balance(account), 5_000, 5_000)).await.unwrap();
        let committer = db.committer(node);
        for (charge, tellings) in [(799, 0), (1, 1), (50, 1), (100, 1)] {
            let charge = Settlement { key: Some(key), ..db.settlement(account, charge) };
            committer.commit(charge).await.unwrap();
            assert_eq!(told(db, EventKind::BudgetThreshold).await, tellings);
        }
        committer.close();
        db.assert_clean().await;
    }

    async fn a_correction_takes_back_no_more_than_is_left_of_its_grant(db) {
        let account = db.account(0).await;
        let grant = db.grant(account, 500);
        let credit = db.store.credit();
        credit.grant_credit(grant.clone()).await.unwrap();
        credit.grant_credit(db.grant(account, 500)).await.unwrap();
        let back = |amount| CreditGrant { reverses: Some(grant.id), ..db.grant(account, amount) };
        let first = CreditGrant { reference: Some("back-1".to_owned()), ..back(300) };
        assert_eq!(credit.correct_credit(first.clone()).await.unwrap(), first.id);
        // Asked for again, it is the first one, although so much is not left.
        let again = CreditGrant { id: TransferId::new(db.id()), ..first.clone() };
        assert_eq!(credit.correct_credit(again).await.unwrap(), first.id);
        let elsewhere = CreditGrant { reverses: None, ..first };
        assert!(matches!(credit.correct_credit(elsewhere).await, Err(CorrectError::ReferenceTaken)));
        assert!(matches!(credit.correct_credit(back(300)).await, Err(CorrectError::NotReversible)));
        credit.correct_credit(back(200)).await.unwrap();
        let nobodys = CreditGrant { reverses: Some(TransferId::new(db.id())), ..db.grant(account, 1) };
        assert!(matches!(credit.correct_credit(nobodys).await, Err(CorrectError::NotReversible)));
        db.assert_balance(account, 500).await;
        let log = db.store.admin_log().actions(WantedActions { limit: 10, after: None, account: Some(account) }).await.unwrap();
        let told: Vec<_> = log.iter().map(|one| (one.action.as_str(), one.amount.map(Amount::nanos))).collect();
        let mut told = told;
        told.sort_unstable();
        assert_eq!(told, [("credit.granted", Some(500)), ("credit.granted", Some(500)), ("credit.taken_back", Some(200)), ("credit.taken_back", Some(300))]);
        let others = WantedActions { limit: 10, after: None, account: Some(db.account(0).await) };
        assert_eq!(db.store.admin_log().actions(others).await.unwrap(), []);
        // Whoever has the database's password changes nothing of it by accident.
        for sql in ["UPDATE admin_log SET reason = 'other'", "DELETE FROM admin_log"] {
            assert!(db.refuses(sql).await, "{sql}");
        }
        let all = WantedActions { limit: 10, after: None, account: None };
        assert_eq!(db.store.admin_log().actions(all).await.unwrap(), log);
        db.assert_clean().await;
    }

    async fn a_bank_may_take_back_what_was_refunded_already(db) {
        let account = db.account(0).await;
        let (topup, reference) = paid(db, account, 1_000).await;
        let entries = vec![
            entry(db, &reference, Movement::Paid, 1_000, None),
            entry(db, "re_1", Movement::Refunded, 1_000, Some(&reference)),
            entry(db, "dp_1", Movement::Disputed, 1_000, Some(&reference)),
        ];
        db.store.topups().settle_topup(&reading(db, topup, entries).await).await.unwrap();
        db.assert_balance(account, -1_000).await;
        db.assert_clean().await;
    }

    async fn what_goes_back_ends_payments_by_themselves(db) {
        let account = db.account(0).await;
        let auto = db.store.auto_topups();
        let wish = AutoWish { enabled: true, threshold: nanos(500), amount: nanos(1_000), ceiling: nanos(10_000) };
        for (kind, word) in [(Movement::Refunded, "refunded"), (Movement::Disputed, "disputed")] {
            let setup = db.id();
            auto.note_setup(account, setup, now()).await.unwrap();
            auto.set_auto_topup(account, &wish, now()).await.unwrap();
            let saved = SavedForAuto { customer: "cus_1".to_owned(), method: "pm_1".to_owned(), shown: None };
            auto.save_method(setup, &saved).await.unwrap();
            assert_eq!(auto.due_accounts(now(), 10).await.unwrap(), [account]);
            let (topup, reference) = paid(db, account, 1_000).await;
            assert!(auto.due_accounts(now(), 10).await.unwrap().is_empty());
            let back = format!("{word}-{reference}");
            let entries = vec![
                entry(db, &reference, Movement::Paid, 1_000, None),
                entry(db, &back, kind, 1_000, Some(&reference)),
            ];
            db.store.topups().settle_topup(&reading(db, topup, entries).await).await.unwrap();
            assert!(auto.due_accounts(now(), 10).await.unwrap().is_empty());
            assert_eq!(auto.auto_topup(account).await.unwrap().unwrap().stopped.as_deref(), Some(word));
        }
        // Said again, it goes on; not for a user who is shut out.
        auto.set_auto_topup(account, &wish, now()).await.unwrap();
        assert_eq!(auto.due_accounts(now(), 10).await.unwrap(), [account]);
        db.store.accounts().set_user_disabled(account, true).await.unwrap();
        assert!(auto.due_accounts(now(), 10).await.unwrap().is_empty());
    }

    async fn an_account_has_so_many_payments_open(db) {
        let account = db.account(0).await;
        for _ in 0..50 {
            open(db, account, 1).await;
        }
        let new = NewTopup {
            id: TopupId::new(db.id()),
            account,
            source: TopupSource::Checkout,
            amount: nanos(1),
            due_at: now(),
            now: now(),
        };
        let refused = db.store.topups().open_topup(&new).await;
        assert!(matches!(refused, Err(OpenTopupError::TooMany { most: 50 })));
        // While Stripe was ill none of them was opened, it seems.
        let later = NewTopup { now: now().after(Duration::from_secs(3_601)), ..new.clone() };
        db.store.topups().open_topup(&later).await.unwrap();
        let nobody = NewTopup { account: AccountId::new(db.id()), ..new };
        assert!(matches!(db.store.topups().open_topup(&nobody).await, Err(OpenTopupError::NoAccount)));
    }

    async fn what_is_due_is_taken_by_one(db) {
        let account = db.account(0).await;
        let topup = open(db, account, 1).await;
        let later = now().after(Duration::from_secs(60));
        let store = db.store.topups();
        let taken = store.due_topups(now(), |_| later, 10).await.unwrap();
        assert_eq!(taken.iter().map(|one| one.id).collect::<Vec<_>>(), [topup]);
        assert!(store.due_topups(now(), |_| later, 10).await.unwrap().is_empty());
        assert_eq!(store.due_topups(later, |checks| later.after(Duration::from_secs(checks)), 10).await.unwrap().len(), 1);
        let inbox = db.store.inbox();
        let event = |id: &str| NewStripeEvent { id: id.to_owned(), kind: "x".to_owned(), body: "{}".to_owned(), is_due: true };
        inbox.keep_events(&[event("evt_1"), event("evt_2")], now()).await.unwrap();
        inbox.keep_events(&[event("evt_2"), event("evt_3")], now()).await.unwrap();
        let due = inbox.due_events(now(), later, 10).await.unwrap();
        assert_eq!(due.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["evt_1", "evt_2", "evt_3"]);
        assert!(inbox.due_events(now(), later, 10).await.unwrap().is_empty());
        inbox.event_done("evt_1", "credited").await.unwrap();
        inbox.event_again("evt_2", now(), "busy").await.unwrap();
        let again = inbox.due_events(now(), later, 10).await.unwrap();
        assert_eq!(again.iter().map(|one| (one.id.as_str(), one.tries)).collect::<Vec<_>>(), [("evt_2", 1)]);
        assert_eq!(inbox.waiting_events().await.unwrap(), (2, Some(now())));
        assert!(!inbox.sweep_events(later).await.unwrap());
        inbox.keep_events(&[event("evt_1")], later).await.unwrap();
        assert_eq!(inbox.waiting_events().await.unwrap().0, 3, "what was forgotten is new");
        assert_eq!(inbox.take_turn("events", now(), later).await.unwrap(), Some(0));
        assert_eq!(inbox.take_turn("events", now(), later).await.unwrap(), None);
        inbox.end_turn("events", 7, now()).await.unwrap();
        assert_eq!(inbox.take_turn("events", now(), later).await.unwrap(), Some(7));
    }
}
