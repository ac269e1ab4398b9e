//! Holds: users, sessions, keys and grants.

use std::time::Duration;

use batchin_domain::{Amount, TransferId};
use batchin_store::{
    CorrectError, CreateUserError, CreditGrant, GrantError, KeyChange, NewUser, Role, StoreError, UpdateKeyError,
};

use crate::support::{both, nanos, now};

fn secret(n: u8) -> [u8; 32] {
    [n; 32]
}

both! {
    async fn a_user_is_found_again_and_an_email_is_taken_once(db) {
        let new = |id, email: &str| NewUser {
            id: batchin_domain::AccountId::new(id),
            email: email.to_owned(),
            name: "Ada".to_owned(),
            password_hash: "h1".to_owned(),
            role: Role::Admin,
            now: now(),
        };
        let ada = db.store.accounts().create_user(new(db.id(), "ada@example.com")).await.unwrap();
        let again = db.store.accounts().create_user(new(db.id(), "ada@example.com")).await;
        assert!(matches!(again, Err(CreateUserError::EmailTaken)));
        let found = db.store.accounts().user_by_email("ada@example.com").await.unwrap().unwrap();
        assert_eq!((found.id, found.role, found.balance.nanos(), found.disabled), (ada.id, Role::Admin, 0, false));
        assert!(db.store.accounts().user_by_email("eve@example.com").await.unwrap().is_none());
        db.store.accounts().create_user(new(db.id(), "eve@example.com")).await.unwrap();
        let all = db.store.accounts().users(10).await.unwrap();
        assert_eq!(all.iter().map(|u| u.email.as_str()).collect::<Vec<_>>(), ["ada@example.com", "eve@example.com"]);
        assert_eq!(db.store.accounts().users(1).await.unwrap().len(), 1);
        // The refused user left no account behind.
        assert_eq!(db.assert_clean().await.accounts, 2);
    }

    async fn a_session_ends_in_time_by_hand_and_with_a_new_password(db) {
        let user = db.account(0).await;
        let end = now().after(Duration::from_secs(60));
        for n in 1..=3 {
            db.store.accounts().create_session(secret(n), user, now(), end).await.unwrap();
        }
        let found = db.store.accounts().session(secret(1), now()).await.unwrap().unwrap();
        assert_eq!((found.user, found.expires_at), (user, end));
        assert!(db.store.accounts().session(secret(1), end).await.unwrap().is_none());
        assert!(db.store.accounts().session(secret(9), now()).await.unwrap().is_none());
        db.store.accounts().end_session(secret(1)).await.unwrap();
        db.store.accounts().end_session(secret(1)).await.unwrap();
        assert!(db.store.accounts().session(secret(1), now()).await.unwrap().is_none());
        db.store.accounts().update_user(user, Some("Ada L".to_owned()), None).await.unwrap();
        assert!(db.store.accounts().session(secret(2), now()).await.unwrap().is_some());
        db.store.accounts().update_user(user, None, Some("h2".to_owned())).await.unwrap();
        assert!(db.store.accounts().session(secret(2), now()).await.unwrap().is_none());
        let changed = db.store.accounts().user(user).await.unwrap().unwrap();
        assert_eq!((changed.name.as_str(), changed.password_hash.as_str()), ("Ada L", "h2"));
        // A new session sweeps those that have ended.
        db.store.accounts().create_session(secret(4), user, now(), end).await.unwrap();
        db.store.accounts().create_session(secret(5), user, end, end.after(Duration::from_secs(1))).await.unwrap();
        assert_eq!(db.count("session").await, 1);
        let nobody = batchin_domain::AccountId::new(db.id());
        let missing = db.store.accounts().update_user(nobody, Some("x".to_owned()), None).await;
        assert!(matches!(missing, Err(StoreError::RowCount { table: "app_user", .. })));
    }

    async fn who_is_disabled_has_no_session_and_no_key(db) {
        let user = db.account(0).await;
        let key = db.key(user, 10, None).await;
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(key.uuid().as_bytes());
        db.store.accounts().create_session(secret(1), user, now(), now().after(Duration::from_secs(60))).await.unwrap();
        for disabled in [true, false] {
            db.store.accounts().set_user_disabled(user, disabled).await.unwrap();
            assert_eq!(db.store.accounts().session(secret(1), now()).await.unwrap().is_none(), disabled);
            assert_eq!(db.store.keys().key_by_hash(hash).await.unwrap().is_none(), disabled);
        }
    }

    async fn a_key_is_found_by_its_hash_until_it_is_off_or_deleted(db) {
        let (user, other) = (db.account(0).await, db.account(0).await);
        let key = db.key(user, 10, Some(500)).await;
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(key.uuid().as_bytes());
        let found = db.store.keys().key_by_hash(hash).await.unwrap().unwrap();
        assert_eq!((found.id, found.account, found.rate_limit_rpm), (key, user, 10));
        assert_eq!((found.monthly_budget, found.admin), (Some(nanos(500)), false));
        assert!(db.store.keys().key_by_hash([1; 32]).await.unwrap().is_none());

        let off = KeyChange { is_active: Some(false), name: Some(Some("ci".to_owned())), ..KeyChange::default() };
        assert!(matches!(db.store.accounts().update_key(other, key, off.clone()).await, Err(UpdateKeyError::NotFound)));
        db.store.accounts().update_key(user, key, off).await.unwrap();
        assert!(db.store.keys().key_by_hash(hash).await.unwrap().is_none());
        let change = KeyChange {
            name: Some(None),
            rate_limit_rpm: Some(20),
            monthly_budget: Some(None),
            is_active: Some(true),
        };
        db.store.accounts().update_key(user, key, change).await.unwrap();
        let row = db.store.accounts().keys(user, now()).await.unwrap().remove(0);
        assert_eq!((row.name, row.rate_limit_rpm, row.monthly_budget, row.is_active), (None, 20, None, true));
        db.store.accounts().update_key(user, key, KeyChange::default()).await.unwrap();
        let row = db.store.accounts().keys(user, now()).await.unwrap().remove(0);
        assert_eq!((row.name, row.rate_limit_rpm, row.monthly_budget, row.is_active), (None, 20, None, true));
        assert_eq!(row.last4, "abcd");

        assert!(matches!(db.store.accounts().delete_key(other, key, now()).await, Err(UpdateKeyError::NotFound)));
        db.store.accounts().delete_key(user, key, now()).await.unwrap();
        assert!(matches!(db.store.accounts().delete_key(user, key, now()).await, Err(UpdateKeyError::NotFound)));
        assert!(db.store.keys().key_by_hash(hash).await.unwrap().is_none());
        assert!(db.store.accounts().keys(user, now()).await.unwrap().is_empty());
        assert!(matches!(db.store.accounts().update_key(user, key, KeyChange::default()).await, Err(UpdateKeyError::NotFound)));
    }

    async fn the_last_use_of_a_key_never_goes_back(db) {
        let user = db.account(0).await;
        let (a, b) = (db.key(user, 10, None).await, db.key(user, 10, None).await);
        let later = now().after(Duration::from_secs(60));
        db.store.keys().touch_keys(&[(b, now()), (a, later)]).await.unwrap();
        db.store.keys().touch_keys(&[(a, now()), (b, later)]).await.unwrap();
        let rows = db.store.accounts().keys(user, now()).await.unwrap();
        assert_eq!(rows.iter().map(|k| (k.id, k.last_used_at)).collect::<Vec<_>>(), [(b, Some(later)), (a, Some(later))]);
    }

    async fn credit_is_booked_once_for_a_reference(db) {
        let user = db.account(0).await;
        let grant = |amount: i64, reference: Option<&str>| CreditGrant {
            reference: reference.map(str::to_owned),
            ..db.grant(user, amount)
        };
        db.store.credit().grant_credit(grant(100, Some("pay-1"))).await.unwrap();
        db.store.credit().grant_credit(grant(100, Some("pay-1"))).await.unwrap();
        db.store.credit().grant_credit(grant(50, Some("pay-2"))).await.unwrap();
        let unnamed = grant(7, None);
        db.store.credit().grant_credit(unnamed.clone()).await.unwrap();
        db.store.credit().grant_credit(unnamed).await.unwrap();
        db.assert_balance(user, 157).await;
        let credits = db.store.balances().credits(user, 10).await.unwrap();
        let seen: Vec<_> = credits.iter().map(|c| (c.amount.nanos(), c.reference.as_deref())).collect();
        assert_eq!(seen, [(7, None), (50, Some("pay-2")), (100, Some("pay-1"))]);
        assert_eq!(db.store.balances().credits(user, 1).await.unwrap().len(), 1);
        db.assert_clean().await;
    }

    async fn credit_is_taken_back_as_far_as_it_is_there(db) {
        let user = db.account(100).await;
        let correction = db.grant(user, 30);
        db.store.credit().correct_credit(correction.clone()).await.unwrap();
        db.store.credit().correct_credit(correction).await.unwrap();
        db.assert_balance(user, 70).await;
        assert_eq!(db.store.balances().available(user).await.unwrap(), nanos(70));
        match db.store.credit().correct_credit(db.grant(user, 71)).await {
            Err(CorrectError::Insufficient { available }) => assert_eq!(available, nanos(70)),
            other => panic!("{other:?}"),
        }
        assert!(matches!(db.store.credit().correct_credit(db.grant(user, 0)).await, Err(CorrectError::Nothing)));
        let nobody = batchin_domain::AccountId::new(db.id());
        assert!(matches!(db.store.credit().correct_credit(db.grant(nobody, 1)).await, Err(CorrectError::NoAccount)));
        assert_eq!(db.store.balances().available(nobody).await.unwrap(), nanos(0));
        let last = db.grant(user, 70);
        db.store.credit().correct_credit(last.clone()).await.unwrap();
        // Heard of once more after the account is empty.
        db.store.credit().correct_credit(last).await.unwrap();
        db.assert_balance(user, 0).await;
        let credits = db.store.balances().credits(user, 10).await.unwrap();
        assert_eq!(credits.iter().map(|c| c.amount.nanos()).collect::<Vec<_>>(), [-70, -30, 100]);
        db.assert_clean().await;
        // A correction without its booking, or the other way about, does not add up.
        db.raw("UPDATE account SET posted_credit = 30").await;
        let report = db.store.check().await.unwrap();
        assert_eq!(report.faults.iter().map(|f| (f.expected, f.found)).collect::<Vec<_>>(), [(0, 30)]);
    }

    async fn a_reference_names_one_grant(db) {
        let (ann, bob) = (db.account(0).await, db.account(0).await);
        let grant = |account, amount| CreditGrant { reference: Some("pay-1".to_owned()), ..db.grant(account, amount) };
        db.store.credit().grant_credit(grant(ann, 100)).await.unwrap();
        for other in [grant(bob, 100), grant(ann, 99)] {
            assert!(matches!(db.store.credit().grant_credit(other).await, Err(GrantError::ReferenceTaken)));
        }
        db.assert_balance(ann, 100).await;
        db.assert_balance(bob, 0).await;
        assert_eq!(db.assert_clean().await.transfers, 1);
    }

    async fn a_grant_is_above_zero_to_somebody_and_countable(db) {
        let user = db.account(1).await;
        let nothing = CreditGrant { amount: Amount::ZERO, ..db.grant(user, 1) };
        assert!(matches!(db.store.credit().grant_credit(nothing).await, Err(GrantError::Nothing)));
        let nobody = CreditGrant { account: batchin_domain::AccountId::new(db.id()), ..db.grant(user, 1) };
        assert!(matches!(db.store.credit().grant_credit(nobody).await, Err(GrantError::NoAccount)));
        let too_much = CreditGrant { amount: Amount::MAX, id: TransferId::new(db.id()), ..db.grant(user, 1) };
        assert!(matches!(db.store.credit().grant_credit(too_much).await, Err(GrantError::Overflow)));
        db.assert_balance(user, 1).await;
        assert_eq!(db.assert_clean().await.transfers, 1);
    }
}
