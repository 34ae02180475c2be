//! Prints `docs/calibration.md`: the planner's arithmetic against published runs.
//!
//! In:    nothing.
//! Out:   Markdown on stdout.
//! Never: writes a file; redirect it.

fn main() -> Result<(), planner::stacks::RowError> {
    print!("{}", planner::stacks::calibration_markdown()?);
    Ok(())
}
