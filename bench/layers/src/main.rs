//! Compares layers below the store on PostgreSQL: what a group commit and a claim cost over SeaORM, sqlx and
//! tokio-postgres, by turns in one run. `layers URL ROWS TIMES`, on a database that `batchin migrate` has made and that
//! nobody else uses; prints the processor time of this program and of the database for each row.
use sea_orm::{
    ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, Statement, TransactionTrait,
};
use sqlx::{Row as _, postgres::PgPoolOptions};
use std::{cell::RefCell, collections::HashMap, time::Instant};
use tokio_postgres::{
    NoTls,
    types::{ToSql, Type},
};
use uuid::Uuid;

#[derive(Clone)]
enum V {
    I(i64),
    U(Uuid),
    T(String),
    NU,
    NI,
    B(bool),
    S(i16),
    AU(Vec<Uuid>),
    AI(Vec<i64>),
    AT(Vec<String>),
    AS(Vec<i16>),
    AB(Vec<bool>),
    ANI(Vec<Option<i64>>),
    ANU(Vec<Option<Uuid>>),
}
use V::*;

trait L {
    async fn run(&self, sql: &str, v: Vec<V>) -> usize;
}

struct Sea(DatabaseTransaction);
impl L for Sea {
    async fn run(&self, sql: &str, v: Vec<V>) -> usize {
        let values: Vec<sea_orm::Value> = v
            .into_iter()
            .map(|v| match v {
                I(i) => i.into(),
                U(u) => u.into(),
                T(t) => t.into(),
                NU => Option::<Uuid>::None.into(),
                NI => Option::<i64>::None.into(),
                B(b) => b.into(),
                S(s) => s.into(),
                _ => unreachable!(),
            })
            .collect();
        let st = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
        if sql.contains("SELECT id") || sql.contains("RETURNING") || sql.starts_with("SELECT epoch") {
            let rows = self.0.query_all_raw(st).await.unwrap();
            for r in &rows {
                if sql.contains("RETURNING id, epoch") {
                    let _: Uuid = r.try_get("", "id").unwrap();
                    let _: i64 = r.try_get("", "epoch").unwrap();
                    let _: String = r.try_get("", "custom_id").unwrap();
                    let _: String = r.try_get("", "model").unwrap();
                    let _: i64 = r.try_get("", "body_offset").unwrap();
                    let _: i64 = r.try_get("", "body_len").unwrap();
                }
            }
            rows.len()
        } else {
            self.0.execute_raw(st).await.unwrap().rows_affected() as usize
        }
    }
}
struct X(tokio::sync::Mutex<sqlx::Transaction<'static, sqlx::Postgres>>);
impl L for X {
    async fn run(&self, sql: &str, v: Vec<V>) -> usize {
        let mut q = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()));
        for v in v {
            q = match v {
                I(i) => q.bind(i),
                U(u) => q.bind(u),
                T(t) => q.bind(t),
                NU => q.bind(Option::<Uuid>::None),
                NI => q.bind(Option::<i64>::None),
                B(b) => q.bind(b),
                S(s) => q.bind(s),
                AU(a) => q.bind(a),
                AI(a) => q.bind(a),
                AT(a) => q.bind(a),
                AS(a) => q.bind(a),
                AB(a) => q.bind(a),
                ANI(a) => q.bind(a),
                ANU(a) => q.bind(a),
            }
        }
        let mut tx = self.0.lock().await;
        if sql.contains("SELECT id") || sql.contains("RETURNING") || sql.starts_with("SELECT epoch") {
            let rows = q.fetch_all(&mut **tx).await.unwrap();
            for r in &rows {
                if sql.contains("RETURNING id, epoch") {
                    let _: Uuid = r.get("id");
                    let _: i64 = r.get("epoch");
                    let _: String = r.get("custom_id");
                    let _: String = r.get("model");
                    let _: i64 = r.get("body_offset");
                    let _: i64 = r.get("body_len");
                }
            }
            rows.len()
        } else {
            q.execute(&mut **tx).await.unwrap().rows_affected() as usize
        }
    }
}
impl V {
    fn ty(&self) -> Type {
        match self {
            I(_) | NI => Type::INT8,
            U(_) | NU => Type::UUID,
            T(_) => Type::TEXT,
            B(_) => Type::BOOL,
            S(_) => Type::INT2,
            AU(_) | ANU(_) => Type::UUID_ARRAY,
            AI(_) | ANI(_) => Type::INT8_ARRAY,
            AT(_) => Type::TEXT_ARRAY,
            AS(_) => Type::INT2_ARRAY,
            AB(_) => Type::BOOL_ARRAY,
        }
    }
    fn p(&self) -> &(dyn ToSql + Sync) {
        match self {
            I(i) => i,
            U(u) => u,
            T(t) => t,
            NU => &Option::<Uuid>::None,
            NI => &Option::<i64>::None,
            B(b) => b,
            S(s) => s,
            AU(a) => a,
            AI(a) => a,
            AT(a) => a,
            AS(a) => a,
            AB(a) => a,
            ANI(a) => a,
            ANU(a) => a,
        }
    }
}
struct P<'a> {
    c: &'a tokio_postgres::Client,
    cache: &'a RefCell<HashMap<String, tokio_postgres::Statement>>,
}
impl L for P<'_> {
    async fn run(&self, sql: &str, v: Vec<V>) -> usize {
        let known = self.cache.borrow().get(sql).cloned();
        let st = match known {
            Some(s) => s,
            None => {
                let t: Vec<Type> = v.iter().map(V::ty).collect();
                let s = self.c.prepare_typed(sql, &t).await.unwrap();
                self.cache.borrow_mut().insert(sql.to_owned(), s.clone());
                s
            }
        };
        let p: Vec<&(dyn ToSql + Sync)> = v.iter().map(V::p).collect();
        if sql.contains("SELECT id") || sql.contains("RETURNING") || sql.starts_with("SELECT epoch") {
            let rows = self.c.query(&st, &p).await.unwrap();
            for r in &rows {
                if sql.contains("RETURNING id, epoch") {
                    let _: Uuid = r.get("id");
                    let _: i64 = r.get("epoch");
                    let _: String = r.get("custom_id");
                    let _: String = r.get("model");
                    let _: i64 = r.get("body_offset");
                    let _: i64 = r.get("body_len");
                }
            }
            rows.len()
        } else {
            self.c.execute(&st, &p).await.unwrap() as usize
        }
    }
}
fn values(n: usize, cols: usize, casts: &[&str]) -> String {
    let mut s = String::from("VALUES ");
    for r in 0..n {
        s.push_str(if r == 0 { "(" } else { ",(" });
        for c in 0..cols {
            if c > 0 {
                s.push(',')
            }
            s.push_str(&format!("${}", r * cols + c + 1));
            if r == 0 {
                if let Some(k) = casts.get(c) {
                    s.push_str("::");
                    s.push_str(k)
                }
            }
        }
        s.push(')')
    }
    s
}
const SET: &str = "input_tokens = CASE WHEN excluded.outcome = 0 AND usage_log.outcome <> 0 THEN usage_log.input_tokens ELSE excluded.input_tokens END, output_tokens = CASE WHEN excluded.outcome = 0 AND usage_log.outcome <> 0 THEN usage_log.output_tokens ELSE excluded.output_tokens END";
const UCOLS: &str = "request_id, account_id, key_id, model, endpoint, class, batch_id, task_id, input_tokens, output_tokens, cached_tokens, cost_nano, price_version, outcome, estimated, created_at, latency_us, ttft_us, marks";
struct Ids {
    node: Uuid,
    account: Uuid,
    key: Uuid,
}
struct Row {
    charge: Uuid,
    request: Uuid,
    seq: i64,
}
fn rows(n: usize, seq: &mut i64) -> Vec<Row> {
    (0..n)
        .map(|_| {
            *seq += 1;
            Row { charge: Uuid::now_v7(), request: Uuid::now_v7(), seq: *seq }
        })
        .collect()
}
/// As it stands: VALUES lists, one statement after another. Pipelined with `pipe`.
async fn group(l: &impl L, ids: &Ids, rows: &[Row], pipe: bool) {
    let n = rows.len() as i64;
    l.run("SELECT epoch FROM node WHERE id = $1 AND alive = $2 FOR KEY SHARE", vec![U(ids.node), B(true)]).await;
    let a = format!(
        "WITH v(owner, amount, transfers, back) AS ({}) UPDATE account SET posted_debit = posted_debit + v.amount, posted_credit = posted_credit + v.back, pending_debit = pending_debit - v.amount, last_seq = last_seq + v.transfers FROM v WHERE account.id = v.owner RETURNING id, last_seq",
        values(1, 4, &["uuid", "bigint", "bigint", "bigint"])
    );
    l.run(&a, vec![U(ids.account), I(n), I(n), I(0)]).await;
    let t = format!(
        "INSERT INTO transfer (id, account_id, seq, movement, amount, request_id, price_version, created_at) {}",
        values(rows.len(), 8, &[])
    );
    let u = format!(
        "INSERT INTO usage_log ({UCOLS}) {} ON CONFLICT (account_id, created_at, request_id) DO UPDATE SET {SET}",
        values(rows.len(), 19, &[])
    );
    let mut tv = vec![];
    let mut uv = vec![];
    for r in rows {
        tv.extend([U(r.charge), U(ids.account), I(r.seq), S(0), I(1), U(r.request), I(1), I(17)]);
        uv.extend([
            U(r.request),
            U(ids.account),
            U(ids.key),
            T("m".into()),
            S(0),
            S(0),
            NU,
            NU,
            I(1),
            I(2),
            I(0),
            I(1),
            I(1),
            S(1),
            B(false),
            I(17),
            I(100),
            NI,
            S(0),
        ]);
    }
    let s: Vec<(&str, Vec<V>)> = vec![
        (
            "UPDATE lease SET outstanding = outstanding - $3 WHERE kind = 0 AND owner = $1 AND win = $2 AND node_id = $4",
            vec![U(ids.account), I(0), I(n), U(ids.node)],
        ),
        (
            "INSERT INTO purse (kind, owner, win, spent) VALUES ($1,$2,$3,$4) ON CONFLICT (kind, owner, win) DO UPDATE SET spent = purse.spent + excluded.spent",
            vec![S(1), U(ids.key), I(5), I(n)],
        ),
        (&t, tv),
        (&u, uv),
    ];
    go(l, s, pipe).await;
}
async fn go(l: &impl L, s: Vec<(&str, Vec<V>)>, pipe: bool) {
    if pipe {
        futures::future::join_all(s.into_iter().map(|(q, v)| l.run(q, v))).await;
    } else {
        for (q, v) in s {
            l.run(q, v).await;
        }
    }
}
/// Arrays, one text for any number.
async fn group_unnest(l: &impl L, ids: &Ids, rows: &[Row], pipe: bool) {
    let n = rows.len() as i64;
    l.run("SELECT epoch FROM node WHERE id = $1 AND alive = $2 FOR KEY SHARE", vec![U(ids.node), B(true)]).await;
    l.run("WITH v(owner, amount, transfers, back) AS (SELECT * FROM unnest($1::uuid[],$2::bigint[],$3::bigint[],$4::bigint[])) UPDATE account SET posted_debit = posted_debit + v.amount, posted_credit = posted_credit + v.back, pending_debit = pending_debit - v.amount, last_seq = last_seq + v.transfers FROM v WHERE account.id = v.owner RETURNING id, last_seq", vec![AU(vec![ids.account]), AI(vec![n]), AI(vec![n]), AI(vec![0])]).await;
    let m = rows.len();
    let s: Vec<(&str, Vec<V>)> = vec![
        (
            "UPDATE lease SET outstanding = outstanding - $3 WHERE kind = 0 AND owner = $1 AND win = $2 AND node_id = $4",
            vec![U(ids.account), I(0), I(n), U(ids.node)],
        ),
        (
            "INSERT INTO purse (kind, owner, win, spent) VALUES ($1,$2,$3,$4) ON CONFLICT (kind, owner, win) DO UPDATE SET spent = purse.spent + excluded.spent",
            vec![S(1), U(ids.key), I(5), I(n)],
        ),
        (
            "INSERT INTO transfer (id, account_id, seq, movement, amount, request_id, price_version, created_at) SELECT * FROM unnest($1::uuid[],$2::uuid[],$3::bigint[],$4::smallint[],$5::bigint[],$6::uuid[],$7::bigint[],$8::bigint[])",
            vec![
                AU(rows.iter().map(|r| r.charge).collect()),
                AU(vec![ids.account; m]),
                AI(rows.iter().map(|r| r.seq).collect()),
                AS(vec![0; m]),
                AI(vec![1; m]),
                AU(rows.iter().map(|r| r.request).collect()),
                AI(vec![1; m]),
                AI(vec![17; m]),
            ],
        ),
        (
            "INSERT INTO usage_log (request_id, account_id, key_id, model, endpoint, class, batch_id, task_id, input_tokens, output_tokens, cached_tokens, cost_nano, price_version, outcome, estimated, created_at, latency_us, ttft_us, marks) SELECT * FROM unnest($1::uuid[],$2::uuid[],$3::uuid[],$4::text[],$5::smallint[],$6::smallint[],$7::uuid[],$8::uuid[],$9::bigint[],$10::bigint[],$11::bigint[],$12::bigint[],$13::bigint[],$14::smallint[],$15::boolean[],$16::bigint[],$17::bigint[],$18::bigint[],$19::smallint[]) ON CONFLICT (account_id, created_at, request_id) DO UPDATE SET input_tokens = CASE WHEN excluded.outcome = 0 AND usage_log.outcome <> 0 THEN usage_log.input_tokens ELSE excluded.input_tokens END, output_tokens = CASE WHEN excluded.outcome = 0 AND usage_log.outcome <> 0 THEN usage_log.output_tokens ELSE excluded.output_tokens END",
            vec![
                AU(rows.iter().map(|r| r.request).collect()),
                AU(vec![ids.account; m]),
                AU(vec![ids.key; m]),
                AT(vec!["m".into(); m]),
                AS(vec![0; m]),
                AS(vec![0; m]),
                ANU(vec![None; m]),
                ANU(vec![None; m]),
                AI(vec![1; m]),
                AI(vec![2; m]),
                AI(vec![0; m]),
                AI(vec![1; m]),
                AI(vec![1; m]),
                AS(vec![1; m]),
                AB(vec![false; m]),
                AI(vec![17; m]),
                AI(vec![100; m]),
                ANI(vec![None; m]),
                AS(vec![0; m]),
            ],
        ),
    ];
    go(l, s, pipe).await;
}
const TAKE: &str = "WITH picked(pick) AS MATERIALIZED (SELECT id FROM task WHERE batch_id = $2 AND model = $5 AND state = 0 AND not_before <= $3 ORDER BY not_before, idx LIMIT $4 FOR UPDATE SKIP LOCKED) UPDATE task SET state = 1, node_id = $1, epoch = epoch + 1, attempts = attempts + 1 FROM picked WHERE id = pick RETURNING id, epoch, custom_id, model, endpoint, body_offset, body_len, attempts";
async fn claim(l: &impl L, ids: &Ids, batch: Uuid) {
    l.run("SELECT epoch FROM node WHERE id = $1 AND alive = $2 FOR KEY SHARE", vec![U(ids.node), B(true)]).await;
    let n = l.run(TAKE, vec![U(ids.node), U(batch), I(100), I(64), T("m".into())]).await;
    assert_eq!(n, 64);
}
fn cpu() -> f64 {
    let mut u: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut u) };
    let s = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    s(u.ru_utime) + s(u.ru_stime)
}
fn backend() -> f64 {
    let mut t = 0.0;
    for e in std::fs::read_dir("/proc").unwrap().flatten() {
        let p = e.path();
        let Ok(c) = std::fs::read_to_string(p.join("comm")) else { continue };
        if !c.starts_with("postgres") {
            continue;
        }
        let Ok(s) = std::fs::read_to_string(p.join("stat")) else { continue };
        let f: Vec<&str> = s.rsplit_once(')').unwrap().1.split_whitespace().collect();
        t += (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0;
    }
    t
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let url = std::env::args().nth(1).unwrap();
    let per: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let times: usize = std::env::args().nth(3).unwrap().parse().unwrap();
    let sea: DatabaseConnection = {
        let mut o = sea_orm::ConnectOptions::new(url.clone());
        o.sqlx_logging(false);
        Database::connect(o).await.unwrap()
    };
    let sq = PgPoolOptions::new().max_connections(4).connect(&url).await.unwrap();
    let (c, conn) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(conn);
    let cache = RefCell::new(HashMap::new());
    let ids = Ids { node: Uuid::now_v7(), account: Uuid::now_v7(), key: Uuid::now_v7() };
    c.batch_execute(&format!("INSERT INTO node (id, epoch, expires_at, alive) VALUES ('{}', 1, 9, true); INSERT INTO account (id, posted_credit, pending_debit) VALUES ('{}', 1000000000, 900000000); INSERT INTO lease (kind, owner, win, node_id, outstanding) VALUES (0, '{}', 0, '{}', 900000000)", ids.node, ids.account, ids.account, ids.node)).await.unwrap();
    let batch = Uuid::now_v7();
    c.batch_execute(&format!("INSERT INTO batch (id, account_id, priority, rank, status, total, loaded, completed, input_blob, created_at) VALUES ('{batch}', '{}', 0, 0, 1, 100000, 100000, 0, 'in', 1); INSERT INTO task (id, batch_id, idx, account_id, custom_id, model, endpoint, state, epoch, attempts, not_before, body_offset, body_len) SELECT gen_random_uuid(), '{batch}', i, '{}', 'task-'||i, 'm', 0, 0, 0, 0, 0, i*300, 300 FROM generate_series(0, 199999) AS n(i); ANALYZE", ids.account, ids.account)).await.unwrap();
    let mut seq = 0;
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            for turn in 0..3 {
                for which in ["sea", "sqlx", "tokio", "tokio-pipe", "sqlx-unnest", "tokio-unnest-pipe"] {
                    let mut took = [0.0; 2];
                    let mut out = vec![];
                    for (k, what) in ["group", "claim"].iter().enumerate() {
                        if k == 1 && (which.contains("unnest") || which.contains("pipe")) {
                            continue;
                        }
                        let count = if k == 0 { times } else { 150 };
                        let (b, p, t0) = (backend(), cpu(), Instant::now());
                        for _ in 0..count {
                            let rows = rows(per, &mut seq);
                            macro_rules! work {
                                ($l:expr, $pipe:expr) => {{
                                    let l = $l;
                                    if k == 1 {
                                        claim(l, &ids, batch).await
                                    } else if which.contains("unnest") {
                                        group_unnest(l, &ids, &rows, $pipe).await
                                    } else {
                                        group(l, &ids, &rows, $pipe).await
                                    }
                                }};
                            }
                            match which {
                                "sea" => {
                                    let l = Sea(sea.begin().await.unwrap());
                                    work!(&l, false);
                                    l.0.commit().await.unwrap()
                                }
                                w if w.starts_with("sqlx") => {
                                    let l = X(tokio::sync::Mutex::new(sq.begin().await.unwrap()));
                                    work!(&l, false);
                                    l.0.into_inner().commit().await.unwrap()
                                }
                                w => {
                                    c.batch_execute("BEGIN").await.unwrap();
                                    let l = P { c: &c, cache: &cache };
                                    work!(&l, w.contains("pipe"));
                                    c.batch_execute("COMMIT").await.unwrap()
                                }
                            }
                        }
                        took[k] = t0.elapsed().as_secs_f64();
                        let div = if k == 0 { (count * per) as f64 } else { (count * 64) as f64 };
                        out.push(format!(
                            "{what}: client {:6.2} + db {:6.2} us a row, wall {:7.1} us",
                            (cpu() - p) * 1e6 / div,
                            (backend() - b) * 1e6 / div,
                            took[k] * 1e6 / count as f64
                        ));
                    }
                    if turn > 0 {
                        println!("{which:18} {}", out.join("   "))
                    }
                }
            }
        })
        .await;
}
