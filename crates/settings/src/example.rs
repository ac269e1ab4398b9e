//! Holds: the example: every setting with what it is for, as a file that can be used as it is.
//!
//! Generated from the settings themselves. What has a default stands there; what has none, and what follows another
//! setting, stands commented out, so that the untouched example equals the defaults.

use crate::schema::{Schema, Section};
use crate::setting::{Kind, Preset, Setting};

/// Widest line of a comment.
const WIDTH: usize = 110;

impl Schema {
    /// The whole example, below the lines of `head`.
    pub fn example(&self, head: &str) -> String {
        let mut lines: Vec<String> = head.lines().map(str::to_owned).collect();
        for section in self.sections {
            lines.extend([String::new(), format!("[{}]", section.name)]);
            for setting in section.settings {
                let below = setting.path.strip_prefix(section.name).and_then(|below| below.strip_prefix('.'));
                let name = below.unwrap_or(setting.path);
                lines.extend(described(setting, "#"));
                let mark = |(is_active, line): (bool, String)| if is_active { line } else { format!("# {line}") };
                lines.extend(written(setting, name).into_iter().map(mark));
            }
        }
        self.lists.iter().for_each(|list| write_list(&mut lines, list));
        lines.join("\n") + "\n"
    }
}

/// A list's entry, all of it commented out; what explains it is indented, so that removing every `# ` at the begin of
/// a setting leaves TOML.
fn write_list(lines: &mut Vec<String>, list: &Section) {
    lines.extend([String::new(), "#  Any number of these.".to_owned(), format!("# [[{}]]", list.name)]);
    let mut table = "";
    for setting in list.settings {
        let (parent, name) = setting.path.rsplit_once('.').unwrap_or(("", setting.path));
        if parent != table {
            table = parent;
            lines.push(format!("# [{}.{parent}]", list.name));
        }
        lines.extend(described(setting, "#  "));
        lines.extend(written(setting, name).into_iter().map(|(_, line)| format!("# {line}")));
    }
}

/// What a setting is for, in lines that begin with `mark`.
fn described(setting: &Setting, mark: &str) -> Vec<String> {
    let mut doc = setting.doc.to_owned();
    if let Preset::Follows { other, .. } = setting.preset {
        doc.push_str(&format!(" Follows {other}."));
    }
    if let Kind::Integer { min, max } = setting.kind {
        doc.push_str(&format!(" {min} to {max}."));
    }
    let mut lines = vec![mark.to_owned()];
    for word in doc.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{mark} {word}")),
        }
    }
    lines
}

/// The setting as TOML, and whether that states its default.
fn written(setting: &Setting, name: &str) -> Vec<(bool, String)> {
    let (is_active, value) = match setting.preset {
        Preset::Required { example } => (true, example.to_owned()),
        Preset::Absent { example } | Preset::Follows { example, .. } => (false, example.to_owned()),
        Preset::Text(text) => (true, format!("\"{text}\"")),
        Preset::Integer(number) => (true, number.to_string()),
        Preset::Flag(flag) => (true, flag.to_string()),
        Preset::Decimal(text) => (true, text.to_owned()),
        Preset::List(items) => {
            let items: Vec<String> = items.iter().map(|item| format!("\"{item}\"")).collect();
            (true, format!("[{}]", items.join(", ")))
        }
    };
    let mut lines = vec![(is_active, format!("{name} = {value}"))];
    if matches!(setting.kind, Kind::Secret) {
        lines.push((false, format!("{name}_file = \"/run/secrets/{name}\"")));
    }
    lines
}
