//! Options of the form `--name VALUE` or `--name`, and what stands beside them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Failure;

/// A command line that has not been understood yet.
pub struct Arguments(Vec<OsString>);

impl Arguments {
    pub fn new(arguments: impl Iterator<Item = OsString>) -> Arguments {
        Arguments(arguments.collect())
    }

    /// Takes the value of option `name` out, if it is given.
    pub fn value(&mut self, name: &str) -> Result<Option<OsString>, Failure> {
        let Some(at) = self.0.iter().position(|argument| argument == name) else {
            return Ok(None);
        };
        if at + 1 == self.0.len() {
            return Err(Failure::Usage(format!("{name} wants a value")));
        }
        self.0.remove(at);
        Ok(Some(self.0.remove(at)))
    }

    pub fn parsed<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Failure> {
        let Some(value) = self.value(name)? else {
            return Ok(None);
        };
        let text = value.to_string_lossy();
        match text.parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(Failure::Usage(format!("{name} cannot be {text:?}"))),
        }
    }

    /// Takes the flag `name` out; whether it is given.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|argument| argument != name);
        self.0.len() < before
    }

    /// The one thing beside the options, which is called `what`.
    pub fn one(self, what: &str) -> Result<PathBuf, Failure> {
        let mut rest = self.0;
        match (rest.pop(), rest.is_empty()) {
            (Some(only), true) if !only.to_string_lossy().starts_with("--") => Ok(only.into()),
            (Some(last), _) => Err(Failure::Usage(format!(
                "{} is one too many",
                last.to_string_lossy()
            ))),
            (None, _) => Err(Failure::Usage(format!("{what} is missing"))),
        }
    }

    /// Nothing is left over.
    pub fn none(self) -> Result<(), Failure> {
        match self.0.first() {
            None => Ok(()),
            Some(first) => Err(Failure::Usage(format!(
                "{} has no meaning here",
                first.to_string_lossy()
            ))),
        }
    }
}
