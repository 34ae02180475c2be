//! The text of a PDF's pages.
//!
//! In:    the bytes of a PDF that may be broken, encrypted or hostile.
//! Out:   one text a page; or a reason.
//! Never: lets the reader's panic or endless work end the job. (A reader that passes its time is left behind in its thread until the
//!        process ends: a thread cannot be killed.)

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pdf_extract::{Document, Object, ObjectId};

/// Name of the thread that reads; its panics are expected and told as a reason, so a panic hook may keep silent about them.
pub const PDF_THREAD: &str = "pdf-text";
/// Longest time for one document.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(120);
/// The reader recurses with the document's nesting.
const STACK_BYTES: usize = 64 << 20;
/// Deepest page tree, deepest nesting of forms.
const DEPTH_MAX: usize = 64;

/// The text of every page. A page that the reader cannot read is empty; if no page can be read, its error is the reason.
pub(crate) fn pages(bytes: Vec<u8>, time_max: Duration) -> Result<Vec<String>, String> {
    if !bytes.get(..bytes.len().min(1024)).is_some_and(|head| head.windows(5).any(|five| five == b"%PDF-")) {
        return Err("not a PDF: its first 1024 bytes hold no %PDF- mark".to_string());
    }
    let (sender, receiver) = mpsc::channel();
    let read = move || {
        let result = catch_unwind(AssertUnwindSafe(|| extract(&bytes)));
        // The receiver is gone if the time is over; then nobody waits for this.
        let _ = sender.send(result.unwrap_or_else(|_| Err("the PDF reader failed on it (broken file?)".to_string())));
    };
    let thread = thread::Builder::new().name(PDF_THREAD.to_string()).stack_size(STACK_BYTES).spawn(read);
    thread.map_err(|error| format!("no thread to read it: {error}"))?;
    match receiver.recv_timeout(time_max) {
        Ok(result) => result,
        Err(_) => Err(format!("not read within {} s", time_max.as_secs())),
    }
}

fn extract(bytes: &[u8]) -> Result<Vec<String>, String> {
    let document = Document::load_mem(bytes).map_err(|error| reason(&error.to_string()))?;
    // Loading tries the empty password and removes this entry if it fits; else the objects are missing.
    if document.trailer.get(b"Encrypt").is_ok() {
        return Err("encrypted: remove its password first".to_string());
    }
    let numbers: Vec<u32> = document.get_pages().into_keys().collect();
    refuse_loops(&document)?;
    let mut texts = Vec::with_capacity(numbers.len());
    let mut failure = None;
    for &number in &numbers {
        let mut text = String::new();
        let mut output = pdf_extract::PlainTextOutput::new(&mut text);
        let read = catch_unwind(AssertUnwindSafe(|| pdf_extract::output_doc_page(&document, &mut output, number)));
        match read {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failure = Some(reason(&error.to_string())),
            Err(_) => failure = Some(format!("the PDF reader failed on page {number} (broken file?)")),
        }
        texts.push(text);
    }
    match failure {
        Some(failure) if texts.iter().all(|text| text.trim().is_empty()) => Err(failure),
        _ => Ok(texts),
    }
}

/// Page trees and forms that hold themselves make the reader recurse until its stack is gone, which no guard survives.
fn refuse_loops(document: &Document) -> Result<(), String> {
    for (_, page) in document.get_pages() {
        let mut id = page;
        for depth in 0.. {
            let parent =
                document.get_dictionary(id).and_then(|page| page.get(b"Parent")).and_then(Object::as_reference);
            let Ok(parent) = parent else { break };
            if depth > DEPTH_MAX {
                return Err("its page tree holds itself".to_string());
            }
            id = parent;
        }
    }
    let forms = document.objects.keys().filter_map(|&id| Some((id, forms_of(document, id)?))).collect();
    match holds_itself(forms) {
        true => Err("one of its forms holds itself".to_string()),
        false => Ok(()),
    }
}

/// The forms that the stream `id` may draw.
fn forms_of(document: &Document, id: ObjectId) -> Option<Vec<ObjectId>> {
    let dictionary = &document.get_object(id).ok()?.as_stream().ok()?.dict;
    let follow = |object| document.dereference(object).ok()?.1.as_dict().ok();
    let drawn = follow(follow(dictionary.get(b"Resources").ok()?)?.get(b"XObject").ok()?)?;
    Some(drawn.iter().filter_map(|(_, form)| form.as_reference().ok()).collect())
}

/// Takes away, again and again, what draws nothing that is left; a loop is what remains, and so is a nesting beyond `DEPTH_MAX`.
fn holds_itself(mut forms: BTreeMap<ObjectId, Vec<ObjectId>>) -> bool {
    for _ in 0..DEPTH_MAX {
        let left: BTreeSet<ObjectId> = forms.keys().copied().collect();
        forms.retain(|_, drawn| drawn.iter().any(|form| left.contains(form)));
    }
    !forms.is_empty()
}

fn reason(error: &str) -> String {
    format!("not readable as PDF: {}", super::error::short(error, 200))
}
