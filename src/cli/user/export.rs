//! `staunch user export`: writes every account with its hash, in the format that `import` reads.

use crate::app::IfAbsent;
use crate::auth::export_users;
use crate::cli::audit::read_failed;
use crate::cli::database_context::{on_database, settings};
use crate::cli::{CANNOT_CREATE, FAILED, Failure};
use clap::{Arg, ArgMatches, Command, value_parser};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const HELP: &str = "\
FILE must not exist yet. It is created with mode 0600, because it holds every password hash. It \
is a snapshot of all accounts, and `staunch user import` reads it. If the export fails, FILE \
is incomplete.";

pub(super) fn command() -> Command {
    let file = Arg::new("FILE")
        .value_parser(value_parser!(PathBuf))
        .required(true)
        .help("File to write; - is standard output");
    Command::new("export")
        .about("Write all accounts with their hashes, one JSON object per line")
        .after_help(HELP)
        .arg(file)
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let (config, _guard) = settings(matches)?;
    let Some(path) = matches.get_one::<PathBuf>("FILE") else { return Ok(()) };
    let count = on_database(&config, IfAbsent::Fail, async |admin| {
        // Created after the database is opened, so that a failure to open it leaves no empty file.
        let mut output = Output::open(path).map_err(|error| Failure {
            code: CANNOT_CREATE,
            message: format!("cannot write {}: {error}", path.display()),
        })?;
        let exported = export_users(admin, &mut output).await;
        let count = exported.map_err(|error| read_failed(&error))?;
        output.finish().map_err(|error| Failure {
            code: FAILED,
            message: format!("cannot write {}: {error}", path.display()),
        })?;
        Ok(count)
    })?;
    // On standard error, because the accounts may go to standard output.
    eprintln!("exported {count} accounts");
    Ok(())
}

enum Output {
    File(BufWriter<File>),
    Standard(BufWriter<io::Stdout>),
}

impl Output {
    fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Standard(BufWriter::new(io::stdout())));
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self::File(BufWriter::new(file)))
    }

    /// Flushes the output, and syncs a file to disk.
    fn finish(self) -> io::Result<()> {
        match self {
            Self::File(file) => {
                file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
            }
            Self::Standard(mut out) => out.flush(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Standard(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Standard(out) => out.flush(),
        }
    }
}
