//! The chat template that a trained model must be served with, and the same in the language of Ollama's Modelfiles.
//!
//! In:    the plan's data part, the tokenizer.
//! Out:   the Jinja source as trained with; a Go template, where one says the same.
//! Never: passes a Go template off as the same that renders a probe conversation otherwise.

mod shape;
#[cfg(test)]
mod tests;

use planner::plan::DataPlan;
use serde_json::{Value, json};

use crate::encode::settled_template;
use crate::error::DataError;
use crate::template::{Template, Turns, Until};
use crate::tokenizer::Tokenizer;
use shape::{Shape, Wanted};

/// The template of a run.
#[derive(Debug)]
pub struct ServedTemplate<'a> {
    template: Template,
    tokenizer: &'a Tokenizer,
}

/// What goes into a Modelfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoTemplate {
    /// The text of `TEMPLATE`.
    pub text: String,
    /// What the Go template leaves out, in words for the user.
    pub notes: Vec<String>,
}

/// Who says what.
type Said<'a> = (&'a str, &'a str);

impl<'a> ServedTemplate<'a> {
    /// The template that the plan trains with; `None` where there is none.
    pub fn of(plan: &DataPlan, tokenizer: &'a Tokenizer) -> Result<Option<ServedTemplate<'a>>, DataError> {
        let template = settled_template(plan, tokenizer)?;
        Ok(template.map(|template| ServedTemplate { template, tokenizer }))
    }

    /// Jinja source.
    pub fn source(&self) -> &str {
        self.template.source()
    }

    /// What ends an answer, and what else ends a text: `PARAMETER stop` of a Modelfile.
    pub fn stops(&self) -> Vec<String> {
        let mut stops: Vec<String> = Vec::new();
        let turn = self.shape().ok().map(|shape| shape.answer_end().to_owned());
        let names = self.tokenizer.eos().iter().filter_map(|&id| self.tokenizer.token(id));
        for stop in turn.and_then(|text| self.first_token(&text)).into_iter().chain(names) {
            if !stops.contains(&stop) {
                stops.push(stop);
            }
        }
        stops
    }

    /// The same in Go, or why there is none.
    pub fn go(&self) -> Result<GoTemplate, String> {
        let shape = self.shape()?;
        for probe in probes(&shape) {
            let ours = shape.render(&probe);
            let theirs = self.prompt(&probe)?;
            if ours != theirs {
                let at = ours.bytes().zip(theirs.bytes()).take_while(|(ours, theirs)| ours == theirs).count();
                return Err(format!(
                    "the chat template is not made of one text around each turn: a conversation of {} turns differs at \
                     byte {at}",
                    probe.len()
                ));
            }
        }
        let mut notes = Vec::new();
        if !shape.takes_system() {
            notes.push("the chat template has no place for a system text; Ollama's SYSTEM does nothing".to_owned());
        }
        if self.prompt(&[("user", " a ")]).is_ok_and(|text| !text.contains(" a ")) {
            notes.push("the chat template cuts white space around a text; Ollama's templates cannot".to_owned());
        }
        if let Some(bos) = self.bos().filter(|_| self.tokenizer.adds_bos())
            && !shape.starts_with(&bos)
        {
            notes.push(format!(
                "the chat template writes no {bos}, but the tokenizer puts it before every text: answers may differ from \
                 those in training"
            ));
        }
        // The server's tokenizer writes it.
        let written = self.bos().filter(|_| self.tokenizer.adds_bos());
        Ok(GoTemplate { text: shape.without_start(written.as_deref()).to_go()?, notes })
    }

    fn bos(&self) -> Option<String> {
        self.tokenizer.bos().and_then(|id| self.tokenizer.token(id))
    }

    fn shape(&self) -> Result<Shape, String> {
        Shape::read(&|said, wanted| match wanted {
            Wanted::Prompt => self.prompt(said),
            Wanted::Turns => self.render(said, Until::End),
        })
    }

    /// The conversation and the beginning of the next answer.
    fn prompt(&self, said: &[Said<'_>]) -> Result<String, String> {
        self.render(said, Until::Answer(said.len()))
    }

    fn render(&self, said: &[Said<'_>], until: Until) -> Result<String, String> {
        let messages: Vec<Value> =
            said.iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
        let rendered = self.template.render(&Turns::new(messages.iter(), None), until);
        rendered.map(|rendered| rendered.text).map_err(|error| error.to_string())
    }

    /// The special token that a text begins with, or the whole of it.
    fn first_token(&self, text: &str) -> Option<String> {
        let ids = self.tokenizer.encode(text.trim_start()).ok()?;
        let first = ids.first().copied().filter(|&id| self.tokenizer.is_special(id));
        first.and_then(|id| self.tokenizer.token(id)).or_else(|| Some(text.trim().to_owned()))
    }
}

/// Conversations that templates of other shapes render otherwise.
fn probes(shape: &Shape) -> Vec<Vec<Said<'static>>> {
    let plain: [&[Said]; 3] = [
        &[("user", "How are you?")],
        &[("user", "How are you?"), ("assistant", "Well, thanks."), ("user", "And now?\nStill?")],
        &[("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"), ("user", "5")],
    ];
    let mut probes: Vec<Vec<Said>> = plain.iter().map(|probe| probe.to_vec()).collect();
    if shape.takes_system() {
        let system = [("system", "Be kind.\n\nBe brief.")];
        probes.extend(plain.iter().map(|probe| [&system[..], probe].concat()));
    }
    probes
}
