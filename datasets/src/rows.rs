//! Rows of token ids from the files of a plan.
//!
//! In:    the plan's data part, a tokenizer.
//! Out:   a [`Dataset`]: rows in file order, and a [`Report`] that counts what was done to them.
//! Never: leaves out a row without counting it; keeps the text.

use std::path::PathBuf;

use planner::plan::{DataPlan, DataSource, RowFormat, TemplateChoice, TooLong};
use rayon::prelude::*;

use crate::error::DataError;
use crate::row_error::RowError;
use crate::jsonl::{self, Content, Lines};
use crate::spans::{self, Tokens};
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// Lines read before they are tokenised together; bounds the text held at once.
const LINES_AT_ONCE: usize = 4096;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Per token, whether it is trained on (as the target of the token before it; never the first).
    pub trained: Vec<bool>,
    /// Which source, in the plan's order.
    pub file: usize,
    /// Line in it, from 1.
    pub line: usize,
}

/// What the files held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows kept.
    pub rows: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Tokens of them that are trained on.
    pub trained_tokens: usize,
    /// Rows that were longer than the sequence length.
    pub too_long: usize,
    /// Rows left out for their length (also truncated ones that kept no trained token).
    pub dropped: usize,
    /// Rows whose end was cut.
    pub truncated: usize,
    /// Kept rows whose last trained token is a special one, so that the model learns to stop.
    pub ending_trained: usize,
    /// Tokens of the longest row, before anything was cut.
    pub longest: usize,
}

/// All rows of some files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Rows in file order.
    pub rows: Vec<Row>,
    /// The counts.
    pub report: Report,
    /// The files, by [`Row::file`].
    pub files: Vec<PathBuf>,
}

impl Dataset {
    /// Reads and tokenises every source of `plan`.
    pub fn load(plan: &DataPlan, tokenizer: &Tokenizer) -> Result<Dataset, DataError> {
        let files = plan.sources.iter().map(|source| source.path.clone()).collect();
        let mut dataset = Dataset { rows: Vec::new(), report: Report::default(), files };
        let mut first_too_long = None;
        for (file, source) in plan.sources.iter().enumerate() {
            let encoder = Encoder::new(source, template_text(&plan.chat_template), tokenizer)?;
            encoder.each(|line, tokens| {
                if tokens.ids.len() > plan.sequence_length {
                    first_too_long.get_or_insert((file, line));
                }
                dataset.add(Row { tokens: tokens.ids, trained: tokens.trained, file, line }, plan);
            })?;
        }
        dataset.count(tokenizer);
        dataset.check(plan, first_too_long)?;
        Ok(dataset)
    }

    /// Refuses ids that the model has no embedding for.
    pub fn check_vocabulary(&self, embedding_rows: usize) -> Result<(), DataError> {
        for row in &self.rows {
            if let Some(&id) = row.tokens.iter().find(|id| **id as usize >= embedding_rows) {
                let path = self.files.get(row.file).cloned().unwrap_or_default();
                return Err(DataError::TokenOutsideModel { path, line: row.line, id, rows: embedding_rows });
            }
        }
        Ok(())
    }

    /// Applies the length policy to one row.
    fn add(&mut self, mut row: Row, plan: &DataPlan) {
        let report = &mut self.report;
        report.longest = report.longest.max(row.tokens.len());
        if row.tokens.len() > plan.sequence_length {
            report.too_long += 1;
            row.tokens.truncate(plan.sequence_length);
            row.trained.truncate(plan.sequence_length);
            if plan.too_long != TooLong::Truncate || !row.trained.contains(&true) {
                report.dropped += 1;
                return;
            }
            report.truncated += 1;
        }
        self.rows.push(row);
    }

    fn count(&mut self, tokenizer: &Tokenizer) {
        self.report.rows = self.rows.len();
        for row in &self.rows {
            self.report.tokens += row.tokens.len();
            self.report.trained_tokens += row.trained.iter().filter(|trained| **trained).count();
            let last = row.trained.iter().rposition(|trained| *trained);
            self.report.ending_trained += usize::from(last.is_some_and(|last| tokenizer.is_special(row.tokens[last])));
        }
    }

    fn check(&self, plan: &DataPlan, first_too_long: Option<(usize, usize)>) -> Result<(), DataError> {
        let (report, limit) = (&self.report, plan.sequence_length);
        if let (TooLong::Error, Some((file, line))) = (plan.too_long, first_too_long) {
            let path = self.files[file].clone();
            return Err(DataError::TooLong { count: report.too_long, limit, longest: report.longest, path, line });
        }
        if report.trained_tokens == 0 {
            let read = report.rows + report.dropped;
            return Err(DataError::NothingToTrain { read, dropped: report.dropped, limit });
        }
        Ok(())
    }
}

/// The recipe's own Jinja text.
pub(crate) fn template_text(choice: &TemplateChoice) -> Option<&str> {
    match choice {
        TemplateChoice::Text(text) => Some(text),
        _ => None,
    }
}

/// One source with all that its lines need.
pub(crate) struct Encoder<'a> {
    pub(crate) source: &'a DataSource,
    pub(crate) tokenizer: &'a Tokenizer,
    rule: Rule,
}

/// How the file's rows become tokens.
pub(crate) enum Rule {
    /// With a chat template.
    Messages(Box<ChatTemplate>),
    /// Plain; the completion ends with this token.
    PromptCompletion {
        /// End-of-text token.
        end: u32,
    },
}

impl<'a> Encoder<'a> {
    /// Settles form and template. `template` is the recipe's, which wins over the model's.
    pub(crate) fn new(
        source: &'a DataSource,
        template: Option<&str>,
        tokenizer: &'a Tokenizer,
    ) -> Result<Encoder<'a>, DataError> {
        let first = Lines::open(&source.path)?.take(1)?;
        let Some((line, bytes)) = first.first() else {
            return Err(DataError::EmptyFile { path: source.path.clone() });
        };
        let format = match source.format {
            Some(format) => format,
            None => jsonl::detect(bytes).map_err(|cause| DataError::row(&source.path, *line, cause))?,
        };
        let rule = match format {
            RowFormat::Messages => {
                let Some(template) = template.or(tokenizer.chat_template()) else {
                    return Err(DataError::NoChatTemplate { path: source.path.clone() });
                };
                Rule::Messages(Box::new(ChatTemplate::new(template, tokenizer)?))
            }
            _ => {
                Rule::PromptCompletion { end: *tokenizer.eos().first().ok_or(DataError::NoEndToken)? }
            }
        };
        Ok(Encoder { source, tokenizer, rule })
    }

    /// Hands over the tokens of every line, in order.
    fn each(&self, take: impl FnMut(usize, Tokens)) -> Result<(), DataError> {
        self.map(|content| self.tokens(content), take)
    }

    /// Works on the lines in parallel, and hands over the results in order; the first faulty line stops it.
    pub(crate) fn map<T: Send>(
        &self,
        work: impl Fn(&Content) -> Result<T, RowError> + Sync,
        mut take: impl FnMut(usize, T),
    ) -> Result<(), DataError> {
        let mut lines = Lines::open(&self.source.path)?;
        loop {
            let taken = lines.take(LINES_AT_ONCE)?;
            if taken.is_empty() {
                return Ok(());
            }
            let results: Vec<Result<T, RowError>> = taken
                .par_iter()
                .map(|(_, bytes)| jsonl::content(bytes, self.format()).and_then(|content| work(&content)))
                .collect();
            for ((line, _), result) in taken.iter().zip(results) {
                take(*line, result.map_err(|cause| DataError::row(&self.source.path, *line, cause))?);
            }
        }
    }

    fn format(&self) -> RowFormat {
        match self.rule {
            Rule::Messages(_) => RowFormat::Messages,
            Rule::PromptCompletion { .. } => RowFormat::PromptCompletion,
        }
    }

    fn tokens(&self, content: &Content) -> Result<Tokens, RowError> {
        match (content, &self.rule) {
            (Content::Messages(messages), Rule::Messages(template)) => {
                spans::conversation(messages, template, self.tokenizer)
            }
            (Content::PromptCompletion { prompt, completion }, Rule::PromptCompletion { end }) => {
                spans::completion(prompt, completion, *end, self.tokenizer)
            }
            _ => unreachable!("a line is read in the form of its rule"),
        }
    }

    /// The prompt of a line up to where its last answer begins, and that answer.
    pub(crate) fn question(&self, content: &Content) -> Result<(Vec<u32>, String), RowError> {
        match (content, &self.rule) {
            (Content::Messages(messages), Rule::Messages(template)) => {
                let (answer, before) = messages.split_last().ok_or(RowError::NoAnswer)?;
                let text = template.render(before, true)?;
                let prompt = spans::encode_rendered(&text, self.tokenizer)?.ids;
                Ok((prompt, answer.content.trim().to_owned()))
            }
            (Content::PromptCompletion { prompt, completion }, Rule::PromptCompletion { .. }) => {
                Ok((spans::prompt(prompt, self.tokenizer)?, completion.trim().to_owned()))
            }
            _ => unreachable!("a line is read in the form of its rule"),
        }
    }
}
