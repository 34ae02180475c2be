//! Chat templates, rendered as transformers renders them.
//!
//! In:    Jinja source, messages.
//! Out:   the conversation as one text.
//! Never: reads the clock: `strftime_now` tells a fixed day, so that a run gives the same tokens on every day.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use crate::error::DataError;
use crate::row_error::RowError;
use crate::tokenizer::Tokenizer;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// `system`, `user` or `assistant`.
    pub(crate) role: &'static str,
    /// Its text.
    pub(crate) content: String,
}

/// A compiled template with the model's special tokens.
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    bos: Option<String>,
    eos: Option<String>,
}

/// Name of the only template in the environment.
const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles `source` with the settings of transformers' `_compile_jinja_template`.
    pub(crate) fn new(source: &str, tokenizer: &Tokenizer) -> Result<ChatTemplate, DataError> {
        let bad = |error: Error| DataError::BadTemplate { reason: reason(&error) };
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(bad)?;
        environment.set_syntax(syntax);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(bad)?;
        let name = |id: Option<u32>| id.and_then(|id| tokenizer.token(id));
        Ok(ChatTemplate { environment, bos: name(tokenizer.bos()), eos: name(tokenizer.eos().first().copied()) })
    }

    /// Renders messages; `generate` adds the beginning of the next answer.
    pub(crate) fn render(&self, messages: &[Message], generate: bool) -> Result<String, RowError> {
        let fault = |error: Error| RowError::Render { reason: reason(&error) };
        let template = self.environment.get_template(NAME).map_err(fault)?;
        let message = |message: &Message| context! { role => message.role, content => message.content.as_str() };
        let variables = context! {
            messages => messages.iter().map(message).collect::<Vec<Value>>(),
            add_generation_prompt => generate,
            tools => (),
            documents => (),
            bos_token => self.bos.as_deref(),
            eos_token => self.eos.as_deref(),
        };
        template.render(variables).map_err(fault)
    }
}

/// An error with the line of the template.
fn reason(error: &Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{detail} (template line {line})"),
        None => detail,
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Friday 26 July 2024, the day that Llama 3's template falls back to.
fn strftime_now(format: String) -> String {
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        text.push_str(match letters.next() {
            Some('d' | 'e') => "26",
            Some('m') => "07",
            Some('b') => "Jul",
            Some('B') => "July",
            Some('Y') => "2024",
            Some('y') => "24",
            Some('a') => "Fri",
            Some('A') => "Friday",
            Some('j') => "208",
            Some('H' | 'I' | 'M' | 'S') => "00",
            Some('F') => "2024-07-26",
            Some('%') => "%",
            _ => "",
        });
    }
    text
}

/// Python's `json.dumps`: the built-in filter escapes `<`, `>`, `&` and `'` for HTML, transformers' does not.
fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let _: Option<bool> = options.get("ensure_ascii")?;
    let indent: Option<Value> = options.get("indent")?;
    options.assert_all_used()?;
    let none = Kwargs::from_iter(Vec::<(String, Value)>::new());
    let escaped = minijinja::filters::tojson(value, indent.filter(|indent| !indent.is_none()), none)?;
    Ok(Value::from(unescape_html(escaped.as_str().unwrap_or_default())))
}

fn unescape_html(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let plain = [("\\u003c", '<'), ("\\u003e", '>'), ("\\u0026", '&'), ("\\u0027", '\'')];
        if let Some((code, letter)) = plain.into_iter().find(|(code, _)| rest.starts_with(code)) {
            text.push(letter);
            rest = &rest[code.len()..];
        } else {
            // A backslash and the (ASCII) letter it escapes.
            let (pair, after) = rest.split_at(rest.len().min(2));
            text.push_str(pair);
            rest = after;
        }
    }
    text + rest
}

/// `{% generation %}` only marks the answer for transformers' masks; it becomes a block that is always rendered.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        text.push_str(before);
        let body = tag.trim_start_matches(['-', '+']).trim_start();
        let word = &body[..body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len())];
        let stand_in = match word {
            "generation" => Some("if true"),
            "endgeneration" => Some("endif"),
            _ => None,
        };
        rest = tag;
        if let Some(stand_in) = stand_in {
            text.push_str(&tag[..tag.len() - body.len()]);
            text.push_str(stand_in);
            rest = &body[word.len()..];
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_tokenizers::byte_level;

    fn render(source: &str) -> Result<String, RowError> {
        let messages = [Message { role: "user", content: "a < b & 'c' \\u003c é".into() }];
        ChatTemplate::new(source, &byte_level(None)).unwrap().render(&messages, true)
    }

    #[test]
    fn blocks_leave_no_white_space_and_python_methods_work() {
        let source = "{% for m in messages %}\n  {% if m.role.startswith('us') %}\n{{ m['role'].upper() }}\n  {% endif %}\n{% endfor %}\n";
        assert_eq!(render(source).unwrap(), "USER\n");
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let source = "{{ messages[0].content | tojson }} {{ {'a': [1, 'x']} | tojson(ensure_ascii=False) }}";
        assert_eq!(render(source).unwrap(), r#""a < b & 'c' \\u003c é" {"a": [1, "x"]}"#);
    }

    #[test]
    fn special_tokens_and_missing_tools_are_variables() {
        let source =
            "{{ bos_token }}{{ eos_token }}{% if not tools %}-{% endif %}{% if add_generation_prompt %}+{% endif %}";
        assert_eq!(render(source).unwrap(), "<s><|im_end|>-+");
    }

    #[test]
    fn an_exception_of_the_template_is_told() {
        let error = render("{{ raise_exception('only two roles') }}").unwrap_err();
        assert!(error.to_string().contains("only two roles"), "{error}");
    }

    #[test]
    fn a_template_that_does_not_compile_is_refused_with_its_line() {
        let error = ChatTemplate::new("a\n{% for %}", &byte_level(None)).err().unwrap();
        assert!(error.to_string().contains("template line 2"), "{error}");
    }

    #[test]
    fn the_date_is_the_same_every_day_and_generation_tags_are_transparent() {
        assert_eq!(render("{{ strftime_now('%d %b %Y') }}").unwrap(), "26 Jul 2024");
        assert_eq!(render("x {%- generation -%} y {%- endgeneration %} z").unwrap(), "xy z");
        assert_eq!(render("{% for m in messages %}a{% break %}b{% endfor %}").unwrap(), "a");
    }
}
