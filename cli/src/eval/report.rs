//! What `tune eval` found, for people and for programs.
//!
//! In:    losses and answers of one or two networks on the same rows.
//! Out:   a table, JSON, and one JSON object a row.
//! Never: rounds what a program reads.

use datasets::Question;
use serde_json::{Value, json};
use trainer::HeldOut;

use super::Rows;

/// One network on all rows.
pub struct Measured {
    /// Mean over trained tokens.
    pub loss: f64,
    /// How many there are.
    pub trained_tokens: usize,
    /// The answer to each question, if any were asked.
    pub answers: Option<Vec<String>>,
}

/// All that was found.
pub struct Figures<'a> {
    name: &'a str,
    rows: &'a Rows,
    held_out: &'a HeldOut,
    tuned: Measured,
    base: Option<Measured>,
}

/// Rows by who answered them right.
#[derive(Debug, Default, PartialEq, Eq)]
struct Agreement {
    only_tuned: usize,
    only_base: usize,
}

impl Measured {
    fn right(&self, held_out: &HeldOut) -> Option<Vec<bool>> {
        self.answers.as_ref().map(|answers| held_out.right(answers).collect())
    }

    fn exact(&self, held_out: &HeldOut) -> Option<usize> {
        self.right(held_out).map(|right| right.iter().filter(|&&right| right).count())
    }

    fn json(&self, held_out: &HeldOut) -> Value {
        let exact = self.exact(held_out).map(|right| json!({ "right": right, "of": held_out.questions().len() }));
        json!({ "loss": self.loss, "perplexity": self.loss.exp(), "exact": exact })
    }
}

impl<'a> Figures<'a> {
    /// What was measured on `rows`.
    pub fn new(
        name: &'a str,
        rows: &'a Rows,
        held_out: &'a HeldOut,
        tuned: Measured,
        base: Option<Measured>,
    ) -> Figures<'a> {
        Figures { name, rows, held_out, tuned, base }
    }

    fn agreement(&self) -> Option<Agreement> {
        let tuned = self.tuned.right(self.held_out)?;
        let base = self.base.as_ref()?.right(self.held_out)?;
        let mut agreement = Agreement::default();
        for (tuned, base) in tuned.into_iter().zip(base) {
            agreement.only_tuned += usize::from(tuned && !base);
            agreement.only_base += usize::from(base && !tuned);
        }
        Some(agreement)
    }

    /// One object.
    pub fn json(&self) -> Value {
        let difference = self.base.as_ref().map(|base| {
            let exact = self.tuned.exact(self.held_out).zip(base.exact(self.held_out));
            json!({
                "loss": self.tuned.loss - base.loss,
                "perplexity": self.tuned.loss.exp() - base.loss.exp(),
                "exact": exact.map(|(tuned, base)| tuned as i64 - base as i64),
            })
        });
        let agreement = self.agreement();
        json!({
            "subject": self.name,
            "rows": self.held_out.rows(),
            "trained_tokens": self.tuned.trained_tokens,
            "tuned": self.tuned.json(self.held_out),
            "base": self.base.as_ref().map(|base| base.json(self.held_out)),
            "difference": difference,
            "only_tuned_right": agreement.as_ref().map(|agreement| agreement.only_tuned),
            "only_base_right": agreement.as_ref().map(|agreement| agreement.only_base),
        })
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut lines = vec![["".to_string(), "base".to_string(), "tuned".to_string(), "difference".to_string()]];
        let (tuned, base) = (&self.tuned, self.base.as_ref());
        let number = |name: &str, of: fn(&Measured) -> f64, digits: usize| {
            let before = base.map_or(String::new(), |base| format!("{:.digits$}", of(base)));
            let change = base.map_or(String::new(), |base| format!("{:+.digits$}", of(tuned) - of(base)));
            [name.to_string(), before, format!("{:.digits$}", of(tuned)), change]
        };
        lines.push(number("loss", |measured| measured.loss, 4));
        lines.push(number("perplexity", |measured| measured.loss.exp(), 3));
        if let Some(right) = tuned.exact(self.held_out) {
            let of = self.held_out.questions().len();
            let before = base.and_then(|base| base.exact(self.held_out));
            let share = |right: usize| format!("{right}/{of} ({:.1} %)", 100.0 * right as f64 / of.max(1) as f64);
            let change = before.map_or(String::new(), |before| format!("{:+}", right as i64 - before as i64));
            lines.push(["exact answers".to_string(), before.map_or(String::new(), share), share(right), change]);
        }
        let mut page = format!("{} rows, {} measured tokens\n", self.held_out.rows(), tuned.trained_tokens);
        page += &columns(&lines, base.is_some());
        if let Some(Agreement { only_tuned, only_base }) = self.agreement() {
            page += &format!("{only_tuned} rows are right only when tuned, {only_base} only in the base\n");
        }
        page
    }

    /// One JSON object a row that was asked.
    pub fn answers(&self) -> String {
        let questions = self.held_out.questions().iter().enumerate();
        questions.map(|(at, question)| format!("{}\n", self.row(at, question))).collect()
    }

    fn row(&self, at: usize, question: &Question) -> Value {
        let side = |measured: &Measured| {
            let answer = measured.answers.as_ref().and_then(|answers| answers.get(at)).cloned();
            let right = answer.as_deref() == Some(question.answer.as_str());
            json!({ "answer": answer, "right": right })
        };
        let file = self.rows.files.get(question.place.file as usize).map(|path| path.display().to_string());
        let mut row = json!({ "file": file, "line": question.place.line, "expected": question.answer });
        row["tuned"] = side(&self.tuned);
        if let Some(base) = &self.base {
            row["base"] = side(base);
        }
        row
    }
}

/// Columns as wide as their widest cell; the base's and the difference only where there is one.
fn columns(lines: &[[String; 4]], compared: bool) -> String {
    let shown: &[usize] = if compared { &[0, 1, 2, 3] } else { &[0, 2] };
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let line = |line: &[String; 4]| {
        let cells: Vec<String> = shown.iter().map(|&column| format!("{:<1$}", line[column], width(column))).collect();
        format!("{}\n", cells.join("   ").trim_end())
    };
    let from = usize::from(!compared);
    lines[from..].iter().map(line).collect()
}
