//! Who answers: what was trained, its base, or both in turn; each with its own conversation.
//!
//! In:    lines, orders.
//! Out:   answers on stdout as they come, speed on stderr.
//! Never: opens the base of a fully trained model before it is asked for.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::anyhow;
use datasets::{Dialogue, TextStream, Tokenizer};
use planner::memory::Work;
use serde_json::{Value, json};
use trainer::{Answer, Answering, Conversation, Ended, Network, Sampling};

use super::ChatArguments;
use super::commands::{HELP, Order};
use crate::failure::{Failure, OrFail};
use crate::opened::{Opened, Side, SubjectArguments, failure};

/// How answers are made.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// What networks need room for.
    pub work: Work,
    /// Longest conversation, tokens.
    pub context: usize,
    /// Longest answer, tokens.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Without template and memory.
    pub raw: bool,
    /// One object an answer.
    pub json: bool,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Every answer is there.
    Whole,
    /// The user stopped one.
    Stopped,
}

/// One network and what was said to it and by it.
struct Voice {
    conversation: Conversation,
    messages: Vec<Value>,
}

/// Everyone who may answer.
pub struct Stage<'a> {
    opened: &'a Opened,
    subject: &'a SubjectArguments,
    dialogue: &'a Dialogue<'a>,
    rules: Rules,
    stop: &'a AtomicBool,
    network: Network,
    tuned: Voice,
    base: Option<Voice>,
    sides: Vec<Side>,
    system: Option<String>,
    tokens: usize,
    seconds: f64,
}

impl<'a> Stage<'a> {
    /// Places the network; also the base, if it is to answer.
    pub fn new(
        opened: &'a Opened,
        arguments: &'a ChatArguments,
        dialogue: &'a Dialogue<'a>,
        rules: Rules,
        stop: &'a AtomicBool,
    ) -> Result<Stage<'a>, Failure> {
        let needs_base = arguments.base || arguments.compare;
        if needs_base && !opened.has_base() {
            return Err(no_base(opened));
        }
        if !rules.raw && !dialogue.has_template() {
            return Err(anyhow!(
                "{}: no chat template and no end-of-text token to write ChatML with; --raw continues texts as they are",
                opened.name
            ))
            .or_input();
        }
        let network = opened.network(&arguments.subject, rules.work)?;
        let tuned = Voice { conversation: Conversation::new(network.clone(), rules.context), messages: Vec::new() };
        let mut stage = Stage {
            opened,
            subject: &arguments.subject,
            dialogue,
            rules,
            stop,
            network,
            tuned,
            base: None,
            sides: vec![Side::Tuned],
            system: arguments.system.clone(),
            tokens: 0,
            seconds: 0.0,
        };
        match (arguments.base, arguments.compare) {
            (true, _) => stage.listen_to(vec![Side::Base])?,
            (_, true) => stage.listen_to(vec![Side::Base, Side::Tuned])?,
            _ => {}
        }
        stage.reset();
        Ok(stage)
    }

    fn listen_to(&mut self, sides: Vec<Side>) -> Result<(), Failure> {
        if sides.contains(&Side::Base) && self.base.is_none() {
            if !self.opened.has_base() {
                return Err(no_base(self.opened));
            }
            let network = self.opened.base(self.subject, self.rules.work, self.network.clone())?;
            let conversation = Conversation::new(network, self.rules.context);
            self.base = Some(Voice { conversation, messages: self.beginning() });
        }
        self.sides = sides;
        Ok(())
    }

    /// Carries out an order; what cannot be done is said, and nothing has changed then.
    pub fn obey(&mut self, order: Order<'_>) {
        let done = match order {
            Order::Reset => {
                self.reset();
                Ok("the conversation begins anew".to_string())
            }
            Order::System(text) => {
                self.system = Some(text.to_string()).filter(|text| !text.is_empty());
                self.reset();
                Ok("the conversation begins anew with this system text".to_string())
            }
            Order::Base => self.listen_to(vec![Side::Base]).map(|()| "the base answers".to_string()),
            Order::Tuned => self.listen_to(vec![Side::Tuned]).map(|()| "the tuned network answers".to_string()),
            Order::Compare => {
                self.listen_to(vec![Side::Base, Side::Tuned]).map(|()| "base and tuned answer in turn".to_string())
            }
            Order::Help => Ok(HELP.to_string()),
            Order::Unknown(word) => Ok(format!("no such command: {word}; {HELP}; // begins a line with a slash")),
        };
        match done {
            Ok(text) => eprintln!("{text}"),
            Err(failure) => eprintln!("{failure}"),
        }
    }

    fn reset(&mut self) {
        let beginning = self.beginning();
        for voice in [Some(&mut self.tuned), self.base.as_mut()].into_iter().flatten() {
            voice.messages.clone_from(&beginning);
        }
    }

    fn beginning(&self) -> Vec<Value> {
        self.system.iter().map(|text| json!({ "role": "system", "content": text })).collect()
    }

    /// Everyone who listens answers `text`.
    pub fn turn(&mut self, text: &str) -> Result<Told, Failure> {
        for side in self.sides.clone() {
            if self.answer(side, text)? == Told::Stopped {
                return Ok(Told::Stopped);
            }
        }
        Ok(Told::Whole)
    }

    fn answer(&mut self, side: Side, text: &str) -> Result<Told, Failure> {
        let (rules, dialogue, tokenizer, stop) = (self.rules, self.dialogue, &self.opened.tokenizer, self.stop);
        let label = (self.sides.len() > 1).then_some(side);
        let voice = match side {
            Side::Tuned => &mut self.tuned,
            Side::Base => self.base.as_mut().expect("a base is opened before it is listened to"),
        };
        if !rules.raw {
            voice.messages.push(json!({ "role": "user", "content": text }));
        }
        let answered = speak(voice, text, &rules, Ears { dialogue, tokenizer, stop, label });
        let (answer, said) = match answered {
            Ok(answered) => answered,
            Err(failure) => {
                // As if it had not been asked.
                voice.messages.pop();
                return Err(failure);
            }
        };
        if !rules.raw {
            voice.messages.push(json!({ "role": "assistant", "content": said }));
        }
        self.tokens += answer.ids.len().saturating_sub(1);
        self.seconds += answer.writing_seconds;
        if rules.json {
            println!("{}", object(text, &said, &answer, side));
        }
        tell(&answer, rules.context);
        Ok(if answer.ended == Ended::Stopped { Told::Stopped } else { Told::Whole })
    }

    /// The speed of all answers, on stderr.
    pub fn speed(&self) {
        if self.tokens > 0 {
            eprintln!("{} tokens at {:.1} tokens/s", self.tokens, self.tokens as f64 / self.seconds.max(1e-9));
        }
    }
}

fn no_base(opened: &Opened) -> Failure {
    Failure::Input(anyhow!("{}: nothing was trained over it, so there is no base to talk to", opened.name))
}

/// What an answer is heard with.
struct Ears<'a> {
    dialogue: &'a Dialogue<'a>,
    tokenizer: &'a Tokenizer,
    stop: &'a AtomicBool,
    /// Who speaks, where several do.
    label: Option<Side>,
}

/// Makes one answer, writing it as it comes. Returns it with its text.
fn speak(voice: &mut Voice, text: &str, rules: &Rules, ears: Ears<'_>) -> Result<(Answer, String), Failure> {
    let prompt = match rules.raw {
        true => ears.dialogue.plain(text),
        false => ears.dialogue.prompt(&voice.messages),
    };
    let prompt = prompt.or_input()?;
    let how =
        Answering { endings: ears.tokenizer.eos(), max_new_tokens: rules.max_new_tokens, sampling: rules.sampling };
    let mut mouth = Mouth { silent: rules.json, said: String::new(), fault: None };
    if let Some(side) = ears.label {
        mouth.write(if side == Side::Base { "base:  " } else { "tuned: " });
        mouth.said.clear();
    }
    let mut stream = TextStream::new(ears.tokenizer);
    let answered = voice.conversation.answer(&prompt, how, &mut |token| {
        match stream.push(token) {
            Ok(piece) => mouth.write(&piece),
            Err(error) => mouth.fault = Some(error.into()),
        }
        match ears.stop.load(Ordering::SeqCst) || mouth.fault.is_some() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    let answer = answered.map_err(failure)?;
    mouth.write(&stream.finish().or_run()?);
    let said = mouth.end()?;
    Ok((answer, said))
}

/// Writes pieces and remembers them.
struct Mouth {
    silent: bool,
    said: String,
    fault: Option<anyhow::Error>,
}

impl Mouth {
    fn write(&mut self, piece: &str) {
        self.said.push_str(piece);
        if self.silent || piece.is_empty() {
            return;
        }
        let mut out = std::io::stdout().lock();
        if let Err(error) = out.write_all(piece.as_bytes()).and_then(|()| out.flush()) {
            self.fault = Some(anyhow::Error::from(error).context("stdout"));
        }
    }

    fn end(mut self) -> Result<String, Failure> {
        let said = std::mem::take(&mut self.said);
        self.write("\n");
        match self.fault {
            None => Ok(said),
            Some(error) => Err(Failure::Run(error)),
        }
    }
}

/// Speed, and why an answer is not whole, on stderr.
fn tell(answer: &Answer, context: usize) {
    let why = match answer.ended {
        Ended::Turn => String::new(),
        Ended::Length => "; cut: --max-new-tokens".to_string(),
        Ended::Context => format!("; cut: the context of {context} tokens is full (--context)"),
        Ended::Stopped => "; stopped".to_string(),
    };
    eprintln!(
        "[{} tokens at {:.1} tokens/s, {} read in {:.2} s, {} kept{why}]",
        answer.ids.len(),
        answer.tokens_per_second(),
        answer.read_tokens,
        answer.reading_seconds,
        answer.kept_tokens
    );
}

fn object(prompt: &str, said: &str, answer: &Answer, side: Side) -> Value {
    json!({
        "by": if side == Side::Base { "base" } else { "tuned" },
        "prompt": prompt,
        "answer": said,
        "ended": match answer.ended {
            Ended::Turn => "turn",
            Ended::Length => "length",
            Ended::Context => "context",
            Ended::Stopped => "stopped",
        },
        "tokens": answer.ids.len(),
        "prompt_tokens": answer.read_tokens + answer.kept_tokens,
        "kept_tokens": answer.kept_tokens,
        "reading_seconds": answer.reading_seconds,
        "tokens_per_second": answer.tokens_per_second(),
    })
}
