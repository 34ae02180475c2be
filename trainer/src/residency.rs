//! Who is where: hands out blocks in the order the engine walks them.
//!
//! In:    a decoder whose blocks were placed as planned.
//! Out:   a block on the device, whenever the engine asks for it.
//! Never: lets the engine know where a block came from. Today every block is resident, so nothing is fetched; paged
//!        weights replace the inside of this object, not its callers.

use models::{Block, Decoder};

/// The decoder and the place of its blocks.
#[derive(Debug)]
pub struct Residency {
    decoder: Decoder,
}

impl Residency {
    /// Every block resident.
    pub fn all_resident(decoder: Decoder) -> Residency {
        Residency { decoder }
    }

    /// The parts around the blocks, always resident.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Block `index`, on the device when this returns.
    pub fn block(&self, index: usize) -> &Block {
        &self.decoder.blocks[index]
    }
}
