//! Measures the tokenizer's fast path against the tokenizers crate on a text file, and compares every id and offset.
//!
//! In:    a `tokenizer.json` or its folder; a text file, whose lines are grouped into texts of about 600 bytes.
//! Out:   stdout: MB/s of both on one and two threads, by the clock and by processor time (for a machine that is shared).
//! Never: part of the program.
//!
//! Run:   cargo run --release -p datasets --example tokenizer_speed -- TOKENIZER TEXT_FILE [BYTES_MAX]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use datasets::{Encoded, Tokenizer};

/// About one GSM8K row with its template.
const TEXT_BYTES: usize = 600;

type Encode = fn(&Tokenizer, &str, &mut Encoded) -> Result<(), datasets::DataError>;

fn texts(file: &str, bytes_max: usize) -> Result<Vec<String>, Box<dyn Error>> {
    let all = String::from_utf8(std::fs::read(file)?)?;
    let mut texts = vec![String::new()];
    for line in all.lines().take_while({
        let mut bytes = 0;
        move |line| {
            bytes += line.len();
            bytes <= bytes_max
        }
    }) {
        if texts.last().is_some_and(|text| text.len() >= TEXT_BYTES) {
            texts.push(String::new());
        }
        if let Some(text) = texts.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(texts)
}

/// Seconds that this thread has run, without those in which others had its core; Linux only.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}

/// MB/s on `threads` threads by the clock, and MB for each second of a processor.
fn speed(tokenizer: &Tokenizer, texts: &[String], threads: usize, encode: Encode) -> (f64, f64) {
    let bytes: usize = texts.iter().map(String::len).sum();
    let start = Instant::now();
    let work = &|part: &[String]| {
        let before = processor_seconds();
        let mut encoded = Encoded::default();
        part.iter().for_each(|text| encode(tokenizer, text, &mut encoded).unwrap_or_else(|error| panic!("{error}")));
        processor_seconds() - before
    };
    let processor: f64 = std::thread::scope(|scope| {
        let parts = texts.chunks(texts.len().div_ceil(threads));
        let running: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or(f64::NAN)).sum()
    });
    let megabytes = bytes as f64 / 1e6;
    (megabytes / start.elapsed().as_secs_f64(), megabytes / processor)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, place, file, rest @ ..] = arguments.as_slice() else {
        return Err("usage: tokenizer_speed TOKENIZER TEXT_FILE [BYTES_MAX]".into());
    };
    let bytes_max = rest.first().map_or(Ok(20_000_000), |word| word.parse())?;
    let place = Path::new(place);
    let folder = if place.is_dir() { place } else { place.parent().unwrap_or(place) };
    let tokenizer = Tokenizer::from_folder(folder)?;
    let texts = texts(file, bytes_max)?;
    let start = Instant::now();
    match tokenizer.slow_because() {
        Some(reason) => println!("slow: {reason}"),
        None => println!("fast path built and checked in {:.0} ms", start.elapsed().as_secs_f64() * 1e3),
    }
    let (mut one, mut other, mut tokens, mut different) = (Encoded::default(), Encoded::default(), 0, 0);
    for text in &texts {
        tokenizer.encode_into(text, &mut one)?;
        tokenizer.encode_slowly(text, &mut other)?;
        tokens += one.ids.len();
        different += usize::from(one != other);
    }
    println!("{} texts, {tokens} tokens, {different} texts differ", texts.len());
    for threads in [1, 2] {
        let (crate_clock, crate_processor) = speed(&tokenizer, &texts, threads, Tokenizer::encode_slowly);
        let (clock, processor) = speed(&tokenizer, &texts, threads, Tokenizer::encode_into);
        println!("{threads} threads: crate {crate_clock:.1} MB/s, {crate_processor:.1} MB per processor second");
        println!(
            "           fast {clock:.1} MB/s, {processor:.1} MB per processor second: {:.1} times",
            processor / crate_processor
        );
    }
    Ok(())
}
