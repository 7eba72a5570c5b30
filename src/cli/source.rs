//! Where settings come from: flags, then the environment, then `.env`.

use super::{BAD_SETTING, Failure};
use crate::config::{Config, SETTINGS, Setting};
use clap::ArgMatches;
use clap::parser::ValueSource;
use std::env;

/// What many hosts call the database's URL.
const DATABASE_URL: &str = "DATABASE_URL";
/// What it stands in for, where that is unset or empty.
const DATABASE_SETTING: &str = "STAUNCH_DATABASE_URL";

/// The settings in force, and for each where it came from.
pub(super) struct Source<'a> {
    matches: &'a ArgMatches,
    /// `.env`, in its own words; variables that are set win over it.
    file: Vec<(String, String)>,
}

impl<'a> Source<'a> {
    pub(super) fn new(matches: &'a ArgMatches) -> Result<Self, Failure> {
        // The library's own message repeats the line, which may hold a password.
        let bad = |error: dotenvy::Error| {
            let message = if let dotenvy::Error::Io(error) = error {
                format!(".env: {error}")
            } else {
                ".env: a line is not NAME=value; put values with blanks, quotes or '$' in single quotes".to_owned()
            };
            Failure { code: BAD_SETTING, message }
        };
        let file = match dotenvy::from_path_iter(".env") {
            Ok(lines) => lines.collect::<Result<_, _>>().map_err(bad)?,
            Err(error) if error.not_found() => Vec::new(),
            Err(error) => return Err(bad(error)),
        };
        Ok(Self { matches, file })
    }

    /// A setting's text and where it was given, unless it is the default.
    pub(super) fn given(&self, setting: &Setting) -> Option<(String, &'static str)> {
        let variable = setting.variable;
        let named = self.named(variable);
        if variable == DATABASE_SETTING && named.as_ref().is_none_or(|(text, _)| text.is_empty()) {
            let text = env::var(DATABASE_URL).ok().map(|text| (text, DATABASE_URL));
            let text = text.or_else(|| self.in_file(DATABASE_URL).map(|text| (text, ".env")));
            return text.or(named);
        }
        named
    }

    /// The text given under the setting's own name.
    fn named(&self, variable: &'static str) -> Option<(String, &'static str)> {
        if let Some(text) = self.matches.get_one::<String>(variable) {
            let flag = self.matches.value_source(variable) == Some(ValueSource::CommandLine);
            return Some((text.clone(), if flag { "flag" } else { "environment" }));
        }
        if let Some(text) = self.in_file(variable) {
            return Some((text, ".env"));
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
