//! Where the first numbers of a process come from: the model's files, another run's checkpoint, or a checkpoint of this run.
//!
//! In:    what the job asks for, opened weights, the plan.
//! Out:   tiers, arrays and network, filled; where the run stands then.
//! Never: takes a checkpoint of another plan for a resume.

use std::path::Path;

use burn::tensor::Device;
use checkpoints::checkpoint::{self, Restored};
use checkpoints::weights::Weights;
use planner::plan::Plan;

use crate::begin_from::begin_from;
use crate::error::TrainError;
use crate::events::Resume;
use crate::learner::{Learner, tiers};
use crate::run::Listener;
use crate::state;
use crate::survive::{self, Progress};

/// Where the first numbers come from.
pub(crate) enum Beginning {
    /// The model's files.
    Fresh,
    /// The weights of a checkpoint of another run.
    From(Restored),
    /// A checkpoint of this run, all of it.
    Resumed(Restored),
}

impl Beginning {
    /// What the job asks for; nothing is read yet but what a resume compares.
    pub(crate) fn find(
        directory: &Path,
        resume: Resume,
        from: Option<&Path>,
        decided: &str,
        events: &mut Listener<'_>,
    ) -> Result<Beginning, TrainError> {
        if let Some(restored) = survive::find(directory, resume, decided, events)? {
            return Ok(Beginning::Resumed(restored));
        }
        match from {
            None => Ok(Beginning::Fresh),
            Some(path) => Ok(Beginning::From(checkpoint::open_any(path)?)),
        }
    }

    /// The checkpoint of this run, if it goes on.
    pub(crate) fn resumed(&self) -> Option<&Restored> {
        match self {
            Beginning::Resumed(restored) => Some(restored),
            _ => None,
        }
    }

    /// The checkpoint that the weights came from at the very start.
    pub(crate) fn started_from(&self) -> Option<String> {
        match self {
            Beginning::Fresh => None,
            Beginning::From(restored) => Some(restored.path.display().to_string()),
            Beginning::Resumed(restored) => restored.facts.started_from.clone(),
        }
    }
}

/// Tiers, arrays and network, filled from where the run begins; and where it stands then.
pub(crate) fn place(
    plan: &Plan,
    weights: &Weights,
    device: &Device,
    beginning: &Beginning,
) -> Result<(Learner, Progress), TrainError> {
    let tiers = tiers(plan, beginning.resumed().map_or(0, |kept| kept.position.nvme_written_bytes))?;
    let parameters = Learner::parameters(weights, plan, &tiers)?;
    let standing = match beginning {
        Beginning::Resumed(kept) => {
            state::restore(kept, &parameters)?;
            Progress::of(&kept.position)
        }
        Beginning::From(kept) => {
            Learner::initialise(&parameters, weights, plan)?;
            begin_from(kept, plan, &parameters)?;
            Progress::default()
        }
        Beginning::Fresh => {
            Learner::initialise(&parameters, weights, plan)?;
            Progress::default()
        }
    };
    Ok((Learner::start(weights, plan, device, parameters, tiers)?, standing))
}
