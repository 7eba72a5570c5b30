//! The long loop for `N` lanes at once: one round of every lane, then the next round.
//!
//! The source is shaped by the machine code that it compiles to; [the module page](super) has the
//! figures. Three things make it fast:
//!
//! * **One half of each block stays in a register, the other is parked in the lane's state.** Both
//!   halves of 5 or more lanes do not fit in 15 registers, and the compiler spills the wrong ones.
//!   Parking a half just before it is split also lets the code split it in place, without a copy.
//! * **A compiler fence between the steps of different lanes.** [`compiler_fence`] emits no
//!   instruction. It keeps the compiler from mixing the steps of different lanes: the processor
//!   does that better, and mixing costs registers. It also keeps the compiler from gathering the
//!   look-ups of several lanes into one vector instruction, which it otherwise does for CPUs with
//!   AVX2 or AVX-512, and which is 2 to 3 times slower. The fences affect only speed.
//! * **The order of the four look-ups**, which decides what the compiler copies before a shift, and
//!   with many lanes a rotation, which saves an instruction per lane-round and costs latency.

use std::sync::atomic::{Ordering, compiler_fence};

use super::blowfish::{State, Words};

/// Up to this many lanes, latency matters more than the number of instructions.
const FEW_LANES: usize = 5;

/// Runs `rounds` loop rounds (expand the password, expand the salt) in each of `N` lanes.
///
/// `expand` is [`expand`] or the same in assembly.
pub(super) fn run<const N: usize>(
    states: &mut [State; N],
    words: &[Words; N],
    rounds: u32,
    expand: impl Fn(&mut [State; N]),
) {
    for _ in 0..rounds {
        for (state, words) in states.iter_mut().zip(words) {
            state.mix_in(&words.key);
            fence();
        }
        expand(states);
        for (state, words) in states.iter_mut().zip(words) {
            let [a, b, c, d] = words.salt;
            state.mix_in(&[a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d, a, b]);
            fence();
        }
        expand(states);
    }
}

/// [`State::expand`] for several states. Not inlined, because key and salt share the code.
#[inline(never)]
#[expect(clippy::indexing_slicing, reason = "pairs of 18 and of 256 words, counted by constants")]
pub(super) fn expand<const N: usize>(states: &mut [State; N]) {
    if let [state] = states.as_mut_slice() {
        // with one lane both halves fit in the registers
        return state.expand();
    }
    let mut halves = [0; N];
    for (half, state) in halves.iter_mut().zip(&mut *states) {
        *half = begin_block::<N>(state, 0, 0);
    }
    for pair in 0..9 {
        encrypt(states, &mut halves, |state, left, right| {
            state.p[2 * pair] = left;
            state.p[2 * pair + 1] = right;
        });
    }
    for sbox in 0..4 {
        for pair in 0..128 {
            encrypt(states, &mut halves, |state, left, right| {
                state.boxes[sbox][2 * pair] = left;
                state.boxes[sbox][2 * pair + 1] = right;
            });
        }
    }
    for state in states {
        state.parked = [0; 2];
    }
}

/// Encrypts a block in each lane, passes it to `put`, and starts the next.
#[inline(always)]
fn encrypt<const N: usize>(
    states: &mut [State; N],
    halves: &mut [u32; N],
    put: impl Fn(&mut State, u32, u32),
) {
    // written out, so that P and the parked half are at constant offsets
    macro_rules! rounds {
        ($($round:literal)*) => { $(
            for (half, state) in halves.iter_mut().zip(&mut *states) {
                *half = if N <= FEW_LANES {
                    // P is added to the waiting half, where there is time for it
                    state.parked[$round % 2] = *half ^ state.p[$round + 2];
                    fence();
                    scramble::<N>(&state.boxes, *half) ^ state.parked[1 - $round % 2]
                } else {
                    state.parked[$round % 2] = *half;
                    fence();
                    scramble::<N>(&state.boxes, *half)
                        ^ state.parked[1 - $round % 2]
                        ^ state.p[$round + 1]
                };
                fence();
            }
        )* };
    }
    rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    // the last round of a lane and the start of its next block have no fence between lanes
    for (half, state) in halves.iter_mut().zip(&mut *states) {
        let left = *half ^ state.p[17];
        let mut right = scramble::<N>(&state.boxes, *half) ^ state.parked[0];
        if N > FEW_LANES {
            right ^= state.p[16];
        }
        put(state, left, right);
        fence();
        *half = begin_block::<N>(state, left, right);
        fence();
    }
}

/// Parks one half of a block and returns the other, ready for the first round.
#[inline(always)]
fn begin_block<const N: usize>(state: &mut State, left: u32, right: u32) -> u32 {
    let [first, second, ..] = state.p;
    state.parked[1] = if N <= FEW_LANES { right ^ second } else { right };
    left ^ first
}

/// Blowfish's F. The order of the sum changes the machine code but not the result.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a byte indexes 256 words")]
fn scramble<const N: usize>(boxes: &[[u32; 256]; 4], half: u32) -> u32 {
    let byte = |shift: u32| usize::from((half >> shift).to_le_bytes()[0]);
    if N <= FEW_LANES {
        let b = boxes[1][byte(16)];
        let c = boxes[2][byte(8)];
        let a = boxes[0][byte(24)];
        let d = boxes[3][byte(0)];
        (a.wrapping_add(b) ^ c).wrapping_add(d)
    } else {
        // rotated, so that the upper bytes come from byte registers as well
        let [b, a, _, c] = half.rotate_right(16).to_le_bytes().map(usize::from);
        (boxes[0][a].wrapping_add(boxes[1][b]) ^ boxes[2][c]).wrapping_add(boxes[3][byte(0)])
    }
}

/// Keeps the compiler from moving work across lanes. Costs nothing at run time.
#[inline(always)]
fn fence() {
    compiler_fence(Ordering::SeqCst);
}
