//! Elements of a JSON file, one after the other, as bytes: a list, an object that holds one list, or objects in a row.
//!
//! In:    a [`Text`].
//! Out:   the bytes of each element; they are parsed later, on many threads.
//! Never: holds more than one element.

use std::io::BufRead;

use super::error::FileError;
use super::text::{RECORD_BYTES_MAX, Text};

/// Deepest nesting: serde_json refuses more (its recursion limit).
const DEPTH_MAX: usize = 127;

/// Keys under which a row, not a file, holds a list.
const ROW_LISTS: [&[u8]; 12] = [
    b"messages",
    b"conversations",
    b"conversation",
    b"segments",
    b"prompt",
    b"completion",
    b"chosen",
    b"rejected",
    b"history",
    b"tools",
    b"functions",
    b"text",
];

/// How the elements stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[{...}, {...}]`
    List,
    /// `{"data": [{...}, {...}]}`; the list begins after so many bytes.
    Keyed(usize),
    /// `{...} {...}`, over any number of lines.
    Sequence,
    /// One object a line.
    Lines,
}

impl Layout {
    /// The layout that the first bytes show; `None` where they are no JSON.
    pub(super) fn of(head: &[u8]) -> Option<Layout> {
        let begin = head.iter().position(|byte| !byte.is_ascii_whitespace());
        match begin.map(|begin| head[begin]) {
            Some(b'[') => Some(Layout::List),
            Some(b'{') if one_object_a_line(head.trim_ascii_start()) => Some(Layout::Lines),
            Some(b'{') => Some(list_under_key(head).map_or(Layout::Sequence, Layout::Keyed)),
            Some(_) => None,
            None => Some(Layout::Sequence),
        }
    }
}

/// Whether the first line is an object by itself and another one follows.
fn one_object_a_line(head: &[u8]) -> bool {
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else { return false };
    let follows = head[end..].trim_ascii_start().first() == Some(&b'{');
    follows && serde_json::from_slice::<serde::de::IgnoredAny>(&head[..end]).is_ok()
}

/// Where the list begins, if the head reads `{"key": [{` or `{"key": []`, with a key that no row has.
fn list_under_key(head: &[u8]) -> Option<usize> {
    let after = |at: usize, byte: u8| {
        let blank = head[at..].iter().position(|byte| !byte.is_ascii_whitespace())?;
        (head[at + blank] == byte).then_some(at + blank + 1)
    };
    let key = after(after(0, b'{')?, b'"')?;
    let key_end = key + head[key..].iter().position(|byte| *byte == b'"')?;
    let list = after(after(key_end + 1, b':')?, b'[')?;
    let holds_rows = after(list, b'{').or(after(list, b']')).is_some();
    (holds_rows && !ROW_LISTS.contains(&&head[key..key_end])).then_some(list)
}

/// A JSON file being read.
pub(super) struct Elements {
    text: Text,
    layout: Layout,
    /// Elements read so far.
    pub(super) row: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Begin,
    Inside,
    End,
}

impl Elements {
    pub(super) fn new(text: Text, layout: Layout) -> Elements {
        Elements { text, layout, row: 0, state: State::Begin }
    }

    /// The next element; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, FileError> {
        if self.state == State::Begin {
            self.begin()?;
        }
        if self.state == State::End {
            return Ok(None);
        }
        let found = self.skip_space()?;
        if self.layout == Layout::Sequence {
            return match found {
                None => self.end(),
                Some(b'{') => self.element().map(Some),
                Some(other) => Err(self.fault(format!("{} where an object should begin", shown(other)))),
            };
        }
        let found = match (found, self.row) {
            (Some(b']'), _) => {
                self.text.input.consume(1);
                return self.close();
            }
            (found, 0) => found,
            (Some(b','), _) => {
                self.text.input.consume(1);
                self.skip_space()?
            }
            (Some(other), _) => return Err(self.fault(format!("{} where a comma or ] should stand", shown(other)))),
            (None, _) => None,
        };
        match found {
            None => Err(self.fault("the file ends before the list is closed with ]".to_owned())),
            Some(b']' | b',') => Err(self.fault("a comma without an element".to_owned())),
            Some(_) => self.element().map(Some),
        }
    }

    fn begin(&mut self) -> Result<(), FileError> {
        self.state = State::Inside;
        match self.layout {
            Layout::Sequence | Layout::Lines => {}
            Layout::List => {
                self.skip_space()?;
                self.text.input.consume(1);
            }
            Layout::Keyed(list) => {
                for _ in 0..list {
                    let byte = self.peek()?;
                    self.text.line += u64::from(byte == Some(b'\n'));
                    self.text.input.consume(1);
                }
            }
        }
        Ok(())
    }

    /// After the list's `]`.
    fn close(&mut self) -> Result<Option<Vec<u8>>, FileError> {
        if let Layout::Keyed(_) = self.layout {
            match self.skip_space()? {
                Some(b'}') => self.text.input.consume(1),
                _ => {
                    let reason =
                        "only one list is read, and its object must end with it; save the list in a file of its own";
                    return Err(self.fault(reason.to_owned()));
                }
            }
        }
        match self.skip_space()? {
            None => self.end(),
            Some(other) => Err(self.fault(format!("{} after the end of the list", shown(other)))),
        }
    }

    fn end(&mut self) -> Result<Option<Vec<u8>>, FileError> {
        self.state = State::End;
        Ok(None)
    }

    fn element(&mut self) -> Result<Vec<u8>, FileError> {
        let (mut bytes, mut nesting) = (Vec::new(), Nesting::default());
        loop {
            let chunk = self.text.input.fill_buf();
            let (used, step) = match chunk {
                Ok([]) => break,
                Ok(chunk) => {
                    let (used, step) = nesting.walk(chunk);
                    bytes.extend_from_slice(&chunk[..used]);
                    (used, step)
                }
                Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(self.text.failed(cause)),
            };
            self.text.input.consume(used);
            self.text.line += bytes[bytes.len() - used..].iter().filter(|byte| **byte == b'\n').count() as u64;
            if bytes.len() > RECORD_BYTES_MAX {
                let (path, line) = (self.text.path.clone(), self.row + 1);
                return Err(FileError::TooLong { path, line, limit_bytes: RECORD_BYTES_MAX });
            }
            match step {
                Step::On => {}
                Step::Done => {
                    self.row += 1;
                    return Ok(bytes);
                }
                Step::Fault(reason) => return Err(self.fault(reason)),
            }
        }
        Err(self.fault("the file ends inside this element".to_owned()))
    }

    /// Goes to the next byte that is no white space, and shows it.
    fn skip_space(&mut self) -> Result<Option<u8>, FileError> {
        loop {
            match self.peek()? {
                Some(byte) if byte.is_ascii_whitespace() => {
                    self.text.line += u64::from(byte == b'\n');
                    self.text.input.consume(1);
                }
                other => return Ok(other),
            }
        }
    }

    fn peek(&mut self) -> Result<Option<u8>, FileError> {
        loop {
            match self.text.input.fill_buf() {
                Ok(chunk) => return Ok(chunk.first().copied()),
                Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(self.text.failed(cause)),
            }
        }
    }

    fn fault(&self, reason: String) -> FileError {
        FileError::Json { path: self.text.path.clone(), line: self.text.line + 1, row: self.row + 1, reason }
    }
}

fn shown(byte: u8) -> String {
    format!("{:?}", char::from(byte))
}

/// Finds the end of one JSON value without parsing it.
#[derive(Default)]
struct Nesting {
    /// Closing brackets that are due.
    due: Vec<u8>,
    in_string: bool,
    escaped: bool,
    begun: bool,
}

enum Step {
    On,
    Done,
    Fault(String),
}

impl Nesting {
    /// How many bytes of `chunk` belong to the value, and whether it ends there.
    fn walk(&mut self, chunk: &[u8]) -> (usize, Step) {
        let mut at = 0;
        while at < chunk.len() {
            let byte = chunk[at];
            if self.in_string {
                at += 1;
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.due.is_empty() {
                            return (at, Step::Done);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            // A number or a word ends where something else begins.
            if self.due.is_empty() && self.begun && (byte.is_ascii_whitespace() || b",]}".contains(&byte)) {
                return (at, Step::Done);
            }
            self.begun = true;
            at += 1;
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' if self.due.len() == DEPTH_MAX => {
                    return (at, Step::Fault(format!("nested deeper than {DEPTH_MAX} levels")));
                }
                b'{' => self.due.push(b'}'),
                b'[' => self.due.push(b']'),
                b'}' | b']' => match self.due.pop() {
                    Some(due) if due != byte => {
                        return (at, Step::Fault(format!("{} where {} should stand", shown(byte), shown(due))));
                    }
                    _ if self.due.is_empty() => return (at, Step::Done),
                    _ => {}
                },
                _ => {}
            }
        }
        (at, Step::On)
    }
}
