//! Holds: credit that admins give and take back, and what owners are told of.

use batchin_testkit::{TestServer, both};
use http::Method;
use serde_json::{Value, json};

const CREDITS: &str = "/v1/admin/credits";
const LOG: &str = "/v1/admin/log";

both! {
    async fn an_admin_gives_and_takes_back_and_the_log_says_so(backend) {
        let server = TestServer::start().on(backend).with_balance("0").await;
        let admin = server.admin("root@example.com").await;
        let ask = async |body: Value| server.anonymous(Method::POST, CREDITS).key(&admin.key).json(body).await;
        let given = ask(json!({ "email": "ADA@example.com", "amount_cents": 500.5, "reason": "welcome", "reference": "t-1" })).await.ok();
        assert_eq!([&given["amount_cents"], &given["credit_balance_cents"]], [&json!(500.5), &json!(500.5)]);
        // The same reference is booked once, and for nothing else.
        let again = ask(json!({ "email": "ada@example.com", "amount_cents": 500.5, "reason": "welcome", "reference": "t-1" })).await.ok();
        assert_eq!(again["credit_balance_cents"], json!(500.5));
        let other = ask(json!({ "email": "ada@example.com", "amount_cents": 7, "reason": "welcome", "reference": "t-1" })).await;
        assert_eq!(other.status, 409);
        let back = ask(json!({ "account_id": given["account_id"], "amount_cents": -200, "reason": "too much", "reverses": given["id"] })).await.ok();
        assert_eq!([&back["amount_cents"], &back["credit_balance_cents"]], [&json!(-200), &json!(300.5)]);
        let history = server.get("/v1/topup/history").await.ok();
        assert_eq!([&history[0]["source"], &history[0]["amount_cents"], &history[1]["source"]], [&json!("correction"), &json!(-200), &json!("grant")]);
        for (body, param, status) in [
            (json!({ "email": "ada@example.com", "amount_cents": 0, "reason": "x" }), "amount_cents", 400),
            (json!({ "email": "ada@example.com", "amount_cents": "5", "reason": "x" }), "amount_cents", 400),
            (json!({ "email": "ada@example.com", "amount_cents": -9999, "reason": "x" }), "amount_cents", 409),
            (json!({ "email": "ada@example.com", "amount_cents": 5 }), "reason", 400),
            (json!({ "email": "ada@example.com", "amount_cents": 5, "reason": " " }), "reason", 400),
            (json!({ "amount_cents": 5, "reason": "x" }), "email", 400),
            (json!({ "email": "ada@example.com", "amount_cents": 5, "reason": "x", "reverses": given["id"] }), "reverses", 400),
            (json!({ "email": "ada@example.com", "amount_cents": 5, "reason": "x", "why": "y" }), "why", 400),
        ] {
            let refused = ask(body.clone()).await;
            assert_eq!((refused.status, refused.json()["error"]["param"].clone()), (status, json!(param)), "{body}");
        }
        assert_eq!(ask(json!({ "email": "nobody@example.com", "amount_cents": 5, "reason": "x" })).await.status, 404);
        let log = server.anonymous(Method::GET, LOG).key(&admin.key).await.ok();
        let actions: Vec<_> = log["data"].as_array().unwrap().iter().filter(|one| one["actor"] == "root@example.com").map(|one| one["action"].clone()).collect();
        assert_eq!(actions, ["credit.taken_back", "credit.granted"]);
        let page = server.anonymous(Method::GET, &format!("{LOG}?limit=1")).key(&admin.key).await.ok();
        let next = page["next_after"].as_str().unwrap();
        let rest = server.anonymous(Method::GET, &format!("{LOG}?after={next}")).key(&admin.key).await.ok();
        assert_eq!(rest["data"][0]["action"], "credit.granted");
        // Nobody else.
        for (method, path) in [(Method::POST, CREDITS), (Method::GET, LOG)] {
            assert_eq!(server.anonymous(method.clone(), path).await.status, 401, "{path}");
            let owner = server.anonymous(method.clone(), path).key(&server.owner.key).json(json!({})).await;
            assert_eq!(owner.status, 403, "{path}");
        }
        assert_eq!(server.store.check().await.unwrap().faults, []);
    }

    async fn an_owner_says_what_to_be_told_of(backend) {
        let server = TestServer::start().on(backend).await;
        let set = async |body: Value| server.anonymous(Method::PUT, "/v1/alerts").key(&server.owner.key).json(body).await;
        let nothing = json!({ "webhook_url": null, "email": false, "email_confirmed": false, "balance_low_cents": null, "budget_threshold_percent": null });
        assert_eq!(server.get("/v1/alerts").await.ok(), nothing);
        let wishes = json!({ "webhook_url": "https://example.com/hook", "email": false, "balance_low_cents": 50.5, "budget_threshold_percent": 80 });
        let mut wishes = wishes;
        assert_eq!(set(wishes.clone()).await.ok()["balance_low_cents"], 50.5);
        wishes["email_confirmed"] = json!(false);
        assert_eq!(server.get("/v1/alerts").await.ok(), wishes);
        for (body, param) in [
            (json!({ "webhook_url": "http://127.0.0.1/x" }), "webhook_url"),
            (json!({ "webhook_url": "nowhere" }), "webhook_url"),
            (json!({ "email": "ada@example.com" }), "email"),
            (json!({ "balance_low_cents": -1 }), "balance_low_cents"),
            (json!({ "budget_threshold_percent": 0 }), "budget_threshold_percent"),
            (json!({ "budget_threshold_percent": 101 }), "budget_threshold_percent"),
            (json!({ "pager": true }), "pager"),
        ] {
            let refused = set(body.clone()).await;
            assert_eq!((refused.status, refused.json()["error"]["param"].clone()), (400, json!(param)), "{body}");
        }
        let no_mail = set(json!({ "email": true })).await;
        assert_eq!((no_mail.status, no_mail.json()["error"]["param"].clone()), (409, json!("email")));
        assert_eq!(server.get("/v1/alerts").await.ok(), wishes, "what was refused changed nothing");
        // A key that is handed out decides nothing of this.
        let handed_out = server.post("/v1/keys", json!({ "monthly_budget_cents": 5 })).await.ok();
        let handed_out = handed_out["key"].as_str().unwrap();
        for (method, path, body) in [(Method::PUT, "/v1/alerts", json!({})), (Method::POST, "/v1/alerts/email", json!({ "code": "x" }))] {
            assert_eq!(server.anonymous(method, path).key(handed_out).json(body).await.status, 403, "{path}");
        }
        let wrong = server.post("/v1/alerts/email", json!({ "code": "0f1e2d3c4b5a69788796" })).await;
        assert_eq!((wrong.status, wrong.json()["error"]["param"].clone()), (403, json!("code")));
        let eve = server.account("eve@example.com").await;
        assert_eq!(server.anonymous(Method::GET, "/v1/alerts").key(&eve.key).await.ok(), nothing);
        assert_eq!(server.anonymous(Method::PUT, "/v1/alerts").json(json!({})).await.status, 401);
        // A balance that falls below is told of where it was asked for.
        server.chat("chat-model").max_tokens(50).await.ok();
        set(json!({ "webhook_url": "https://example.com/hook", "balance_low_cents": 99.999 })).await.ok();
        server.chat("chat-model").max_tokens(50).await.ok();
        assert_eq!(server.get("/v1/webhooks/deliveries").await.ok()["data"].as_array().unwrap().len(), 0, "it was below already");
        set(json!({ "webhook_url": "https://example.com/hook", "balance_low_cents": 99 })).await.ok();
        for _ in 0..60 {
            server.chat("chat-model").max_tokens(400).await;
        }
        let told = server.get("/v1/webhooks/deliveries").await.ok();
        let told = told["data"].as_array().unwrap();
        assert!(told.len() <= 1 && told.iter().all(|one| one["type"] == "balance.low"), "{told:?}");
    }
}
