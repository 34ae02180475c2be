//! `tune data`: rows as the model will see them.
//!
//! In:    a recipe.
//! Out:   its prepared rows: counted, shown, drawn.
//! Never: trains; writes outside the token cache unless a file was named.

mod generate;
mod html;
mod inspect;
mod pieces;
mod stats;
mod summary;

use datasets::{Prepared, Request, Tokenizer};
use planner::plan::DataPlan;
use recipes::Recipe;

use crate::args::{DataCommand, PrepareArguments, RecipeArguments};
use crate::failure::{Failure, OrFail};
use crate::prepare;
use crate::progress::Progress;
use crate::run::stop_flag;

pub use generate::GenerateArguments;

/// Runs a sub-command.
pub fn run(command: &DataCommand) -> Result<(), Failure> {
    match command {
        DataCommand::Prepare(arguments) => prepare_rows(arguments),
        DataCommand::Inspect(arguments) => inspect::print(arguments),
        DataCommand::Stats(arguments) => stats::print(arguments),
        DataCommand::Generate(arguments) => {
            let stop = stop_flag().or_run()?;
            generate::run(arguments, &stop)
        }
    }
}

/// A recipe's rows.
struct Rows {
    recipe: Recipe,
    plan: DataPlan,
    tokenizer: Tokenizer,
    prepared: Prepared,
}

impl Rows {
    /// Prepares the rows of a recipe, or finds them prepared. Only the model's tokenizer is needed, not a machine that can train it.
    fn of(arguments: &RecipeArguments) -> Result<Rows, Failure> {
        let recipe = prepare::recipe(arguments)?;
        let (plan, weights) = match recipe.data.sequence_length.fixed() {
            Some(length) => (planner::data(&recipe, length), prepare::open(&recipe)?),
            None => {
                let prepared = prepare::prepare(&recipe)?;
                (prepared.plan.data, prepared.weights)
            }
        };
        let tokenizer = trainer::tokenizer(&weights).or_input()?;
        let cache = prepare::token_cache().or_input()?;
        let mut progress = Progress::new();
        let embedding_rows = weights.spec().vocabulary;
        let request = Request { plan: &plan, tokenizer: &tokenizer, embedding_rows, cache: &cache };
        let prepared = request.prepare(&mut |at| progress.preparing(at));
        progress.finished();
        let prepared = prepared.or_input()?;
        prepared.notes.iter().for_each(|note| progress.note(note));
        Ok(Rows { recipe, plan, tokenizer, prepared })
    }
}

/// `tune data prepare`
fn prepare_rows(arguments: &PrepareArguments) -> Result<(), Failure> {
    let rows = Rows::of(&arguments.recipe)?;
    match arguments.json {
        true => println!("{}", summary::json(&rows)),
        false => print!("{}", summary::page(&rows)),
    }
    Ok(())
}
