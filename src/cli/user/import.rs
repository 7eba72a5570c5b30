//! `staunch user import`: imports accounts of other software, with their password hashes.

use crate::app::IfAbsent;
use crate::auth::{ImportCount, ImportError, RejectedLine, import_users};
use crate::cli::database_context::{interrupted, open_database, settings};
use crate::cli::{
    BAD_SETTING, CANNOT_CREATE, FAILED, Failure, NO_INPUT, REJECTED, UNAVAILABLE, runtime, tell,
};
use crate::config::Config;
use crate::lifecycle;
use crate::store::{Importer, StoreError};
use crate::telemetry::with_causes;
use clap::{Arg, ArgMatches, Command, value_parser};
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::io::BufReader;

/// Size of the read buffer. Unit: bytes.
const READ_BYTES: usize = 256 * 1024;

const ABOUT_IMPORT: &str = "Import accounts with their password hashes from JSON lines or CSV";

const HELP_IMPORT: &str = "A line of FILE:\n
  {\"email\": \"ada@example.com\", \"username\": \"ada\", \"password_hash\": \"$2b$12$...\"}\n
A line may also have \"is_active\" (true or false) and \"created_at\" (RFC 3339). FILE may also be \
CSV, if its first line names the columns: email,username,password_hash and, if needed, the others.\n
Lines that cannot be imported are listed in FILE.rejected with line number and reason; the others \
are imported. The server may be running, on the embedded database too. After an interruption, import \
the same FILE again: the accounts that were imported before are reported as taken.\n
Exit codes: 0 all lines were imported, 65 some were rejected, 66 FILE cannot be read, 75 stopped \
by a signal.";

/// The `import` subcommand, without the settings.
pub(super) fn command() -> Command {
    let path = |name: &'static str| Arg::new(name).value_parser(value_parser!(PathBuf));
    Command::new("import")
        .about(ABOUT_IMPORT)
        .after_help(HELP_IMPORT)
        .arg(path("FILE").required(true).help("File to read; - is standard input"))
        .arg(
            path("PATH")
                .long("rejected")
                .help("File for the rejected lines [default: FILE.rejected]"),
        )
}

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let (config, _guard) = settings(matches)?;
    let file: &PathBuf = matches.get_one("FILE").ok_or_else(|| bad_usage("FILE is missing"))?;
    let input = open_input(file)?;
    let rejected_path = matches.get_one("PATH").cloned().unwrap_or_else(|| default_report(file));
    let mut report = Report::create(rejected_path, &input)?;

    let runtime = runtime()?;
    let result = runtime.block_on(import_all(&config, input, &mut report));
    // Do not wait for a blocked read of standard input.
    runtime.shutdown_background();
    let ImportCount { imported, rejected } = result?;
    let see =
        if rejected == 0 { String::new() } else { format!(" (see {})", report.path.display()) };
    tell(&[format!("imported {imported} accounts, {rejected} rejected{see}")]);
    Ok(if rejected == 0 { ExitCode::SUCCESS } else { ExitCode::from(REJECTED) })
}

async fn import_all(
    config: &Config,
    input: File,
    report: &mut Report,
) -> Result<ImportCount, Failure> {
    let mut stop = std::pin::pin!(lifecycle::termination());
    let database = tokio::select! {
        opened = open_database(config, IfAbsent::Create) => opened?,
        signal = &mut stop => return Err(interrupted(signal)),
    };
    let import = async {
        let opened = Importer::open(&database.connect).await;
        let mut importer =
            opened.map_err(|error| Failure { code: UNAVAILABLE, message: with_causes(&error) })?;
        let input = BufReader::with_capacity(READ_BYTES, tokio::fs::File::from_std(input));
        let cost = config.settings.bcrypt_cost.0;
        let imported =
            import_users(input, &mut importer, cost, |count, lines| report.write(count, lines))
                .await;
        importer.close().await;
        imported.map_err(|error| ended_early(&error))
    };
    let result = tokio::select! {
        result = import => result,
        signal = stop => Err(interrupted(signal)),
    };
    report.end_progress();
    database.close().await;
    result.map_err(|failure| Failure {
        message: format!(
            "{}\n  At least {} accounts were imported; import the same file again for the rest.",
            failure.message, report.count.imported
        ),
        ..failure
    })
}

/// Opens the file, or standard input for `-`.
fn open_input(path: &Path) -> Result<File, Failure> {
    let opened = if path == Path::new("-") {
        io::stdin().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::open(path)
    };
    let checked = opened.and_then(|file| {
        if file.metadata()?.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(file) }
    });
    checked.map_err(|error| Failure {
        code: NO_INPUT,
        message: format!("cannot read {}: {error}", path.display()),
    })
}

/// Default report path: `FILE.rejected`, or `stdin.rejected` in the current folder.
fn default_report(input: &Path) -> PathBuf {
    let name = if input == Path::new("-") { Path::new("stdin") } else { input };
    let mut name = name.as_os_str().to_owned();
    name.push(".rejected");
    name.into()
}

/// The report of rejected lines, and the progress line on a terminal.
struct Report {
    path: PathBuf,
    file: BufWriter<File>,
    /// Lines imported and rejected so far.
    count: ImportCount,
    shows_progress: bool,
}

/// A line of the report.
#[derive(Serialize)]
struct ReportLine<'a> {
    line: u64,
    error: &'a str,
}

impl Report {
    /// Creates the report, or empties that of an earlier run.
    ///
    /// This happens before the first import, so that no rejected line is lost.
    fn create(path: PathBuf, input: &File) -> Result<Self, Failure> {
        let cannot = |error: io::Error| Failure {
            code: CANNOT_CREATE,
            message: format!("cannot write {}: {error}", path.display()),
        };
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(cannot)?;
        let (found, read) = (file.metadata().map_err(cannot)?, input.metadata().map_err(cannot)?);
        if found.is_file() {
            if (found.dev(), found.ino()) == (read.dev(), read.ino()) {
                return Err(bad_usage("--rejected names the file that is imported"));
            }
            file.set_len(0).map_err(cannot)?;
        }
        let shows_progress = io::stderr().is_terminal();
        let file = BufWriter::new(file);
        Ok(Self { path, file, count: ImportCount::default(), shows_progress })
    }

    fn write(&mut self, count: ImportCount, rejected: &[RejectedLine]) -> io::Result<()> {
        self.count = count;
        for RejectedLine { line, error } in rejected {
            serde_json::to_writer(&mut self.file, &ReportLine { line: *line, error })?;
            self.file.write_all(b"\n")?;
        }
        self.file.flush()?;
        if self.shows_progress {
            eprint!("\r{} imported, {} rejected", count.imported, count.rejected);
        }
        Ok(())
    }

    fn end_progress(&self) {
        if self.shows_progress {
            eprintln!();
        }
    }
}

fn bad_usage(message: &str) -> Failure {
    Failure { code: BAD_SETTING, message: message.to_owned() }
}

fn ended_early(error: &ImportError) -> Failure {
    let code = match error {
        ImportError::Read(_) => NO_INPUT,
        ImportError::Store { source: StoreError::Unavailable { .. }, .. } => UNAVAILABLE,
        ImportError::Report(_) | ImportError::Store { .. } => FAILED,
    };
    Failure { code, message: with_causes(error) }
}
