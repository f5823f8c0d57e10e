//! Every way to get no session, and what the person who started the program is told.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use harp_transport::{
    accept, connect, AcceptError, ClientConfig, ConnectError, Hello, Refused, ServerConfig, Tuning,
};
use rcgen::date_time_ymd;
use support::{handshake, listen, Authority, SERVER_NAME, TIMEOUT};

/// For what is to time out; what comes before it must be done by then, on a busy machine too.
const SHORT: Duration = Duration::from_secs(3);

fn connect_to(address: &str, config: &ClientConfig, timeout: Duration) -> ConnectError {
    connect(address, config, Hello::current(), timeout)
        .err()
        .expect("no session")
}

/// What the two ends say of a handshake that fails.
fn fail(client: &ClientConfig, server: &ServerConfig) -> (ConnectError, AcceptError) {
    let tuning = (Tuning::default(), Tuning::default());
    let (client, server) = handshake(client, server, Hello::current(), tuning);
    (
        client.err().expect("no session"),
        server.err().expect("no session"),
    )
}

#[test]
fn nothing_listens_or_the_address_is_none() {
    let config = Authority::new("pool").client();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(
        connect_to(&free.to_string(), &config, TIMEOUT),
        ConnectError::Refused
    );
    let error = connect_to("no port here", &config, TIMEOUT);
    assert!(matches!(error, ConnectError::Resolve(_)), "{error}");
}

#[test]
fn a_silent_server_is_not_waited_for_forever() {
    let config = Authority::new("pool").client();
    let address = listen(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    assert_eq!(
        connect_to(&address, &config, SHORT),
        ConnectError::TimedOut("the TLS handshake")
    );
}

#[test]
fn other_protocols_are_told_from_tls() {
    let config = Authority::new("pool").client();
    for banner in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "\0\0\0\0\0",
    ] {
        let address = listen(move |mut stream| {
            stream.write_all(banner.as_bytes()).unwrap();
            drop(stream.read_to_end(&mut Vec::new()));
        });
        assert_eq!(
            connect_to(&address, &config, TIMEOUT),
            ConnectError::NotTls,
            "{banner:?}"
        );
    }
    let address = listen(drop);
    let error = connect_to(&address, &config, TIMEOUT);
    assert!(matches!(error, ConnectError::Closed(_)), "{error}");
}

#[test]
fn a_server_that_ends_the_handshake_in_the_middle_is_a_closed_connection() {
    let config = Authority::new("pool").client();
    // The beginning of a TLS record that never ends.
    let address = listen(|mut stream| stream.write_all(&[22, 3, 3, 0, 100, 2, 0]).unwrap());
    let error = connect_to(&address, &config, TIMEOUT);
    assert!(matches!(error, ConnectError::Closed(_)), "{error}");
    // A record of its largest size, and garbage in it.
    let address = listen(|mut stream| {
        stream.write_all(&[22, 3, 3, 0x40, 0]).unwrap();
        let _ = stream.write_all(&[7; 0x4000]);
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let error = connect_to(&address, &config, TIMEOUT);
    assert!(matches!(error, ConnectError::Tls(_)), "{error}");
}

#[test]
fn certificates_of_another_pool_are_refused_on_either_side() {
    let (ours, other) = (Authority::new("pool"), Authority::new("other"));
    let (client, server) = fail(&ours.client(), &other.server());
    assert_eq!(client, ConnectError::UnknownIssuer);
    assert_eq!(server, AcceptError::ServerCertificateRefused("unknown_ca"));

    let stranger = ClientConfig {
        ca_pem: ours.pem(),
        ..other.client()
    };
    let (client, server) = fail(&stranger, &ours.server());
    assert!(
        matches!(client, ConnectError::ClientCertificateRefused(_)),
        "{client}"
    );
    assert!(
        matches!(server, AcceptError::ClientCertificate(_)),
        "{server}"
    );
}

#[test]
fn certificates_out_of_their_time_are_told_apart() {
    let authority = Authority::new("pool");
    let server = |from, to| {
        let (cert_pem, key_pem) = authority.issue(&[SERVER_NAME], &[], |params| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        });
        ServerConfig {
            ca_pem: authority.pem(),
            cert_pem,
            key_pem,
        }
    };
    let error = fail(&authority.client(), &server(2000, 2001)).0;
    assert!(matches!(error, ConnectError::Expired { .. }), "{error}");
    assert!(
        error.to_string().contains("2001-01-01 00:00 UTC"),
        "{error}"
    );
    let error = fail(&authority.client(), &server(4000, 4001)).0;
    assert!(matches!(error, ConnectError::NotYetValid { .. }), "{error}");
    assert!(
        error.to_string().contains("4000-01-01 00:00 UTC"),
        "{error}"
    );

    let (cert_pem, key_pem) = authority.issue(&[], &[support::USER], |params| {
        params.not_after = date_time_ymd(2001, 1, 1);
    });
    let expired = ClientConfig {
        cert_pem,
        key_pem,
        ..authority.client()
    };
    let (client, server) = fail(&expired, &authority.server());
    assert_eq!(
        client,
        ConnectError::ClientCertificateRefused("certificate_expired")
    );
    assert!(
        matches!(server, AcceptError::ClientCertificate(_)),
        "{server}"
    );
}

#[test]
fn a_certificate_for_another_name_says_both_names() {
    let authority = Authority::new("pool");
    let (cert_pem, key_pem) = authority.issue(&["other-server"], &[], |_| {});
    let server = ServerConfig {
        ca_pem: authority.pem(),
        cert_pem,
        key_pem,
    };
    let (client, _) = fail(&authority.client(), &server);
    let ConnectError::NameMismatch {
        expected,
        presented,
    } = &client
    else {
        panic!("{client}")
    };
    assert_eq!(expected, SERVER_NAME);
    assert!(
        presented.iter().any(|name| name.contains("other-server")),
        "{presented:?}"
    );
}

#[test]
fn unusable_credentials_are_found_before_anything_is_sent() {
    let authority = Authority::new("pool");
    let good = authority.client();
    let broken = [
        ClientConfig {
            ca_pem: String::new(),
            ..good.clone()
        },
        ClientConfig {
            cert_pem: "no PEM".to_owned(),
            ..good.clone()
        },
        ClientConfig {
            key_pem: good.cert_pem.clone(),
            ..good.clone()
        },
        ClientConfig {
            key_pem: authority.client().key_pem,
            ..good.clone()
        },
        ClientConfig {
            server_name: "not a name!".to_owned(),
            ..good.clone()
        },
    ];
    for config in broken {
        let error = connect_to("127.0.0.1:1", &config, TIMEOUT);
        assert!(matches!(error, ConnectError::Credentials(_)), "{error}");
    }
}

/// A server with stock rustls that offers `protocols` and then does as it likes.
fn stock_tls_server(
    authority: &Authority,
    protocols: &[&str],
    act: impl FnOnce(&mut dyn ReadWrite) + Send + 'static,
) -> String {
    use rustls::pki_types::pem::PemObject;
    let server = authority.server();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![PemObject::from_pem_slice(server.cert_pem.as_bytes()).unwrap()];
    let key = PemObject::from_pem_slice(server.key_pem.as_bytes()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let config = Arc::new(config);
    listen(move |stream| {
        let connection = rustls::ServerConnection::new(config).unwrap();
        act(&mut rustls::StreamOwned::new(connection, stream));
    })
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn tls_without_http2_is_not_grpc() {
    let authority = Authority::new("pool");
    for protocols in [&[][..], &["http/1.1"][..]] {
        let address = stock_tls_server(&authority, protocols, |stream| {
            drop(stream.read(&mut [0; 100]));
        });
        let error = connect_to(&address, &authority.client(), TIMEOUT);
        assert!(matches!(error, ConnectError::NotGrpc(_)), "{error}");
    }
    let address = stock_tls_server(&authority, &["h2"], |stream| {
        drop(stream.read(&mut [0; 100]));
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let error = connect_to(&address, &authority.client(), TIMEOUT);
    assert!(matches!(error, ConnectError::NotGrpc(_)), "{error}");
}

#[test]
fn a_server_that_takes_the_greeting_and_says_nothing_times_out() {
    let authority = Authority::new("pool");
    let address = stock_tls_server(&authority, &["h2"], |stream| {
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let error = connect_to(&address, &authority.client(), SHORT);
    assert_eq!(
        error,
        ConnectError::TimedOut("the server's answer to the greeting")
    );
}

#[test]
fn a_refusal_arrives_in_the_servers_words() {
    let authority = Authority::new("pool");
    let server = authority.server();
    let address = listen(move |stream| {
        let incoming = accept(stream, &server, TIMEOUT).unwrap();
        incoming.refuse(Refused {
            text: "no device\x1b is free".to_owned(),
            ..Refused::default()
        });
    });
    assert_eq!(
        connect_to(&address, &authority.client(), TIMEOUT),
        ConnectError::SessionRefused("no device  is free".to_owned())
    );
}

/// What a server says of a client that does `act` on the bare connection.
fn accept_from(timeout: Duration, act: impl FnOnce(&mut TcpStream) + Send) -> AcceptError {
    let server = Authority::new("pool").server();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || act(&mut TcpStream::connect(address).unwrap()));
        let (stream, _) = listener.accept().unwrap();
        accept(stream, &server, timeout).err().expect("no session")
    })
}

#[test]
fn clients_that_do_not_speak_tls_are_dropped() {
    let hold = |stream: &mut TcpStream| drop(stream.read_to_end(&mut Vec::new()));
    let error = accept_from(TIMEOUT, |stream| {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        hold(stream);
    });
    assert_eq!(error, AcceptError::NotTls);
    let error = accept_from(TIMEOUT, |_| {});
    assert!(matches!(error, AcceptError::Closed(_)), "{error}");
    assert_eq!(
        accept_from(SHORT, hold),
        AcceptError::TimedOut("the TLS handshake")
    );
    // Handshake records without end, each too small to mean anything.
    let error = accept_from(SHORT, |stream| {
        while stream.write_all(&[22, 3, 1, 0, 1, 1]).is_ok() {}
    });
    assert!(
        matches!(error, AcceptError::Tls(_) | AcceptError::TimedOut(_)),
        "{error}"
    );
}
