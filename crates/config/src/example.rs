//! Holds: `batchin config example`: every setting with what it is for, as a file that can be used as it is.

use super::models::DEFAULT_MODELS;
use super::schema::SCHEMA;

const HEAD: &str = "\
# Every setting of batchin, with its default. Remove what you do not change: the defaults may improve.
# What is commented out has no default, or follows another setting.
# A setting can also come from the environment: server.listen is BATCHIN_SERVER__LISTEN (two underscores between
# levels; lists separated by commas). A secret can also come from a file: NAME_file.
";

/// The whole example; untouched, it equals the defaults.
pub fn example() -> String {
    let settings = SCHEMA.example(HEAD);
    let models = "# Without any [[models]], these two are served by the embedded engine.";
    format!("{settings}\n{models}\n\n{DEFAULT_MODELS}")
}
