//! Input of passwords and confirmations, from a terminal without echo or from a pipe.
//!
//! Passwords are never command-line arguments, because every user of the machine can read those.

use super::{BAD_SETTING, FAILED, Failure, INTERRUPTED, REJECTED};
use crate::secret::Secret;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use std::io::{self, BufRead, IsTerminal, Read, Stdin, Write};
use std::os::fd::AsFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt};
use zeroize::Zeroizing;

/// Longest line that is read, far above any password. Unit: bytes.
const LINE_BYTES_MAX: usize = 1_024;

/// Reads a new password: typed twice at a terminal, else the first line of standard input.
///
/// # Errors
/// When standard input is empty or is not UTF-8, or the two passwords differ.
pub(super) fn new_password() -> Result<Secret, Failure> {
    let input = io::stdin();
    if !input.is_terminal() {
        return text(first_line(&input).map_err(unreadable)?);
    }
    let first = text(typed(&input, "New password: ")?)?;
    let again = text(typed(&input, "Once more: ")?)?;
    if first.expose() == again.expose() {
        Ok(first)
    } else {
        Err(Failure { code: REJECTED, message: "the two passwords differ".into() })
    }
}

/// Asks a yes-or-no question at the terminal. The default is no.
///
/// # Errors
/// When standard input is not a terminal. Scripts pass a flag instead.
///
/// # Cancel safety
/// Dropping the future leaves a thread blocked on the answer. Shut down the runtime without waiting for it.
pub(super) async fn confirm(question: &str) -> Result<bool, Failure> {
    let input = io::stdin();
    if !input.is_terminal() {
        let message =
            "cannot ask for confirmation, because standard input is not a terminal: use --yes"
                .into();
        return Err(Failure { code: BAD_SETTING, message });
    }
    eprint!("{question} [y/N] ");
    let file = input.as_fd().try_clone_to_owned().map_err(unreadable)?;
    let file = tokio::fs::File::from_std(file.into());
    let mut answer = Vec::with_capacity(LINE_BYTES_MAX);
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut line = tokio::io::BufReader::new(file).take(limit);
    line.read_until(b'\n', &mut answer).await.map_err(unreadable)?;
    Ok(["y", "yes"].iter().any(|yes| answer.trim_ascii().eq_ignore_ascii_case(yes.as_bytes())))
}

fn text(bytes: Zeroizing<Vec<u8>>) -> Result<Secret, Failure> {
    let bad = |message: &str| Failure { code: REJECTED, message: message.to_owned() };
    if bytes.is_empty() {
        return Err(bad("password: standard input is empty"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| bad("password: is not UTF-8"))?;
    Ok(Secret::new(text.to_owned()))
}

/// Reads the first line, without its line ending.
fn first_line(input: &Stdin) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX + 1));
    let limit = u64::try_from(LINE_BYTES_MAX + 1).unwrap_or(u64::MAX);
    input.lock().take(limit).read_until(b'\n', &mut line)?;
    if line.len() > LINE_BYTES_MAX {
        return Err(io::Error::other("the line is too long"));
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    Ok(line)
}

/// Reads a line from the terminal with echo off.
fn typed(input: &Stdin, prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let quiet = Quiet::begin(input).map_err(|error| unreadable(error.into()))?;
    eprint!("{prompt}");
    io::stderr().flush().ok();
    let line = read_keys(input);
    drop(quiet);
    eprintln!();
    line.map_err(unreadable)?
        .ok_or_else(|| Failure { code: INTERRUPTED, message: "stopped at the prompt".into() })
}

/// Reads keys up to Enter. `None`: the user pressed ctrl-C, ctrl-D or ctrl-\\, or the terminal closed.
fn read_keys(input: &Stdin) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX));
    loop {
        let mut key = [0_u8];
        match rustix::io::read(input, &mut key) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match key {
            [b'\r' | b'\n'] => return Ok(Some(line)),
            // Ctrl-C, ctrl-D, ctrl-\.
            [0x03 | 0x04 | 0x1c] => return Ok(None),
            // Ctrl-U.
            [0x15] => line.clear(),
            // Backspace removes a character: its UTF-8 continuation bytes and its first byte.
            [0x08 | 0x7f] => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            [byte] if line.len() < LINE_BYTES_MAX => line.push(byte),
            [_] => return Err(io::Error::other("the line is too long")),
        }
    }
}

/// Guard that turns echo and signal keys off; dropping it restores the terminal.
///
/// Ctrl-C arrives as a key, because a signal would end the program without restoring the terminal.
struct Quiet<'a> {
    input: &'a Stdin,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn begin(input: &'a Stdin) -> rustix::io::Result<Self> {
        let before = tcgetattr(input)?;
        let mut modes = before.clone();
        modes.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        // A read returns after one key, without a timeout.
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(input, OptionalActions::Flush, &modes)?;
        Ok(Self { input, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        tcsetattr(self.input, OptionalActions::Flush, &self.before).ok();
    }
}

fn unreadable(error: io::Error) -> Failure {
    Failure { code: FAILED, message: format!("cannot read standard input: {error}") }
}
