//! The bcrypt kernel: up to twelve hashes stepped together by one thread.
//!
//! A Blowfish round is a chain of five dependent steps. It ends in table look-ups whose addresses
//! come from the round before. One bcrypt computation therefore leaves most of a core idle, and
//! several independent ones fill the gaps. A [`Batch`] owns the lanes. The caller inserts a
//! [`LaneJob`], steps the batch by slices of loop rounds (bcrypt at cost c has 2^c of them), and
//! takes finished digests out. Between two steps lanes may be added, removed or cancelled.
//!
//! ```text
//! batch       the busy lanes; packs them, so k busy lanes run the kernel for k
//! lane        input and output: PasswordKey, Cost, LaneJob, Digest
//! select      which code runs the long loop          <- almost all of the time
//! assembly    the loop for x86-64 with BMI1 and BMI2
//! interleave  the loop in Rust, N lanes per round: everywhere else, and as a reference
//! blowfish    one state: prologue, epilogue, the loop for a single lane
//! tables      pi
//! ```
//!
//! The kernel does not parse or write `$2b$` strings, and is not asynchronous.
//!
//! # Measurements
//!
//! AMD EPYC (Zen 3, 3.25 GHz, 32 KiB L1d), rustc 1.95.0, opt-level 3, fat LTO, one codegen unit, one
//! thread. A lane-round is one Blowfish round of one lane. Instructions are counted by `.ci/kernel`,
//! with the share of the work between blocks. Times are the minimum; the median was at most 1 %
//! higher. Hashes/s are those of the loop at cost 10.
//!
//! | lanes | portable: instructions | ns per lane-round | hashes/s | assembly: instructions | ns per lane-round | hashes/s |
//! |---|---|---|---|---|---|---|
//! | 1 | 13.44 | 3.555 | 16.5 | 10.69 | 3.043 | 19.3 |
//! | 2 | 14.34 | 1.998 | 29.3 | 10.53 | 1.592 | 36.8 |
//! | 3 | 14.31 | 1.266 | 46.3 | 10.48 | 1.121 | 52.3 |
//! | 4 | 14.30 | 1.046 | 56.0 | 10.45 | 0.911 | 64.3 |
//! | 5 | 15.21 | 0.984 | 59.5 | 10.44 | 0.813 | 72.1 |
//! | 6 | 13.29 | 0.918 | 63.8 | 11.05 | 0.808 | 72.5 |
//! | 7 | 13.29 | 0.902 | 64.9 | 11.49 | 0.805 | 72.7 |
//! | 8 | 13.30 | 0.920 | 63.7 | 11.82 | 0.853 | 68.7 |
//!
//! The core was free: minimum and median agree, and equal the minimum of other days, when a sibling
//! thread was busy. Next to a busy sibling a core limits a thread to about 2.3 instructions per
//! cycle, so there the counts matter more than these times.
//!
//! Cycles per lane-round that llvm-mca 19 predicts from the compiled loops, with every load in L1d:
//!
//! | lanes | znver3 and znver4: portable | assembly (bextr) | sapphirerapids: portable | assembly (pext) |
//! |---|---|---|---|---|
//! | 1 | 11.59 | 9.77 | 13.68 | 12.73 |
//! | 2 | 5.33 | 4.95 | 5.78 | 6.43 |
//! | 3 | 3.82 | 3.34 | 3.91 | 4.30 |
//! | 4 | 3.09 | 2.58 | 3.43 | 3.27 |
//! | 5 | 3.01 | 2.36 | 3.43 | 2.64 |
//! | 6 | 2.81 | 2.38 | 3.45 | 2.78 |
//! | 7 | 2.80 | 2.39 | 3.60 | 2.90 |
//! | 8 | 2.82 | 2.57 | 3.45 | 2.99 |
//!
//! More than eight lanes gain nothing in either model, however large L1d is: nine and ten lanes in
//! one loop of assembly took 0.914 and 0.945 ns here, because halves that find no register cost
//! instructions. They run in two halves instead. Calibration measures up to twelve where L1d has
//! 48 KiB or more. For neoverse-v2 the model predicts 2.60 cycles with 4 lanes of the portable
//! loop, and more with any other number.
//!
//! [`Batch::insert`] takes 27 us (the prologue) and [`Batch::retire`] 4 us (the epilogue, three
//! blocks together). Both run a single lane: 0.2 % of a hash at cost 10, 14 % at cost 4.
//! Interleaving the prologue would save two thirds of that, which no cost in use would notice.
//!
//! # Limits of the hardware
//!
//! A lane-round splits a word into four bytes (4 operations), looks up and combines (4 loads, 3
//! operations), and adds P and the other half (1 or 2 loads, 2 operations).
//!
//! * **Register operations** are the limit on Zen, which has four units: 9 operations take 2.25
//!   cycles. Two of the units shift; `shrx` and `bextr` need one of them.
//! * **Load ports**: three per cycle, of which random addresses get 2.2. 5 loads take 2.27 cycles.
//! * **Latency**: 9.9 cycles per round with one lane, so 4 or 5 lanes hide it.
//! * **L1d**: 66 lines per lane, so 7 lanes fill 29 KiB. Beyond that the rate falls slowly.
//!
//! 5 lanes of the assembly take 2.64 cycles.
//!
//! # Variants tried
//!
//! In assembly, all on the Zen 3 core above, ns per lane-round:
//!
//! * `rorx`, high-byte registers and `shr`, which need no `bextr`: 0.884 with 5 lanes (11.4
//!   instructions). With the states at the stack pointer, a sixth lane fits: 0.835.
//! * Halves in the four registers that have high-byte parts: 0.932 with 4 lanes, 0.880 with 5.
//! * Lanes entirely in memory, without a register: 1.015 with 8 lanes, though they too need only
//!   10.5 instructions.
//! * Two blocks written out, which saves two copies per block: no difference (0.841 both ways).
//! * 60 orders of the ten instructions with 5 lanes: from 0.817 (this one) to 0.885.
//!
//! In Rust, a rotation by 16 bits lets the compiler take three bytes from byte registers. With both
//! halves in registers it gives 12.3 to 13.5 instructions with up to 5 lanes (11.4 to 12.3 with
//! `target-cpu=x86-64-v3`), but with 3 to 5 lanes it ran 6 to 11 % slower than the order of look-ups
//! in use, because the shifts add latency. With 6 to 8 lanes it saves an instruction and 2 to 3 % of
//! the time. Words split into `u16` halves, one array of 1024 entries, and `to_le_bytes` without the
//! rotation compile to 13.4 to 15.6.
//!
//! Variants of the portable loop, on an AMD EPYC of the Zen 4 generation at 3.7 GHz. Hashes/s
//! relative to the bcrypt crate (3.29 ns per round, 17.8 hashes/s), for the loop alone. All are from
//! one run, the least of 250 short samples, except the cell for two rounds and 7 lanes: other load
//! disturbed it, so it is from another run. The last column is 6 lanes with `-C target-cpu=native`
//! relative to the crate built the same way (18.9 hashes/s).
//!
//! | variant | 1 | 2 | 4 | 5 | 6 | 7 | 8 | 6, native |
//! |---|---|---|---|---|---|---|---|---|
//! | sixteen rounds of a lane, then the next lane | 1.05 | 1.22 | 1.24 | 1.25 | 1.27 | 1.27 | 1.13 | 0.98 gathers |
//! | four rounds of a lane | 1.05 | 1.87 | 2.91 | 1.58 | 1.58 | 1.60 | 1.54 | 0.97 gathers |
//! | two rounds of a lane | 1.05 | 1.91 | 3.06 | 3.35 | 3.27 | 3.26 | 3.13 | 1.69 gathers |
//! | one round of every lane, then the next round | 1.04 | 1.89 | 2.88 | 3.24 | 3.42 | 3.48 | 3.22 | 1.68 gathers |
//! | the same, sixteen rounds written out | 1.04 | 1.97 | 3.17 | 3.44 | 3.60 | 3.54 | 3.55 | 1.57 gathers |
//! | the same, S-boxes as one array of 1024 | 1.04 | 1.97 | 3.17 | 3.44 | 3.60 | 3.54 | 3.54 | 3.73 |
//! | written out, a fence after each step | 1.05 | 1.94 | 3.13 | 3.48 | 3.72 | 3.66 | 3.64 | 3.83 |
//! | bytes read back from memory instead of shifted | 0.83 | 1.51 | 2.28 | 2.50 | 2.56 | 2.54 | 2.37 | 2.39 |
//! | fences, both halves in memory | 0.91 | 1.81 | 3.25 | 3.67 | 3.73 | 3.73 | 3.62 | 3.78 |
//! | fences, one half parked in the state | 0.95 | 1.85 | 3.38 | 3.70 | 3.76 | 3.71 | 3.65 | 3.81 |
//! | the same, copies made by `lea` | 0.92 | 1.68 | 2.92 | 3.52 | 3.80 | 3.56 | 3.44 | 3.48 |
//! | the same, upper bytes by a byte swap | 0.99 | 1.87 | 3.25 | 3.67 | 3.84 | 4.00 | 3.93 | 3.45 |
//! | the same, best of the 24 orders of the look-ups | 0.94 | 1.83 | 3.21 | 3.69 | 3.95 | 3.94 | 3.85 | 3.80 |
//! | **that, last round and next block in one step** (6 to 8 lanes) | 0.95 | 1.84 | 3.28 | 3.74 | 4.01 | 4.02 | 3.92 | 3.85 |
//! | **that, P added to the waiting half** (2 to 5 lanes) | 0.94 | 2.03 | 3.59 | 3.82 | 3.79 | 3.72 | 3.71 | 3.94 |
//!
//! A single lane keeps both halves in registers (the fifth variant). The rounds have no bounds
//! check, no call and no vector instruction, also when built for x86-64-v4 and znver4. Nothing is spilled except with 7
//! and 8 lanes (up to 6 accesses to the stack in 128 lane-rounds).
//!
//! # Secrets
//!
//! Control flow does not depend on the password. The addresses of the look-ups do, because bcrypt's
//! tables depend on the key. An attacker who can observe the cache lines of this core can learn
//! something about it. Key words and states are zeroed however a lane ends. Values that the
//! compiler leaves in registers and on the stack (single words of a block) remain until they are
//! overwritten.

#[cfg(target_arch = "x86_64")]
mod assembly;
mod batch;
mod blowfish;
mod interleave;
mod lane;
mod select;
mod tables;

#[cfg(test)]
mod oracle_tests;

pub use batch::{Batch, Full, LANES_MAX};
pub use lane::{Cost, Digest, LaneJob, PasswordKey, PasswordKeyError};
pub use select::Kernel;
