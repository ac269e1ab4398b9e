//! Holds: what the files of one crate take from each other: no circles, nothing between the nouns of an API, and nothing
//! from further up where a crate's parts stand in an order.
//!
//! A file takes what it names by `use`, `crate::`, `super::`, `self::` or a module's name, from the file that has it, also
//! where another one only hands it on. What a file takes from those below it (`a.rs` from `a/b.rs`) does not count: it is
//! made of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use super::Fault;
use super::paths::{Named, named};
use super::source::File;

/// Folders whose files and folders are nouns that know nothing of each other, by crate.
const NOUNS: &[(&str, &str)] = &[("api", "v1")];

/// Parts that take only from those before them, by crate: `crates/store/src/lib.rs` says why.
const ORDERS: &[(&str, &[&str])] = &[(
    "store",
    &[
        "fence",
        "waking",
        "accounts",
        "money",
        "outbox",
        "inference",
        "statements",
        "files",
        "file_claims",
        "queue",
        "films",
        "drains",
        "commit",
        "nodes",
        "check",
    ],
)];

/// As far as a name is followed through files that hand it on.
const MAX_HANDS: u32 = 8;

/// A module's path from the crate's root, which is empty.
type Module<'a> = Vec<&'a str>;

struct Held<'a> {
    file: &'a File<'a>,
    named: Vec<Named<'a>>,
}

/// Which module takes from which, and where it says so first.
type Takes<'a> = BTreeMap<Module<'a>, BTreeMap<Module<'a>, usize>>;

/// Checks the files of one crate, which lies in `folder`.
pub fn check(krate: &str, folder: &Path, files: &[File<'_>], faults: &mut Vec<Fault>) {
    let modules: BTreeMap<Module<'_>, Held<'_>> = files
        .iter()
        .filter_map(|file| Some((module(folder, file)?, Held { file, named: named(file.production_text()) })))
        .collect();
    let takes = takes(&modules);
    check_circles(&modules, &takes, faults);
    for (_, above) in NOUNS.iter().filter(|(name, _)| *name == krate) {
        check_nouns(above, &modules, &takes, faults);
    }
    for (_, order) in ORDERS.iter().filter(|(name, _)| *name == krate) {
        check_order(order, &modules, &takes, faults);
    }
}

fn check_circles(modules: &BTreeMap<Module<'_>, Held<'_>>, takes: &Takes<'_>, faults: &mut Vec<Fault>) {
    let mut told = BTreeSet::new();
    for module in takes.keys() {
        let Some(circle) = shortest_circle(module, takes) else { continue };
        if circle.iter().all(|part| told.contains(part)) {
            continue;
        }
        let line = takes[module][circle.get(1).unwrap_or(module)];
        let names: Vec<String> = circle.iter().chain([module]).map(|part| shown(part)).collect();
        let message = format!(
            "is in a circle: {}; move what they share into a file below them, or hand over as an argument what only the \
             upper one knows (what a file takes from its own folder does not count)",
            names.join(" → ")
        );
        faults.extend(modules.get(module).map(|held| held.file.fault(line, message)));
        told.extend(circle);
    }
}

fn check_nouns(above: &str, modules: &BTreeMap<Module<'_>, Held<'_>>, takes: &Takes<'_>, faults: &mut Vec<Fault>) {
    let noun = |module: &Module<'_>| match module.as_slice() {
        [first, noun, ..] if *first == above => Some((*noun).to_owned()),
        _ => None,
    };
    for (from, taken) in takes {
        for (to, line) in taken {
            let (Some(own), Some(other)) = (noun(from), noun(to)) else { continue };
            if own != other {
                let message = format!(
                    "{above}/{own} takes from its sibling {above}/{other} ({}); nouns share through files outside of \
                     {above}: move it there",
                    shown(to)
                );
                faults.extend(modules.get(from).map(|held| held.file.fault(*line, message)));
            }
        }
    }
}

fn check_order(order: &[&str], modules: &BTreeMap<Module<'_>, Held<'_>>, takes: &Takes<'_>, faults: &mut Vec<Fault>) {
    let place = |module: &Module<'_>| order.iter().position(|part| module.first() == Some(part));
    for (from, taken) in takes {
        for (to, line) in taken {
            if place(from) < place(to) && place(from).is_some() {
                let message = format!(
                    "takes from {}, which stands above it ({}); hand it over as an argument, or move what both need down",
                    shown(to),
                    order.join(" → ")
                );
                faults.extend(modules.get(from).map(|held| held.file.fault(*line, message)));
            }
        }
    }
}

/// The module that a file of `src` is; a crate's library and its program are both its root.
fn module<'a>(folder: &Path, file: &'a File<'_>) -> Option<Module<'a>> {
    let path = file.path().strip_prefix(folder.join("src")).ok()?;
    let mut parts: Module<'a> = path.parent()?.components().filter_map(|part| part.as_os_str().to_str()).collect();
    let stem = path.file_stem()?.to_str()?;
    if !(stem == "mod" || (parts.is_empty() && matches!(stem, "lib" | "main"))) {
        parts.push(stem);
    }
    Some(parts)
}

fn shown(module: &Module<'_>) -> String {
    if module.is_empty() { "lib".to_owned() } else { module.join("/") }
}

fn takes<'a>(modules: &BTreeMap<Module<'a>, Held<'a>>) -> Takes<'a> {
    let mut takes = Takes::new();
    for (module, held) in modules {
        for named in &held.named {
            let Some(path) = absolute(module, &named.parts, modules) else { continue };
            let from = holder(path, modules, MAX_HANDS);
            if !from.starts_with(module) {
                takes.entry(module.clone()).or_default().entry(from).or_insert(named.line);
            }
        }
    }
    takes
}

/// A path from the crate's root; `None` when it is of another crate.
fn absolute<'a>(
    module: &Module<'a>,
    parts: &[&'a str],
    modules: &BTreeMap<Module<'a>, Held<'a>>,
) -> Option<Module<'a>> {
    let (first, rest) = parts.split_first()?;
    match *first {
        "crate" => Some(rest.to_vec()),
        "self" => Some([module.as_slice(), rest].concat()),
        "super" => {
            let (_, above) = module.split_last()?;
            let up = rest.iter().take_while(|part| **part == "super").count();
            let above = above.get(..above.len().checked_sub(up)?)?;
            Some([above, rest.get(up..)?].concat())
        }
        _ => {
            let below = [module.as_slice(), &[*first]].concat();
            modules.contains_key(&below).then(|| [module.as_slice(), parts].concat())
        }
    }
}

/// The module that has what this path leads to.
fn holder<'a>(path: Module<'a>, modules: &BTreeMap<Module<'a>, Held<'a>>, hands: u32) -> Module<'a> {
    let known = (0..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]));
    let (module, rest) = path.split_at(known.unwrap_or(0));
    let module = module.to_vec();
    let handed_on = rest.first().filter(|_| hands > 0).and_then(|name| {
        let import = modules.get(&module)?.named.iter().find(|named| named.here == Some(*name))?;
        absolute(&module, &import.parts, modules).filter(|further| *further != path[..=module.len()])
    });
    match handed_on {
        Some(further) => holder([further.as_slice(), &rest[1..]].concat(), modules, hands - 1),
        None => module,
    }
}

/// The shortest way from a module back to itself, without its end.
fn shortest_circle<'a>(start: &Module<'a>, takes: &Takes<'a>) -> Option<Vec<Module<'a>>> {
    let mut ways = VecDeque::from([vec![start.clone()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in takes.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                ways.push_back([way.as_slice(), std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}
