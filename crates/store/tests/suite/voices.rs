//! Holds: voices that accounts have made.

use std::time::Duration;

use batchin_domain::AccountId;
use batchin_store::{KeepVoiceError, MAX_VOICES, NewVoice, VoiceSound};

use crate::support::{both, now};

fn voice(account: AccountId, name: &str) -> NewVoice {
    let recording =
        VoiceSound { sound: vec![0, 255, 7], content_type: "audio/wav".to_owned(), words: "what I say".to_owned() };
    let duration = Duration::from_millis(1_500);
    NewVoice { account, name: name.to_owned(), recording, consent: "signed".to_owned(), duration, now: now() }
}

both! {
    async fn a_voice_is_its_account_s(db) {
        let (ada, bob) = (db.account(0).await, db.account(0).await);
        let voices = db.store.voices();
        let made = voices.keep_voice(&voice(ada, "b")).await.unwrap();
        voices.keep_voice(&voice(ada, "a")).await.unwrap();
        assert!(matches!(voices.keep_voice(&voice(ada, "b")).await, Err(KeepVoiceError::Taken)));
        voices.keep_voice(&voice(bob, "b")).await.unwrap();
        let listed = voices.voices(ada).await.unwrap();
        assert_eq!((listed.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), &listed[1]), (vec!["a", "b"], &made));
        assert_eq!(voices.voice(ada, "b").await.unwrap(), Some(voice(ada, "b").recording));
        assert!(voices.forget_voice(ada, "b").await.unwrap() && !voices.forget_voice(ada, "b").await.unwrap());
        assert_eq!(voices.voice(ada, "b").await.unwrap(), None);
        assert!(voices.voice(bob, "b").await.unwrap().is_some());
    }

    async fn an_account_keeps_so_many(db) {
        let account = db.account(0).await;
        let names: Vec<_> = (0..=MAX_VOICES).map(|number| voice(account, &number.to_string())).collect();
        let voices = db.store.voices();
        let kept = futures::future::join_all(names.iter().map(|new| voices.keep_voice(new))).await;
        assert_eq!(kept.iter().filter(|kept| kept.is_ok()).count(), MAX_VOICES as usize);
        assert_eq!(kept.iter().filter(|kept| matches!(kept, Err(KeepVoiceError::Full))).count(), 1);
    }
}
