//! Holds: registration, login, and what users see of themselves.

use std::time::Duration;

use batchin_testkit::{Reply, TestServer, both};
use futures::{StreamExt, stream};
use http::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::time::Instant;

const PASSWORD: &str = "a long enough one";

fn user(email: &str) -> Value {
    json!({ "email": email, "name": "Eve", "password": PASSWORD })
}

async fn register(server: &TestServer, body: Value) -> Reply {
    server.anonymous(Method::POST, "/v1/users").json(body).await
}

async fn login(server: &TestServer, email: &str, password: &str) -> Reply {
    server.anonymous(Method::POST, "/v1/users/login").json(json!({ "email": email, "password": password })).await
}

both! {
    async fn a_user_registers_logs_in_and_out(backend) {
        let server = TestServer::start().on(backend).await;
        let made = register(&server, user(" Eve@Example.com ")).await.ok();
        let id = made["id"].clone();
        let expected = json!({ "id": id, "email": "eve@example.com", "name": "Eve", "credit_balance_cents": 0, "frozen": false });
        assert_eq!(made, expected);

        let session = login(&server, "EVE@example.com", PASSWORD).await.ok();
        let token = session["access_token"].as_str().unwrap().to_owned();
        assert!(token.starts_with("batchin_session_"));
        assert!(session["expires_at"].as_str().unwrap().ends_with('Z'));
        for field in ["id", "email", "name", "credit_balance_cents"] {
            assert_eq!(session[field], expected[field]);
        }
        let me = || server.anonymous(Method::GET, "/v1/users/me").key(&token);
        assert_eq!(me().await.ok(), expected);
        let by_email = server.anonymous(Method::GET, "/v1/users/by-email?email=eve%40example.com").await;
        assert_eq!(by_email.ok(), expected);

        let out = server.anonymous(Method::POST, "/v1/users/logout").key(&token).await;
        assert_eq!(out.status, 204);
        me().await.error(StatusCode::UNAUTHORIZED, "unauthorized");
        server.call(Method::POST, "/v1/users/logout").await.error(StatusCode::BAD_REQUEST, "invalid_request");
        server.stop().await;
    }

    async fn an_email_is_registered_once(backend) {
        let server = TestServer::start().on(backend).await;
        register(&server, user("eve@example.com")).await.ok();
        register(&server, user("EVE@example.com")).await.error(StatusCode::CONFLICT, "conflict");
        // Sent again under a key, with the right password, it is the first answer again.
        let again = |body: Value| {
            server.anonymous(Method::POST, "/v1/users").header("idempotency-key", "k1").json(body)
        };
        let first = again(user("mia@example.com")).await.ok();
        assert_eq!(again(user("mia@example.com")).await.ok(), first);
        let other = json!({ "email": "mia@example.com", "name": "Eve", "password": "not the same one" });
        again(other).await.error(StatusCode::CONFLICT, "conflict");
        server.stop().await;
    }

    async fn a_wrong_password_and_an_unknown_email_look_the_same(backend) {
        let server = TestServer::start().on(backend).await;
        let wrong = login(&server, &server.owner.email, "not the password").await;
        let unknown = login(&server, "nobody@example.com", "not the password").await;
        wrong.error(StatusCode::UNAUTHORIZED, "invalid_credentials");
        assert_eq!(wrong.body, unknown.body);
        server.anonymous(Method::GET, "/v1/users/by-email?email=nobody@example.com").await
            .error(StatusCode::NOT_FOUND, "not_found");
        server.store.accounts().set_user_disabled(server.owner.id, true).await.unwrap();
        login(&server, &server.owner.email, server.owner.password).await
            .error(StatusCode::UNAUTHORIZED, "invalid_credentials");
        server.stop().await;
    }

    async fn a_user_changes_name_and_password(backend) {
        let server = TestServer::start().on(backend).await;
        let session = login(&server, &server.owner.email, server.owner.password).await.ok();
        let session = session["access_token"].as_str().unwrap().to_owned();
        let change = |body: Value| server.call(Method::PATCH, "/v1/users/me").json(body);
        assert_eq!(change(json!({ "name": " Ada L. " })).await.ok()["name"], "Ada L.");
        let missing = change(json!({ "password": PASSWORD })).await;
        assert_eq!(missing.error(StatusCode::BAD_REQUEST, "invalid_request")["param"], "old_password");
        let wrong = change(json!({ "password": PASSWORD, "old_password": "not the old one" })).await;
        assert_eq!(wrong.error(StatusCode::UNAUTHORIZED, "invalid_credentials")["param"], "old_password");
        change(json!({ "password": PASSWORD, "old_password": server.owner.password })).await.ok();
        assert_eq!(login(&server, &server.owner.email, PASSWORD).await.status, 200);
        assert_eq!(login(&server, &server.owner.email, server.owner.password).await.status, 401);
        let ended = server.anonymous(Method::GET, "/v1/users/me").key(&session).await;
        assert_eq!(ended.status, 401, "a new password ends every session");
        server.stop().await;
    }

    async fn every_wrong_field_is_named(backend) {
        let server = TestServer::start().on(backend).await;
        let long = "a".repeat(1_025);
        let cases = [
            ("/v1/users", json!({ "name": "E", "password": PASSWORD }), "email"),
            ("/v1/users", json!({ "email": "e@x.y", "password": PASSWORD }), "name"),
            ("/v1/users", json!({ "email": "e@x.y", "name": "E" }), "password"),
            ("/v1/users", json!({ "email": 5, "name": "E", "password": PASSWORD }), "email"),
            ("/v1/users", json!({ "email": "e", "name": "E", "password": PASSWORD }), "email"),
            ("/v1/users", json!({ "email": "e@x.y", "name": " ", "password": PASSWORD }), "name"),
            ("/v1/users", json!({ "email": "e@x.y", "name": "E", "password": "short" }), "password"),
            ("/v1/users", json!({ "email": "e@x.y", "name": "E", "password": long }), "password"),
            ("/v1/users", json!({ "email": "e@x.y", "name": "E", "pasword": PASSWORD }), "pasword"),
            ("/v1/users/login", json!({ "email": "e@x.y" }), "password"),
            ("/v1/users/login", json!({ "password": PASSWORD }), "email"),
        ];
        for (path, body, param) in cases {
            let reply = server.anonymous(Method::POST, path).json(body.clone()).await;
            assert_eq!(reply.error(StatusCode::BAD_REQUEST, "invalid_request")["param"], param, "{body}");
        }
        let typo = server.anonymous(Method::GET, "/v1/users/by-email?emial=a@b").await;
        assert_eq!(typo.error(StatusCode::BAD_REQUEST, "invalid_request")["param"], "emial");
        server.stop().await;
    }

    async fn the_sites_own_token_is_demanded_where_it_is_set(backend) {
        let token = "the site's own secret";
        let server = TestServer::start().on(backend)
            .with_settings(|settings| settings.internal_token = Some(SecretString::from(token))).await;
        let register = || server.anonymous(Method::POST, "/v1/users").json(user("eve@example.com"));
        let enter = || {
            let body = json!({ "email": server.owner.email, "password": server.owner.password });
            server.anonymous(Method::POST, "/v1/users/login").json(body)
        };
        let look = || server.anonymous(Method::GET, "/v1/users/by-email?email=ada@example.com");
        for call in [register(), enter(), look(), look().header("x-internal-token", "wrong"), look().key(&server.owner.key)] {
            call.await.error(StatusCode::UNAUTHORIZED, "unauthorized");
        }
        for call in [register(), enter(), look()] {
            call.header("x-internal-token", token).await.ok();
        }
        server.stop().await;
    }

    async fn what_the_operator_closes_is_closed(backend) {
        let server = TestServer::start().on(backend).with_settings(|settings| {
            settings.public_lookup = false;
            settings.registration_open = false;
        }).await;
        register(&server, user("eve@example.com")).await.error(StatusCode::FORBIDDEN, "forbidden");
        server.anonymous(Method::GET, "/v1/users/by-email?email=ada@example.com").await
            .error(StatusCode::UNAUTHORIZED, "unauthorized");
        assert_eq!(login(&server, &server.owner.email, server.owner.password).await.status, 200);
        server.stop().await;
    }

    async fn a_disabled_users_key_stops_within_a_second(backend) {
        let server = TestServer::start().on(backend).await;
        assert_eq!(server.get("/v1/users/me").await.status, 200);
        server.store.accounts().set_user_disabled(server.owner.id, true).await.unwrap();
        let began = Instant::now();
        while server.get("/v1/users/me").await.status == 200 {
            assert!(began.elapsed() < Duration::from_secs(1), "the key still works after {:?}", began.elapsed());
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn an_address_runs_out_of_public_calls() {
    let server = TestServer::start().await;
    let mut refused = None;
    for _ in 0..200 {
        let reply = server.anonymous(Method::GET, "/v1/users/by-email?email=nobody@example.com").await;
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("an address runs out");
    refused.error(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    let millis: u64 = refused.header("retry-after-ms").parse().unwrap();
    assert!((1..=120).contains(&seconds) && millis <= seconds * 1_000, "{seconds} s, {millis} ms");
    server.stop().await;
}

/// A login from an address that a trusted proxy names.
async fn login_from(server: &TestServer, address: &str, email: &str, password: &str) -> Reply {
    let body = json!({ "email": email, "password": password });
    server.anonymous(Method::POST, "/v1/users/login").header("x-forwarded-for", address).json(body).await
}

/// Behind a proxy on this machine.
async fn proxied() -> TestServer {
    let trusted = ["127.0.0.1/32".parse().unwrap()];
    TestServer::start().with_settings(|settings| settings.trusted_proxies = trusted.to_vec()).await
}

#[track_caller]
fn was_one_too_many(reply: &Reply) {
    reply.error(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded");
    assert!((1..=60).contains(&reply.header("retry-after").parse::<u64>().unwrap()));
}

#[tokio::test]
async fn wrong_logins_run_out_and_the_owner_gets_in_all_the_same() {
    let server = proxied().await;
    let (email, password) = (server.owner.email.clone(), server.owner.password);
    // An account that is not there is told the same.
    for email in [email.as_str(), "nobody@example.com"] {
        for _ in 0..20 {
            let wrong = login_from(&server, "198.51.100.1", email, "not the password").await;
            wrong.error(StatusCode::UNAUTHORIZED, "invalid_credentials");
        }
    }
    let right = login_from(&server, "198.51.100.1", &email, password).await;
    assert_eq!(right.status, 200, "from the same address: {}", right.text());
    for email in [email.as_str(), "nobody@example.com"] {
        let mut refused = None;
        // Each takes less time than one comes back.
        for _ in 0..40 {
            let reply = login_from(&server, "198.51.100.1", email, "not the password").await;
            if reply.status != 401 {
                refused = Some(reply);
                break;
            }
        }
        was_one_too_many(&refused.expect("they run out"));
    }
    let right = login_from(&server, "198.51.100.2", &email, password).await;
    assert_eq!(right.status, 200, "from another address: {}", right.text());
    server.stop().await;
}

#[tokio::test]
async fn guesses_from_many_addresses_run_out_and_the_owner_gets_in_all_the_same() {
    let server = proxied().await;
    let (email, password) = (server.owner.email.clone(), server.owner.password);
    assert_eq!(login_from(&server, "203.0.113.7", &email, password).await.status, 200);
    let guesses = (0..80).map(|hop| {
        let (server, email, from) = (&server, &email, format!("198.51.100.{hop}"));
        async move { login_from(server, &from, email, "not the password").await.status }
    });
    let statuses: Vec<u16> = stream::iter(guesses).buffer_unordered(16).collect().await;
    assert!(statuses.contains(&429), "{statuses:?}");
    let known = login_from(&server, "203.0.113.7", &email, password).await;
    assert_eq!(known.status, 200, "where the owner logged in before: {}", known.text());
    let elsewhere = login_from(&server, "203.0.113.8", &email, password).await;
    assert_eq!(elsewhere.status, 200, "and in its turn elsewhere: {}", elsewhere.text());
    server.stop().await;
}

#[tokio::test]
async fn a_site_that_vouches_is_not_counted_for_all_its_visitors() {
    let server = TestServer::start().with_settings(|settings| settings.internal_token = Some("token".into())).await;
    let (email, password) = (server.owner.email.clone(), server.owner.password);
    let login = async |visitor: &str, password: &str| {
        let body = json!({ "email": email, "password": password });
        let call = server.anonymous(Method::POST, "/v1/users/login").header("x-internal-token", "token");
        call.header("x-forwarded-for", visitor).json(body).await
    };
    let mut guesses = 0;
    while login("198.51.100.1", "not the password").await.status != 429 {
        guesses += 1;
        assert!(guesses < 60, "they run out");
    }
    assert_eq!(login("198.51.100.1, 203.0.113.7", password).await.status, 200, "another visitor");
    login("198.51.100.2", "not the password").await.error(StatusCode::UNAUTHORIZED, "invalid_credentials");
    server.stop().await;
}

#[tokio::test]
async fn every_call_that_checks_a_password_counts() {
    let server = proxied().await;
    let (email, password) = (server.owner.email.clone(), server.owner.password);
    let registered = async |from: &str, password: &str| {
        let body = json!({ "email": email, "name": "Ada", "password": password });
        let call = server.anonymous(Method::POST, "/v1/users").header("x-forwarded-for", from);
        call.header("idempotency-key", "k").json(body).await
    };
    let changed = async |from: &str, old: &str| {
        let body = json!({ "password": "another long one", "old_password": old });
        server.call(Method::PATCH, "/v1/users/me").header("x-forwarded-for", from).json(body).await
    };
    // One address, all three calls, 60 passwords: twenty are checked, and a single one beyond.
    let mut statuses = Vec::new();
    for round in 0..20 {
        let guess = format!("guess number {round}");
        statuses.push(registered("198.51.100.1", &guess).await.status);
        statuses.push(login_from(&server, "198.51.100.1", &email, &guess).await.status);
        statuses.push(changed("198.51.100.1", &guess).await.status);
    }
    let checked = statuses.iter().filter(|status| **status != 429).count();
    assert!((20..=40).contains(&checked), "{statuses:?}");
    was_one_too_many(&registered("198.51.100.1", "a last guess").await);
    // Others are not held up.
    assert_eq!(registered("198.51.100.2", password).await.ok()["email"], email.as_str());
    assert_eq!(changed("198.51.100.3", password).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn the_look_up_is_closed_to_whatever_came_through_a_proxy() {
    let token = "the site's own secret";
    let server = TestServer::start().await;
    let look = |server: &TestServer| server.anonymous(Method::GET, "/v1/users/by-email?email=ada@example.com");
    look(&server).await.ok();
    let told = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-for", ""),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=203.0.113.9"),
        ("x-real-ip", "203.0.113.9"),
        ("via", "1.1 proxy"),
        ("host", "batchin.example.com"),
    ];
    for (name, value) in told {
        let reply = look(&server).header(name, value).await;
        let message = reply.error(StatusCode::UNAUTHORIZED, "unauthorized")["message"].clone();
        assert!(message.as_str().unwrap().contains("users.internal_token"), "{name}: {message}");
    }
    let bare = server.anonymous(Method::GET, "/users/by-email?email=ada@example.com").header("x-real-ip", "::1").await;
    bare.error(StatusCode::UNAUTHORIZED, "unauthorized");
    server.stop().await;
    let open = TestServer::start().with_settings(|settings| settings.proxied_lookup = true).await;
    look(&open).header("x-forwarded-for", "203.0.113.9").await.ok();
    open.stop().await;
    let server =
        TestServer::start().with_settings(|settings| settings.internal_token = Some(SecretString::from(token))).await;
    look(&server).header("x-forwarded-for", "203.0.113.9").header("x-internal-token", token).await.ok();
    server.stop().await;
}
