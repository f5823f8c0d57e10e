//! Two ends of one session, in this process, that is kept when its connection breaks, as a pool's are.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use harp_transport::{
    accept, connect, ClientConfig, Hello, Keeping, Receiver, Sender, ServerConfig, Welcome,
};

const TIMEOUT: Duration = Duration::from_secs(60);

/// The client's end and the server's, with the folder's certificates.
pub fn linked(folder: &Path) -> ((Sender, Receiver), (Sender, Receiver)) {
    let file = |name| std::fs::read_to_string(folder.join(name)).unwrap();
    let client = ClientConfig {
        ca_pem: file("ca.pem"),
        cert_pem: file("client.pem"),
        key_pem: file("client.key"),
        server_name: "harp-server".to_owned(),
    };
    let server = ServerConfig {
        ca_pem: file("ca.pem"),
        cert_pem: file("server.pem"),
        key_pem: file("server.key"),
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connecting =
        thread::spawn(move || connect(&address, &client, Hello::current(), TIMEOUT).unwrap());
    let incoming = accept(listener.accept().unwrap().0, &server, TIMEOUT).unwrap();
    let keeping = Keeping {
        grace: TIMEOUT,
        observer: Arc::new(|_| {}),
    };
    let welcome = Welcome {
        session: "counted".to_owned(),
        ..Welcome::default()
    };
    let accepted = incoming.welcome_and_keep(welcome, keeping).unwrap();
    let (sender, receiver, ..) = connecting.join().unwrap();
    ((sender, receiver), accepted)
}
