//! Held-out figures: loss over trained tokens, and exact answers by greedy decoding.
//!
//! In:    held-out rows, prepared once; the network of the moment.
//! Out:   an [`EvaluationReport`], and the first answers.
//! Never: touches gradients or optimizer state.

use std::time::Instant;

use datasets::{Batch, Dataset, Question, Tokenizer, evaluation_batches, questions};
use models::BoxedError;
use models::generate::{Ending, Stack};
use planner::memory::EVALUATION_TOKENS_MAX;
use planner::plan::{EvaluationPlan, Plan};

use crate::engine::Engine;
use crate::error::TrainError;
use crate::events::{EvaluationReport, Event};
use crate::run::Listener;
use crate::samples::{SAMPLES, Sample};

/// Held-out rows, tokenised.
#[derive(Debug)]
pub(crate) struct HeldOut {
    batches: Vec<Batch>,
    rows: usize,
    questions: Vec<Question>,
    plan: EvaluationPlan,
}

impl HeldOut {
    /// Batches and questions of the held-out rows.
    pub(crate) fn new(
        plan: &EvaluationPlan,
        run: &Plan,
        rows: &Dataset,
        tokenizer: &Tokenizer,
    ) -> Result<HeldOut, TrainError> {
        let questions = match plan.exact_match {
            true => questions(rows, tokenizer, plan.max_rows)?,
            false => Vec::new(),
        };
        // A micro-batch at most, so that evaluation never needs more memory than training.
        let tokens_max = EVALUATION_TOKENS_MAX.min(run.train.micro_batch * run.data.sequence_length);
        let batches = evaluation_batches(rows, tokens_max, plan.max_rows).collect();
        Ok(HeldOut {
            batches,
            rows: rows.len().min(plan.max_rows.unwrap_or(usize::MAX)),
            questions,
            plan: plan.clone(),
        })
    }

    /// Whether figures are due after `step` besides the beginning and the end.
    pub(crate) fn is_due(&self, step: u64) -> bool {
        self.plan.every_steps.is_some_and(|every| step.is_multiple_of(every))
    }

    /// The figures, and the first answers; exact answers only where asked for, since decoding takes longer than the loss.
    pub(crate) fn measure(
        &self,
        engine: &Engine,
        tokenizer: Option<&Tokenizer>,
        events: &mut Listener<'_>,
    ) -> Result<(EvaluationReport, Vec<Sample>), TrainError> {
        let begun = Instant::now();
        let (mut sum, mut trained) = (0.0, 0);
        for (done, batch) in self.batches.iter().enumerate() {
            events(Event::Evaluating { what: "held-out loss", done, of: self.batches.len() });
            let loss = engine.loss(batch)?;
            sum += loss.sum;
            trained += loss.trained_tokens;
        }
        let loss = sum / trained.max(1) as f64;
        let mut samples = Vec::new();
        let exact = match tokenizer {
            Some(tokenizer) if self.plan.exact_match => Some(self.exact(engine, tokenizer, &mut samples, events)?),
            _ => None,
        };
        let seconds = begun.elapsed().as_secs_f64();
        Ok((EvaluationReport { loss, perplexity: loss.exp(), rows: self.rows, exact, seconds }, samples))
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

    /// Counts right answers; the first go into `samples`.
    fn exact(
        &self,
        engine: &Engine,
        tokenizer: &Tokenizer,
        samples: &mut Vec<Sample>,
        events: &mut Listener<'_>,
    ) -> Result<(usize, usize), TrainError> {
        let ending = Ending { ids: tokenizer.eos(), max_new_tokens: self.plan.max_new_tokens };
        let (outer, adapters) = (engine.residency.outer(), engine.residency.adapters());
        let stack = Stack { blocks: &engine.residency, adapters: &adapters };
        let (mut right, mut done) = (0, 0);
        while let Some(rest) = self.questions.get(done..).filter(|rest| !rest.is_empty()) {
            events(Event::Evaluating { what: "greedy answers", done, of: self.questions.len() });
            let questions = &rest[..self.at_once(rest)];
            done += questions.len();
            let prompts: Vec<Vec<u32>> = questions.iter().map(|question| question.prompt.clone()).collect();
            let answers = outer.generate(stack, &prompts, ending).map_err(fetched)?;
            for (answer, question) in answers.iter().zip(questions) {
                let answer = tokenizer.decode(answer)?;
                right += usize::from(answer.trim() == question.answer);
                if samples.len() < SAMPLES {
                    samples.push(Sample::new(question, answer.trim(), tokenizer)?);
                }
            }
        }
        Ok((right, self.questions.len()))
    }
}

/// The error of a block that could not be fetched, as the residency made it.
fn fetched(error: BoxedError) -> TrainError {
    match error.downcast::<TrainError>() {
        Ok(error) => *error,
        Err(error) => TrainError::Thread { reason: error.to_string() },
    }
}
