//! Finds added tokens in text as the tokenizers crate does: leftmost, longest, white space beside them on request.
//!
//! In:    the added tokens of a `tokenizer.json`.
//! Out:   [`Added`], [`Added::find`].
//! Never: handles `single_word`.

/// One added token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddedToken {
    /// Its id.
    pub(super) id: u32,
    /// How it is written.
    pub(super) content: String,
    /// Whether white space before it belongs to it.
    pub(super) lstrip: bool,
    /// Whether white space after it belongs to it.
    pub(super) rstrip: bool,
}

/// All added tokens, as a tree of bytes.
#[derive(Debug)]
pub(super) struct Added {
    tokens: Vec<AddedToken>,
    nodes: Vec<Node>,
    begins: [bool; 256],
}

#[derive(Debug, Default)]
struct Node {
    children: Vec<(u8, u32)>,
    token: Option<u32>,
}

impl Added {
    /// Of equal contents the first counts.
    pub(super) fn new(tokens: Vec<AddedToken>) -> Added {
        let mut added = Added { tokens: Vec::new(), nodes: vec![Node::default()], begins: [false; 256] };
        for (index, token) in tokens.iter().enumerate().filter(|(_, token)| !token.content.is_empty()) {
            added.begins[usize::from(token.content.as_bytes()[0])] = true;
            let end = token.content.bytes().fold(0, |node, byte| added.child_or_new(node, byte));
            added.nodes[end].token.get_or_insert(index as u32);
        }
        added.tokens = tokens;
        added
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    fn child(&self, node: usize, byte: u8) -> Option<usize> {
        let children = &self.nodes[node].children;
        children.binary_search_by_key(&byte, |child| child.0).ok().map(|at| children[at].1 as usize)
    }

    fn child_or_new(&mut self, node: usize, byte: u8) -> usize {
        self.child(node, byte).unwrap_or_else(|| {
            let new = self.nodes.len();
            let at = self.nodes[node].children.partition_point(|child| child.0 < byte);
            self.nodes[node].children.insert(at, (byte, new as u32));
            self.nodes.push(Node::default());
            new
        })
    }

    /// The first token at or after byte `from`, and the bytes it is written in.
    fn next(&self, text: &[u8], from: usize) -> Option<(usize, usize, &AddedToken)> {
        let mut at = from;
        loop {
            at += text[at..].iter().position(|byte| self.begins[usize::from(*byte)])?;
            let (mut node, mut longest) = (0, None);
            for (length, byte) in (1..).zip(&text[at..]) {
                let Some(child) = self.child(node, *byte) else { break };
                node = child;
                longest = self.nodes[node].token.map(|token| (at + length, token)).or(longest);
            }
            if let Some((end, token)) = longest {
                return Some((at, end, &self.tokens[token as usize]));
            }
            at += 1;
        }
    }

    /// Calls `piece` with every part of `text` in order: its bytes, and the token's id or `None` for plain text.
    pub(super) fn find(&self, text: &str, mut piece: impl FnMut(usize, usize, Option<u32>)) {
        let (mut done, mut from) = (0, 0);
        while let Some((at, end, token)) = self.next(text.as_bytes(), from) {
            from = end;
            let (mut start, mut stop) = (at, end);
            if token.lstrip {
                start = text[..at].trim_end().len().max(done);
            }
            if token.rstrip {
                stop = text.len() - text[end..].trim_start().len();
            }
            if done < start {
                piece(done, start, None);
            }
            piece(start, stop, Some(token.id));
            done = stop;
        }
        if done != text.len() {
            piece(done, text.len(), None);
        }
    }
}
