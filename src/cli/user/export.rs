//! `staunch user export`: every account with its hash, as `import` takes it.

use crate::app::IfAbsent;
use crate::auth::export_users;
use crate::cli::audit::read_failed;
use crate::cli::beside::{on_database, settings};
use crate::cli::{CANNOT_CREATE, FAILED, Failure};
use clap::{Arg, ArgMatches, Command, value_parser};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const HELP: &str = "\
FILE must not exist yet. It is made with mode 0600, because it holds every password hash. It \
lists all accounts at one moment, and `staunch user import` reads it. If the export fails, FILE \
is not complete.";

pub(super) fn command() -> Command {
    let file = Arg::new("FILE")
        .value_parser(value_parser!(PathBuf))
        .required(true)
        .help("Where to; - is standard output");
    Command::new("export")
        .about("Write all accounts with their hashes, one JSON object a line")
        .after_help(HELP)
        .arg(file)
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let (config, _guard) = settings(matches)?;
    let Some(path) = matches.get_one::<PathBuf>("FILE") else { return Ok(()) };
    let count = on_database(&config, IfAbsent::Fail, async |admin| {
        // Made when there is a database: a try that found none leaves no empty file behind.
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
    // Beside the accounts, should they go to standard output.
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

    /// What is on the disk when this returns stays there.
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
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(octets),
            Self::Standard(out) => out.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Standard(out) => out.flush(),
        }
    }
}
