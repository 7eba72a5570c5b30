//! The long loop, run for `N` lanes at once: one round of every lane, then the next round.
//!
//! The source below is shaped by the machine code it becomes; [the layer's page](super) has the
//! figures. Three things do the work:
//!
//! * **One half of each block stays in a register, the other is parked in the lane's state.** Both
//!   halves of 5 or more lanes do not fit 15 registers, and where the compiler must choose what to
//!   spill it chooses badly. Parking a half right before it is taken apart also lets the code take
//!   it apart where it is, without a copy.
//! * **A fence between the turns.** [`compiler_fence`] makes no instruction, but keeps the
//!   compiler from mixing the turns of different lanes (the processor does that better, and the
//!   mixing costs registers) and from gathering several lanes' look-ups into one vector
//!   instruction, which it else does for CPUs with AVX2 or AVX-512 and which is 2 to 3 times
//!   slower. Nothing depends on the fences but speed.
//! * **The order of the four look-ups**, which says what the compiler copies before it shifts.

use std::sync::atomic::{Ordering, compiler_fence};

use super::blowfish::{State, Words};

/// Lanes up to which a turn's latency counts for more than its instructions.
const FEW_LANES: usize = 5;

/// Runs `rounds` loop rounds (expand the password, expand the salt) in each of `N` lanes.
pub(super) fn run<const N: usize>(states: &mut [State; N], words: &[Words; N], rounds: u32) {
    for _ in 0..rounds {
        for (state, words) in states.iter_mut().zip(words) {
            state.mix_in(&words.key);
            turn();
        }
        expand(states);
        for (state, words) in states.iter_mut().zip(words) {
            let [a, b, c, d] = words.salt;
            state.mix_in(&[a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d, a, b]);
            turn();
        }
        expand(states);
    }
}

/// [`State::expand`] for several states; not inlined, as it is the same code for key and salt.
#[inline(never)]
#[expect(clippy::indexing_slicing, reason = "pairs of 18 and of 256 words, counted by constants")]
fn expand<const N: usize>(states: &mut [State; N]) {
    if let [state] = states.as_mut_slice() {
        // with one lane both halves fit the registers
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

/// Encrypts one block in each lane, hands it to `put`, and begins the next one with it.
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
                    // P goes into the half that waits, where there is time for it
                    state.parked[$round % 2] = *half ^ state.p[$round + 2];
                    turn();
                    scramble::<N>(&state.boxes, *half) ^ state.parked[1 - $round % 2]
                } else {
                    state.parked[$round % 2] = *half;
                    turn();
                    scramble::<N>(&state.boxes, *half)
                        ^ state.parked[1 - $round % 2]
                        ^ state.p[$round + 1]
                };
                turn();
            }
        )* };
    }
    rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    // the last round of a lane and the beginning of its next block are one turn
    for (half, state) in halves.iter_mut().zip(&mut *states) {
        let left = *half ^ state.p[17];
        let mut right = scramble::<N>(&state.boxes, *half) ^ state.parked[0];
        if N > FEW_LANES {
            right ^= state.p[16];
        }
        put(state, left, right);
        turn();
        *half = begin_block::<N>(state, left, right);
        turn();
    }
}

/// Parks one half of a block and returns the other, ready for the first round.
#[inline(always)]
fn begin_block<const N: usize>(state: &mut State, left: u32, right: u32) -> u32 {
    let [first, second, ..] = state.p;
    state.parked[1] = if N <= FEW_LANES { right ^ second } else { right };
    left ^ first
}

/// Blowfish's F. The sum is the same in any order; the machine code is not.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "an octet indexes 256 words")]
fn scramble<const N: usize>(boxes: &[[u32; 256]; 4], half: u32) -> u32 {
    let octet = |shift: u32| usize::from((half >> shift).to_le_bytes()[0]);
    if N <= FEW_LANES {
        let b = boxes[1][octet(16)];
        let c = boxes[2][octet(8)];
        let a = boxes[0][octet(24)];
        let d = boxes[3][octet(0)];
        (a.wrapping_add(b) ^ c).wrapping_add(d)
    } else {
        let c = boxes[2][octet(8)];
        let a = boxes[0][octet(24)];
        let b = boxes[1][octet(16)];
        let d = boxes[3][octet(0)];
        (a.wrapping_add(b) ^ c).wrapping_add(d)
    }
}

/// Ends a turn for the compiler; costs nothing at run time.
#[inline(always)]
fn turn() {
    compiler_fence(Ordering::SeqCst);
}
