//! Holds: the tools of a request, and which of them its chat offers.
//!
//! Tools that the client runs itself become functions; those that a server would have to run are refused.

use std::{borrow::Cow, collections::HashSet};

use serde_json::value::RawValue;

use super::{
    called::{Called, CalledNames, INPUT, name_in_chat},
    fault::Fault,
    json::{Object, push_text},
    reading::{members_of, needed_name, needed_text, text, try_each},
};
use crate::heard::text_of;

/// Most tools of a request, and most that a choice names; OpenAI takes 128. Each that a choice names is looked for among all.
const MAX_TOOLS: usize = 1_024;

const LIST: &str = "must be an array of tools";

const CHOICE: &str = "must be \"auto\", \"none\", \"required\", or an object with a `type`";

/// A tool, as the chat calls it and as the request does.
#[derive(Debug)]
struct Tool<'a> {
    name_in_chat: String,
    called: Called,
    /// Of its namespace.
    about: Option<&'a RawValue>,
    description: Option<&'a RawValue>,
    parameters: Option<&'a RawValue>,
    strict: Option<&'a RawValue>,
    /// Of a custom tool's input.
    grammar: Option<Grammar<'a>>,
}

#[derive(Debug)]
struct Grammar<'a> {
    syntax: &'static str,
    definition: Cow<'a, str>,
}

/// What a chat offers.
#[derive(Debug, Default)]
pub(super) struct Offered<'a> {
    tools: Vec<Tool<'a>>,
    /// As the chat has it.
    choice: Option<String>,
}

/// Reads `tools` and `tool_choice`.
pub(super) fn offered<'a>(tools: Option<&'a RawValue>, choice: Option<&'a RawValue>) -> Result<Offered<'a>, Fault> {
    let mut offered = Offered::default();
    if let Some(tools) = tools {
        offered.read(tools).map_err(|fault| fault.within("tools"))?;
    }
    if let Some(choice) = choice {
        offered.choose(choice).map_err(|fault| fault.within("tool_choice"))?;
    }
    Ok(offered)
}

impl<'a> Offered<'a> {
    fn read(&mut self, tools: &'a RawValue) -> Result<(), Fault> {
        let mut names = HashSet::new();
        try_each(tools, LIST, |_, item| {
            let Some([kind, nested]) = members_of(item.get(), ["type", "tools"]) else {
                return Err(Fault::at("", "must be an object with a `type`"));
            };
            if kind.map(RawValue::get) != Some(r#""namespace""#) {
                return self.add(read_tool(item, None)?, &mut names);
            }
            let [name, about] = members_of(item.get(), ["name", "description"]).unwrap_or_default();
            let name = needed_name(".name", name)?;
            let about = text(".description", about)?;
            let nested = nested.ok_or_else(|| Fault::at(".tools", LIST))?;
            let add = |_, item| self.add(Tool { about, ..read_tool(item, Some(&name))? }, &mut names);
            try_each(nested, LIST, add).map_err(|fault| fault.within(".tools"))
        })
    }

    fn add(&mut self, tool: Tool<'a>, names: &mut HashSet<String>) -> Result<(), Fault> {
        if self.tools.len() == MAX_TOOLS {
            return Err(Fault::at("", "is one tool too many; send at most 1024"));
        }
        if !names.insert(tool.name_in_chat.clone()) {
            return Err(Fault::at(".name", "is the name of another tool; give each tool its own"));
        }
        self.tools.push(tool);
        Ok(())
    }

    fn choose(&mut self, choice: &'a RawValue) -> Result<(), Fault> {
        match choice.get() {
            // Servers refuse a choice where there is nothing to choose from.
            r#""auto""# | r#""none""# if self.tools.is_empty() => return Ok(()),
            r#""required""# if self.tools.is_empty() => {
                return Err(Fault::at("", "requires `tools`, of which there are none"));
            }
            r#""auto""# | r#""none""# | r#""required""# => {
                self.choice = Some(choice.get().to_owned());
                return Ok(());
            }
            _ => {}
        }
        let Some([kind]) = members_of(choice.get(), ["type"]) else { return Err(Fault::at("", CHOICE)) };
        match kind.map(RawValue::get) {
            Some(r#""function""# | r#""custom""#) => {
                let at = self.find(choice)?.first().copied();
                self.choice = at.and_then(|at| self.tools.get(at)).map(Tool::as_choice);
                Ok(())
            }
            Some(r#""allowed_tools""#) => self.allow(choice),
            _ => {
                let must =
                    "must be \"function\", \"custom\" or \"allowed_tools\": no server here runs tools of its own";
                Err(Fault::at(".type", must))
            }
        }
    }

    /// Leaves the tools that are allowed.
    fn allow(&mut self, choice: &'a RawValue) -> Result<(), Fault> {
        let [mode, tools] = members_of(choice.get(), ["mode", "tools"]).unwrap_or_default();
        self.choice = match mode.map(RawValue::get) {
            Some(mode @ (r#""auto""# | r#""required""#)) => Some(mode.to_owned()),
            _ => return Err(Fault::at(".mode", "must be \"auto\" or \"required\"")),
        };
        let mut allowed = HashSet::new();
        let must = "must be a non-empty array of tools that stand in `tools`";
        let tools = tools.ok_or_else(|| Fault::at(".tools", must))?;
        try_each(tools, must, |at, item| {
            if at == MAX_TOOLS {
                return Err(Fault::at("", "is one tool too many; name at most 1024"));
            }
            allowed.extend(self.find(item)?);
            Ok(())
        })
        .map_err(|fault| fault.within(".tools"))?;
        if allowed.is_empty() {
            return Err(Fault::at(".tools", must));
        }
        let mut at = 0..;
        self.tools.retain(|_| at.next().is_some_and(|at| allowed.contains(&at)));
        Ok(())
    }

    /// The places of the tools that an object means by type and name.
    fn find(&self, meant: &RawValue) -> Result<Vec<usize>, Fault> {
        let Some([kind, name, namespace]) = members_of(meant.get(), ["type", "name", "namespace"]) else {
            return Err(Fault::at("", "must be an object with a `type` and a `name`"));
        };
        let kind = kind.map_or("", RawValue::get);
        let name = needed_name(".name", name)?;
        let namespace = text(".namespace", namespace)?.and_then(|namespace| text_of(namespace.get()));
        let is_meant = |tool: &Tool<'_>| match kind {
            r#""namespace""# => tool.called.namespace.as_deref() == Some(&name),
            r#""function""# | r#""custom""# => {
                tool.called.is_custom == (kind == r#""custom""#)
                    && tool.called.name == name
                    && (namespace.is_none() || tool.called.namespace.as_deref() == namespace.as_deref())
            }
            _ => false,
        };
        let found: Vec<usize> = (0..).zip(&self.tools).filter(|(_, tool)| is_meant(tool)).map(|(at, _)| at).collect();
        if found.is_empty() {
            return Err(Fault::at(".name", "must be the name of a tool of this type in `tools`"));
        }
        Ok(found)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// What the request calls them.
    pub(super) fn called(&self) -> CalledNames {
        let mut names = CalledNames::default();
        for tool in &self.tools {
            names.add(&tool.name_in_chat, tool.called.clone());
        }
        names
    }

    /// Adds them to a chat. An empty list is left out, as servers refuse one.
    pub(super) fn write(&self, chat: &mut Object) {
        if self.tools.is_empty() {
            return;
        }
        let out = chat.member("tools");
        let mut told = None;
        for (at, tool) in self.tools.iter().enumerate() {
            out.push(if at == 0 { b'[' } else { b',' });
            // What is said of a namespace is said once.
            let namespace = tool.called.namespace.as_deref();
            let about = tool.about.filter(|_| told != namespace);
            told = namespace;
            tool.write(about, out);
        }
        out.push(b']');
        if let Some(choice) = &self.choice {
            chat.set("tool_choice", choice);
        }
    }
}

fn read_tool<'a>(item: &'a RawValue, namespace: Option<&str>) -> Result<Tool<'a>, Fault> {
    let names = ["type", "name", "description", "parameters", "strict", "format"];
    let Some([kind, name, description, parameters, strict, format]) = members_of(item.get(), names) else {
        return Err(Fault::at("", "must be an object with a `type`"));
    };
    let is_custom = match kind.map(RawValue::get) {
        Some(r#""function""#) => false,
        Some(r#""custom""#) => true,
        _ if namespace.is_some() => {
            return Err(Fault::at(".type", "must be \"function\" or \"custom\" in a namespace"));
        }
        _ => {
            let must = "must be \"function\", \"custom\" or \"namespace\": no server here runs tools of its own, such as \
                        web_search or code_interpreter; leave this tool out (in Codex's config.toml: web_search = \
                        \"disabled\")";
            return Err(Fault::at(".type", must));
        }
    };
    let name = needed_name(".name", name)?;
    let grammar = match format {
        Some(format) if is_custom => read_grammar(format).map_err(|fault| fault.within(".format"))?,
        _ => None,
    };
    Ok(Tool {
        name_in_chat: name_in_chat(namespace, &name),
        called: Called { name, namespace: namespace.map(str::to_owned), is_custom },
        about: None,
        description: text(".description", description)?,
        parameters,
        strict,
        grammar,
    })
}

fn read_grammar(format: &RawValue) -> Result<Option<Grammar<'_>>, Fault> {
    let [kind, syntax, definition] = members_of(format.get(), ["type", "syntax", "definition"]).unwrap_or_default();
    match kind.map(RawValue::get) {
        Some(r#""text""#) => return Ok(None),
        Some(r#""grammar""#) => {}
        _ => return Err(Fault::at(".type", "must be \"text\" or \"grammar\"")),
    }
    let syntax = match syntax.map(RawValue::get) {
        Some(r#""lark""#) => "lark grammar",
        Some(r#""regex""#) => "regular expression",
        _ => return Err(Fault::at(".syntax", "must be \"lark\" or \"regex\"")),
    };
    let definition = text_of(needed_text(".definition", definition)?.get()).unwrap_or_default();
    Ok(Some(Grammar { syntax, definition }))
}

impl Tool<'_> {
    fn write(&self, about: Option<&RawValue>, out: &mut Vec<u8>) {
        let mut function = Object::with_capacity(256);
        push_text(function.member("name"), &self.name_in_chat);
        self.write_description(about, &mut function);
        if self.called.is_custom {
            push_input_schema(function.member("parameters"));
        } else {
            for (name, value) in [("parameters", self.parameters), ("strict", self.strict)] {
                if let Some(value) = value {
                    function.set(name, value.get());
                }
            }
        }
        let mut tool = Object::with_capacity(64);
        tool.set("type", "\"function\"");
        tool.member("function").append(&mut function.finish());
        out.append(&mut tool.finish());
    }

    fn write_description(&self, about: Option<&RawValue>, function: &mut Object) {
        if about.is_none() && !self.called.is_custom {
            if let Some(description) = self.description {
                function.set("description", description.get());
            }
            return;
        }
        let said = |text: Option<&RawValue>| text.and_then(|text| text_of(text.get()).map(Cow::into_owned));
        let mut texts: Vec<String> = [said(about), said(self.description)].into_iter().flatten().collect();
        if self.called.is_custom {
            texts.push(format!("Give the whole input of this tool as the string `{INPUT}`, as plain text."));
        }
        if let Some(Grammar { syntax, definition }) = &self.grammar {
            texts.push(format!("The input must match this {syntax}:\n{definition}"));
        }
        texts.retain(|text| !text.is_empty());
        if !texts.is_empty() {
            push_text(function.member("description"), &texts.join("\n\n"));
        }
    }

    fn as_choice(&self) -> String {
        let mut choice = br#"{"type":"function","function":{"name":"#.to_vec();
        push_text(&mut choice, &self.name_in_chat);
        choice.extend_from_slice(b"}}");
        String::from_utf8(choice).unwrap_or_default()
    }
}

/// The schema of a custom tool's arguments.
fn push_input_schema(out: &mut Vec<u8>) {
    let schema = [
        r#"{"type":"object","properties":{""#,
        INPUT,
        r#"":{"type":"string"}},"required":[""#,
        INPUT,
        r#""],"additionalProperties":false}"#,
    ];
    schema.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}
