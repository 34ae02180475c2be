//! Chat templates, rendered byte for byte as transformers renders them.
//!
//! In:    Jinja source, the names of the special tokens, a day, conversations.
//! Out:   the conversation as one text, and what `{% generation %}` blocks marked of it.
//! Never: reads the clock: `strftime_now` tells the plan's day, so that a run gives the same tokens on every day; runs
//!        without end: fuel, depth and output are bounded.
//!
//! The language is minijinja's; `source`, `methods`, `filters`, `functions` mend where it differs from Jinja2 3.1.6 in the
//! sandbox of transformers 5.23. `tests/golden/chat_templates.py` tells what those print.

mod arguments;
mod bounds;
mod collections;
mod conversion;
mod filters;
mod functions;
mod json;
mod methods;
mod number_filters;
mod python;
mod source;
mod strftime;
mod text;
mod text_filters;

#[cfg(test)]
mod golden_tests;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, Output, State, Value};

pub(crate) use conversion::Turns;
pub(crate) use strftime::Day;

/// Steps of one render. A turn of the longest templates takes some hundreds.
const FUEL: u64 = 20_000_000;
/// Nested frames (a macro call counts for five of them); deeper ones are an error, not an overflow of the stack.
const DEPTH_MAX: usize = 400;
/// Bytes of one rendered conversation.
const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// Name of the only template in the environment.
const NAME: &str = "chat_template";
/// What a `{% generation %}` block writes before and after its text. Unicode gives these two code points no meaning.
pub(crate) const OPEN: char = '\u{FDD0}';
/// See [`OPEN`].
pub(crate) const CLOSE: char = '\u{FDD1}';

/// The special tokens that templates may write by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Specials {
    /// `bos_token`; undefined in the template where there is none.
    pub(crate) bos: Option<String>,
    /// `eos_token`, likewise.
    pub(crate) eos: Option<String>,
}

/// What is rendered of a conversation's turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// All of them.
    End,
    /// The first so many.
    Turn(usize),
    /// The first so many, and the beginning of the next answer.
    Answer(usize),
}

/// A rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendered {
    /// The text.
    pub(crate) text: String,
    /// Bytes inside `{% generation %}` blocks, in order.
    pub(crate) generation: Vec<Range<usize>>,
}

/// Why a template does not compile, or does not render a conversation.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub(crate) enum TemplateError {
    /// Said by the engine or by `raise_exception`.
    #[error("{reason}{}", line.map(|line| format!(" (template line {line})")).unwrap_or_default())]
    Jinja {
        /// What.
        reason: String,
        /// Where, from 1.
        line: Option<usize>,
    },
    /// A part of the source larger than in any template that people use; the engine would recurse over it.
    #[error(
        "the chat template has {what} of {found}, more than the limit of {limit} (a bound against damaged templates)"
    )]
    Extent {
        /// Which part.
        what: &'static str,
        /// How large it is.
        found: usize,
        /// How large it may be.
        limit: usize,
    },
    /// More text than any model reads.
    #[error("the chat template writes {bytes} bytes for one conversation, more than the limit of {OUTPUT_BYTES_MAX}")]
    TooLong {
        /// Bytes written.
        bytes: usize,
    },
    /// The two marks cannot be told from text.
    #[error(
        "the conversation contains U+FDD0 or U+FDD1, which stand for the borders of generation blocks; remove them"
    )]
    Mark,
    /// A fault of the engine.
    #[error("the template engine failed on this conversation; that is a bug of it")]
    Engine,
}

/// A compiled template.
pub(crate) struct Template {
    environment: Environment<'static>,
    specials: Vec<(&'static str, Value)>,
    marks: bool,
    source: String,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("specials", &self.specials).finish_non_exhaustive()
    }
}

impl Template {
    /// Compiles `source` with the settings of transformers' `_compile_jinja_template`.
    pub(crate) fn new(source: &str, specials: &Specials, day: Day) -> Result<Template, TemplateError> {
        guarded(|| Template::compile(source, specials, day))
    }

    fn compile(source: &str, specials: &Specials, day: Day) -> Result<Template, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(fault)?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(DEPTH_MAX);
        environment.set_unknown_method_callback(methods::call);
        environment.set_formatter(print);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        filters::add(&mut environment);
        text_filters::add(&mut environment);
        number_filters::add(&mut environment);
        functions::add(&mut environment, day);
        let rewritten = source::rewrite(source);
        rewritten.extent.check(source)?;
        environment.add_template_owned(NAME, rewritten.text).map_err(fault)?;
        let named = [("bos_token", &specials.bos), ("eos_token", &specials.eos)];
        let specials = named.iter().filter_map(|(name, token)| Some((*name, Value::from(token.as_deref()?)))).collect();
        Ok(Template { environment, specials, marks: rewritten.generation, source: source.to_owned() })
    }

    /// The Jinja source.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template says by `{% generation %}` what is trained on.
    pub(crate) fn marks(&self) -> bool {
        self.marks
    }

    /// Renders turns.
    pub(crate) fn render(&self, turns: &Turns, until: Until) -> Result<Rendered, TemplateError> {
        if self.marks && turns.holds_marks() {
            return Err(TemplateError::Mark);
        }
        let text = self.render_with(turns.variables(until, &self.specials))?;
        if !self.marks {
            return Ok(Rendered { text, generation: Vec::new() });
        }
        Ok(without_marks(&text))
    }

    /// Renders with any variables.
    fn render_with(&self, variables: Value) -> Result<String, TemplateError> {
        guarded(|| {
            let template = self.environment.get_template(NAME).map_err(fault)?;
            let mut out = Bounded::default();
            match template.render_captured_to(variables, &mut out) {
                _ if out.bytes > OUTPUT_BYTES_MAX => Err(TemplateError::TooLong { bytes: out.bytes }),
                Err(error) => Err(fault(error)),
                Ok(_) => String::from_utf8(out.text).map_err(|_| TemplateError::Engine),
            }
        })
    }
}

/// Turns a panic of the engine into an error (its slices and sorts may panic on hostile templates), and gives it the
/// stack that templates within the bounds need: the engine's own recursion does not look at what is left.
fn guarded<T>(work: impl FnOnce() -> Result<T, TemplateError>) -> Result<T, TemplateError> {
    let caught = || catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(TemplateError::Engine));
    stacker::maybe_grow(bounds::STACK_LEFT_MIN, bounds::STACK_BYTES, caught)
}

fn fault(error: Error) -> TemplateError {
    let reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    TemplateError::Jinja { reason, line: error.line() }
}

/// Prints as Python's `str()` does.
fn print(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.write_str(text)?,
        None if value.is_undefined() => {}
        None => out.write_str(&python::str(value)?)?,
    }
    Ok(())
}

/// A writer that stops at [`OUTPUT_BYTES_MAX`].
#[derive(Default)]
struct Bounded {
    text: Vec<u8>,
    bytes: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes += bytes.len();
        if self.bytes > OUTPUT_BYTES_MAX {
            return Err(std::io::Error::other("too long"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Takes the marks out of the text and remembers where they stood; a block inside a block belongs to the outer one.
fn without_marks(marked: &str) -> Rendered {
    let mut text = String::with_capacity(marked.len());
    let (mut generation, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for piece in marked.split_inclusive([OPEN, CLOSE]) {
        text.push_str(piece.trim_end_matches([OPEN, CLOSE]));
        if piece.ends_with(OPEN) {
            start = if depth == 0 { text.len() } else { start };
            depth += 1;
        } else if piece.ends_with(CLOSE) {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                generation.push(start..text.len());
            }
        }
    }
    Rendered { text, generation }
}
