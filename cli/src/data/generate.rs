//! `tune data generate`: question and answer rows from documents, through a model server.
//!
//! In:    the command line, and one environment variable if `--key-env` names it.
//! Out:   rows, rejects and journal as files; progress on stderr, the summary on stdout.
//! Never: contacts an address that was not given; shows the key.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use datasets::generate::{
    Address, Asking, Chunking, Event, GenerateError, Input, Job, Limits, PDF_THREAD, Preview, Prompts, Reach, RowShape,
    Rules, Start, Summary, generate, journal_path, preview, rejects_path,
};

use crate::failure::{Failure, OrFail};
use crate::progress::clock;

/// Between two progress lines.
const LINE_PAUSE: Duration = Duration::from_secs(2);

/// `tune data generate`
#[derive(Debug, Args)]
pub struct GenerateArguments {
    /// Files (.txt, .md, .html, .pdf), folders, globs
    #[arg(value_name = "DOCUMENTS", required_unless_present = "write_prompts")]
    pub documents: Vec<String>,
    /// Base address of the server, such as http://localhost:11434/v1; only this is contacted
    #[arg(long, value_name = "ADDRESS", required_unless_present_any = ["write_prompts", "dry_run"])]
    pub endpoint: Option<String>,
    /// The model's name, as the server knows it
    #[arg(long, value_name = "NAME", required_unless_present_any = ["write_prompts", "dry_run"])]
    pub model: Option<String>,
    /// The JSONL file to write; its journal and its rejected rows lie beside it
    #[arg(long, value_name = "FILE", required_unless_present_any = ["write_prompts", "dry_run"])]
    pub output: Option<PathBuf>,
    /// How a row is written
    #[arg(long, value_enum, default_value = "question-answer")]
    pub shape: Shape,
    /// Write the built-in prompts into DIR for editing, and do nothing else
    #[arg(long, value_name = "DIR")]
    pub write_prompts: Option<PathBuf>,
    /// Use system.txt and user.txt in DIR
    #[arg(long, value_name = "DIR")]
    pub prompts: Option<PathBuf>,
    /// Wanted characters of a chunk
    #[arg(long, value_name = "CHARACTERS", default_value_t = 3000)]
    pub chunk: usize,
    /// Most characters of a chunk; default 4/3 of --chunk
    #[arg(long, value_name = "CHARACTERS")]
    pub chunk_max: Option<usize>,
    /// Characters of a chunk that the next one repeats
    #[arg(long, value_name = "CHARACTERS", default_value_t = 0)]
    pub overlap: usize,
    /// Only the first N chunks
    #[arg(long, value_name = "N")]
    pub max_chunks: Option<usize>,
    /// Pairs asked for, a chunk
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub pairs: usize,
    /// Language of the rows, in words
    #[arg(long, value_name = "LANGUAGE", default_value = "that of the text")]
    pub language: String,
    /// Sampling temperature
    #[arg(long, default_value_t = 0.3)]
    pub temperature: f64,
    /// Seed sent with each request
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Most tokens of one reply
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub max_tokens: u32,
    /// Refuse answers of whose content words a smaller share than this stands in the chunk, such as 0.5
    #[arg(long, value_name = "SHARE")]
    pub grounded: Option<f64>,
    /// Requests at the same time
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub concurrency: usize,
    /// Seconds one request may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
    /// Attempts a request
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub attempts: usize,
    /// Environment variable that holds the server's key
    #[arg(long, value_name = "VARIABLE")]
    pub key_env: Option<String>,
    /// Allow an address outside this machine and its private network: the documents are sent there
    #[arg(long)]
    pub allow_remote: bool,
    /// Ask again for everything
    #[arg(long)]
    pub restart: bool,
    /// Show the chunks and the first prompt; contact nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Shapes of rows.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Shape {
    /// {"question", "answer", "source"}
    QuestionAnswer,
    /// {"messages": [...], "source"}
    Messages,
}

/// Does what the arguments say. `stop` is set by SIGINT and SIGTERM.
pub fn run(arguments: &GenerateArguments, stop: &AtomicBool) -> Result<(), Failure> {
    if let Some(folder) = &arguments.write_prompts {
        for file in Prompts::write(folder).or_input()? {
            println!("{}", file.display());
        }
        return Ok(());
    }
    keep_pdf_panics_silent();
    let (input, asking) = (input(arguments), asking(arguments)?);
    if arguments.dry_run {
        show_preview(&preview(&input, &asking).or_input()?);
        return Ok(());
    }
    let job = job(arguments, input, asking)?;
    let last_line = Mutex::new(None);
    let started = Instant::now();
    let summary = generate(&job, stop, &|event| show(&event, started, &last_line)).map_err(failure)?;
    show_summary(&job, &summary);
    finish(&summary)
}

/// The reader of PDFs panics on some broken files; the job tells that as the document's reason.
fn keep_pdf_panics_silent() {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(PDF_THREAD) {
            previous(panic);
        }
    }));
}

fn input(arguments: &GenerateArguments) -> Input {
    let target = arguments.chunk;
    let bound = arguments.chunk_max.unwrap_or(target.saturating_mul(4) / 3);
    let chunking = Chunking { target, bound, overlap: arguments.overlap };
    Input { documents: arguments.documents.clone(), chunking, chunks_max: arguments.max_chunks }
}

fn asking(arguments: &GenerateArguments) -> Result<Asking, Failure> {
    let prompts = arguments.prompts.as_ref().map(|folder| Prompts::load(folder)).transpose().or_input()?;
    Ok(Asking {
        model: arguments.model.clone().unwrap_or_default(),
        prompts: prompts.unwrap_or_default(),
        pairs: arguments.pairs,
        language: arguments.language.clone(),
        temperature: arguments.temperature,
        seed: arguments.seed,
        reply_tokens_max: arguments.max_tokens,
    })
}

fn job(arguments: &GenerateArguments, input: Input, asking: Asking) -> Result<Job, Failure> {
    let missing = |option: &str| Failure::Input(anyhow!("{option} is missing"));
    let endpoint = arguments.endpoint.as_ref().ok_or_else(|| missing("--endpoint"))?;
    let reach = if arguments.allow_remote { Reach::Anywhere } else { Reach::Private };
    Ok(Job {
        input,
        asking,
        address: Address::parse(endpoint, reach).or_input()?,
        key: arguments.key_env.as_deref().map(key).transpose()?,
        limits: Limits {
            concurrency: arguments.concurrency,
            attempts: arguments.attempts,
            timeout: Duration::from_secs(arguments.timeout.max(1)),
            ..Limits::default()
        },
        rules: Rules { grounded_min: arguments.grounded, ..Rules::default() },
        output: arguments.output.clone().ok_or_else(|| missing("--output"))?,
        row_shape: match arguments.shape {
            Shape::QuestionAnswer => RowShape::QuestionAnswer,
            Shape::Messages => RowShape::Messages,
        },
        start: if arguments.restart { Start::Anew } else { Start::GoOn },
    })
}

fn key(variable: &str) -> Result<String, Failure> {
    let value = std::env::var(variable).ok().filter(|value| !value.trim().is_empty());
    value
        .map(|value| value.trim().to_string())
        .ok_or_else(|| Failure::Input(anyhow!("environment variable {variable} (--key-env) is not set")))
}

/// What the user can mend by other arguments is input; what a server did is a failed run.
fn failure(error: GenerateError) -> Failure {
    match error {
        GenerateError::Setting { .. }
        | GenerateError::Address { .. }
        | GenerateError::Remote { .. }
        | GenerateError::NoDocument { .. }
        | GenerateError::NothingUsable { .. }
        | GenerateError::Prompt { .. } => Failure::Input(error.into()),
        _ => Failure::Run(error.into()),
    }
}

fn show(event: &Event, started: Instant, last_line: &Mutex<Option<Instant>>) {
    match event {
        Event::Skipped(skipped) => eprintln!("{}: skipped: {}", skipped.path.display(), skipped.reason),
        Event::Planned { chunks, done: 0 } => eprintln!("{chunks} chunks to ask about"),
        Event::Planned { chunks, done } => eprintln!("{chunks} chunks, {done} of them done earlier"),
        Event::Retry { chunk, reason, pause } => {
            eprintln!("{chunk}: {reason}; again in {:.1} s", pause.as_secs_f64());
        }
        Event::Failed { chunk, reason } => eprintln!("{chunk}: given up: {reason}"),
        Event::Done { done, chunks } => {
            let Ok(mut last) = last_line.lock() else { return };
            if done == chunks || last.is_none_or(|last| last.elapsed() >= LINE_PAUSE) {
                *last = Some(Instant::now());
                eprintln!("chunk {done}/{chunks}, {} since the start", clock(started.elapsed()));
            }
        }
        _ => {}
    }
}

fn show_preview(preview: &Preview) {
    for skipped in &preview.skipped {
        eprintln!("{}: skipped: {}", skipped.path.display(), skipped.reason);
    }
    for chunk in &preview.chunks {
        let pages = chunk.pages.map_or(String::new(), |[first, last]| format!(", pages {first} to {last}"));
        let headings =
            if chunk.headings.is_empty() { String::new() } else { format!(" [{}]", chunk.headings.join(" > ")) };
        println!("{}{pages}{headings}: {}", chunk.place(), chunk.text.replace('\n', " "));
    }
    println!("{} documents, {} chunks, {} too short", preview.documents, preview.chunks.len(), preview.chunks_short);
    if !preview.chunks.is_empty() {
        println!("\n--- system ---\n{}\n--- user ---\n{}", preview.first_system, preview.first_user);
    }
}

fn show_summary(job: &Job, summary: &Summary) {
    let Summary { documents, chunks, chunks_done, chunks_resumed, chunks_short, chunks_empty, .. } = summary;
    println!("documents   {documents} read, {} skipped", summary.skipped.len());
    println!(
        "chunks      {chunks_done} of {chunks} done ({chunks_resumed} earlier), {} failed, {chunks_short} too short, \
         {chunks_empty} with nothing to ask",
        summary.chunks_failed.len()
    );
    if summary.journal_lines_dropped > 0 {
        println!("journal     {} torn or foreign lines left out", summary.journal_lines_dropped);
    }
    if summary.stopped {
        println!("stopped     {} keeps what is done; the same command goes on", journal_path(&job.output).display());
        return;
    }
    println!("rows        {} in {}", summary.rows, job.output.display());
    let rejected: usize = summary.rejected.values().sum();
    println!("rejected    {rejected} in {}", rejects_path(&job.output).display());
    for (reason, count) in &summary.rejected {
        println!("            {count} {reason}");
    }
    println!("tokens      {} read, {} written", summary.prompt_tokens, summary.reply_tokens);
    println!("seconds     {:.1}", summary.seconds);
}

fn finish(summary: &Summary) -> Result<(), Failure> {
    if summary.stopped {
        return Err(Failure::Interrupted("interrupted; the same command goes on".to_string()));
    }
    match summary.chunks_failed.first() {
        None => Ok(()),
        Some((chunk, reason)) => Err(Failure::Run(anyhow!(
            "{} chunks failed, the first ({chunk}): {reason}; the rows of the others are written, the same command \
             tries only the failed ones again",
            summary.chunks_failed.len()
        ))),
    }
}
