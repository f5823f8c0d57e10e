//! A network that fails, and a session over it.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;

use harp_transport::{
    accept_with, connect_with, ClientConfig, Hello, Keeper, Keeping, Resuming, ServerConfig, Tuning,
};

use super::{welcome, Authority, End, TIMEOUT};

/// Numbers that look random, and the same for one seed.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

/// What a connection may carry up and down before it is reset.
pub type Share = [usize; 2];
pub const ENDLESS: Share = [usize::MAX; 2];

/// The state of the network.
#[derive(Default)]
pub struct Weather {
    pub cuts: AtomicUsize,
    pub connections: AtomicUsize,
    /// Connections are accepted and carry nothing from now on; those that are open, too.
    pub still: AtomicBool,
    /// The open connections are reset.
    pub cut_now: AtomicBool,
    /// New connections are reset at once.
    pub refuses: AtomicBool,
}

/// Carries connections to `upstream`, each as far as `share` says of its number.
pub fn network(
    upstream: String,
    weather: Arc<Weather>,
    mut share: impl FnMut(usize) -> Share + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            if weather.refuses.load(Ordering::SeqCst) {
                reset(client);
                continue;
            }
            let Ok(server) = TcpStream::connect(&upstream) else {
                return;
            };
            let share = share(weather.connections.fetch_add(1, Ordering::SeqCst));
            let weather = weather.clone();
            thread::spawn(move || carry([client, server], share, &weather));
        }
    });
    address
}

fn carry(ends: [TcpStream; 2], mut share: Share, weather: &Weather) {
    let mut piece = [0; 4096];
    ends.iter().for_each(|end| end.set_nodelay(true).unwrap());
    'weather: loop {
        if weather.cut_now.load(Ordering::SeqCst) {
            break;
        }
        let still = weather.still.load(Ordering::SeqCst);
        let entry = |end: &TcpStream| libc::pollfd {
            fd: if still { -1 } else { end.as_raw_fd() },
            events: libc::POLLIN,
            revents: 0,
        };
        let mut entries = [entry(&ends[0]), entry(&ends[1])];
        // SAFETY: two live entries.
        unsafe { libc::poll(entries.as_mut_ptr(), 2, 5) };
        for way in 0..2 {
            if entries[way].revents == 0 {
                continue;
            }
            let most = piece.len().min(share[way]);
            let len = match (&ends[way]).read(&mut piece[..most]) {
                Ok(0) if share[way] > 0 => {
                    // An orderly end is passed on, when the other way is done too.
                    let _ = ends[1 - way].shutdown(std::net::Shutdown::Write);
                    let _ = std::io::copy(&mut &ends[1 - way], &mut &ends[way]);
                    return;
                }
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break 'weather,
            };
            if (&ends[1 - way]).write_all(&piece[..len]).is_err() {
                break 'weather;
            }
            share[way] -= len;
            if share[way] == 0 {
                weather.cuts.fetch_add(1, Ordering::SeqCst);
                break 'weather;
            }
        }
    }
    ends.into_iter().for_each(reset);
}

fn reset(end: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let pointer = std::ptr::from_ref(&linger).cast();
    let len = size_of_val(&linger) as libc::socklen_t;
    // SAFETY: the value is live for the call, and `len` is its size.
    unsafe {
        libc::setsockopt(
            end.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            pointer,
            len,
        )
    };
}

/// A session whose connections run through a network.
pub struct Session {
    pub client: End,
    pub server: End,
    pub weather: Arc<Weather>,
    pub keeper: Keeper,
    /// Where the network is entered, and where the server listens.
    pub address: String,
    pub upstream: String,
    pub authority: Authority,
}

pub struct Plan {
    pub tuning: Tuning,
    pub keeping: Keeping,
    pub resuming: Resuming,
    pub hello: Hello,
}

impl Plan {
    pub fn new(tuning: Tuning) -> Plan {
        Plan {
            tuning,
            keeping: Keeping {
                grace: TIMEOUT,
                observer: Arc::new(|_| ()),
            },
            resuming: Resuming::default(),
            hello: Hello::current(),
        }
    }

    pub fn connect(self, share: impl FnMut(usize) -> Share + Send + 'static) -> Session {
        let authority = Authority::new("pool");
        let config = authority.server();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = listener.local_addr().unwrap().to_string();
        let weather = Arc::new(Weather::default());
        let address = network(upstream.clone(), weather.clone(), share);
        let (first, opened) = mpsc::channel();
        let (tuning, mut keeping) = (self.tuning.clone(), Some(self.keeping));
        let keeper: Arc<Mutex<Option<Keeper>>> = Arc::default();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                if let Some(keeping) = keeping.take() {
                    let incoming = accept_with(stream, &config, TIMEOUT, tuning.clone()).unwrap();
                    let (sender, receiver) = incoming.welcome_and_keep(welcome(), keeping).unwrap();
                    *keeper.lock().unwrap() = Some(sender.keeper());
                    first.send(End { sender, receiver }).unwrap();
                    continue;
                }
                let (config, tuning, keeper) = (config.clone(), tuning.clone(), keeper.clone());
                thread::spawn(move || serve_again(stream, &config, tuning, &keeper));
            }
        });
        let client: ClientConfig = authority.client();
        let (sender, receiver, _, _) = connect_with(
            &address,
            &client,
            self.hello,
            TIMEOUT,
            self.tuning,
            self.resuming,
        )
        .unwrap();
        let server = opened.recv_timeout(TIMEOUT).unwrap();
        Session {
            client: End { sender, receiver },
            keeper: server.sender.keeper(),
            server,
            weather,
            address,
            upstream,
            authority,
        }
    }
}

fn serve_again(
    stream: TcpStream,
    config: &ServerConfig,
    tuning: Tuning,
    keeper: &Mutex<Option<Keeper>>,
) {
    let Ok(incoming) = accept_with(stream, config, TIMEOUT, tuning) else {
        return;
    };
    let keeper = keeper.lock().unwrap().clone().expect("a first connection");
    let _ = keeper.resume(incoming);
}
