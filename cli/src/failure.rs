//! From an error to one line and an exit code.
//!
//! In:    any library's error, and what kind of failure it is.
//! Out:   `error: what: where: numbers; hint`, and 1, 2, 3 or 130.
//! Never: prints a cause twice or a line break.

use std::fmt;
use std::process::ExitCode;

/// Why the program ends with something other than 0.
#[derive(Debug)]
pub enum Failure {
    /// 1: the run failed.
    Run(anyhow::Error),
    /// 2: bad usage, recipe or input.
    Input(anyhow::Error),
    /// 3: the plan does not fit.
    DoesNotFit(anyhow::Error),
    /// 130: interrupted, after a complete checkpoint.
    Interrupted(String),
}

impl Failure {
    /// The exit code that `docs` promise.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Run(_) => 1,
            Failure::Input(_) => 2,
            Failure::DoesNotFit(_) => 3,
            Failure::Interrupted(_) => 130,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Run(error) | Failure::Input(error) | Failure::DoesNotFit(error) => {
                write!(f, "error: {}", one_line(error))
            }
            Failure::Interrupted(message) => f.write_str(message),
        }
    }
}

/// The chain of causes; one whose text the line already holds is left out, because many errors print their source themselves.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if line.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    line
}

/// Says which kind of failure an error is.
pub trait OrFail<T> {
    /// Exit code 2.
    fn or_input(self) -> Result<T, Failure>;
    /// Exit code 1.
    fn or_run(self) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for Result<T, E> {
    fn or_input(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Input(error.into()))
    }

    fn or_run(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Run(error.into()))
    }
}
