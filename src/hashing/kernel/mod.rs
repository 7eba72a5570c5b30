//! The bcrypt kernel: up to eight hashes stepped together by one thread, in safe Rust.
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
//! interleave  the long loop, N lanes per round       <- almost all of the time
//! blowfish    one state: prologue, epilogue, the loop for a single lane
//! tables      pi
//! ```
//!
//! The kernel does not parse or write `$2b$` strings, and is not asynchronous.
//!
//! # Measurements
//!
//! AMD EPYC (Zen 4, 3.7 GHz, 32 KiB L1d), rustc 1.95.0, opt-level 3, fat LTO, one codegen unit, one
//! thread, cost 10 with prologue and epilogue. The bcrypt crate 0.19.3 took 57.9 ms in the same run
//! (its best build here: 56.3 ms, 17.8 hashes/s; 54.5 ms with `target-cpu=native`).
//!
//! | lanes | ms per batch | relative to one lane | hashes/s | relative to the crate | with `target-cpu=native`: hashes/s |
//! |---|---|---|---|---|---|
//! | 1 | 53.4 | 1.00 | 18.7 | 1.09 | 20.0 |
//! | 2 | 57.1 | 1.07 | 35.0 | 2.03 | 37.5 |
//! | 3 | 57.1 | 1.07 | 52.6 | 3.05 | 55.2 |
//! | 4 | 62.3 | 1.17 | 64.2 | 3.72 | 65.9 |
//! | 5 | 73.5 | 1.38 | 68.0 | 3.94 | 72.1 |
//! | 6 | 83.5 | 1.56 | 71.9 | 4.16 | 73.3 |
//! | 7 | 97.8 | 1.83 | 71.6 | 4.15 | 73.0 |
//! | 8 | 115 | 2.16 | 69.5 | 4.03 | 71.0 |
//!
//! Two lanes vary between runs of the program, from 55.2 to 60.9 ms; the others vary by 1 % or
//! less. Thin LTO gives the same figures. `cargo bench --bench hashing` prints this table.
//!
//! [`Batch::insert`] takes 27 us (the prologue) and [`Batch::retire`] 4 us (the epilogue, three
//! blocks together). Both run a single lane: 0.2 % of a hash at cost 10, 14 % at cost 4.
//! Interleaving the prologue would save two thirds of that, which no cost in use would notice.
//!
//! # Limits of the hardware
//!
//! A lane-round (one Blowfish round of one lane) splits a word (5 operations), looks up and
//! combines (4 loads, 3 operations), and adds P and the other half (2 loads, 2 operations). That
//! makes 10 register operations and 6 loads, plus the copies that two-operand instructions need.
//!
//! * **Register operations** are the limit on Zen 4. It has four units, and in this code a copy
//!   between registers occupies one too. 11 or 12 operations take 2.75 to 3.0 cycles.
//! * **Load ports**: three per cycle, of which random addresses get 2.2 (hand-made variants with 6,
//!   7 and 10 loads per lane-round all ran at that rate). 6 loads take 2.75 cycles.
//! * **Issue width** does not matter: a `nop` per lane-round, or 6 bytes of prefixes, cost nothing.
//! * **Latency**: about 11.6 cycles per round, so 4 lanes hide it. More lanes hide what the
//!   out-of-order window does not reach.
//! * **L1d**: 66 lines per lane, so 7 lanes fill 29 KiB. Beyond that the rate falls slowly (by 3 %
//!   with 8 lanes, 7 % with 10), and steeply when the halves do not fit the registers either (33 %
//!   with 11, 44 % with 12).
//!
//! 6 and 7 lanes take 3.03 cycles. The best hand-written assembly, made for comparison and without
//! the stores between blocks, takes 2.85 with 6 lanes and 2.75 with 7 (4.25 and 4.4 times the
//! crate). A core that needs no unit for copies or has five units (Intel since Golden Cove, with 48
//! KiB of L1d) should reach about 2.5 cycles and have space for 10 lanes. That is not measured.
//!
//! # Variants tried
//!
//! Hashes/s relative to the bcrypt crate (3.29 ns per round, 17.8 hashes/s), for the loop alone.
//! All are from one run, the least of 250 short samples, except the cell for two rounds and 7
//! lanes: other load disturbed it, so it is from another run. The last column is 6 lanes with `-C
//! target-cpu=native` relative to the crate built the same way (18.9 hashes/s).
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
//! A single lane keeps both halves in registers (the fifth variant). Its machine code has 13.4
//! instructions per lane-round; 2 to 4 lanes have 14.3, 5 have 15.1, 6 to 8 have 14.0 to 14.3. The
//! rounds have no bounds check, no call and no vector instruction, also when built for x86-64-v3,
//! haswell, skylake-avx512, sapphirerapids, znver4 and znver5. Nothing is spilled except with 8
//! lanes (11 accesses to the stack in 128 lane-rounds).
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
