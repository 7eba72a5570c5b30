//! The binary: passes the arguments to the library and returns its exit code.

use std::alloc::System;
use std::process::ExitCode;
use zeroizing_alloc::ZeroAlloc;

/// Overwrites memory as it is freed.
///
/// staunch's types clear their secrets themselves. hyper's read buffers and serde's scratch space do
/// not, and would keep passwords in freed memory until it is reused.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    staunch::cli::main(std::env::args_os())
}
