//! Blowfish as bcrypt uses it, for one state: the work before and after the long loop.
//!
//! No branch and no loop count depends on a key, a salt or a state. The S-box words that a round
//! reads do depend on them, by Blowfish's design.

use zeroize::Zeroize;

use super::tables;

/// One lane's Blowfish state, 4176 bytes.
///
/// Aligned to a cache line, so that each lane's S-boxes cover whole lines: 66 lines per lane.
#[repr(C, align(64))]
pub(super) struct State {
    pub(super) boxes: [[u32; 256]; 4],
    pub(super) p: [u32; 18],
    /// Where [`interleave`](super::interleave) keeps the half of the block that is not looked up.
    pub(super) parked: [u32; 2],
}

/// The words of password and salt that a loop round mixes into a state.
///
/// They are in the order in which the key schedule consumes them.
pub(super) struct Words {
    /// The password and its NUL, repeated to fill 72 bytes.
    pub(super) key: [u32; 18],
    /// The salt's 16 bytes.
    pub(super) salt: [u32; 4],
}

impl State {
    pub(super) const BLANK: Self = Self { boxes: [[0; 256]; 4], p: [0; 18], parked: [0; 2] };

    /// Resets the state to pi, then expands salt and password into it.
    ///
    /// This is bcrypt's prologue, about half a loop round.
    pub(super) fn begin(&mut self, words: &Words) {
        // in place, because a `State` built here and moved would leave a copy on the stack
        self.boxes.copy_from_slice(&tables::S);
        self.p.copy_from_slice(&tables::P);
        self.mix_in(&words.key);
        let [a, b, c, d] = words.salt;
        let mut salt = [[a, b], [c, d]].into_iter().cycle();
        self.replace(|| salt.next().unwrap_or_default());
    }

    /// Replaces every word by the chain of encryptions that starts from zero.
    pub(super) fn expand(&mut self) {
        self.replace(|| [0, 0]);
    }

    /// Encrypts "OrpheanBeholderScryDoubt" 64 times: bcrypt's epilogue.
    ///
    /// The three blocks are independent, so they are stepped together like lanes.
    pub(super) fn finish(&self) -> [u8; 24] {
        let mut blocks =
            [[0x4f72_7068, 0x6561_6e42], [0x6568_6f6c, 0x6465_7253], [0x6372_7944, 0x6f75_6274]];
        for _ in 0..64 {
            self.encrypt(&mut blocks);
        }
        let mut out = [0; 24];
        for (bytes, word) in out.chunks_exact_mut(4).zip(blocks.as_flattened()) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        blocks.zeroize();
        out
    }

    /// Adds 72 bytes of key to P.
    #[inline(always)]
    pub(super) fn mix_in(&mut self, key: &[u32; 18]) {
        for (p, word) in self.p.iter_mut().zip(key) {
            *p ^= word;
        }
    }

    /// Moves the state of another slot here and leaves that slot blank.
    pub(super) fn take_from(&mut self, other: &mut Self) {
        self.boxes.copy_from_slice(&other.boxes);
        self.p.copy_from_slice(&other.p);
        other.zeroize();
    }

    /// The chain of encryptions: P first, then the boxes, two words at a time.
    ///
    /// Each block encrypts the one before it, plus the words from `salt`.
    #[inline(always)]
    #[expect(
        clippy::indexing_slicing,
        reason = "pairs of 18 and of 256 words, counted by constants"
    )]
    fn replace(&mut self, mut salt: impl FnMut() -> [u32; 2]) {
        let mut block = [0; 2];
        for pair in 0..9 {
            block = self.link(block, salt());
            [self.p[2 * pair], self.p[2 * pair + 1]] = block;
        }
        for sbox in 0..4 {
            for pair in 0..128 {
                block = self.link(block, salt());
                [self.boxes[sbox][2 * pair], self.boxes[sbox][2 * pair + 1]] = block;
            }
        }
    }

    #[inline(always)]
    fn link(&self, [left, right]: [u32; 2], [a, b]: [u32; 2]) -> [u32; 2] {
        let mut blocks = [[left ^ a, right ^ b]];
        self.encrypt(&mut blocks);
        let [block] = blocks;
        block
    }

    /// Encrypts independent blocks.
    #[inline(always)]
    fn encrypt<const BLOCKS: usize>(&self, blocks: &mut [[u32; 2]; BLOCKS]) {
        for [left, _] in &mut *blocks {
            *left ^= self.p[0];
        }
        // written out, so that P is read at constant offsets and the halves never swap
        macro_rules! two_rounds {
            ($($round:literal)*) => { $(
                for [left, right] in &mut *blocks {
                    *right ^= self.p[$round + 1] ^ scramble(&self.boxes, *left);
                }
                for [left, right] in &mut *blocks {
                    *left ^= self.p[$round + 2] ^ scramble(&self.boxes, *right);
                }
            )* };
        }
        two_rounds!(0 2 4 6 8 10 12 14);
        for [left, right] in &mut *blocks {
            (*left, *right) = (*right ^ self.p[17], *left);
        }
    }

    #[cfg(test)]
    pub(super) fn is_blank(&self) -> bool {
        let small = self.p.iter().chain(&self.parked);
        small.chain(self.boxes.as_flattened()).all(|word| *word == 0)
    }
}

impl Zeroize for State {
    fn zeroize(&mut self) {
        self.boxes.zeroize();
        self.p.zeroize();
        self.parked.zeroize();
    }
}

/// Blowfish's F.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a byte indexes 256 words")]
fn scramble(boxes: &[[u32; 256]; 4], half: u32) -> u32 {
    // not `to_be_bytes`, which the compiler would turn into a byte swap
    let [d, c, b, a] = half.to_le_bytes().map(usize::from);
    (boxes[0][a].wrapping_add(boxes[1][b]) ^ boxes[2][c]).wrapping_add(boxes[3][d])
}

impl Words {
    pub(super) const BLANK: Self = Self { key: [0; 18], salt: [0; 4] };

    /// Moves the words of another slot here and leaves that slot blank.
    pub(super) fn take_from(&mut self, other: &mut Self) {
        self.key.copy_from_slice(&other.key);
        self.salt.copy_from_slice(&other.salt);
        other.zeroize();
    }

    #[cfg(test)]
    pub(super) fn is_blank(&self) -> bool {
        self.key.iter().chain(&self.salt).all(|word| *word == 0)
    }
}

impl Zeroize for Words {
    fn zeroize(&mut self) {
        self.key.zeroize();
        self.salt.zeroize();
    }
}
