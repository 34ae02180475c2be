//! Sequences that are read piece by piece: what was read once is not read again.
//!
//! In:    new tokens of each sequence, a [`Stack`].
//! Out:   the residual stream of the new tokens; the session, longer by them.
//! Never: reads a token twice, or holds keys and values of tokens that were taken back.

use burn::tensor::Tensor;
use kernels::KeyValues;

use crate::context::RowContext;
use crate::decoder::Decoder;
use crate::forward::Stack;
use crate::source::BoxedError;

/// Keys and values of several sequences, block by block.
#[derive(Debug, Clone)]
pub struct Session {
    blocks: Vec<KeyValues>,
    lengths: Vec<usize>,
}

impl Session {
    /// `sequences` without tokens in a network of `n_blocks`.
    pub fn new(n_blocks: usize, sequences: usize) -> Session {
        Session::with_room(n_blocks, &vec![0; sequences])
    }

    /// As [`Session::new`]; each sequence has room for as many tokens as said from its first token on.
    pub fn with_room(n_blocks: usize, tokens: &[usize]) -> Session {
        Session { blocks: vec![KeyValues::with_room(tokens); n_blocks], lengths: vec![0; tokens.len()] }
    }

    /// Tokens that a sequence has read.
    pub fn length(&self, sequence: usize) -> usize {
        self.lengths[sequence]
    }

    /// Takes tokens of a sequence back: all from number `length` on.
    pub fn truncate(&mut self, sequence: usize, length: usize) {
        self.blocks.iter_mut().for_each(|cache| cache.truncate(sequence, length));
        self.lengths[sequence] = self.lengths[sequence].min(length);
    }
}

impl Decoder {
    /// Reads new tokens of every sequence, which may be none. Returns the residual stream of all of them, `[t, d]`, laid end to end. After an
    /// error, which is that of a block that could not be fetched, the session cannot be used any more.
    pub fn read(&self, stack: Stack<'_>, session: &mut Session, new: &[&[u32]]) -> Result<Tensor<2>, BoxedError> {
        let context = self.onward(session, new);
        let mut x_td = self.embed(&new.concat());
        for (index, (cache, adapters)) in session.blocks.iter_mut().zip(stack.adapters).enumerate() {
            let block = stack.blocks.block(index)?;
            let projections = block.project(&self.spec, x_td.clone(), &context, adapters);
            let geometry = block.geometry(&self.spec, &context);
            let mixed_th = kernels::cached_attention(cache, projections.into(), geometry);
            x_td = block.after_attention(&self.spec, x_td, mixed_th, &context, adapters);
        }
        session.lengths.iter_mut().zip(new).for_each(|(length, new)| *length += new.len());
        Ok(x_td)
    }

    /// Bounds and positions of the new tokens.
    fn onward(&self, session: &Session, new: &[&[u32]]) -> RowContext {
        assert_eq!(new.len(), session.lengths.len(), "new tokens of each sequence");
        let mut segments = vec![0u32];
        let mut positions = Vec::new();
        for (new, &before) in new.iter().zip(&session.lengths) {
            positions.extend(before as u32..(before + new.len()) as u32);
            segments.push(positions.len() as u32);
        }
        RowContext::at(&self.spec, segments, &positions, &self.device)
    }
}
