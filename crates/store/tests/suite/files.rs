//! Holds: files: when they are seen, in what order, and how they go.

use std::time::Duration;

use batchin_domain::{AccountId, FileId, FilePurpose};
use batchin_store::{DeleteFileError, FileContent, FileDetails, FileOrder, FilePage, FinishFileError, NewFile};

use crate::support::{Db, both, now};

const HOUR: Duration = Duration::from_secs(3_600);

fn details(purpose: FilePurpose) -> FileDetails {
    FileDetails { purpose, filename: "in.jsonl".to_owned(), bytes: 12, expires_after: None }
}

async fn begun(db: &Db, account: AccountId) -> FileId {
    let id = FileId::new(db.id());
    let new = NewFile { id, account, blob: format!("files/{id}"), content: FileContent::Blob, now: now() };
    db.store.file_rows().begin_file(&new).await.unwrap();
    db.store.file_rows().begin_file(&new).await.unwrap();
    id
}

async fn finished(db: &Db, account: AccountId, details: FileDetails) -> FileId {
    let id = begun(db, account).await;
    db.store.file_rows().finish_file(account, id, &details).await.unwrap();
    id
}

async fn listed(db: &Db, account: AccountId, page: FilePage) -> Vec<FileId> {
    db.store.file_rows().files(account, page, now()).await.unwrap().iter().map(|row| row.id).collect()
}

const NEWEST: FilePage = FilePage { purpose: None, after: None, order: FileOrder::Newest, limit: 100 };

both! {
    async fn a_file_is_seen_once_it_is_whole(db) {
        let (account, other) = (db.account(0).await, db.account(0).await);
        let id = begun(db, account).await;
        assert!(db.store.file_rows().file(account, id, now()).await.unwrap().is_none());
        assert_eq!(listed(db, account, NEWEST).await, []);
        assert!(matches!(
            db.store.file_rows().delete_file(account, id, now()).await,
            Err(DeleteFileError::NotFound)
        ));
        assert!(matches!(
            db.store.file_rows().finish_file(other, id, &details(FilePurpose::Batch)).await,
            Err(FinishFileError::Gone)
        ));
        for _ in 0..2 {
            let row = db.store.file_rows().finish_file(account, id, &details(FilePurpose::Batch)).await.unwrap();
            assert_eq!((row.id, row.bytes, row.filename.as_str(), row.created_at), (id, 12, "in.jsonl", now()));
        }
        assert_eq!(db.store.file_rows().file(account, id, now()).await.unwrap().unwrap().blob, format!("files/{id}"));
        assert!(db.store.file_rows().file(other, id, now()).await.unwrap().is_none());
        assert!(!db.store.file_rows().abandon_file(id, now()).await.unwrap(), "a whole file is not given up");
        assert!(db.store.file_rows().file(account, id, now()).await.unwrap().is_some());
    }

    async fn lists_go_on_after_any_file_in_either_order(db) {
        let account = db.account(0).await;
        let mut ids = Vec::new();
        for index in 0..6 {
            let purpose = if index % 2 == 0 { FilePurpose::Batch } else { FilePurpose::Vision };
            ids.push(finished(db, account, details(purpose)).await);
        }
        let newest: Vec<_> = ids.iter().rev().copied().collect();
        assert_eq!(listed(db, account, NEWEST).await, newest);
        assert_eq!(listed(db, account, FilePage { order: FileOrder::Oldest, ..NEWEST }).await, ids);
        let page = FilePage { after: Some(newest[1]), limit: 2, ..NEWEST };
        assert_eq!(listed(db, account, page).await, newest[2..4]);
        let page = FilePage { after: Some(ids[1]), order: FileOrder::Oldest, ..NEWEST };
        assert_eq!(listed(db, account, page).await, ids[2..]);
        let page = FilePage { purpose: Some(FilePurpose::Vision), after: Some(newest[0]), ..NEWEST };
        assert_eq!(listed(db, account, page).await, [ids[3], ids[1]]);
        db.store.file_rows().delete_file(account, ids[3], now()).await.unwrap();
        db.store.file_rows().forget_file(ids[3]).await.unwrap();
        let page = FilePage { after: Some(ids[3]), ..NEWEST };
        assert_eq!(listed(db, account, page).await, [ids[2], ids[1], ids[0]], "a file that is gone is a place too");
        assert_eq!(listed(db, db.account(0).await, NEWEST).await, []);
    }

    async fn a_deleted_file_is_gone_at_once_and_its_row_after_its_blob(db) {
        let (account, other) = (db.account(0).await, db.account(0).await);
        let id = finished(db, account, details(FilePurpose::Batch)).await;
        assert!(matches!(db.store.file_rows().delete_file(other, id, now()).await, Err(DeleteFileError::NotFound)));
        db.store.file_rows().forget_file(id).await.unwrap();
        assert!(db.store.file_rows().file(account, id, now()).await.unwrap().is_some(), "only deleted files are forgotten");
        let deleted = db.store.file_rows().delete_file(account, id, now()).await.unwrap();
        assert_eq!(deleted.blob, format!("files/{id}"));
        assert!(db.store.file_rows().file(account, id, now()).await.unwrap().is_none());
        let later = now().after(HOUR);
        assert!(matches!(db.store.file_rows().delete_file(account, id, later).await, Err(DeleteFileError::NotFound)));
        let due = db.store.file_rows().deleted_files(None, 10).await.unwrap();
        assert_eq!(due.iter().map(|file| (file.id, file.since)).collect::<Vec<_>>(), [(id, now())]);
        assert!(db.store.file_rows().deleted_files(Some((now(), id)), 10).await.unwrap().is_empty());
        db.store.file_rows().forget_file(id).await.unwrap();
        assert_eq!(db.count("file").await, 0);
    }

    async fn an_expired_file_is_not_seen_and_found_by_the_sweep(db) {
        let account = db.account(0).await;
        let expiring = FileDetails { expires_after: Some(HOUR), ..details(FilePurpose::Batch) };
        let id = finished(db, account, expiring).await;
        finished(db, account, details(FilePurpose::Batch)).await;
        let (before, after) = (now().after(HOUR - Duration::from_micros(1)), now().after(HOUR));
        assert!(db.store.file_rows().file(account, id, before).await.unwrap().is_some());
        assert!(db.store.file_rows().expired_files(before, None, 10).await.unwrap().is_empty());
        assert!(!db.store.file_rows().expire_file(id, before).await.unwrap());
        assert!(db.store.file_rows().file(account, id, after).await.unwrap().is_none());
        assert_eq!(db.store.file_rows().files(account, NEWEST, after).await.unwrap().len(), 1);
        assert!(matches!(db.store.file_rows().delete_file(account, id, after).await, Err(DeleteFileError::NotFound)));
        let due = db.store.file_rows().expired_files(after, None, 10).await.unwrap();
        assert_eq!(due.iter().map(|file| file.id).collect::<Vec<_>>(), [id]);
        assert!(db.store.file_rows().expired_files(after, Some((due[0].since, id)), 10).await.unwrap().is_empty());
        assert!(db.store.file_rows().expire_file(id, after).await.unwrap());
        assert!(db.store.file_rows().expired_files(after, None, 10).await.unwrap().is_empty());
        assert_eq!(db.store.file_rows().deleted_files(None, 10).await.unwrap().len(), 1);
    }

    async fn what_never_became_whole_is_given_up(db) {
        let account = db.account(0).await;
        let id = begun(db, account).await;
        let later = now().after(HOUR);
        assert!(db.store.file_rows().unfinished_files(now(), 10).await.unwrap().is_empty());
        assert_eq!(db.store.file_rows().unfinished_files(later, 10).await.unwrap()[0].id, id);
        for _ in 0..2 {
            assert!(db.store.file_rows().abandon_file(id, later).await.unwrap());
        }
        assert!(db.store.file_rows().unfinished_files(later, 10).await.unwrap().is_empty());
        assert!(matches!(
            db.store.file_rows().finish_file(account, id, &details(FilePurpose::Batch)).await,
            Err(FinishFileError::Gone)
        ));
        assert_eq!(db.store.file_rows().deleted_files(None, 10).await.unwrap()[0].id, id);
    }

    async fn of_many_that_delete_one_file_one_does(db) {
        let account = db.account(0).await;
        let id = finished(db, account, details(FilePurpose::Batch)).await;
        let deletes = (0..8_u64).map(|n| {
            let at = now().after(Duration::from_micros(n));
            async move { db.store.file_rows().delete_file(account, id, at).await.is_ok() }
        });
        let done = futures::future::join_all(deletes).await;
        assert_eq!(done.into_iter().filter(|done| *done).count(), 1);
    }
}
