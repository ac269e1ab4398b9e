//! Holds: the template that makes a task of a CSV row.

use std::collections::BTreeMap;

use minijinja::{Environment, UndefinedBehavior, Value};

/// Its name within minijinja; without an ending, so that nothing is escaped.
const NAME: &str = "template";

/// A template in Jinja's syntax.
pub(crate) struct Template {
    engine: Environment<'static>,
    is_json: bool,
}

impl Template {
    /// Says what is wrong with the template otherwise.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        let text = source.trim_start();
        let is_json = text.starts_with('{') && !["{{", "{%", "{#"].iter().any(|tag| text.starts_with(tag));
        let mut engine = Environment::new();
        // A mistyped column must not silently become an empty text.
        engine.set_undefined_behavior(UndefinedBehavior::Strict);
        engine.add_template_owned(NAME, source.to_owned()).map_err(|error| said(&error))?;
        Ok(Self { engine, is_json })
    }

    /// Whether it renders a JSON line, rather than a prompt.
    pub(super) fn is_json(&self) -> bool {
        self.is_json
    }

    /// Names that it uses and nobody gives it, in order.
    pub(super) fn unknown_names(&self, columns: &[String]) -> Vec<String> {
        let Ok(template) = self.engine.get_template(NAME) else { return Vec::new() };
        let is_global = |name: &str| self.engine.globals().any(|(global, _)| global == name);
        let is_known = |name: &str| name == "row" || columns.iter().any(|column| column == name) || is_global(name);
        let mut names: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        names.retain(|name| !is_known(name));
        names.sort();
        names
    }

    /// What it makes of a row.
    pub(super) fn render(&self, columns: &[String], cells: &[&str]) -> Result<String, String> {
        let cells = cells.iter().map(|cell| Value::from(*cell));
        let row: BTreeMap<&str, Value> = columns.iter().map(String::as_str).zip(cells).collect();
        let mut names = BTreeMap::from([("row", Value::from(row.clone()))]);
        names.extend(row);
        let template = self.engine.get_template(NAME).map_err(|error| said(&error))?;
        template.render(names).map_err(|error| said(&error))
    }
}

/// minijinja's words, with the template's line.
fn said(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    match error.line() {
        Some(line) => format!("template, line {line}: {what}"),
        None => format!("template: {what}"),
    }
}
