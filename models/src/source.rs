//! Where blocks come from.
//!
//! In:    a block's position in the stack.
//! Out:   the block on the device.
//! Never: tells its caller whether the block was there or had to be fetched.

use crate::block::Block;

/// What can go wrong while a block is fetched; the room that fetches knows.
pub type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// A stack of blocks, resident or paged.
pub trait BlockSource {
    /// Block `index`, on the device when this returns. A resident block costs a few reference counts.
    fn block(&self, index: usize) -> Result<Block, BoxedError>;

    /// Number of blocks.
    fn n_blocks(&self) -> usize;
}

/// Every block resident.
impl BlockSource for Vec<Block> {
    fn block(&self, index: usize) -> Result<Block, BoxedError> {
        Ok(self[index].clone())
    }

    fn n_blocks(&self) -> usize {
        self.len()
    }
}
