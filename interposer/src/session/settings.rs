//! The `HARP_*` variables that the interposer reads, once, at the first call that needs them.
//! What each means for users is declared in `harp_client.settings`, the one list.

use std::path::PathBuf;
use std::time::Duration;

use harp_trace::payloads::Policies;
use once_cell::race::OnceBox;

/// How much the interposer says on stderr.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LogLevel {
    /// Nothing but what ends the session.
    Quiet,
    /// Causes of failures and unsupported calls, once each.
    Normal,
    /// Each connection, each wait.
    Debug,
}

/// A pool server that the program is to have devices of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port`.
    pub server: String,
    /// Under which lease of the pool's scheduler; none where the server's operator lets in who may.
    pub lease: Option<String>,
    /// Which of the devices that it offers, in the program's order; all where this is not said.
    pub devices: Option<Vec<usize>>,
}

impl Target {
    /// Reads `host:port`, `host:port/0+2` or `lease@host:port`.
    ///
    /// # Errors
    /// A sentence, where the devices are not numbers.
    fn parse(text: &str) -> Result<Target, String> {
        let (lease, place) = match text.split_once('@') {
            Some((lease, place)) => (Some(lease.to_owned()), place),
            None => (None, text),
        };
        let (server, devices) = match place.split_once('/') {
            Some((server, devices)) => (server, Some(devices)),
            None => (place, None),
        };
        let devices: Option<Result<Vec<usize>, _>> =
            devices.map(|list| list.split('+').map(str::parse).collect());
        let devices = devices.transpose().map_err(|_| {
            format!(
                "HARP_SERVER={text}: after the slash come numbers of devices, such as {server}/0+2"
            )
        })?;
        Ok(Target {
            server: server.to_owned(),
            lease,
            devices,
        })
    }

    /// The name that the server's certificate must carry, and by which the server knows the lease.
    pub fn server_name(&self, pool: &str) -> String {
        match &self.lease {
            Some(lease) => format!("{lease}.lease.{pool}"),
            None => pool.to_owned(),
        }
    }
}

/// Everything that the environment decides.
#[derive(Debug)]
pub struct Settings {
    /// `HARP_SERVER`: the pool servers, in the order in which their devices are numbered.
    pub servers: Result<Vec<Target>, String>,
    /// `HARP_CREDENTIALS`: a directory with `ca.pem`, `client.pem` and `client.key`.
    pub credentials: Option<PathBuf>,
    /// `HARP_SERVER_NAME`: the DNS name that the servers' certificates must carry.
    pub server_name: String,
    /// `HARP_EMBEDDED=1`: the pool ends with the `harp-run` that started it.
    pub embedded: bool,
    /// `HARP_SYNC=1`: every call waits for the server.
    pub every_call_waits: bool,
    /// `HARP_LIBCUDA`: the driver to call in this process, instead of a pool's.
    pub libcuda: Option<PathBuf>,
    /// `HARP_LOCAL_MEMORY`: bytes of each device that the program may take in local mode.
    pub local_memory: Result<Option<u64>, String>,
    /// `HARP_STATS=1`: print what the session did when the program ends.
    pub print_stats: bool,
    /// `HARP_PROFILE=1`: print what the calls cost when the program ends.
    pub print_profile: bool,
    /// `HARP_TRACE_SOCKET`: where the recorder of this run listens; none where nothing is recorded.
    pub trace_socket: Option<PathBuf>,
    /// `HARP_TRACE_PAYLOAD`: how much a trace keeps of what calls carry.
    pub trace_payload: Policies,
    /// `HARP_DEVICE_TIMES=1`: a trace holds how long calls took on the device.
    pub device_times: bool,
    /// `HARP_DEDUP=0`: send everything, and have nothing kept.
    pub deduplicate: bool,
    /// `HARP_LOG`: `quiet`, `normal` or `debug`.
    pub log: LogLevel,
    /// `HARP_CONNECT_TIMEOUT`, seconds.
    pub connect_timeout: Duration,
    /// `HARP_RESUME_LIMIT`, seconds: how long a broken connection may take to come back.
    pub resume_limit: Duration,
    /// `HARP_SPIN_US`: how long a waiting call spins before it sleeps; unset lets the transport decide.
    pub spin: Option<Duration>,
}

/// The settings of this process.
pub fn settings() -> &'static Settings {
    // No lock: a child that is forked while another thread makes them may ask for them too.
    static SETTINGS: OnceBox<Settings> = OnceBox::new();
    SETTINGS.get_or_init(|| Box::new(Settings::read(|name| std::env::var(name).ok())))
}

impl Settings {
    fn read(variable: impl Fn(&str) -> Option<String>) -> Settings {
        let text = |name| variable(name).filter(|value| !value.is_empty());
        let flag = |name| text(name).is_some_and(|value| value != "0");
        let number = |name| text(name).and_then(|value| value.parse::<f64>().ok());
        let seconds = |value: f64| Duration::try_from_secs_f64(value).ok();
        Settings {
            servers: text("HARP_SERVER").map_or(Ok(Vec::new()), |list| {
                list.split(',').map(str::trim).map(Target::parse).collect()
            }),
            credentials: text("HARP_CREDENTIALS").map(PathBuf::from),
            server_name: text("HARP_SERVER_NAME").unwrap_or_else(|| "harp-server".to_owned()),
            embedded: flag("HARP_EMBEDDED"),
            every_call_waits: flag("HARP_SYNC"),
            libcuda: text("HARP_LIBCUDA").map(PathBuf::from),
            local_memory: text("HARP_LOCAL_MEMORY")
                .map(|value| {
                    let bytes = value.parse();
                    bytes.map_err(|_| format!("HARP_LOCAL_MEMORY={value} is no number of bytes"))
                })
                .transpose(),
            print_stats: flag("HARP_STATS"),
            print_profile: flag("HARP_PROFILE"),
            trace_socket: text("HARP_TRACE_SOCKET").map(PathBuf::from),
            trace_payload: text("HARP_TRACE_PAYLOAD")
                .and_then(|value| Policies::parse(&value))
                .unwrap_or_default(),
            device_times: flag("HARP_DEVICE_TIMES"),
            deduplicate: variable("HARP_DEDUP").as_deref() != Some("0"),
            log: match text("HARP_LOG").as_deref() {
                Some("quiet") => LogLevel::Quiet,
                Some("debug") => LogLevel::Debug,
                _ => LogLevel::Normal,
            },
            connect_timeout: number("HARP_CONNECT_TIMEOUT")
                .and_then(seconds)
                .unwrap_or(Duration::from_secs(4)),
            resume_limit: number("HARP_RESUME_LIMIT")
                .and_then(seconds)
                .unwrap_or(Duration::from_secs(30)),
            spin: number("HARP_SPIN_US").and_then(|value| seconds(value / 1e6)),
        }
    }
}

/// One line on stderr, unless `HARP_LOG` asks for less than `level`.
pub fn say(level: LogLevel, line: &str) {
    if settings().log >= level {
        harp_driver_front::write_line(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Settings {
        Settings::read(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        let settings = read(&[]);
        assert_eq!(settings.servers, Ok(Vec::new()));
        assert_eq!(settings.local_memory, Ok(None));
        assert_eq!(settings.server_name, "harp-server");
        assert_eq!(settings.log, LogLevel::Normal);
        assert_eq!(settings.resume_limit, Duration::from_secs(30));
        assert!(!settings.every_call_waits && !settings.print_stats);
    }

    #[test]
    fn several_servers_are_told_apart() {
        let settings = read(&[("HARP_SERVER", "gpu1:7443/0+2,[::1]:7443")]);
        let target = |server: &str, devices| Target {
            server: server.to_owned(),
            lease: None,
            devices,
        };
        assert_eq!(
            settings.servers,
            Ok(vec![
                target("gpu1:7443", Some(vec![0, 2])),
                target("[::1]:7443", None)
            ])
        );
        let wrong = read(&[("HARP_SERVER", "gpu1:7443/first")]);
        assert!(wrong.servers.unwrap_err().contains("gpu1:7443/0+2"));
    }

    #[test]
    fn a_server_is_used_under_a_lease_by_its_name() {
        let settings = read(&[("HARP_SERVER", "l-1@gpu1:7443,l-2@gpu1:7443,[::1]:7443")]);
        let servers = settings.servers.unwrap();
        let names: Vec<_> = servers
            .iter()
            .map(|target| (target.server.as_str(), target.server_name("harp-server")))
            .collect();
        assert_eq!(
            names,
            [
                ("gpu1:7443", "l-1.lease.harp-server".to_owned()),
                ("gpu1:7443", "l-2.lease.harp-server".to_owned()),
                ("[::1]:7443", "harp-server".to_owned()),
            ]
        );
    }

    #[test]
    fn values_are_understood_and_nonsense_falls_back() {
        let settings = read(&[
            ("HARP_SYNC", "1"),
            ("HARP_STATS", "0"),
            ("HARP_LOG", "debug"),
            ("HARP_CONNECT_TIMEOUT", "-3"),
            ("HARP_RESUME_LIMIT", "0.5"),
            ("HARP_SPIN_US", "20"),
            ("HARP_LOCAL_MEMORY", "lots"),
        ]);
        assert!(settings
            .local_memory
            .unwrap_err()
            .contains("HARP_LOCAL_MEMORY=lots"));
        assert!(settings.every_call_waits && !settings.print_stats);
        assert_eq!(settings.log, LogLevel::Debug);
        assert_eq!(settings.connect_timeout, Duration::from_secs(4));
        assert_eq!(settings.resume_limit, Duration::from_millis(500));
        assert_eq!(settings.spin, Some(Duration::from_micros(20)));
    }
}
