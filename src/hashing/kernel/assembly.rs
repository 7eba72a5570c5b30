//! The long loop in x86-64 assembly, for CPUs with BMI1 and BMI2.
//!
//! [`interleave`] is the same loop in Rust. It takes 13.3 to 15.2 instructions per lane-round, and
//! this one 10.4 to 10.7 with up to five lanes. That is close to the least that x86-64 allows: four
//! to take a word apart, four look-ups, one for P and one for the other half.
//!
//! * **One instruction per byte.** `shrx` takes the top byte, `movzx` the lowest, and `bextr` or
//!   `pext` the two in the middle. `bextr` has a latency of one cycle on AMD and is two operations
//!   on Intel; `pext` is one operation on Intel, and very slow on AMD before Zen 3.
//! * **One register less.** Five lanes need 10 registers for their halves and two for temporary
//!   values, which leaves three: for the address of the states and for two operands of `bextr`.
//!   `shrx` reads its count from the low five bits of a register. The address is a multiple of 64,
//!   so the register holds the address plus 24 and is the count as well.
//! * **More than five lanes** keep one half of some lanes in `State::parked`, for 12 instructions.
//!
//! This is the only file with `unsafe` code. The oracle tests compare every lane count with the
//! bcrypt crate.
#![allow(unsafe_code, reason = "the only file with assembly; see the comments at each use")]

use std::arch::{is_x86_feature_detected, naked_asm, x86_64::__cpuid};
use std::mem::offset_of;

use super::blowfish::State;
use super::interleave;

/// The instruction for the bytes in the middle of a word. A value proves that the CPU has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Assembly(ByteExtract);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByteExtract {
    Bextr,
    Pext,
}

impl Assembly {
    /// What this CPU can run, the faster one first. Empty if it can run neither.
    pub(super) fn available() -> &'static [Self] {
        const BEXTR: Assembly = Assembly(ByteExtract::Bextr);
        const PEXT: Assembly = Assembly(ByteExtract::Pext);
        if !is_x86_feature_detected!("bmi1") || !is_x86_feature_detected!("bmi2") {
            return &[];
        }
        let vendor = __cpuid(0);
        // pext has a latency of three cycles everywhere, and is slow on AMD before Zen 3
        if [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened()
            == b"GenuineIntel"
        {
            &[PEXT, BEXTR]
        } else {
            &[BEXTR, PEXT]
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self.0 {
            ByteExtract::Bextr => "assembly (bextr)",
            ByteExtract::Pext => "assembly (pext)",
        }
    }

    /// [`State::expand`] for up to eight states.
    pub(super) fn expand<const N: usize>(self, states: &mut [State; N]) {
        let chain = match self.0 {
            ByteExtract::Bextr => bextr::chain(N),
            ByteExtract::Pext => pext::chain(N),
        };
        let Some(chain) = chain else { return interleave::expand(states) };
        for state in &mut *states {
            state.parked = [0; 2];
        }
        let base: *mut State = states.as_mut_ptr();
        // SAFETY: `chain` is the code for `N` lanes, and `self` proves that the CPU has
        // its instructions. All addresses are inside `states`, which is borrowed for the calls: P,
        // the parked words, the words between the two pointers in each lane, and box entries
        // indexed by a byte.
        unsafe {
            let boxes = base.byte_add(offset_of!(State, boxes)).cast::<u32>();
            let p = base.byte_add(offset_of!(State, p)).cast::<u32>();
            chain(base, p, p.add(18));
            chain(base, boxes, boxes.add(4 * 256));
        }
        for state in states {
            state.parked = [0; 2];
        }
    }
}

/// Replaces the words from `word` to `end` of the first lane, and the same words of the others.
///
/// Each pair is replaced by the encryption of the pair before it. `parked` holds that pair, before
/// and after. The number of lanes is that of the function.
type Chain = unsafe extern "sysv64" fn(base: *mut State, word: *mut u32, end: *mut u32);

/// What the address register exceeds the address by, so that it is a shift count of 24.
const BIAS: usize = 24;
const _: () = assert!(align_of::<State>().is_multiple_of(32), "shift counts have five bits");

/// The names of a register's lower parts.
#[rustfmt::skip]
macro_rules! part {
    (32 rbx) => { "ebx" }; (32 rbp) => { "ebp" }; (32 $r:ident) => { concat!(stringify!($r), "d") };
    (8 rbx) => { "bl" }; (8 rbp) => { "bpl" }; (8 $r:ident) => { concat!(stringify!($r), "b") };
}

/// A P word of a lane in memory.
macro_rules! p {
    ($lane:literal $index:literal) => {
        concat!("[rdi + {stride}*", $lane, " + {p} + 4*", $index, "]")
    };
}

/// One of the two parked words of a lane in memory.
macro_rules! parked {
    ($lane:literal $index:literal) => {
        concat!("[rdi + {stride}*", $lane, " + {parked} + 4*", $index, "]")
    };
}

/// eax = F of the word in a register. Uses ecx.
#[rustfmt::skip]
macro_rules! scramble {
    ($extract:ident $lane:literal $x:ident) => { concat!(
        "shrx eax, ", part!(32 $x), ", edi\n",
        stringify!($extract), " ecx, ", part!(32 $x), ", edx\n",
        "mov eax, [rdi + 4*rax + {stride}*", $lane, " + {boxes}]\n",
        "add eax, [rdi + 4*rcx + {stride}*", $lane, " + {boxes} + 1024]\n",
        stringify!($extract), " ecx, ", part!(32 $x), ", esi\n",
        "xor eax, [rdi + 4*rcx + {stride}*", $lane, " + {boxes} + 2048]\n",
        "movzx ecx, ", part!(8 $x), "\n",
        "add eax, [rdi + 4*rcx + {stride}*", $lane, " + {boxes} + 3072]\n",
    ) };
}

/// One round of one lane. A lane has a register for each half or, if its other half is parked, one.
#[rustfmt::skip]
macro_rules! round {
    ([$extract:ident even $p:literal] ($lane:literal $l:ident $r:ident)) => { concat!(
        scramble!($extract $lane $l),
        "xor ", part!(32 $r), ", ", p!($lane $p), "\n",
        "xor ", part!(32 $r), ", eax\n",
    ) };
    ([$extract:ident odd $p:literal] ($lane:literal $l:ident $r:ident)) => {
        round!([$extract even $p] ($lane $r $l))
    };
    ([$extract:ident even $p:literal] ($lane:literal $x:ident)) => {
        round!([$extract 0 1 $p] ($lane $x))
    };
    ([$extract:ident odd $p:literal] ($lane:literal $x:ident)) => {
        round!([$extract 1 0 $p] ($lane $x))
    };
    ([$extract:ident $this:literal $other:literal $p:literal] ($lane:literal $x:ident)) => { concat!(
        "mov ", parked!($lane $this), ", ", part!(32 $x), "\n",
        scramble!($extract $lane $x),
        "mov ", part!(32 $x), ", ", parked!($lane $other), "\n",
        "xor ", part!(32 $x), ", ", p!($lane $p), "\n",
        "xor ", part!(32 $x), ", eax\n",
    ) };
}

/// The last round, after which the halves change places.
#[rustfmt::skip]
macro_rules! last_round {
    ([$extract:ident] ($lane:literal $l:ident $r:ident)) => { concat!(
        scramble!($extract $lane $r),
        "xor ", part!(32 $l), ", ", p!($lane 16), "\n",
        "xor eax, ", part!(32 $l), "\n",
        "mov ", part!(32 $l), ", ", part!(32 $r), "\n",
        "xor ", part!(32 $l), ", ", p!($lane 17), "\n",
        "mov ", part!(32 $r), ", eax\n",
    ) };
    ([$extract:ident] ($lane:literal $x:ident)) => { concat!(
        scramble!($extract $lane $x),
        "xor eax, ", p!($lane 16), "\n",
        "xor eax, ", parked!($lane 0), "\n",
        "mov ", parked!($lane 1), ", eax\n",
        "xor ", part!(32 $x), ", ", p!($lane 17), "\n",
    ) };
}

/// Stores the encrypted block at rax, and starts the next block.
#[rustfmt::skip]
macro_rules! store {
    ([] ($lane:literal $l:ident $r:ident)) => { concat!(
        "mov [rax + {stride}*", $lane, "], ", part!(32 $l), "\n",
        "mov [rax + {stride}*", $lane, " + 4], ", part!(32 $r), "\n",
        "xor ", part!(32 $l), ", ", p!($lane 0), "\n",
    ) };
    ([] ($lane:literal $x:ident)) => { concat!(
        "mov [rax + {stride}*", $lane, "], ", part!(32 $x), "\n",
        "mov ecx, ", parked!($lane 1), "\n",
        "mov [rax + {stride}*", $lane, " + 4], ecx\n",
        "xor ", part!(32 $x), ", ", p!($lane 0), "\n",
    ) };
}

/// Loads the parked block into the registers and adds the first P word.
#[rustfmt::skip]
macro_rules! load {
    ([] ($lane:literal $l:ident $r:ident)) => { concat!(
        "mov ", part!(32 $r), ", ", parked!($lane 1), "\n",
        load!([] ($lane $l)),
    ) };
    ([] ($lane:literal $x:ident)) => { concat!(
        "mov ", part!(32 $x), ", ", parked!($lane 0), "\n",
        "xor ", part!(32 $x), ", ", p!($lane 0), "\n",
    ) };
}

/// Parks the last block, without the first P word.
#[rustfmt::skip]
macro_rules! park {
    ([] ($lane:literal $l:ident $r:ident)) => { concat!(
        "mov ", parked!($lane 1), ", ", part!(32 $r), "\n",
        park!([] ($lane $l)),
    ) };
    ([] ($lane:literal $x:ident)) => { concat!(
        "xor ", part!(32 $x), ", ", p!($lane 0), "\n",
        "mov ", parked!($lane 0), ", ", part!(32 $x), "\n",
    ) };
}

macro_rules! each_lane {
    ($piece:ident $arguments:tt $($lane:tt)*) => { concat!($( $piece!($arguments $lane), )*) };
}

/// A [`Chain`] for the given lanes. rdx and rsi hold the operands of the byte extraction.
#[rustfmt::skip]
macro_rules! chain {
    ($name:ident $extract:ident $b:literal $c:literal, $($lane:tt)*) => {
        #[unsafe(naked)]
        unsafe extern "sysv64" fn $name(base: *mut State, word: *mut u32, end: *mut u32) {
            naked_asm!(
                "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
                "push rdx", // [rsp + 8]: the end
                "push rsi", // [rsp]: the next word
                "add rdi, {bias}",
                concat!("mov edx, ", $b), // for the second byte
                concat!("mov esi, ", $c), // for the third
                each_lane!(load [] $($lane)*),
                ".p2align 6",
                "2:",
                each_lane!(round [$extract even 1] $($lane)*),
                each_lane!(round [$extract odd 2] $($lane)*),
                each_lane!(round [$extract even 3] $($lane)*),
                each_lane!(round [$extract odd 4] $($lane)*),
                each_lane!(round [$extract even 5] $($lane)*),
                each_lane!(round [$extract odd 6] $($lane)*),
                each_lane!(round [$extract even 7] $($lane)*),
                each_lane!(round [$extract odd 8] $($lane)*),
                each_lane!(round [$extract even 9] $($lane)*),
                each_lane!(round [$extract odd 10] $($lane)*),
                each_lane!(round [$extract even 11] $($lane)*),
                each_lane!(round [$extract odd 12] $($lane)*),
                each_lane!(round [$extract even 13] $($lane)*),
                each_lane!(round [$extract odd 14] $($lane)*),
                each_lane!(round [$extract even 15] $($lane)*),
                each_lane!(last_round [$extract] $($lane)*),
                "mov rax, [rsp]",
                each_lane!(store [] $($lane)*),
                "add rax, 8",
                "mov [rsp], rax",
                "cmp rax, [rsp + 8]",
                "jb 2b",
                each_lane!(park [] $($lane)*),
                "add rsp, 16",
                "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
                "ret",
                bias = const BIAS,
                stride = const size_of::<State>(),
                boxes = const offset_of!(State, boxes).cast_signed() - BIAS.cast_signed(),
                p = const offset_of!(State, p) - BIAS,
                parked = const offset_of!(State, parked) - BIAS,
            )
        }
    };
}

/// The functions of one extraction instruction and its operands for the two middle bytes.
#[rustfmt::skip]
macro_rules! chains {
    ($extract:ident $b:literal $c:literal) => {
        mod $extract {
            use super::*;

            /// `None` for no lane and for more than eight.
            pub(super) fn chain(lanes: usize) -> Option<Chain> {
                let chains: [Chain; 8] = [one, two, three, four, five, six, seven, eight];
                chains.get(lanes.checked_sub(1)?).copied()
            }

            chain!(one $extract $b $c, (0 r8 r9));
            chain!(two $extract $b $c, (0 r8 r9) (1 r10 r11));
            chain!(three $extract $b $c, (0 r8 r9) (1 r10 r11) (2 r12 r13));
            chain!(four $extract $b $c, (0 r8 r9) (1 r10 r11) (2 r12 r13) (3 r14 r15));
            chain!(five $extract $b $c, (0 r8 r9) (1 r10 r11) (2 r12 r13) (3 r14 r15) (4 rbx rbp));
            chain!(six $extract $b $c, (0 r8 r9) (1 r10 r11) (2 r12 r13) (3 r14 r15) (4 rbx) (5 rbp));
            chain!(seven $extract $b $c,
                (0 r8 r9) (1 r10 r11) (2 r12 r13) (3 r14) (4 r15) (5 rbx) (6 rbp));
            chain!(eight $extract $b $c,
                (0 r8 r9) (1 r10 r11) (2 r12) (3 r13) (4 r14) (5 r15) (6 rbx) (7 rbp));
        }
    };
}

// length and position
chains!(bextr 0x0810 0x0808);
// the bits to take
chains!(pext 0x00ff_0000 0x0000_ff00);
