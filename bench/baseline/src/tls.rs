//! TLS 1.3 by the stock API of rustls, with the cipher that a session would have.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, cipher_suite as suite};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use crate::exchange::Waiting;
use crate::Failure;

const SERVER_NAME: &str = "harp-server";

fn provider() -> Arc<CryptoProvider> {
    #[cfg(target_arch = "x86_64")]
    let has_aes = std::is_x86_feature_detected!("aes");
    #[cfg(not(target_arch = "x86_64"))]
    let has_aes = true;
    let cipher = if has_aes {
        suite::TLS13_AES_128_GCM_SHA256
    } else {
        suite::TLS13_CHACHA20_POLY1305_SHA256
    };
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher],
        ..aws_lc_rs::default_provider()
    })
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    Ok(CertificateDer::pem_file_iter(Path::new(path))?.collect::<Result<_, _>>()?)
}

pub fn server(chain: &str, key: &str) -> Result<Arc<ServerConfig>, Failure> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(
            certificates(chain)?,
            PrivateKeyDer::from_pem_file(Path::new(key))?,
        )?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

pub fn accept(
    config: Arc<ServerConfig>,
    socket: Waiting,
) -> std::io::Result<StreamOwned<ServerConnection, Waiting>> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    Ok(StreamOwned::new(connection, socket))
}

pub fn connect(
    ca: &str,
    socket: Waiting,
) -> Result<StreamOwned<ClientConnection, Waiting>, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate)?;
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(SERVER_NAME)?)?;
    Ok(StreamOwned::new(connection, socket))
}
