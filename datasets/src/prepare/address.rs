//! The content address of prepared rows: everything that can change a token or a place, hashed.
//!
//! In:    the request, the files, the template's text.
//! Out:   a SHA-256 in hexadecimal.
//! Never: depends on what changes only the order of rows (packing, weights, the seed of the shuffle) or on a clock.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use planner::plan::{DataPlan, HeldOut};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::Request;
use super::inputs::Inputs;
use crate::cache::Address;
use crate::error::DataError;

/// Raised with every change of reading, shaping, rendering, masking, cleaning or of the cache's layout.
const VERSION: u32 = 1;
/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Reads every file once.
pub(super) fn of(request: &Request, inputs: &Inputs, template: Option<&str>) -> Result<String, DataError> {
    let address = Address::new(VERSION);
    let plan = serde_json::to_vec(&what_matters(request.plan)).map_err(|error| DataError::Cache {
        reason: format!("the plan's data part cannot be written as JSON: {error}"),
    })?;
    let mut address = address
        .add("plan", &plan)
        .add("template", template.unwrap_or_default().as_bytes())
        .add("tokenizer", &request.tokenizer.fingerprint())
        .add("embedding rows", &(request.embedding_rows as u64).to_le_bytes());
    let sums: Vec<[u8; 32]> =
        inputs.files.par_iter().map(|input| sum(&input.file.path)).collect::<Result<_, DataError>>()?;
    for (input, sum) in inputs.files.iter().zip(sums) {
        address = address.add("path", input.file.path.as_os_str().as_encoded_bytes()).add("content", &sum);
    }
    Ok(address.hex())
}

/// The plan without what decides only the order of rows.
fn what_matters(plan: &DataPlan) -> DataPlan {
    let mut plan = DataPlan { packing: false, group_by_length: false, ..plan.clone() };
    plan.sources.iter_mut().for_each(|source| source.weight = 1.0);
    if !matches!(plan.held_out, Some(HeldOut::Share(_))) {
        plan.seed = 0;
    }
    plan
}

/// SHA-256 of a file's bytes.
fn sum(path: &Path) -> Result<[u8; 32], DataError> {
    let named = |source| DataError::Read { path: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(named)?;
    let mut digest = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece).map_err(named)? {
            0 => return Ok(digest.finalize().into()),
            read => digest.update(&piece[..read]),
        }
    }
}
