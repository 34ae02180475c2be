//! What all targets share.

/// Panics that the readers catch (see `datasets/src/files/columnar.rs`) are no findings: without this, libfuzzer-sys ends
/// the process in the panic hook already. Panics that reach a target still end it.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if panic.location().is_some_and(|place| place.file().contains("datasets/src")) {
            eprintln!("{panic}");
        }
    }));
}
