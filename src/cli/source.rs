//! Where settings come from: flags, then the environment, then `.env`.

use super::{BAD_SETTING, Failure};
use crate::config::{Config, SETTINGS, Setting};
use crate::telemetry::log::Filter;
use clap::ArgMatches;
use clap::parser::ValueSource;
use std::env;

/// Settings that also go by names which hosts and standards give them, in the order in which those
/// count where the setting itself is unset or empty.
const ALIASES: &[(&str, &[&str])] = &[
    ("STAUNCH_DATABASE_URL", &["DATABASE_URL"]),
    // OpenTelemetry's own; the second holds a path, which the exporter reads for itself.
    (
        "STAUNCH_OTLP_ENDPOINT",
        &["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"],
    ),
];
/// The setting that can be changed while the server runs.
const LOG_SETTING: &str = "STAUNCH_LOG";
const ENV_FILE: &str = ".env";

/// The settings in force, and for each where it came from.
pub(super) struct Source<'a> {
    matches: &'a ArgMatches,
    /// `.env`, in its own words; variables that are set win over it.
    file: Vec<(String, String)>,
}

impl<'a> Source<'a> {
    pub(super) fn new(matches: &'a ArgMatches) -> Result<Self, Failure> {
        let file = read_file().map_err(|message| Failure { code: BAD_SETTING, message })?;
        Ok(Self { matches, file })
    }

    /// Which lines are logged from now on: what `.env` says now, else what was said at the start.
    /// The file, though it comes last at the start, is what can be changed since.
    ///
    /// # Errors
    /// What is wrong with the file or its line.
    pub(super) fn log_filter(&self, at_start: &Filter) -> Result<Filter, String> {
        let line = read_file()?.into_iter().find(|(name, _)| name == LOG_SETTING);
        line.map_or_else(
            || Ok(at_start.clone()),
            |(name, text)| text.parse().map_err(|message| format!("{name}: {message}")),
        )
    }

    /// A setting's text and where it was given, unless it is the default.
    pub(super) fn given(&self, setting: &Setting) -> Option<(String, &'static str)> {
        let variable = setting.variable;
        let named = self.named(variable);
        if named.as_ref().is_some_and(|(text, _)| !text.is_empty()) {
            return named;
        }
        let aliases = ALIASES.iter().find(|(setting, _)| *setting == variable);
        let mut others = aliases.map_or(&[][..], |(_, aliases)| aliases).iter();
        let other = others.find_map(|alias| {
            let text = env::var(alias).ok().map(|text| (text, *alias));
            text.or_else(|| self.in_file(alias).map(|text| (text, ENV_FILE)))
        });
        other.or(named)
    }

    /// The text given under the setting's own name.
    fn named(&self, variable: &'static str) -> Option<(String, &'static str)> {
        if let Some(text) = self.matches.get_one::<String>(variable) {
            let flag = self.matches.value_source(variable) == Some(ValueSource::CommandLine);
            return Some((text.clone(), if flag { "flag" } else { "environment" }));
        }
        if let Some(text) = self.in_file(variable) {
            return Some((text, ENV_FILE));
        }
        None
    }

    /// Reads and checks all of them.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        Config::read(|setting| self.given(setting).map(|(text, _)| text)).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Failure {
                code: BAD_SETTING,
                message: format!("bad settings\n  {}", lines.join("\n  ")),
            }
        })
    }

    /// Variables that look like settings and are none: misspelt, or of another version.
    pub(super) fn unknown(&self) -> Vec<String> {
        let in_file = self.file.iter().map(|(name, _)| name.clone());
        let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok()).chain(in_file);
        let known = |name: &String| SETTINGS.iter().any(|setting| setting.variable == name);
        names.filter(|name| name.starts_with("STAUNCH_") && !known(name)).collect()
    }

    fn in_file(&self, name: &str) -> Option<String> {
        let (_, text) = self.file.iter().find(|(variable, _)| variable == name)?;
        Some(text.clone())
    }
}

/// The lines of `.env`; none if there is no such file. The library's own message repeats the line,
/// which may hold a password.
fn read_file() -> Result<Vec<(String, String)>, String> {
    let bad = |error: dotenvy::Error| {
        if let dotenvy::Error::Io(error) = error {
            return format!("{ENV_FILE}: {error}");
        }
        format!(
            "{ENV_FILE}: a line is not NAME=value; put values with blanks, quotes or '$' in single quotes"
        )
    };
    match dotenvy::from_path_iter(ENV_FILE) {
        Ok(lines) => lines.collect::<Result<_, _>>().map_err(bad),
        Err(error) if error.not_found() => Ok(Vec::new()),
        Err(error) => Err(bad(error)),
    }
}
