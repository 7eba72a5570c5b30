//! The binary: hands the command line to the library and turns its answer into an exit code.

use std::alloc::System;
use std::process::ExitCode;
use zeroizing_alloc::ZeroAlloc;

/// Overwrites memory as it is freed. What is ours clears its secrets itself; hyper's read buffers and
/// serde's scratch space do not, and would keep passwords for as long as nobody reuses the place.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    staunch::cli::main(std::env::args_os())
}
