//! Finds the server name in the first bytes of a TLS connection.
//!
//! This is the only parser that a stranger's bytes meet outside a jailed worker, so it does one thing: it walks the
//! ClientHello of RFC 8446 §4.1.2 far enough to read the `server_name` extension of RFC 6066 §3. It copies into one
//! buffer that the caller owns, allocates nothing, never reads past a declared length, and leaves every other judgement
//! (versions, ciphers, certificates) to the TLS library of the process that gets the connection.

/// Most bytes of a connection that are looked at before it is given up, record headers included.
pub const LARGEST_HELLO: usize = 16 * 1024;

/// A ClientHello may be split over TLS records; more pieces than this is somebody wasting our time.
const MOST_RECORDS: usize = 8;

const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
const CONTENT_HANDSHAKE: u8 = 22;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const NAME_TYPE_HOST: u8 = 0;
const LONGEST_NAME: usize = 253;

/// What the bytes seen so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// Undecided until this many bytes of the connection have arrived.
    Needs(usize),
    /// A whole ClientHello; `None` when it names no server.
    Hello(Option<&'a str>),
}

/// Why a connection is not one for this port, as a phrase that follows "refused: ".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub &'static str);

/// Reads the server name from `bytes`, the beginning of a connection. `joined` receives the handshake message with the
/// record headers taken out, because a message may span records.
pub fn server_name<'a>(
    bytes: &[u8],
    joined: &'a mut [u8; LARGEST_HELLO],
) -> Result<Seen<'a>, Refusal> {
    let mut at = 0;
    let mut filled = 0;
    for _ in 0..MOST_RECORDS {
        let header = &bytes[at..];
        check_record_start(header)?;
        if header.len() < RECORD_HEADER {
            return needs(at + RECORD_HEADER);
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 {
            return Err(Refusal("TLS handshake record without content"));
        }
        let end = at + RECORD_HEADER + length;
        if bytes.len() < end {
            return needs(end);
        }
        // `needs` refused anything beyond LARGEST_HELLO, and the joined bytes are fewer than those read.
        joined[filled..filled + length].copy_from_slice(&bytes[at + RECORD_HEADER..end]);
        filled += length;
        at = end;

        if joined[0] != HANDSHAKE_CLIENT_HELLO {
            return Err(Refusal(
                "TLS handshake that does not begin with a ClientHello",
            ));
        }
        if filled < HANDSHAKE_HEADER {
            continue;
        }
        let whole = HANDSHAKE_HEADER
            + usize::from(joined[1]) * 65536
            + usize::from(joined[2]) * 256
            + usize::from(joined[3]);
        if whole > LARGEST_HELLO {
            return Err(TOO_LARGE);
        }
        if filled >= whole {
            return Ok(Seen::Hello(hello_name(&joined[HANDSHAKE_HEADER..whole])?));
        }
    }
    Err(Refusal("ClientHello in too many TLS records"))
}

const TOO_LARGE: Refusal = Refusal("ClientHello larger than 16 KiB");

fn needs<'a>(count: usize) -> Result<Seen<'a>, Refusal> {
    if count > LARGEST_HELLO {
        Err(TOO_LARGE)
    } else {
        Ok(Seen::Needs(count))
    }
}

/// Judges as many bytes of a record header as have arrived, so that another protocol is refused on its first byte.
fn check_record_start(header: &[u8]) -> Result<(), Refusal> {
    match header {
        [] | [CONTENT_HANDSHAKE] | [CONTENT_HANDSHAKE, 3, ..] => Ok(()),
        [CONTENT_HANDSHAKE, ..] => Err(Refusal("not TLS: unknown record version")),
        [b'A'..=b'Z', ..] => Err(Refusal("not TLS: looks like HTTP or gRPC in the clear")),
        _ => Err(Refusal("not TLS: first byte is no handshake record")),
    }
}

fn hello_name(body: &[u8]) -> Result<Option<&str>, Refusal> {
    let mut hello = Cursor(body);
    hello.take(2 + 32)?; // legacy_version, random
    hello.prefixed_u8()?; // legacy_session_id
    hello.prefixed_u16()?; // cipher_suites
    hello.prefixed_u8()?; // legacy_compression_methods
    if hello.0.is_empty() {
        return Ok(None);
    }
    let mut extensions = Cursor(hello.prefixed_u16()?);
    let mut name = None;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.prefixed_u16()?;
        if kind == EXTENSION_SERVER_NAME {
            if name.is_some() {
                return Err(Refusal("ClientHello with two server_name extensions"));
            }
            name = host_name(content)?;
        }
    }
    Ok(name)
}

fn host_name(extension: &[u8]) -> Result<Option<&str>, Refusal> {
    let mut list = Cursor(Cursor(extension).prefixed_u16()?);
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let content = list.prefixed_u16()?;
        if kind == NAME_TYPE_HOST {
            return printable_name(content).map(Some);
        }
    }
    Ok(None)
}

/// Accepts letters, digits, `-`, `.` and `_` only: the name goes into JSON, logs and look-ups.
fn printable_name(bytes: &[u8]) -> Result<&str, Refusal> {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if bytes.is_empty() || bytes.len() > LONGEST_NAME || !bytes.iter().all(is_plain) {
        return Err(Refusal("ClientHello whose server name is no host name"));
    }
    std::str::from_utf8(bytes).map_err(|_| TRUNCATED)
}

const TRUNCATED: Refusal = Refusal("ClientHello whose lengths do not add up");

/// The rest of a byte string; every read is checked against it.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Refusal> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, Refusal> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn prefixed_u8(&mut self) -> Result<&'a [u8], Refusal> {
        let count = self.u8()?;
        self.take(usize::from(count))
    }

    fn prefixed_u16(&mut self) -> Result<&'a [u8], Refusal> {
        let count = self.u16()?;
        self.take(usize::from(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello_message(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([4, 1, 2, 3, 4]);
        body.extend([0, 2, 0x13, 0x01]);
        body.extend([1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let length = (body.len() as u32).to_be_bytes();
        let mut message = vec![HANDSHAKE_CLIENT_HELLO, length[1], length[2], length[3]];
        message.extend(body);
        message
    }

    fn name_extension(name: &[u8]) -> Vec<u8> {
        let mut entry = vec![NAME_TYPE_HOST];
        entry.extend((name.len() as u16).to_be_bytes());
        entry.extend(name);
        let mut list = (entry.len() as u16).to_be_bytes().to_vec();
        list.extend(entry);
        let mut extension = vec![0, 0];
        extension.extend((list.len() as u16).to_be_bytes());
        extension.extend(list);
        extension
    }

    /// Splits a handshake message into records of at most `piece` bytes.
    fn records(message: &[u8], piece: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for part in message.chunks(piece) {
            out.extend([CONTENT_HANDSHAKE, 3, 1]);
            out.extend((part.len() as u16).to_be_bytes());
            out.extend(part);
        }
        out
    }

    fn read(bytes: &[u8]) -> Result<Option<String>, Refusal> {
        let mut joined = [0; LARGEST_HELLO];
        match server_name(bytes, &mut joined)? {
            Seen::Needs(count) => panic!("needs {count} of {}", bytes.len()),
            Seen::Hello(name) => Ok(name.map(str::to_owned)),
        }
    }

    #[test]
    fn finds_the_name_behind_other_extensions() {
        let mut extensions = vec![0, 43, 0, 3, 2, 3, 4];
        extensions.extend(name_extension(b"harp-server"));
        let bytes = records(&hello_message(&extensions), 1 << 14);
        assert_eq!(read(&bytes), Ok(Some("harp-server".to_owned())));
    }

    #[test]
    fn a_hello_without_a_name_is_a_hello() {
        assert_eq!(read(&records(&hello_message(&[]), 1 << 14)), Ok(None));
    }

    #[test]
    fn a_hello_split_over_records_is_joined() {
        let message = hello_message(&name_extension(b"pool.example"));
        assert_eq!(
            read(&records(&message, 20)),
            Ok(Some("pool.example".to_owned()))
        );
        assert_eq!(
            read(&records(&message, 2)),
            Err(Refusal("ClientHello in too many TLS records"))
        );
    }

    #[test]
    fn every_prefix_asks_for_more_and_never_for_less_than_it_has() {
        let bytes = records(&hello_message(&name_extension(b"harp-server")), 30);
        let mut joined = [0; LARGEST_HELLO];
        for length in 0..bytes.len() {
            match server_name(&bytes[..length], &mut joined) {
                Ok(Seen::Needs(count)) => assert!(count > length && count <= bytes.len()),
                other => panic!("{length} bytes: {other:?}"),
            }
        }
    }

    #[test]
    fn other_protocols_are_refused_on_their_first_bytes() {
        let clear = Refusal("not TLS: looks like HTTP or gRPC in the clear");
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Err(clear));
        assert_eq!(read(b"P"), Err(clear));
        assert_eq!(
            read(b"\0\0\0\x10"),
            Err(Refusal("not TLS: first byte is no handshake record"))
        );
        assert_eq!(
            read(&[22, 2, 0]),
            Err(Refusal("not TLS: unknown record version"))
        );
        assert!(
            read(&[22, 3, 1, 0, 4, 2, 0, 0, 0]).is_err(),
            "a ServerHello"
        );
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let good = hello_message(&name_extension(b"harp-server"));
        for (at, value) in [(38, 200), (4 + 34 + 5, 0xff), (good.len() - 12, 0xff)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(read(&records(&bad, 1 << 14)), Err(TRUNCATED), "byte {at}");
        }
        let mut huge = good.clone();
        huge[1] = 1;
        assert_eq!(read(&records(&huge, 1 << 14)), Err(TOO_LARGE));
        assert_eq!(read(&[22, 3, 1, 0x40, 0]), Err(TOO_LARGE));
    }

    #[test]
    fn names_that_could_escape_into_a_log_are_refused() {
        for name in [&b""[..], b"a\"b", b"a\nb", b"\xff\xfe", &[b'a'; 254]] {
            assert!(read(&records(&hello_message(&name_extension(name)), 1 << 14)).is_err());
        }
        let twice = [name_extension(b"a"), name_extension(b"b")].concat();
        assert!(read(&records(&hello_message(&twice), 1 << 14)).is_err());
    }

    #[test]
    fn damaged_hellos_end_in_a_verdict() {
        let good = records(&hello_message(&name_extension(b"harp-server")), 40);
        let mut joined = [0; LARGEST_HELLO];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        for _ in 0..200_000 {
            let mut bytes = good.clone();
            for _ in 0..1 + next() % 4 {
                let at = next() % bytes.len();
                bytes[at] = next() as u8;
            }
            bytes.truncate(next() % (bytes.len() + 1));
            if let Ok(Seen::Needs(count)) = server_name(&bytes, &mut joined) {
                assert!(count > bytes.len() && count <= LARGEST_HELLO);
            }
        }
    }
}
