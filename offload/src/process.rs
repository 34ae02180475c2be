//! A signal to another process of this program.
//!
//! In:    a process id, from the lock that the process holds.
//! Out:   the signal sent, or why not.
//! Never: a signal to a group of processes.

use std::io;

/// Sends SIGUSR1: a run that gets it writes a checkpoint after its step.
pub fn ask_to_save(process: u32) -> io::Result<()> {
    let id = libc::pid_t::try_from(process).ok().filter(|&id| id > 1);
    let id = id.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("process {process} is none")))?;
    // SAFETY: the call takes two numbers and touches no memory of ours; `id` is a single process, above.
    match unsafe { libc::kill(id, libc::SIGUSR1) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_processes_and_the_first_one_are_never_signalled() {
        for id in [0, 1, u32::MAX, 1 << 31] {
            assert!(ask_to_save(id).is_err(), "{id}");
        }
    }
}
