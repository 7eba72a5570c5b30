//! Sources of settings: flags, then the environment, then `.env`.

use super::{BAD_SETTING, Failure};
use crate::config::{Config, SETTINGS, Setting};
use crate::telemetry::log::Filter;
use clap::ArgMatches;
use clap::parser::ValueSource;
use std::env;

/// Other variables that give a setting, from hosting platforms and standards.
///
/// They count, first to last, where the setting itself is unset or empty.
const ALIASES: &[(&str, &[&str])] = &[
    ("STAUNCH_DATABASE_URL", &["DATABASE_URL"]),
    // Defined by OpenTelemetry. The second holds a path, which the exporter reads itself.
    (
        "STAUNCH_OTLP_ENDPOINT",
        &["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"],
    ),
];
/// The setting that can be changed while the server runs.
const LOG_SETTING: &str = "STAUNCH_LOG";
const ENV_FILE: &str = ".env";

/// The settings as given, and the source of each.
pub(super) struct Source<'a> {
    matches: &'a ArgMatches,
    /// The lines of `.env`. Environment variables override them.
    file: Vec<(String, String)>,
}

impl<'a> Source<'a> {
    pub(super) fn new(matches: &'a ArgMatches) -> Result<Self, Failure> {
        let file = read_file().map_err(|message| Failure { code: BAD_SETTING, message })?;
        Ok(Self { matches, file })
    }

    /// Returns the log filter to apply at a reload: STAUNCH_LOG of `.env`, else the filter of the start.
    ///
    /// Here `.env` overrides flags and environment, because only the file can change while the server runs.
    ///
    /// # Errors
    /// A message that says what is wrong with the file or its line.
    pub(super) fn log_filter(&self, at_start: &Filter) -> Result<Filter, String> {
        let line = read_file()?.into_iter().find(|(name, _)| name == LOG_SETTING);
        line.map_or_else(
            || Ok(at_start.clone()),
            |(name, text)| text.parse().map_err(|message| format!("{name}: {message}")),
        )
    }

    /// Returns a setting's text and its source, or `None` for the default.
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

    /// Returns the text and source of one variable, without its aliases.
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

    /// Reads and checks all settings.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        Config::read(|setting| self.given(setting).map(|(text, _)| text)).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Failure {
                code: BAD_SETTING,
                message: format!("bad settings\n  {}", lines.join("\n  ")),
            }
        })
    }

    /// Returns STAUNCH_ variables that are not settings: misspelt, or from another version.
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

/// Reads the lines of `.env`. A missing file has none.
///
/// Replaces the library's parse error, because it repeats the line, which may hold a password.
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
