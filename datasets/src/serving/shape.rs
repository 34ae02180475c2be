//! A chat template as fixed texts around each turn.
//!
//! In:    a way to render conversations.
//! Out:   a [`Shape`]: the texts, found by rendering turns with known contents; the same as a Go template.
//! Never: knows a family by name.

/// Contents that no template holds itself, and that no `trim` changes.
const SYSTEM: &str = "Q0system0Q";
const USER: &str = "Q1user1Q";
const ANSWER: &str = "Q2answer2Q";
const AGAIN: &str = "Q3user3Q";

/// What is rendered of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Its turns.
    Turns,
    /// Its turns and the beginning of the next answer.
    Prompt,
}

/// Renders turns.
pub(super) type Render<'a> = &'a dyn Fn(&[(&str, &str)], Wanted) -> Result<String, String>;

/// The texts around turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// Before everything, where no system text is given: beginning of text, or a system text of the template's own.
    head: String,
    system: System,
    user_open: String,
    user_close: String,
    answer_open: String,
    answer_close: String,
    /// The beginning of the answer that is asked for.
    generation: String,
}

/// Where a system text stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum System {
    /// Nowhere: the template refuses it.
    Nowhere,
    /// In a turn of its own, in place of `head`.
    Own { before: String, after: String },
    /// In the first user turn, behind its opening.
    FirstUser { after: String },
    /// In the last user turn, behind its opening.
    LastUser { after: String },
}

impl Shape {
    /// Finds the texts, or says what is irregular.
    pub(super) fn read(render: Render) -> Result<Shape, String> {
        let [head_open, close_open, close_again, closing] = around(
            &render(&[("user", USER), ("assistant", ANSWER), ("user", AGAIN)], Wanted::Prompt)?,
            [USER, ANSWER, AGAIN],
        )?;
        let [_, user_close] = around(&render(&[("user", USER)], Wanted::Turns)?, [USER])?;
        let [_, _, answer_close] =
            around(&render(&[("user", USER), ("assistant", ANSWER)], Wanted::Turns)?, [USER, ANSWER])?;
        let irregular = |what: &str| format!("the chat template has {what}");
        let (answer_close, user_open) = match close_again.strip_prefix(&answer_close) {
            Some(rest) if !answer_close.is_empty() => (answer_close.clone(), rest.to_owned()),
            _ => return Err(irregular("answers that end otherwise at the end of a conversation than within it")),
        };
        let head = head_open.strip_suffix(&user_open);
        let head = head.ok_or_else(|| irregular("a first user turn that opens otherwise than later ones"))?;
        let after_user = |text: &str, what: &str| {
            text.strip_prefix(user_close.as_str()).map(str::to_owned).ok_or_else(|| irregular(what))
        };
        let mut shape = Shape {
            head: head.to_owned(),
            system: System::Nowhere,
            answer_open: after_user(&close_open, "user turns that end otherwise before an answer")?,
            generation: after_user(&closing, "user turns that end otherwise at the end")?,
            user_open,
            user_close,
            answer_close,
        };
        shape.system = shape.read_system(render)?;
        Ok(shape)
    }

    fn read_system(&self, render: Render) -> Result<System, String> {
        let conversation = [("system", SYSTEM), ("user", USER), ("assistant", ANSWER), ("user", AGAIN)];
        let Ok(text) = render(&conversation, Wanted::Prompt) else { return Ok(System::Nowhere) };
        let opening = format!("{}{}", self.head, self.user_open);
        let irregular = || "the chat template puts the system text where no Go template of one loop can".to_owned();
        let at = |part: &str| text.find(part).ok_or_else(irregular);
        if at(SYSTEM)? > at(ANSWER)? {
            let [_, _, _, between, _] = around(&text, [USER, ANSWER, SYSTEM, AGAIN])?;
            return Ok(System::LastUser { after: between });
        }
        let [before, between, _, _, _] = around(&text, [SYSTEM, USER, ANSWER, AGAIN])?;
        if before == opening {
            return Ok(System::FirstUser { after: between });
        }
        match between.strip_suffix(&self.user_open) {
            Some(after) => Ok(System::Own { before, after: after.to_owned() }),
            None => Err(irregular()),
        }
    }

    /// Whether a system text has a place.
    pub(super) fn takes_system(&self) -> bool {
        self.system != System::Nowhere
    }

    /// What follows an answer.
    pub(super) fn answer_end(&self) -> &str {
        &self.answer_close
    }

    /// Whether every conversation begins with `text`.
    pub(super) fn starts_with(&self, text: &str) -> bool {
        self.head.starts_with(text) && !matches!(&self.system, System::Own { before, .. } if !before.starts_with(text))
    }

    /// Without the beginning-of-text that a server writes itself.
    pub(super) fn without_start(mut self, start: Option<&str>) -> Shape {
        let Some(start) = start.filter(|start| self.starts_with(start)) else { return self };
        self.head.drain(..start.len());
        if let System::Own { before, .. } = &mut self.system {
            before.drain(..start.len());
        }
        self
    }

    /// The prompt of a conversation, as [`Shape::to_go`]'s template writes it.
    pub(super) fn render(&self, said: &[(&str, &str)]) -> String {
        let system = said.iter().find(|(role, _)| *role == "system").map(|(_, text)| *text);
        let mut out = match (&self.system, system) {
            (System::Own { before, after }, Some(text)) => format!("{before}{text}{after}"),
            _ => self.head.clone(),
        };
        let mut fresh = true;
        for (index, (role, content)) in said.iter().enumerate() {
            let last = index + 1 == said.len();
            match *role {
                "user" => {
                    out.push_str(&self.user_open);
                    match (&self.system, system) {
                        (System::FirstUser { after }, Some(text)) if fresh => out.extend([text, after]),
                        (System::LastUser { after }, Some(text)) if last => out.extend([text, after]),
                        _ => {}
                    }
                    fresh = false;
                    out.extend([content, self.user_close.as_str()]);
                    if last {
                        out.push_str(&self.generation);
                    }
                }
                "assistant" => {
                    out.extend([self.answer_open.as_str(), content]);
                    if !last {
                        out.push_str(&self.answer_close);
                    }
                }
                _ => {}
            }
        }
        out
    }

    /// The template in Go's `text/template`, with the variables that Ollama gives: `.System`, `.Messages`, `.Role`, `.Content`.
    pub(super) fn to_go(&self) -> Result<String, String> {
        let mut texts = vec![
            &self.head,
            &self.user_open,
            &self.user_close,
            &self.answer_open,
            &self.answer_close,
            &self.generation,
        ];
        match &self.system {
            System::Own { before, after } => texts.extend([before, after]),
            System::FirstUser { after } | System::LastUser { after } => texts.push(after),
            System::Nowhere => {}
        }
        if texts.iter().any(|text| text.contains("{{") || text.contains("}}") || text.contains("\"\"\"")) {
            return Err("the chat template writes text that a Modelfile cannot hold as it is".to_owned());
        }
        let opening = match &self.system {
            System::Own { before, after } => {
                format!("{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{{{{ else }}}}{}{{{{ end }}}}", self.head)
            }
            _ => self.head.clone(),
        };
        let (declared, inside) = match &self.system {
            System::FirstUser { after } => (
                "{{ $fresh := true }}",
                format!(
                    "{{{{ if and $fresh $.System }}}}{{{{ $.System }}}}{after}{{{{ end }}}}{{{{ $fresh = false }}}}"
                ),
            ),
            System::LastUser { after } => {
                ("", format!("{{{{ if and $last $.System }}}}{{{{ $.System }}}}{after}{{{{ end }}}}"))
            }
            _ => ("", String::new()),
        };
        let Shape { user_open, user_close, answer_open, answer_close, generation, .. } = self;
        Ok(format!(
            "{declared}{opening}{{{{ range $i, $_ := .Messages }}}}{{{{ $last := eq (len (slice $.Messages $i)) 1 }}}}\
             {{{{ if eq .Role \"user\" }}}}{user_open}{inside}{{{{ .Content }}}}{user_close}{{{{ if $last \
             }}}}{generation}{{{{ end }}}}{{{{ else if eq .Role \"assistant\" }}}}{answer_open}{{{{ .Content }}}}{{{{ if not \
             $last }}}}{answer_close}{{{{ end }}}}{{{{ end }}}}{{{{ end }}}}"
        ))
    }
}

/// The texts before, between and behind contents that stand once, in this order.
fn around<const N: usize, const M: usize>(text: &str, contents: [&str; N]) -> Result<[String; M], String> {
    let mut parts = Vec::with_capacity(M);
    let mut rest = text;
    for content in contents {
        let missing = || "the chat template changes, repeats or leaves out the text of a turn".to_owned();
        if text.matches(content).count() != 1 {
            return Err(missing());
        }
        let (before, after) = rest.split_once(content).ok_or_else(missing)?;
        parts.push(before.to_owned());
        rest = after;
    }
    parts.push(rest.to_owned());
    Ok(parts.try_into().expect("one text more than contents"))
}
