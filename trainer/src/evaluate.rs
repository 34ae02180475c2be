//! Figures on rows that were not trained on: loss over trained tokens, and exact answers by greedy decoding.
//!
//! In:    rows, prepared once; a network: that of the moment in a run, or an opened one.
//! Out:   an [`EvaluationReport`], or its parts; the first answers.
//! Never: touches gradients or optimizer state.

use std::time::Instant;

use datasets::{Batch, Dataset, Question, Tokenizer, evaluation_batches, questions};
use models::generate::Ending;
use planner::memory::{EVALUATION_TOKENS_MAX, Work};
use planner::plan::{EvaluationPlan, Plan};

use crate::engine::MicroLoss;
use crate::error::TrainError;
use crate::events::{EvaluationReport, Event};
use crate::network::{Forward, Network};
use crate::run::Listener;
use crate::samples::{SAMPLES, Sample};

/// Rows that are measured, tokenised.
#[derive(Debug)]
pub struct HeldOut {
    batches: Vec<Batch>,
    rows: usize,
    questions: Vec<Question>,
    plan: EvaluationPlan,
}

/// Tokens of one pass of a run's evaluation: a micro-batch at most, so that it never needs more memory than training.
pub fn evaluation_tokens(run: &Plan) -> usize {
    EVALUATION_TOKENS_MAX.min(run.train.micro_batch * run.data.sequence_length)
}

impl HeldOut {
    /// Batches of at most `batch_tokens` tokens, and questions where the plan asks them. Two evaluations with the same rows and
    /// `batch_tokens` have the same bits.
    pub fn new(
        plan: &EvaluationPlan,
        batch_tokens: usize,
        rows: &Dataset,
        tokenizer: &Tokenizer,
    ) -> Result<HeldOut, TrainError> {
        let questions = match plan.exact_match {
            true => questions(rows, tokenizer, plan.max_rows)?,
            false => Vec::new(),
        };
        Ok(HeldOut {
            batches: evaluation_batches(rows, batch_tokens, plan.max_rows).collect(),
            rows: rows.len().min(plan.max_rows.unwrap_or(usize::MAX)),
            questions,
            plan: plan.clone(),
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What is asked, in the order of [`HeldOut::answers`].
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// What a network needs room for.
    pub fn work(&self) -> Work {
        let longest = self.batches.iter().map(|batch| batch.tokens.len()).max().unwrap_or(0) as u64;
        let mut work = Work { loss_tokens: longest, ..Work::default() };
        let mut rest = self.questions.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.at_once(rest));
            let prompts: usize = now.iter().map(|question| question.prompt.len()).sum();
            let cells = prompts + now.len() * self.plan.max_new_tokens;
            work.rows = work.rows.max(now.len() as u64);
            work.read_tokens = work.read_tokens.max(prompts as u64);
            work.cached_tokens = work.cached_tokens.max(cells as u64);
            rest = later;
        }
        work
    }

    /// Sum of losses over all trained tokens.
    pub fn loss(&self, network: &Network, events: &mut Listener<'_>) -> Result<MicroLoss, TrainError> {
        network.run(|forward| self.loss_of(forward, events))
    }

    /// The greedy answer to each question, white space around it removed.
    pub fn answers(
        &self,
        network: &Network,
        tokenizer: &Tokenizer,
        events: &mut Listener<'_>,
    ) -> Result<Vec<String>, TrainError> {
        network.run(|forward| self.answers_of(forward, tokenizer, events))
    }

    /// Whether figures are due after `step` besides the beginning and the end.
    pub(crate) fn is_due(&self, step: u64) -> bool {
        self.plan.every_steps.is_some_and(|every| step.is_multiple_of(every))
    }

    /// The figures, and the first answers; exact answers only with a tokenizer, since decoding takes longer than the loss.
    pub(crate) fn measure(
        &self,
        forward: Forward<'_>,
        tokenizer: Option<&Tokenizer>,
        events: &mut Listener<'_>,
    ) -> Result<(EvaluationReport, Vec<Sample>), TrainError> {
        let begun = Instant::now();
        let loss = self.loss_of(forward, events)?.mean();
        let mut samples = Vec::new();
        let exact = match tokenizer {
            Some(tokenizer) if self.plan.exact_match => {
                let answers = self.answers_of(forward, tokenizer, events)?;
                for (question, answer) in self.questions.iter().zip(&answers).take(SAMPLES) {
                    samples.push(Sample::new(question, answer, tokenizer)?);
                }
                Some((self.right(&answers).filter(|&right| right).count(), self.questions.len()))
            }
            _ => None,
        };
        let seconds = begun.elapsed().as_secs_f64();
        Ok((EvaluationReport { loss, perplexity: loss.exp(), rows: self.rows, exact, seconds }, samples))
    }

    /// Which answers are exactly right.
    pub fn right<'a>(&'a self, answers: &'a [String]) -> impl Iterator<Item = bool> + 'a {
        answers.iter().zip(&self.questions).map(|(answer, question)| *answer == question.answer)
    }

    fn loss_of(&self, forward: Forward<'_>, events: &mut Listener<'_>) -> Result<MicroLoss, TrainError> {
        let mut all = MicroLoss { sum: 0.0, trained_tokens: 0 };
        for (done, batch) in self.batches.iter().enumerate() {
            events(Event::Evaluating { what: "held-out loss", done, of: self.batches.len() });
            let loss = forward.loss(batch)?;
            all.sum += loss.sum;
            all.trained_tokens += loss.trained_tokens;
        }
        Ok(all)
    }

    /// How many of `questions` are answered at once: as many as the planned rows and tokens hold, each as long as the longest. At least one.
    fn at_once(&self, questions: &[Question]) -> usize {
        let mut longest = 0;
        let fits = |&(at, question): &(usize, &Question)| {
            longest = longest.max(question.prompt.len() + self.plan.max_new_tokens);
            at < self.plan.batch_rows && (at + 1) * longest <= self.plan.batch_tokens
        };
        questions.iter().enumerate().take_while(fits).count().max(1)
    }

    fn answers_of(
        &self,
        forward: Forward<'_>,
        tokenizer: &Tokenizer,
        events: &mut Listener<'_>,
    ) -> Result<Vec<String>, TrainError> {
        let ending = Ending { ids: tokenizer.eos(), max_new_tokens: self.plan.max_new_tokens };
        let mut texts = Vec::with_capacity(self.questions.len());
        while let Some(rest) = self.questions.get(texts.len()..).filter(|rest| !rest.is_empty()) {
            events(Event::Evaluating { what: "greedy answers", done: texts.len(), of: self.questions.len() });
            let questions = &rest[..self.at_once(rest)];
            let prompts: Vec<Vec<u32>> = questions.iter().map(|question| question.prompt.clone()).collect();
            for answer in forward.answers(&prompts, ending)? {
                texts.push(tokenizer.decode(&answer)?.trim().to_string());
            }
        }
        Ok(texts)
    }
}
