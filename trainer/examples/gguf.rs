//! Writes GGUF files from model and adapter folders, and reads them back; `tests/peers/gguf_elsewhere.py` feeds them to llama.cpp.
//!
//! In:    `model MODEL OUT.gguf MIX`, or `adapter MODEL ADAPTER OUT.gguf F32|F16|BF16`.
//! Out:   the file; on stdout what the comparison found, and notes.
//! Never: trains.

use std::error::Error;
use std::path::Path;

use checkpoints::gguf::{BlockType, Mix};
use checkpoints::peft::read_adapter;
use checkpoints::stream::SourceError;
use checkpoints::weights::Weights;
use trainer::gguf::{AdapterFile, ModelFile, check_adapter, check_model, write_adapter, write_model};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let started = std::time::Instant::now();
    let (written, compared) = match words.as_slice() {
        ["model", model, out, mix] => {
            let weights = Weights::open(Path::new(model))?;
            let mix = Mix::from_name(mix).ok_or("the mix is one of F32 F16 BF16 Q8_0 Q6_K Q4_0 Q4_K_S Q4_K_M")?;
            let file = ModelFile { model: &weights, mix, name: "exported", chat_template: None };
            let mut source = |name: &str| -> Result<Vec<f32>, SourceError> { Ok(weights.read(name)?.data) };
            let written = write_model(Path::new(out), &file, &mut source)?;
            println!("written in {:.2} s", started.elapsed().as_secs_f64());
            (written, check_model(Path::new(out), &file, &mut source)?)
        }
        ["adapter", model, adapter, out, kind] => {
            let weights = Weights::open(Path::new(model))?;
            let kind =
                [BlockType::F32, BlockType::F16, BlockType::BF16].into_iter().find(|k| format!("{k:?}") == *kind);
            let file = AdapterFile { model: &weights, name: "adapter", kind: kind.ok_or("F32, F16 or BF16")? };
            let adapter = read_adapter(Path::new(adapter))?;
            let written = write_adapter(Path::new(out), &file, &adapter)?;
            (written, check_adapter(Path::new(out), &file, &adapter)?)
        }
        _ => {
            return Err(
                "usage: gguf model MODEL OUT.gguf MIX | gguf adapter MODEL ADAPTER OUT.gguf F32|F16|BF16".into()
            );
        }
    };
    println!("{} bytes, {} tensors equal, {} tokens equal", written.bytes, compared.tensors, compared.tokens);
    for (kind, error) in compared.errors {
        println!("{kind:?}: error {error:.5}");
    }
    written.notes.iter().for_each(|note| println!("note: {note}"));
    Ok(())
}
