//! `tune data generate`: the project's own data sets, written by their generators.
//!
//! In:    a data set's name and a folder.
//! Out:   JSONL files, the same bytes every time.
//! Never: reads the network.

use offload::durable::publish_file;
use datasets::memory_arithmetic;

use crate::args::{GenerateArguments, GeneratedData};
use crate::failure::{Failure, OrFail};

/// Writes a data set and says what was written.
pub fn generate(arguments: &GenerateArguments) -> Result<(), Failure> {
    let GeneratedData::MemoryArithmetic = arguments.name;
    let split = memory_arithmetic::generate();
    let parts = [("memory-arithmetic-train.jsonl", &split.train), ("memory-arithmetic-heldout.jsonl", &split.heldout)];
    for (name, examples) in parts {
        let path = arguments.output.join(name);
        publish_file(&path, memory_arithmetic::to_jsonl(examples).as_bytes()).or_run()?;
        println!("{}: {} rows", path.display(), examples.len());
    }
    Ok(())
}
