//! Holds: the chat template that a GGUF carries, rendered as Hugging Face's tokenizers would render it.

use minijinja::{
    Environment, Error, ErrorKind, Value, context,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde},
};
use serde_json::ser::PrettyFormatter;

const NAME: &str = "chat";

/// A compiled chat template.
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
    takes_tools: bool,
}

/// Why a conversation could not be rendered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenderError {
    /// The template itself refused the conversation, with this message.
    #[error("{reason}")]
    Refused {
        /// In the template's own words.
        reason: String,
    },
    /// The template failed on this conversation.
    #[error("the model's chat template cannot render this conversation")]
    Failed(#[source] Error),
}

/// What a template is rendered with.
pub(crate) struct Conversation<'a> {
    pub(crate) messages: &'a [serde_json::Value],
    pub(crate) tools: Option<&'a Value>,
    pub(crate) arguments: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

impl ChatTemplate {
    /// Compiles the source. The special tokens are texts that templates refer to by name.
    pub(crate) fn new(source: String, bos_token: String, eos_token: String) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", to_json);
        let takes_tools = source.contains("tools");
        environment.add_template_owned(NAME, source)?;
        Ok(Self { environment, bos_token, eos_token, takes_tools })
    }

    /// Whether the template looks at `tools` at all.
    pub(crate) fn takes_tools(&self) -> bool {
        self.takes_tools
    }

    /// The text that begins a sequence, if the model has one.
    pub(crate) fn bos_token(&self) -> &str {
        &self.bos_token
    }

    /// The prompt for the assistant's next message.
    pub(crate) fn render(&self, conversation: &Conversation<'_>) -> Result<String, RenderError> {
        let template = self.environment.get_template(NAME).map_err(RenderError::Failed)?;
        let base = context! {
            messages => Value::from(Serde(conversation.messages)),
            tools => conversation.tools,
            add_generation_prompt => true,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
        };
        let rendered = match conversation.arguments {
            Some(arguments) => template.render(context! { ..base, ..Value::from(Serde(arguments)) }),
            None => template.render(base),
        };
        rendered.map_err(|error| match refusal(&error) {
            Some(reason) => RenderError::Refused { reason },
            None => RenderError::Failed(error),
        })
    }
}

/// Marks errors that come from the template's own `raise_exception`.
const REFUSAL: &str = "refused by the chat template: ";

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{REFUSAL}{message}")))
}

fn refusal(error: &Error) -> Option<String> {
    error.detail()?.strip_prefix(REFUSAL).map(str::to_owned)
}

/// Templates put today's date into system prompts.
fn strftime_now(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// Python's `json.dumps(ensure_ascii=False)`: `", "` and `": "` between members, and nothing escaped for HTML.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<Value> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(width) => {
            let spaces = " ".repeat(width);
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut out, formatter))
        }
        None => serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut out, Python)),
    };
    written.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    let text = String::from_utf8(out).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(Value::from_safe_string(text))
}

/// Python's default separators.
struct Python;

impl serde_json::ser::Formatter for Python {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
        {{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}\
        {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn render(source: &str, messages: serde_json::Value) -> Result<String, RenderError> {
        let template = ChatTemplate::new(source.to_owned(), "<s>".to_owned(), "</s>".to_owned()).unwrap();
        let messages = messages.as_array().unwrap().clone();
        let tools = r#"[{"type": "function", "function": {"name": "f", "description": "a<b & 'c'"}}]"#;
        let tools: Value = serde_json::from_str(tools).unwrap();
        template.render(&Conversation { messages: &messages, tools: Some(&tools), arguments: None })
    }

    #[test]
    fn renders_chatml_with_a_default_system_message() {
        assert_eq!(
            render(CHATML, json!([{"role": "user", "content": "Hi"}])).unwrap(),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn python_methods_and_special_tokens_work() {
        let source = "{{ bos_token }}{{ messages[0].content.strip().split(' ')[-1].upper() }}{{ eos_token }}";
        assert_eq!(render(source, json!([{"content": " one two "}])).unwrap(), "<s>TWO</s>");
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let source = "{{ tools[0].function | tojson }}";
        assert_eq!(render(source, json!([])).unwrap(), r#"{"name": "f", "description": "a<b & 'c'"}"#);
    }

    #[test]
    fn a_refusal_keeps_the_templates_words() {
        let error = render("{{ raise_exception('Roles must alternate') }}", json!([])).unwrap_err();
        assert!(matches!(&error, RenderError::Refused { reason } if reason == "Roles must alternate"), "{error:?}");
    }

    #[test]
    fn the_date_can_be_written() {
        let year = render("{{ strftime_now('%Y') }}", json!([])).unwrap();
        assert!(year.parse::<u32>().unwrap() > 2020, "{year}");
    }

    #[test]
    fn blocks_take_their_lines_with_them() {
        assert_eq!(render("  {% if true %}\nx\n  {% endif %}\ny", json!([])).unwrap(), "x\ny");
    }
}
