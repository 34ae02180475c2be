//! Writes `recipes/data/memory-arithmetic-{train,heldout}.jsonl` anew; a test compares the committed files with it.
//!
//! In:    nothing.
//! Out:   the two files, in the source tree.
//! Never: anything but what `datasets::memory_arithmetic` generates.

use std::path::Path;

use datasets::memory_arithmetic::{generate, to_jsonl};

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/data");
    std::fs::create_dir_all(&folder)?;
    let split = generate();
    std::fs::write(folder.join("memory-arithmetic-train.jsonl"), to_jsonl(&split.train))?;
    std::fs::write(folder.join("memory-arithmetic-heldout.jsonl"), to_jsonl(&split.heldout))
}
