//! Writes the data set that ships with the recipes: the same bytes every time.
//! cargo run --release -p datasets --example memory_arithmetic -- DIR

use std::path::PathBuf;

use datasets::memory_arithmetic::{generate, to_jsonl};
use offload::durable::publish_file;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("expected a folder to write into")?);
    let split = generate();
    for (name, examples) in [("train", &split.train), ("heldout", &split.heldout)] {
        let path = folder.join(format!("memory-arithmetic-{name}.jsonl"));
        publish_file(&path, to_jsonl(examples).as_bytes())?;
        println!("{}: {} rows", path.display(), examples.len());
    }
    Ok(())
}
