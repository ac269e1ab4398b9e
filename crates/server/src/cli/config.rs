//! Holds: `batchin config`: check a file, print an example.

use std::io::{self, Write};
use std::path::Path;

use batchin_batch_cli::{Outcome, counted};
use batchin_config::{Config, ConfigError};
use batchin_settings::{Fault, Place};
use serde_json::json;

/// Says everything that is wrong with `file`, one line each.
pub fn check(file: &Path, as_json: bool, out: &mut impl Write) -> io::Result<Outcome> {
    let checked = Config::check(file);
    let outcome = match &checked {
        Ok(_) => Outcome::Done,
        Err(ConfigError::Unreadable { .. }) => Outcome::Misused,
        Err(ConfigError::Faults(_) | ConfigError::TooLarge { .. }) => Outcome::Failed,
    };
    if as_json {
        writeln!(out, "{}", report(&checked))?;
        return Ok(outcome);
    }
    match checked {
        Ok(config) => {
            let (models, upstreams) = (config.models.len(), config.upstreams.len());
            let (models, upstreams) = (counted(models, "model"), counted(upstreams, "upstream"));
            writeln!(out, "{}: fine ({models}, {upstreams})", file.display())?;
            for warning in config.warnings() {
                writeln!(out, "{}: warning: {warning}", file.display())?;
            }
        }
        Err(ConfigError::Faults(faults)) => {
            writeln!(out, "{faults}")?;
            writeln!(out, "{}", counted(faults.list.len(), "fault"))?;
        }
        Err(ConfigError::Unreadable { path, source }) => writeln!(out, "cannot read {}: {source}", path.display())?,
        Err(error @ ConfigError::TooLarge { .. }) => writeln!(out, "{error}")?,
    }
    Ok(outcome)
}

/// Prints a commented example of every setting.
pub fn example(out: &mut impl Write) -> io::Result<Outcome> {
    out.write_all(batchin_config::example().as_bytes())?;
    Ok(Outcome::Done)
}

fn report(checked: &Result<Config, ConfigError>) -> serde_json::Value {
    match checked {
        Ok(config) => json!({ "ok": true, "faults": [], "warnings": config.warnings() }),
        Err(ConfigError::Faults(faults)) => {
            let faults: Vec<_> = faults.list.iter().map(fault).collect();
            json!({ "ok": false, "faults": faults, "warnings": [] })
        }
        Err(error) => json!({ "ok": false, "faults": [{ "message": error.to_string() }], "warnings": [] }),
    }
}

fn fault(fault: &Fault) -> serde_json::Value {
    match &fault.place {
        Place::File { line, column } => json!({ "line": line, "column": column, "message": fault.message }),
        Place::Variable(_) | Place::Flag(_) | Place::Default => json!({ "message": fault.message }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, as_json: bool) -> (Outcome, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("batchin.toml");
        std::fs::write(&path, text).unwrap();
        let mut out = Vec::new();
        let outcome = check(&path, as_json, &mut out).unwrap();
        (outcome, String::from_utf8(out).unwrap().replace(&path.display().to_string(), "batchin.toml"))
    }

    #[test]
    fn the_example_is_fine_and_a_fault_has_its_line() {
        let mut out = Vec::new();
        assert_eq!(example(&mut out).unwrap(), Outcome::Done);
        let (outcome, said) = checked(&String::from_utf8(out).unwrap(), false);
        assert_eq!((outcome, said.as_str()), (Outcome::Done, "batchin.toml: fine (4 models, 1 upstream)\n"));
        let (outcome, said) = checked("[log]\nlevel = 3\n", false);
        assert_eq!(outcome, Outcome::Failed);
        assert_eq!(said, "batchin.toml:2:9: log.level must be a text in quotes, not a number\n1 fault\n");
        let (outcome, said) = checked("[log]\nlevel = 3\n", true);
        assert_eq!(outcome, Outcome::Failed);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&said).unwrap()["faults"][0]["line"], 2);
    }

    #[test]
    fn a_file_that_is_not_there_is_said_so() {
        let mut out = Vec::new();
        assert_eq!(check(Path::new("/nonexistent/b.toml"), false, &mut out).unwrap(), Outcome::Misused);
        assert!(String::from_utf8(out).unwrap().starts_with("cannot read /nonexistent/b.toml"));
    }
}
