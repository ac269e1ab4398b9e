//! Holds: `batchin completions` and `batchin man`: what is written about the commands from the commands themselves.

use std::io::{self, Write};
use std::path::Path;

use batchin_batch_cli::Outcome;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;

/// Prints a script that completes commands in `shell`.
pub fn completions(shell: Shell, out: &mut impl Write) -> io::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "batchin", &mut script);
    out.write_all(&script)?;
    Ok(Outcome::Done)
}

/// Prints the manual page, or writes one for each command into a folder, which is made if need be.
pub fn man(folder: Option<&Path>, out: &mut impl Write) -> io::Result<Outcome> {
    match folder {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            clap_mangen::generate_to(Cli::command(), folder)?;
        }
        None => clap_mangen::Man::new(Cli::command()).render(out)?,
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_completes_every_command() {
        for shell in Shell::value_variants() {
            let mut out = Vec::new();
            assert_eq!(completions(*shell, &mut out).unwrap(), Outcome::Done);
            let script = String::from_utf8(out).unwrap();
            for name in ["serve", "doctor", "revoke", "completions", "--max-cost-cents", "--cacert"] {
                let name = if *shell == Shell::Fish { name.trim_start_matches("--") } else { name };
                assert!(script.contains(name), "{name} for {shell}");
            }
        }
    }

    #[test]
    fn the_manual_has_a_page_for_each_command() {
        let mut out = Vec::new();
        assert_eq!(man(None, &mut out).unwrap(), Outcome::Done);
        let page = String::from_utf8(out).unwrap();
        assert!(page.contains(".TH batchin 1") && page.contains("batchin\\-serve(1)"), "{page}");
        let folder = tempfile::tempdir().unwrap();
        man(Some(&folder.path().join("man1")), &mut Vec::new()).unwrap();
        for name in ["batchin.1", "batchin-serve.1", "batchin-batch-run.1", "batchin-key-limits.1"] {
            let page = std::fs::read_to_string(folder.path().join("man1").join(name)).unwrap();
            assert!(page.contains(".TH"), "{name}");
        }
    }
}
