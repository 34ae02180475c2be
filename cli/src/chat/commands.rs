//! What a line of a conversation asks for.
//!
//! In:    a line as typed.
//! Out:   a [`Command`].
//! Never: takes a word after `/` for something it does not know: that is said.

/// The commands, for people.
pub const HELP: &str = "/reset forgets the conversation, /system TEXT sets the system text, /base, /tuned and /compare choose who answers, /quit ends; \
     Ctrl-C stops an answer, Ctrl-D ends";

/// What a line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// An empty line.
    Nothing,
    /// To be answered.
    Say(&'a str),
    /// The end.
    Quit,
    /// Something about the conversation itself.
    Other(Order<'a>),
}

/// A change of the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order<'a> {
    /// Forget it.
    Reset,
    /// Another system text, none if empty; the conversation begins anew.
    System(&'a str),
    /// Only the base answers.
    Base,
    /// Only the tuned network answers.
    Tuned,
    /// Both answer.
    Compare,
    /// Say what there is.
    Help,
    /// No command.
    Unknown(&'a str),
}

impl Command<'_> {
    /// Reads a line. A line that begins with two slashes is said with one.
    pub fn of(line: &str) -> Command<'_> {
        if line.trim().is_empty() {
            return Command::Nothing;
        }
        if line.starts_with("//") {
            return Command::Say(&line[1..]);
        }
        if !line.starts_with('/') {
            return Command::Say(line);
        }
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        Command::Other(match word {
            "/quit" | "/exit" => return Command::Quit,
            "/reset" => Order::Reset,
            "/system" => Order::System(rest.trim()),
            "/base" => Order::Base,
            "/tuned" => Order::Tuned,
            "/compare" => Order::Compare,
            "/help" | "/?" => Order::Help,
            _ => Order::Unknown(word),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_said_unless_they_begin_with_one_slash() {
        assert_eq!(Command::of("  \t"), Command::Nothing);
        assert_eq!(Command::of("what is 1/2?"), Command::Say("what is 1/2?"));
        assert_eq!(Command::of("//etc is a folder"), Command::Say("/etc is a folder"));
        assert_eq!(Command::of("/system  Be brief. "), Command::Other(Order::System("Be brief.")));
        assert_eq!(Command::of("/etc"), Command::Other(Order::Unknown("/etc")));
        assert_eq!(Command::of("/quit"), Command::Quit);
    }
}
