//! Options and files of the command line.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use harp_transport::ClientConfig;

pub struct Arguments {
    options: HashMap<String, String>,
    pub files: Vec<PathBuf>,
}

impl Arguments {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut options = HashMap::new();
        let mut files = Vec::new();
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                Some(name) => {
                    let value = words
                        .next()
                        .ok_or_else(|| format!("{word} needs a value"))?;
                    options.insert(name.to_owned(), value);
                }
                None => files.push(PathBuf::from(word)),
            }
        }
        Ok(Arguments { options, files })
    }

    pub fn optional(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    pub fn text(&self, name: &str) -> Result<&str, String> {
        self.optional(name)
            .ok_or_else(|| format!("--{name} is missing"))
    }

    pub fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        self.optional(name).map_or(Ok(default), |text| {
            text.parse()
                .map_err(|_| format!("--{name} {text}: not a number"))
        })
    }

    /// The text of the file that an option names.
    pub fn file(&self, name: &str) -> Result<String, String> {
        read(Path::new(self.text(name)?))
    }

    /// Who connects to the server: a user's credentials.
    pub fn user(&self) -> Result<ClientConfig, String> {
        let folder = Path::new(self.text("user")?);
        Ok(ClientConfig {
            ca_pem: read(&folder.join("ca.pem"))?,
            cert_pem: read(&folder.join("client.pem"))?,
            key_pem: read(&folder.join("client.key"))?,
            server_name: "harp-server".to_owned(),
        })
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
