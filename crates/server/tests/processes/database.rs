//! PostgreSQL over TLS, by the modes that libpq has.

use std::process::Command;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use batchin_testkit::Cluster;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// An authority, and what it says about a server of this name: certificate and key.
fn authority(name: &str) -> (String, String, String) {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    (authority.pem(), server.pem(), key.serialize_pem())
}

fn migrate(url: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_batchin"));
    let ran = command.args(["migrate", "--database-url", url, "--data"]).arg(folder.path()).output().unwrap();
    (ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

#[test]
fn only_what_verifies_looks_at_the_certificate_and_only_in_full_at_the_name() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let (root, certificate, key) = authority("localhost");
    let (other, ..) = authority("localhost");
    for (file, pem) in [("server.crt", certificate), ("server.key", key)] {
        let encoded = BASE64_STANDARD.encode(pem);
        database.run(&format!("COPY (SELECT '{encoded}') TO PROGRAM 'base64 -d > {file} && chmod 600 {file}'"));
    }
    // Without TLS nobody comes in.
    let rules = BASE64_STANDARD.encode("local all all trust\nhostssl all all all trust\n");
    database.run(&format!("COPY (SELECT '{rules}') TO PROGRAM 'base64 -d > pg_hba.conf'"));
    database.run("ALTER SYSTEM SET ssl = on");
    database.run("SELECT pg_reload_conf()");

    let folder = tempfile::tempdir().unwrap();
    let [root, other] = [("root.pem", root), ("other.pem", other)].map(|(name, pem)| {
        let file = folder.path().join(name);
        std::fs::write(&file, pem).unwrap();
        file.display().to_string()
    });
    let named = database.url.replace("127.0.0.1", "localhost");
    let cases = [
        (&database.url, String::new(), true),
        (&database.url, "?sslmode=disable".to_owned(), false),
        (&database.url, "?sslmode=require".to_owned(), true),
        (&database.url, format!("?sslmode=verify-ca&sslrootcert={root}"), true),
        (&database.url, format!("?sslmode=verify-ca&sslrootcert={other}"), false),
        (&database.url, format!("?sslmode=verify-full&sslrootcert={root}"), false),
        (&named, format!("?sslmode=verify-full&sslrootcert={root}"), true),
        (&named, format!("?sslmode=verify-full&sslrootcert={other}"), false),
    ];
    for (url, parameters, comes_in) in cases {
        let (came_in, said) = migrate(&format!("{url}{parameters}"));
        assert_eq!(came_in, comes_in, "{parameters}: {said}");
    }
    let (_, said) = migrate(&format!("{named}?sslmode=verify-full&sslrootcert=/no/such.pem"));
    assert!(said.contains("sslrootcert: /no/such.pem"), "{said}");
}
