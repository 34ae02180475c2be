//! `tune chat`: talk to what was trained, beside its base if asked.
//!
//! In:    a run, a checkpoint, an adapter or a model; lines of a terminal or of a pipe, or one `--prompt`.
//! Out:   answers on stdout as they come; speed and notes on stderr.
//! Never: writes a turn otherwise than training did.

mod commands;
mod voice;

use std::io::{BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::Args;
use datasets::Dialogue;
use planner::memory::Work;
use planner::plan::DataPlan;
use trainer::{READ_TOKENS, Sampling};

use crate::eval::positive;
use crate::failure::{Failure, OrFail};
use crate::opened::{Opened, SubjectArguments};
use commands::{Command, HELP};
use voice::{Rules, Stage, Told};

/// Tokens of a conversation where the model allows more.
const CONTEXT_TOKENS: usize = 4096;

/// `tune chat`
#[derive(Debug, Args)]
pub struct ChatArguments {
    /// Who answers.
    #[command(flatten)]
    pub subject: SubjectArguments,
    /// Talk to the base instead of what was trained over it
    #[arg(long, conflicts_with = "compare")]
    pub base: bool,
    /// Let base and tuned answer one after the other
    #[arg(long)]
    pub compare: bool,
    /// The system text
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// One question; print the answer and end
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Continue texts as they are, without the chat template and without memory of earlier lines
    #[arg(long, conflicts_with = "system")]
    pub raw: bool,
    /// Divides logits; 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.7, value_parser = temperature)]
    pub temperature: f64,
    /// Draw from the so many likeliest tokens
    #[arg(long, value_name = "N", value_parser = positive)]
    pub top_k: Option<usize>,
    /// Draw from the fewest tokens that are so probable together
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = share)]
    pub top_p: f64,
    /// Draw from tokens at least so probable, relative to the likeliest
    #[arg(long, value_name = "P", value_parser = share)]
    pub min_p: Option<f64>,
    /// Divides positive logits of tokens that stand in the text already; 1 does nothing
    #[arg(long, value_name = "F", default_value_t = 1.0, value_parser = above_zero)]
    pub repetition_penalty: f64,
    /// The same seed gives the same answers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Longest answer, tokens
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = positive)]
    pub max_new_tokens: usize,
    /// Longest conversation, tokens; default: what the model allows, at most 4096
    #[arg(long, value_name = "N", value_parser = positive)]
    pub context: Option<usize>,
    /// Print one JSON object an answer, when it is complete
    #[arg(long)]
    pub json: bool,
}

fn number(text: &str, is_right: impl Fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|&number| number.is_finite() && is_right(number));
    number.ok_or_else(|| format!("expected {expected}"))
}

fn temperature(text: &str) -> Result<f64, String> {
    number(text, |number| (0.0..=100.0).contains(&number), "a number from 0 to 100")
}

fn share(text: &str) -> Result<f64, String> {
    number(text, |number| number > 0.0 && number <= 1.0, "a number above 0, at most 1")
}

fn above_zero(text: &str) -> Result<f64, String> {
    number(text, |number| number > 0.0, "a number above 0")
}

/// Talks until the input ends.
pub fn run(arguments: &ChatArguments) -> Result<(), Failure> {
    let opened = Opened::of(&arguments.subject)?;
    let plan = template(&opened, arguments);
    let dialogue = Dialogue::new(&plan, &opened.tokenizer).or_input()?;
    opened.notes.iter().chain(dialogue.notes()).for_each(|note| eprintln!("{note}"));
    let signals = Signals::listen().or_run()?;
    let stage = Stage::new(&opened, arguments, &dialogue, rules(arguments, &opened), &signals.stop)?;
    eprintln!("talking to {}", opened.name);
    match &arguments.prompt {
        Some(prompt) => one(stage, prompt),
        None => many(stage, arguments, &signals),
    }
}

/// The template is the run's; of a model by itself its own.
fn template(opened: &Opened, arguments: &ChatArguments) -> DataPlan {
    match &opened.plan {
        Some(plan) => plan.data.clone(),
        None => DataPlan::of(Vec::new(), context(opened, arguments)),
    }
}

fn context(opened: &Opened, arguments: &ChatArguments) -> usize {
    let positions = opened.weights.spec().max_positions;
    arguments.context.unwrap_or(CONTEXT_TOKENS).min(positions)
}

fn rules(arguments: &ChatArguments, opened: &Opened) -> Rules {
    let context = context(opened, arguments);
    // Two conversations, where two may answer.
    let voices = 1 + u64::from(opened.has_base());
    Rules {
        work: Work {
            loss_tokens: 0,
            rows: voices,
            cached_tokens: voices * context as u64,
            read_tokens: READ_TOKENS.min(context) as u64,
            adapter_numbers: 0,
        },
        context,
        max_new_tokens: arguments.max_new_tokens,
        sampling: Sampling {
            temperature: arguments.temperature,
            top_k: arguments.top_k,
            top_p: Some(arguments.top_p).filter(|&top_p| top_p < 1.0),
            min_p: arguments.min_p,
            repetition_penalty: arguments.repetition_penalty,
            seed: arguments.seed,
        },
        raw: arguments.raw,
        json: arguments.json,
    }
}

/// Ctrl-C stops an answer; while nothing is being answered it ends the program.
struct Signals {
    stop: Arc<AtomicBool>,
    idle: Arc<AtomicBool>,
}

impl Signals {
    fn listen() -> anyhow::Result<Signals> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let signals = Signals { stop: Arc::default(), idle: Arc::default() };
        let told = "cannot listen to signals";
        signal_hook::flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&signals.idle)).context(told)?;
        signal_hook::flag::register(SIGINT, Arc::clone(&signals.stop)).context(told)?;
        signal_hook::flag::register_conditional_shutdown(SIGTERM, 143, Arc::new(AtomicBool::new(true)))
            .context(told)?;
        Ok(signals)
    }
}

/// `--prompt`
fn one(mut stage: Stage<'_>, prompt: &str) -> Result<(), Failure> {
    let told = stage.turn(prompt)?;
    stage.speed();
    match told {
        Told::Whole => Ok(()),
        Told::Stopped => Err(Failure::Interrupted("interrupted".to_string())),
    }
}

fn many(mut stage: Stage<'_>, arguments: &ChatArguments, signals: &Signals) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    let typed = stdin.is_terminal() && !arguments.json;
    if typed {
        eprintln!("{HELP}");
    }
    loop {
        if typed {
            print!("> ");
            std::io::stdout().flush().or_run()?;
        }
        signals.idle.store(true, Ordering::SeqCst);
        let mut line = String::new();
        let read = stdin.lock().read_line(&mut line).context("stdin").or_run()?;
        signals.idle.store(false, Ordering::SeqCst);
        signals.stop.store(false, Ordering::SeqCst);
        let text = line.trim_end_matches(['\n', '\r']);
        match Command::of(text) {
            _ if read == 0 => break,
            Command::Quit => break,
            Command::Nothing => {}
            Command::Other(command) => stage.obey(command),
            Command::Say(text) => match stage.turn(text) {
                Ok(Told::Whole) => {}
                Ok(Told::Stopped) if typed => {}
                Ok(Told::Stopped) => return Err(Failure::Interrupted("interrupted".to_string())),
                // The conversation may go on with a shorter line, or anew.
                Err(Failure::Input(error)) if typed => eprintln!("error: {error:#}; /reset begins a new conversation"),
                Err(failure) => return Err(failure),
            },
        }
    }
    if typed {
        println!();
    }
    stage.speed();
    Ok(())
}
