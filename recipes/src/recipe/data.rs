//! `[data]`: which rows are trained on, and what is done to them first.
//!
//! In:    TOML.
//! Out:   closed types; the plan hands them to the data room as they stand, since none of them is ever `auto` but the length.
//! Never: opens a data file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::defaults;
use crate::values::TokenCount;

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// Longest row and length of a packed row, tokens.
    pub sequence_length: TokenCount,
    /// Several rows share one packed row without seeing each other.
    #[serde(default = "defaults::packing")]
    pub packing: bool,
    /// Without packing: micro-batches of rows of like length. No row is ever padded.
    #[serde(default)]
    pub group_by_length: bool,
    /// What to do with a longer row.
    #[serde(default)]
    pub too_long: TooLong,
    /// `"model"` (the model's own, ChatML where it has none), `"chatml"`, the path of a `.jinja` file, or Jinja text.
    #[serde(default)]
    pub chat_template: TemplateChoice,
    /// The day that `strftime_now` of a template tells, `YYYY-MM-DD`; fixed, so that a row gives the same tokens every day.
    #[serde(default = "defaults::template_date")]
    pub template_date: String,
    /// Which turns of a conversation are trained on.
    #[serde(default)]
    pub train_on: TrainOn,
    /// Gates that are switched off by name: what they find is counted and reported, not refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Gate>,
    /// Files of rows, in order.
    pub sources: Vec<SourceSection>,
    /// What is removed before training; by default nothing.
    #[serde(default, skip_serializing_if = "CleanSection::is_nothing")]
    pub clean: CleanSection,
}

/// `data.too_long`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TooLong {
    /// Leave out and count.
    Drop,
    /// Cut the end and count; the gate `truncated-answer` refuses a cut through an answer.
    Truncate,
    /// Refuse the run.
    #[default]
    Error,
}

/// `data.chat_template`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(from = "String", into = "String")]
pub enum TemplateChoice {
    /// The model's own; ChatML where it has none.
    #[default]
    Model,
    /// ChatML, the format of OpenAI's 2023 chat markup.
    Chatml,
    /// A file with Jinja text.
    File(PathBuf),
    /// Jinja text.
    Text(String),
}

impl From<String> for TemplateChoice {
    fn from(text: String) -> TemplateChoice {
        match text.as_str() {
            "model" => TemplateChoice::Model,
            "chatml" => TemplateChoice::Chatml,
            // No path holds a Jinja tag; a template without any would render the same text for every row.
            jinja if jinja.contains("{{") || jinja.contains("{%") => TemplateChoice::Text(text),
            _ => TemplateChoice::File(PathBuf::from(text)),
        }
    }
}

impl From<TemplateChoice> for String {
    fn from(choice: TemplateChoice) -> String {
        match choice {
            TemplateChoice::Model => "model".to_string(),
            TemplateChoice::Chatml => "chatml".to_string(),
            TemplateChoice::File(path) => path.display().to_string(),
            TemplateChoice::Text(text) => text,
        }
    }
}

/// `data.train_on`. A message with `"train": false` (or `true`) in the data wins over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TrainOn {
    /// Every answer.
    #[default]
    All,
    /// The last answer only.
    Last,
}

/// A check that refuses rows, by the name that `data.allow` switches it off with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// A row begins with exactly one beginning-of-text token where the model has one; nowhere a second at the start.
    OneBos,
    /// The last answer ends with a trained end-of-turn token.
    AnswerEnd,
    /// Every row has a trained token.
    TrainedTokens,
    /// No answer is cut by `too_long = "truncate"`.
    TruncatedAnswer,
    /// The template is the one that serving uses.
    ServingTemplate,
    /// No answer is empty or white space.
    EmptyAnswer,
    /// Text is valid UTF-8.
    Utf8,
    /// Roles follow each other as chat templates expect.
    Roles,
    /// No held-out row stands in the training rows, exactly or nearly.
    EvalOverlap,
}

/// One `[[data.sources]]`, and `eval.source`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSection {
    /// A file, a folder (its data files in order of name), or a glob; relative to the recipe if it is there, else to the current directory.
    pub path: PathBuf,
    /// What reports call it; absent: its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How the bytes are to be read; absent: by the file's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_format: Option<FileFormat>,
    /// Shape of its rows; absent: decided by the first row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<RowFormat>,
    /// Columns that are called otherwise than the shape calls them: `{ question = "Q", answer = "A" }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<Field, String>,
    /// How often an epoch shows each row: 2 twice, 0.25 a quarter of the rows, another quarter each epoch.
    #[serde(default = "defaults::weight")]
    pub weight: f64,
    /// At most so many rows, the first ones; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u64>,
}

impl SourceSection {
    /// Everything that `path` names, read as it shows itself.
    pub fn of(path: impl Into<PathBuf>) -> SourceSection {
        SourceSection {
            path: path.into(),
            name: None,
            file_format: None,
            format: None,
            columns: BTreeMap::new(),
            weight: defaults::weight(),
            max_rows: None,
        }
    }
}

/// `file_format` of a source. `.gz` and `.zst` are seen from the name and the first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// One JSON object a line.
    Jsonl,
    /// One JSON list of objects.
    Json,
    /// Comma-separated, with a header.
    Csv,
    /// Tab-separated, with a header.
    Tsv,
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, file or stream.
    Arrow,
    /// Plain text: the whole file is one document.
    Text,
}

/// `format` of a source: the shape of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RowFormat {
    /// `{"messages": [{"role", "content", ...}], "tools": [...]}` as OpenAI's fine-tuning files; chat template.
    Messages,
    /// `{"conversations": [{"from", "value"}]}` as ShareGPT's; chat template.
    Conversations,
    /// `{"instruction", "input", "output"}` as Alpaca's; chat template.
    Instruction,
    /// `{"question", "answer"}`; chat template.
    QuestionAnswer,
    /// `{"prompt", "completion"}`, no template; the completion is trained on and ends with the end-of-text token.
    PromptCompletion,
    /// `{"text"}`, no template; all of it is trained on, and long documents are split.
    Text,
    /// `{"segments": [{"text", "train"}]}`, no template; trained where it says so.
    Segments,
    /// `{"prompt", "chosen", "rejected"}`: parsed and checked; no method of this version trains on them.
    Preference,
}

/// What a column can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Field {
    /// The list of messages (messages, conversations).
    Messages,
    /// The list of tools (messages, conversations).
    Tools,
    /// The system text (every shape with a chat template).
    System,
    /// The instruction (instruction).
    Instruction,
    /// What the instruction is about (instruction).
    Input,
    /// The answer (instruction).
    Output,
    /// The question (question-answer).
    Question,
    /// The answer (question-answer).
    Answer,
    /// Text to continue (prompt-completion, preference).
    Prompt,
    /// How it goes on (prompt-completion).
    Completion,
    /// The document (text).
    Text,
    /// The list of segments (segments).
    Segments,
    /// The better answer (preference).
    Chosen,
    /// The worse answer (preference).
    Rejected,
}

/// `[data.clean]`: rules that remove rows. All are off unless written; what each removed is reported.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CleanSection {
    /// Rows that stand twice.
    pub deduplicate: Deduplicate,
    /// Estimated Jaccard similarity of the sets of five-word sequences from which two rows are near-duplicates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near_similarity: Option<f64>,
    /// Fewest characters of a row's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_characters: Option<u64>,
    /// Most characters of a row's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_characters: Option<u64>,
    /// Largest share of lines that repeat an earlier line of the row, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_repeated_lines: Option<f64>,
    /// Largest share of five-word sequences that repeat an earlier one of the row, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_repeated_words: Option<f64>,
    /// Smallest share of letters and digits (of any script) among characters that are no white space, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_letters: Option<f64>,
    /// Longest run of one character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_same_character: Option<u64>,
}

impl CleanSection {
    /// Whether no rule is written.
    pub fn is_nothing(&self) -> bool {
        *self == CleanSection::default()
    }
}

/// `data.clean.deduplicate`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Deduplicate {
    /// Keep all.
    #[default]
    None,
    /// Remove rows with the same text as an earlier one.
    Exact,
    /// Remove rows that nearly have it too (MinHash).
    Near,
}
