//! A network between two machines, made of a proxy: it delays and slows down, keeps the order and
//! loses nothing.
//!
//! Each direction of a connection is one thread that sleeps until bytes come or are nearly due. A byte
//! leaves when the line has carried those before it, and is there half a round trip later.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes that are read at once for a line with a rate: 0.13 ms of 1 Gbit/s.
const PIECE: usize = 16 << 10;
/// Bytes that are read at once for one without.
const LARGE_PIECE: usize = 256 << 10;
/// Bytes that are under way on a line without a rate: 0.06 s of 1 GB/s, twice the longest delay.
const UNLIMITED: usize = 64 << 20;
/// Bytes that wait for a line with a rate before their sender has to.
const AHEAD: usize = 256 << 10;
/// A sleeper is woken up to 40 us late: the last of the way is polled for.
const SPIN: Duration = Duration::from_micros(60);

/// What a network is like.
#[derive(Clone, Copy)]
pub struct Line {
    /// From one end to the other, half a round trip.
    pub delay: Duration,
    /// Bits a second of each direction, if there is a limit.
    pub rate: Option<u64>,
}

impl Line {
    /// How long the line carries so many bytes.
    fn carrying(&self, bytes: usize) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(bytes as f64 * 8.0 / rate as f64)
        })
    }

    fn piece(&self) -> usize {
        self.rate.map_or(LARGE_PIECE, |_| PIECE)
    }

    /// Bytes that may be under way.
    fn bound(&self) -> usize {
        self.rate.map_or(UNLIMITED, |rate| {
            AHEAD + (self.delay.as_secs_f64() * rate as f64 / 8.0) as usize
        })
    }
}

/// What all connections have carried.
#[derive(Default)]
pub struct Carried {
    up: AtomicU64,
    down: AtomicU64,
    /// How often something went up after something had come down, the first time included: the round
    /// trips of a client that waits for each answer.
    turns: AtomicU64,
    /// The last bytes came down.
    came_down: AtomicBool,
    /// Nothing has gone up yet.
    began: AtomicBool,
}

impl Carried {
    fn count(&self, up: bool, bytes: usize) {
        let direction = if up { &self.up } else { &self.down };
        direction.fetch_add(bytes as u64, Ordering::Relaxed);
        if !up {
            self.came_down.store(true, Ordering::Relaxed);
        } else if self.came_down.swap(false, Ordering::Relaxed)
            || !self.began.swap(true, Ordering::Relaxed)
        {
            self.turns.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Bytes up, bytes down, turns.
    pub fn numbers(&self) -> [u64; 3] {
        [&self.up, &self.down, &self.turns].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Carries every connection that comes to `upstream` (`HOST:PORT`), for as long as the process lives.
pub fn serve(listener: &TcpListener, upstream: &str, line: Line, carried: &Arc<Carried>) {
    if line.rate.is_some() {
        // What waits in the kernel is under way too; connections have it from who listens.
        receive_at_most(listener, AHEAD as libc::c_int);
    }
    for client in listener.incoming() {
        let connected = client.and_then(|client| Ok((client, TcpStream::connect(upstream)?)));
        let Ok((client, server)) = connected else {
            continue; // the client sees its connection end
        };
        let _ = carry_both(client, server, line, carried);
    }
}

fn receive_at_most(listener: &TcpListener, bytes: libc::c_int) {
    // SAFETY: an option with an int as its value.
    unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
}

fn carry_both(
    client: TcpStream,
    server: TcpStream,
    line: Line,
    carried: &Arc<Carried>,
) -> io::Result<()> {
    for end in [&client, &server] {
        end.set_nodelay(true)?;
        end.set_nonblocking(true)?;
    }
    for up in [true, false] {
        let (client, server, carried) = (client.try_clone()?, server.try_clone()?, carried.clone());
        let count = move |bytes| carried.count(up, bytes);
        std::thread::spawn(move || {
            let (source, target) = if up {
                (&client, &server)
            } else {
                (&server, &client)
            };
            if carry(source, target, line, count).is_err() {
                // One end is gone, and the other is to know.
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            }
        });
    }
    Ok(())
}

/// Bytes under way.
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
    /// How many of them are there.
    arrived: usize,
}

/// Carries one direction until its source ends, which the target then sees.
fn carry(
    mut source: &TcpStream,
    mut target: &TcpStream,
    line: Line,
    count: impl Fn(usize),
) -> io::Result<()> {
    wake_on_time();
    let mut pieces: VecDeque<Piece> = VecDeque::new();
    let (mut under_way, mut ended) = (0, false);
    let mut line_free = Instant::now();
    let mut buffer = vec![0; line.piece()];
    loop {
        let mut target_full = false;
        while let Some(piece) = pieces.front_mut().filter(|it| it.due <= Instant::now()) {
            match target.write(&piece.bytes[piece.arrived..]) {
                Ok(bytes) => {
                    piece.arrived += bytes;
                    under_way -= bytes;
                    if piece.arrived == piece.bytes.len() {
                        pieces.pop_front();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    target_full = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if ended && pieces.is_empty() {
            return target.shutdown(Shutdown::Write);
        }
        let due = pieces.front().filter(|_| !target_full).map(|it| it.due);
        let wants_more = !ended && under_way < line.bound();
        if !sleep(source, wants_more, target, target_full, due) {
            continue;
        }
        match source.read(&mut buffer) {
            Ok(0) => ended = true,
            Ok(bytes) => {
                count(bytes);
                under_way += bytes;
                line_free = line_free.max(Instant::now()) + line.carrying(bytes);
                pieces.push_back(Piece {
                    due: line_free + line.delay,
                    bytes: buffer[..bytes].to_vec(),
                    arrived: 0,
                });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sleeps until something is to be read, if `reads`, or room to write, if `writes`, or it is nearly `due`;
/// says whether something is to be read.
fn sleep(
    source: &TcpStream,
    reads: bool,
    target: &TcpStream,
    writes: bool,
    due: Option<Instant>,
) -> bool {
    let wanted = |socket: &TcpStream, events: libc::c_short| libc::pollfd {
        // A negative number is passed over.
        fd: if events == 0 { -1 } else { socket.as_raw_fd() },
        events,
        revents: 0,
    };
    let mut both = [
        wanted(source, if reads { libc::POLLIN } else { 0 }),
        wanted(target, if writes { libc::POLLOUT } else { 0 }),
    ];
    let left = due.map(|due| due.saturating_duration_since(Instant::now()));
    let left = left.map(|left| left.saturating_sub(SPIN));
    let left = left.map(|left| libc::timespec {
        tv_sec: left.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(left.subsec_nanos()),
    });
    let timeout = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: two pollfds and a time that live until the call returns.
    unsafe { libc::ppoll(both.as_mut_ptr(), 2, timeout, std::ptr::null()) };
    both[0].revents != 0
}

/// The kernel may wake a sleeper 50 us late to save power; this thread it wakes on time.
fn wake_on_time() {
    // SAFETY: a setting of the calling thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    /// A server that sends everything back, behind a line; and what the line has carried.
    fn echo_behind(line: Line) -> (TcpStream, Arc<Carried>) {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let (echo, proxy) = (listen(), listen());
        let upstream = echo.local_addr().expect("bound").to_string();
        let address = proxy.local_addr().expect("bound");
        let carried = Arc::new(Carried::default());
        let counts = carried.clone();
        std::thread::spawn(move || {
            let (mut socket, _) = echo.accept().expect("the proxy connects");
            let mut back = socket.try_clone().expect("a descriptor");
            io::copy(&mut socket, &mut back).expect("echo");
            back.shutdown(Shutdown::Write).expect("open");
        });
        std::thread::spawn(move || serve(&proxy, &upstream, line, &counts));
        (TcpStream::connect(address).expect("proxy"), carried)
    }

    fn pattern(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at * 31 % 251) as u8).collect()
    }

    #[test]
    fn each_answer_takes_a_round_trip_and_no_less() {
        for (round_trip, times) in [(0, 200), (100, 200), (1_000, 20), (30_000, 3)] {
            let delay = Duration::from_micros(round_trip) / 2;
            let (mut client, carried) = echo_behind(Line { delay, rate: None });
            let started = Instant::now();
            for number in 0..times {
                let (sent, mut got) = ([number as u8; 64], [0; 64]);
                client.write_all(&sent).expect("open");
                client.read_exact(&mut got).expect("open");
                assert_eq!(sent, got);
            }
            assert!(started.elapsed() >= delay * 2 * times);
            let bytes = u64::from(times) * 64;
            assert_eq!(carried.numbers(), [bytes, bytes, u64::from(times)]);
        }
    }

    #[test]
    fn what_is_under_way_does_not_wait_for_answers() {
        let delay = Duration::from_secs(20);
        let (mut client, carried) = echo_behind(Line { delay, rate: None });
        client.set_nodelay(true).expect("an option");
        for byte in pattern(100) {
            client.write_all(&[byte]).expect("open");
        }
        while carried.numbers() != [100, 0, 1] {
            assert_eq!(carried.numbers()[1], 0);
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_rate_holds_both_ways_and_nothing_is_lost() {
        let rate = 80_000_000; // 10 MB/s
        let line = Line {
            delay: Duration::from_millis(1),
            rate: Some(rate),
        };
        let (mut client, carried) = echo_behind(line);
        let sent = pattern(2_000_000);
        let started = Instant::now();
        let mut writing = client.try_clone().expect("a descriptor");
        let copy = sent.clone();
        let writer = std::thread::spawn(move || {
            writing.write_all(&copy).expect("open");
            writing.shutdown(Shutdown::Write).expect("open");
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).expect("open");
        assert!(sent == got);
        writer.join().expect("no panic");
        // Both ways at once: 0.2 s and a little, and never less.
        assert!(started.elapsed() >= Duration::from_millis(200));
        assert_eq!(carried.numbers()[..2], [2_000_000; 2]);
    }

    #[test]
    fn a_sender_waits_for_a_line_that_is_full() {
        let line = Line {
            delay: Duration::from_secs(1),
            rate: Some(8_000_000),
        };
        assert_eq!(line.bound(), AHEAD + 1_000_000);
        let (mut client, carried) = echo_behind(line);
        client.set_nonblocking(true).expect("an option");
        let piece = vec![0; 1 << 20];
        let mut taken = 0;
        let end = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end {
            taken += client.write(&piece).unwrap_or(0);
        }
        let [up, ..] = carried.numbers();
        assert!(taken as u64 >= up);
        assert!(up as usize <= line.bound() + PIECE);
    }

    #[test]
    fn a_reset_reaches_the_other_end() {
        let line = Line {
            delay: Duration::from_micros(50),
            rate: None,
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let proxy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let upstream = listener.local_addr().expect("bound").to_string();
        let address = proxy.local_addr().expect("bound");
        std::thread::spawn(move || serve(&proxy, &upstream, line, &Arc::default()));
        let mut client = TcpStream::connect(address).expect("proxy");
        drop(listener.accept().expect("the proxy connects"));
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    }
}
