//! The options of a replay.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::session::Lost;
use super::tolerance::Tolerance;
use crate::arguments::Arguments;
use crate::Failure;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Off,
    /// The codes that calls return.
    Returns,
    /// Also all data from the device, and printed text.
    Outputs,
    /// The data that came last from each range, and nothing else.
    Final,
}

impl Check {
    const NAMES: [(&'static str, Check); 4] = [
        ("off", Check::Off),
        ("returns", Check::Returns),
        ("outputs", Check::Outputs),
        ("final", Check::Final),
    ];

    pub fn name(self) -> &'static str {
        let mut names = Check::NAMES.iter();
        names
            .find(|(_, check)| *check == self)
            .map_or("", |(name, _)| name)
    }

    pub fn of_codes(self) -> bool {
        matches!(self, Check::Returns | Check::Outputs)
    }

    pub fn of_data(self) -> bool {
        matches!(self, Check::Outputs | Check::Final)
    }
}

/// How long a replay waits for a device that says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Patience(pub Option<Duration>);

impl Patience {
    /// As long as a kernel of a slow device may take.
    const USUAL: u64 = 120;

    /// What the command line says of it.
    ///
    /// # Errors
    /// For what is no number of seconds.
    pub fn parse(arguments: &mut Arguments) -> Result<Patience, Failure> {
        let seconds = arguments.parsed("--timeout")?.unwrap_or(Patience::USUAL);
        let seconds = (seconds > 0).then_some(seconds);
        Ok(Patience(seconds.map(Duration::from_secs)))
    }

    /// Nothing has come since `since`, while `what` is waited for.
    ///
    /// # Errors
    /// Where that is too long.
    pub fn allows(self, since: Instant, what: &impl Fn() -> String) -> Result<(), Lost> {
        match self.0 {
            Some(most) if since.elapsed() >= most => Err(self.exhausted(&what())),
            _ => Ok(()),
        }
    }

    /// It has waited too long for that.
    pub fn exhausted(self, what: &str) -> Lost {
        Lost(format!(
            "the device has said nothing for {} s, and the replay waits for {what}; see what differs up to there \
             with --to, or wait longer with --timeout SECONDS",
            self.0.unwrap_or_default().as_secs()
        ))
    }
}

/// Where the server is, and who we are to it.
#[derive(Clone, Debug)]
pub struct Server {
    /// HOST:PORT.
    pub address: String,
    /// The folder with ca.pem, client.pem and client.key.
    pub credentials: PathBuf,
    /// The name in its certificate.
    pub name: String,
}

impl Server {
    /// What the command line says of it.
    ///
    /// # Errors
    /// For a server without credentials.
    pub fn parse(arguments: &mut Arguments) -> Result<Option<Server>, Failure> {
        let address = arguments.parsed("--server")?;
        let credentials = arguments.value("--credentials")?;
        let name = arguments.parsed("--server-name")?;
        let Some(address) = address else {
            return Ok(None);
        };
        let credentials = credentials.ok_or_else(|| missing("--credentials DIR"))?;
        Ok(Some(Server {
            address,
            credentials: credentials.into(),
            name: name.unwrap_or_else(|| "harp-server".to_owned()),
        }))
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub trace: PathBuf,
    pub server: Server,
    pub check: Check,
    pub as_recorded: bool,
    pub repeat: u32,
    pub patience: Patience,
    /// Calls before this one are sent and not compared.
    pub from: u64,
    /// Calls after this one are not sent.
    pub to: Option<u64>,
    pub tolerance: Option<Tolerance>,
    /// Zeros are sent in place of bytes that the trace does not hold.
    pub synthesize: bool,
    /// Addresses in uploads are replaced too, where memory lies elsewhere.
    pub relocate_uploads: bool,
    /// Where the devices' addresses are to start, instead of where they did.
    pub first_window: Option<u64>,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// For one that is wrong.
    pub fn parse(mut arguments: Arguments) -> Result<Options, Failure> {
        let check = match arguments.parsed::<String>("--check")? {
            None => Check::Outputs,
            Some(name) => one_of("--check", &name, &Check::NAMES)?,
        };
        let as_recorded = match arguments.parsed::<String>("--timing")? {
            None => false,
            Some(name) => one_of("--timing", &name, &[("fast", false), ("as-recorded", true)])?,
        };
        let element = arguments.parsed::<String>("--element")?;
        let tolerance = match arguments.parsed::<String>("--tolerance")? {
            None => None,
            Some(text) => Some(
                Tolerance::parse(&text, element.as_deref().unwrap_or("f32"))
                    .ok_or_else(|| Failure::Usage(format!("--tolerance cannot be {text:?}")))?,
            ),
        };
        let server = Server::parse(&mut arguments)?;
        let mut options = Options {
            server: server.ok_or_else(|| missing("--server HOST:PORT"))?,
            check,
            as_recorded,
            patience: Patience::parse(&mut arguments)?,
            repeat: arguments.parsed("--repeat")?.unwrap_or(1).max(1),
            from: arguments.parsed("--from")?.unwrap_or(0),
            to: arguments.parsed("--to")?,
            tolerance,
            synthesize: arguments.flag("--synthesize"),
            relocate_uploads: arguments.flag("--relocate-uploads"),
            first_window: arguments.parsed("--first-window")?,
            trace: PathBuf::new(),
        };
        options.trace = arguments.one("TRACE")?;
        Ok(options)
    }
}

fn missing(what: &str) -> Failure {
    Failure::Usage(format!("{what} is missing"))
}

fn one_of<T: Copy>(option: &str, name: &str, known: &[(&str, T)]) -> Result<T, Failure> {
    let found = known.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, value)| *value)
        .ok_or_else(|| Failure::Usage(format!("{option} cannot be {name:?}")))
}
